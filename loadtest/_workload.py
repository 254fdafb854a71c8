"""What is compared, in words: what every sentence, table and plot calls one exchange.

A comparison is of one workload.  The analysis carries its name, so that what reads a result, old
or new, finds the words for it here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Workload:
    """The words of one workload."""

    name: str
    #: One exchange between client and server.
    unit: str
    servers: str
    #: Where its time ends; where it begins is `begin`.
    answer: str
    #: What the poller's own calls do not include.
    moves: str
    #: Whether bytes a second are shown beside exchanges a second.
    shows_bytes: bool
    #: The row that all others are compared with, and the same again, the A/A control.
    baseline: str = "epoll"
    control: str = "epoll-again"
    #: What a row is, and what it did with most exchanges.
    party: str = "server"
    begin: str = "send"
    did: str = "served"

    @property
    def units(self) -> str:
        return f"{self.unit}s"


ECHO: Final = Workload(
    name="echo",
    unit="message",
    servers="echo servers",
    answer="the last byte of the echo",
    moves="recv and send",
    shows_bytes=False,
)
FILE: Final = Workload(
    name="file",
    unit="request",
    servers="file servers",
    answer="the last byte of the file",
    moves="what reads requests and sends files",
    shows_bytes=True,
)
DISK: Final = Workload(
    name="disk",
    unit="read",
    servers="disk reads",
    answer="having the bytes",
    moves="the reads themselves",
    shows_bytes=True,
    baseline="aio",
    control="aio-again",
    party="reader",
    begin="asking",
    did="made",
)
WATCH: Final = Workload(
    name="watch",
    unit="change",
    servers="file watchers",
    answer="the first report of it",
    moves="what puts changes into words",
    shows_bytes=False,
    baseline="inotify",
    control="inotify-again",
    party="watcher",
    begin="the system call",
    did="told",
)
WORKLOADS: Final = {one.name: one for one in (ECHO, FILE, DISK, WATCH)}


def of(load: Mapping[str, Any]) -> Workload:
    """The words of an analysed load; results of before there were two are of the first."""
    return WORKLOADS[load.get("workload", ECHO.name)]
