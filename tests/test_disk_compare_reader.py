"""The reader as a process: every way to read brings the right bytes, and a wrong one is seen."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from diskfile import MIB, SEED, read, reading, require_disk
from hdrh.histogram import HdrHistogram

from loadtest._disk_cells import BY_AIO
from loadtest._disk_file import BLOCK, DataFile


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("disk")
    require_disk(made)
    return made


@pytest.fixture
def file(place: Path) -> Iterator[DataFile]:
    with DataFile(place, 8 * MIB, SEED) as made:
        yield made


@pytest.mark.parametrize(
    ("how", "loop", "more"),
    [
        ("bulk", "none", ["--pattern", "random", "--direct", "--depth", "1"]),
        ("spin", "none", ["--pattern", "random", "--direct", "--depth", "1"]),
        ("bulk", "none", ["--pattern", "sequential", "--direct", "--depth", "4"]),
        ("bulk", "reactor", ["--pattern", "random", "--direct", "--depth", "8"]),
        ("await", "asyncio", ["--pattern", "random", "--direct", "--depth", "8"]),
        ("await", "uvloop", ["--pattern", "random", "--direct", "--depth", "1"]),
        ("await", "trio", ["--pattern", "sequential", "--depth", "2"]),
        ("threads", "asyncio", ["--pattern", "random", "--direct", "--depth", "2"]),
        ("threads", "trio", ["--pattern", "sequential", "--direct", "--depth", "2"]),
        ("nowait", "asyncio", ["--pattern", "random", "--depth", "2"]),
        ("nowait", "trio", ["--pattern", "sequential", "--depth", "1"]),
    ],
)
def test_it_measures(file: DataFile, how: str, loop: str, more: list[str]) -> None:
    file.cool()
    found = read(file, how, loop, *more)
    assert "failed" not in found, found["failed"]
    assert found["reads"] > 0
    assert found["checked"]["numbers"] == found["reads"]
    assert found["checked"]["digests"] > 0
    histogram = HdrHistogram.decode(found["latency"]["histogram"])
    assert histogram.get_total_count() == found["reads"]
    assert found["throughput"] * found["seconds"] == pytest.approx(found["reads"])
    assert found["latency"]["p50"] <= found["latency"]["p99"] <= found["latency"]["max"]
    cpu = found["reader"]["user_cpu_us_per_read"] + found["reader"]["system_cpu_us_per_read"]
    assert cpu > 0
    assert found["holds"]["aio_rings"] == (1 if how in BY_AIO else 0)
    if how in BY_AIO:
        assert found["reader"]["submit_us_per_read"] > 0
    if "--direct" in more and how == "threads":
        assert found["holds"]["threads"] > 1


@pytest.mark.parametrize(
    ("how", "loop", "more"),
    [
        ("bulk", "none", ["--direct", "--depth", "1"]),
        ("bulk", "none", ["--direct", "--depth", "8"]),
        ("await", "asyncio", ["--direct", "--depth", "4"]),
        ("threads", "trio", ["--depth", "2"]),
    ],
)
def test_a_block_that_is_another_one_fails_the_measurement(
    file: DataFile, how: str, loop: str, more: list[str]
) -> None:
    whole = bytearray(file.path.read_bytes())
    for start in range(0, len(whole), 2 * BLOCK):  # every second block is its neighbour
        whole[start : start + BLOCK] = whole[start + BLOCK : start + 2 * BLOCK]
    os.pwrite(file.fd, whole, 0)
    os.fsync(file.fd)
    found = read(file, how, loop, "--pattern", "random", *more)
    number = int(found["failed"].split()[1])
    assert found["failed"] == f"block {number} was asked for, and block {number + 1} came"


@pytest.mark.parametrize(
    ("how", "loop", "pattern"), [("bulk", "none", "sequential"), ("threads", "asyncio", "random")]
)
def test_a_wrong_byte_behind_the_number_fails_the_measurement(
    file: DataFile, how: str, loop: str, pattern: str
) -> None:
    whole = bytearray(file.path.read_bytes())
    for start in range(0, len(whole), BLOCK):
        whole[start + 3000] ^= 1
    os.pwrite(file.fd, whole, 0)
    os.fsync(file.fd)
    found = read(file, how, loop, "--pattern", pattern, "--direct", "--depth", "2")
    assert found["failed"].endswith("are not those of the file")


def test_a_file_that_has_become_shorter_fails_the_measurement(file: DataFile) -> None:
    os.ftruncate(file.fd, MIB)
    found = read(file, "bulk", "none", "--pattern", "random", "--direct", "--depth", "8")
    assert "of 4096 bytes came at" in found["failed"]


def test_a_file_that_is_missing_is_said_in_one_line(file: DataFile, place: Path) -> None:
    found = read(file, "bulk", "none", "--pattern", "random", "--depth", "1", "--file", "nosuch")
    assert found["failed"].startswith("FileNotFoundError: ")


@pytest.mark.parametrize(
    ("how", "loop"), [("bulk", "none"), ("bulk", "reactor"), ("await", "asyncio")]
)
def test_a_reader_that_is_stopped_shows_it_in_its_latencies(
    file: DataFile, how: str, loop: str
) -> None:
    stopped = 0.3
    more = ["--pattern", "random", "--direct", "--depth", "32", "--warmup", "0.02"]
    with reading(file, how, loop, *more, "--measure", "0.6") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == {"event": "measuring"}
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(stopped)  # it is the time that is measured
        os.kill(process.pid, signal.SIGCONT)
        found = json.loads(process.stdout.readline())
    assert found["latency"]["max"] >= stopped * 1e6
    if loop != "none":
        assert found["lag"]["max"] >= (stopped - 0.01) * 1e6


def test_its_counters_say_that_io_submit_does_not_sleep_on_a_direct_file(file: DataFile) -> None:
    found = read(file, "bulk", "none", "--pattern", "random", "--direct", "--depth", "8")
    assert found["reader"]["submit_switches_per_read"] < 0.1
    assert 0 < found["reader"]["submits_per_read"] <= 1
