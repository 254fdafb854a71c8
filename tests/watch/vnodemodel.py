"""A model of EVFILT_VNODE as FreeBSD has it, over inotify, so that its adapter runs on Linux.

It has what the adapter uses of select.kqueue.  Notes are joined in the knote until they are
returned (EV_CLEAR), a close(fd) removes its knote in silence, and a truncation is NOTE_ATTRIB
(sys/kern/vfs_subr.c, sys/ufs/ufs/ufs_vnops.c).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from pollers.inotify import (
    IN_ATTRIB,
    IN_CLOSE_WRITE,
    IN_CREATE,
    IN_DELETE,
    IN_IGNORED,
    IN_ISDIR,
    IN_MODIFY,
    IN_MOVE_SELF,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    Inotify,
)
from pollers.kevents import DIALECTS, EV_ADD, EV_DELETE, Change
from pollers.kqueue import Opened
from pollers.watch import vnodes

NAMES = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO


@dataclass
class Knote:
    """A registered fd, and the notes that have come since the last record."""

    wd: int
    inode: int
    asked: int
    links: int
    size: int
    fflags: int = 0
    deleted: bool = False


class ModelKqueue:
    """What pollers.watch.kqueue uses of select.kqueue."""

    def __init__(self) -> None:
        self._inotify = Inotify()
        self.knotes: dict[int, Knote] = {}
        self.closed = False

    def fileno(self) -> int:
        return self._inotify.fileno()

    def close(self) -> None:
        self.closed = True
        self._inotify.close()

    def control(
        self, changelist: Sequence[Change] | None, max_events: int, timeout: float | None = None, /
    ) -> list[Change]:
        for change in changelist or ():
            if change.flags & EV_ADD:
                self._add(change.ident, change.fflags)
            elif change.flags & EV_DELETE:
                del self.knotes[change.ident]
        if not max_events:
            return []
        self._collect()
        records = []
        for fd, knote in self.knotes.items():
            if knote.fflags and len(records) < max_events:
                records.append(Change(fd, vnodes.EVFILT_VNODE, 0, knote.fflags))
                knote.fflags = 0
        return records

    def _add(self, fd: int, asked: int) -> None:
        status = os.fstat(fd)
        mask = IN_ATTRIB | IN_MODIFY | IN_CLOSE_WRITE | IN_MOVE_SELF
        mask |= NAMES if stat.S_ISDIR(status.st_mode) else 0
        wd = self._inotify.add_fd(fd, mask)
        self.knotes[fd] = Knote(wd, status.st_ino, asked, status.st_nlink, status.st_size)

    def _collect(self) -> None:
        heard = [event for event in self._inotify.read() if not event.mask & IN_IGNORED]
        for fd, knote in list(self.knotes.items()):
            try:
                status = os.fstat(fd)
            except OSError:
                status = None
            if status is None or status.st_ino != knote.inode:
                del self.knotes[fd]
                continue
            for event in heard:
                if event.wd == knote.wd and not event.name:
                    self._note(knote, status, event.mask)
                elif event.wd == knote.wd and event.mask & NAMES:
                    knote.fflags |= vnodes.NOTE_WRITE
                    if event.mask & IN_ISDIR:
                        knote.fflags |= vnodes.NOTE_LINK
                    if event.mask & (IN_MOVED_FROM | IN_MOVED_TO):
                        knote.fflags |= vnodes.NOTE_EXTEND
            if not status.st_nlink and not knote.deleted:
                knote.deleted = True
                knote.fflags |= vnodes.NOTE_DELETE
            knote.links, knote.size = status.st_nlink, status.st_size
            knote.fflags &= knote.asked

    def _note(self, knote: Knote, status: os.stat_result, mask: int) -> None:
        if mask & IN_MODIFY and status.st_size < knote.size:
            knote.fflags |= vnodes.NOTE_ATTRIB
        elif mask & IN_MODIFY:
            grew = status.st_size > knote.size
            knote.fflags |= vnodes.NOTE_WRITE | (vnodes.NOTE_EXTEND if grew else 0)
        if mask & IN_CLOSE_WRITE:
            knote.fflags |= vnodes.NOTE_CLOSE_WRITE
        if mask & IN_MOVE_SELF:
            knote.fflags |= vnodes.NOTE_RENAME
        if mask & IN_ATTRIB:
            other = status.st_nlink != knote.links
            knote.fflags |= vnodes.NOTE_LINK if other else vnodes.NOTE_ATTRIB


def open_model() -> Opened:
    """As pollers.kqueue.open_kqueue: a kqueue and how to speak to it."""
    return Opened(ModelKqueue(), Change, DIALECTS["freebsd"])
