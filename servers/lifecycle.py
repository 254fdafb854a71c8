"""What a server says about itself, whatever loop runs it.

The first line on stdout is the ready line, with the choices that were really made.  SIGUSR1
asks for a line of counters so far; SIGTERM and SIGINT begin the drain, after which the last
line of counters comes.  Each line is one JSON object.  Everything else goes to stderr.

Draining means: the listening socket closes at once, connections that exist are served until
they close or the drain timeout has passed, and a second signal ends the wait.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from pollers.base import Counters

#: Signals that begin the drain.
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
#: The signal that asks for the counters so far.
COUNTERS_SIGNAL: Final = signal.SIGUSR1
#: What a call fails with when there are no fds or no memory left: it may work later.
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class CannotServe(Exception):
    """What was asked cannot run here.  The message is one line: what, why, what to do."""


@dataclass(slots=True)
class Tally:
    """What happened to connections: counted off the hot path, and by every loop alike."""

    accepted: int = 0
    closed: int = 0
    resets: int = 0
    """Connections that ended with an error instead of an end of file."""
    stalls: int = 0
    """Times that a peer did not take what was written, so that reading it paused."""
    spills: int = 0
    """Stalls of the splice backend that found no free pipe and were kept in memory."""
    idle_closes: int = 0
    accept_errors: int = 0
    received: int = 0
    """Bytes that connections now closed had received, and what came in batches; each connection
    counts the others of its own until then."""

    @property
    def open(self) -> int:
        return self.accepted - self.closed


class Counted(Protocol):
    """A connection, for the counters: how many bytes came in on it."""

    received: int


def counters(
    tally: Tally,
    connections: Iterable[Counted],
    poller: Counters | None,
    final: bool,
    **further: float | None,
) -> dict[str, Any]:
    """The counters line; `further` is what one server counts and others do not.

    `received` are all bytes that were read.  `kernel_calls` are the poller's own, without the recv
    and send of the handlers; null where the loop is not ours and counts none.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "counters": True,
        "final": final,
        "pid": os.getpid(),
        "monotonic": time.monotonic(),
        "accepted": tally.accepted,
        "closed": tally.closed,
        "open": tally.open,
        "received": tally.received + sum(connection.received for connection in connections),
        "resets": tally.resets,
        "stalls": tally.stalls,
        "spills": tally.spills,
        "idle_closes": tally.idle_closes,
        "accept_errors": tally.accept_errors,
        "user_cpu": usage.ru_utime,
        "system_cpu": usage.ru_stime,
        "voluntary_switches": usage.ru_nvcsw,
        "involuntary_switches": usage.ru_nivcsw,
        "max_rss_kib": usage.ru_maxrss,
        "poller": poller.as_dict() if poller is not None else None,
        "kernel_calls": poller.kernel_calls if poller is not None else None,
        **further,
    }


def say(line: dict[str, Any]) -> None:
    """Print one JSON line on stdout at once.  A reader that has gone away is no reason to stop."""
    try:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        _silence(1)
        log("stdout is closed: nobody reads the counters")


class RateLimit:
    """At most one message a second of one kind; the next one says how many were left out."""

    def __init__(self, seconds: float = 1.0) -> None:
        self._seconds = seconds
        self._next = 0.0
        self._left_out = 0

    def log(self, message: str) -> None:
        now = time.monotonic()
        if now < self._next:
            self._left_out += 1
            return
        more = f" ({self._left_out} more like this)" if self._left_out else ""
        self._next, self._left_out = now + self._seconds, 0
        log(message + more)


def log(message: str) -> None:
    """One line on stderr.  A reader that has gone away is no reason to stop."""
    try:
        print(message, file=sys.stderr, flush=True)
    except BrokenPipeError:
        _silence(2)


def _silence(fd: int) -> None:
    """Let what is written to `fd` go nowhere.

    What is left in the buffer must go somewhere: the interpreter flushes it at the end, and would
    exit with code 120.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, fd)
    os.close(null)
