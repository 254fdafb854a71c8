"""Waiting for what a watcher tells, and comparing it with what is there."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import resource
import select
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pollers.watch import Capability, Change, Kind, Watcher
from pollers.watch.replay import Replica

#: Seconds in which something that has to come has come.
PATIENCE = 15.0
#: Seconds after which nothing more is expected of one that tells in no order.
QUIET = 0.1

_numbers = itertools.count()


def raw(path: Path) -> bytes:
    return os.fsencode(path)


def of(changes: list[Change], path: Path) -> list[Kind]:
    """What was told of one path, several in a row as one."""
    kinds = [change.kind for change in changes if change.path == raw(path)]
    return [kind for at, kind in enumerate(kinds) if at == 0 or kinds[at - 1] is not kind]


def readable(watcher: Watcher, seconds: float) -> bool:
    """Whether its fd becomes readable within `seconds`."""
    poll = select.poll()
    poll.register(watcher.fileno(), select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def read_until(watcher: Watcher, kind: Kind, path: bytes) -> list[Change]:
    """What is told up to a change, which has to come; always after waiting for the fd."""
    told: list[Change] = []
    deadline = time.monotonic() + PATIENCE
    while not any((change.kind, change.path) == (kind, path) for change in told):
        left = deadline - time.monotonic()
        assert left > 0, f"{kind} of {path!r} was not told, but: {told}"
        if readable(watcher, left):
            told += watcher.read()
    return told


def settle(watcher: Watcher, directory: Path) -> list[Change]:
    """All that is told of what has happened up to now.

    `directory` is watched: a name that comes and goes there is told after everything else.
    """
    mark = os.fsencode(directory / f".mark-{next(_numbers)}")
    os.mkdir(mark)
    told = read_until(watcher, Kind.CREATED, mark)
    os.rmdir(mark)
    told += read_until(watcher, Kind.DELETED, mark)
    ordered = Capability.PROMPT | Capability.ORDER
    while watcher.capabilities & ordered == Capability.PROMPT and readable(watcher, QUIET):
        told += watcher.read()
    return [change for change in told if change.path != mark]


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Have none left.  All that are open stay usable, for poll(2) too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def there(root: Path) -> dict[bytes, os.stat_result]:
    """Each name below `root`, and its lstat."""
    found = {}
    for above, directories, files in os.walk(os.fsencode(root)):
        for name in directories + files:
            path = os.path.join(above, name)
            found[path] = os.lstat(path)
    return found


def names(root: Path) -> dict[bytes, bool]:
    """Each name below `root`, and whether it is a directory."""
    return {path: stat.S_ISDIR(status.st_mode) for path, status in there(root).items()}


class Carrying(Replica):
    """A replica that also has what each file held, by whatever name it has now."""

    def __init__(self, names: dict[bytes, bool], held: dict[bytes, object]) -> None:
        super().__init__(names)
        self.held = held

    def _remove(self, path: bytes) -> None:
        for name in self._tree(path):
            self.held.pop(name, None)
        super()._remove(path)

    def _move(self, source: bytes, path: bytes) -> None:
        if path in self.names:
            self._remove(path)
            self.names[path] = False
        for name in self._tree(source):
            if name in self.held:
                self.held[path + name[len(source) :]] = self.held.pop(name)
        super()._move(source, path)


class Copy(Carrying):
    """A replica of what is below a directory."""

    def __init__(self, root: Path) -> None:
        super().__init__(names(root), {})
        self._root = root
        self.take()

    def take(self) -> None:
        """Learn what is new of each file that was told of."""
        self.held = {path: held(path) for path in files(self._root)}
        self.dirty.clear()
        self.changed.clear()

    def stale(self) -> set[bytes]:
        """The files that hold something else, or have another mode, than was told."""
        stale = set()
        for path in files(self._root):
            text, mode = held(path)
            if path not in self.dirty:
                was, mode_was = self.held[path]  # type: ignore[misc]
                if was != text or (path not in self.changed and mode_was != mode):
                    stale.add(path)
        return stale


def files(root: Path) -> list[bytes]:
    """The regular files below a directory."""
    return [path for path, status in there(root).items() if stat.S_ISREG(status.st_mode)]


def held(path: bytes) -> tuple[bytes, int]:
    """A file's bytes and mode."""
    with open(path, "rb") as file:
        return file.read(), os.fstat(file.fileno()).st_mode


def overflow(directory: Path) -> None:
    """Have more happen than a queue has room for, to names of which each is another one.

    inotify joins what is equal and in a row; fanotify all that is about the same name.
    """
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    busy = os.fsencode(directory / "busy-")
    name = busy + b"0"
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
    for number in range(1, limit + 100):
        before, name = name, busy + b"%d" % number
        os.rename(before, name)
    os.unlink(name)


def exchange(one: Path, two: Path) -> None:
    """Have two names change places."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None or renameat2(-100, raw(one), -100, raw(two), 2):
        pytest.skip("this system or file system cannot exchange two names (renameat2)")
