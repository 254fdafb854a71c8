"""Signal handlers that raise while arrays of reads are under way: each read is told once."""

from __future__ import annotations

import errno
import os
import random
import select
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from diskreads import MIB, rings
from interruptions import (
    Interrupted,
    Kernel,
    disorder,
    interrupted_after,
    interrupted_at,
    points,
    refuse_some,
    unmapped,
)

from pollers.aio import eventfd
from pollers.aio.bulk import Batch, BulkReader
from pollers.aio.context import Context
from pollers.aio.disk import DirectFile

SIZE = 1000
#: Each other's bytes are not the same.
OFFSETS = [number * 4099 for number in range(24)]
DEPTH = 4


@pytest.fixture(params=["mapped", "unmapped"])
def reader(request: pytest.FixtureRequest) -> Iterator[BulkReader]:
    with BulkReader(DEPTH, SIZE, timed=True) as reader:
        if request.param == "unmapped":
            unmapped(reader)
        yield reader


class Told:
    """What a reader tells of OFFSETS, held against the file."""

    def __init__(self, reader: BulkReader, content: bytes) -> None:
        self.reader = reader
        self.content = content
        self.indices: list[int] = []

    def take(self, batch: Batch) -> None:
        for index, slot, head, result in zip(*(each.tolist() for each in batch[:4]), strict=True):
            assert index not in self.indices, "told twice"
            self.indices.append(index)
            if result != -errno.EBADF:
                at = OFFSETS[index]
                assert result == SIZE
                row = self.reader.rows[slot]
                assert bytes(row[head : head + result]) == self.content[at : at + SIZE]

    def step_interrupted_at(self, point: int, timeout: float | None = None) -> bool:
        """A step, and whether it was interrupted; what it told."""
        batch = None
        with interrupted_at(point) as left, suppress(Interrupted):
            batch = self.reader.step(timeout)
        if batch is not None:
            self.take(batch)
        return left[0] < 0

    def all(self) -> None:
        """The rest, and that this was all."""
        assert self.reader.left == len(OFFSETS) - len(self.indices)
        while self.reader.left:
            self.take(self.reader.step())
        assert sorted(self.indices) == list(range(len(OFFSETS)))


@pytest.mark.parametrize("refusing", [False, True], ids=["taken", "refused"])
@pytest.mark.parametrize("steps", [0, 3])
def test_a_step_that_is_interrupted_anywhere_loses_nothing(
    reader: BulkReader, file: DirectFile, content: bytes, steps: int, refusing: bool
) -> None:
    if refusing:
        refuse_some(reader)

    def once(point: int) -> bool:
        told = Told(reader, content)
        reader.begin(file, OFFSETS)
        for _ in range(steps):
            told.take(reader.step())
        interrupted = told.step_interrupted_at(point)
        told.all()
        assert reader._flight.in_flight == 0
        return interrupted

    before = reader.counters.reads + reader.counters.errors
    tried = points(once)
    assert tried > 20
    counted = reader.counters.reads + reader.counters.errors - before
    assert counted == (tried + 2) * len(OFFSETS), "counted as often as told"
    assert sorted(reader._flight.prepared.idle.tolist() + reader._flight._shown.tolist()) == list(
        range(2 * DEPTH)
    )


@pytest.mark.parametrize("mapped", [True, False], ids=["mapped", "unmapped"])
def test_so_does_the_first_step_of_a_reader(
    file: DirectFile, content: bytes, mapped: bool
) -> None:
    """Which makes room for what completes."""

    def once(point: int) -> bool:
        with BulkReader(DEPTH, SIZE) as reader:
            if not mapped:
                unmapped(reader)
            told = Told(reader, content)
            reader.begin(file, OFFSETS)
            interrupted = told.step_interrupted_at(point)
            told.all()
            return interrupted

    assert points(once) > 20


def test_so_does_mending_that_is_interrupted_anywhere(
    reader: BulkReader, file: DirectFile, content: bytes
) -> None:
    """Where the reads that are asked for again were answered in another order than asked for."""
    disorder(reader)
    hears = reader.fileno()

    def once(point: int) -> bool:
        told = Told(reader, content)
        reader.begin(file, OFFSETS)
        while len(told.indices) < 6:
            told.take(reader.step(0))
        assert 0 not in told.indices
        assert select.select([hears], [], [], 30)[0]  # a step that finds nothing is shorter
        with pytest.raises(Interrupted), interrupted_at(30):
            reader.step(0)
        interrupted = told.step_interrupted_at(point, timeout=0)
        told.all()
        return interrupted

    assert points(once) > 50


def test_so_does_all_that_is_interrupted_often(
    reader: BulkReader, file: DirectFile, content: bytes
) -> None:
    before = rings()
    chance = random.Random(5)
    interrupted = 0
    for _ in range(12):
        told = Told(reader, content)
        reader.begin(file, OFFSETS)
        while reader.left and chance.randrange(20):
            interrupted += told.step_interrupted_at(int(chance.expovariate(1 / 60)))
        told.all()
    assert interrupted > 20
    assert rings() == before


def test_no_row_has_two_reads(
    file: DirectFile, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel is asked, not the reader; what the caller looks at is not among its rows."""
    chance = random.Random(6)
    with BulkReader(DEPTH, SIZE) as reader:
        unmapped(reader)
        kernel = Kernel(monkeypatch)
        for _ in range(30):
            told = Told(reader, content)
            reader.begin(file, OFFSETS)
            while reader.left and chance.randrange(20):
                batch = None
                with interrupted_at(int(chance.expovariate(1 / 60))):
                    try:
                        batch = reader.step()
                        if not chance.randrange(5):
                            reader.give_up()
                    except Interrupted:
                        pass
                if batch is not None:
                    assert not kernel.has & set(batch.slots.tolist())
                    told.take(batch)
            if chance.randrange(2):
                reader.give_up()
            elif reader.left:
                while reader.left:
                    told.take(reader.step())


def test_what_is_given_up_or_begun_and_interrupted_is_given_up_or_begun_again(
    reader: BulkReader, file: DirectFile, content: bytes
) -> None:
    actions: list[Callable[[], object]] = [
        reader.give_up,
        lambda: (reader.give_up(), reader.begin(file, OFFSETS[::-1])),
        lambda: [None for _ in reader.read_many(file, OFFSETS) if reader.give_up()],
        lambda: [bytes(part) for part in reader.read_each(file, OFFSETS)],  # type: ignore[arg-type]
    ]
    for number, action in enumerate(actions):

        def once(point: int, number: int = number, action: Callable[[], object] = action) -> bool:
            reader.begin(file, OFFSETS)
            reader.step()
            if number > 1:
                reader.give_up()
            with interrupted_at(point) as left, suppress(Interrupted):
                action()
            reader.give_up()
            assert reader.left == 0
            told = Told(reader, content)
            reader.begin(file, OFFSETS)
            told.all()
            return left[0] < 0

        # The last one has hundreds of points, the same ones again for each read.
        assert points(once) > 5 if number < 3 else all(map(once, range(0, 100, 3)))


def test_an_eventfd_that_is_interrupted_in_the_making_is_asked_for_again(
    file: DirectFile, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def new() -> int:
        made.append(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        return made[-1]

    monkeypatch.setattr(eventfd, "new", new)

    def once(point: int) -> bool:
        made.clear()
        with BulkReader(DEPTH, SIZE) as reader:
            with interrupted_at(point) as left, suppress(Interrupted):
                reader.fileno()
            told = Told(reader, content)
            reader.begin(file, OFFSETS)
            hears = reader.fileno()
            while reader.left:
                told.take(reader.step(0))
                assert not reader.left or select.select([hears], [], [], 30)[0]
            told.all()
        for fd in made[:-1]:  # its number went with the exception, as open(2)'s would
            os.close(fd)
        return left[0] < 0

    assert points(once) > 3


def test_closing_that_is_interrupted_is_repeated(file: DirectFile, content: bytes) -> None:
    before, fds = rings(), len(os.listdir("/proc/self/fd"))

    def once(point: int) -> bool:
        reader = BulkReader(DEPTH, SIZE)
        reader.fileno()
        reader.begin(file, OFFSETS)
        slot = int(reader.step().slots[0])
        with interrupted_at(point) as left, suppress(Interrupted):
            reader.close()
        if not reader._context.closed:  # the disk may be writing there
            assert len(reader._buffers.view(slot, 0, SIZE)) == SIZE
        reader.close()
        assert rings() == before
        assert len(os.listdir("/proc/self/fd")) == fds
        bytes(reader.rows[slot])  # it can still be read
        return left[0] < 0

    assert points(once) > 3


def test_a_context_that_is_interrupted_in_the_making_is_none() -> None:
    before = rings()

    def once(point: int) -> bool:
        made = None
        with interrupted_at(point) as left, suppress(Interrupted):
            made = Context(1)
        if made is not None:
            made.close()
        assert rings() == before
        return left[0] < 0

    assert points(once) > 5


def test_where_no_other_context_is_to_be_had_it_is_said_and_tried_again(
    reader: BulkReader, file: DirectFile, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told(reader, content)
    reader.begin(file, OFFSETS)
    told.take(reader.step())
    with pytest.raises(Interrupted), interrupted_at(30):
        reader.step()
    capacity = reader._context.capacity
    with open("/proc/sys/fs/aio-max-nr") as sysctl:
        reader._context.capacity = int(sysctl.read()) + 1
    for _ in range(3):
        with pytest.raises(OSError, match=r"fs\.aio-max-nr is used up"):
            reader.step()
    assert rings() == 0
    reader._context.capacity = capacity
    told.all()


def test_whoever_waits_for_the_eventfd_hears_of_it_again(file: DirectFile, content: bytes) -> None:
    with BulkReader(DEPTH, SIZE) as reader:
        hears = reader.fileno()

        def once(point: int) -> bool:
            told = Told(reader, content)
            reader.begin(file, OFFSETS)
            told.take(reader.step(0))
            interrupted = False
            while reader.left:
                assert select.select([hears], [], [], 30)[0]
                with interrupted_at(10_000 if interrupted else point):
                    try:
                        while len((batch := reader.step(0)).slots):
                            told.take(batch)
                    except Interrupted:
                        interrupted = True
            told.all()
            return interrupted

        assert points(lambda number: once(3 * number)) > 20


@pytest.mark.parametrize("depth", [1, 16])
def test_real_signals_are_as_harmless(plain: Path, file: DirectFile, depth: int) -> None:
    offsets = list(range(0, MIB, 4096))
    expected = plain.read_bytes()
    interrupted = 0
    with BulkReader(depth, 4096) as reader:
        for turn in range(25):
            told: set[int] = set()
            reader.begin(file, offsets * 4)
            try:
                with interrupted_after(0.0002 + turn * 0.00003):
                    while True:
                        told |= set(reader.step().indices.tolist())
            except Interrupted:
                interrupted += 1
            while reader.left:
                batch = reader.step()
                for index, slot in zip(batch.indices.tolist(), batch.slots.tolist(), strict=True):
                    assert index not in told
                    at = offsets[index % len(offsets)]
                    assert bytes(reader.rows[slot][:4096]) == expected[at : at + 4096]
            assert reader.counters.reads == (turn + 1) * 4 * len(offsets)
    assert interrupted == 25
