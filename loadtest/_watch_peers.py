"""Others' packages that watch files, each used as its documentation says: watchfiles, watchdog.

Some facts about watchfiles (1.3; the Rust crate notify)
--------------------------------------------------------
*   A thread of Rust's own reads inotify into a set of (change, path); `watch()` returns it when
    nothing came for `step` ms, or `debounce` ms after the first.  So a change repeated within a
    step is one, the order within a set is none, and the latency is a step at least: 50 ms unless
    told otherwise.  Both can be 1 ms, which wakes the process up a thousand times a second.
*   Added, modified and deleted are all it knows: a rename is a deletion and an addition, a chmod a
    modification.  Nothing says that the queue has overflowed.

Some facts about watchdog (7.1)
-------------------------------
*   One thread reads inotify, a second one groups renames, a third calls the handler; all of them
    Python, one at a time.  `event_filter` narrows what the kernel is asked for.
*   A modification of a directory is reported for each name that came or went in it, unless that
    is filtered out: here it is.
*   Nothing but a line in the log says that the queue has overflowed.
"""

from __future__ import annotations

import importlib.metadata
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

from watchdog import events
from watchdog.observers import Observer
from watchfiles import Change, watch

#: Milliseconds after which watchfiles says that nothing happened.
PATIENCE: Final = 50


class Watchfiles:
    """`watchfiles.watch()`; nothing is filtered out."""

    def __init__(self, root: str, debounce: int, step: int) -> None:
        self._stop = threading.Event()
        self._watch = watch(
            root,
            watch_filter=None,
            debounce=debounce,
            step=step,
            stop_event=self._stop,
            rust_timeout=PATIENCE,
            yield_on_timeout=True,
        )

    def add(self) -> None:
        next(self._watch)  # a generator begins when it is asked; the first answer is a timeout

    def run(self, record: Callable[[Any, int], None]) -> None:
        for changes in self._watch:
            if changes:
                record(changes, len(changes))

    def stop(self) -> None:
        self._stop.set()

    def close(self) -> None:
        self._watch.close()

    def reports(self, came: set[tuple[Change, str]]) -> Iterator[tuple[str, str]]:
        for change, path in came:
            yield _WATCHFILES[change], path

    def about(self) -> dict[str, Any]:
        return {"version": importlib.metadata.version("watchfiles")}


_WATCHFILES: Final = {
    Change.added: "created",
    Change.modified: "modified",
    Change.deleted: "deleted",
}


class Watchdog(events.FileSystemEventHandler):
    """An observer with a handler that is called for what our vocabulary has."""

    def __init__(self, root: str) -> None:
        self._observer = Observer()
        self._root = root
        self._record: Callable[[Any, int], None] = lambda came, changes: None
        self._stop = threading.Event()

    def add(self) -> None:
        self._observer.schedule(
            self, self._root, recursive=True, event_filter=[*_WATCHDOG, *_MOVES]
        )
        self._observer.start()

    def run(self, record: Callable[[Any, int], None]) -> None:
        self._record = record
        self._stop.wait()

    def dispatch(self, event: events.FileSystemEvent) -> None:
        """Called by the observer's thread.  FileSystemEventHandler's own would call a method."""
        self._record(event, 1)

    def stop(self) -> None:
        self._stop.set()

    def close(self) -> None:
        self._observer.stop()
        self._observer.join()

    def reports(self, came: events.FileSystemEvent) -> Iterator[tuple[str, str]]:
        if isinstance(came, _MOVES):
            yield "moved from", str(came.src_path)
            yield "moved to", str(came.dest_path)
        else:
            yield _WATCHDOG[type(came)], str(came.src_path)

    def about(self) -> dict[str, Any]:
        return {"version": importlib.metadata.version("watchdog")}


_WATCHDOG: Final[dict[type[events.FileSystemEvent], str]] = {
    events.FileCreatedEvent: "created",
    events.DirCreatedEvent: "created",
    events.FileModifiedEvent: "modified",
    events.FileAttribEvent: "attributes",
    events.DirAttribEvent: "attributes",
    events.FileDeletedEvent: "deleted",
    events.DirDeletedEvent: "deleted",
}
_MOVES: Final = (events.FileMovedEvent, events.DirMovedEvent)
