"""What may be said of the disk workload's measurements, on made-up ones (diskmeasurements.py)."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from compare_measurements import open_fonts
from diskmeasurements import BY_KEY, cells, measurement
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from loadtest import _results, _terminal
from loadtest._cells import Unknown, choose
from loadtest._disk_analyse import against, disk
from loadtest._disk_cells import (
    BASELINE,
    CONTROL,
    DEFAULT,
    QUICK,
    ROWS,
    Cell,
    Load,
    left_out,
    loads,
)
from loadtest._disk_compare import _render
from loadtest._disk_table import COLUMNS
from loadtest._environment import environment
from loadtest._statistics import compare

DRIFT = (1.0, 0.7, 0.9, 1.2, 0.95, 1.1)


@pytest.fixture(scope="module", autouse=True)
def _fonts() -> None:
    open_fonts()


def run(rounds: int = 6, reasons: dict[str, str] | None = None, **rows: Any) -> dict[str, Any]:
    """The results of one load; each row's figures are for a quiet round and drift with it."""
    chosen: dict[str, dict[str, Any]] = {BASELINE: {}, CONTROL: {}}
    chosen |= {key.replace("_", "-"): figures for key, figures in rows.items()}
    made = []
    for number in range(rounds):
        of_round = {}
        for key, figures in chosen.items():
            figures = dict(figures)
            if "failed" in figures:
                of_round[f"{key}@random-direct-64"] = {"schema": 1, "cell": {}, **figures}
                continue
            wobble = 1 + 0.001 * ((number * 7 + len(key)) % 5 - 2)
            rate = figures.pop("throughput", 50_000.0) * DRIFT[number] * wobble
            of_round[f"{key}@random-direct-64"] = measurement(BY_KEY[key], rate, **figures)
        made.append({"number": number, "seconds": 9.0, "measurements": of_round})
    unavailable = {f"{key}@random-direct-64": why for key, why in (reasons or {}).items()}
    matrix = cells(*list(chosen)[2:], *(reasons or {}))
    return {
        "workload": "disk",
        "started": "2026-01-01T00:00:00+00:00",
        "seconds": 40.0,
        "environment": environment("0", "none") | {"file": "ext4 on /dev/sda1 (/)"},
        "options": {"rounds": rounds, "quick": True, "size": 1 << 30},
        "seed": 7,
        "cells": [cell.as_dict() for cell in matrix],
        "schedule": [],
        "unavailable": unavailable,
        "rounds": made,
        "unfinished": None,
        "stopped": "",
        "analysis": disk(matrix, unavailable, [one["measurements"] for one in made]),
    }


def shown(results: dict[str, Any]) -> str:
    output = Console(file=io.StringIO(), width=200)
    _terminal.show(output, results, COLUMNS)
    text: str = output.file.getvalue()  # type: ignore[attr-defined]
    return " ".join(text.split())


def rows_of(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["key"]: one for one in results["analysis"]["loads"][0]["rows"]}


def test_a_peer_is_compared_within_rounds_and_the_other_way_round() -> None:
    results = run(fio_libaio={"throughput": 40_000.0})
    found = rows_of(results)["fio-libaio"]["ratio"]
    assert found["median"] == pytest.approx(0.8, rel=0.01)
    assert found["shown"]
    text = shown(results)
    assert "Behind: fio, libaio (peer) 0.80 [" in text
    assert "The other way round, AIO, in bulk made 1.25 [" in text
    assert "x fio, libaio (peer)." in text
    assert "A/A control (AIO, in bulk twice): 1.00 [" in text


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=9))
def test_the_other_way_round_the_interval_still_holds_the_median(ratios: list[float]) -> None:
    there = compare(ratios, [1.0] * len(ratios)).as_dict()
    back = against(there)
    assert back["low"] <= back["median"] * (1 + 1e-9)
    assert back["median"] <= back["high"] * (1 + 1e-9)
    assert back["median"] * there["median"] == pytest.approx(1)


def test_what_failed_once_is_no_slow_row_but_none() -> None:
    why = "block 3 was asked for, and block 4 came"
    results = run(threads_trio={"failed": why})
    row = rows_of(results)["threads-trio"]
    assert (row["status"], row["throughput"], row["ratio"]) == ("failed", None, None)
    assert f"preadv, trio.to_thread: failed: {why} (6 of 6 rounds)" in shown(results)


def test_a_peer_that_is_not_installed_is_unavailable_with_what_to_do() -> None:
    text = shown(run(reasons={"fio-psync": "fio is not installed: apt-get install fio"}))
    assert "psync (peer): unavailable: fio is not installed: apt-get install fio" in text
    assert "Not ranked: fio, psync (peer) (unavailable)." in text


def test_a_reader_whose_io_submit_sleeps_is_called_blocking() -> None:
    reader = measurement(BY_KEY["aio"])["reader"] | {"submit_switches_per_read": 0.8}
    text = shown(run(aio_asyncio={"reader": reader}))
    assert "AIO, asyncio BLOCKS in io_submit: 0.8 sleeps a read." in text
    assert "AIO, in bulk BLOCKS" not in text


def test_one_read_at_a_time_it_is_said_who_sends_the_next_one_early() -> None:
    load = run(aio_asyncio={})["analysis"]["loads"][0]
    early = "sends the next one just before its caller has the last one's bytes"
    assert early not in " ".join(COLUMNS.besides(load))
    said = " ".join(COLUMNS.besides(load | {"key": "random-direct-1"}))
    assert f"With one read at a time, AIO, in bulk {early}" in said


def test_the_lag_of_loops_is_set_side_by_side() -> None:
    slow = measurement(BY_KEY["aio"])["latency"] | {"p99": 80_000.0}
    text = shown(run(aio_trio={}, threads_trio={"lag": slow}))
    assert "late (p99, ms): AIO, trio 2.00, preadv, trio.to_thread 80.0." in text


def test_a_full_core_and_a_busy_disk_are_told_apart() -> None:
    reader = measurement(BY_KEY["aio"])["reader"] | {"cpu_share": 0.97}
    rows = rows_of(run(aio_asyncio={"reader": reader}))
    assert (rows["aio"]["bound"], rows["aio-asyncio"]["bound"]) == ("disk", "cpu")


def test_the_results_can_be_read_again_and_the_report_has_everything(tmp_path: Path) -> None:
    results = run(aio_trio={}, fio_libaio={"throughput": 60_000.0})
    _results.save(tmp_path / "results.json", results)
    again = _results.load(tmp_path / "results.json")
    assert again["analysis"] == results["analysis"]
    page = _render(again)
    assert "Who reads this disk best" in page
    assert "loop lag" in page
    assert "Which poller" not in page
    assert page.count("<svg") == 2


def test_results_without_figures_are_refused(tmp_path: Path) -> None:
    results = run()
    del results["rounds"][0]["measurements"]["aio@random-direct-64"]["reader"]
    _results.save(tmp_path / "results.json", results)
    with pytest.raises(_results.BadResults, match="'reader' is missing"):
        _results.load(tmp_path / "results.json")


@pytest.mark.parametrize(
    "name", ["random", "random-direct", "random-direct-0", "direct-random-1", "random-direct-1-1"]
)
def test_a_load_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(Unknown, match=f"no load is called '{name}'"):
        loads([name])


def test_loads_are_named_by_what_they_are() -> None:
    for options in (QUICK, DEFAULT):
        names = options["loads"].split(",")
        assert [load.key for load in loads(names)] == names
    assert loads(["sequential-buffered-8"])[0].block == 131072


def test_the_page_cache_is_asked_in_buffered_loads_only() -> None:
    for row in ROWS:
        assert row.fits(Load("random", False, 1))
        assert row.fits(Load("random", True, 1)) == (row.how != "nowait")


def test_awake_is_who_would_sleep() -> None:
    awake = [row.key for row in ROWS if not row.fits(Load("random", False, 8))]
    assert awake == ["aio-spin"]


def test_rows_that_no_load_is_for_are_known() -> None:
    """They are said, and not dropped in silence."""
    direct, one, buffered = (
        Load("random", path, depth) for path, depth in ((True, 8), (True, 1), (False, 8))
    )
    asked = [row for row in ROWS if row.key in ("aio", "aio-spin", "nowait-trio")]
    assert [row.key for row in left_out(asked, [direct])] == ["aio-spin", "nowait-trio"]
    assert [row.key for row in left_out(asked, [direct, one])] == ["nowait-trio"]
    assert left_out(asked, [one, buffered]) == []


def test_rows_are_chosen_by_their_loop_too() -> None:
    fixed = {BASELINE, CONTROL}
    chosen = [row.key for row in choose(ROWS, ["trio"], ["threads-trio"], fixed)]
    assert chosen == ["aio", "aio-again", "aio-trio", "nowait-trio"]
    assert Cell(ROWS[0], loads(["random-direct-1"])[0]).key == "aio@random-direct-1"
