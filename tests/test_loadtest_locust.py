"""`locust -f loadtest/` as a user runs it: headless, with a real server, nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hdrh.histogram import HdrHistogram
from locust_run import POLLER, SMALL, Locust, rows, run


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_users_are_echo_users_unless_named_and_need_nothing_started(tmp_path: Path) -> None:
    words = ("-u", "50", "-r", "50", "-t", "2s", "--think-time", "0.1", "--csv", "out")
    code, locust = run(*POLLER, *words, cwd=tmp_path)
    assert code == 0, locust.output
    assert '"EchoUser": 50' in locust.output
    assert "EchoSwarm" not in locust.output
    assert re.search(r"server stopped: 51 connections", locust.output)
    row = rows(tmp_path / "out")["64 B"]
    assert int(row["Request Count"]) > 0
    assert row["Failure Count"] == "0"
    assert float(row["Average Content Size"]) == 64
    times = [float(row[name]) for name in ("Min Response Time", "50%", "99%")]
    assert 0 < times[0] <= times[1] <= times[2]
    assert not all(value.is_integer() for value in times)


def test_swarms_are_measured_together_and_the_test_then_ends(tmp_path: Path) -> None:
    out = tmp_path / "measurement.json"
    words = ("-u", "2", "-r", "10", "--swarm-warmup", "1", "--swarm-measure", "0.5")
    code, locust = run(*POLLER, *SMALL, *words, "--measurement-out", str(out), "EchoSwarm")
    assert code == 0, locust.output
    result = json.loads(out.read_text())
    assert result["schema"] == 1
    assert result["cell"]["connections"] == result["cell"]["active"] == 100
    assert result["ready"]["poller"] == result["cell"]["poller"] == "poll"
    assert result["attestation"]["agrees"] is not False
    assert result["seconds"] >= 0.45
    assert result["messages"] > 0
    assert result["throughput"] == pytest.approx(result["messages"] / result["seconds"], rel=0.1)
    assert result["errors"] == {}
    service = result["latency"]["service"]
    assert 0 < service["p50"] <= service["p90"] <= service["p99"] <= service["p99.9"]
    assert service["p99.9"] <= service["max"]
    assert HdrHistogram.decode(service["histogram"]).get_total_count() == result["messages"]
    assert result["latency"]["intended"] == service  # a closed loop has no other intention
    assert result["fairness"]["min"] > 0
    server = result["server"]
    assert 0 < server["cpu_share"] < 1.5
    assert server["rss_loaded_kib"] >= server["rss_empty_kib"] > 0
    assert server["kernel_calls_source"] in ("tracepoint", "adapter")
    assert server["kernel_calls_per_message"] > 0
    assert server["events_per_wakeup_mean"] > 0
    assert 0 < result["client"]["cpu_share"] < 1.5
    assert result["client"]["locust_share"] > 0
    assert result["bound"] in ("server", "client", "host")


def test_an_open_loop_shows_both_latencies_and_counts_once(tmp_path: Path) -> None:
    words = ("-u", "1", "-t", "3s", "--swarm-rate", "500", "--swarm-active", "10%")
    out = tmp_path / "measurement.json"
    words += ("--csv", str(tmp_path / "out"), "--swarm-warmup", "0", "--measurement-out", str(out))
    started = time.monotonic()
    code, locust = run(*POLLER, *SMALL, *words, "EchoSwarm")
    taken = time.monotonic() - started
    assert code == 0, locust.output
    found = rows(tmp_path / "out")
    sent, intended = found["64 B"], found["64 B from intended send"]
    total = found["Aggregated"]
    assert sent["Request Count"] == intended["Request Count"] == total["Request Count"]
    assert sent["Failure Count"] == "0"
    assert float(intended["Average Response Time"]) >= float(sent["Average Response Time"]) > 0
    result = json.loads(out.read_text())  # a window that lasted until the test was stopped
    assert result["errors"] == {}
    assert 0 < result["messages"] <= 500 * taken  # never more than the schedule had
    assert result["cell"]["rate"] == 500
    assert (result["cell"]["connections"], result["cell"]["active"]) == (50, 5)


@pytest.mark.parametrize("user", ["EchoUser", "EchoSwarm"])
def test_two_worker_processes_share_one_server(tmp_path: Path, user: str) -> None:
    words = ("-u", "4", "-r", "4", "--think-time", "0.05", "--json-file", "out")
    with Locust(*POLLER, *SMALL, *words, "--processes", "2", user, cwd=tmp_path) as locust:
        locust.until(r"(ECHO|SWARM) +64 B +[1-9]\d")  # workers report every three seconds
        locust.process.send_signal(signal.SIGTERM)
        assert locust.finish() == 0, locust.output
    assert locust.output.count("server under test") == 1
    each = 50 if user == "EchoSwarm" else 1
    assert f"server stopped: {4 * each + 1} connections" in locust.output
    (entry,) = json.loads((tmp_path / "out.json").read_text())
    assert entry["num_requests"] > 20
    assert entry["num_failures"] == 0
    assert any(not float(key).is_integer() for key in entry["response_times"])


@pytest.mark.parametrize("user", ["EchoUser", "EchoSwarm"])
def test_a_server_that_runs_already_is_loaded_and_left_alone(user: str) -> None:
    words = [sys.executable, "-m", "servers.echo", "--poller", "poll"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        code, locust = run(*POLLER, *SMALL, "-H", url, "-u", "2", "-r", "2", "-t", "2s", user)
        assert code == 0, locust.output
        assert "server under test" not in locust.output
        assert server.poll() is None
        server.terminate()
        final = json.loads(server.stdout.readline())
        assert final["accepted"] == 1 + 2 * (50 if user == "EchoSwarm" else 1)


@pytest.mark.parametrize("words", [("EchoUser",), ("EchoSwarm",), ("--processes", "2")])
def test_a_server_that_dies_in_mid_run_ends_it_with_one_line(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    out = tmp_path / "measurement.json"
    asked = ("--measurement-out", str(out)) if "EchoSwarm" in words else ()
    with Locust(*POLLER, *SMALL, "-u", "2", "-r", "2", "-t", "50s", *asked, *words) as locust:
        pid = int(locust.until(r"server under test.* pid (\d+)")[1])
        locust.until("All users spawned")
        os.kill(pid, signal.SIGKILL)
        assert locust.finish() == 1
        (line,) = locust.errors()
    assert f"the server (pid {pid}) died in mid-run: killed by signal 9" in line
    if asked:
        assert "died in mid-run" in json.loads(out.read_text())["failed"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--swarm-active", "60", *SMALL), "--swarm-active: '60' is not a part of 50"),
        (("EchoSwarm", "--swarm-connections", "1000000"), "use at most"),
        (("-H", "http://127.0.0.1:80"), "tcp://host:port"),
        (("--measurement-out", "none.json"), "--measurement-out measures EchoSwarm"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(
    tmp_path: Path, words: tuple[str, ...], why: str
) -> None:
    code, locust = run("-u", "1", *words, cwd=tmp_path)
    assert code == 2, locust.output
    (line,) = locust.errors()
    assert why in line


def test_an_unknown_poller_is_refused_with_the_known_ones() -> None:
    code, locust = run("-u", "1", "--poller", "nope")
    assert code == 2
    assert locust.output.count("\n") == 1
    assert "invalid choice: 'nope'" in locust.output
    assert "epoll" in locust.output


@pytest.mark.parametrize("words", [("EchoSwarm",), ("--processes", "2")])
def test_a_port_in_use_is_one_line_and_exit_code_2(
    tmp_path: Path, taken_port: int, words: tuple[str, ...]
) -> None:
    out = tmp_path / "measurement.json"
    asked = ("--measurement-out", str(out)) if "EchoSwarm" in words else ()
    code, locust = run(*POLLER, "-u", "1", "--server-port", str(taken_port), *asked, *words)
    assert code == 2, locust.output
    (line,) = locust.errors()
    assert str(taken_port) in line
    assert "in use" in line
    if asked:
        assert "in use" in json.loads(out.read_text())["unavailable"]


def test_a_test_that_is_stopped_too_early_says_so_at_once(tmp_path: Path) -> None:
    out = tmp_path / "measurement.json"
    words = ("-u", "1", "-t", "1s", "--measurement-out", str(out), "EchoSwarm")
    code, locust = run(*POLLER, *SMALL, *words)
    assert code == 1, locust.output
    (line,) = locust.errors()
    assert "stopped before the measurement was complete" in line
    assert "stopped before" in json.loads(out.read_text())["failed"]


def test_nothing_outlives_a_locust_that_was_killed() -> None:
    with Locust(*POLLER, *SMALL, "-u", "1", "EchoSwarm") as locust:
        locust.until("All users spawned")
        assert any("servers.echo" in line for line in locust.marked())
        locust.process.kill()
        locust.process.wait()
        assert locust.left() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_in_order(number: signal.Signals) -> None:
    with Locust(*POLLER, *SMALL, "-u", "1", "EchoSwarm") as locust:
        locust.until("All users spawned")
        locust.process.send_signal(number)
        assert locust.finish() == 0, locust.output
        assert "server stopped" in locust.output
