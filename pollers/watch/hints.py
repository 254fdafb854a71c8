"""What a facility says of names, where only a look tells what became of them: pure.

A *hint* is a name to look at, with what was said of it.  The changes are the difference of two
looks (`pollers.watch.difference.diff`), and hints add what these cannot show:

*   a name that came and went in between, where both was said;
*   a rename of what was not known before: the temporary name of an atomic save;
*   a write that left size and times as they were: the clock of a file system ticks in
    milliseconds, and the writes of a mapping need not set it;
*   that a file with another size is the one that was renamed.

The order of hints means nothing.  That of what is told is: new directories, names in passing, and
what `diff` makes of the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from pollers.watch.base import Change, Kind, join, split
from pollers.watch.difference import Compared, diff
from pollers.watch.tree import Snapshot, Status

# What is said of a name.
WRITTEN: Final = 1
ALTERED: Final = 2  # its attributes
CAME: Final = 4
WENT: Final = 8
IS_DIRECTORY: Final = 16

#: A name in a directory.
At: TypeAlias = tuple[bytes, bytes]


@dataclass(slots=True)
class Hints:
    """Where to look below one added directory."""

    #: Directory -> names in it and what is said of each.
    names: dict[bytes, dict[bytes, int]] = field(default_factory=dict)
    #: Directories of which every name is looked at.
    listed: set[bytes] = field(default_factory=set)
    #: From where to where, each once for each time that it was said.
    renames: list[tuple[At, At]] = field(default_factory=list)
    #: Everything is looked at, as it could not be before: not until then (time.monotonic()).
    whole: bool = False
    again_at: float = 0.0
    #: Something was lost: everything is, and it is told.
    lost: bool = False
    #: The added directory itself is gone.
    ended: bool = False

    def add(self, directory: bytes, name: bytes, what: int) -> None:
        """Have a name looked at."""
        names = self.names.setdefault(directory, {})
        names[name] = names.get(name, 0) | what


class Told(Compared):
    """Judges by comparing, but believes what was said of a rename, whatever else changed.

    Where every rename is said, and always of a directory, an inode number by itself says nothing:
    it is used again at once.
    """

    def __init__(self, moved: set[int], all_said: bool) -> None:
        self._moved = moved
        self._all_said = all_said

    def same(self, old: Status, new: Status) -> bool:
        if old.identity in self._moved:
            return True
        return not self._all_said and not new.directory and super().same(old, new)


def changes(
    hints: Hints,
    old: Snapshot[Status],
    new: Snapshot[Status],
    moved: set[int],
    all_said: bool,
) -> list[Change]:
    """What leads from what was known to what is found, both where the hints led.

    `moved`: the inode numbers of what was known and is said to have been renamed.  `all_said`:
    every rename is, so that what is not said to be one is none.  `old` and `moved` get what was
    there for a moment only.
    """
    gone = _gone(old, new) & moved if all_said else _gone(old, new)
    told = _new_directories(old, new, gone)
    told += _passing(hints, old, new, moved, gone)
    told += diff(old, new, Told(moved, all_said))
    return told + _said(told, hints, new)


def _gone(old: Snapshot[Status], new: Snapshot[Status]) -> set[int]:
    """The inode numbers of names that are no longer there."""
    nothing: dict[bytes, Status] = {}
    return {
        entry.identity
        for path, was in old.items()
        for name, entry in was.items()
        if name not in new.get(path, nothing)
    }


def _new_directories(old: Snapshot[Status], new: Snapshot[Status], gone: set[int]) -> list[Change]:
    """Tell of new directories before all else, so that renames into them can be told.

    From then on they are known, and known to be empty.
    """
    told = []
    for path in new:
        above, name = split(path)
        if path in old or above not in old or name in old[above]:
            continue
        entry = new[above][name]
        if entry.identity not in gone:  # else it was moved here
            told.append(Change(Kind.CREATED, path, None, True))
            old[above][name] = entry
            old[path] = {}
    return told


def _passing(
    hints: Hints,
    old: Snapshot[Status],
    new: Snapshot[Status],
    moved: set[int],
    gone: set[int],
) -> list[Change]:
    """Tell of names that came and went between two looks, as far as it is said.

    One that was renamed to what is there now is known from then on, so that the rename is told.
    """
    told = []
    reached: set[At] = set()
    for (directory, name), target in reversed(hints.renames):
        to, called = target
        entry = new.get(to, {}).get(called)
        if entry is None or to not in old or target in reached or entry.identity in gone:
            continue
        reached.add(target)
        if directory not in new or directory not in old:
            continue
        if name not in old[directory] and name not in new[directory]:
            told.append(Change(Kind.CREATED, join(directory, name), None, entry.directory))
            old[directory][name] = entry
            moved.add(entry.identity)
    for directory, names in hints.names.items():
        if directory not in new or directory not in old:
            continue
        was, now = old[directory], new[directory]
        for name, what in names.items():
            if what & CAME and what & WENT and name not in was and name not in now:
                path, kind = join(directory, name), bool(what & IS_DIRECTORY)
                told.append(Change(Kind.CREATED, path, None, kind))
                told.append(Change(Kind.DELETED, path, None, kind))
    return told


def _said(told: Iterable[Change], hints: Hints, new: Snapshot[Status]) -> list[Change]:
    """What was said of names that stayed and is not told yet."""
    known = {(change.kind, change.path) for change in told}
    said = {
        join(directory, name): what & (WRITTEN | ALTERED)
        for directory, names in hints.names.items()
        for name, what in names.items()
    }
    for change in told:
        if change.source is not None:
            said[change.path] = said.get(change.path, 0) | said.get(change.source, 0)
    more = []
    for path, what in said.items():
        above, name = split(path)
        now = new.get(above, {}).get(name)
        if not what or now is None or (Kind.CREATED, path) in known:
            continue
        if what & WRITTEN and not now.directory and (Kind.MODIFIED, path) not in known:
            more.append(Change(Kind.MODIFIED, path, None, False))
        if what & ALTERED and (Kind.ATTRIBUTES, path) not in known:
            more.append(Change(Kind.ATTRIBUTES, path, None, now.directory))
    return more
