"""Reads a file in one way for a while and says what it cost: `python -m loadtest._disk_reader`.

One JSON line on stdout when the window begins, {"event": "measuring"}, and one at the end:
{"event": "measured", ...} with the figures of _disk_meter.py, or with "failed" or "unavailable"
and the reason in one line.  The exit code is 0 where there are figures.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from loadtest._disk_cells import BLOCKS, BY_AIO, SPIN
from loadtest._disk_check import Failed
from loadtest._disk_meter import Meter, Work, places
from pollers import system


def main(arguments: list[str] | None = None) -> int:
    """Measure once; return the exit code."""
    asked = _parser().parse_args(arguments)
    try:
        figures = measure(asked)
    except* Failed as group:
        figures = {"failed": str(_first(group))}
    except* OSError as group:
        error = _first(group)
        figures = {"failed": f"{type(error).__name__}: {error}"}
    _say({"event": "measured", **figures})
    return 0 if "reads" in figures else 1


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """The figures.  Raises Failed and OSError, alone or in groups."""
    if asked.cpu is not None:
        system.pin(asked.cpu)
    block = BLOCKS[asked.pattern]
    work = Work(
        offsets=places(asked.size, block, asked.pattern, asked.order, asked.direct),
        block=block,
        depth=asked.depth,
        seed=asked.seed,
        warmup=asked.warmup,
        measure=asked.measure,
        again=asked.direct,  # what was read through the page cache once is not cold any more
    )
    meter = Meter(work, lambda: _say({"event": "measuring"}))
    fd = os.open(asked.file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _read(asked, meter, fd)
    finally:
        os.close(fd)
    figures = meter.result()
    if why := _substituted(asked.how, figures["holds"]):
        raise Failed(why)
    return figures


def _read(asked: argparse.Namespace, meter: Meter, fd: int) -> None:
    # Imported here, as each takes a while and is not needed by the other.
    if asked.how in ("bulk", "spin"):
        from loadtest import _disk_bulk

        if asked.loop == "none":
            _disk_bulk.alone(meter, fd, SPIN if asked.how == "spin" else 0.0)
        else:
            _disk_bulk.on_reactor(meter, fd)
        return
    from loadtest import _disk_await

    loops: dict[str, Callable[[Meter, int, str, bool], None]] = {
        "asyncio": _disk_await.on_asyncio,
        "uvloop": _disk_await.on_uvloop,
        "trio": _disk_await.on_trio,
    }
    if asked.how == "await" or not asked.direct:
        loops[asked.loop](meter, fd, asked.how, asked.direct)
        return
    from pollers.aio.direct import open_direct  # it opens any file again, for whoever reads it

    file = open_direct(fd)
    try:
        loops[asked.loop](meter, file.fd, asked.how, asked.direct)
    finally:
        file.close()


def _substituted(how: str, holds: dict[str, int]) -> str:
    """What the kernel saw instead of what was asked for; "" where it is the same."""
    by_aio = how in BY_AIO
    if by_aio and not holds["aio_rings"]:
        return "no AIO context was held: it did not read by AIO"
    if not by_aio and holds["aio_rings"]:
        return "an AIO context was held: it did not read by preadv alone"
    return ""


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m loadtest._disk_reader")
    add = made.add_argument
    add("--file", required=True, help="a file as _disk_file.py writes it")
    add("--size", type=int, required=True, help="its bytes")
    add("--seed", type=int, required=True, help="of its bytes")
    add("--how", choices=(*BY_AIO, "threads", "nowait"), required=True)
    add("--loop", choices=("none", "reactor", "asyncio", "uvloop", "trio"), required=True)
    add("--pattern", choices=BLOCKS, required=True)
    add("--direct", action="store_true", help="by O_DIRECT; else through the page cache")
    add("--depth", type=int, required=True, help="reads under way at a time")
    add("--order", type=int, default=0, help="seed of the order of random reads")
    add("--warmup", type=float, default=0.2)
    add("--measure", type=float, default=0.6)
    add("--cpu", type=int, help="core to run on")
    return made


if __name__ == "__main__":
    sys.exit(main())
