"""The kernel's AIO ABI, as <linux/aio_abi.h> has it: layouts, opcodes, syscall numbers.

Layouts are numpy structured dtypes, so that thousands of control blocks are one array that is
filled and read by whole columns; a test holds each size and offset against the header's.
"""

from __future__ import annotations

import errno
import sys
from typing import Final, NamedTuple

import numpy as np

from pollers.syscall import MACHINE

# aio_key and aio_rw_flags change places on big-endian machines (PADDED in aio_abi.h).
_KEY_AND_FLAGS: Final = [("key", "u4"), ("rw_flags", "i4")]

#: struct iocb, 64 bytes: what is asked.
IOCB: Final = np.dtype(
    [
        ("data", "u8"),  # comes back in the event
        *(_KEY_AND_FLAGS if sys.byteorder == "little" else reversed(_KEY_AND_FLAGS)),
        ("opcode", "u2"),
        ("reqprio", "i2"),
        ("fd", "u4"),
        ("buf", "u8"),  # address of a buffer; for POLL the event mask, 16 bits
        ("nbytes", "u8"),
        ("offset", "i8"),
        ("reserved2", "u8"),
        ("flags", "u4"),
        ("resfd", "u4"),
    ]
)

#: struct io_event, 32 bytes: what came of it.
IO_EVENT: Final = np.dtype([("data", "u8"), ("obj", "u8"), ("res", "i8"), ("res2", "i8")])

IOCB_CMD_PREAD: Final = 0
IOCB_CMD_PWRITE: Final = 1
IOCB_CMD_POLL: Final = 5  # Linux 4.18

#: In `flags`: add one to the eventfd `resfd` when this operation completes.
IOCB_FLAG_RESFD: Final = 1


class Numbers(NamedTuple):
    """The syscall numbers of one architecture."""

    setup: int
    destroy: int
    getevents: int
    submit: int
    cancel: int


_X86_64: Final = Numbers(setup=206, destroy=207, getevents=208, submit=209, cancel=210)
#: asm-generic/unistd.h: aarch64, riscv64, loongarch64.  Mind the order.
_GENERIC: Final = Numbers(setup=0, destroy=1, submit=2, cancel=3, getevents=4)

#: Elsewhere these numbers are other calls'; macOS calls its x86_64 by the same name.
LINUX: Final[bool] = sys.platform == "linux"

_BY_MACHINE: Final = {
    "x86_64": _X86_64,
    "aarch64": _GENERIC,
    "riscv64": _GENERIC,
    "loongarch64": _GENERIC,
}


def numbers(machine: str = MACHINE, linux: bool = LINUX) -> Numbers:
    """The syscall numbers of `machine`, as os.uname() names it.  Raises OSError for others."""
    if not linux:
        raise OSError(errno.ENOSYS, "Linux AIO cannot be used here: it is Linux's")
    try:
        return _BY_MACHINE[machine]
    except KeyError:
        known = ", ".join(_BY_MACHINE)
        raise OSError(f"no AIO syscall numbers for {machine}; known are {known}") from None
