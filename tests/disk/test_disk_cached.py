"""The page cache first, the disk for the rest: what is told is the file, whoever has it."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import mmap
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from diskreads import KIB, MIB

from pollers.aio.cached import NR_CACHESTAT, CachedFile, CacheStat, Range, open_cached
from pollers.aio.on_asyncio import AsyncioReader

PAGE = mmap.PAGESIZE


def evict(fd: int) -> None:
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # no read-ahead from now on
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.fixture
def both(tmp_path: Path, content: bytes) -> Iterator[tuple[int, CachedFile]]:
    """A file that can be written, and the same to be read."""
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.write(fd, content)
    file = open_cached(fd)
    yield fd, file
    file.close()
    file.close()  # may be repeated
    os.close(fd)


@pytest.fixture
def cold(both: tuple[int, CachedFile]) -> tuple[int, CachedFile]:
    """Nothing of it is in memory."""
    fd, file = both
    evict(fd)
    if file.read(0, 1) != (b"", False) or not file.asks_first:
        pytest.skip("a file cannot be evicted from memory, or not be told so, here")
    file.counters.misses = 0
    return both


def read(file: CachedFile, offset: int, count: int) -> bytes:
    async def main() -> bytes:
        async with AsyncioReader(depth=4, block=64 * KIB) as reader:
            return await reader.read(file, offset, count)

    return asyncio.run(main())


def test_layouts_are_the_headers() -> None:
    """<linux/mman.h>"""
    assert (ctypes.sizeof(Range), Range.off.offset, Range.len.offset) == (16, 0, 8)
    names = ["nr_cache", "nr_dirty", "nr_writeback", "nr_evicted", "nr_recently_evicted"]
    offsets = [getattr(CacheStat, name).offset for name in names]
    assert (ctypes.sizeof(CacheStat), offsets) == (40, [0, 8, 16, 24, 32])
    assert NR_CACHESTAT == 451


def test_what_is_in_memory_is_read_from_there(
    both: tuple[int, CachedFile], content: bytes
) -> None:
    _, file = both
    for offset, count in [(0, 4096), (1, 1), (4095, 2), (MIB - 5, 100), (MIB + 2, 1), (0, MIB)]:
        assert file.read(offset, count) == (content[offset : offset + count], True)
    assert (file.counters.hits, file.counters.misses) == (6, 0)
    assert file.read(5, 0) == (b"", True)


def test_the_end_of_the_file_needs_no_disk(both: tuple[int, CachedFile], content: bytes) -> None:
    fd, file = both
    assert file.read(MIB, 4096) == (content[MIB:], True)
    os.truncate(fd, 8192)
    assert file.read(8000, 4096) == (content[8000:8192], True)


def test_asking_does_not_begin_to_read(cold: tuple[int, CachedFile], content: bytes) -> None:
    """RWF_NOWAIT alone would: the second time, its page is on the way."""
    _, file = cold
    assert [file.read(at, 4096) for at in range(0, MIB, 4096)] == [(b"", False)] * 256
    assert (file.counters.hits, file.counters.misses) == (0, 256)


def test_nowait_begins_to_read_what_it_refuses(cold: tuple[int, CachedFile]) -> None:
    """The fact that makes it the second question."""
    fd, file = cold
    with suppress(BlockingIOError):  # unless a quick disk has answered before it looks
        os.preadv(fd, [bytearray(PAGE)], 0, os.RWF_NOWAIT)
    assert file._in_memory(0, PAGE)


def test_what_is_partly_in_memory_is_whole(cold: tuple[int, CachedFile], content: bytes) -> None:
    fd, file = cold
    for at in (0, 5 * PAGE, 6 * PAGE, 200 * PAGE):
        os.pread(fd, 1, at)
    for offset, count in [(0, PAGE), (0, 2 * PAGE), (5 * PAGE, 3 * PAGE), (0, 2 * MIB)]:
        assert read(file, offset, count) == content[offset : offset + count]
    assert file.counters.hits >= 1
    assert file.counters.misses >= 2


def test_without_cachestat_nowait_decides(cold: tuple[int, CachedFile], content: bytes) -> None:
    """As on kernels before 6.5: what is missing at first, in the middle, or not at all."""
    fd, file = cold
    file.asks_first = False
    # A miss begins to read what is missing: only that, and nothing ahead of it.
    os.posix_fadvise(file.fd, 0, 0, os.POSIX_FADV_RANDOM)
    os.pread(fd, 1, 8 * PAGE)
    # A quick disk may have answered before the kernel looks whether it has.
    page = content[9 * PAGE : 10 * PAGE]
    assert file.read(9 * PAGE, PAGE) in ((b"", False), (page, True))
    part, whole = file.read(8 * PAGE, 100 * PAGE)
    assert part == content[8 * PAGE :][: len(part)]
    assert len(part) >= PAGE
    assert whole == (len(part) == 100 * PAGE)
    assert read(file, 8 * PAGE, 100 * PAGE) == content[8 * PAGE : 108 * PAGE]


def test_what_was_written_is_seen_on_both_ways(both: tuple[int, CachedFile]) -> None:
    """Dirty pages included: the kernel writes them before a direct read."""
    fd, file = both
    chance = random.Random(3)
    image = bytearray(MIB + 3)
    os.pwrite(fd, image, 0)

    async def main() -> None:
        async with AsyncioReader(depth=4, block=64 * KIB) as reader:
            for _ in range(150):
                at, count = chance.randrange(MIB), chance.randrange(1, 3 * PAGE)
                patch = chance.randbytes(min(count, len(image) - at))
                os.pwrite(fd, patch, at)
                image[at : at + len(patch)] = patch
                if not chance.randrange(5):
                    evict(fd)
                at, count = max(0, at - 5000), chance.randrange(20_000)
                for each in (file, file.direct):
                    assert await reader.read(each, at, count) == image[at : at + count]

    asyncio.run(main())


def test_a_file_that_shrinks_and_grows_is_read_as_it_is(
    cold: tuple[int, CachedFile], content: bytes
) -> None:
    fd, file = cold
    assert read(file, 0, MIB) == content[:MIB]
    os.truncate(fd, 5000)
    assert read(file, 4096, MIB) == content[4096:5000]
    assert read(file, 5000, MIB) == b""
    os.truncate(fd, 20_000)
    assert read(file, 4096, MIB) == content[4096:5000] + bytes(15_000)


def test_a_closed_file_and_one_without_direct_io_are_errors(
    both: tuple[int, CachedFile],
) -> None:
    fd, _ = both
    file = open_cached(fd)
    file.close()
    with pytest.raises(OSError, match="this file is closed") as refused:
        file.read(0, 1)
    assert refused.value.errno == errno.EBADF
    with open("/proc/version", "rb") as version, pytest.raises(OSError, match="no direct I/O"):
        open_cached(version.fileno())


@pytest.fixture
def overlaid(tmp_path: Path, content: bytes) -> Iterator[int]:
    """A file on an overlayfs, a container's usual root, and all of it in memory."""
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower" / "file").write_bytes(content)
    layers = ",".join(f"{name}dir={tmp_path / name}" for name in ("lower", "upper", "work"))
    merged = tmp_path / "merged"
    words = ["mount", "-t", "overlay", "overlay", "-o", layers, str(merged)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    if ended.returncode:
        pytest.skip(f"no overlay can be mounted here: {ended.stderr.strip()}")
    try:
        fd = os.open(merged / "file", os.O_RDONLY)
        os.pread(fd, MIB, 0)
        yield fd
        os.close(fd)
    finally:
        subprocess.run(["umount", str(merged)], check=True, timeout=30)


@pytest.mark.parametrize("asks_first", [True, False])
def test_a_filesystem_without_nowait_is_read_directly(
    overlaid: int, content: bytes, asks_first: bool
) -> None:
    """Whether cachestat is there, and counts nothing, or is not: every read is a miss."""
    file = open_cached(overlaid)
    file.asks_first = asks_first
    try:
        assert file.read(0, 4096) == (b"", False)
        assert read(file, 5, 10_000) == content[5:10_005]
        assert (file.counters.hits, file.counters.partial, file.counters.misses) == (0, 0, 2)
    finally:
        file.close()


def test_cachestat_does_not_see_what_an_overlay_has_in_memory(overlaid: int) -> None:
    """The fact; a kernel that counts it would make it a hit."""
    file = open_cached(overlaid)
    try:
        assert not file._in_memory(0, MIB)
        if not file.asks_first:
            pytest.skip("this kernel has no cachestat(2)")
    finally:
        file.close()
