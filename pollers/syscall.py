"""Calling the kernel by number, for what CPython does not wrap.

One function checks every return.  `ctypes.CDLL` releases the GIL around a call; errno is taken
from ctypes' own copy, which nothing else overwrites.  A call costs about 1 us more than one that
CPython wraps, so that hot paths batch.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, Final

_libc: Final = ctypes.CDLL(None, use_errno=True)
_syscall: Final = _libc.syscall
_syscall.restype = ctypes.c_long

#: os.uname().machine, which decides syscall numbers and the layout of some structures.
MACHINE: Final = os.uname().machine


class Timespec(ctypes.Structure):
    """struct timespec of a 64-bit kernel."""

    _fields_ = [("tv_sec", ctypes.c_int64), ("tv_nsec", ctypes.c_int64)]

    @classmethod
    def of(cls, seconds: float) -> Timespec:
        """`seconds` rounded up to a nanosecond, so that a wait is never too short."""
        whole = int(seconds)
        nanoseconds = int((seconds - whole) * 1e9) + 1
        return cls(whole, nanoseconds) if nanoseconds < 10**9 else cls(whole + 1, 0)


def check(result: int, call: str) -> int:
    """Return `result`, or raise OSError with the call's name where it is -1."""
    if result == -1:
        raise refusal(call, ctypes.get_errno())
    return result


def refusal(call: str, number: int) -> OSError:
    """The exception for an errno: with the call's name, and of that errno's own class."""
    return OSError(number, f"{call}: {os.strerror(number)}")


def syscall(call: str, number: int, *args: Any) -> int:
    """syscall(2).  Integers must be ctypes instances where 32 bits are not enough."""
    return check(_syscall(ctypes.c_long(number), *args), call)
