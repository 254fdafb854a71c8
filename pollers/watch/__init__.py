"""Adapters over the facilities that tell when files change.

    from pollers import watch

    with watch.create() as watcher:
        watcher.add("/srv/site", recursive=True)
        async for changes in watch.changes_asyncio(watcher):
            for kind, path, source, directory in changes: ...

Without a loop: wait until `watcher.fileno()` is readable, then `watcher.read()`.  The contract
that every adapter keeps, and what differs between them, is in `pollers.watch.base`; `python -m
pollers.watch DIR` prints changes as they come.
"""

from __future__ import annotations

from pollers.registry import Unavailable
from pollers.watch.base import AnyPath, Capability, Change, Counters, Kind, Price, Watcher
from pollers.watch.debounce import Debounced
from pollers.watch.iterate import changes_asyncio, changes_trio
from pollers.watch.registry import (
    Availability,
    UnknownWatcher,
    create,
    expected_names,
    names,
    probe,
    probe_all,
)

__all__ = [
    "AnyPath",
    "Availability",
    "Capability",
    "Change",
    "Counters",
    "Debounced",
    "Kind",
    "Price",
    "Unavailable",
    "UnknownWatcher",
    "Watcher",
    "changes_asyncio",
    "changes_trio",
    "create",
    "expected_names",
    "names",
    "probe",
    "probe_all",
]
