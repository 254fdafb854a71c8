"""A small file of the disk workload, and its reader as a process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import pollers
from loadtest import _pagecache
from loadtest._disk_file import CHUNK, DataFile

MIB = 1 << 20
SEED = 5


def require_disk(directory: Path) -> None:
    """Skip where no device, or no direct I/O, is behind `directory`."""
    if not pollers.probe("aio").available:  # the contract tests fail where it was expected
        pytest.skip(f"aio: {pollers.probe('aio').reason}")
    if why := _pagecache.why_never_cold(directory):
        pytest.skip(why)
    from pollers.aio.direct import open_direct

    with DataFile(directory, CHUNK, SEED) as file:
        try:
            open_direct(file.fd).close()
        except OSError as error:
            pytest.skip(f"{directory}: {error.strerror}")


def words(file: DataFile, how: str, loop: str, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "loadtest._disk_reader", "--file", str(file.path)),
        *("--size", str(file.size), "--seed", str(file.seed), "--how", how, "--loop", loop, *more),
    ]


@contextmanager
def reading(file: DataFile, how: str, loop: str, *more: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        words(file, how, loop, *more), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read(file: DataFile, how: str, loop: str, *more: str) -> dict[str, Any]:
    """What a reader says in its last line."""
    done = subprocess.run(
        words(file, how, loop, "--warmup", "0.02", "--measure", "0.05", *more),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    line = json.loads(done.stdout.splitlines()[-1])
    assert line.pop("event") == "measured"
    assert done.returncode == (0 if "reads" in line else 1), done.stderr
    return line
