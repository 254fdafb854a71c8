"""The file workload of the comparator: its cells, what it asks of Locust, and its words."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import psutil
import pytest
from compare_measurements import measurement, open_fonts
from compare_process import compare
from rich.console import Console

from loadtest import _attest, _environment, _peers, _results, _table, _terminal, _verdict
from loadtest._analyse import analyse
from loadtest._cells import BASELINE, CONTROL, Cell, Load, Unknown, choose, missing, too_many
from loadtest._compare import Plan, command
from loadtest._file_cells import COLD_BYTES, FEW, ROWS, SUITE, FileLoad, loads
from loadtest._report import render

BY_KEY = {row.key: row for row in ROWS}


@pytest.fixture(scope="module", autouse=True)
def _fonts() -> None:
    open_fonts()


def load(name: str = "16k-hot-many", connections: int = 1000) -> FileLoad:
    (found,) = loads([name], connections, 64)
    assert isinstance(found, FileLoad)
    return found


# -- cells


def test_a_load_is_named_by_size_cache_and_crowd() -> None:
    many = load("16k-hot-many")
    assert (many.size, many.cache, many.connections, many.active) == (16384, "hot", 1000, 1000)
    assert many.title == "1,000 connections, all active, files of 16k, hot"
    few = load("511-cold-few")
    assert (few.size, few.cache, few.connections, few.active) == (511, "cold", FEW, FEW)
    assert load("mix-hot-few").sizes == ["1k", "16k", "256k", "4m"]


def test_a_cold_load_has_no_larger_root_than_it_may_write() -> None:
    large = load("4m-cold-many")
    assert large.connections == 1000
    assert 0 < large.active < 1000
    assert large.files * large.size <= COLD_BYTES
    assert f"{large.active} active" in large.title
    assert load("1k-cold-many").active == 1000


@pytest.mark.parametrize(
    "name", ["busy", "16k", "16k-hot", "16k-warm-few", "x-hot-few", "0-hot-few"]
)
def test_an_unknown_load_is_told_how_loads_are_named(name: str) -> None:
    with pytest.raises(Unknown, match=r"no load is called .*16k-hot-many, 4m-cold-few"):
        load(name)


def test_the_usual_rows_are_measured_and_the_others_where_they_are_named() -> None:
    usual = [row.key for row in choose(ROWS, [], [])]
    assert usual[:2] == [BASELINE, CONTROL]
    assert {"epoll-copy", "epoll-splice", "epoll-aio", "uvloop", "nginx"} < set(usual)
    assert "poll" not in usual
    assert choose(ROWS, ["all"], []) == list(ROWS)
    named = [row.key for row in choose(ROWS, ["poll", "asyncio"], [])]
    assert named == [BASELINE, CONTROL, "poll", "asyncio-copy", "asyncio-sendfile"]
    assert BY_KEY[BASELINE].words() == BY_KEY[CONTROL].words()


def test_the_files_of_a_load_count_for_select() -> None:
    select = BY_KEY["select"]
    assert too_many(Cell(select, load("16k-hot-few"))) == ""
    assert "936 do" in too_many(Cell(select, load("16k-hot-many")))


def test_a_peer_that_is_not_installed_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_peers, "PLACES", ())
    monkeypatch.setenv("PATH", os.devnull)
    assert "nginx is not installed" in missing(BY_KEY["nginx"])


def test_the_command_line_asks_for_the_cell(tmp_path: Path) -> None:
    plan = Plan([], 1, 1, 0.2, 0.2, "auto", "auto", 0.0, tmp_path)

    def words(key: str, name: str) -> str:
        return " ".join(command(plan, Cell(BY_KEY[key], load(name, 500)), tmp_path / "m", 30))

    ours = words("epoll-splice", "256k-cold-many")
    assert "--server file --loop reactor --backend splice --poller epoll" in ours
    assert "--file-mix 256k --cache cold --swarm-connections 500 --swarm-active 500" in ours
    assert f"--file-root {tmp_path / 'files'}" in ours
    assert ours.endswith("FileSwarm")
    peer = words("nginx", "16k-hot-few")
    assert "--server nginx --file-mix 16k" in peer
    assert "--loop" not in peer
    echo = command(plan, Cell(BY_KEY[BASELINE], Load("busy", 5, 5, 64)), tmp_path / "m", 30)
    assert "--file-root" not in echo


# -- what a file server may hold


@pytest.mark.parametrize(
    ("server", "poller", "backend", "held", "wrong"),
    [
        ("file", "epoll", "aio", {"eventpoll": 1, "aio_rings": 1, "inotify": 1}, ""),
        ("file", "epoll", "aio", {"eventpoll": 1}, "claims the backend aio and holds no aio_ring"),
        ("file", "epoll", "sendfile", {"eventpoll": 1, "aio_rings": 1}, "holds aio"),
        ("file", "poll", "aio", {"aio_rings": 1}, ""),
        ("file", "aio", "aio", {"aio_rings": 2}, ""),
        ("file", "aio", "copy", {}, "claims aio and holds no aio_ring"),
        ("file", "select", "copy", {"inotify": 1}, ""),
        ("nginx", "epoll", "sendfile", {"eventpoll": 1, "aio_rings": 1}, ""),
        ("nginx", "epoll", "sendfile", {"io_uring": 1, "eventpoll": 1}, "holds io_uring"),
    ],
)
def test_a_claim_includes_its_backend(
    server: str, poller: str, backend: str, held: dict[str, int], wrong: str
) -> None:
    ready = {"server": server, "loop": "reactor", "poller": poller, "backend": backend}
    found = _attest.judge(dict.fromkeys(_attest.FACILITIES, 0) | held, ready)
    assert wrong in found
    assert bool(wrong) == bool(found)


# -- words


def results(**changes: Any) -> dict[str, Any]:
    asked = load("16k-cold-many")
    cells = [Cell(row, asked) for row in ROWS]
    unavailable = {"kqueue@16k-cold-many": "no kqueue here"}
    rounds = []
    for number in range(3):
        measured = {}
        for place, cell in enumerate(cells):
            if cell.key in unavailable:
                continue
            made = measurement(cell.row, 40_000.0 * (1 - 0.05 * place) + number, load=asked)
            made |= {"bytes_per_second": made["throughput"] * 16384}
            made |= {"cold": {"probed": 200, "cold": 199}}
            made["server"] |= {"messages_counted_by": "client" if cell.row.peer else "server"}
            measured[cell.key] = made | changes
        rounds.append({"number": number, "seconds": 1.0, "measurements": measured})
    return {
        "workload": "file",
        "started": "2026-01-01T00:00:00+00:00",
        "environment": _environment.environment("0", "1"),
        "options": {"rounds": 3},
        "seed": 7,
        "cells": [cell.as_dict() for cell in cells],
        "schedule": [],
        "unavailable": unavailable,
        "rounds": rounds,
        "stopped": "",
        "analysis": analyse(cells, unavailable, [one["measurements"] for one in rounds]),
    }


def test_everything_speaks_of_requests_and_megabytes() -> None:
    found = results()
    (analysed,) = found["analysis"]["loads"]
    output = io.StringIO()
    _terminal.show(Console(file=output, width=200), found)
    for text in (output.getvalue(), render(found)):
        assert "request" in text
        assert "message" not in text
        assert "echo" not in text
        assert "MB/s" in text
        assert "655.4" in text  # 40,001 x 16 KiB
        assert "x epoll, sendfile" in text
        assert "epoll, sendfile is not beaten" in text
        assert "A/A control (epoll, sendfile twice)" in text
        assert "at least 99.5% was gone" in text
        assert "of a peer the client counted what was served" in text
    assert len(_table.headings(analysed)) == len(_table.line(analysed["rows"][0], analysed))
    errors = results(errors={"status 404": 900})["analysis"]["loads"][0]["rows"][0]
    assert "errors in 120,003 requests (status 404" in errors["reason"]


def test_a_narrow_terminal_gets_two_tables_and_every_figure() -> None:
    (analysed,) = results()["analysis"]["loads"]
    output = io.StringIO()
    tables = _terminal.tables(analysed, 90)
    assert len(tables) == 2
    for table in tables:
        Console(file=output, width=90).print(table)
    assert "\u2026" not in output.getvalue()


def test_results_of_before_there_were_two_workloads_are_of_messages() -> None:
    (analysed,) = results()["analysis"]["loads"]
    del analysed["workload"]
    assert "messages" in " ".join(_verdict.of_load(analysed))


def test_the_environment_names_the_filesystem_of_a_path(tmp_path: Path) -> None:
    found = _environment.filesystem(tmp_path)
    assert found is not None
    assert " on " in found
    assert found.endswith(")")


# -- the process


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["file", "--loads", "busy"], "no load is called 'busy'"),
        (["--workload", "file", "--only", "uvloop-0"], "no row is called 'uvloop-0'"),
        (["echo", "--workload", "file"], "name one workload"),
        (["file", "--size", "64"], "--size is for echo"),
        (["--workload", "nosuch"], "invalid choice"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    done = compare("--out", str(tmp_path / "out"), *arguments)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_whole_run_with_a_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    words = ["--workload", "file", "--only", "nginx", "--loads", "3k-hot-few", "--rounds", "1"]
    done = compare(*words, "--warmup", "0.2", "--measure", "0.2", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert list(scratch.iterdir()) == []
    left = [one.info["cmdline"] for one in psutil.process_iter(["cmdline"])]
    assert [words for words in left if str(scratch) in " ".join(words or ())] == []
    found = _results.load(tmp_path / "results.json")
    assert found["environment"]["document_root"]
    (only,) = found["rounds"]
    measured = dict(only["measurements"])
    if why := _peers.missing("nginx"):
        assert found["unavailable"] == {"nginx@3k-hot-few": why}
    assert len(measured) == 3 - len(found["unavailable"])
    for one in measured.values():
        assert one["errors"] == {}
        assert one["bytes"] == one["messages"] * 3072
        assert one["attestation"]["agrees"] is not False
    assert "requests/s" in done.stdout
    assert SUITE.workload.name == found["workload"] == "file"
