"""Signal handlers that raise while a DiskReader sends, collects, tells: each read is told once."""

from __future__ import annotations

import errno
import random
import select
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from diskreads import MIB, completed, loop, opened, rings
from interruptions import Interrupted, interrupted_after, interrupted_at, points

from pollers.aio import disk
from pollers.aio.context import Context
from pollers.aio.disk import Block, DirectFile, DiskReader, Ticket

SIZE = 1000
DEPTH = 4
#: Each other's bytes are not the same; the last ones are beyond the end of the file.
OFFSETS = [number * 4099 for number in range(11)] + [64 * MIB]


def release(block: Block) -> None:
    """Whatever is interrupted."""
    try:
        block.release()
    except Interrupted:
        with suppress(ValueError):  # where it had been done
            block.release()
        raise


class Round:
    """Twelve reads, two of them cancelled and one of a file that is closed before it is sent."""

    def __init__(self, reader: DiskReader, file: DirectFile, gone: DirectFile) -> None:
        self.reader = reader
        self.told: dict[int, bytes | int | None] = {}
        self.held: list[Block] = []
        self.tickets: list[Ticket] = []
        for number, offset in enumerate(OFFSETS):
            of = gone if number == 5 else file
            self.tickets.append(reader.submit(of, offset, SIZE, self.done(number)))
        reader.cancel(self.tickets[7])

    def done(self, number: int) -> Callable[[Block], None]:
        def done(block: Block) -> None:
            assert number not in self.told, "told twice"
            self.told[number] = block.error.errno if block.error else bytes(block.view)
            if number in (2, 3):  # kept for a while, as by a peer that does not take its bytes
                self.held.append(block)
            else:
                release(block)

        return done

    def ended(self, content: bytes) -> None:
        """See to the rest of it, and that all of it was told."""
        loop(self.reader, lambda: not self.reader.pending)
        for block in self.held:
            block.release()
        expected: dict[int, bytes | int] = {
            number: content[offset : offset + SIZE] for number, offset in enumerate(OFFSETS)
        }
        expected[5] = errno.EBADF
        del expected[7]
        self.told.pop(9, None)  # cancelled under way: told or not
        del expected[9]
        assert self.told == expected
        assert sorted(self.reader._buffers.free) == list(range(DEPTH)), "every buffer is back"


@pytest.fixture
def gone(plain: Path) -> DirectFile:
    file = opened(plain)
    file.close()
    return file


def test_whatever_is_interrupted_anywhere_loses_nothing(
    file: DirectFile, gone: DirectFile, content: bytes
) -> None:
    with DiskReader(DEPTH, SIZE) as reader:

        def once(point: int) -> bool:
            current = Round(reader, file, gone)
            with interrupted_at(point) as left, suppress(Interrupted):
                reader.flush()
                reader.cancel(current.tickets[9])
                loop(reader, lambda: len(current.told) > 6)
            interrupted = left[0] < 0
            reader.cancel(current.tickets[9])
            if interrupted:
                reader.flush()
            current.ended(content)
            return interrupted

        tried = points(once)
        assert tried > 100
        counters = reader.counters
        assert counters.errors == tried + 2, "each counted once, as it was told"


def test_a_buffer_that_others_wait_for_is_given_back_by_two_attempts(
    file: DirectFile, content: bytes
) -> None:
    """The first of which was interrupted, perhaps before the eventfd was readable."""

    def once(point: int) -> bool:
        held: list[Block] = []
        told: list[bytes] = []

        def done(block: Block) -> None:
            told.append(bytes(block.view))
            block.release()

        with DiskReader(1, SIZE) as reader:
            reader.submit(file, 0, SIZE, held.append)
            reader.submit(file, 4099, SIZE, done)
            reader.flush()
            loop(reader, lambda: bool(held))
            with interrupted_at(point) as left, suppress(Interrupted):
                release(held[0])
            loop(reader, lambda: bool(told))
            assert told == [content[4099 : 4099 + SIZE]]
        return left[0] < 0

    assert points(once) > 3


def test_whoever_waits_for_the_end_of_a_cancelled_read_hears_of_it(file: DirectFile) -> None:
    with DiskReader(DEPTH, SIZE) as reader:

        def once(point: int) -> bool:
            ticket = reader.submit(file, 0, SIZE, lambda block: block.release())
            reader.flush()
            completed(reader)
            reader.cancel(ticket)
            with interrupted_at(point) as left, suppress(Interrupted):
                reader.reap()
            if left[0] < 0:
                assert select.select([reader.fileno()], [], [], 0)[0]
            loop(reader, lambda: not reader.pending)
            return left[0] < 0

        assert points(once) > 20


def test_nobody_has_to_ask_again(file: DirectFile, gone: DirectFile, content: bytes) -> None:
    """Whoever only waits for the eventfd hears of all that was sent."""
    with DiskReader(DEPTH, SIZE) as reader:

        def once(point: int) -> bool:
            current = Round(reader, file, gone)
            reader.cancel(current.tickets[9])
            reader.flush()
            with interrupted_at(point) as left, suppress(Interrupted):
                loop(reader, lambda: not reader.pending)
            interrupted = left[0] < 0
            current.ended(content)
            return interrupted

        assert points(once) > 100


def test_mending_may_be_interrupted_too(
    file: DirectFile, gone: DirectFile, content: bytes
) -> None:
    before, chance, interrupted = rings(), random.Random(8), 0
    with DiskReader(DEPTH, SIZE) as reader:
        for _ in range(150):
            current = Round(reader, file, gone)
            for _ in range(6):
                point = int(chance.expovariate(1 / 40))
                with interrupted_at(point) as left, suppress(Interrupted):
                    reader.flush()
                    reader.reap()
                interrupted += left[0] < 0
            reader.cancel(current.tickets[9])
            reader.flush()
            current.ended(content)
    assert interrupted > 300
    assert rings() == before


def test_where_no_other_context_is_to_be_had_it_is_said_and_tried_again(
    file: DirectFile, gone: DirectFile, content: bytes
) -> None:
    with DiskReader(DEPTH, SIZE) as reader:
        current = Round(reader, file, gone)
        reader.cancel(current.tickets[9])
        with pytest.raises(Interrupted), interrupted_at(20):
            reader.flush()
        context: Context = reader._context
        with open("/proc/sys/fs/aio-max-nr") as sysctl:
            context.capacity = int(sysctl.read()) + 1
        for _ in range(3):
            with pytest.raises(OSError, match=r"fs\.aio-max-nr is used up"):
                reader.reap()
        context.capacity = DEPTH
        reader.flush()
        current.ended(content)


def test_a_callback_may_go_on_after_an_interruption(file: DirectFile) -> None:
    """Of a call of ours: the next one is told, and nothing is forgotten."""
    with DiskReader(DEPTH, SIZE) as reader:

        def once(point: int) -> bool:
            told: list[int] = []
            interrupted = False

            def done(block: Block, number: int) -> None:
                nonlocal interrupted
                told.append(number)
                release(block)
                if number == 0:
                    for more in (3, 4):
                        reader.submit(file, OFFSETS[more], SIZE, partial(done, number=more))
                    with interrupted_at(point) as left, suppress(Interrupted):
                        reader.flush()
                        reader.reap()
                    interrupted = left[0] < 0

            for number in range(3):
                reader.submit(file, OFFSETS[number], SIZE, partial(done, number=number))
            reader.flush()
            loop(reader, lambda: not reader.pending)
            assert sorted(told) == list(range(5))
            assert sorted(reader._buffers.free) == list(range(DEPTH))
            return interrupted

        assert points(once) > 20


def test_what_a_callback_raises_is_the_callers_and_asks_for_nothing_again(
    file: DirectFile,
) -> None:
    with DiskReader(DEPTH, SIZE) as reader:
        told: list[int] = []

        def failing(block: Block) -> None:
            told.append(len(block.view))
            block.release()
            raise ZeroDivisionError

        for offset in OFFSETS[:8]:
            reader.submit(file, offset, SIZE, failing)
        reader.flush()
        raised = 0
        while reader.pending:
            try:
                loop(reader, lambda: not reader.pending)
            except ZeroDivisionError:
                raised += 1
        assert told == [SIZE] * 8
        assert raised == 8
        assert reader.counters.reads == 8


def test_real_signals_are_as_harmless(plain: Path, file: DirectFile) -> None:
    content, interrupted = plain.read_bytes(), 0
    offsets = list(range(0, MIB, 4096))
    with DiskReader(16, 4096) as reader:
        for turn in range(40):
            told: list[int] = []

            def into(at: int, told: list[int]) -> Callable[[Block], None]:
                def done(block: Block) -> None:
                    assert bytes(block.view) == content[at : at + 4096]
                    told.append(at)
                    release(block)

                return done

            for at in offsets:
                reader.submit(file, at, 4096, into(at, told))
            try:
                with interrupted_after(0.0003 + turn * 0.0001, only_in=disk.__file__):
                    while True:
                        reader.flush()
                        reader.reap()
            except Interrupted:
                interrupted += 1
            reader.flush()
            loop(reader, lambda: not reader.pending)
            assert sorted(told) == offsets
            assert len(reader._buffers.free) == 16
    assert interrupted == 40
