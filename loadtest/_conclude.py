"""The end of every comparison: analyse, save, show, report; the exit code, whatever goes wrong."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console

from loadtest import _results, _terminal
from loadtest._compare import Outcome
from loadtest._rounds import AnyCell
from loadtest._workload import Workload

OK, NOTHING, INTERRUPTED = 0, 1, 130

#: Cells, reasons of those that cannot run, the measurements of each finished round -> what they
#: mean.
Analyse: TypeAlias = Callable[
    [Sequence[Any], Mapping[str, str], Sequence[Mapping[str, Any]]], dict[str, Any]
]


@dataclass(frozen=True)
class Asked:
    """What is known of a comparison before its first round, as results.json keeps it."""

    workload: Workload
    #: By the wall clock, for people; and time.monotonic().
    begun: str
    started: float
    environment: Mapping[str, Any]
    options: Mapping[str, Any]
    seed: int
    cells: Sequence[AnyCell]
    unavailable: Mapping[str, str]


def collect(asked: Asked, outcome: Outcome, analyse: Analyse) -> dict[str, Any]:
    """Everything that a run found (_results.py), analysed."""
    unavailable = {**asked.unavailable, **outcome.unavailable}
    return {
        "workload": asked.workload.name,
        "started": asked.begun,
        "seconds": time.monotonic() - asked.started,
        "environment": asked.environment,
        "options": asked.options,
        "seed": asked.seed,
        "cells": [cell.as_dict() for cell in asked.cells],
        "unavailable": unavailable,
        **outcome.as_dict(),
        "analysis": analyse(asked.cells, unavailable, outcome.measured),
    }


def conclude(
    out: Path,
    results: dict[str, Any],
    outcome: Outcome,
    show: Callable[[Console, Mapping[str, Any]], None],
    render: Callable[[dict[str, Any]], str],
) -> int:
    """Write `out`/results.json and report.html, print what came out, return the exit code.

    Something was compared where a load of the analysis has a "basis".  Raises OSError where
    results.json cannot be written.
    """
    wrong = []
    if outcome.remains:
        wrong.append(outcome.stopped)
    if not any(load["basis"] for load in results["analysis"]["loads"]):
        wrong.append("nothing could be compared, see above")
    _results.save(out / "results.json", results)  # first, as it is what cannot be made again
    output = _terminal.console()
    show(output, results)
    if why := _write_report(out / "report.html", results, render):
        wrong.append(f"report.html cannot be written: {why}; {out / 'results.json'} is whole")
        output.print(f"\n{out / 'results.json'}", markup=False, soft_wrap=True)
    else:
        both = f"\n{out / 'report.html'}  {out / 'results.json'}"
        output.print(both, markup=False, soft_wrap=True)
    for line in wrong:
        print(f"loadtest compare: {line}", file=sys.stderr)
    if outcome.interrupted:
        return INTERRUPTED
    return NOTHING if wrong else OK


def _write_report(
    path: Path, results: dict[str, Any], render: Callable[[dict[str, Any]], str]
) -> str:
    """Write the report whole or not at all; return why it could not be, in one line, or ""."""
    try:
        _results.replace(path, render(results))
    except Exception as error:  # whatever plotting met: the results are saved and shown already
        return " ".join(f"{type(error).__name__}: {error}".split())
    return ""
