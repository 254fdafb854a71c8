"""Which user classes there are and which of them run.  Pure: nothing here imports Locust.

A user class says by its attributes what it is: `workload`, what it loads, and `swarm`, whether it
drives a block of connections in a helper process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loadtest._options import SERVERS
from loadtest._workload import ECHO


def is_swarm(user: Any) -> bool:
    """Whether this user class runs in helper processes; such a one runs only where it is named."""
    return bool(getattr(user, "swarm", False))


def workloads_of(users: Sequence[Any]) -> set[str]:
    """What these user classes load."""
    return {getattr(user, "workload", ECHO.name) for user in users}


def unnamed(users: Sequence[Any], server: str) -> list[Any]:
    """The classes that run where none was named: those of `server` that are no swarms.

    Where one locustfile alone was given, it may have none of these: then its own.
    """
    workload = SERVERS.get(server, ECHO.name)
    single = [user for user in users if not is_swarm(user)]
    return [user for user in single if workloads_of([user]) == {workload}] or single
