"""A swarm's helper process, driven by its lines."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, TypeAlias

import pytest

Line: TypeAlias = dict[str, Any]


class Swarm:
    """The helper; `until` reads its lines, `lines` keeps them."""

    def __init__(self, url: str, **changes: Any) -> None:
        config: Line = {
            "url": url,
            "connections": 20,
            "active": 20,
            "size": 64,
            "rate": 0.0,
            "pipeline": 1,
            "poller": "auto",
            "seed": 1,
            "connect_timeout": 10.0,
            "reply_timeout": 10.0,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "loadtest._swarm"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines: list[Line] = []
        self.send(config | changes)

    def __enter__(self) -> Swarm:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        with self.process:
            pass

    def send(self, what: Line) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def until(self, event: str) -> Line:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            self.lines.append(json.loads(text))
            if self.lines[-1]["event"] == event:
                return self.lines[-1]
        pytest.fail(f"no line {event!r}, but {[line['event'] for line in self.lines]}")

    def finish(self) -> int:
        """Close its stdin, read the rest, return the exit code."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.lines += [json.loads(text) for text in self.process.stdout]
        return self.process.wait(10)

    def errors(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for line in self.lines:
            for kind, count in line.get("errors", {}).items() if line["event"] == "sample" else ():
                found[kind] = found.get(kind, 0) + count
        return found
