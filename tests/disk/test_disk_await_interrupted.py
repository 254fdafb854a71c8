"""Signal handlers that raise while a task asks for a read, or a whole read takes its parts."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from contextlib import suppress
from typing import Any

import pytest
from diskreads import loop
from hosts import HOSTS
from interruptions import Interrupted, interrupted_at, points

from pollers.aio.disk import DirectFile, DiskReader
from pollers.aio.whole import WholeRead

SIZE, DEPTH = 1000, 2


class Asking:
    """Await `coroutine`, interrupted at one point at most before it first waits."""

    def __init__(self, coroutine: Coroutine[Any, Any, bytes], point: int) -> None:
        self.coroutine = coroutine
        self.point = point
        self.interrupted = False

    def __await__(self) -> Generator[Any, Any, bytes]:
        try:
            with interrupted_at(self.point) as left:
                try:
                    asked = self.coroutine.send(None)
                finally:
                    self.interrupted = left[0] < 0
            while True:
                asked = self.coroutine.send((yield asked))
        except StopIteration as end:
            return bytes(end.value)


# So it is with a coroutine that was made, when a signal handler raised before its first step.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("host", [pytest.param(HOSTS[name](), id=name) for name in HOSTS])
@pytest.mark.parametrize("count", [SIZE, 3 * SIZE], ids=["one part", "more than buffers"])
@pytest.mark.parametrize("others", [(8192, 4099), ()], ids=["reads on", "leaves"])
def test_a_task_is_interrupted_asking(
    host: Any, file: DirectFile, content: bytes, count: int, others: tuple[int, ...]
) -> None:
    """What it asked for first is nobody's, and no other read is told of it, nor kept waiting."""

    def once(point: int) -> bool:
        async def main() -> bool:
            async with host.Reader(depth=DEPTH, block=SIZE) as reader:
                asking = Asking(reader.read(file, 0, count), point)
                try:
                    assert await asking == content[:count]
                except Interrupted:
                    assert asking.interrupted
                for offset in others:
                    part = await reader.read(file, offset, count)
                    assert part == content[offset : offset + count]
                assert not reader._awaited
                return asking.interrupted

        return bool(host.run(main))

    assert points(once) > 15


def test_a_whole_read_that_was_interrupted_taking_its_parts_is_told(
    file: DirectFile, content: bytes
) -> None:
    with DiskReader(DEPTH, SIZE) as reader:

        def once(point: int) -> bool:
            answers: list[bytes | OSError] = []
            whole = WholeRead(reader, file, 0, 5 * SIZE, answers.append)
            whole.begin()
            reader.flush()
            with suppress(Interrupted), interrupted_at(point, within="_take") as left:
                loop(reader, lambda: not reader.pending)
            loop(reader, lambda: not reader.pending)
            assert answers
            if isinstance(answers[0], bytes):
                assert answers[0] == content[: 5 * SIZE]
            else:
                assert isinstance(answers[0], InterruptedError)
                assert left[0] < 0
            assert sorted(reader._buffers.free) == list(range(DEPTH)), "every buffer is back"
            return left[0] < 0

        assert points(once) > 30
