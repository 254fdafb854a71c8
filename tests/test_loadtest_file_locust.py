"""`locust -f loadtest/` with file servers, ours and nginx, as a user runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from locust_run import ROOT, SMALL, Locust, rows, run

from loadtest import _peers
from loadtest._pagecache import why_never_cold

#: A poller that every platform has, and files that are quickly written and verified.
FILES = ("--file-mix", "1k:9,100k:1")
OURS = (*FILES, "--poller", "poll", "--swarm-poller", "poll")
SHORT = ("-u", "1", "--swarm-warmup", "1", "--swarm-measure", "0.5")


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a run makes the directories that it must remove; other tests' are elsewhere."""
    place = tmp_path / "scratch"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    return place


def test_file_users_need_nothing_started_and_compare_what_they_get(
    tmp_path: Path, scratch: Path
) -> None:
    words = ("-u", "20", "-r", "20", "-t", "2s", "--think-time", "0.1", "--csv", "out")
    code, locust = run(*OURS, *words, "--server", "file", cwd=tmp_path)
    assert code == 0, locust.output
    assert '"FileUser": 20' in locust.output
    found = rows(tmp_path / "out")
    assert int(found["1k"]["Request Count"]) > int(found["100k"]["Request Count"]) > 0
    assert found["Aggregated"]["Failure Count"] == "0"
    assert float(found["100k"]["Average Content Size"]) == 102_400
    # Any one is in ten, where it takes more than 10 ms: a tenth is what Locust's histogram keeps.
    times = [float(row[name]) for row in found.values() for name in ("50%", "66%", "80%", "95%")]
    assert not all(value.is_integer() for value in times)
    assert list(scratch.glob("pollmark-*")) == []


def test_a_swarm_of_files_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "measurement.json"
    words = (*SHORT, *SMALL, "--measurement-out", str(out), "--slow-readers", "10")
    code, locust = run(*OURS, *words, "--backend", "sendfile", "FileSwarm")
    assert code == 0, locust.output
    assert "requests/s" in locust.output
    result = json.loads(out.read_text())
    cell = result["cell"]
    assert (cell["workload"], cell["server"], cell["backend"]) == ("file", "file", "sendfile")
    assert (cell["mix"], cell["cache"], cell["slow_readers"]) == ({"1k": 9, "100k": 1}, "hot", 10)
    assert result["ready"]["poller"] == "poll"
    assert result["attestation"]["agrees"] is not False
    assert result["errors"] == {}
    assert 1024 * result["messages"] < result["bytes"] < 102_400 * result["messages"]
    assert set(result["sizes"]) == {"1k", "100k"}
    server = result["server"]
    assert server["messages_counted_by"] == "server"
    assert server["user_cpu_us_per_message"] + server["system_cpu_us_per_message"] > 0
    assert server["longest_stall"] > 0
    assert result["cold"] is None


def test_a_peer_is_started_measured_and_stopped(tmp_path: Path, scratch: Path) -> None:
    if why := _peers.missing("nginx"):
        pytest.skip(why)
    out = tmp_path / "measurement.json"
    words = (*SHORT, *SMALL, *FILES, "--measurement-out", str(out), "--server", "nginx")
    code, locust = run(*words, "FileSwarm")
    assert code == 0, locust.output
    result = json.loads(out.read_text())
    assert result["ready"]["server"] == result["ready"]["loop"] == "nginx"
    assert result["attestation"]["agrees"] is not False
    assert result["errors"] == {}
    server = result["server"]
    assert server["messages_counted_by"] == "client"
    assert server["system_cpu_us_per_message"] > 0
    assert server["stalls"] is None
    assert list(scratch.glob("pollmark-*")) == []


def test_cold_files_are_counted(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as root:
        if why := why_never_cold(Path(root)):
            pytest.skip(why)
        out = tmp_path / "measurement.json"
        words = (*SHORT, "--swarm-connections", "8", "--measurement-out", str(out))
        words += ("--cache", "cold", "--file-root", root)
        code, locust = run(*OURS, *words, "FileSwarm")
        assert code == 0, locust.output
        assert list(Path(root).glob("100k/*"))  # a directory that was named is left
    result = json.loads(out.read_text())
    assert result["cell"]["cache"] == "cold"
    assert 0 < result["cold"]["cold"] <= result["cold"]["probed"]


@pytest.mark.parametrize("user", ["FileUser", "FileSwarm"])
def test_two_worker_processes_share_one_server(tmp_path: Path, user: str) -> None:
    words = (*OURS, *SMALL, "-u", "4", "-r", "4", "--think-time", "0.05", "--json-file", "out")
    with Locust(*words, "--processes", "2", user, cwd=tmp_path) as locust:
        locust.until(r"(GET|SWARM) +100k +[1-9]")  # workers report every three seconds
        locust.process.send_signal(signal.SIGTERM)
        assert locust.finish() == 0, locust.output
    assert locust.output.count("server under test") == 1
    entries = json.loads((tmp_path / "out.json").read_text())
    assert {entry["name"] for entry in entries} == {"1k", "100k"}
    assert sum(entry["num_failures"] for entry in entries) == 0


def test_a_file_server_that_runs_already_is_loaded_and_left_alone(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "servers.file", "--root", str(tmp_path), "--poller", "poll"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        rooted = (*OURS, "--file-root", str(tmp_path), "-u", "2", "-r", "2", "-t", "2s")
        code, locust = run(*rooted, "-H", url, "FileUser")
        assert code == 0, locust.output
        assert "server under test" not in locust.output
        other = (*rooted, "--file-mix", "3k", "--file-root", str(tmp_path / "other"))
        code, locust = run(*other, "-H", url, "FileUser")
        assert code == 1
        (line,) = locust.errors()
        assert "it must serve what --file-root holds" in line or "not the 3072" in line
        assert server.poll() is None
        server.terminate()
        server.stdout.read()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("EchoUser", "FileUser"), "name EchoUser or EchoSwarm, or FileUser or FileSwarm"),
        (("--server", "nginx", "--loop", "trio"), "--loop is chosen by nginx itself"),
        (("--cache", "cold", "-u", "2", "FileSwarm"), "--cache cold is for one FileSwarm"),
        (("-H", "tcp://127.0.0.1:80", "FileUser"), "http://host:port"),
    ],
)
def test_an_impossible_mix_is_one_line_and_exit_code_2(
    tmp_path: Path, words: tuple[str, ...], why: str
) -> None:
    code, locust = run("-u", "1", *FILES, *words, cwd=tmp_path)
    assert code == 2, locust.output
    (line,) = locust.errors()
    assert why in line
