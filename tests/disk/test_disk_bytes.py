"""What is read by AIO past the page cache: byte-exact, at any offset and length."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from diskreads import (
    GIB,
    KIB,
    MIB,
    SIZES,
    Reads,
    opened,
    read,
    read_all,
    run,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from pollers.aio.abi import IO_EVENT, IOCB, IOCB_CMD_PREAD, IOCB_FLAG_RESFD
from pollers.aio.buffers import Buffers
from pollers.aio.context import Context
from pollers.aio.disk import Block, DirectFile, DiskReader, open_direct
from pollers.statx import Alignment

# -- the ABI


def test_constants_are_the_headers() -> None:
    """<linux/aio_abi.h>; tests/test_aio_facts.py has the layouts."""
    assert (IOCB_CMD_PREAD, IOCB_FLAG_RESFD) == (0, 1)


def test_completions_add_to_the_eventfd_and_reads_end_short(plain: Path) -> None:
    """IOCB_FLAG_RESFD and the end of the file, by the raw context."""
    file, buffers, eventfd = opened(plain), Buffers(2, 4096, 4096), os.eventfd(0, os.EFD_NONBLOCK)
    context = Context(2)
    iocbs, events = np.zeros(2, IOCB), np.zeros(2, IO_EVENT)
    iocbs["opcode"], iocbs["fd"], iocbs["nbytes"] = IOCB_CMD_PREAD, file.fd, 4096
    iocbs["offset"], iocbs["buf"] = [MIB, MIB + 4096], buffers.addresses
    iocbs["flags"], iocbs["resfd"], iocbs["data"] = IOCB_FLAG_RESFD, eventfd, [7, 8]
    addresses = np.array([iocbs.ctypes.data, iocbs.ctypes.data + 64], np.uint64)
    try:
        with pytest.raises(BlockingIOError):
            os.eventfd_read(eventfd)
        assert context.submit(addresses.ctypes.data, 2) == 2
        assert context.wait(events.ctypes.data, 2, 2, 30) == 2
        assert os.eventfd_read(eventfd) == 2
        results = dict(zip(events["data"].tolist(), events["res"].tolist(), strict=True))
        assert results == {7: 3, 8: 0}
    finally:
        context.close()
        os.close(eventfd)
        file.close()


# -- buffers


@pytest.mark.parametrize("alignment", [1, 512, 4096, 65536])
def test_buffers_are_aligned_and_apart(alignment: int) -> None:
    buffers = Buffers(5, 2 * alignment + 1, alignment)
    assert all(address % alignment == 0 for address in buffers.addresses)
    gaps = np.diff(np.array(buffers.addresses))
    assert gaps.tolist() == [3 * alignment] * 4
    assert sorted(buffers.free) == [0, 1, 2, 3, 4]
    view = buffers.view(4, 1, 3 * alignment)
    assert np.frombuffer(view, np.uint8).ctypes.data == buffers.addresses[4] + 1
    assert (len(view), view.readonly) == (3 * alignment - 1, True)


# -- opening


def test_open_direct_opens_the_same_inode_and_leaves_the_fd_alone(plain: Path) -> None:
    fd = os.open(plain, os.O_RDONLY)
    file = open_direct(fd)
    try:
        assert os.fstat(file.fd).st_ino == os.fstat(fd).st_ino
        assert fcntl.fcntl(file.fd, fcntl.F_GETFL) & os.O_DIRECT
        assert not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT
        assert not os.get_inheritable(file.fd)
    finally:
        os.close(fd)
        file.close()
        file.close()  # may be repeated


def test_an_unlinked_file_can_be_read(reader: DiskReader, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    fd = os.open(path, os.O_RDONLY)
    path.unlink()
    file = open_direct(fd)
    os.close(fd)
    assert read(reader, file, 0, 10) == b"abc"
    file.close()


def test_a_filesystem_without_direct_io_is_refused_in_one_line() -> None:
    refusal = r"^\[Errno 22\] no direct I/O on this file: .*; read it with [a-z ]+ instead$"
    with open("/proc/version", "rb") as version, pytest.raises(OSError, match=refusal):
        open_direct(version.fileno())


def test_what_has_no_blocks_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for fd in (os.open(tmp_path, os.O_RDONLY), os.open(tmp_path / "fifo", os.O_RDWR)):
        with pytest.raises(OSError, match="regular files and block devices"):
            open_direct(fd)
        os.close(fd)


def test_tmpfs_is_read_or_refused_clearly(reader: DiskReader) -> None:
    """Linux 6.6 takes O_DIRECT there; before, it is EINVAL."""
    fd = os.memfd_create("pollmark")
    os.write(fd, b"0123456789" * 1000)
    try:
        os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECT))
    except OSError:
        with pytest.raises(OSError, match="no direct I/O on this file: its filesystem refuses"):
            open_direct(fd)
    else:
        file = open_direct(fd)
        assert read(reader, file, 4995, 10_000) == (b"0123456789" * 1000)[4995:]
        file.close()
    os.close(fd)


# -- bytes


@pytest.mark.parametrize("size", SIZES)
def test_a_file_of_any_size_is_read_whole(tmp_path: Path, content: bytes, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(content[:size])
    file = opened(path)
    for block in (128 * KIB, 10_000):
        with DiskReader(depth=1, block=block) as reader:
            assert read_all(reader, file, block) == content[:size]
            assert reader.counters.bytes == size
    file.close()


@pytest.mark.parametrize("count", [count for count in SIZES if count <= 64 * KIB + 1])
def test_any_count_at_any_offset(
    reader: DiskReader, file: DirectFile, content: bytes, count: int
) -> None:
    reads = Reads()
    offsets = [0, 1, 511, 512, 4095, 4096, 4097, 99_999, MIB - 1, MIB, MIB + 2, MIB + 3, MIB + 99]
    for offset in offsets:
        reader.submit(file, offset, count, reads.into(offset))
    run(reader)
    assert reads.results == {offset: content[offset : offset + count] for offset in offsets}


@pytest.mark.parametrize("block", [1, 511, 512, 4096, 4097])
def test_the_largest_block_fits_wherever_it_begins(
    file: DirectFile, content: bytes, block: int
) -> None:
    """And no read writes into the neighbours of its buffer, which hold blocks meanwhile."""
    blocks: dict[int, Block] = {}
    offsets = range(4090, 4110)
    with DiskReader(depth=len(offsets), block=block) as reader:
        for offset in offsets:
            reader.submit(file, offset, block, lambda got, at=offset: blocks.update({at: got}))
        run(reader)
        for offset, got in blocks.items():
            assert got.view == content[offset : offset + block]
            got.release()
    assert len(blocks) == len(offsets)


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> Iterator[int]:
    """5 GiB with a few islands of data, one across the 4 GiB line, one at the very end."""
    fd = os.open(tmp_path_factory.mktemp("disk") / "sparse", os.O_RDWR | os.O_CREAT)
    os.truncate(fd, 5 * GIB)
    for offset in (0, 3 * MIB + 77, 4 * GIB - 5000, 5 * GIB - 9001):
        os.pwrite(fd, content[:9001], offset)
    yield fd
    os.close(fd)


@pytest.fixture(scope="module")
def sparse_reader(sparse: int) -> Iterator[tuple[DiskReader, DirectFile]]:
    file = open_direct(sparse)
    with DiskReader(depth=3) as reader:
        yield reader, file
    file.close()


_near = st.sampled_from([0, 3 * MIB + 77, 4 * GIB - 5000, 4 * GIB, 5 * GIB - 9001, 5 * GIB])
_offsets = st.one_of(
    st.integers(0, 5 * GIB + 10_000),
    st.builds(lambda near, by: max(0, near + by), _near, st.integers(-20_000, 20_000)),
)
_ranges = st.lists(st.tuples(_offsets, st.integers(0, 128 * KIB)), min_size=1, max_size=8)


@settings(max_examples=100, deadline=None)
@given(ranges=_ranges)
def test_what_pread_reads_is_read(
    sparse: int, sparse_reader: tuple[DiskReader, DirectFile], ranges: list[tuple[int, int]]
) -> None:
    reader, file = sparse_reader
    reads = Reads()
    for key, (offset, count) in enumerate(ranges):
        reader.submit(file, offset, count, reads.into(key))
    run(reader)
    expected = {key: os.pread(sparse, count, at) for key, (at, count) in enumerate(ranges)}
    assert reads.results == expected


def test_what_cannot_be_asked_for(reader: DiskReader, file: DirectFile) -> None:
    reads = Reads()
    for offset, count in ((-1, 1), (1 << 63, 1), (0, -1), (0, reader.block + 1)):
        with pytest.raises(ValueError, match="must be from 0 to"):
            reader.submit(file, offset, count, reads.into(0))
    wide = DirectFile(file.fd, Alignment(512, 8192))
    with pytest.raises(ValueError, match=r"alignment of 8192.*made for 4096; make it with"):
        reader.submit(wide, 0, 1, reads.into(0))
    assert reader.pending == 0


def test_the_last_possible_offset_is_an_error_of_the_read(
    reader: DiskReader, file: DirectFile
) -> None:
    reads = Reads()
    reader.submit(file, (1 << 63) - 1, 100, reads.into(0))
    run(reader)
    assert reads.results == {0: errno.EINVAL}


def test_an_alignment_beyond_a_page(file: DirectFile, content: bytes) -> None:
    """As devices with large blocks ask for; this one is content with it."""
    wide = DirectFile(file.fd, Alignment(65536, 65536))
    with DiskReader(depth=2, block=10_000, alignment=65536) as reader:
        assert read(reader, wide, 65_000, 10_000) == content[65_000:75_000]
