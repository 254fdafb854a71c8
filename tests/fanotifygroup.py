"""A fanotify group at work, and what its tests need of the kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pollers.fanotify import (
    FAN_CREATE,
    FAN_DELETE,
    FAN_EVENT_ON_CHILD,
    FAN_ONDIR,
    Fanotify,
    Place,
)
from pollers.filehandle import handle_of

ENTRIES = FAN_ONDIR | FAN_EVENT_ON_CHILD
NAMES = FAN_CREATE | FAN_DELETE | ENTRIES


def refusal() -> OSError | None:
    try:
        Fanotify().close()
    except OSError as error:
        return error
    return None


REFUSAL = refusal()
kernel = pytest.mark.skipif(REFUSAL is not None, reason=f"no fanotify here: {REFUSAL}")


def renames() -> bool:
    if REFUSAL is not None:
        return False
    with Fanotify() as group:
        return group.targets


since_5_17 = pytest.mark.skipif(not renames(), reason="FAN_RENAME came with Linux 5.17")


class Marked:
    """A directory with a mark."""

    def __init__(self, group: Fanotify, path: Path, mask: int) -> None:
        path.mkdir(exist_ok=True)
        self.path = path
        self.mask = mask
        self._group = group
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            group.add_fd(fd, mask)
            self.handle = handle_of(fd)
        finally:
            os.close(fd)

    def place(self, name: str) -> Place:
        return Place(self.handle, os.fsencode(name))


def seen(group: Fanotify) -> list[tuple[int, bytes]]:
    """The masks and names of what is queued, renames left out."""
    return [(event.mask, event.place.name) for event in group.read() if event.place is not None]
