"""Reads by AIO in bulk: as fast as they come, and as one source of events among others.

`alone` does nothing else, as fio does: it waits in io_getevents(2), so that there is no loop that
could lag.  `on_reactor` waits in a poller for the reader's eventfd and for a timer, as a server
would that reads a disk beside its sockets.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from loadtest._disk_meter import TICK, Meter
from pollers.base import POLLIN
from pollers.registry import create

if TYPE_CHECKING:
    from pollers.aio.bulk import BulkReader
    from pollers.aio.direct import DirectFile


@contextmanager
def _reader(
    meter: Meter, fd: int, timed: bool, spin: float = 0.0
) -> Iterator[tuple[BulkReader, DirectFile]]:
    """A reader for the meter's work, with its counters, and the file behind `fd`."""
    # Not before: there is none of it where there is no AIO.
    from pollers.aio.bulk import BulkReader
    from pollers.aio.direct import open_direct

    work = meter.work
    file = open_direct(fd)
    try:
        with BulkReader(
            work.depth, work.block, count_switches=True, timed=timed, spin=spin
        ) as reader:
            meter.check.look_at(reader.rows)
            meter.counters = lambda: reader.counters.as_dict()
            meter.warmed = lambda: stop_counting(reader.counters)
            yield reader, file
    finally:
        file.close()


def stop_counting(counters: object) -> None:
    """Count no more switches: that costs 2 us for each io_submit, and warming up had its count."""
    counters.voluntary_switches = None  # type: ignore[attr-defined]


def alone(meter: Meter, fd: int, spin: float) -> None:
    """Read until the meter has enough, awake for `spin` seconds.  Raises OSError, WrongBytes."""
    deep = meter.work.depth > 1
    with _reader(meter, fd, deep, spin) as (reader, file):
        while meter.running:
            (_many if deep else _one_by_one)(meter, reader, file)
            if not meter.work.again:
                meter.end()


def _many(meter: Meter, reader: BulkReader, file: DirectFile) -> None:
    reader.begin(file, meter.work.offsets)
    while reader.left and meter.running:
        _take(meter, reader, None)
        meter.advance(time.monotonic())


def _one_by_one(meter: Meter, reader: BulkReader, file: DirectFile) -> None:
    """A read is sent just before the last one is told of: its time is from then until it is.

    The first one's is from before the offsets were looked at, which is longer.
    """
    clock, offsets = time.monotonic, meter.work.offsets
    with closing(reader.read_each(file, offsets)) as reads:
        began = clock()
        for offset, data in zip(offsets.data, reads, strict=True):
            ended = clock()
            if isinstance(data, int):
                meter.check.failed(offset, -data)
            meter.read(offset, int((ended - began) * 1e9), data)
            meter.advance(ended)
            if not meter.running:
                return
            began = ended


def on_reactor(meter: Meter, fd: int) -> None:
    """As `alone`, with an epoll poller and a timer."""
    with _reader(meter, fd, True) as (reader, file), create("epoll") as poller:
        poller.register(reader.fileno(), POLLIN)
        wait: Callable[[float], object] = poller.poll
        reader.begin(file, meter.work.offsets)
        _take(meter, reader, 0)
        due = time.monotonic() + TICK
        more = False
        while meter.running:
            # What a step has returned is asked for anew by the next one, unasked by the eventfd.
            if wait(0 if more else max(0.0, due - time.monotonic())) or more:
                # One step a turn: a fast disk has the next read ready at once, and for ever.
                more = _take(meter, reader, 0) > 0
            now = time.monotonic()
            if now >= due:
                meter.late(now - due)
                due = max(due + TICK, now)
                meter.advance(now)
            if not reader.left:
                if not meter.work.again:
                    meter.end()
                    break
                reader.begin(file, meter.work.offsets)
                _take(meter, reader, 0)


def _take(meter: Meter, reader: BulkReader, timeout: float | None) -> int:
    """One step of the reader; return how many reads ended."""
    batch = reader.step(timeout)
    count = len(batch.indices)
    if count:
        meter.batch(batch.indices, batch.slots, batch.results, batch.seconds)
    return count
