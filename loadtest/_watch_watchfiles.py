"""The package watchfiles, used as its documentation says.

Some facts about watchfiles (1.3; the Rust crate notify)
--------------------------------------------------------
*   A thread of Rust's own reads inotify into a set of (change, path); `watch()` returns it when
    nothing came for `step` ms, or `debounce` ms after the first.  So a change repeated within a
    step is one, the order within a set is none, and the latency is a step at least: 50 ms unless
    told otherwise.  Both can be 1 ms, which wakes the process up a thousand times a second.
*   Added, modified and deleted are all it knows: a rename is a deletion and an addition, a chmod a
    modification.  Nothing says that the queue has overflowed.
"""

from __future__ import annotations

import importlib.metadata
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

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
            force_polling=False,  # whatever WATCHFILES_FORCE_POLLING says
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
