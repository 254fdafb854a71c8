"""The server under test as a process: started, verified, asked for its counters, stopped.

What this file is
-----------------
A server is known by its command line and its JSON lines only: the ready line first, a line of
counters at SIGUSR1, a last one after SIGTERM.  It runs on a leash (_leash.py), so that it ends
when Locust does, and in a session of its own, so that Ctrl-C in a terminal reaches Locust alone,
which then stops it in order.  Everything here runs in Locust's process, on gevent.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import gevent
import psutil
from gevent import subprocess
from gevent.event import AsyncResult
from gevent.queue import Empty, Queue

from loadtest import _affinity
from loadtest._options import AUTO, Options

logger = logging.getLogger(__name__)

START_TIMEOUT: Final = 20.0
COUNTERS_TIMEOUT: Final = 10.0
#: Seconds that a server has for connections that are still open at SIGTERM.
DRAIN: Final = 2.0
#: A file server's limits, which are not what is measured: connections that it takes at least, some
#: for who looks at it besides, and seconds between two requests of one.
LEAST_LIMIT, SPARE, IDLE = 10_000, 64, 3600
#: Seconds after SIGTERM before the leash is let go.
STOP_TIMEOUT: Final = DRAIN + 3.0


class ServerError(Exception):
    """The server cannot be used; `str()` is one line: what, why, what to do."""


class ServerUnavailable(ServerError):
    """The server says that what was asked for cannot run here."""


def command(options: Options, root: Path | None = None) -> list[str]:
    """The command line of the server that `options` ask for; `root` is a file server's."""
    words = [sys.executable, "-m", f"servers.{options.server}"]
    words += ["--host", options.server_host, "--port", str(options.server_port)]
    words += ["--loop", options.loop, "--backend", options.backend]
    words += ["--workers", str(options.workers), "--drain-timeout", str(DRAIN)]
    if options.poller != AUTO:
        words += ["--poller", options.poller]
    if options.server_cpus:
        words += ["--cpu", ",".join(map(str, options.server_cpus))]
    if root is not None:
        most = max(LEAST_LIMIT, options.connections + options.slow_readers + SPARE)
        words += ["--root", str(root), "--max-connections", str(most)]
        words += ["--keep-alive-timeout", str(IDLE)]
    return words


class Server:
    """One server process, from `start` to `stop`."""

    def __init__(self, words: Sequence[str], on_death: Callable[[str], None]) -> None:
        """`on_death` is called with one line if the process ends and was not asked to."""
        self.ready: dict[str, Any] = {}
        self._words = words
        #: Whether there is a process to stop.
        self.launched = False
        self._on_death = on_death
        self._lines: Queue[dict[str, Any] | None] = Queue()
        self._errors: deque[str] = deque(maxlen=20)
        self._stopping = False
        self._ended: AsyncResult[int] = AsyncResult()
        self._readers: list[gevent.Greenlet] = []

    @property
    def url(self) -> str:
        return str(self.ready["url"])

    @property
    def pids(self) -> list[int]:
        """The processes that serve: its workers, or itself where it has none."""
        return [int(pid) for pid in self.ready["pids"]]

    def start(self) -> dict[str, Any]:
        """Start the process; return its ready line.  Raises ServerUnavailable or ServerError."""
        self.launch(self._words)
        try:
            ready: dict[str, Any] | None = self._lines.get(timeout=START_TIMEOUT)
        except Empty:
            self.stop_process()
            raise ServerError(
                f"the server did not say that it is ready within {START_TIMEOUT:g} s"
            ) from None
        if ready is None or not ready.get("ready"):
            code = self._ended.get(timeout=STOP_TIMEOUT)
            kind = ServerUnavailable if code == 2 else ServerError
            raise kind(self.last_error() or f"the server ended with exit code {code}")
        self.ready = ready
        return ready

    def launch(self, words: Sequence[str]) -> None:
        """Run `words` on a leash and take what it says."""
        self._ended, self._lines, self.launched = AsyncResult(), Queue(), True
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [sys.executable, "-m", "loadtest._leash", *words],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
        )
        self._readers = [gevent.spawn(self._read_errors), gevent.spawn(self._read_lines)]

    @property
    def ended(self) -> bool:
        """Whether the process that was launched last has ended."""
        return bool(self._ended.ready())

    def counters(self) -> dict[str, Any]:
        """Ask for the counters so far.  Raises ServerError where none come."""
        try:
            os.kill(int(self.ready["pid"]), signal.SIGUSR1)
            line: dict[str, Any] | None = self._lines.get(timeout=COUNTERS_TIMEOUT)
        except (ProcessLookupError, Empty) as error:
            raise ServerError(f"the server gave no counters: {error!r}") from error
        if line is None:
            raise ServerError("the server ended when it was asked for its counters")
        return line

    def rss_kib(self) -> int | None:
        """Resident memory of the processes that serve, in KiB; None where one has ended."""
        try:
            return sum(int(psutil.Process(pid).memory_info().rss) for pid in self.pids) // 1024
        except psutil.NoSuchProcess:
            return None

    def cores(self) -> int:
        """How many cores it can fill: no more than it has processes, nor than they may run on."""
        try:
            usable = {core for pid in self.pids for core in _affinity.cores_of(pid)}
        except psutil.NoSuchProcess:
            usable = set()
        return min(len(self.pids), len(usable) or len(self.pids))

    def stop(self) -> dict[str, Any] | None:
        """End the process; return its last counters, or None where it gave none."""
        self._stopping = True
        self.stop_process()
        last = None
        while not self._lines.empty():
            last = self._lines.get() or last
        return last

    def stop_process(self) -> None:
        """SIGTERM; after `STOP_TIMEOUT` seconds the leash is let go, which ends in SIGKILL."""
        if self.ready and not self._ended.ready():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(self.ready["pid"]), signal.SIGTERM)
            self._ended.wait(timeout=STOP_TIMEOUT)
        self._process.stdin.close()
        self._ended.wait(timeout=STOP_TIMEOUT)
        if not self._ended.ready():  # the leash itself does not answer
            self._process.kill()
            self._ended.wait()
        gevent.joinall(self._readers)

    def _read_lines(self) -> None:
        """Take its lines as they come; at their end say so."""
        for line in self._process.stdout:
            try:
                self._lines.put(json.loads(line))
            except ValueError:
                logger.warning("server: %s", line.decode(errors="replace").rstrip())
        self._process.stdout.close()
        code = self._process.wait()
        self._readers[0].join()
        self._ended.set(code)
        self._lines.put(None)
        if self.ready and not self._stopping:
            how = f"killed by signal {code - 128}" if code > 128 else f"exit code {code}"
            said = self.last_error()
            self._on_death(
                f"the server (pid {self.ready['pid']}) died in mid-run: {how}"
                + (f"; it said: {said}" if said else "")
            )

    def _read_errors(self) -> None:
        for line in self._process.stderr:
            text = line.decode(errors="replace").rstrip()
            self._errors.append(text)
            if self.ready:
                logger.info("server: %s", text)
        self._process.stderr.close()

    def last_error(self) -> str:
        """The last line that it wrote to stderr; "" where there is none."""
        return next((line for line in reversed(self._errors) if line), "")
