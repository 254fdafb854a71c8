"""Rounds and their end: the budget, signals, what goes wrong; on made-up measurements."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from compare_measurements import LOAD, measurement

from loadtest import _analyse, _cells, _compare, _processes, _report, _results
from loadtest.__main__ import RESERVE, SUITES, main
from loadtest._cells import Cell
from loadtest._compare import Outcome, Plan, Rounds, run_rounds
from loadtest._echo_cells import ROWS
from loadtest._rounds import AnyCell

SIGNALS = (signal.SIGINT, signal.SIGTERM)
WORDS = ["compare", "--only", "epoll", "--loads", "busy", "--connections", "20"]


class Silent(AbstractContextManager[None]):
    """A Progress that says nothing."""

    def __exit__(self, *_: object) -> None: ...
    def cell(self, round_number: int, rounds: int, cell: AnyCell) -> None: ...
    def done(self, cell: AnyCell, measurement: Mapping[str, Any]) -> None: ...
    def fewer(self, cells: int) -> None: ...


class Clock:
    """A time.monotonic() that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(_compare, "time", made)
    return made


def cells() -> list[Cell]:
    return [Cell(row, LOAD) for row in ROWS[:2]]


async def made_up(cell: Cell) -> dict[str, Any]:
    return measurement(cell.row)


@pytest.mark.parametrize("before", [0.0, 45.0])
def test_what_is_done_before_the_rounds_is_no_part_of_one(before: float, clock: Clock) -> None:
    async def prepare() -> None:
        clock.now += before

    async def measure(cell: Cell) -> dict[str, Any]:
        clock.now += 2.0
        return await made_up(cell)

    plan = Rounds(cells(), 9, 1, clock.now + 60, prepare)
    with run_rounds(plan, Silent(), measure) as outcome:
        assert len(outcome.rounds) == (3 if before else 9)
        assert bool(outcome.stopped) == bool(before)
        assert all(one["seconds"] == 4.0 for one in outcome.rounds)


def test_a_process_that_cannot_be_ended_ends_the_run_and_keeps_the_finished_rounds() -> None:
    made = 0

    async def measure_two(cell: Cell) -> dict[str, Any]:
        nonlocal made
        made += 1
        if made > 2:
            raise _processes.Remains("processes 7 of this run could not be ended")
        return await made_up(cell)

    plan = Rounds(cells(), 3, 1, _compare.time.monotonic() + 60)
    with run_rounds(plan, Silent(), measure_two) as outcome:
        assert len(outcome.rounds) == 1
        assert outcome.remains
        assert outcome.stopped == "processes 7 of this run could not be ended"
        assert outcome.unfinished is not None


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_after_the_rounds_is_put_off_and_spoils_none(number: signal.Signals) -> None:
    former = [signal.getsignal(one) for one in SIGNALS]
    plan = Rounds(cells(), 2, 1, _compare.time.monotonic() + 60)
    with run_rounds(plan, Silent(), made_up) as outcome:
        assert not outcome.interrupted
        signal.raise_signal(number)
        signal.raise_signal(number)
    assert outcome.interrupted
    assert outcome.stopped == ""
    assert len(outcome.rounds) == 2
    assert [signal.getsignal(one) for one in SIGNALS] == former


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("when", ["analysing", "reporting"])
def test_interrupted_after_the_rounds_it_loses_nothing(
    when: str, number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    analyse = _analyse.analyse

    async def measure(plan: Plan, cell: Cell) -> dict[str, Any]:
        return await made_up(cell)

    def analysed(*arguments: Any) -> dict[str, Any]:
        if when == "analysing":
            signal.raise_signal(number)
        return analyse(*arguments)

    def render(_: object) -> str:
        if when == "reporting":
            signal.raise_signal(number)
        return "<html>"

    monkeypatch.setattr(_compare, "measure", measure)
    monkeypatch.setattr(_analyse, "analyse", analysed)
    monkeypatch.setattr(_report, "render", render)
    assert main([*WORDS, "--rounds", "2", "--out", str(tmp_path)]) == 130
    results = _results.load(tmp_path / "results.json")
    assert len(results["rounds"]) == 2
    assert results["stopped"] == ""
    assert (tmp_path / "report.html").read_text() == "<html>"


@pytest.mark.parametrize(("remains", "broken"), [(True, False), (False, True), (False, False)])
def test_whatever_goes_wrong_at_the_end_the_results_are_saved_and_shown(
    remains: bool,
    broken: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def render(_: object) -> str:
        if broken:
            raise ValueError("no font\nat all")
        return "<html>"

    rounds = [
        {
            "number": number,
            "seconds": 1.0,
            "measurements": {cell.key: measurement(cell.row) for cell in cells()},
        }
        for number in range(2)
    ]
    outcome = Outcome(rounds=rounds, stopped="process 7 is left" if remains else "")
    outcome.remains = remains
    monkeypatch.setattr(_compare, "run", lambda plan, progress: nullcontext(outcome))
    monkeypatch.setattr(_report, "render", render)
    code = main([*WORDS, "--out", str(tmp_path)])
    out, err = capsys.readouterr()
    assert code == (1 if remains or broken else 0)
    assert len(_results.load(tmp_path / "results.json")["rounds"]) == 2
    assert "A/A control" in out
    said = [line for line in err.splitlines() if line.startswith("loadtest compare: ")]
    assert len(said) == remains + broken
    if remains:
        assert "process 7 is left" in said[0]
        assert "Ended early: process 7 is left" in out
    if broken:
        assert "report.html cannot be written: ValueError: no font at all" in said[0]
    assert (tmp_path / "report.html").exists() != broken
    assert not list(tmp_path.glob("*.new"))


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", SUITES)
def test_some_rounds_fit_into_the_budget_also_on_a_slow_machine(
    name: str, quick: bool, tmp_path: Path
) -> None:
    suite = SUITES[name]
    chosen = suite.quick if quick else suite.default
    # kqueue is for systems that have no epoll.
    rows = [row for row in suite.rows if row.usual and row.poller != "kqueue"]
    loads = suite.loads(chosen["loads"].split(","), chosen["connections"], 64)
    made = [Cell(row, load) for load in loads for row in rows]
    fit = [cell for cell in made if not _cells.too_many(cell)]
    plan = Plan(
        fit, 2 if quick else 3, 1, chosen["warmup"], chosen["measure"], "0", "1", 0.0, tmp_path
    )
    assert plan.rounds < chosen["rounds"]  # a quicker one does more
    takes = plan.rounds * sum(_compare.expected(plan, cell) for cell in fit)
    # A twentieth is for a machine that does something else besides.
    assert takes <= 0.95 * (chosen["budget"] - RESERVE)
