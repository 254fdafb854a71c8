"""Disk reads that tasks await: the same in asyncio, in uvloop and in trio."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any

import pytest
from diskreads import KIB, MIB, opened, rings
from hosts import HOSTS

from pollers.aio.disk import DirectFile
from pollers.statx import Alignment

pytestmark = pytest.mark.parametrize("host", [pytest.param(HOSTS[n](), id=n) for n in HOSTS])


def test_any_offset_and_any_count(host: Any, file: DirectFile, content: bytes) -> None:
    """More than a block too, more than all blocks, and beyond the end."""
    places = [(0, 0), (0, 1), (511, 514), (4095, 2), (99_999, 64 * KIB + 1), (MIB, 10), (MIB, 0)]
    places += [(0, MIB + 3), (77, 2 * MIB), (MIB + 3, 5), (3 * MIB, 5 * MIB)]

    async def main() -> None:
        async with host.Reader(depth=4, block=64 * KIB) as reader:
            for offset, count in places:
                part = await reader.read(file, offset, count)
                assert type(part) is bytes
                assert part == content[offset : offset + count], (offset, count)
            parts = await host.gather(
                [lambda place=place: reader.read(file, *place) for place in places]
            )
            assert parts == [content[offset : offset + count] for offset, count in places]

    host.run(main)


def test_the_reads_of_one_turn_go_out_by_one_call(host: Any, file: DirectFile) -> None:
    async def main() -> None:
        async with host.Reader(depth=64, block=4096) as reader:
            await host.gather([lambda at=at: reader.read(file, at, 100) for at in range(64)])
            assert reader.counters.submits == 1
            assert (reader.counters.reads, reader.counters.bytes) == (64, 6400)

    host.run(main)


def test_no_more_than_depth_are_under_way(host: Any, file: DirectFile, content: bytes) -> None:
    async def main() -> None:
        async with host.Reader(depth=3, block=1000) as reader:
            most = 0

            async def read(at: int) -> bytes:
                nonlocal most
                part = await reader.read(file, at, 1000)
                most = max(most, reader._reader._slots.in_flight)
                return bytes(part)

            parts = await host.gather([lambda at=at: read(at) for at in range(0, 50_000, 1000)])
            assert b"".join(parts) == content[:50_000]
            assert 1 <= most <= 3

    host.run(main)


def test_each_read_has_its_own_error(
    host: Any, file: DirectFile, plain: Path, content: bytes
) -> None:
    closed = opened(plain)
    closed.close()
    directory = DirectFile(os.open(plain.parent, os.O_RDONLY), Alignment(512, 512))

    async def main() -> None:
        async with host.Reader(depth=2, block=4096) as reader:
            results = await host.gather(
                [
                    lambda: reader.read(file, 5, 5),
                    lambda: reader.read(closed, 5, 5),
                    lambda: reader.read(directory, 5, 50_000),
                    lambda: reader.read(file, -1, 5),
                    lambda: reader.read(file, 5, -1),
                    lambda: reader.read(DirectFile(file.fd, Alignment(512, 8192)), 0, 5),
                    lambda: reader.read(file, 6, 5),
                ]
            )
            assert (results[0], results[-1]) == (content[5:10], content[6:11])
            assert [error.errno for error in results[1:3]] == [errno.EBADF, errno.EINVAL]
            assert "direct read of 5 bytes at 5: Bad file descriptor" in str(results[1])
            assert all(isinstance(error, ValueError) for error in results[3:6])

    try:
        host.run(main)
    finally:
        os.close(directory.fd)


def test_reads_are_cancelled_at_any_moment_and_bytes_stay_right(
    host: Any, file: DirectFile, content: bytes
) -> None:
    """A buffer in flight that were used again would show another read's bytes."""
    chance = random.Random(7)
    orphans = 0

    async def main() -> int:
        kept = 0
        async with host.Reader(depth=16, block=8192) as reader:
            inner = reader._reader

            async def one(number: int) -> Any:
                offset = chance.randrange(MIB)
                count = chance.choice([1, 5000, 8192, 30_000])
                asked = lambda: reader.read(file, offset, count)  # noqa: E731
                if number % 3:
                    part = await host.cancelled(asked, chance.randrange(6))
                else:
                    part = await asked()
                    assert part is not None
                if part is not None:
                    assert part == content[offset : offset + count]
                return part is not None

            async def watch() -> bool:
                """Count the reads in flight that nobody awaits any more."""
                nonlocal orphans
                for _ in range(8):
                    await host.turn()
                    orphans += sum(t is not None and t.done is None for t in inner._slots._tickets)
                return False

            for _ in range(25):
                results = await host.gather([*(lambda n=n: one(n) for n in range(40)), watch])
                assert [error for error in results if isinstance(error, Exception)] == []
                kept += sum(results)
            while inner.pending:  # cancelled reads that are still with the kernel
                await host.turn()
            assert sorted(inner._buffers.free) == list(range(16))
        return kept

    assert host.run(main) >= 25 * 40 // 3
    assert orphans > 0, "nothing was cancelled in flight"


def test_leaving_ends_the_reads_of_others_and_waits_for_the_disk(
    host: Any, file: DirectFile
) -> None:
    before = rings()

    async def main() -> None:
        reader = host.Reader(depth=8, block=8192)

        async def leave() -> None:
            async with reader:
                await host.turn()
                await host.turn()
                await host.turn()

        async def late(at: int) -> bytes:
            await host.turn()
            return bytes(await reader.read(file, at, 300_000))

        results = await host.gather([leave, *(lambda at=at: late(at) for at in range(20))])
        assert results[0] is None
        for result in results[1:]:
            assert isinstance(result, bytes | ValueError), result
        assert any(isinstance(result, ValueError) for result in results)
        with pytest.raises(ValueError, match="closed disk reader"):
            await reader.read(file, 0, 1)
        with pytest.raises(ValueError, match="make another one"):
            await reader.__aenter__()

    host.run(main)
    assert rings() == before


def test_the_body_s_exception_comes_out_as_it_is(host: Any, file: DirectFile) -> None:
    async def main() -> None:
        async with host.Reader(depth=2) as reader:
            await reader.read(file, 0, 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        host.run(main)


def test_a_cancelled_body_leaves_nothing_behind(host: Any, file: DirectFile) -> None:
    before = rings()

    async def body() -> None:
        async with host.Reader(depth=4) as reader:
            while True:
                await host.gather([lambda: reader.read(file, 0, MIB) for _ in range(4)])

    async def main() -> None:
        assert await host.cancelled(body, 30) is None

    host.run(main)
    assert rings() == before


def test_a_reader_that_was_not_entered_says_so(host: Any, file: DirectFile) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="use it by `async with`"):
            await host.Reader().read(file, 0, 1)

    host.run(main)


def test_aio_max_nr_exhausted_is_said_on_entering(host: Any) -> None:
    with open("/proc/sys/fs/aio-max-nr") as sysctl:
        beyond = int(sysctl.read()) + 1

    async def main() -> None:
        with pytest.raises(OSError, match=r"fs\.aio-max-nr is used up .* sysctl -w"):
            await host.Reader(depth=beyond, block=1).__aenter__()

    host.run(main)
