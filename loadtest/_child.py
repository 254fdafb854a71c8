"""A process of ours that answers each line on its stdin by a line on its stdout, under trio.

What this file is
-----------------
Orders and answers are JSON objects.  The process is in a session of its own (Ctrl-C reaches
only who started it) and is killed at the end of the `async with`, cancelled or not: it is one that
starts no others and holds nothing that would have to be put back.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import trio

from loadtest._processes import Remains

HERE: Final = Path(__file__).resolve().parent
#: Seconds that a process has to start, and for an answer.
PATIENCE: Final = 30.0
#: Seconds that the kernel has to end a killed process.
REAP: Final = 5.0


class Failed(Exception):
    """A process did not do what it should; `str()` is one line."""


class Child:
    """A process that answers each line with a line."""

    def __init__(self, module: str, setup: object, log: Path) -> None:
        self._words = [sys.executable, "-m", module, json.dumps(setup)]
        self._name = module.rpartition("_")[2]
        self._log = log
        self._rest = bytearray()

    async def __aenter__(self) -> Self:
        path = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        with self._log.open("wb") as log:
            self.process = await trio.lowlevel.open_process(
                self._words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
                start_new_session=True,  # Ctrl-C is for the one that started it
            )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process = self.process
        with trio.CancelScope(shield=True):
            assert process.stdin is not None
            assert process.stdout is not None
            await process.stdin.aclose()
            await process.stdout.aclose()
            if process.poll() is None:
                process.kill()
            with trio.move_on_after(REAP):
                await process.wait()
        if process.returncode is None:
            raise Remains(f"process {process.pid} of this run could not be ended: end it by hand")

    async def ask(self, within: float = PATIENCE, **order: object) -> dict[str, Any]:
        """Its answer.  Raises Failed."""
        assert self.process.stdin is not None
        try:
            await self.process.stdin.send_all(json.dumps(order).encode() + b"\n")
        except trio.BrokenResourceError:
            raise Failed(f"the {self._name} ended: {self._said()}") from None
        return await self.answer(within)

    async def answer(self, within: float = PATIENCE) -> dict[str, Any]:
        """Its next line.  Raises Failed."""
        assert self.process.stdout is not None
        with trio.move_on_after(within):
            while b"\n" not in self._rest:
                more = await self.process.stdout.receive_some()
                if not more:
                    raise Failed(f"the {self._name} ended: {self._said()}")
                self._rest += more
            line, _, rest = self._rest.partition(b"\n")
            self._rest = rest
            return self._parsed(bytes(line))
        raise Failed(f"the {self._name} did not answer within {within:.0f} s: {self._said()}")

    def _parsed(self, line: bytes) -> dict[str, Any]:
        with contextlib.suppress(ValueError):
            answer = json.loads(line)
            if isinstance(answer, dict):
                return answer
        text = line.decode(errors="replace").strip()
        raise Failed(f"the {self._name} answered with what is no JSON object: {text}")

    def _said(self) -> str:
        lines = self._log.read_text(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "it said nothing")
