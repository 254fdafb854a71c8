"""The command line that every server shares, and the choices that it stands for."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

import pollers
from pollers.base import MAX_EVENTS
from servers.lifecycle import CannotServe

LOOPS = ("reactor", "asyncio", "uvloop", "trio")

#: Beyond these a number is a slip, and would fail much later (in a C int, or for memory).
MOST_WORKERS: Final = 1024
MOST_EVENTS: Final = 65536
LONGEST: Final = 86400

N = TypeVar("N", int, float)

#: A server's backends, the default first: name -> the loops that have it.
Backends: TypeAlias = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked of any server, checked.  Times are seconds."""

    host: str
    port: int
    loop: str
    poller: str | None
    backend: str
    workers: int
    cpus: tuple[int, ...]
    drain_timeout: float
    max_events: int


OptionsT = TypeVar("OptionsT", bound=Options)


def parser(program: str, description: str, backends: Backends) -> argparse.ArgumentParser:
    """An argument parser with the shared options."""
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
    add(
        "--backend",
        choices=[*backends],
        default=next(iter(backends)),
        help="how bytes move (%(default)s)",
    )
    add(
        "--workers",
        type=whole(1, MOST_WORKERS),
        default=1,
        help="processes that share the port (1)",
    )
    add("--cpu", type=_cpus, default=(), metavar="N[,N...]", help="pin worker i to the i-th core")
    add(
        "--drain-timeout",
        type=seconds,
        default=5.0,
        metavar="S",
        help="how long SIGTERM lets connections finish (%(default)s s)",
    )
    add(
        "--max-events",
        type=whole(1, MOST_EVENTS),
        default=MAX_EVENTS,
        metavar="N",
        help="events taken from the kernel at once by --loop reactor (%(default)s)",
    )
    return result


def options(
    kind: type[OptionsT], arguments: argparse.Namespace, backends: Backends, **further: Any
) -> OptionsT:
    """Check what argparse cannot; `further` is what `kind` adds.  Raises CannotServe."""
    loop, poller = arguments.loop, arguments.poller
    if loop == "reactor":
        poller = _available(poller)
    elif poller is not None:
        raise CannotServe(
            f"--poller {poller} needs --loop reactor: {loop} brings its own; leave one of them out"
        )
    if loop not in (loops := backends[arguments.backend]):
        able = " or ".join(f"--loop {each}" for each in loops)
        raise CannotServe(
            f"--backend {arguments.backend} needs {able}: {loop} moves bytes its own way; "
            "use --backend copy"
        )
    return kind(
        host=arguments.host,
        port=arguments.port,
        loop=loop,
        poller=poller,
        backend=arguments.backend,
        workers=arguments.workers,
        cpus=arguments.cpu,
        drain_timeout=arguments.drain_timeout,
        max_events=arguments.max_events,
        **further,
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


def whole(least: int, most: int) -> Callable[[str], int]:
    """An argparse type: a whole number from `least` to `most`."""

    def whole_number(text: str) -> int:
        number = _number(int, text)
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"must be {least} to {most}, not {text}")
        return number

    return whole_number


def seconds(text: str) -> float:
    """An argparse type: a duration, seconds, at most a day."""
    duration = _number(float, text)
    if not 0 <= duration <= LONGEST:
        raise argparse.ArgumentTypeError(f"must be 0 to {LONGEST} seconds, not {text}")
    return duration


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
