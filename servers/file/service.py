"""What a file server is whatever loop runs it: its site, its counters, its log, its deadlines.

Deadlines
---------
A connection says in `state` what it waits for and in `since` when that began or last got on (both
are one store).  A sweep over all connections, several times a second at the most, ends those
that have waited too long:

    HEAD     a request head that has begun, or a first one that has not: `header_timeout`, absolute
    IDLE     between two requests: `keep_alive_timeout`
    SENDING  for the client to take a byte: `send_timeout`
    LINGER   for the client to see the end: `LINGER_TIMEOUT`

No timer a connection, and no clock on the hot path beyond the one that a plan's Date needs.
"""

from __future__ import annotations

import enum
import errno
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Final, Protocol, TypeVar

from pollers import watch
from pollers.base import Counters
from pollers.sockqueue import unsent
from servers import lifecycle
from servers.file.accesslog import AccessLog
from servers.file.cache import FileCache
from servers.file.changes import Changes
from servers.file.options import FileOptions
from servers.file.root import Root
from servers.file.session import Session
from servers.file.site import Site
from servers.file.sources import open_source
from servers.lifecycle import CannotServe, RateLimit, Tally, log

#: Watchers that are tried unasked: those that tell at once, and need no rights.
AUTO: Final = ("inotify", *(name for name in watch.expected_names() if name == "kqueue"))
#: The most that one read takes, bytes.
RECEIVE: Final = 64 * 1024
#: Seconds that a client gets to read a last answer before the connection is cut, and the bytes
#: that it may still send meanwhile.
LINGER_TIMEOUT: Final = 2.0
LINGER_BYTES: Final = 1 << 20
#: Sweeps in the shortest deadline, and the most of them a second.
SWEEPS: Final = 4
SHORTEST_SWEEP: Final = 0.05
LONGEST_SWEEP: Final = 1.0

#: Bytes that the kernel holds for a connection beyond what its peer's window takes (Linux, macOS).
#: Its own limit is megabytes (tcp_wmem), which a slow reader would fill.
SEND_AHEAD: Final = 64 * 1024
NOTSENT_LOWAT: Final[int | None] = getattr(socket, "TCP_NOTSENT_LOWAT", None)

#: Errors of a peer that went away, which are no news.
GONE: Final = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ETIMEDOUT, errno.ENOTCONN})
#: SO_LINGER with no time: close(2) discards what was not sent, and resets.
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
#: Bytes that one connection sends before the others have their turn.
TURN: Final = 1 << 20
#: Seconds for which the pipelined requests of one connection are answered before the others have
#: their turn.  Time and not a number: a listing may cost a thousand times what a small file does.
TURN_SECONDS: Final = 0.01

#: What a client gets that is one too many, before its connection is closed.
FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: 24\r\nRetry-After: 1\r\nConnection: close\r\n\r\n503 Service Unavailable\n"
)


def limit_unsent(sock: socket.socket) -> None:
    """Keep to SEND_AHEAD, on a connection or on all that a listening socket will accept."""
    if NOTSENT_LOWAT is not None:
        sock.setsockopt(socket.IPPROTO_TCP, NOTSENT_LOWAT, SEND_AHEAD)


class State(enum.IntEnum):
    """What a connection waits for: an index into `Service.deadlines`."""

    HEAD = 0
    IDLE = 1
    SENDING = 2
    LINGER = 3


@dataclass(slots=True)
class FileTally(Tally):
    """The counters of a file server."""

    requests: int = 0
    """Answers begun."""
    sent: int = 0
    """Bytes that the kernel took, heads included."""
    timeouts: int = 0
    """Connections ended by a deadline."""
    refused: int = 0
    """Connections answered 503, being too many."""
    truncated: int = 0
    """Answers cut short because their file was."""


class Waiter(Protocol):
    """A connection, for the sweep."""

    state: State
    since: float
    #: Bytes that the kernel held for it when a sweep looked last.
    owed: int

    def fileno(self) -> int: ...

    def look(self) -> None:
        """It is sending: note what can be seen of it now and then only."""

    def expire(self) -> None:
        """Its deadline has passed."""


W = TypeVar("W", bound=Waiter)


class Service:
    """Everything but the connections.  Raises CannotServe."""

    def __init__(self, options: FileOptions) -> None:
        self.options = options
        self.tally = FileTally()
        self.draining = False
        self._complaints = RateLimit()
        self.deadlines = (
            options.header_timeout,
            options.keep_alive_timeout,
            options.send_timeout,
            LINGER_TIMEOUT,
        )
        self.sweep_period = min(max(min(self.deadlines) / SWEEPS, SHORTEST_SWEEP), LONGEST_SWEEP)
        self.access_log = AccessLog(options.access_log) if options.access_log else None
        try:
            self.root = Root(options.root)
        except OSError as error:
            raise CannotServe(
                f"--root: {error.strerror or error}; name a directory that can be read"
            ) from None
        self.changes = self._watch()
        cache = FileCache(self.root, self.changes, options.open_files)
        self.site = Site(self.root, cache, listing=options.listing)
        self._cache = cache

    def choices(self) -> dict[str, str]:
        """What was really chosen, for the ready line."""
        return {"watcher": self.changes.name if self.changes is not None else "none"}

    def session(self) -> Session:
        """The protocol state of a new connection."""
        return Session(self.site, self.options.limits, self.options.max_requests)

    def sweep(self, connections: Iterable[W]) -> None:
        """End those that have waited too long; `expire` may take them out of `connections`.

        The clock of the send timeout must not run while the client takes bytes, even if the socket
        is never writable meanwhile: see pollers.sockqueue.
        """
        now = monotonic()
        for connection in connections:
            if connection.state is State.SENDING:
                connection.look()
                owed = unsent(connection.fileno())
                if owed != connection.owed:
                    connection.owed = owed
                    connection.since = now
        for connection in self.overdue(connections, now):
            connection.expire()
        if self.access_log is not None:
            self.access_log.flush()

    def complain(self, error: OSError) -> None:
        """Log what is the server's trouble, and not a client's, once a second."""
        self._complaints.log(f"an answer was cut short: {error.strerror or error}")

    def overdue(self, connections: Iterable[W], now: float) -> list[W]:
        """The connections that have waited too long at `now` (time.monotonic())."""
        deadlines = self.deadlines
        return [each for each in connections if now - each.since > deadlines[each.state]]

    def report(self, poller: Counters | None, longest_stall: float | None, final: bool) -> None:
        """Say the counters line; `longest_stall` in seconds, None where the loop cannot tell."""
        tally = self.tally
        further = {
            name: getattr(tally, name)
            for name in ("requests", "sent", "timeouts", "refused", "truncated")
        }
        lifecycle.say(
            lifecycle.counters(tally, (), poller, final, **further, longest_stall=longest_stall)
        )
        if self.access_log is not None:
            self.access_log.flush()

    def close(self) -> None:
        """Give back what the process holds, after the connections."""
        self.site.forget_all()
        self._cache.close()
        if self.changes is not None:
            self.changes.close()
        self.root.close()
        if self.access_log is not None:
            self.access_log.close()

    def _watch(self) -> Changes | None:
        wanted = self.options.watcher
        if wanted == "none":
            return None
        refusals = []
        needed = self.options.max_connections + self.options.open_files
        for name in AUTO if wanted == "auto" else (wanted,):
            try:
                return Changes(self.root, source=open_source(name, self.root), needed=needed)
            except OSError as error:
                refusals.append(error.strerror or str(error))
        if wanted != "auto":
            raise CannotServe(
                f"--watcher {wanted}: {refusals[0]}; --watcher none looks at a file once a second "
                "instead"
            )
        log(f"no watcher ({'; '.join(refusals)}): files are looked at once a second")
        return None
