"""Disk reads wait their turn, in any loop, and the counters tell how it went."""

from __future__ import annotations

import asyncio
import errno
import os
import pickle
import select
from pathlib import Path

import pytest
from diskreads import (
    MIB,
    Reads,
    loop,
    run,
)

import pollers
from pollers.aio.context import Context
from pollers.aio.disk import Block, DirectFile, DiskReader
from pollers.statx import Alignment

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
        "taken": reader.counters.taken,
        "getevents": reader.counters.getevents,
    }
    assert (reader.counters.taken == 8) != (reader.counters.getevents > 0), "ring, or calls"


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
        assert 0 < reader._slots.in_flight < 2000
        assert reader.pending == 2000
        left = [ticket.offset for ticket in reader._queue]
        assert left == sorted(left)
        run(reader)
        assert reader.counters.submits > 2
    assert sorted(order) == list(range(2000))


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
