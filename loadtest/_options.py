"""Options of every locustfile here: on the command line and in the web form.

Locust shows in its form what is added to the parser itself (not to a group of it), an option with
`choices` as a drop-down.  What comes back from the form was not checked by argparse, so `read`
checks everything again.
"""

from __future__ import annotations

import os
from argparse import Namespace
from dataclasses import dataclass
from typing import Any, Final

import pollers
from loadtest._schedule import parse_active
from pollers import system

AUTO: Final = "auto"
SERVERS: Final = ("echo",)
LOOPS: Final = ("reactor", "asyncio", "uvloop", "trio")
BACKENDS: Final = ("copy", "splice")
LARGEST_MESSAGE: Final = 8 << 20
#: Set in Locust's environment these reach the server, change what it does, and are reported.
REPORTED_ENV: Final = ("UV_USE_IO_URING",)


class BadOption(ValueError):
    """An option that cannot be; `str()` is one line that says which, why and what to do."""


@dataclass(frozen=True)
class Options:
    """The options, checked."""

    server: str
    loop: str
    poller: str
    backend: str
    workers: int
    server_host: str
    server_port: int
    message_size: int
    think_time: float
    connections: int
    active: int
    rate: float
    pipeline: int
    swarm_poller: str
    #: Cores for the server and for the load; empty: not pinned.
    server_cpus: list[int]
    load_cpus: list[int]
    warmup: float
    measure: float
    measurement_out: str

    def cell(self) -> dict[str, Any]:
        """What is measured, in the words of the measurement's JSON."""
        return {
            "server": self.server,
            "loop": self.loop,
            "poller": self.poller,
            "backend": self.backend,
            "workers": self.workers,
            "connections": self.connections,
            "active": self.active,
            "size": self.message_size,
            "rate": self.rate or None,
            "pipeline": self.pipeline,
            "env": {name: os.environ[name] for name in REPORTED_ENV if name in os.environ},
        }


def add(parser: Any) -> None:
    """Add the options to Locust's parser."""
    option = parser.add_argument
    names = [AUTO, *pollers.names()]
    option("--server", choices=SERVERS, default="echo", help="Server to start, load and stop")
    option("--loop", choices=LOOPS, default="reactor", help="Who calls in the server")
    option("--poller", choices=names, default=AUTO, help="Poller of the server's reactor")
    option("--backend", choices=BACKENDS, default="copy", help="How the server moves bytes")
    option("--workers", type=int, default=1, help="Processes of the server")
    option("--server-host", default="127.0.0.1", help="Address that the server listens on")
    option("--server-port", type=int, default=0, help="Port of the server; 0: any free one")
    option("--message-size", type=int, default=64, help="Bytes of a message")
    option("--think-time", type=float, default=1.0, help="EchoUser: seconds between messages")
    option("--swarm-connections", type=int, default=1000, help="Connections of one EchoSwarm user")
    option("--swarm-active", default="100%", help="How many of them send: a number or n%")
    option(
        "--swarm-rate",
        type=float,
        default=0.0,
        help="Messages a second of one EchoSwarm user, at fixed times; 0: as fast as answered",
    )
    option("--swarm-pipeline", type=int, default=1, help="Messages in flight on a connection")
    option("--swarm-poller", choices=names, default=AUTO, help="Poller of the swarm itself")
    option("--server-cpu", default=AUTO, help="Core of the server: a number, auto or none")
    option("--load-cpu", default=AUTO, help="Cores of the load: numbers (1,2), auto or none")
    option(
        "--swarm-warmup",
        type=float,
        default=5.0,
        help="Longest warm-up in seconds; ends as soon as the throughput is steady",
    )
    option(
        "--swarm-measure",
        type=float,
        default=0.0,
        help="Seconds measured after the warm-up, then the test ends; 0: until it is stopped",
    )
    option(
        "--measurement-out",
        default="",
        metavar="FILE",
        include_in_web_ui=False,
        help="Write the measurement of EchoSwarm as JSON to FILE",
    )


def read(parsed: Namespace) -> Options:
    """Check what was parsed.  Raises BadOption."""
    connections = _at_least(parsed, "swarm_connections", 1)
    try:
        active = parse_active(parsed.swarm_active, connections)
    except ValueError as error:
        raise BadOption(f"--swarm-active: {error}") from error
    workers = _at_least(parsed, "workers", 1)
    server_cpus, load_cpus = share_cores(
        _cores(parsed, "server_cpu"), _cores(parsed, "load_cpu"), system.cores(), workers
    )
    names = (AUTO, *pollers.names())
    return Options(
        server=_one_of(parsed, "server", SERVERS),
        loop=_one_of(parsed, "loop", LOOPS),
        poller=_one_of(parsed, "poller", names),
        backend=_one_of(parsed, "backend", BACKENDS),
        workers=workers,
        server_host=parsed.server_host,
        server_port=_at_least(parsed, "server_port", 0, 65535),
        message_size=_at_least(parsed, "message_size", 1, LARGEST_MESSAGE),
        think_time=_at_least(parsed, "think_time", 0),
        connections=connections,
        active=active,
        rate=_at_least(parsed, "swarm_rate", 0),
        pipeline=_at_least(parsed, "swarm_pipeline", 1, 1024),
        swarm_poller=_one_of(parsed, "swarm_poller", names),
        server_cpus=server_cpus,
        load_cpus=load_cpus,
        warmup=_at_least(parsed, "swarm_warmup", 0),
        measure=_at_least(parsed, "swarm_measure", 0),
        measurement_out=parsed.measurement_out,
    )


def share_cores(
    server: list[int] | None, load: list[int] | None, allowed: list[int], workers: int
) -> tuple[list[int], list[int]]:
    """Cores for the server and for the load; None asks for a choice, [] for no pinning.

    By itself one server process gets the first core and the load the others, where there are two.
    """
    if server is None:
        free = [core for core in allowed if core not in (load or [])]
        server = free[:1] if len(allowed) > 1 and workers == 1 else []
    if load is None:
        load = [core for core in allowed if core not in server] if server else []
    return server, load


def _cores(parsed: Namespace, name: str) -> list[int] | None:
    text = str(getattr(parsed, name)).strip().lower()
    if text == AUTO:
        return None
    if text in ("", "none"):
        return []
    parts = text.split(",")
    cores = [int(part) for part in parts if part.strip().isdecimal()]
    allowed = system.cores()
    if len(cores) != len(parts) or not set(cores) <= set(allowed):
        known = ", ".join(map(str, allowed)) or "none that can be chosen"
        raise BadOption(f"{_flag(name)} {text!r}: cores here are {known}; or say auto or none")
    return cores


def _one_of(parsed: Namespace, name: str, choices: tuple[str, ...]) -> str:
    value: str = getattr(parsed, name)
    if value not in choices:
        raise BadOption(f"{_flag(name)} {value!r} is unknown: choose from {', '.join(choices)}")
    return value


def _at_least(parsed: Namespace, name: str, least: int, most: float = float("inf")) -> Any:
    value = getattr(parsed, name)
    if not least <= value <= most or value == float("inf"):
        bound = f"from {least} to {most:g}" if most < float("inf") else f"{least} or more"
        raise BadOption(f"{_flag(name)} {value} is not possible: give {bound}")
    return value


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
