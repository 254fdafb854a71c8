"""A tree as names and what they stand for, and the changes that lead from one state to another.

What is kept
------------
*   A *snapshot* is a dict: path of a directory -> its names -> their entries, directories before
    what is in them.  A name is bytes, an entry a tuple; two listings that are the same compare
    equal at C's speed, which is what a look at a tree in which nothing happened costs.
*   `Status` is an entry with what lstat(2) tells: for who has nothing but looks.  `Name` has the
    inode number and the type only, which readdir(3) tells: for who is told of changes, and looks
    again only when some were lost.
*   A tree is walked by file descriptors (openat(2)), so that what is found below a directory is
    in that directory, whatever is renamed meanwhile.  It holds one fd a level.

What two states can tell
------------------------
*   A rename is one inode that left one name and has another.  Inode numbers are used again at once
    (ext4), so that size and mtime have to be the same as well, or older than what was lost; else
    it is told as DELETED and CREATED, which is as true.
*   A name is the same one if it is in the same directory by path; the directory may be another.
*   ctime alone, changed without mode, owner or links, may be a write whose mtime was set back: it
    is told as MODIFIED, which is never wrong.
*   Of a directory only mode and owner are compared: its times change with its names.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple, Protocol, TypeAlias, TypeVar

from pollers.watch.base import Change, Kind, join, split

#: Directories that are walked: never through a link, never waiting for a FIFO's other end.
OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: What a name that was just listed may have become: nothing, or no directory.
VANISHED: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})
#: Where there can be no more fds.
FULL: Final = frozenset({errno.EMFILE, errno.ENFILE})
REMEDIES: Final = {
    errno.ENOTDIR: "watch the directory that it is in",
    errno.EMFILE: "a walk holds one fd a level; raise the limit: ulimit -n 20000",
    errno.ENFILE: "raise the system's limit: sysctl fs.file-max (FreeBSD: kern.maxfiles)",
}


class Entry(Protocol):
    """What every entry has."""

    @property
    def identity(self) -> int:
        """The inode number; 0 where it is not known."""

    @property
    def directory(self) -> bool: ...


class Name(NamedTuple):
    """A name of which changes are told."""

    identity: int
    directory: bool


#: Of names that the kernel told, which says no more than the type.
FILE: Final = Name(0, False)
DIRECTORY: Final = Name(0, True)


class Status(NamedTuple):
    """A name as lstat(2) has it.  Times are nanoseconds."""

    identity: int
    directory: bool
    mode: int
    links: int
    owner: int
    group: int
    size: int
    mtime: int
    ctime: int

    @classmethod
    def of(cls, found: os.stat_result) -> Status:
        """A directory's size and link count are its file system's business, and left out."""
        directory = stat.S_ISDIR(found.st_mode)
        return cls(
            found.st_ino,
            directory,
            found.st_mode,
            0 if directory else found.st_nlink,
            found.st_uid,
            found.st_gid,
            0 if directory else found.st_size,
            found.st_mtime_ns,
            found.st_ctime_ns,
        )


E = TypeVar("E", bound=Entry)
C = TypeVar("C", bound=Entry, contravariant=True)
Listing: TypeAlias = dict[bytes, E]
Snapshot: TypeAlias = dict[bytes, dict[bytes, E]]


def list_names(fd: int) -> dict[bytes, Name]:
    """The names in an open directory, by readdir(3) alone.  Raises OSError."""
    fsencode = os.fsencode
    with os.scandir(fd) as found:
        return {
            fsencode(entry.name): Name(entry.inode(), entry.is_dir(follow_symlinks=False))
            for entry in found
        }


def list_statuses(fd: int) -> dict[bytes, Status]:
    """The names in an open directory, each with its lstat(2).  Raises OSError."""
    names = {}
    with os.scandir(fd) as found:
        for entry in found:
            with contextlib.suppress(FileNotFoundError):
                names[os.fsencode(entry.name)] = Status.of(entry.stat(follow_symlinks=False))
    return names


def open_root(path: bytes) -> int:
    """Open a directory that is to be watched, through a link if it is one.  Raises OSError."""
    try:
        return os.open(path, OPEN & ~os.O_NOFOLLOW)
    except OSError as error:
        raise _explained(error, path) from None


def walk(
    top: int,
    path: bytes,
    lister: Callable[[int], dict[bytes, E]],
    enter: Callable[[bytes, int], bool],
    unreadable: Callable[[bytes], None],
    recursive: bool = True,
) -> Snapshot[E]:
    """A snapshot of the tree below the open directory `top`, whose path is `path`.

    `enter(path, fd)` is called of each directory before it is listed: what changes afterwards, it
    can have reported.  Where it returns False the directory is left out.  `unreadable(path)` is
    called of one that may not be read.  Raises OSError; what has vanished is left out.
    """
    found: Snapshot[E] = {}
    if not enter(path, top):
        return found
    found[path] = _listed(lister, top, path)
    if not recursive:
        return found
    #: The directories on the way down: path, fd, and the names that are still to be walked.
    way: list[tuple[bytes, int, Iterator[bytes]]] = [(path, top, _directories(found[path]))]
    try:
        while way:
            above, fd, names = way[-1]
            name = next(names, None)
            if name is None:
                way.pop()
                if fd != top:
                    os.close(fd)
                continue
            below = join(above, name)
            child = open_below(fd, name, below, unreadable)
            if child is None:
                continue
            way.append((below, child, iter(())))
            if enter(below, child):
                found[below] = _listed(lister, child, below)
                way[-1] = (below, child, _directories(found[below]))
    finally:
        for _, fd, _ in way:
            if fd != top:
                os.close(fd)
    return found


def open_below(
    fd: int, name: bytes, path: bytes, unreadable: Callable[[bytes], None]
) -> int | None:
    """Open the directory `name` in `fd`; None where it has vanished or may not be read.

    Raises OSError; EMFILE says what to do.
    """
    try:
        return os.open(name, OPEN, dir_fd=fd)
    except PermissionError:
        unreadable(path)
    except OSError as error:
        if error.errno not in VANISHED:
            raise _explained(error, path) from None
    return None


def _listed(lister: Callable[[int], dict[bytes, E]], fd: int, path: bytes) -> dict[bytes, E]:
    try:
        return lister(fd)
    except OSError as error:
        raise _explained(error, path) from None


def _explained(error: OSError, path: bytes) -> OSError:
    """The same with what to do about it, where that is known."""
    remedy = REMEDIES.get(error.errno or 0)
    why = f"{os.fsdecode(path)}: {error.strerror}" + (f"; {remedy}" if remedy else "")
    return OSError(error.errno, why)


def _directories(names: Mapping[bytes, Entry]) -> Iterator[bytes]:
    return iter([name for name, entry in names.items() if entry.directory])


def subtree(snapshot: Mapping[bytes, Mapping[bytes, Entry]], path: bytes) -> list[bytes]:
    """The directories of a snapshot from `path` downwards, each before what is in it."""
    if path not in snapshot:
        return []
    paths = [path]
    for above in paths:  # which grows meanwhile
        names = snapshot[above]
        paths += [
            below
            for name in names
            if names[name].directory and (below := join(above, name)) in snapshot
        ]
    return paths


class Judge(Protocol[C]):
    """How two entries of one name, an old one and a status, compare."""

    def same(self, old: C, new: Status) -> bool:
        """Whether one with the same inode number may be the same file, under another name."""

    def altered(self, old: C, new: Status, moved: bool) -> tuple[Kind, ...]:
        """What happened to a name that is of the same type as it was; `moved` from another."""


class Compared:
    """Judges by comparing all that lstat(2) tells."""

    def same(self, old: Status, new: Status) -> bool:
        return (old.size, old.mtime) == (new.size, new.mtime)

    def altered(self, old: Status, new: Status, moved: bool) -> tuple[Kind, ...]:
        if old == new:
            return ()
        attributes = (old.mode, old.links, old.owner, old.group) != (
            *(new.mode, new.links, new.owner, new.group),
        )
        if new.directory:
            modified = False
        elif (old.identity, old.size, old.mtime) != (new.identity, new.size, new.mtime):
            modified = True
        else:
            modified = old.ctime != new.ctime and not attributes and not moved
        return ((Kind.MODIFIED,) if modified else ()) + ((Kind.ATTRIBUTES,) if attributes else ())


class Since:
    """Judges by time: what was altered after `since` (ns since the epoch) may have been missed."""

    def __init__(self, since: int) -> None:
        self._since = since

    def same(self, old: Name, new: Status) -> bool:
        return new.mtime < self._since

    def altered(self, old: Name, new: Status, moved: bool) -> tuple[Kind, ...]:
        other = old.identity not in (0, new.identity)
        if new.directory:
            return (Kind.ATTRIBUTES,) if new.ctime >= self._since else ()
        if other or new.ctime >= self._since:
            return (Kind.MODIFIED, Kind.ATTRIBUTES)
        return ()


def diff(old: Snapshot[E], new: Snapshot[Status], judge: Judge[E]) -> list[Change]:
    """The changes that, replayed in order on `old`, give `new`; [] where they are the same.

    Renames first, then what is gone, what is new, and what is altered.
    """
    renames, work = _renames(old, new, judge)
    told = {change.path: change.kind for change in renames}
    gone, fresh, altered = [], [], []
    for path, names in new.items():
        was: dict[bytes, E] = work.get(path, {})
        if was == names:
            continue
        for name, entry in was.items():
            left = names.get(name)
            if left is None or left.directory is not entry.directory:
                gone.append(Change(Kind.DELETED, join(path, name), None, entry.directory))
        for name, now in names.items():
            full = join(path, name)
            before = was.get(name)
            if before is None or before.directory is not now.directory:
                fresh.append(Change(Kind.CREATED, full, None, now.directory))
                continue
            kind = told.get(full)
            altered += [
                Change(what, full, None, now.directory)
                for what in judge.altered(before, now, kind is not None)
                if what is not kind
            ]
    for path in work.keys() - new.keys():
        above, name = split(path)
        still = new.get(above, {}).get(name)
        if still is not None and still.directory:
            gone += [  # it is there and may not be read any more
                Change(Kind.DELETED, join(path, below), None, known.directory)
                for below, known in work[path].items()
            ]
    return renames + gone + fresh + altered


def _renames(
    old: Snapshot[E], new: Snapshot[Status], judge: Judge[E]
) -> tuple[list[Change], Snapshot[E]]:
    """The renames between two states, and the old one with these done.

    Both names' directories have to be in both states, except that the old one's may be gone: what
    was in it is moved out first.  A rename in which more changed is not seen as one.
    """
    sources: list[tuple[bytes, bytes, E]] = []
    targets: dict[int, tuple[bytes, bytes, Status]] = {}
    for path, was in old.items():
        names = new.get(path)
        if names is None:
            sources += [(path, name, entry) for name, entry in was.items()]
        elif was != names:
            sources += [(path, name, entry) for name, entry in was.items() if name not in names]
            for name, now in names.items():
                before = was.get(name)
                if before is None or (
                    not (before.directory or now.directory)
                    and before.identity not in (0, now.identity)
                ):
                    targets.setdefault(now.identity, (path, name, now))
    if not targets or not sources:
        return [], old
    changes = []
    work = dict(old)
    copied: set[bytes] = set()
    for path, name, entry in reversed(sources):  # what is deepest leaves first
        target = targets.get(entry.identity)
        if target is None:
            continue
        to, called, now = target
        if entry.directory is not now.directory or not judge.same(entry, now):
            continue
        del targets[entry.identity]
        full, source = join(to, called), join(path, name)
        kind = Kind.MODIFIED if called in old[to] else Kind.MOVED
        changes.append(Change(kind, full, source, now.directory))
        for touched in {path, to} - copied:
            work[touched] = dict(work[touched])
            copied.add(touched)
        del work[path][name]
        work[to][called] = entry
        for below in subtree(work, source) if entry.directory else ():
            work[full + below[len(source) :]] = work.pop(below)
    return changes, work
