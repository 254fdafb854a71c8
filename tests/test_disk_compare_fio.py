"""fio as a peer: its own JSON, from a real run where it is installed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from diskfile import MIB, SEED, require_disk

from loadtest import _disk_fio
from loadtest._disk_cells import Load
from loadtest._disk_file import DataFile
from loadtest._disk_fio import BadOutput, command, parse

LOAD = Load("random", True, 4)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataFile]:
    place = tmp_path_factory.mktemp("disk")
    require_disk(place)
    with DataFile(place, 16 * MIB, SEED) as made:
        yield made


@pytest.mark.parametrize("how", ["libaio", "libaio-batch", "psync"])
@pytest.mark.parametrize(
    "load",
    [LOAD, Load("sequential", True, 2), Load("random", False, 2)],
    ids=lambda load: load.key,
)
def test_a_real_run_comes_to_figures(how: str, load: Load, file: DataFile, tmp_path: Path) -> None:
    if why := _disk_fio.missing(how):
        pytest.skip(why)
    out = tmp_path / "out.json"
    words = command(load, how, file.path, file.size, 1, 0.0, 0.1, 0, out)
    subprocess.run(words, check=True, cwd=tmp_path, timeout=30)
    found = parse(out.read_text(), load)
    job = json.loads(out.read_text())["jobs"][0]["read"]
    assert found["reads"] == job["total_ios"]
    assert found["throughput"] == pytest.approx(job["iops"], rel=0.02)
    assert found["bytes_per_second"] == found["throughput"] * load.block
    assert found["latency"]["max"] == job["lat_ns"]["max"] / 1000
    assert found["latency"]["mean"] == pytest.approx(job["lat_ns"]["mean"] / 1000, rel=0.01)
    p50 = job["lat_ns"]["percentile"]["50.000000"] / 1000
    assert found["latency"]["p50"] == pytest.approx(p50, rel=0.05)
    assert 0 <= found["reader"]["cpu_share"] < 1.5
    if how != "psync":
        assert found["reader"]["submit_us_per_read"] > 0


def test_threads_of_psync_are_added_up() -> None:
    found = parse(json.dumps({"jobs": [job()]}), LOAD)
    # Four threads of a second each used 1 % of a core in user code, and made 1,000 reads.
    assert found["reader"]["user_cpu_us_per_read"] == pytest.approx(40)
    assert found["throughput"] == 1000
    assert found["reader"]["cpu_share"] == pytest.approx(0.12)
    assert found["latency"]["p50"] == pytest.approx(100, rel=0.01)


def test_warnings_before_its_json_are_no_hindrance() -> None:
    assert parse("note: both iodepth ...\n" + json.dumps({"jobs": [job()]}), LOAD)["reads"] == 1000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it said: nothing"),
        ("fio: engine libaio not loadable", "it said: fio: engine libaio not loadable"),
        ('{"jobs": []}', "no figures"),
        ('{"jobs": [{"error": 5}]}', "fio ended with error 5"),
        ('{"jobs": [{"error": 0}]}', "no figures"),
    ],
)
def test_what_has_no_figures_is_said_in_one_line(text: str, said: str) -> None:
    with pytest.raises(BadOutput, match=said) as caught:
        parse(text, LOAD)
    assert "\n" not in str(caught.value)


def test_a_window_without_a_read_is_said() -> None:
    made = job()
    made["read"] |= {"total_ios": 0}
    with pytest.raises(BadOutput, match="read nothing within its window"):
        parse(json.dumps({"jobs": [made]}), LOAD)


def test_where_fio_is_not_installed_it_is_said_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(_disk_fio._peers, "PLACES", ())
    assert _disk_fio.missing("libaio") == "fio is not installed: apt-get install fio"
    assert _disk_fio.version() is None


def job() -> dict[str, Any]:
    latency = {"min": 90_000, "max": 210_000, "mean": 100_000.0, "N": 1000}
    return {
        "error": 0,
        "job_runtime": 4000,
        "usr_cpu": 1.0,
        "sys_cpu": 2.0,
        "ctx": 1000,
        "read": {
            "total_ios": 1000,
            "runtime": 1000,
            "lat_ns": {**latency, "bins": {"100000": 999, "210000": 1}},
            "slat_ns": {"mean": 0.0},
        },
    }
