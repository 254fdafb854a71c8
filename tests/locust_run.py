"""`locust -f loadtest/` as a process that is watched: what it says, and what it leaves behind."""

from __future__ import annotations

import csv
import os
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parent.parent
SMALL = ("--swarm-connections", "50")
#: Seconds after which a run is killed, so that nothing waits for its output for ever.
DEADLINE = 50.0
#: A poller that every platform has.
POLLER = ("--poller", "poll", "--swarm-poller", "poll")


def _master() -> tuple[str, ...]:
    """Where master and workers meet: by default, on one port for all that run at once."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    bind = ("--master-bind-host", "127.0.0.1", "--master-bind-port", port)
    return (*bind, "--master-host", "127.0.0.1", "--master-port", port)


class Locust:
    """One headless run; every process below it carries `mark` in its environment."""

    def __init__(self, *words: str, cwd: Path = ROOT) -> None:
        self.mark = f"POLLMARK_TEST={uuid.uuid4()}"
        if "--processes" in words:
            words = (*words, *_master())
        name, value = self.mark.split("=")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest"), "--headless", *words],
            cwd=cwd,
            env={**os.environ, name: value},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output = ""
        self._watchdog = threading.Timer(DEADLINE, self.process.kill)
        self._watchdog.start()

    def __enter__(self) -> Locust:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        with self.process:
            pass
        self._watchdog.cancel()
        self._watchdog.join()

    def until(self, pattern: str) -> re.Match[str]:
        """Read its output until `pattern` matches a line."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if found := re.search(pattern, line):
                return found
        pytest.fail(f"no line matches {pattern!r}:\n{self.output}")

    def finish(self) -> int:
        """Read the rest; return the exit code, once nothing that it started is left."""
        assert self.process.stdout is not None
        self.output += self.process.stdout.read()
        code = self.process.wait(10)
        assert self.left() == []
        return code

    def left(self) -> list[str]:
        """Processes with its mark that are still there after ten seconds."""
        deadline = time.monotonic() + 10
        while (found := self.marked()) and time.monotonic() < deadline:
            psutil.wait_procs(found.values(), timeout=0.1)
        return list(found)

    def marked(self) -> dict[str, psutil.Process]:
        """The living processes with its mark, by pid and command line."""
        name, value = self.mark.split("=")
        found = {}
        for process in psutil.process_iter():
            try:
                if process.environ().get(name) == value and process.status() != "zombie":
                    found[f"{process.pid} {' '.join(process.cmdline())}"] = process
            except psutil.Error:
                continue
        return found

    def errors(self) -> list[str]:
        return [line for line in self.output.splitlines() if "/ERROR/" in line]


def run(*words: str, cwd: Path = ROOT) -> tuple[int, Locust]:
    with Locust(*words, cwd=cwd) as locust:
        return locust.finish(), locust


def rows(prefix: Path) -> dict[str, dict[str, str]]:
    """Locust's CSV file, by name."""
    with open(f"{prefix}_stats.csv", newline="") as file:
        return {row["Name"]: row for row in csv.DictReader(file)}
