"""The Watcher protocol: its contract, stated once, and what an adapter needs to keep it.

Contract
--------
1.  *Directories are watched, and names are told.*  `add(path)` watches the names in a directory,
    `add(path, recursive=True)` those in the whole tree below it, new directories included.  To
    watch one file, watch its directory: the watch of a file ends with the next atomic save.
2.  *Paths are bytes*: what `add()` was given, as `as_path` makes it, and the names below it,
    joined by "/".  File names are any bytes; `os.fsdecode` turns a path into text.  Nothing is
    made absolute or resolved.
3.  *Symbolic links are not followed*, except the path of `add()` itself.  A link is a name that
    is no directory; what it leads to is another tree, also where its path is below one.
4.  *Changes, replayed, give the tree* (`pollers.watch.replay` is this paragraph, executed):
        CREATED     a name is there that was not.  What is in a new directory is told too, in a
                    recursive watch, after the directory.
        MODIFIED    what the name of a file stands for has other bytes.  `source` is the name that
                    was moved over it, if one was, and that is gone now: an atomic save is one
                    MODIFIED of the name.  (What happened to the temporary name before is told as
                    it was, CREATED and perhaps MODIFIED.)
        DELETED     the name is gone, and everything below it.  What was below need not be told.
        MOVED       what was at `source` is at `path`, with everything below it.  Into or out of
                    what is watched there is only one half: CREATED, or DELETED.
        ATTRIBUTES  mode, owner, times or link count are other.
        OVERFLOW    changes below `path`, which is one that was added, have been lost.  What is
                    told after it is what a look at the whole tree found, so that the rule holds.
    A directory is never MODIFIED: what happens in it is told by name.
5.  *Told at least once.*  A change that the facility can see (see `Capability`) is never lost.
    The same one may be told twice, and several in a row to one name may be told as one.  MODIFIED
    and ATTRIBUTES may be told of what is the same after all.  CREATED is told of what was not
    there and DELETED of what was: neither comes twice.
6.  *After the fact.*  A change was true when it happened.  By the time it is read the file may
    be gone: take FileNotFoundError for an answer.
7.  `add()` returns when every later change will be told; what was there before is not.  It raises
    FileExistsError for a path that was added already, FileNotFoundError, NotADirectoryError,
    PermissionError, and another OSError with what to do about it where a limit is reached; then it
    has changed nothing.  A directory below that may not be read or searched is left out, and
    counted (`counters.unreadable`), until it may be.  So is one behind which a file system is
    dead, damaged or out of reach (`tree.UNREADABLE`), until a look finds it well: that it is
    need not be told.
8.  *One inode, several paths.*  Where two added paths lead to the same directory (a link, a bind
    mount, one added below another) a change is told once for every path that it has: none
    twice by the same path.
9.  `remove(path)` ends what `add(path)` began, and raises FileNotFoundError for what was not
    added.  No later `read()` tells of it.
10. *The end of what was added*: where the directory itself is deleted, moved away or unmounted, it
    is told as DELETED with its path, and the path counts as removed.  Whether it is noticed that
    a directory above was renamed is left open: paths then go on as they were.
11. `fileno()` is readable whenever `read()` has something to return, and by itself also when the
    time for which something was held back (a rename's other half, a debounce) runs out.  It may
    be readable without that: `read()` then returns [].  It stays the same until `close()`.
12. `read()` never waits.  It returns the oldest changes; where more are waiting, the fd stays
    readable.
    Where a limit keeps a new directory from being watched it raises OSError, once, with what to
    do; the changes that it had are left for the next call.  What cannot be looked at for want of
    fds is raised too.  Both are tried again a second later, until it can be: then it is told what
    is there, and nothing of it is lost.
13. One thread, in the process that made the watcher.  `close()` may be repeated; everything else
    on a closed watcher raises ValueError.  File descriptors are close-on-exec.

Portability
-----------
What a facility cannot tell is stated by its `capabilities`, and for all by this:

*   Writes through mmap(2) are told where MMAP is had; elsewhere when the file is closed by
    who had it open for writing (CLOSE_WRITE), or not at all.
*   What another machine does to a network file system is told where REMOTE is had.
*   A hard link that is made to a watched file is told as CREATED of its name; a write by a name
    that is not watched is told where LINKS is had.
*   A facility that looks now and then (no PROMPT) tells of two looks' difference: what was created
    and deleted in between was never there.
"""

from __future__ import annotations

import enum
import os
from abc import ABC
from dataclasses import dataclass, fields
from typing import NamedTuple, Protocol, Self, TypeAlias

#: What a path may be given as; what is told is bytes.
AnyPath: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]


class Kind(enum.StrEnum):
    """What happened to a name; the contract says what each means."""

    CREATED = "created"
    MODIFIED = "modified"
    DELETED = "deleted"
    MOVED = "moved"
    ATTRIBUTES = "attributes"
    OVERFLOW = "overflow"


class Change(NamedTuple):
    """One change of one name.  A tuple, since a burst makes 100,000 of them a second."""

    kind: Kind
    path: bytes
    #: Where it was before: of MOVED always, of MODIFIED where a name was moved over this one.
    source: bytes | None = None
    #: Whether the name is, or was, a directory's.
    directory: bool = False

    def as_dict(self) -> dict[str, object]:
        """For JSON: paths as text, where bytes that are no UTF-8 are surrogates (os.fsdecode)."""
        told: dict[str, object] = {"kind": self.kind.value, "path": os.fsdecode(self.path)}
        if self.source is not None:
            told["source"] = os.fsdecode(self.source)
        return {**told, "directory": self.directory}


class Capability(enum.Flag):
    """What a facility tells by itself."""

    NONE = 0
    NAMES = enum.auto()
    """Which name it was; without it the directory is listed again and compared."""
    MOVES = enum.auto()
    """Both names of a rename; without it they are found by inode number, where that is unique."""
    RECURSIVE = enum.auto()
    """A tree by one mark; without it every directory has one of its own."""
    PROMPT = enum.auto()
    """A change can be read as soon as the call that caused it has returned."""
    ORDER = enum.auto()
    """Changes come in the order in which they happened, those of different names too."""
    CLOSE_WRITE = enum.auto()
    """MODIFIED also when a file is closed that was open for writing."""
    MMAP = enum.auto()
    """Writes through a mapping, when they are made or soon after."""
    LINKS = enum.auto()
    """Writes to a watched file by a hard link elsewhere."""
    REMOTE = enum.auto()
    """What other machines do to a network file system."""
    OVERFLOW = enum.auto()
    """It can fall behind and lose changes, which it then says (see OVERFLOW)."""


class Price(NamedTuple):
    """What is held of the descriptors that the process may have, beside a few of the watcher's."""

    root: int = 0
    """By each path that was added."""
    watch: int = 0
    """By each of `Counters.watches`."""


@dataclass(slots=True)
class Counters:
    """What a watcher did since it was made, and what it holds."""

    events: int = 0
    """Records that the kernel delivered; looks at one directory, where it delivers none."""
    changes: int = 0
    """Changes that `read()` returned."""
    overflows: int = 0
    """Times that the kernel said that it had lost something."""
    rescans: int = 0
    """Directories that were listed after the first time: new ones, and all after an overflow."""
    unreadable: int = 0
    """Directories that were left out since they may not be read."""
    watches: int = 0
    """Kernel objects held now: watches, marks, or open files."""

    def as_dict(self) -> dict[str, int]:
        """For JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Watcher(Protocol):
    """One facility; the module's docstring is the contract."""

    #: The registry's name of the adapter: "inotify", "kqueue", ...
    name: str
    #: True where the facility is imitated by a library over another one.
    emulated: bool
    capabilities: Capability
    price: Price
    counters: Counters

    def add(self, path: AnyPath, recursive: bool = False) -> None:
        """Watch the names in a directory, or in all of the tree below it."""

    def remove(self, path: AnyPath) -> None:
        """End what `add(path)` began."""

    def fileno(self) -> int:
        """Readable while `read()` has something to return."""

    def read(self) -> list[Change]:
        """What has changed, the oldest first; [] where nothing has.  It never waits."""

    def close(self) -> None:
        """Release everything.  May be repeated."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class Adapter(ABC):
    """What every adapter shares: counters, the context manager, and saying that it is closed."""

    name: str
    emulated = False
    capabilities = Capability.NONE
    price = Price()

    def __init__(self) -> None:
        self.counters = Counters()
        self.closed = False

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError(f"operation on a closed {self.name} watcher")


def as_path(path: AnyPath) -> bytes:
    """`path` as bytes, without slashes at its end.  Raises ValueError for an empty one."""
    given = os.fsencode(path)
    if not given:
        raise ValueError("the path to watch is empty; use '.' for the current directory")
    return given.rstrip(b"/") or b"/"


def join(directory: bytes, name: bytes) -> bytes:
    """The path of `name` in `directory`."""
    return directory + name if directory == b"/" else directory + b"/" + name


def split(path: bytes) -> tuple[bytes, bytes]:
    """The directory that `path` is in, and its name there: what `join` joins."""
    above, slash, name = path.rpartition(b"/")
    return above or slash, name


def lies_in(path: bytes, directory: bytes) -> bool:
    """Whether `path` is `directory`, or below it."""
    return path == directory or path.startswith(join(directory, b""))
