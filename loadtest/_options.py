"""Options of every locustfile here: on the command line and in the web form.

Locust shows in its form what is added to the parser itself (not to a group of it), an option with
`choices` as a drop-down.  What comes back from the form was not checked by argparse, so `read`
checks everything again.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import pollers
from loadtest._peers import PEERS
from loadtest._schedule import parse_active
from loadtest._site import CACHES, Size, parse_mix
from loadtest._workload import ECHO, FILE
from pollers import system

AUTO: Final = "auto"
#: What can be started, and which workload loads it.
SERVERS: Final = {"echo": ECHO.name, "file": FILE.name, "nginx": FILE.name}
LOOPS: Final = ("reactor", "asyncio", "uvloop", "trio")
#: How the servers of each workload can move bytes.
BACKENDS: Final = {
    ECHO.name: ("copy", "splice", "batch"),
    FILE.name: ("copy", "sendfile", "splice", "aio"),
}
ALL_BACKENDS: Final = tuple(dict.fromkeys(name for names in BACKENDS.values() for name in names))
#: The users of each workload, for who named an impossible mix.
USERS: Final = {ECHO.name: "EchoUser or EchoSwarm", FILE.name: "FileUser or FileSwarm"}
MIX: Final = "1k:70,16k:20,256k:9,4m:1"
LARGEST_MESSAGE: Final = 8 << 20
#: Set in Locust's environment these reach the server, change what it does, and are reported.
REPORTED_ENV: Final = ("UV_USE_IO_URING",)


class BadOption(ValueError):
    """An option that cannot be; `str()` is one line that says which, why and what to do."""


@dataclass(frozen=True)
class Options:
    """The options, checked."""

    workload: str
    server: str
    loop: str
    poller: str
    backend: str
    workers: int
    server_host: str
    server_port: int
    message_size: int
    mix: tuple[Size, ...]
    cache: str
    #: Where the files are written and left; "": in a temporary directory, and removed.
    file_root: str
    slow_readers: int
    slow_rate: float
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
        files = self.workload == FILE.name
        size = self.mix[0].size if len(self.mix) == 1 else None
        return {
            "workload": self.workload,
            "server": self.server,
            "loop": self.loop,
            "poller": self.poller,
            "backend": self.backend,
            "workers": self.workers,
            "connections": self.connections,
            "active": self.active,
            "size": size if files else self.message_size,
            "mix": {one.label: one.weight for one in self.mix} if files else None,
            "cache": self.cache if files else None,
            "slow_readers": self.slow_readers if files else 0,
            "rate": self.rate or None,
            "pipeline": self.pipeline,
            "env": {name: os.environ[name] for name in REPORTED_ENV if name in os.environ},
        }


def add(parser: Any) -> None:
    """Add the options to Locust's parser."""
    option = parser.add_argument
    names = [AUTO, *pollers.names()]
    option(
        "--server",
        choices=[AUTO, *SERVERS],
        default=AUTO,
        help="Server to start, load and stop; auto: the one that the users are for",
    )
    option("--loop", choices=LOOPS, default="reactor", help="Who calls in the server")
    option("--poller", choices=names, default=AUTO, help="Poller of the server's reactor")
    option("--backend", choices=ALL_BACKENDS, default="copy", help="How the server moves bytes")
    option("--workers", type=int, default=1, help="Processes of the server")
    option("--server-host", default="127.0.0.1", help="Address that the server listens on")
    option("--server-port", type=int, default=0, help="Port of the server; 0: any free one")
    option("--message-size", type=int, default=64, help="Bytes of a message")
    option("--file-mix", default=MIX, help="Sizes of files, each with its share of the requests")
    option("--cache", choices=CACHES, default="hot", help="cold: evict files before each request")
    option(
        "--file-root",
        default="",
        metavar="DIR",
        help="Write the files to DIR and leave them there; what a server named by -H must serve",
    )
    option("--slow-readers", type=int, default=0, help="Connections besides that read slowly")
    option("--slow-rate", type=float, default=16384.0, help="Bytes a second of a slow reader")
    option("--think-time", type=float, default=1.0, help="Seconds between messages of one user")
    option("--swarm-connections", type=int, default=1000, help="Connections of one swarm user")
    option("--swarm-active", default="100%", help="How many of them send: a number or n%")
    option(
        "--swarm-rate",
        type=float,
        default=0.0,
        help="Messages a second of one EchoSwarm, at fixed times; 0: as fast as answered",
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
        help="Write the measurement of a swarm as JSON to FILE",
    )


def read(parsed: Namespace, workloads: Iterable[str] = (ECHO.name,)) -> Options:
    """Check what was parsed; `workloads` are what the users are for.  Raises BadOption."""
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
    workload, server = _server(parsed, set(workloads))
    if workload == FILE.name:
        _refuse(parsed, "is EchoSwarm's: leave it out", swarm_rate=0, swarm_pipeline=1)
    else:
        _refuse(parsed, "is for FileSwarm: leave it out", cache="hot", slow_readers=0)
    if server in PEERS:
        why = f"is chosen by {server} itself: leave it out"
        _refuse(parsed, why, loop="reactor", poller=AUTO, backend="copy")
    try:
        mix = parse_mix(parsed.file_mix)
    except ValueError as error:
        raise BadOption(f"--file-mix: {error}") from error
    return Options(
        workload=workload,
        server=server,
        loop=_one_of(parsed, "loop", LOOPS),
        poller=_one_of(parsed, "poller", names),
        backend=_one_of(parsed, "backend", BACKENDS[workload]),
        workers=workers,
        server_host=parsed.server_host,
        server_port=_at_least(parsed, "server_port", 0, 65535),
        message_size=_at_least(parsed, "message_size", 1, LARGEST_MESSAGE),
        mix=mix,
        cache=_one_of(parsed, "cache", CACHES),
        file_root=parsed.file_root,
        slow_readers=_at_least(parsed, "slow_readers", 0),
        slow_rate=_at_least(parsed, "slow_rate", 1),
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


def _server(parsed: Namespace, workloads: set[str]) -> tuple[str, str]:
    """The workload and the server that the users and --server agree on.  Raises BadOption."""
    asked = _one_of(parsed, "server", (AUTO, *SERVERS))
    if len(workloads) > 1:
        each = ", or ".join(USERS[name] for name in sorted(workloads))
        raise BadOption(f"one test loads one kind of server: name {each}, not both kinds")
    (workload,) = workloads
    if asked == AUTO:
        return workload, workload
    if SERVERS[asked] != workload:
        raise BadOption(
            f"--server {asked} is loaded by {USERS[SERVERS[asked]]}, and the users are for "
            f"--server {workload}: name such a user (or start with --class-picker), or leave "
            "--server out"
        )
    return workload, asked


def _refuse(parsed: Namespace, why: str, **usual: Any) -> None:
    """Raise BadOption for the first of these options that is not as usual."""
    for name, value in usual.items():
        if getattr(parsed, name) != value:
            raise BadOption(f"{_flag(name)} {why}")


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
