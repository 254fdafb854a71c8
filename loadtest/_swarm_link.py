"""Locust's end of a swarm's helper process, on gevent.

The helper (_swarm.py) is started with its configuration, its lines are taken as they come, and its
stdin is closed to end it.  It runs in a session of its own, so that Ctrl-C reaches Locust alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import gevent
from gevent import subprocess
from gevent.queue import Queue

from loadtest import _affinity
from loadtest._options import Options

#: Seconds for the helper to report once more and close its connections.
STOP_TIMEOUT: Final = 5.0
CONNECT_TIMEOUT: Final = 60.0
#: Seconds after which the helper gives up a connection that waits for its echo.
REPLY_TIMEOUT: Final = 30.0


def config(options: Options, url: str, seed: int, root: Path | None) -> dict[str, Any]:
    """The helper's configuration (`_swarm_config.Config`) for a server at `url`.

    `root` is where the files are, if there are any and it is known here.
    """
    return {
        "url": url,
        "connections": options.connections,
        "active": options.active,
        "size": options.message_size,
        "rate": options.rate,
        "pipeline": options.pipeline,
        "poller": options.swarm_poller,
        "seed": seed,
        "connect_timeout": CONNECT_TIMEOUT,
        "reply_timeout": REPLY_TIMEOUT,
        "workload": options.workload,
        "mix": ",".join(f"{one.label}:{one.weight}" for one in options.mix),
        "cache": options.cache,
        "root": str(root or ""),
        "slow_readers": options.slow_readers,
        "slow_rate": options.slow_rate,
    }


class SwarmLink:
    """One helper process, from the constructor to `stop`."""

    def __init__(self, configuration: dict[str, Any], cpu: int | None) -> None:
        """`cpu` is the core that the helper is pinned to."""
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [sys.executable, "-m", "loadtest._swarm"],
            stdin=pipe,
            stdout=pipe,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
        )
        self.cpu = cpu
        if cpu is not None:
            _affinity.pin(self._process.pid, [cpu])
        self._lines: Queue[dict[str, Any] | None] = Queue()
        # A greenlet of its own: a user's is killed when it stops, perhaps in the middle of a line.
        self._reader = gevent.spawn(self._read)
        self._ended = False
        self._send(configuration)

    def order(self, command: str, **arguments: Any) -> None:
        """Send a command (see _swarm.py).  A helper that has ended is left alone."""
        self._send({"command": command, **arguments})

    def lines(self) -> Iterator[dict[str, Any]]:
        """The helper's lines until it ends."""
        while not self._ended:
            line = self._lines.get()
            if line is None:
                self._ended = True
            else:
                yield line

    def stop(self) -> list[dict[str, Any]]:
        """End the helper and return what it still had to say.  May be repeated."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        if not self._reader.join(STOP_TIMEOUT) and not self._reader.ready():
            self._process.kill()
            self._reader.join()
        return list(self.lines())

    def _read(self) -> None:
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(json.loads(line))
        self._process.wait()
        self._lines.put(None)

    def _send(self, what: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(what).encode() + b"\n")
            self._process.stdin.flush()
