"""What the operating system calls things: the few names that differ and that CPython lacks.

Everything above pollers/ asks here instead of asking which platform this is.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
from typing import Final

from pollers.syscall import check

if sys.platform == "linux":
    from os import SPLICE_F_NONBLOCK as SPLICE_F_NONBLOCK
    from os import splice as splice

    HAS_SPLICE: Final = True
else:
    HAS_SPLICE = False
    SPLICE_F_NONBLOCK = 0

    def splice(src: int, dst: int, count: int, *, flags: int = 0) -> int:
        raise OSError(errno.ENOSYS, "splice(2) exists on Linux only")


#: The socket option that spreads the connections of one port over several listeners:
#: SO_REUSEPORT_LB on FreeBSD >= 12 (<sys/socket.h>, 0x00010000), SO_REUSEPORT elsewhere.
REUSEPORT: Final[int] = 0x00010000 if sys.platform.startswith("freebsd") else socket.SO_REUSEPORT


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
