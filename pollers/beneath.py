"""Opening what lies below a directory, and nothing else: openat2(2) and its substitutes.

Some facts about opening beneath
--------------------------------
*   A path that is checked first and opened afterwards can be changed in between: one of its
    directories becomes a link.  Only a walk that never leaves can be trusted, and only the kernel
    walks without a gap.
*   openat2(2) (Linux 5.6, number 437) with RESOLVE_BENEATH does that.  What leads out, by "..",
    by an absolute link, or by being absolute, is EXDEV; links that stay below are followed.
*   It cannot vouch for a ".." while directories are being renamed, anywhere on the machine, and
    then says EAGAIN: ask again.  Only links have a ".." in them here, and they come through
    within a few tries.
*   RESOLVE_NO_MAGICLINKS refuses the links of /proc, which lead where no path leads.
*   openat2 refuses (EINVAL) flags that open(2) would silently ignore: with O_PATH, all but
    O_CLOEXEC, O_DIRECTORY and O_NOFOLLOW.
*   FreeBSD 13 has O_RESOLVE_BENEATH for openat(2), which says ENOTCAPABLE.  A kernel that does not
    know the flag ignores it, so that the probe must see it *refuse*.
*   A container's seccomp filter may forbid openat2 (ENOSYS, EPERM).  What is left then is to go
    component by component with O_NOFOLLOW, each step from the directory that the last one
    opened.  No link is followed that way, not even one that stays below.
*   O_NOFOLLOW on a link is ELOOP on Linux, EMLINK on FreeBSD, ENOTDIR with O_DIRECTORY, and no
    error at all with O_PATH, which opens the link itself.
*   A file that has a second name outside (a hard link, a bind mount) lies below all the same.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import stat
import struct
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from pollers.syscall import check

NR_OPENAT2: Final = 437  # the same number on every architecture but alpha
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
AT_FDCWD: Final = -100

#: struct open_how: flags, mode, resolve.
OPEN_HOW: Final = struct.Struct("=QQQ")

#: <sys/fcntl.h> and <sys/errno.h> of FreeBSD.
O_RESOLVE_BENEATH: Final = 0x00800000
ENOTCAPABLE: Final = 93

#: Flags that open something only to look at it or to start from it: no permission to read is
#: needed and a device does not notice.  Where there is no O_PATH it is opened for reading.
LOOK: Final[int] = getattr(os, "O_PATH", os.O_RDONLY | os.O_NONBLOCK)

#: How often EAGAIN is taken for "ask again".
TRIES: Final = 64

_libc: Final = ctypes.CDLL(None, use_errno=True)
_openat2: Final = _libc["syscall"]  # a function object of its own, with its own argument types
_openat2.restype = ctypes.c_long
_openat2.argtypes = (
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_size_t,
)

#: (directory fd, path, flags, whether links are followed) -> fd
Opener: TypeAlias = Callable[[int, bytes, int, bool], int]


def open_beneath(
    directory_fd: int, path: bytes, flags: int, *, links: bool = True, by: str | None = None
) -> int:
    """Open `path`, which begins at `directory_fd` and never leads out of it.  Return an fd.

    It is close-on-exec.  `flags` are open(2)'s, for files that exist (no O_CREAT).  b"" is the
    directory itself.  `links=False` refuses every symbolic link; `by` names one of METHODS
    instead of the best that works here.

    Raises OSError as open(2) does, and EXDEV where the path leads out, ELOOP where it has a link
    that is refused, ENOENT where it has a NUL, EAGAIN where directories were renamed all the time.
    """
    if b"\0" in path:  # ctypes would end the path there
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return METHODS[by or method()].open(directory_fd, path, flags, links)


@functools.cache
def method() -> str:
    """The name of the first of METHODS that works here."""
    return next(name for name in METHODS if not why_not(name))


def why_not(name: str) -> str:
    """Why a method does not work here; "" where it does."""
    return METHODS[name].probe()


def _by_openat2(directory_fd: int, path: bytes, flags: int, links: bool) -> int:
    resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | (0 if links else RESOLVE_NO_SYMLINKS)
    how = OPEN_HOW.pack(flags | os.O_CLOEXEC, 0, resolve)
    tries = TRIES
    while True:
        fd: int = _openat2(NR_OPENAT2, directory_fd, path or b".", how, OPEN_HOW.size)
        if fd != -1:
            return fd
        number = ctypes.get_errno()
        if number == errno.EAGAIN and tries:
            tries -= 1
        elif number != errno.EINTR:  # a signal's handler runs before the next try
            raise OSError(number, os.strerror(number), path)


def _probe_openat2() -> str:
    # "/" leads out of every directory, also of one that this user may not search: EXDEV.
    how = OPEN_HOW.pack(LOOK | os.O_CLOEXEC, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    try:
        os.close(check(_openat2(NR_OPENAT2, AT_FDCWD, b"/", how, OPEN_HOW.size), "openat2"))
    except OSError as error:
        if error.errno == errno.EXDEV:
            return ""
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise  # says nothing about openat2
        return f"{error.strerror}: it needs Linux 5.6, and a seccomp filter must allow it"
    return "this kernel ignores RESOLVE_BENEATH; it needs Linux 5.6"


def _by_flag(directory_fd: int, path: bytes, flags: int, links: bool) -> int:
    if not links:
        return _by_components(directory_fd, path, flags, links)
    try:
        return os.open(path or b".", flags | O_RESOLVE_BENEATH | os.O_CLOEXEC, dir_fd=directory_fd)
    except OSError as error:
        if error.errno == ENOTCAPABLE:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path) from None
        raise


def _probe_flag() -> str:
    try:
        os.close(os.open("/", LOOK | os.O_DIRECTORY | O_RESOLVE_BENEATH | os.O_CLOEXEC))
    except OSError as error:
        return "" if error.errno == ENOTCAPABLE else f"{error.strerror}: it needs FreeBSD 13"
    return "this kernel ignores the flag; it needs FreeBSD 13"


def _by_components(directory_fd: int, path: bytes, flags: int, links: bool) -> int:
    names = [name for name in path.split(b"/") if name] or [b"."]
    if path.startswith(b"/") or b".." in names:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    if path.endswith(b"/"):
        flags |= os.O_DIRECTORY
    fd = directory_fd
    try:
        for name in names[:-1]:
            below = _open_plain(fd, name, LOOK | os.O_DIRECTORY)
            if fd != directory_fd:
                os.close(fd)
            fd = below
        return _open_plain(fd, names[-1], flags)
    finally:
        if fd != directory_fd:
            os.close(fd)


def _open_plain(directory_fd: int, name: bytes, flags: int) -> int:
    """Open one name, unless it is a symbolic link: ELOOP."""
    try:
        fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd)
    except OSError as error:
        if error.errno in (errno.EMLINK, errno.ENOTDIR) and _is_link(directory_fd, name):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name) from None
        raise
    if flags & LOOK == LOOK and stat.S_ISLNK(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
    return fd


def _is_link(directory_fd: int, name: bytes) -> bool:
    try:
        found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except OSError:  # gone by now: the first error stands
        return False
    return stat.S_ISLNK(found.st_mode)


class Method(NamedTuple):
    """One way of opening beneath."""

    #: Opens; see `open_beneath`.
    open: Opener
    #: Returns why it does not work here, or "".  Raises OSError where that cannot be told now.
    probe: Callable[[], str]


#: Best first.  The last one works everywhere.
METHODS: Final[dict[str, Method]] = {
    "openat2": Method(_by_openat2, _probe_openat2),
    "O_RESOLVE_BENEATH": Method(_by_flag, _probe_flag),
    "component by component": Method(_by_components, lambda: ""),
}
