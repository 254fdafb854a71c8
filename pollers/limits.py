"""The system's limits that 10,000 connections meet, and the command that raises each.

Facts
-----
*   RLIMIT_NOFILE counts every fd of a process.  A process may raise its soft limit up to its hard
    one by itself (`raise_nofile`); only root raises the hard one, on Linux up to fs.nr_open.
*   fs.aio-max-nr is one budget for the whole system.  io_setup(2) takes from it what it was asked
    for, whether used or not, and answers EAGAIN when it is spent.
*   listen(2) silently cuts its backlog to somaxconn (Linux 4,096 since 5.4, 128 before; FreeBSD's
    soacceptqueue 128).  A connection that finds the queue full is tried again after a second.
*   The port range is per pair of addresses: a client with n local addresses has n times as many.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, TypeAlias

#: Reads a number by its sysctl name; None where it cannot.
Reader: TypeAlias = Callable[[str], int | None]
#: The limits of one system, for so many connections.
System: TypeAlias = Callable[[int, Reader], list["Limit"]]

CONNECTIONS: Final = 10_000
#: fds of a process that are not connections: listeners, pipes, libraries, a poller's own.
OTHER_FDS: Final = 240
#: What the aio poller begins with; it doubles that when it is full (see pollers.aio.poller).
AIO_FIRST: Final = 1024
#: fs.aio-max-nr unless somebody changed it.
AIO_DEFAULT: Final = 65536
#: A backlog that a burst of connects is unlikely to fill before the server accepts again.
BACKLOG: Final = 1024


@dataclass(frozen=True)
class Limit:
    """One limit as it stands."""

    name: str
    #: None where it could not be read.
    value: int | None
    #: What 10,000 connections need.
    need: int
    #: What runs out.
    meaning: str
    #: Whether it is enough; None where that cannot be told.
    enough: bool | None
    #: The command that raises it; "" unless it is too low.
    remedy: str

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def raise_nofile() -> tuple[int, int]:
    """Raise RLIMIT_NOFILE's soft limit to its hard one; return (soft, hard).

    Where the system refuses (macOS caps it below "unlimited"), the soft limit stays as it was.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return soft, hard
    return hard, hard


def read(connections: int = CONNECTIONS, platform: str = sys.platform) -> list[Limit]:
    """This system's limits, each with what `connections` connections in one process need."""
    if platform.startswith("freebsd"):
        return [*_nofile(connections), *_freebsd(connections, _sysctl_number)]
    if platform.startswith("linux"):
        return [*_nofile(connections), *_linux(connections, _proc_number)]
    return _nofile(connections)


def judge(name: str, value: int | None, need: int, meaning: str, remedy: str) -> Limit:
    """A Limit, whose remedy is kept only where the value is too low."""
    enough = None if value is None else value >= need
    return Limit(name, value, need, meaning, enough, remedy if enough is False else "")


def _nofile(connections: int, limits: tuple[int, int] | None = None) -> list[Limit]:
    soft, hard = (_count(n) for n in limits or resource.getrlimit(resource.RLIMIT_NOFILE))
    need = connections + OTHER_FDS
    first = judge("nofile (soft)", soft, need, "open files of one process", f"ulimit -n {need}")
    if not first.enough and hard >= need:
        meaning = "open files of one process; pollmark raises it to the hard limit by itself"
        first = Limit(first.name, soft, need, meaning, True, "")
    second = judge(
        "nofile (hard)",
        hard,
        need,
        "how far a process may raise the soft limit",
        f"as root: prlimit --pid $$ --nofile={need}:{need}"
        if sys.platform.startswith("linux")
        else f"as root: ulimit -H -n {need}",
    )
    return [first, second]


def _linux(connections: int, number: Reader) -> list[Limit]:
    maximum, used = number("fs.aio-max-nr"), number("fs.aio-nr")
    free = None if maximum is None or used is None else maximum - used
    requests = AIO_FIRST
    while requests <= connections:
        requests *= 2
    requests += requests // 2  # the context before the last doubling is still there
    first, last = number("net.ipv4.ip_local_port_range"), number("net.ipv4.ip_local_port_range.1")
    ports = None if first is None or last is None else last - first + 1
    return [
        judge(
            "fs.aio-max-nr - fs.aio-nr",
            free,
            requests,
            "requests that Linux AIO may still hold, over all processes",
            f"as root: sysctl -w fs.aio-max-nr={(used or 0) + max(requests, AIO_DEFAULT)}",
        ),
        judge(
            "net.core.somaxconn",
            number("net.core.somaxconn"),
            BACKLOG,
            "connections that wait for accept; more are delayed by a second",
            "as root: sysctl -w net.core.somaxconn=4096",
        ),
        judge(
            "net.ipv4.ip_local_port_range",
            ports,
            connections,
            "connections from one client address to one server port",
            'as root: sysctl -w net.ipv4.ip_local_port_range="1024 65535"',
        ),
    ]


def _freebsd(connections: int, number: Reader) -> list[Limit]:
    need = connections + OTHER_FDS
    first = number("net.inet.ip.portrange.first")
    last = number("net.inet.ip.portrange.last")
    ports = None if first is None or last is None else last - first + 1
    return [
        judge(
            "kern.maxfilesperproc",
            number("kern.maxfilesperproc"),
            need,
            "open files of one process, whatever its limit says",
            f"as root: sysctl kern.maxfilesperproc={need}",
        ),
        judge(
            "kern.ipc.soacceptqueue",
            number("kern.ipc.soacceptqueue"),
            BACKLOG,
            "connections that wait for accept; more are refused or delayed",
            "as root: sysctl kern.ipc.soacceptqueue=4096",
        ),
        judge(
            "net.inet.ip.portrange",
            ports,
            connections,
            "connections from one client address to one server port",
            "as root: sysctl net.inet.ip.portrange.first=10000",
        ),
    ]


def _count(limit: int) -> int:
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def _proc_number(name: str) -> int | None:
    """A number of /proc/sys; a further one of the same file is NAME.1."""
    base, _, index = name.rpartition(".")
    if not index.isdigit():
        base, index = name, "0"
    try:
        text = (Path("/proc/sys") / base.replace(".", "/")).read_text()
        return int(text.split()[int(index)])
    except (OSError, ValueError, IndexError):
        return None


def _sysctl_number(name: str) -> int | None:
    try:
        done = subprocess.run(
            ["sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=True
        )
        return int(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
