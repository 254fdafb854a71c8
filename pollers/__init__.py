"""Adapters over the kernel facilities that tell when a file descriptor is ready.

    import pollers

    with pollers.create("epoll") as poller:
        poller.register(sock.fileno(), pollers.POLLIN)
        for fd, bits in poller.poll(timeout=1.0):
            if bits & pollers.READABLE: ...

The contract that every adapter keeps, and what differs between them, is in `pollers.base`;
`python -m pollers` tells which work here, and why the others do not.
"""

from __future__ import annotations

from pollers.base import (
    INTEREST,
    MAX_EVENTS,
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLNVAL,
    POLLOUT,
    POLLPRI,
    POLLRDHUP,
    READABLE,
    WRITABLE,
    Capability,
    Counters,
    Events,
    Poller,
)
from pollers.limits import raise_nofile
from pollers.registry import (
    Availability,
    Unavailable,
    UnknownPoller,
    create,
    expected_names,
    names,
    probe,
    probe_all,
)

__all__ = [
    "INTEREST",
    "MAX_EVENTS",
    "POLLERR",
    "POLLHUP",
    "POLLIN",
    "POLLNVAL",
    "POLLOUT",
    "POLLPRI",
    "POLLRDHUP",
    "READABLE",
    "WRITABLE",
    "Availability",
    "Capability",
    "Counters",
    "Events",
    "Poller",
    "Unavailable",
    "UnknownPoller",
    "create",
    "expected_names",
    "names",
    "probe",
    "probe_all",
    "raise_nofile",
]
