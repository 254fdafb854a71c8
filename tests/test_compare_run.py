"""The comparator as a process: bad input, interruption, and that nothing is left running."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import trio
from compare_process import compare

from loadtest import _processes, _results
from loadtest._cells import BASELINE, Cell, Load
from loadtest._compare import Plan, command, environment, measure
from loadtest._echo_cells import ROWS

SHORT = ["--connections", "20", "--only", "epoll", "--loads", "busy", "--seed", "1"]
SHORT += ["--warmup", "0.2", "--measure", "0.2"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "nosuch"], "no row is called 'nosuch'"),
        (["--skip", "nosuch"], "no row is called 'nosuch'"),
        (["--skip", "epoll"], "epoll cannot be skipped"),
        (["--loads", "rush"], "no load is called 'rush'"),
        (["--connections", "100000000"], "do not fit"),
        (["--connections", "0"], "must be 1 or more"),
        (["--size", "0"], "must be 1 to"),
        (["--measure", "-1"], "must be above 0"),
        (["--server-cpu", "4711"], "cores here are"),
        (["--load-cpu", "first"], "cores here are"),
        (["--files", "500"], "--files is for watch"),
        (["file", "--path", "/tmp"], "--path is for disk and watch"),
        (["nosuch"], "invalid choice"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    done = compare("--out", str(tmp_path / "out"), *arguments)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_an_output_that_cannot_be_written_is_said_before_anything_runs(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("")
    done = compare("--out", str(place))
    assert done.returncode == 2
    assert done.stderr.startswith("loadtest compare: --out ")
    assert len(done.stderr.splitlines()) == 1


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "loadtest", "compare", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.communicate(timeout=20)


def descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def command_lines(processes: list[psutil.Process]) -> str:
    lines = []
    for one in processes:
        try:
            lines.append(" ".join(one.cmdline()))
        except psutil.NoSuchProcess:
            continue
    return "\n".join(lines)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_stops_everything_and_keeps_the_finished_rounds(
    number: signal.Signals, tmp_path: Path
) -> None:
    seen: dict[int, psutil.Process] = {}
    with running(*SHORT, "--rounds", "100", "--out", str(tmp_path)) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("round 2"):
                break
        deadline = time.monotonic() + 30
        while "servers.echo" not in command_lines(list(seen.values())):
            assert time.monotonic() < deadline
            seen |= {one.pid: one for one in descendants(process.pid)}
        process.send_signal(number)
        process.send_signal(number)  # the impatient press it twice
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert psutil.wait_procs(list(seen.values()), timeout=1)[1] == []
    results = _results.load(tmp_path / "results.json")
    assert len(results["rounds"]) == 1
    assert number.name in results["stopped"]
    assert results["unfinished"]["number"] == 1
    assert "Ended early" in out
    assert "SIG" in (tmp_path / "report.html").read_text()


def test_a_budget_that_ends_in_the_first_round_is_said_and_nothing_is_compared(
    tmp_path: Path,
) -> None:
    done = compare(*SHORT, "--budget", "6.8", "--out", str(tmp_path))
    assert done.returncode == 1
    assert "time budget ended within round 1" in done.stdout
    assert "nothing could be compared" in done.stderr
    assert _results.load(tmp_path / "results.json")["rounds"] == []


def test_a_whole_run_of_two_rounds(tmp_path: Path) -> None:
    done = compare(*SHORT, "--rounds", "2", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    results = _results.load(tmp_path / "results.json")
    assert results["stopped"] == ""
    assert [len(one["measurements"]) for one in results["rounds"]] == [2, 2]
    assert results["schedule"][0] == results["schedule"][1][::-1]
    for one in results["rounds"]:
        for found in one["measurements"].values():
            assert found["attestation"]["agrees"] is not False
            assert found["errors"] == {}
            assert found["latency"]["service"]["histogram"]
    assert "A/A control" in done.stdout


# -- _processes

SPAWN = (
    "import subprocess, sys, time\n"
    "child = [sys.executable, '-c', 'import signal, time;"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)']\n"
    "subprocess.Popen(child, start_new_session=True)\n"
)


def test_what_a_command_leaves_behind_is_ended_though_its_parent_is_gone(tmp_path: Path) -> None:
    token = secrets.token_hex(8)
    words = [sys.executable, "-c", SPAWN]
    code = trio.run(_processes.run, words, token, os.environ, tmp_path, tmp_path / "log", 20)
    assert code == 0
    assert _processes.marked(token) == []


def test_a_child_without_the_mark_is_ended_with_the_one_that_has_it(tmp_path: Path) -> None:
    token, result = secrets.token_hex(8), tmp_path / "result"
    code = (
        "import os, subprocess, sys, time\n"
        "child = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
        "child = subprocess.Popen(child, env={}, start_new_session=True)\n"
        f"open({str(tmp_path / 'part')!r}, 'w').write(str(child.pid))\n"
        f"os.rename({str(tmp_path / 'part')!r}, {str(result)!r})\n"
        "time.sleep(60)"
    )
    words = [sys.executable, "-c", code]
    trio.run(_processes.run, words, token, os.environ, tmp_path, tmp_path / "log", 20, result)
    pid = int(result.read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_command_that_does_not_end_is_stopped_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_processes, "PATIENCE", 0.2)
    token = secrets.token_hex(8)
    code = f"{SPAWN}import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)"
    words = [sys.executable, "-c", code]
    with pytest.raises(_processes.TimedOut):
        trio.run(_processes.run, words, token, os.environ, tmp_path, tmp_path / "log", 0.5)
    assert _processes.marked(token) == []


def test_once_the_result_is_there_the_command_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_processes, "SETTLE", 0.1)
    token, result, log = secrets.token_hex(8), tmp_path / "result", tmp_path / "log"
    code = f"{SPAWN}open({str(result)!r}, 'w').close(); time.sleep(60)"
    words = [sys.executable, "-c", code]
    assert trio.run(_processes.run, words, token, os.environ, tmp_path, log, 20, result) is None
    assert _processes.marked(token) == []


# -- one measurement


def plan(scratch: Path) -> Plan:
    return Plan([], 1, 1, 0.2, 0.2, "auto", "auto", time.monotonic() + 60, scratch)


def test_what_locust_says_before_it_fails_is_the_reason(tmp_path: Path) -> None:
    row = next(row for row in ROWS if row.key == BASELINE)
    impossible = Cell(row, Load("busy", 10, 11, 64))  # more active than there are
    found = trio.run(measure, plan(tmp_path), impossible)
    assert ": --swarm-active: '11' is not a part of 10 connections" in found["failed"]
    assert "throughput" not in found


def test_a_row_decides_about_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_USE_IO_URING", "1")
    monkeypatch.setenv("LOCUST_USERS", "7")
    by_key = {row.key: Cell(row, Load("busy", 1, 1, 1)) for row in ROWS}
    assert "UV_USE_IO_URING" not in environment(by_key["epoll"])
    assert environment(by_key["uvloop-0"])["UV_USE_IO_URING"] == "0"
    assert "LOCUST_USERS" not in environment(by_key["epoll"])


def test_the_command_line_asks_for_the_cell(tmp_path: Path) -> None:
    row = next(row for row in ROWS if row.key == "epoll-splice")
    words = command(plan(tmp_path), Cell(row, Load("idle", 500, 5, 64)), tmp_path / "m", 30)
    joined = " ".join(words)
    assert "--loop reactor --backend splice --poller epoll" in joined
    assert "--swarm-connections 500 --swarm-active 5" in joined
    assert words[-1] == "EchoSwarm"
