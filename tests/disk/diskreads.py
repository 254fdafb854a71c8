"""Being the loop of a disk reader.  Where AIO does not work, whoever imports this is skipped."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import pollers

if not pollers.probe("aio").available:  # the contract tests fail where it was expected
    pytest.skip(f"aio: {pollers.probe('aio').reason}", allow_module_level=True)

from pollers.aio.disk import Block, DirectFile, DiskReader, open_direct

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
