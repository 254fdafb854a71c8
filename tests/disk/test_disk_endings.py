"""Disk reads that fail, are given up, or are cut off by the end of their reader."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest
from diskreads import (
    Reads,
    completed,
    loop,
    opened,
    rings,
    run,
)
from interruptions import Interrupted, interrupted_at, points

from pollers.aio.disk import Block, DirectFile, DiskReader, Ticket
from pollers.statx import Alignment

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


def test_closing_that_is_interrupted_is_repeated(file: DirectFile) -> None:
    """By a signal handler that raises at each of its points in turn."""
    before, fds = rings(), len(os.listdir("/proc/self/fd"))

    def once(point: int) -> bool:
        reader = DiskReader(depth=2)
        reader.submit(file, 0, 4096, Reads().into(0))
        reader.flush()
        with interrupted_at(point) as left, suppress(Interrupted):
            reader.close()
        if not reader._context.closed:  # the disk may be writing there
            assert len(reader._buffers.view(0, 0, 4096)) == 4096
        reader.close()
        assert (rings(), len(os.listdir("/proc/self/fd"))) == (before, fds)
        return left[0] < 0

    assert points(once) > 3
