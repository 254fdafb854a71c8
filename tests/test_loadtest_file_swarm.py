"""The helper process of a file swarm, against our own file server."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from swarm_process import Line, Swarm

from loadtest._histogram import Histogram
from loadtest._pagecache import why_never_cold
from loadtest._site import Site, parse_mix

MIX = "1k:3,100k:1"


@contextmanager
def server(root: Path) -> Iterator[str]:
    words = [sys.executable, "-m", "servers.file", "--root", str(root), "--poller", "poll"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()
            process.stdout.read()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    Site(parse_mix(MIX)).write(tmp_path)
    return tmp_path


def swarm(url: str, **changes: object) -> Swarm:
    return Swarm(url, **{"workload": "file", "mix": MIX, "poller": "poll"} | changes)


def measured(one: Swarm, messages: int = 100) -> Line:
    """A window of at least so many messages."""
    one.until("connected")
    one.send({"command": "measure", "at": time.monotonic(), "until": None})
    while messages > 0:
        messages -= one.until("sample")["messages"]
    one.send({"command": "end"})
    return one.until("measured")


def test_a_window_says_what_was_asked_for_by_size_and_its_samples_add_up(root: Path) -> None:
    with server(root) as url, swarm(url) as one:
        line = measured(one)
        assert one.finish() == 0
    by_size = {label: Histogram.from_json(part).total for label, part in line["sizes"].items()}
    assert sum(by_size.values()) == line["messages"] == Histogram.from_json(line["service"]).total
    assert by_size["1k"] > by_size["100k"] > 0
    assert line["bytes"] == by_size["1k"] * 1024 + by_size["100k"] * 102400
    assert by_size["1k"] <= line["compared"] < line["messages"]
    assert (line["probed"], line["cold"]) == (0, 0)
    inside = [
        sample
        for sample in one.lines
        if sample["event"] == "sample" and line["from"] < sample["until"] <= line["until"]
    ]
    assert sum(sample["bytes"] for sample in inside) == line["bytes"]
    assert one.errors() == {}
    assert one.lines[-1]["event"] == "done"


def test_idle_connections_and_slow_readers_stay_beside_the_load(root: Path) -> None:
    changes = {"active": 5, "slow_readers": 7, "slow_rate": 20_000.0}
    with server(root) as url, swarm(url, **changes) as one:
        line = measured(one)
        assert one.finish() == 0
    assert (one.lines[0]["connections"], one.lines[0]["active"]) == (20, 5)
    assert line["fairness"]["min"] > 0
    assert one.errors() == {}


def test_a_cold_load_asks_for_evicted_files() -> None:
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as place:
        root = Path(place)
        if why := why_never_cold(root):
            pytest.skip(why)
        Site(parse_mix("10k"), "cold", 20).write(root)
        with (
            server(root) as url,
            swarm(url, mix="10k", cache="cold", root=str(root)) as one,
        ):
            line = measured(one)
            assert one.finish() == 0
    assert line["messages"] > 20
    assert line["probed"] > 0
    assert line["cold"] > line["probed"] / 2  # the rest may be under way to a socket still
    assert one.errors() == {}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"mix": "1023:1"}, "the first answer of the server for /1023/0000.bin: status 404"),
        ({"cache": "cold", "root": "/nowhere"}, "a file to be evicted cannot be opened"),
        ({"mix": "4m", "cache": "cold", "active": 20_000}, "a cold root"),
        ({"slow_readers": 10**6}, "use at most"),
    ],
)
def test_what_cannot_run_is_said_in_one_line(root: Path, changes: Line, why: str) -> None:
    with server(root) as url, swarm(url, **changes) as one:
        failed = one.until("failed")
        assert why in failed["why"]
        assert "\n" not in failed["why"]
        assert one.finish() == 1


def test_files_that_change_under_load_end_the_swarm(root: Path) -> None:
    with server(root) as url, swarm(url, mix="1k") as one:
        one.until("connected")
        for path in root.glob("1k/*"):
            new = path.with_suffix(".new")
            new.write_bytes(bytes(1024))
            new.rename(path)
        assert "every active connection was lost" in one.until("failed")["why"]
        assert one.finish() == 1
    assert one.errors() == {"wrong bytes": 20}
