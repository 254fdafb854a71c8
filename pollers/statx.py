"""What direct I/O on a file asks for: statx(2) with STATX_DIOALIGN, Linux 6.1.

Facts
-----
*   O_DIRECT wants the buffer's address a multiple of `stx_dio_mem_align`, and the file offset and
    the length of each read or write a multiple of `stx_dio_offset_align`; else EINVAL.  Both are
    powers of two.  They differ per file, not only per filesystem, so they are asked, not guessed.
*   Zeros mean that this file has no direct I/O, though opening it with O_DIRECT may well succeed:
    ext4 with data=journal or inline data, fs-verity, some encrypted files.  There the kernel reads
    through the page cache, and an "asynchronous" read blocks the caller.
*   Where the answer's mask lacks the bit, the kernel is older than 6.1 or the filesystem does not
    tell (tmpfs).  A page is what no filesystem of that age asked more than.
*   Linux 6.14 adds `stx_dio_read_offset_align`, never more than `stx_dio_offset_align`, which is
    therefore good for reads too.
*   CPython has no os.statx before 3.15, so that it is called by number.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from typing import Final, NamedTuple

from pollers.syscall import MACHINE, syscall

#: asm-generic's number, which every architecture has but those that are older than the list.
NR_STATX: Final = {"x86_64": 332}.get(MACHINE, 291)

AT_EMPTY_PATH: Final = 0x1000  # the fd itself, which may be an O_PATH one
STATX_DIOALIGN: Final = 0x2000

#: sizeof(struct statx), and where the fields stand that are read here (<linux/stat.h>, u32 each).
SIZE: Final = 256
STX_MASK: Final = 0x00
STX_DIO_MEM_ALIGN: Final = 0x98  # and stx_dio_offset_align, 0x9c, right behind it

#: Assumed where the kernel does not tell.
UNTOLD: Final = 4096


class Alignment(NamedTuple):
    """What addresses, and what file offsets and lengths, must be multiples of."""

    memory: int
    offset: int


def direct_io_alignment(fd: int) -> Alignment:
    """What direct I/O on this open file must be aligned to.

    Raises OSError: EOPNOTSUPP where the file has no direct I/O, and what statx(2) says.
    """
    return alignment_in(_statx(fd, STATX_DIOALIGN))


def alignment_in(answer: bytes) -> Alignment:
    """The alignment that stands in a struct statx.  Raises OSError(EOPNOTSUPP) for none."""
    (mask,) = struct.unpack_from("=I", answer, STX_MASK)
    if not mask & STATX_DIOALIGN:
        return Alignment(UNTOLD, UNTOLD)
    alignment = Alignment(*struct.unpack_from("=II", answer, STX_DIO_MEM_ALIGN))
    if not alignment.memory or not alignment.offset:
        raise OSError(
            errno.EOPNOTSUPP,
            "no direct I/O on this file: statx(2) gives 0 as its alignment",
        )
    return alignment


def _statx(fd: int, mask: int) -> bytes:
    answer = ctypes.create_string_buffer(SIZE)
    path = b""
    syscall("statx", NR_STATX, fd, path, AT_EMPTY_PATH, ctypes.c_uint(mask), answer)
    return answer.raw
