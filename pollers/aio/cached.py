"""A file that is read from the page cache where that has it, and directly from the disk elsewhere.

Facts
-----
*   preadv2(2) with RWF_NOWAIT (Linux 4.14) returns what is in memory, without waiting for a disk:
    EAGAIN where the first byte is not there, fewer bytes where a later one is not, and fewer at
    the end of the file too.  5.9 and 5.10 may return 0 before the end.  Some filesystems do not
    know it (overlayfs, FUSE): EOPNOTSUPP.
*   Its EAGAIN is not free: the kernel has *begun* to read the missing pages (read-ahead), into the
    page cache.  A direct read after it would be the second read of the same blocks.
*   cachestat(2) (Linux 6.5) counts the pages of a range that are in memory, and reads nothing.
    On overlayfs it counts those of the overlay's own inode, which has none: 0, and no error, for
    a file that is in memory as a whole (by the inode of the layer below; seen on Linux 6.18).
*   Before a direct read the kernel writes dirty pages of the range to the disk and waits for that,
    inside of io_submit(2); after a direct write it drops the cached ones.  What was written
    before a read began is seen on both ways, whoever wrote it.
*   A direct read leaves nothing in the page cache.

What does this mean for us?
---------------------------
*   cachestat is asked first, and RWF_NOWAIT only where the whole range is in memory.  On older
    kernels RWF_NOWAIT is all there is (`asks_first` is False), with its second read.
*   What is freshly written is dirty and in memory: reading it here does not block, and reading it
    directly does.
*   A short answer is the end of the file only if fstat(2) says so.  All else is read directly,
    everything where the filesystem has no RWF_NOWAIT: the counters have only misses then.  On
    overlayfs, a container's usual root, the page cache serves nobody here; a volume is served.
*   Both ways cost what they cost for each read: on cold files this adds 3 us, on hot ones it
    spares the disk.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from dataclasses import dataclass
from typing import Final

from pollers.aio.direct import DirectFile, open_again, open_direct

#: The same on every architecture.
NR_CACHESTAT: Final = 451

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Range(ctypes.Structure):
    """struct cachestat_range: bytes."""

    _fields_ = [("off", ctypes.c_uint64), ("len", ctypes.c_uint64)]


class CacheStat(ctypes.Structure):
    """struct cachestat: pages."""

    _fields_ = [
        ("nr_cache", ctypes.c_uint64),
        ("nr_dirty", ctypes.c_uint64),
        ("nr_writeback", ctypes.c_uint64),
        ("nr_evicted", ctypes.c_uint64),
        ("nr_recently_evicted", ctypes.c_uint64),
    ]


_cachestat: Final = ctypes.CDLL(None, use_errno=True)["syscall"]
_cachestat.restype = ctypes.c_long
_cachestat.argtypes = (
    ctypes.c_long,
    ctypes.c_uint,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_uint,
)


@dataclass(slots=True)
class CacheCounters:
    """How often the page cache had all of what was asked for, some of it, or nothing."""

    hits: int = 0
    partial: int = 0
    misses: int = 0


class CachedFile:
    """The same inode twice: by way of the page cache, and past it."""

    __slots__ = (
        "_range",
        "_range_at",
        "_stat",
        "_stat_at",
        "asks_first",
        "counters",
        "direct",
        "fd",
    )

    def __init__(self, fd: int, direct: DirectFile) -> None:
        #: For reads through the page cache; ours to close.
        self.fd = fd
        self.direct = direct
        self.counters = CacheCounters()
        #: Whether cachestat(2) is there to be asked.
        self.asks_first = True
        self._range, self._stat = Range(), CacheStat()
        self._range_at = ctypes.addressof(self._range)
        self._stat_at = ctypes.addressof(self._stat)

    def read(self, offset: int, count: int) -> tuple[bytes, bool]:
        """What memory has from `offset` on, without waiting; and whether that is the answer.

        Where it is not, the rest is to be read from `direct`.  Raises OSError.
        """
        if self.fd < 0:
            raise OSError(errno.EBADF, "this file is closed")
        if not count:
            return b"", True
        if not self._in_memory(offset, count):
            self.counters.misses += 1
            return b"", False
        buffer = bytearray(count)
        try:
            got = _read_now(self.fd, buffer, offset)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EOPNOTSUPP):
                raise
            self.counters.misses += 1
            return b"", False
        whole = got == count or os.fstat(self.fd).st_size == offset + got
        if whole:
            self.counters.hits += 1
        else:
            self.counters.partial += 1
        return bytes(memoryview(buffer)[:got]), whole

    def close(self) -> None:
        """Close both.  Reads that are with the kernel go on."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
        self.direct.close()

    def _in_memory(self, offset: int, count: int) -> bool:
        """Whether no page of the range is missing, as far as the kernel tells."""
        if not self.asks_first:
            return True
        asked = self._range
        asked.off, asked.len = offset, count
        if _cachestat(NR_CACHESTAT, self.fd, self._range_at, self._stat_at, 0) == -1:
            number = ctypes.get_errno()
            if number not in (errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP):
                raise OSError(number, f"cachestat: {os.strerror(number)}")
            self.asks_first = False
            return True
        pages = (offset + count - 1) // _PAGE - offset // _PAGE + 1
        found: int = self._stat.nr_cache
        if found >= pages:
            return True
        # Or all that there are before the end of the file.
        size = os.fstat(self.fd).st_size
        return found > 0 and offset < size and found >= (size - 1) // _PAGE - offset // _PAGE + 1


def open_cached(fd: int) -> CachedFile:
    """Open the file behind `fd` twice more, for both ways.  `fd` stays as it is.

    Raises OSError, with what to do, where that file has no direct I/O.
    """
    direct = open_direct(fd)
    try:
        return CachedFile(open_again(fd), direct)
    except BaseException:
        direct.close()
        raise


def _read_now(fd: int, buffer: bytearray, offset: int) -> int:
    if sys.platform == "linux":
        return os.preadv(fd, [buffer], offset, os.RWF_NOWAIT)
    else:  # noqa: RET505 - mypy would call what follows unreachable
        raise OSError(errno.ENOSYS, "RWF_NOWAIT exists on Linux only")
