"""Watchers measured for real: a writer's process, a reporter's, and the whole comparison."""

from __future__ import annotations

import importlib.util
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio
from compare_process import compare

from loadtest import _results
from loadtest._child import Child, Failed
from loadtest._watch_cells import Load, Place, WatchCell
from loadtest._watch_held import HOLDS, other_than
from loadtest._watch_journal import Operation, expected
from loadtest._watch_measure import Stall, measure, plant
from loadtest._watch_rows import ROWS
from loadtest._watch_tree import Tree
from pollers import watch

FILES = 400
LOAD = Load(files=FILES, operations=150, rate=1000, flood=0.1, hold=0.1, burst=2000)
PEERS = ("watchdog", "watchfiles", "watchfiles-1ms")

needs_baseline = pytest.mark.skipif(
    "inotify" not in watch.expected_names(), reason="the baseline is inotify, Linux's"
)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    root = tmp_path / "tree"
    root.mkdir()
    made = Place(root, plant(root, FILES), tmp_path, None, None, seed=5)
    before = {path.relative_to(root) for path in root.rglob("*")}
    yield made
    assert {path.relative_to(root) for path in root.rglob("*")} == before


def measured(place: Place, row: str, load: Load = LOAD, stall: Stall | None = None) -> Any:
    if reason := ROWS[row].missing():
        pytest.skip(reason)
    found = trio.run(measure, place, WatchCell(ROWS[row], load), stall)
    assert "failed" not in found, found["failed"]
    return found


@needs_baseline
@pytest.mark.parametrize("row", ["inotify", "stat", *PEERS])
def test_what_a_watcher_reports_is_counted_whole(row: str, place: Place) -> None:
    found = measured(place, row)
    assert found["ready"]["ready"]
    backlogs = {f"backlog-{number + 1}" for number in range(LOAD.backlogs)}
    backlogs.add("fresh")
    assert set(found["phases"]) == {"journal", "flood", "hold", "burst", *backlogs}
    for name, phase in found["phases"].items():
        assert phase["ended"], name
        assert phase["told"] + phase["coalesced"] + phase["lost"] == phase["facts"], name
        # Each operation is a fact, a rename two; and the end of the phase is one.
        assert phase["facts"] > phase["operations"] > 0, name
        assert 0 < phase["latency"]["p50"] <= phase["latency"]["max"], name
        assert phase["cpu_us"] > 0
    kinds = found["kinds"]
    assert kinds["create"]["told"] > 0
    assert kinds["append"]["told"] > 0
    assert not kinds["end"]["lost"]
    assert not kinds["flood"]["lost"]
    for name in backlogs:
        assert found["phases"][name]["lost"] == 0
        assert found["phases"][name]["taken_per_second"] > 0
    json.dumps(found, allow_nan=False)


def test_inotify_tells_all_but_writes_through_mmap(place: Place) -> None:
    found = measured(place, "inotify")
    kinds = found["kinds"]
    for kind, count in kinds.items():
        assert kind == "mmap write" or not count["wrong"], kind
        assert not count["misnamed"], kind
    assert kinds["mmap write"]["lost"] == kinds["mmap write"]["facts"] > 0
    assert found["phases"]["flood"]["lost"] == found["done"]["overflows"] == 0
    if found["holds"]:  # where there is a /proc to look at
        assert found["holds"]["inotify"] == 1
        assert found["holds"]["watches"] == 1 + FILES // 100


def test_a_stopped_watcher_shows_in_the_longest_latency(place: Place) -> None:
    stall = Stall(0.4)
    load = replace(LOAD, operations=0, hold=0.8, burst=0)
    hold = measured(place, "inotify", load, stall)["phases"]["hold"]
    assert stall.lasted >= 0.4
    # The first write after it was stopped may come late on a busy machine.
    assert hold["latency"]["max"] / 1e6 >= 0.75 * stall.lasted
    assert not hold["lost"]


def test_a_watcher_that_cannot_start_is_failed_with_its_words(place: Place) -> None:
    unknown = WatchCell(replace(ROWS["inotify"], key="nosuch"), LOAD)
    assert trio.run(measure, place, unknown)["failed"] == "the reporter ended: KeyError: 'nosuch'"


@needs_baseline
def test_a_measurement_that_is_cancelled_leaves_no_process(place: Place) -> None:
    async def cancelled() -> None:
        with trio.move_on_after(0.7) as scope:
            await measure(place, WatchCell(ROWS["inotify"], replace(LOAD, operations=5000)))
        assert scope.cancelled_caught

    trio.run(cancelled)
    assert psutil.Process().children() == []


@pytest.mark.parametrize("stall", [None, Stall(0.1)])
def test_a_writer_that_ends_is_failed_with_its_words(place: Place, stall: Stall | None) -> None:
    if reason := ROWS["stat"].missing():
        pytest.skip(reason)
    (place.root / "end-hold").symlink_to(place.scratch / "nosuch" / "place")
    found = trio.run(measure, place, WatchCell(ROWS["stat"], replace(LOAD, operations=0)), stall)
    assert found["failed"].startswith("the writer ended: FileNotFoundError")


def test_a_process_that_says_nothing_is_failed_after_its_time(tmp_path: Path) -> None:
    async def ask() -> None:
        async with Child("sleeping_process", 30, tmp_path / "log") as child:
            await child.answer(0.3)

    (tmp_path / "sleeping_process.py").write_text(
        "import sys, time; print('dozing', file=sys.stderr, flush=True); time.sleep(30)"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        with pytest.raises(Failed, match="did not answer within"):
            trio.run(ask)


def test_the_same_seed_does_the_same_things(tmp_path: Path) -> None:
    journals: list[list[Operation]] = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        journal: list[Operation] = []
        tree = Tree(str(tmp_path / name), "work", random.Random(3), journal)
        tree.populate()
        for _ in range(400):
            tree.step()
        journals.append(journal)
    assert [one[:3] for one in journals[0]] == [one[:3] for one in journals[1]]
    kinds = {one.kind for one in journals[0]}
    assert {"rename over", "rename across", "rename directory", "hard link", "rm -r"} <= kinds
    assert {"mkdir -p", "mmap write", "append x5", "truncate", "chmod", "unlink"} <= kinds


def test_the_facts_of_a_journal_end_in_the_tree_that_is_there(tmp_path: Path) -> None:
    journal: list[Operation] = []
    tree = Tree(str(tmp_path), "work", random.Random(4), journal)
    tree.populate()
    for _ in range(500):
        tree.step()
    there: set[str] = set()
    for fact in expected(journal).facts:
        if fact.what in ("created", "came", "replaced"):
            there.add(fact.path)
        elif fact.what in ("deleted", "gone"):
            there.discard(fact.path)
        operation = journal[fact.operation]
        if operation.kind == "rename directory" and fact.what == "came":
            old, new = operation.path + "/", operation.other + "/"
            there = {new + one[len(old) :] if one.startswith(old) else one for one in there}
    assert there == {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}


@needs_baseline
def test_ended_it_leaves_no_process_and_no_tree(tmp_path: Path) -> None:
    place = tmp_path / "place"
    words = ["watch", "--only", "inotify", "--files", "300", "--measure", "0.1"]
    words += ["--rounds", "1000", "--path", str(place), "--out", str(tmp_path / "out")]
    seen: dict[int, psutil.Process] = {}
    with subprocess.Popen(
        [sys.executable, "-m", "loadtest", "compare", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if line.startswith("round 2"):
                    break
            assert len(list(place.iterdir())) == 1
            deadline = time.monotonic() + 30
            while not seen:
                assert time.monotonic() < deadline
                children = psutil.Process(process.pid).children(recursive=True)
                seen = {one.pid: one for one in children}
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGINT)  # the impatient press something else, too
            process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130
    assert psutil.wait_procs(list(seen.values()), timeout=5)[1] == []
    assert list(place.iterdir()) == []
    assert len(_results.load(tmp_path / "out" / "results.json")["rounds"]) >= 1


@needs_baseline
def test_a_whole_comparison_writes_its_results_and_says_where_each_one_lies(
    tmp_path: Path,
) -> None:
    done = compare(
        *("watch", "--files", "300", "--rounds", "2", "--measure", "0.1", "--quick"),
        *("--only", "inotify", "--seed", "1", "--out", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "Where each one lies" in said
    assert "writes through mmap are unseen, until the file is closed" in said
    assert "inotify takes in" in said
    assert "to test the measuring: the longest latency was" in said
    assert "BROKEN" not in said
    results = _results.load(tmp_path / "results.json")
    assert results["workload"] == "watch"
    assert len(results["rounds"]) == 2
    rows = {row["key"]: row for row in results["analysis"]["loads"][0]["rows"]}
    assert set(rows) == {"inotify", "inotify-again"}
    assert rows["inotify-again"]["status"] == "ok"
    assert rows["inotify-again"]["rate"]["rounds"] == 2
    report = (tmp_path / "report.html").read_text()
    assert "Where each one lies" in report
    assert "inotify again (A/A)" in report


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--connections", "10"], "--connections is for other workloads"),
        (["--size", "10"], "--size is for other workloads"),
        (["--loads", "busy"], "--loads is for other workloads"),
        (["--keep"], "--keep is for disk"),
        (["--path", "/dev/null/tree"], "--path /dev/null/tree cannot be written"),
        (["--only", "nosuch"], "no row is called 'nosuch'"),
        (["--skip", "inotify"], "inotify cannot be skipped"),
        (["--server-cpu", "0,1"], "name one core"),
        (["--files", "5"], "must be 100 or more"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from loadtest.__main__ import main

    try:
        code = main(["compare", "watch", "--out", str(tmp_path), *arguments])
    except SystemExit as error:  # argparse's own
        code = int(error.code or 0)
    assert code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("facility", HOLDS)
def test_a_watcher_that_runs_by_another_facility_is_found_out(facility: str) -> None:
    held = {name: int(HOLDS[facility] == name) for name in ("inotify", "fanotify")}
    assert other_than(facility, held) == ""
    assert other_than(facility, {}) == ""  # nobody knows
    other = {name: 1 - count for name, count in held.items()}
    assert f"{facility} runs over something else" in other_than(facility, other)


def test_every_row_but_the_emulated_one_is_attested() -> None:
    assert {row.facility for row in ROWS.values()} == {*HOLDS, "kqueue"}


def test_a_peer_that_is_not_installed_is_unavailable_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert ROWS["watchdog"].missing() == "watchdog is not installed: pip install watchdog"
