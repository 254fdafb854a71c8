"""The package watchdog, used as its documentation says.

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
