"""A tree as names and what they stand for, and walks that find them.

What is kept
------------
*   A *snapshot* is a dict: path of a directory -> its names -> their entries, directories before
    what is in them.  A name is bytes, an entry a tuple; two listings that are the same compare
    equal at C's speed, which is what a look at a tree in which nothing happened costs.
*   `Status` is an entry with what lstat(2) tells: for who has nothing but looks.  `Name` has the
    inode number and the type only, which readdir(3) tells: for who is told of changes, and looks
    again only when some were lost.
*   A tree is walked by file descriptors (openat(2)), so that what is found below a directory is
    in that directory, whatever is renamed meanwhile.  It holds one fd a level.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple, Protocol, TypeAlias, TypeVar

from pollers.watch.base import join

#: Directories that are walked: never through a link, never waiting for a FIFO's other end.
OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: What a name that was just listed may have become: nothing, or no directory.
VANISHED: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})
#: Where there can be no more fds.
FULL: Final = frozenset({errno.EMFILE, errno.ENFILE})
#: What a directory has that is there and may not be read: by its mode, or because the file system
#: behind it is damaged (EIO, EUCLEAN, EBADMSG, ENXIO), dead (a FUSE mount: ENOTCONN,
#: ECONNABORTED), out of reach (a network's: ESTALE, ETIMEDOUT, EHOSTDOWN, EHOSTUNREACH), or asks
#: for a key.  All else is ours to mend, and raised.
UNREADABLE: Final = frozenset(
    getattr(errno, name)
    for name in (
        "EACCES",
        "EPERM",
        "EIO",
        "EUCLEAN",
        "EBADMSG",
        "ENXIO",
        "ENOTCONN",
        "ECONNABORTED",
        "ESTALE",
        "ETIMEDOUT",
        "EHOSTDOWN",
        "EHOSTUNREACH",
        "ENOKEY",
        "EKEYEXPIRED",
        "EKEYREVOKED",
    )
    if hasattr(errno, name)
)
REMEDIES: Final = {
    errno.ENOTDIR: "watch the directory that it is in",
    errno.EMFILE: "a walk holds one fd a level; raise the limit: ulimit -n 20000",
    errno.ENFILE: "raise the system's limit: sysctl fs.file-max (FreeBSD: kern.maxfiles)",
}


class Entry(Protocol):
    """What every entry has."""

    @property
    def identity(self) -> int:
        """The inode number; 0 where it is not known."""

    @property
    def directory(self) -> bool: ...


class Name(NamedTuple):
    """A name of which changes are told."""

    identity: int
    directory: bool


#: Of names that the kernel told, which says no more than the type.
FILE: Final = Name(0, False)
DIRECTORY: Final = Name(0, True)


class Status(NamedTuple):
    """A name as lstat(2) has it.  Times are nanoseconds."""

    identity: int
    directory: bool
    mode: int
    links: int
    owner: int
    group: int
    size: int
    mtime: int
    ctime: int

    @classmethod
    def of(cls, found: os.stat_result) -> Status:
        """A directory's size and link count are its file system's business, and left out."""
        directory = stat.S_ISDIR(found.st_mode)
        return cls(
            found.st_ino,
            directory,
            found.st_mode,
            0 if directory else found.st_nlink,
            found.st_uid,
            found.st_gid,
            0 if directory else found.st_size,
            found.st_mtime_ns,
            found.st_ctime_ns,
        )


E = TypeVar("E", bound=Entry)
Listing: TypeAlias = dict[bytes, E]
Snapshot: TypeAlias = dict[bytes, dict[bytes, E]]


def list_names(path: bytes, fd: int) -> dict[bytes, Name]:
    """The names in an open directory, by readdir(3) alone.  Raises OSError."""
    fsencode = os.fsencode
    with os.scandir(fd) as found:
        return {
            fsencode(entry.name): Name(entry.inode(), entry.is_dir(follow_symlinks=False))
            for entry in found
        }


def list_statuses(
    unreadable: Callable[[bytes], None], path: bytes, fd: int
) -> dict[bytes, Status]:
    """The names in an open directory, each with its lstat(2).  Raises OSError.

    Names that may not be looked at are left out: a dead FUSE mount or, even by root, another
    user's.  `unreadable(path)` is called of one that is a directory.
    """
    names = {}
    with os.scandir(fd) as found:
        for entry in found:
            name = os.fsencode(entry.name)
            try:
                names[name] = Status.of(entry.stat(follow_symlinks=False))
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno not in UNREADABLE:
                    raise
                with contextlib.suppress(OSError):  # where the listing does not tell the type
                    if entry.is_dir(follow_symlinks=False):
                        unreadable(join(path, name))
    return names


def open_root(path: bytes) -> int:
    """Open a directory that is to be watched, through a link if it is one.  Raises OSError."""
    try:
        return _searchable(os.open(path, OPEN & ~os.O_NOFOLLOW))
    except OSError as error:
        raise explained(error, path) from None


def walk(
    top: int,
    path: bytes,
    lister: Callable[[bytes, int], dict[bytes, E]],
    enter: Callable[[bytes, int], bool],
    unreadable: Callable[[bytes], None],
    recursive: bool = True,
) -> Snapshot[E]:
    """A snapshot of the tree below the open directory `top`, whose path is `path`.

    `enter(path, fd)` is called of each directory before it is listed by `lister(path, fd)`: what
    changes afterwards, it can have reported.  Where it returns False the directory is left out.
    `unreadable(path)` is called of one below that is entered or not, and may not be read: it is
    left out.  Raises OSError; what has vanished is left out.
    """
    found: Snapshot[E] = {}
    if not enter(path, top):
        return found
    found[path] = _listed(lister, path, top)
    if not recursive:
        return found
    #: The directories on the way down: path, fd, and the names that are still to be walked.
    way: list[tuple[bytes, int, Iterator[bytes]]] = [(path, top, _directories(found[path]))]
    try:
        while way:
            above, fd, names = way[-1]
            name = next(names, None)
            if name is None:
                way.pop()
                if fd != top:
                    os.close(fd)
                continue
            below = join(above, name)
            child = open_below(fd, name, below, unreadable)
            if child is None:
                continue
            way.append((below, child, iter(())))
            try:
                if enter(below, child):
                    found[below] = _listed(lister, below, child)
                    way[-1] = (below, child, _directories(found[below]))
            except OSError as error:
                if error.errno not in UNREADABLE:
                    raise
                unreadable(below)
    finally:
        for _, fd, _ in way:
            if fd != top:
                os.close(fd)
    return found


def open_below(
    fd: int, name: bytes, path: bytes, unreadable: Callable[[bytes], None]
) -> int | None:
    """Open the directory `name` in `fd`; None where it has vanished, may not be read or searched.

    Raises OSError; EMFILE says what to do.
    """
    try:
        return _searchable(os.open(name, OPEN, dir_fd=fd))
    except OSError as error:
        if error.errno in UNREADABLE:
            unreadable(path)
        elif error.errno not in VANISHED:
            raise explained(error, path) from None
    return None


def _searchable(fd: int) -> int:
    """`fd`; it is closed, and PermissionError raised, where its names may not be looked at."""
    try:
        os.stat(b".", dir_fd=fd)
    except OSError:
        os.close(fd)
        raise
    return fd


def _listed(
    lister: Callable[[bytes, int], dict[bytes, E]], path: bytes, fd: int
) -> dict[bytes, E]:
    try:
        return lister(path, fd)
    except OSError as error:
        raise explained(error, path) from None


def explained(error: OSError, path: bytes) -> OSError:
    """The same with what to do about it, where that is known."""
    remedy = REMEDIES.get(error.errno or 0)
    why = f"{os.fsdecode(path)}: {error.strerror}" + (f"; {remedy}" if remedy else "")
    return OSError(error.errno, why)


def _directories(names: Mapping[bytes, Entry]) -> Iterator[bytes]:
    return iter([name for name, entry in names.items() if entry.directory])


def subtree(snapshot: Mapping[bytes, Mapping[bytes, Entry]], path: bytes) -> list[bytes]:
    """The directories of a snapshot from `path` downwards, each before what is in it."""
    if path not in snapshot:
        return []
    paths = [path]
    for above in paths:  # which grows meanwhile
        names = snapshot[above]
        paths += [
            below
            for name in names
            if names[name].directory and (below := join(above, name)) in snapshot
        ]
    return paths
