"""`compare disk` as a process: a whole run, bad input, the budget, and that nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import diskmeasurements
import psutil
import pytest
from compare_process import compare
from diskfile import MIB, SEED, require_disk

from loadtest import _disk_fio, _results
from loadtest._disk_await import NO_NOWAIT, NOWAIT
from loadtest._disk_cells import Load
from loadtest._disk_compare import missing
from loadtest._disk_file import DataFile

SHORT = ["--size", "8m", "--only", "aio", "--loads", "random-direct-2", "--seed", "1"]
SHORT += ["--warmup", "0.02", "--measure", "0.05"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("disk")
    require_disk(made)
    return made


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "epoll"], "no row is called 'epoll'"),
        (["--skip", "aio"], "aio cannot be skipped"),
        (["--loads", "random"], "no load is called 'random'"),
        (["--size", "64"], "--size 64: give whole MiB, as in 512m or 2g"),
        (["--size", "1m", "--loads", "random-direct-512"], "has fewer blocks than"),
        (["--connections", "5"], "--connections is for echo and file"),
        (["--server-cpu", "4711"], "cores here are"),
        (["--load-cpu", "0"], "--load-cpu is for other workloads"),
        (["--path", "/nosuch/place"], "is no directory"),
        (["--size", "900000g"], "needed: name another directory, or a smaller --size"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from loadtest.__main__ import main

    out = place / "bad"
    assert main(["compare", "disk", "--out", str(out), *arguments]) == 2
    shown = capsys.readouterr()
    assert said in shown.err.splitlines()[-1]
    assert shown.out == ""
    assert not out.exists() or list(out.iterdir()) == []


@pytest.mark.skipif(not NOWAIT, reason=NO_NOWAIT)
def test_nowait_is_unavailable_with_the_reason_where_a_file_refuses_it(place: Path) -> None:
    cells = diskmeasurements.cells("nowait-asyncio", load=Load("random", False, 1))
    with DataFile(place, MIB, SEED) as file:
        assert missing(cells, file) == {}
    with open("/proc/version", "rb") as refusing:  # as overlayfs does
        found = missing(cells, SimpleNamespace(fd=refusing.fileno()))  # type: ignore[arg-type]
    reason = found["nowait-asyncio@random-buffered-1"]
    assert reason.startswith("RWF_NOWAIT is refused for a file there (Operation not supported)")


def test_a_whole_run(place: Path) -> None:
    out = place / "whole"
    rows, load = "nowait-asyncio,fio-psync", "sequential-buffered-2"
    words = ["--only", rows, "--loads", load, "--rounds", "2"]
    done = compare("--workload", "disk", *SHORT, *words, "--out", str(out))
    assert done.returncode == 0, done.stderr
    results = _results.load(out / "results.json")
    assert results["workload"] == "disk"
    assert results["stopped"] == ""
    assert results["schedule"][0] == results["schedule"][1][::-1]
    assert results["environment"]["file"]
    assert results["environment"]["disk_queue"]
    measured = results["rounds"][0]["measurements"]
    expected = {"aio", "aio-again", "nowait-asyncio"}
    if not _disk_fio.missing("psync"):
        expected.add("fio-psync")
    assert set(measured) == {f"{row}@{load}" for row in expected}
    for one in results["rounds"]:
        for found in one["measurements"].values():
            assert "failed" not in found, found["failed"]
            assert found["stayed"] < 0.01
    assert "A/A control" in done.stdout
    assert "The other way round" in done.stdout
    assert (out / "report.html").read_text().count("<svg") == 2
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "results.json"]


def test_the_budget_is_kept(place: Path) -> None:
    began = time.monotonic()
    out = place / "budget"
    done = compare("disk", *SHORT, "--rounds", "1000", "--budget", "9", "--out", str(out))
    took = time.monotonic() - began
    results = _results.load(out / "results.json")
    assert "time budget" in results["stopped"]
    assert "Ended early" in done.stdout
    assert results["seconds"] <= 9
    assert took < 20  # what starting and the report take on a busy machine


@contextmanager
def running(place: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "loadtest", "compare", "disk", "--out", str(place), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def held(pid: int) -> list[str]:
    """The data files that a process has open."""
    names = []
    for one in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed
            names.append(os.readlink(one))
    return [name for name in names if "pollmark-" in name]


def test_interrupted_while_it_measures_it_leaves_no_process_and_no_file(place: Path) -> None:
    out = place / "interrupted"
    seen: dict[int, psutil.Process] = {}
    with running(out, *SHORT, "--rounds", "1000") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("round 2"):
                break
        assert held(process.pid)
        deadline = time.monotonic() + 30
        while not seen:
            assert time.monotonic() < deadline
            seen = {one.pid: one for one in psutil.Process(process.pid).children(recursive=True)}
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130
    assert psutil.wait_procs(list(seen.values()), timeout=5)[1] == []
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "results.json"]
    assert len(_results.load(out / "results.json")["rounds"]) >= 1


def test_ended_while_it_writes_the_file_it_leaves_none(place: Path) -> None:
    out = place / "writing"
    with running(out, "--size", "8g", "--keep") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("writing"):
                break
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert "loadtest compare: interrupted" in said
    assert list(out.iterdir()) == []
