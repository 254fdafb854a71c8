"""The command line that every server shares, and the choices that it stands for."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import pollers
from pollers.base import MAX_EVENTS
from servers.lifecycle import CannotServe

LOOPS = ("reactor", "asyncio", "uvloop", "trio")

#: Beyond these a number is a slip, and would fail much later (in a C int, or for memory).
MOST_WORKERS: Final = 1024
MOST_EVENTS: Final = 65536
LONGEST: Final = 86400

N = TypeVar("N", int, float)


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked, checked.  Times are seconds, 0 means "no limit" for the idle timeout."""

    host: str
    port: int
    loop: str
    poller: str | None
    backend: str
    workers: int
    cpus: tuple[int, ...]
    idle_timeout: float
    drain_timeout: float
    max_events: int


def parser(program: str, description: str, backends: tuple[str, ...]) -> argparse.ArgumentParser:
    """An argument parser with the shared options.  `backends[0]` is the default."""
    result = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    add = result.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", type=_port, default=0, help="0 lets the kernel choose (default)")
    add("--loop", choices=LOOPS, default="reactor", help="who calls (default: %(default)s)")
    add(
        "--poller",
        metavar="NAME",
        help=f"{', '.join(pollers.names())}; for --loop reactor (default: the first available)",
    )
    add("--backend", choices=backends, default=backends[0], help="how bytes move (%(default)s)")
    add(
        "--workers",
        type=_whole(1, MOST_WORKERS),
        default=1,
        help="processes that share the port (1)",
    )
    add("--cpu", type=_cpus, default=(), metavar="N[,N...]", help="pin worker i to the i-th core")
    add(
        "--idle-timeout",
        type=_seconds,
        default=0.0,
        metavar="S",
        help="close a connection that moved nothing for S to 1.25 S seconds (0: never)",
    )
    add(
        "--drain-timeout",
        type=_seconds,
        default=5.0,
        metavar="S",
        help="how long SIGTERM lets connections finish (%(default)s s)",
    )
    add(
        "--max-events",
        type=_whole(1, MOST_EVENTS),
        default=MAX_EVENTS,
        metavar="N",
        help="events taken from the kernel at once by --loop reactor (%(default)s)",
    )
    return result


def options(arguments: argparse.Namespace) -> Options:
    """Check what argparse cannot.  Raises CannotServe."""
    loop, poller = arguments.loop, arguments.poller
    if loop == "reactor":
        poller = _available(poller)
    elif poller is not None:
        raise CannotServe(
            f"--poller {poller} needs --loop reactor: {loop} brings its own; leave one of them out"
        )
    elif arguments.backend != "copy":
        raise CannotServe(
            f"--backend {arguments.backend} needs --loop reactor: {loop} moves bytes its own way; "
            "use --backend copy"
        )
    return Options(
        host=arguments.host,
        port=arguments.port,
        loop=loop,
        poller=poller,
        backend=arguments.backend,
        workers=arguments.workers,
        cpus=arguments.cpu,
        idle_timeout=arguments.idle_timeout,
        drain_timeout=arguments.drain_timeout,
        max_events=arguments.max_events,
    )


def _available(poller: str | None) -> str:
    if poller is None:
        for name in pollers.names():  # one by one: a probe may import much
            found = pollers.probe(name)
            if found.available and not found.emulated:
                return name
        raise CannotServe("no poller is available here: `python -m pollers` says why")
    try:
        found = pollers.probe(poller)
    except pollers.UnknownPoller as error:
        raise CannotServe(f"--poller {poller}: {error}") from None
    if not found.available:
        raise CannotServe(f"--poller {poller} is not available here: {found.reason}")
    return poller


def _port(text: str) -> int:
    port = _number(int, text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"a port is 0 to 65535, not {text}")
    return port


def _whole(least: int, most: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        number = _number(int, text)
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"must be {least} to {most}, not {text}")
        return number

    return whole_number


def _seconds(text: str) -> float:
    seconds = _number(float, text)
    if not 0 <= seconds <= LONGEST:
        raise argparse.ArgumentTypeError(f"must be 0 to {LONGEST} seconds, not {text}")
    return seconds


def _cpus(text: str) -> tuple[int, ...]:
    return tuple(_number(int, part) for part in text.split(","))


def _number(kind: Callable[[str], N], text: str) -> N:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, not {text!r}") from None


def ready(options: Options, server: str, url: str, **actual: Any) -> dict[str, Any]:
    """The ready line; `actual` overrides what was asked with what really runs."""
    line: dict[str, Any] = {
        "ready": True,
        "server": server,
        "url": url,
        "loop": options.loop,
        "poller": options.poller,
        "backend": options.backend,
        "emulated": False,
        "workers": options.workers,
    }
    return line | actual
