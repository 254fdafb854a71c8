"""One command with everything that it starts: run to its end, or stopped without a remainder.

What this file is
-----------------
Locust starts a server and a swarm; each sits in a process group of its own, so that a signal to
Locust's group does not reach them.  What they share is the environment: every process of a run
carries a token in the variable `MARK`, and is found by it even when its parent has gone.  One that
hides its environment, as nginx does, is found by its parent, before any of them is killed.

Stopping is SIGTERM to Locust, which stops its server in order; what is left after `PATIENCE`
seconds is killed, and then it is looked again.  A result that was written ends the patience: some
servers take seconds to close 10,000 connections, in which nothing is measured.  Processes are
held by pid *and* start time (psutil), so that a number used anew is never hit.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil
import trio

MARK: Final = "POLLMARK_RUN"
#: Seconds that Locust has to stop what it started.
PATIENCE: Final = 3.0
#: Seconds that a command has to end by itself once its result is there, and between looks for it.
SETTLE, LOOK = 0.2, 0.05
#: Seconds that the kernel has to end killed processes.
REAP: Final = 5.0


class TimedOut(Exception):
    """The command did not end in time, and was stopped."""


class Remains(Exception):
    """Processes are left that could not be ended; `str()` names them."""


async def run(
    words: Sequence[str],
    token: str,
    env: Mapping[str, str],
    cwd: Path,
    log: Path,
    seconds: float,
    result: Path | None = None,
) -> int | None:
    """Run a command to its end; return its exit code, or minus the signal's number.

    When `result` exists, the command has `SETTLE` seconds left to end by itself, after which it
    is ended and None returned.  Raises TimedOut after `seconds`.  Whatever happens, cancellation
    included, no process that carries `token` is left when this returns; else Remains is raised.
    """
    with log.open("wb") as output:
        process = await trio.lowlevel.open_process(
            list(words),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**env, MARK: token},
            cwd=str(cwd),
            start_new_session=True,
        )
    patience = PATIENCE
    try:
        with trio.move_on_after(seconds):
            while result is not None and process.poll() is None and not result.exists():
                await trio.sleep(LOOK)
            if result is None:
                return await process.wait()
            with trio.move_on_after(SETTLE):
                return await process.wait()
            patience = 0.0
            return None
        raise TimedOut
    finally:
        with trio.CancelScope(shield=True):
            await _end(process, token, patience)


async def _end(process: trio.Process, token: str, patience: float) -> None:
    if process.returncode is None and patience:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        with trio.move_on_after(patience):
            await process.wait()
    with trio.move_on_after(REAP):
        while left := marked(token):
            for one in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            await trio.sleep(0.01)
        await process.wait()
    if left := marked(token):
        names = ", ".join(f"{one.pid}" for one in left)
        raise Remains(f"processes {names} of this run could not be ended: end them by hand")


def marked(token: str) -> list[psutil.Process]:
    """Every living process that carries this token, whoever its parent is, and its descendants."""
    found: dict[int, psutil.Process] = {}
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if one.environ().get(MARK) == token:
                found |= {each.pid: each for each in (one, *one.children(recursive=True))}
    return [one for one in found.values() if _lives(one)]


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
