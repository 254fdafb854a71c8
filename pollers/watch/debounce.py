"""Changes gathered for a while and made fewer: off unless somebody puts it over a watcher.

What becomes of changes that come within one time
-------------------------------------------------
*   Those of one name are one: MODIFIED twice is once, CREATED and MODIFIED is CREATED, CREATED and
    DELETED is nothing, DELETED and CREATED is MODIFIED of a file.
*   A file that was created and moved is created at its last name; one that was created and moved
    over another is one MODIFIED of that: an atomic save.
*   What happens to whole directories stays as it was told, and what came before stays before it.
*   Replayed, they give the same names, and call every name dirty that the changes did.

The time begins with the first change that is held back, so that it also is the longest delay.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable

from pollers.watch.base import AnyPath, Change, Kind, Watcher, as_path, lies_in
from pollers.watch.waiting import AnyOf, Timer


def merge(changes: Iterable[Change]) -> list[Change]:
    """Fewer changes that say the same."""
    merged: list[Change] = []
    segment: dict[bytes, list[Change]] = {}

    def flush() -> None:
        for told in segment.values():
            merged.extend(told)
        segment.clear()

    for change in changes:
        kind, path, source, directory = change
        if directory or source is not None or kind is Kind.OVERFLOW:
            held = segment.get(source) if source is not None and not directory else None
            if held == [Change(Kind.CREATED, source or b"")] and source:
                # The temporary name of an atomic save, or a file that got its name at last.
                del segment[source]
                became = Kind.CREATED if kind is Kind.MOVED else Kind.MODIFIED
                _hold(segment, Change(became, path))
                continue
            flush()
            merged.append(change)
            continue
        _hold(segment, change)
    flush()
    return merged


def _hold(segment: dict[bytes, list[Change]], change: Change) -> None:
    """Add a change of a file's name to those of its segment, in which names are independent."""
    kind, path, _, _ = change
    held = segment.setdefault(path, [])
    kinds = [one.kind for one in held]
    if kind is Kind.DELETED:
        if kinds[:1] == [Kind.CREATED]:
            del segment[path]
        else:
            segment[path] = [change]
    elif kind is Kind.CREATED and kinds == [Kind.DELETED]:
        segment[path] = [Change(Kind.MODIFIED, path), Change(Kind.ATTRIBUTES, path)]
    elif kind not in kinds and kinds[:1] != [Kind.CREATED]:
        held.append(change)


class Debounced:
    """A watcher over another one, which it closes: it tells at most once in `seconds`."""

    def __init__(self, watcher: Watcher, seconds: float) -> None:
        """Raises OSError where there can be no fd for the timer; then `watcher` stays open."""
        if seconds <= 0:
            raise ValueError(f"a debounce takes more than 0 seconds, not {seconds:g}")
        self._watcher = watcher
        self._seconds = seconds
        self._held: list[Change] = []
        #: What was added, perhaps ended since.
        self._added: set[bytes] = set()
        self._due = 0.0
        self.name = watcher.name
        self.emulated = watcher.emulated
        self.capabilities = watcher.capabilities
        self.price = watcher.price
        self.counters = watcher.counters
        with contextlib.ExitStack() as undo:
            self._timer = Timer()
            undo.callback(self._timer.close)
            self._any = AnyOf(watcher.fileno(), self._timer.fileno())
            undo.pop_all()

    def add(self, path: AnyPath, recursive: bool = False) -> None:
        self._watcher.add(path, recursive)
        self._added.add(as_path(path))

    def remove(self, path: AnyPath) -> None:
        self._watcher.remove(path)
        self._added.discard(as_path(path))
        self._held = [
            change for change in self._held if any(lies_in(change.path, at) for at in self._added)
        ]

    def fileno(self) -> int:
        self._watcher.fileno()  # raises where it is closed
        return self._any.fileno()

    def read(self) -> list[Change]:
        fresh = self._watcher.read()
        now = time.monotonic()
        if fresh and not self._held:
            self._due = now + self._seconds
            self._timer.set(self._seconds)
        self._held += fresh
        if not self._held or now < self._due:
            return []
        self._timer.clear()
        told, self._held = merge(self._held), []
        return told

    def close(self) -> None:
        """End both.  May be repeated."""
        self._any.close()
        self._timer.close()
        self._held.clear()
        self._watcher.close()

    def __enter__(self) -> Debounced:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
