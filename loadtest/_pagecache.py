"""Whether a file's bytes are in the page cache, and how to get them out.

Facts
-----
*   posix_fadvise(2) with POSIX_FADV_DONTNEED drops the clean pages of one file that nobody uses.
    Dirty pages stay, so a file is fsynced once when it is written; pages that a socket still
    refers to stay too, so a file is evicted when no transfer of it is under way.
*   What stays cached is everything but the bytes: the open descriptor, the inode, the name.  So
    "cold" means here that the *bytes* come from the device.
*   mincore(2) tells which pages of a mapping are resident and changes nothing.  A read with
    RWF_NOWAIT does not do for a look: it begins to read ahead before it says EAGAIN, and so makes
    warm what it finds cold (mm/filemap.c, filemap_get_pages).  Since Linux 5.2 mincore tells that
    only to the owner of the file or to who may write it; here both are the same user.
*   A memory filesystem (tmpfs) has nothing but the cache, and keeps every page.  Whether a file
    can be cold is therefore tried, and not asked of the filesystem's name.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from pollers.syscall import check
from pollers.system import forget_pages

PAGE: Final = mmap.PAGESIZE
#: Bytes of the file that is tried.
TRIED: Final = 4 * PAGE

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
_libc.mincore.restype = ctypes.c_int


def evict(fd: int) -> None:
    """Ask the kernel to forget the bytes of the open file `fd`.  Raises OSError."""
    forget_pages(fd)


def resident(fd: int, size: int) -> int:
    """How many pages of the first `size` bytes (above 0) of `fd` are in memory.

    Raises OSError.
    """
    pages = -(-size // PAGE)
    vector = np.zeros(pages, dtype=np.uint8)
    with mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ) as mapped:
        view = np.frombuffer(mapped, dtype=np.uint8)
        try:
            check(_libc.mincore(view.ctypes.data, size, vector.ctypes.data), "mincore")
        finally:
            del view  # or the mapping cannot be closed
    return int(np.count_nonzero(vector & 1))


def why_never_cold(directory: Path, named_by: str = "TMPDIR, or --file-root") -> str:
    """Why files in `directory` cannot be evicted, in one line; "" where they can.

    `named_by` is how the user names another directory.
    """
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(os.urandom(TRIED))
            file.flush()
            os.fsync(file.fileno())
            evict(file.fileno())
            left = resident(file.fileno(), TRIED)
    except (AttributeError, OSError) as error:  # no posix_fadvise on this system; refused
        return f"files in {directory} cannot be evicted from the page cache: {error}"
    if left:
        return (
            f"the filesystem of {directory} keeps its files in memory, so that they are never "
            f"cold: name a directory on a disk ({named_by})"
        )
    return ""
