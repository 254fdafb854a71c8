"""What the operating system calls things: the few names that differ and that CPython lacks.

Everything above pollers/ asks here instead of asking which platform this is.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import sys
from typing import Final

from pollers.syscall import check

if sys.platform == "linux":
    from os import SPLICE_F_MORE as SPLICE_F_MORE
    from os import SPLICE_F_NONBLOCK as SPLICE_F_NONBLOCK
    from os import splice as splice
    from socket import MSG_MORE as MSG_MORE

    HAS_SPLICE: Final = True
else:
    HAS_SPLICE = False
    SPLICE_F_MORE = SPLICE_F_NONBLOCK = 0
    #: Only Linux holds a segment back for what is sent next.
    MSG_MORE = 0

    def splice(
        src: int, dst: int, count: int, *, offset_src: int | None = None, flags: int = 0
    ) -> int:
        raise OSError(errno.ENOSYS, "splice(2) exists on Linux only")


#: Whether sendfile(2) sends a head before the file in the same call.
SENDFILE_TAKES_HEADERS: Final = sys.platform.startswith("freebsd")


def sendfile_with_head(out_fd: int, in_fd: int, offset: int, count: int, head: bytes) -> int:
    """FreeBSD's sendfile(2): `head`, then `count` bytes (not 0: that is "to the end").

    Returns how many bytes went, of the head and the file together.  Where the socket was full
    after some, that is their number.  Raises BlockingIOError, OSError; ENOSYS elsewhere.
    """
    if sys.platform.startswith("freebsd"):
        return os.sendfile(out_fd, in_fd, offset, count, headers=[head])
    raise OSError(errno.ENOSYS, "this system's sendfile(2) takes no head")


#: The socket option that spreads the connections of one port over several listeners:
#: SO_REUSEPORT_LB on FreeBSD >= 12 (<sys/socket.h>, 0x00010000), SO_REUSEPORT elsewhere.
REUSEPORT: Final[int] = 0x00010000 if sys.platform.startswith("freebsd") else socket.SO_REUSEPORT


def pipe() -> tuple[int, int]:
    """The read end and the write end of a pipe, both non-blocking and close-on-exec.

    pipe2(2), or where that is missing (macOS) a pipe that is set up afterwards.  Raises OSError.
    """
    if sys.platform != "darwin":
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    else:
        read_fd, write_fd = os.pipe()  # close-on-exec since PEP 446
        os.set_blocking(read_fd, False)
        os.set_blocking(write_fd, False)
    return read_fd, write_fd


def forget_pages(fd: int) -> None:
    """Ask the kernel to drop the pages of an open file from memory (posix_fadvise, DONTNEED).

    Raises OSError; ENOSYS where there is no such call (macOS).
    """
    if sys.platform != "darwin":
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    else:
        raise OSError(errno.ENOSYS, "macOS has no posix_fadvise(2) to drop a file's pages with")


def resize_pipe(fd: int, size: int) -> int:
    """Ask for room for `size` bytes in a pipe (F_SETPIPE_SZ, Linux 2.6.35); return what it has.

    It keeps what it had where the user has too many pipe pages already (pipe-user-pages-soft).
    Raises OSError where the system has no such call.
    """
    if sys.platform == "linux":
        with contextlib.suppress(PermissionError):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)
        return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
    raise OSError(errno.ENOSYS, "F_SETPIPE_SZ exists on Linux only")


def cores() -> list[int]:
    """The cores that this process may run on, in order; empty where the system cannot tell."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return []


def pin(core: int) -> None:
    """Run this process, and what it will fork, on one core.

    Raises OSError where the core does not exist or the system has no sched_setaffinity(2).
    """
    if not hasattr(os, "sched_setaffinity"):
        raise OSError(f"cannot pin to core {core}: this Python has no os.sched_setaffinity")
    try:
        os.sched_setaffinity(0, {core})
    except (OSError, ValueError, OverflowError):
        allowed = ", ".join(map(str, cores()))
        raise OSError(f"cannot pin to core {core}: this process may use {allowed}") from None


def die_with_parent(signal_number: int) -> None:
    """Have the kernel send this process a signal when the one that forked it ends.

    prctl(2) PR_SET_PDEATHSIG on Linux, procctl(2) PROC_PDEATHSIG_CTL on FreeBSD >= 11.2.  Call it
    in the child, right after fork.  Raises OSError where the kernel refuses, or has neither.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux":
        check(libc.prctl(1, ctypes.c_ulong(signal_number), 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")
    elif sys.platform.startswith("freebsd"):
        number = ctypes.c_int(signal_number)
        # P_PID 0, this process 0, PROC_PDEATHSIG_CTL 11 (<sys/procctl.h>)
        check(
            libc.procctl(0, ctypes.c_int64(0), 11, ctypes.byref(number)),
            "procctl(PROC_PDEATHSIG_CTL)",
        )
    else:
        raise OSError(f"{sys.platform} cannot signal a process when its parent ends")
