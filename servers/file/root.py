"""The document root: what is served lies beneath it, and is a regular file or a directory.

How it stays correct
--------------------
*   Every open begins at the directory's own fd and cannot leave it (pollers.beneath).  The root
    may be renamed, and the process may change its directory: it stays the same root.
*   Nothing is checked before it is opened.  A file is opened with O_NONBLOCK, so that a FIFO or a
    device does not block, and fstat(2) of the open file then tells what it is.
*   One answer for all that is not served: missing, outside, a loop of links, a special file, no
    permission, a name too long.  A 403 here and a 404 there would tell a stranger what exists.
    What is the server's own trouble (EMFILE, EIO, ENOMEM) stays what it is.
*   A directory counts where it may be searched, as only then something below it can be served.

Paths are bytes relative to the root, without a leading slash and without "", "." and ".."
between the slashes; b"" is the root.  Others name nothing here, so that a file has one name only
in what is keyed by paths (the cache, the watches).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from types import TracebackType
from typing import Final, NamedTuple, Self

from pollers.beneath import LOOK, open_beneath

#: The most names that a listing has.
ENTRIES: Final = 4096

_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY

#: What is a 404: the path names nothing, or nothing that is served.
_NOT_FOUND: Final = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.EXDEV,  # it leads outside
    errno.EACCES,
    errno.EPERM,
    errno.ENAMETOOLONG,
    errno.EILSEQ,  # no name on this file system: not UTF-8
    errno.ENXIO,  # a socket, or a device that is not there
    errno.EOPNOTSUPP,  # a socket, on FreeBSD
    errno.ENODEV,
    errno.EBUSY,  # a device that somebody else has
    getattr(errno, "ENOMEDIUM", errno.ENODEV),
}


class LinkFound(FileNotFoundError):
    """The path has a symbolic link in it, and none was to be followed."""


class Identity(NamedTuple):
    """What changes when a file becomes another one or is written.

    ctime is among it because mtime can be set back (cp -p, rsync -t) and ctime cannot.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> Identity:
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class Entry(NamedTuple):
    """One name of a directory."""

    name: bytes
    directory: bool
    size: int
    #: Seconds since the epoch.
    modified: int


class Root:
    """A directory whose contents are served.

    Raises OSError, with one line that says what is wrong with it, where it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self.fd = os.open(path, LOOK | os.O_DIRECTORY | os.O_CLOEXEC)
        except ValueError as error:
            raise OSError(errno.EINVAL, f"cannot serve {path!r}: {error}") from None
        except OSError as error:
            reason = f"cannot serve {path!r}: {os.strerror(error.errno or 0)}"
            raise OSError(error.errno, reason) from None
        try:
            os.close(open_beneath(self.fd, b".", LOOK | os.O_DIRECTORY))
        except OSError as error:
            os.close(self.fd)
            reason = f"cannot serve {path!r}: its names cannot be opened: {error.strerror}"
            raise OSError(error.errno, reason) from None

    def reachable(self) -> bytes:
        """A path that leads to it from anywhere in this process.

        That of its fd in /proc, which goes on leading there when it is renamed; elsewhere the one
        that it was opened by, made absolute.
        """
        by_fd = b"/proc/self/fd/%d" % self.fd
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(by_fd), os.fstat(self.fd)):
                return by_fd
        return os.path.abspath(os.fsencode(self._path))

    def open(self, path: bytes, *, links: bool = True) -> tuple[int, os.stat_result]:
        """Open a regular file for reading; return its fd, for the caller to close, and its stat.

        Raises IsADirectoryError, FileNotFoundError for all that is a 404 (LinkFound where a link
        is all that was in the way of `links=False`), and other OSErrors as they are.
        """
        try:
            fd = open_beneath(self.fd, _checked(path), _READ, links=links)
        except OSError as error:
            if error.errno == errno.EACCES and self.is_directory(path):  # may not be listed
                raise _is_a_directory(path) from None
            raise _judged(error, path, links) from None
        try:
            found = os.fstat(fd)
            if stat.S_ISDIR(found.st_mode):
                raise _is_a_directory(path)
            if not stat.S_ISREG(found.st_mode):
                raise _not_found(path)
        except OSError:
            os.close(fd)
            raise
        return fd, found

    def is_directory(self, path: bytes) -> bool:
        """Whether `path` is a directory below which something could be served.

        Raises OSErrors that are not about the path.
        """
        try:
            # "/." at its end asks for the permission to search the directory itself.
            where = (_checked(path) or b".") + b"/."
            fd = open_beneath(self.fd, where, LOOK | os.O_DIRECTORY)
        except OSError as error:
            if error.errno in _NOT_FOUND:
                return False
            raise
        os.close(fd)
        return True

    def is_same(self, path: bytes, identity: Identity) -> bool:
        """Whether `path` still names the file of that identity, unchanged.  It opens no device."""
        try:
            fd = open_beneath(self.fd, _checked(path), LOOK)
        except OSError:
            return False
        try:
            return Identity.of(os.fstat(fd)) == identity
        finally:
            os.close(fd)

    def entries(self, path: bytes, limit: int = ENTRIES) -> list[Entry]:
        """What is served in a directory, in no order, and of a long one only `limit` names.

        Special files are left out, and links that lead nowhere or outside; a link has the size
        and time of what it leads to.  Raises FileNotFoundError where the path is no directory or
        may not be listed, and other OSErrors as they are.
        """
        try:
            fd = open_beneath(self.fd, _checked(path), os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise _judged(error, path, True) from None
        entries = []
        try:
            with os.scandir(fd) as scan:
                for item in scan:
                    name = os.fsencode(item.name)
                    found = self._looked_at(item, path + b"/" + name if path else name)
                    if found is None:
                        continue
                    directory = stat.S_ISDIR(found.st_mode)
                    if directory or stat.S_ISREG(found.st_mode):
                        modified = found.st_mtime_ns // 10**9
                        entries.append(Entry(name, directory, found.st_size, modified))
                        if len(entries) == limit:
                            break
        finally:
            os.close(fd)
        return entries

    def _looked_at(self, item: os.DirEntry[str], path: bytes) -> os.stat_result | None:
        """The stat of a name, of what it leads to where it is a link; None where there is none."""
        try:
            if not item.is_symlink():
                return item.stat(follow_symlinks=False)
            fd = open_beneath(self.fd, path, LOOK)
        except OSError as error:
            if error.errno in _NOT_FOUND:
                return None
            raise
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Forget the directory.  May be repeated."""
        fd, self.fd = self.fd, -1
        if fd != -1:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _checked(path: bytes) -> bytes:
    """`path` as it is.  Raises FileNotFoundError where it is not one of ours."""
    around = b"/" + path + b"/"
    if path and (b"//" in around or b"/./" in around or b"/../" in around):
        raise _not_found(path)
    return path


def _judged(error: OSError, path: bytes, links: bool) -> OSError:
    """The error that the caller gets for one of open(2)."""
    if error.errno == errno.ELOOP and not links:
        return LinkFound(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return _not_found(path) if error.errno in _NOT_FOUND else error


def _not_found(path: bytes) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def _is_a_directory(path: bytes) -> IsADirectoryError:
    return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
