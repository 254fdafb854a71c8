"""Direct reads by AIO: byte-exact at any offset and length, in any loop, whatever fails.

The files are real, on the filesystem of pytest's temporary directory; where that has no direct
I/O, everything here is skipped with its reason.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import pickle
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pollers

if not pollers.probe("aio").available:  # the contract tests fail where it was expected
    pytest.skip(f"aio: {pollers.probe('aio').reason}", allow_module_level=True)

from pollers.aio.abi import IO_EVENT, IOCB, IOCB_CMD_PREAD, IOCB_FLAG_RESFD
from pollers.aio.buffers import Buffers
from pollers.aio.context import Context
from pollers.aio.disk import Block, DirectFile, DiskReader, Ticket, open_direct
from pollers.statx import Alignment

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SIZES = [0, 1, 511, 512, 513, 4095, 4096, 4097]
SIZES += [64 * KIB - 1, 64 * KIB, 64 * KIB + 1, MIB + 3]


def loop(reader: DiskReader, until: Callable[[], bool]) -> None:
    """Be the loop, which does nothing unless the eventfd is readable."""
    poll = select.poll()
    poll.register(reader.fileno(), select.POLLIN)
    deadline = time.monotonic() + 30
    while not until():
        assert time.monotonic() < deadline, f"{reader.pending} reads are still pending"
        if poll.poll(1000):
            reader.reap()


def run(reader: DiskReader) -> None:
    """Flush, and loop until nothing is pending."""
    reader.flush()
    loop(reader, lambda: not reader.pending)


def rings() -> int:
    """The AIO contexts of this process."""
    return Path("/proc/self/maps").read_text().count("[aio]")


def completed(reader: DiskReader) -> None:
    """Wait until a completion is there to be reaped."""
    assert select.select([reader.fileno()], [], [], 30)[0]


class Reads:
    """Gathers what `done` is called with: the bytes, or the errno."""

    def __init__(self) -> None:
        self.results: dict[object, bytes | int | None] = {}

    def into(self, key: object) -> Callable[[Block], None]:
        def done(block: Block) -> None:
            assert key not in self.results, "called twice"
            self.results[key] = block.error.errno if block.error else bytes(block.view)
            block.release()

        return done


def read(reader: DiskReader, file: DirectFile, offset: int, count: int) -> bytes:
    reads = Reads()
    reader.submit(file, offset, count, reads.into(0))
    run(reader)
    result = reads.results[0]
    assert isinstance(result, bytes), os.strerror(result or 0)
    return result


def read_all(reader: DiskReader, file: DirectFile, step: int) -> bytes:
    """The whole file as a server would: one read after another until an empty one."""
    parts: list[bytes] = []
    while part := read(reader, file, sum(map(len, parts)), step):
        parts.append(part)
    return b"".join(parts)


def opened(path: Path) -> DirectFile:
    fd = os.open(path, os.O_RDONLY)
    try:
        return open_direct(fd)
    finally:
        os.close(fd)


@pytest.fixture(scope="module", autouse=True)
def _direct_io(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("probe") / "file"
    path.write_bytes(b"x")
    try:
        opened(path).close()
    except OSError as error:
        pytest.skip(f"{path.parent}: {error.strerror}")


@pytest.fixture(scope="module")
def content() -> bytes:
    return np.random.default_rng(1).bytes(MIB + 3)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> Path:
    """A file of 1 MiB + 3 that no test writes to."""
    path = tmp_path_factory.mktemp("disk") / "plain"
    path.write_bytes(content)
    return path


@pytest.fixture
def file(plain: Path) -> Iterator[DirectFile]:
    file = opened(plain)
    yield file
    file.close()


@pytest.fixture
def reader() -> Iterator[DiskReader]:
    with DiskReader(depth=8) as reader:
        yield reader


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


# -- queueing


def test_nothing_is_sent_before_flush_and_all_of_it_at_once(
    reader: DiskReader, file: DirectFile
) -> None:
    reads = Reads()
    for key in range(8):
        reader.submit(file, key * 4096, 100, reads.into(key))
    assert (reader.pending, reader.counters.submits) == (8, 0)
    reader.flush()
    assert (reader.pending, reader.counters.submits) == (8, 1)
    run(reader)
    assert reader.counters.as_dict() == {
        "reads": 8,
        "bytes": 800,
        "errors": 0,
        "submits": 1,
        "submit_seconds": reader.counters.submit_seconds,
        "longest_submit": reader.counters.submit_seconds,
        "voluntary_switches": None,
    }


@pytest.mark.parametrize("depth", [1, 3, 64])
def test_more_reads_than_buffers_go_out_in_order(
    file: DirectFile, content: bytes, depth: int
) -> None:
    order: list[int] = []
    with DiskReader(depth=depth, block=4096) as reader:

        def done(key: int, block: Block) -> None:
            assert block.view == content[key * 1000 : key * 1000 + 1000]
            order.append(key)
            block.release()

        for key in range(200):
            reader.submit(file, key * 1000, 1000, lambda block, key=key: done(key, block))
        run(reader)
    assert sorted(order) == list(range(200))
    if depth == 1:  # with more, the disk may answer in another order
        assert order == list(range(200))


def test_a_buffer_given_back_late_makes_the_eventfd_readable(
    file: DirectFile, content: bytes
) -> None:
    """Whoever holds blocks, as a server does with slow clients, need not remember the others."""
    held: list[Block] = []
    with DiskReader(depth=2) as reader:
        for key in range(5):
            reader.submit(file, key, 1, held.append)
        reader.flush()
        loop(reader, lambda: len(held) == 2)
        assert not select.select([reader.fileno()], [], [], 0)[0]
        assert reader.pending == 3
        held[0].release()
        held[1].release()
        loop(reader, lambda: len(held) == 4)
        assert reader.pending == 1
        held[2].release()
        loop(reader, lambda: len(held) == 5)
        # FIFO: one pair after the other, each in whichever order the disk answers
        got = [bytes(block.view) for block in held[3:]]
        assert sorted(got) == sorted([content[4:5], got[0]])
        assert reader.pending == 0
        held[3].release()
        held[4].release()


def test_a_block_is_released_once(reader: DiskReader, file: DirectFile, content: bytes) -> None:
    held: list[Block] = []
    reader.submit(file, 10, 20, held.append)
    run(reader)
    (block,) = held
    assert block.view == content[10:30]
    assert block.view.readonly
    user = pickle.PickleBuffer(block.view)
    with pytest.raises(BufferError):
        block.release()  # `user` would see the next read's bytes
    user.release()
    assert block.view == content[10:30]
    assert len(reader._buffers.free) == reader.depth - 1
    block.release()
    with pytest.raises(ValueError, match="released before"):
        block.release()
    with pytest.raises(ValueError, match="released memoryview"):
        bytes(block.view)
    assert sorted(reader._buffers.free) == list(range(reader.depth))


def test_the_kernel_has_no_room_for_all(file: DirectFile, content: bytes) -> None:
    """Partial submission, then EAGAIN: the rest waits for completions, and nothing is lost.

    A context has more places than it was asked for, so that its reader needs many more still.
    """
    order: list[int] = []
    with DiskReader(depth=2000, block=1) as reader:
        reader._context.close()
        reader._context = Context(1)

        def done(key: int, block: Block) -> None:
            assert block.error is None
            assert block.view == content[key * 512 : key * 512 + 1]
            order.append(key)
            block.release()

        for key in range(2000):
            reader.submit(file, key * 512, 1, lambda block, key=key: done(key, block))
        reader.flush()
        assert reader.counters.submits == 2  # as many as there was room for, and EAGAIN
        assert 0 < reader._in_flight < 2000
        assert reader.pending == 2000
        left = [ticket.offset for ticket in reader._queue]
        assert left == sorted(left)
        run(reader)
        assert reader.counters.submits > 2
    assert sorted(order) == list(range(2000))


# -- errors


def test_a_bad_read_does_not_disturb_the_others(
    reader: DiskReader, file: DirectFile, plain: Path, content: bytes
) -> None:
    reads = Reads()
    closed = opened(plain)
    closed.close()
    behind_its_back = opened(plain)
    os.close(behind_its_back.fd)
    unaligned = DirectFile(file.fd, Alignment(1, 1))
    try:
        misread: bytes | int = os.pread(file.fd, 10, 1000)  # tmpfs takes that
    except OSError as error:
        misread = error.errno or 0
    directory = DirectFile(os.open(plain.parent, os.O_RDONLY), Alignment(512, 512))
    asked = [file, closed, file, unaligned, file, behind_its_back, directory, file, closed]
    for key, each in enumerate(asked):
        reader.submit(each, 1000, 10, reads.into(key))
    reader.flush()
    assert reads.results == {}, "only reap() calls"
    run(reader)
    good, bad = content[1000:1010], errno.EBADF
    assert [reads.results[key] for key in range(len(asked))] == [
        *(good, bad, good, misread, good),
        *(bad, errno.EINVAL, good, bad),
    ]
    errors = sum(isinstance(result, int) for result in reads.results.values())
    assert (reader.counters.reads, reader.counters.errors) == (9 - errors, errors)
    assert sorted(reader._buffers.free) == list(range(reader.depth))
    os.close(directory.fd)


def test_an_error_says_which_read_it_was(reader: DiskReader, plain: Path) -> None:
    held: list[Block] = []
    closed = opened(plain)
    closed.close()
    reader.submit(closed, 77, 10, held.append)
    run(reader)
    (block,) = held
    assert (str(block.error), bytes(block.view)) == (
        "[Errno 9] direct read of 10 bytes at 77: Bad file descriptor",
        b"",
    )
    block.release()
    with pytest.raises(ValueError, match="released before"):
        block.release()


def test_closing_a_file_leaves_its_reads_under_way_alone(
    reader: DiskReader, plain: Path, content: bytes
) -> None:
    reads = Reads()
    file = opened(plain)
    reader.submit(file, 5, 5, reads.into(0))
    reader.flush()
    reader.submit(file, 5, 5, reads.into(1))
    file.close()
    run(reader)
    assert reads.results == {0: content[5:10], 1: errno.EBADF}


def test_an_exception_of_done_loses_none_of_the_others(
    reader: DiskReader, file: DirectFile
) -> None:
    reads = Reads()

    def explode(block: Block) -> None:
        block.release()
        raise ZeroDivisionError

    for key in range(6):
        reader.submit(file, 0, 1, reads.into(key) if key % 2 else explode)
    seen = 0
    reader.flush()
    while reader.pending:
        try:
            loop(reader, lambda: not reader.pending)
        except ZeroDivisionError:
            seen += 1
    assert (seen, sorted(reads.results)) == (3, [1, 3, 5])


def test_aio_max_nr_exhausted_is_said_with_the_remedy() -> None:
    with open("/proc/sys/fs/aio-max-nr") as sysctl:
        beyond = int(sysctl.read()) + 1
    with pytest.raises(OSError, match=r"fs\.aio-max-nr is used up .* sysctl -w") as refused:
        DiskReader(depth=beyond, block=1)
    assert refused.value.errno == errno.EAGAIN


def test_a_reader_that_finds_no_memory_leaves_nothing_behind() -> None:
    before = rings()
    with pytest.raises(OSError, match="Cannot allocate memory"):
        DiskReader(depth=64, block=1 << 48)
    assert rings() == before


@pytest.mark.parametrize("bad", [{"depth": 0}, {"block": 0}, {"alignment": 768}])
def test_senseless_options_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        DiskReader(**bad)


# -- cancelling and closing


def test_a_cancelled_read_keeps_its_buffer_until_it_completes(
    file: DirectFile, content: bytes
) -> None:
    reads = Reads()
    with DiskReader(depth=1) as reader:
        first = reader.submit(file, 0, 4096, reads.into("first"))
        reader.flush()
        reader.cancel(first)
        reader.submit(file, 4096, 4096, reads.into("second"))
        reader.flush()
        assert (reader.counters.submits, reader._buffers.free) == (1, [])
        assert reader.pending == 2
        run(reader)
        assert reader.counters.submits == 2
    assert reads.results == {"second": content[4096:8192]}


def test_cancelling_what_is_queued_what_has_completed_and_what_was_told(
    reader: DiskReader, file: DirectFile
) -> None:
    reads = Reads()
    tickets = [reader.submit(file, key, 1, reads.into(key)) for key in range(3)]
    reader.cancel(tickets[0])
    reader.cancel(tickets[0])
    assert reader.pending == 2
    reader.flush()
    completed(reader)
    reader.cancel(tickets[1])
    run(reader)
    reader.cancel(tickets[2])
    assert list(reads.results) == [2]
    assert reader.pending == 0
    assert sorted(reader._buffers.free) == list(range(reader.depth))


def test_done_may_cancel_another_that_completed_with_it(
    reader: DiskReader, file: DirectFile
) -> None:
    called: list[int] = []
    tickets: list[Ticket] = []

    def done(key: int, block: Block) -> None:
        called.append(key)
        block.release()
        for ticket in tickets:
            reader.cancel(ticket)

    tickets += [
        reader.submit(file, 0, 1, lambda block, key=key: done(key, block)) for key in range(4)
    ]
    run(reader)
    assert len(called) == 1
    assert sorted(reader._buffers.free) == list(range(reader.depth))


def test_closing_waits_for_what_is_in_flight_and_calls_nobody(
    file: DirectFile, content: bytes
) -> None:
    reads, held, before = Reads(), [], rings()
    reader = DiskReader(depth=32)
    assert rings() == before + 1
    reader.submit(file, 0, 100, held.append)
    run(reader)
    for key in range(100):
        reader.submit(file, key * 8192, 8192, reads.into(key))
    reader.flush()
    reader.close()
    reader.close()
    assert (reads.results, reader.pending, rings()) == ({}, 0, before)
    (block,) = held
    assert block.view == content[:100], "its memory lives as long as its view"
    block.release()
    for use in (reader.flush, reader.reap, reader.fileno):
        with pytest.raises(ValueError, match="closed disk reader"):
            use()
    with pytest.raises(ValueError, match="closed disk reader"):
        reader.submit(file, 0, 1, reads.into(0))


def test_done_may_close_the_reader(file: DirectFile) -> None:
    reader, called = DiskReader(depth=4), []

    def done(block: Block) -> None:
        called.append(block)
        reader.close()

    for _ in range(10):
        reader.submit(file, 0, 1, done)
    reader.flush()
    loop(reader, lambda: reader.closed)
    assert len(called) == 1


def test_a_forked_child_closes_its_copies_only(file: DirectFile, content: bytes) -> None:
    reads = Reads()
    with DiskReader(depth=4) as reader:
        for key in range(8):
            reader.submit(file, key * 4096, 4096, reads.into(key))
        reader.flush()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                reader.close()
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        run(reader)
    assert reads.results == {key: content[key * 4096 :][:4096] for key in range(8)}


# -- in other loops, and what the counters tell


@pytest.mark.parametrize("name", pollers.names())
def test_any_poller_sees_the_completions(file: DirectFile, content: bytes, name: str) -> None:
    if not pollers.probe(name).available:
        pytest.skip(f"{name}: {pollers.probe(name).reason}")
    reads = Reads()
    with DiskReader(depth=2) as reader, pollers.create(name) as poller:
        poller.register(reader.fileno(), pollers.POLLIN)
        for key in range(7):
            reader.submit(file, key, 9, reads.into(key))
        reader.flush()
        while reader.pending:
            assert poller.poll(30)
            reader.reap()
        assert poller.poll(0) == []
        poller.unregister(reader.fileno())
    assert reads.results == {key: content[key : key + 9] for key in range(7)}


def test_asyncio_hosts_a_reader(file: DirectFile, content: bytes) -> None:
    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        with DiskReader(depth=4) as reader:
            loop.add_reader(reader.fileno(), reader.reap)

            async def part(offset: int) -> bytes:
                answer: asyncio.Future[bytes] = loop.create_future()

                def done(block: Block) -> None:
                    answer.set_result(bytes(block.view))
                    block.release()

                reader.submit(file, offset, 10_000, done)
                loop.call_soon(reader.flush)
                return await answer

            try:
                return b"".join(await asyncio.gather(*map(part, range(0, MIB + 3, 10_000))))
            finally:
                loop.remove_reader(reader.fileno())

    assert asyncio.run(main()) == content


def test_the_counters_tell_a_file_that_is_not_read_asynchronously(
    tmp_path: Path, content: bytes
) -> None:
    """A cold file without O_DIRECT stands for a filesystem that falls back to the page cache."""
    path = tmp_path / "file"
    path.write_bytes(content)
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # no read-ahead
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    buffered = DirectFile(fd, Alignment(512, 512))
    try:
        os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT)
        cold = False
    except OSError as error:
        cold = error.errno == errno.EAGAIN
    if not cold:
        buffered.close()
        pytest.skip(f"a file cannot be evicted from memory, or not be told so, on {tmp_path}")
    reads = Reads()
    with DiskReader(depth=16, count_switches=True) as reader:
        for key in range(16):
            reader.submit(buffered, key * 65536, 4096, reads.into(key))
        run(reader)
        blocked = reader.counters.voluntary_switches
    buffered.close()
    assert reads.results == {key: content[key * 65536 :][:4096] for key in range(16)}
    assert blocked is not None
    assert blocked >= 0.1 * 16
