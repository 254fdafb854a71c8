"""A process that reads a file in every way that there is, to be run with faults injected into it.

    python faulty_reads.py FILE WAY MAPPED

Prints one JSON object: how many reads were right, how many wrong, and the errors by their text.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import select
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import trio

import pollers.aio.bulk
import pollers.aio.disk
from pollers.aio.bulk import BulkReader
from pollers.aio.context import Context
from pollers.aio.disk import Block, DiskReader, open_direct
from pollers.aio.on_asyncio import AsyncioReader
from pollers.aio.on_trio import TrioReader

READS = 300


def main(path: str, way: str, mapped: str) -> None:
    content = Path(path).read_bytes()
    fd = os.open(path, os.O_RDONLY)
    file = open_direct(fd)
    chance = random.Random(1)
    asked = [(chance.randrange(len(content)), chance.randrange(1, 8192)) for _ in range(READS)]
    told: Counter[str] = Counter()

    def tell(place: tuple[int, int], answer: bytes | BaseException) -> None:
        if isinstance(answer, BaseException):
            told[str(answer)] += 1
        else:
            told["right" if answer == content[place[0] :][: place[1]] else "wrong"] += 1

    if mapped == "no":

        class Unmapped(Context):
            def __init__(self, capacity: int) -> None:
                super().__init__(capacity, mapped=False)

        pollers.aio.disk.Context = pollers.aio.bulk.Context = Unmapped  # type: ignore[misc]

    def callbacks() -> None:
        with DiskReader(depth=7, block=8192) as reader:
            for place in asked:

                def done(block: Block, place: tuple[int, int] = place) -> None:
                    tell(place, block.error or bytes(block.view))
                    block.release()

                reader.submit(file, *place, done)
            reader.flush()
            while reader.pending:
                select.select([reader.fileno()], [], [])
                reader.reap()

    def bulk() -> None:
        with BulkReader(depth=7, count=8192) as reader:
            for batch in reader.read_many(file, [offset for offset, _ in asked], 8192):
                columns = (column.tolist() for column in batch[:4])
                for index, slot, head, result in zip(*columns, strict=True):
                    place = asked[index][0], 8192
                    if result < 0:
                        told[os.strerror(-result)] += 1
                    else:
                        tell(place, bytes(reader.rows[slot][head : head + result]))

    def one_by_one() -> None:
        with BulkReader(depth=1, count=8192) as reader:
            offsets = [offset for offset, _ in asked]
            for offset, answer in zip(offsets, reader.read_each(file, offsets), strict=True):
                if isinstance(answer, int):
                    told[os.strerror(-answer)] += 1
                else:
                    tell((offset, 8192), bytes(answer))

    async def each(reader: Any, place: tuple[int, int]) -> None:
        try:
            tell(place, await reader.read(file, *place))
        except OSError as error:
            tell(place, error)

    async def on_asyncio() -> None:
        async with AsyncioReader(depth=7, block=4096) as reader:
            await asyncio.gather(*(each(reader, place) for place in asked))

    async def on_trio() -> None:
        async with TrioReader(depth=7, block=4096) as reader, trio.open_nursery() as nursery:
            for place in asked:
                nursery.start_soon(each, reader, place)

    ways = {
        "callbacks": callbacks,
        "bulk": bulk,
        "one by one": one_by_one,
        "asyncio": lambda: asyncio.run(on_asyncio()),
        "trio": lambda: trio.run(on_trio),
    }
    try:
        for name in ways if way == "all" else [way]:
            ways[name]()
    except OSError as error:
        told[str(error)] += 1
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
