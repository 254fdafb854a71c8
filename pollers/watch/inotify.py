"""The watcher over inotify(7): one watch a directory.  Its facts are in pollers.inotify.

What they mean for us
---------------------
*   Every directory of a tree has its own watch, put on by fd through /proc/self/fd, so that it
    is the directory that was listed.  What comes of that is in pollers.watch.told.
*   A mask belongs to an inode and is replaced by the next watch of it: bits are only ever added
    (IN_MASK_ADD), as another path of the same inode may need others.
*   A rename's halves wait for each other (pollers.watch.pairing).  A timer makes the fd readable
    when the wait is over.
*   The directory that was added asks for IN_DELETE_SELF and IN_MOVE_SELF; of those below it the
    parent tells.  A directory that was removed and is open somewhere tells nothing of itself: what
    was added counts as watched until that is closed.
*   After an overflow what FIONREAD counts is thrown away, and no more: what comes later is whole.
*   A write is IN_MODIFY, and IN_CLOSE_WRITE once more when who wrote closes: by mmap(2) it is the
    only sign.  Two in a row are one.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import math
import os
import termios
import time
from collections.abc import Hashable, Sequence
from typing import Any, Final, Protocol

from pollers.inotify import (
    IN_ATTRIB,
    IN_CLOSE_WRITE,
    IN_CREATE,
    IN_DELETE,
    IN_DELETE_SELF,
    IN_EXCL_UNLINK,
    IN_IGNORED,
    IN_ISDIR,
    IN_MASK_ADD,
    IN_MODIFY,
    IN_MOVE_SELF,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_ONLYDIR,
    IN_Q_OVERFLOW,
    Event,
    Fields,
    Inotify,
)
from pollers.watch.again import Moment
from pollers.watch.base import Capability, Change, Kind, join, lies_in
from pollers.watch.memo import WRITES, Memo
from pollers.watch.pairing import WAIT, Pairing
from pollers.watch.places import Place
from pollers.watch.told import ToldWatcher
from pollers.watch.waiting import AnyOf, Timer

MASK: Final = (
    IN_ATTRIB
    | IN_CLOSE_WRITE
    | IN_CREATE
    | IN_DELETE
    | IN_MODIFY
    | IN_MOVED_FROM
    | IN_MOVED_TO
    | IN_EXCL_UNLINK
    | IN_ONLYDIR
    | IN_MASK_ADD
)
ROOT_MASK: Final = MASK | IN_DELETE_SELF | IN_MOVE_SELF
WRITTEN: Final = IN_MODIFY | IN_CLOSE_WRITE
GONE: Final = IN_DELETE | IN_MOVED_FROM
#: What has to do with what comes before or after it.
PAIRED: Final = IN_MOVED_FROM | IN_MOVED_TO | IN_Q_OVERFLOW
_NOWHERE: Final[list[Place]] = []
MODIFIED: Final = Kind.MODIFIED
_new: Final = tuple.__new__


class Instance(Protocol):
    """What is used of pollers.inotify.Inotify, so that another one can stand in."""

    behind: bool

    def add_fd(self, fd: int, mask: int) -> int: ...
    def remove(self, wd: int) -> None: ...
    def records(self) -> Sequence[Hashable]: ...
    def decode(self, record: Any, /) -> Fields: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class InotifyWatcher(ToldWatcher):
    """The adapter over inotify.  Raises OSError, with what to do, where there can be none.

    `wait`: seconds for which the first half of a rename waits for the second.
    """

    name = "inotify"
    capabilities = (
        Capability.NAMES
        | Capability.MOVES
        | Capability.PROMPT
        | Capability.ORDER
        | Capability.CLOSE_WRITE
        | Capability.OVERFLOW
    )

    def __init__(self, wait: float = WAIT) -> None:
        super().__init__()
        self._pairing: Pairing[Event] = Pairing(wait)
        self._timer_set = False
        with contextlib.ExitStack() as undo:
            self._inotify = self._instance()
            undo.callback(self._inotify.close)
            self._memo = Memo(self._inotify.decode)
            self._timer = Timer()
            undo.callback(self._timer.close)
            self._any = AnyOf(self._inotify.fileno(), self._timer.fileno())
            undo.pop_all()

    def fileno(self) -> int:
        self._check_open()
        return self._any.fileno()

    def read(self) -> list[Change]:
        self._check_open()
        moment = Moment()
        records = self._inotify.records()
        self.counters.events += len(records)
        if not (self._tell_of_all(records) or self._inotify.behind):
            self._drained = moment
        if self._again:
            self._retry()
        self._set_timer()
        return self._take()

    def close(self) -> None:
        super().close()
        self._memo.clear()
        self._pairing.clear()
        self._any.close()
        self._timer.close()
        self._inotify.close()

    def _instance(self) -> Instance:
        return Inotify()

    def _mark(self, fd: int, root: bool) -> Hashable:
        return self._inotify.add_fd(fd, ROOT_MASK if root else MASK)

    def _unmark(self, key: Hashable) -> None:
        assert isinstance(key, int)
        self._inotify.remove(key)

    def _discard(self) -> None:
        queued = array.array("i", [0])
        fcntl.ioctl(self._inotify.fileno(), termios.FIONREAD, queued)
        left = queued[0]
        while left > 0:
            try:
                left -= len(os.read(self._inotify.fileno(), left + 4096))
            except BlockingIOError:
                break

    # Whatever changes what is watched, an event or not, comes here, but for what `_forget` sees.

    def _enter(self, place: Place) -> None:
        self._memo.clear()
        super()._enter(place)

    def _leave(self, path: bytes) -> None:
        self._memo.clear()
        super()._leave(path)

    def _replace(self, old: dict[bytes, Place], new: dict[bytes, Place]) -> None:
        self._memo.clear()
        super()._replace(old, new)

    def _tell_of_all(self, records: Sequence[Hashable]) -> bool:
        """Tell of what need not wait; whether some was lost.

        A record of a write that came before is not looked into again (pollers.watch.memo).
        """
        if self._pairing:
            return self._tell_paired(records)
        remembered, decode, told = self._memo.changes.get, self._inotify.decode, self._told
        last = told[-1] if told else None
        for number, record in enumerate(records):
            change = remembered(record)
            if change is None:
                event = decode(record)
                change = self._write(event)
                if change is None:
                    if event[1] & PAIRED:
                        return self._tell_paired(records[number:])
                    self._tell_of(Event._make(event), None)
                    last = told[-1] if told else None
                    continue
                self._memo.remember(record, change)
            if change != last:
                told.append(change)
                last = change
        return False

    def _write(self, event: Fields) -> Change | None:
        """What a write to one file by one path is told as; None of everything else."""
        wd, mask, _, name = event
        if mask not in WRITES or not name:
            return None
        places = self._by_key.get(wd, _NOWHERE)
        if len(places) != 1:
            return None
        place = places[0]
        known = place.names.get(name)
        if known is None or known.directory:
            return None
        # As Change(...) does, without the search for defaults: half of the time.
        return _new(Change, (MODIFIED, join(place.path, name), None, False))

    def _tell_paired(self, records: Sequence[Hashable]) -> bool:
        """Tell of what need not wait, where some does; whether some was lost."""
        decode = self._inotify.decode
        events = [Event._make(decode(record)) for record in records]
        lost = next((n for n, event in enumerate(events) if event.mask & IN_Q_OVERFLOW), None)
        ready = self._pairing.feed(events[:lost], time.monotonic())
        if lost is not None:
            ready += self._pairing.feed([], math.inf)
        for first, second in ready:
            change = self._write(first) if second is None else None
            if change is None:
                self._tell_of(first, second)
            else:
                self._tell(change)
        if lost is not None:
            self._lost()
        return lost is not None

    def _tell_of(self, first: Event, second: Event | None) -> None:
        """Tell of one event, or of the two halves of a rename; names may be others then."""
        self._forget(first)
        if second is not None:
            self._forget(second)
        wd, mask, _, name = first
        places = self._by_key.get(wd)
        if second is not None:
            self._rename(places or [], first, second)
            return
        if places is None:  # a watch that was ended
            return
        if mask & IN_IGNORED:
            self._key_ended(wd)
            return
        for place in tuple(places):
            if self._is_here(place):
                self._tell_at(place, mask, name)

    def _forget(self, event: Event) -> None:
        """What a write is told as may be something else after this: a name, a path, a wd's end."""
        if event.name and not event.mask & (IN_ISDIR | IN_IGNORED):
            self._memo.forget(event.wd, event.name)
        else:
            self._memo.clear()

    def _tell_at(self, place: Place, mask: int, name: bytes) -> None:
        """Tell of one event by one of the paths of its directory."""
        if not name:  # the directory itself
            if place.path not in self._roots:  # its parent tells
                return
            if mask & (IN_DELETE_SELF | IN_MOVE_SELF):
                self._ended(place.path)
            elif mask & IN_ATTRIB:
                self._tell(Change(Kind.ATTRIBUTES, place.path, None, True))
        elif mask & WRITTEN:
            self._modified(place, name)
        elif mask & IN_CREATE:
            self._created(place, name, mask & IN_ISDIR != 0)
        elif mask & GONE:  # moved away, where the other half did not come
            self._deleted(place, name)
        elif mask & IN_ATTRIB:
            self._altered(place, name)
        elif mask & IN_MOVED_TO:
            self._appeared(place, name, mask & IN_ISDIR != 0)

    def _rename(self, sources: list[Place], first: Event, second: Event) -> None:
        """Tell of a rename by all of its paths."""
        left = list(sources)
        directory = first.mask & IN_ISDIR != 0
        for target in tuple(self._by_key.get(second.wd, ())):
            left = [place for place in left if self._is_here(place)]
            if not self._is_here(target):
                continue
            # Nothing moves into itself: there a listing was ahead, and later events will tell.
            possible = [
                place for place in left if not lies_in(target.path, join(place.path, first.name))
            ]
            if not possible:
                self._appeared(target, second.name, directory)
                continue
            # Where there are several, those belong together that begin alike.
            source = max(possible, key=lambda place: _alike(place.path, target.path))
            left.remove(source)
            self._moved(source, first.name, target, second.name, directory)
        for source in left:
            if self._is_here(source):
                self._deleted(source, first.name)

    def _set_timer(self) -> None:
        """Have the fd readable when what is held back is due."""
        deadline = self._pairing.deadline
        if self._again:
            deadline = min(deadline or math.inf, self._again_at)
        if self._refusal is not None and self._told:  # `_take` will raise, and leave these
            deadline = 0.0
        if deadline is not None:
            self._timer.set(deadline - time.monotonic())
        elif self._timer_set:
            self._timer.clear()
        self._timer_set = deadline is not None


def _alike(path: bytes, other: bytes) -> int:
    """How many bytes two paths have in common at their beginning."""
    pairs = enumerate(zip(path, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(path), len(other)))
