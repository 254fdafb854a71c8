"""One measurement of the disk workload: the file is evicted, then one fresh process reads it."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from loadtest import _disk_fio, _processes
from loadtest._compare import DROPPED, HERE
from loadtest._disk_cells import Cell
from loadtest._disk_file import DataFile

#: Seconds that a process needs besides warming up and measuring, and how much longer is a failure.
START: Final = 1.0
GRACE: Final = 25.0
#: The part of the file's pages that may have stayed in the page cache.
STAYED: Final = 0.01


@dataclass(frozen=True)
class Measuring:
    """What all measurements of a run have in common.  Times are seconds."""

    file: DataFile
    seed: int
    warmup: float
    measure: float
    #: The readers' core; None: not pinned.
    cpu: int | None
    scratch: Path


async def measure(run: Measuring, cell: Cell) -> dict[str, Any]:
    """Measure one cell once.

    What does not come to figures is returned as "failed" with its reason.  Raises only
    _processes.Remains.
    """
    stayed = run.file.cool()
    log, out = run.scratch / "reader.log", run.scratch / "fio.json"
    out.unlink(missing_ok=True)
    limit = START + run.warmup + run.measure + GRACE
    token = secrets.token_hex(8)
    try:
        code = await _processes.run(
            command(run, cell, out), token, environment(), run.scratch, log, limit
        )
    except _processes.TimedOut:
        return _failed(cell, f"did not end within {limit:.0f} s and was stopped: {_last(log)}")
    try:
        figures = _figures(cell, log, out)
    except (OSError, ValueError) as error:
        return _failed(cell, f"ended with {code}: {error}")
    if "reads" not in figures:
        return _failed(cell, str(figures.get("failed", "it gave no figures")))
    notes = []
    if not cell.load.direct and stayed > STAYED:
        notes.append(f"not cold: {stayed:.0%} of the file stayed in the page cache")
    return {
        "schema": 1,
        "cell": cell.as_dict(),
        "stayed": stayed,
        "errors": {},
        "notes": notes,
        **figures,
    }


def command(run: Measuring, cell: Cell, out: Path) -> list[str]:
    """The reader's command line, or fio's, whose JSON goes to `out`."""
    row, load, file = cell.row, cell.load, run.file
    if row.peer:
        return _disk_fio.command(
            load, row.how, file.path, file.size, run.seed, run.warmup, run.measure, run.cpu, out
        )
    return [
        *(sys.executable, "-m", "loadtest._disk_reader", "--file", str(file.path)),
        *("--size", str(file.size), "--seed", str(file.seed), "--order", str(run.seed)),
        *("--how", row.how, "--loop", row.loop, "--pattern", load.pattern),
        *("--depth", str(load.depth), *(["--direct"] if load.direct else [])),
        *("--warmup", str(run.warmup), "--measure", str(run.measure)),
        *([] if run.cpu is None else ["--cpu", str(run.cpu)]),
    ]


def environment() -> dict[str, str]:
    """The environment of one measurement: ours, without what would change it unseen."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(DROPPED)}
    path = [str(HERE.parent), *filter(None, [kept.get("PYTHONPATH")])]
    # numpy's own threads have nothing to do here.
    return kept | {"PYTHONPATH": os.pathsep.join(path), "OPENBLAS_NUM_THREADS": "1"}


def _figures(cell: Cell, log: Path, out: Path) -> Mapping[str, Any]:
    """What the reader said.  Raises OSError, ValueError with one line."""
    if cell.row.peer:
        try:
            text = out.read_text()
        except FileNotFoundError:
            text = ""
        return _disk_fio.parse(text or log.read_text(errors="replace"), cell.load)
    last = _last(log)
    try:
        line = json.loads(last)
    except ValueError:
        raise ValueError(last) from None
    if not isinstance(line, dict) or line.get("event") != "measured":
        raise ValueError(last)
    return line


def _last(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"


def _failed(cell: Cell, reason: str) -> dict[str, Any]:
    return {"schema": 1, "cell": cell.as_dict(), "failed": reason}
