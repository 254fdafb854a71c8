"""What is asked of a file server beyond what is asked of any server, and the defaults."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any, Final

from pollers import watch
from servers.cli import LOOPS, Backends, Options, seconds, whole
from servers.http.request import Limits

BACKENDS: Final[Backends] = {
    "copy": LOOPS,
    "sendfile": ("reactor", "asyncio", "trio"),
    "splice": ("reactor", "trio"),
    "aio": ("reactor",),
}
WATCHERS: Final = ("auto", *watch.names(), "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions(Options):
    """Times are seconds; 0 of `max_requests` means without limit."""

    root: str
    listing: bool
    watcher: str
    access_log: str
    limits: Limits
    max_connections: int
    max_requests: int
    header_timeout: float
    send_timeout: float
    keep_alive_timeout: float
    open_files: int


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of a file server."""
    option = parser.add_argument
    option("--root", default=".", metavar="DIR", help="the directory to serve (default: here)")
    option(
        "--listing",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="list directories that have no index.html (--listing)",
    )
    option(
        "--watcher",
        choices=WATCHERS,
        default="auto",
        help="what tells that a file changed; none: a stat a second (%(default)s)",
    )
    option(
        "--access-log",
        default="",
        metavar="FILE",
        help="append a line a request, in the Common Log Format; - is stderr (none)",
    )
    limit = parser.add_argument_group("limits").add_argument
    count, many = whole(1, 1 << 20), whole(0, 1 << 40)
    limit("--max-connections", type=count, default=10_000, metavar="N", help="then 503 (10000)")
    limit("--max-requests", type=many, default=0, metavar="N", help="of a connection (0: any)")
    limit("--max-header-bytes", type=count, default=16384, metavar="N", help="of a head (16384)")
    limit("--max-header-fields", type=count, default=100, metavar="N", help="of a head (100)")
    limit("--max-uri-bytes", type=count, default=8192, metavar="N", help="of a target (8192)")
    limit(
        "--open-files", type=whole(16, 1 << 20), default=1024, metavar="N", help="kept open (1024)"
    )
    limit(
        "--header-timeout",
        type=seconds,
        default=10.0,
        metavar="S",
        help="from a request's first byte to the end of its head, however it trickles (10)",
    )
    limit(
        "--send-timeout",
        type=seconds,
        default=30.0,
        metavar="S",
        help="without the client taking a byte (30)",
    )
    limit(
        "--keep-alive-timeout",
        type=seconds,
        default=60.0,
        metavar="S",
        help="between two requests (60)",
    )


def further(parsed: argparse.Namespace) -> dict[str, Any]:
    """The fields of FileOptions that Options lacks."""
    names = ("root", "listing", "watcher", "access_log", "max_connections", "max_requests")
    times = ("header_timeout", "send_timeout", "keep_alive_timeout")
    return {name: getattr(parsed, name) for name in (*names, *times, "open_files")} | {
        "limits": Limits(
            header_bytes=parsed.max_header_bytes,
            fields=parsed.max_header_fields,
            uri_bytes=parsed.max_uri_bytes,
        )
    }
