"""A file opened for direct reads: past the page cache, from the disk into our memory.

Facts
-----
*   O_DIRECT is a flag of the *open file*, so that setting it would change whoever shares that.
    Opening /proc/self/fd/N makes a new open file of the same inode, be it renamed or unlinked.
*   A filesystem without direct I/O refuses to open (EINVAL), or opens and reads through the page
    cache all the same: pollers.statx tells.
*   tmpfs takes O_DIRECT since Linux 6.6, with no device behind it and no alignment told.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from dataclasses import dataclass
from typing import Final

from pollers.statx import Alignment, direct_io_alignment

#: The most that files ask for, except on devices with blocks larger than a page.
ALIGNMENT: Final = 4096


@dataclass(slots=True)
class DirectFile:
    """An open file of its own, which may be closed while reads of it are under way."""

    fd: int
    alignment: Alignment

    def close(self) -> None:
        """Close it.  Reads that are with the kernel go on; those still queued fail with EBADF."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def open_direct(fd: int) -> DirectFile:
    """Open the file behind `fd` once more, for direct reads.  `fd` stays as it is.

    Raises OSError, with what to do, where that file has no direct I/O.
    """
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        # O_DIRECT means something else to a pipe, and opening a FIFO may wait.
        raise OSError(errno.EINVAL, "direct I/O is for regular files and block devices")
    try:
        direct = open_again(fd, direct=True)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise _no_direct_io(errno.EINVAL, "its filesystem refuses O_DIRECT") from None
        if error.errno == errno.ENOENT:
            raise _no_direct_io(errno.ENOENT, "/proc, which opens it again, is missing") from None
        raise
    try:
        return DirectFile(direct, direct_io_alignment(direct))
    except OSError as error:
        os.close(direct)
        if error.errno != errno.EOPNOTSUPP:
            raise
        reason = "the kernel would read it through the page cache (stx_dio_offset_align is 0)"
        raise _no_direct_io(errno.EOPNOTSUPP, reason) from None


def check_alignment(file: DirectFile, most: int) -> None:
    """Raise ValueError where a reader that was made for an alignment of `most` cannot read it."""
    if max(file.alignment) > most:
        raise ValueError(
            f"this file asks for an alignment of {max(file.alignment)}, and the reader was made "
            f"for {most}; make it with alignment={max(file.alignment)}"
        )


def open_again(fd: int, *, direct: bool = False) -> int:
    """A new open file of the inode behind `fd`, for reading.  Raises OSError."""
    if sys.platform == "linux":
        flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECT if direct else 0)
        return os.open(f"/proc/self/fd/{fd}", flags)
    else:  # noqa: RET505 - mypy would call what follows unreachable
        raise OSError(errno.EINVAL, "files are opened again by /proc/self/fd on Linux only")


def _no_direct_io(number: int, reason: str) -> OSError:
    return OSError(
        number, f"no direct I/O on this file: {reason}; read it with pread or sendfile instead"
    )
