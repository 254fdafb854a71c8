"""What a writer did to a tree, and what may be told of it.  Pure.

What this file is
-----------------
A *journal* is a list of operations, each one system call (creating a file: three) with its time.
`expected` says of every path what each operation did to it, as *facts*: what a watcher that tells
everything would report.  A rename is two of them, "gone" from one name and "came" to another, so
that a watcher without renames is judged by what it can say.

An *allowed* report is one that is true and that nobody is owed: the other names of a file that was
changed through one of them, what is below a directory that moved, the content of a file that is
reported as created anyway.  Any report that a directory changed is allowed too: it did.

Paths are relative to the watched root; times are CLOCK_MONOTONIC in ns, the same in every process.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

#: What each kind of operation does to its path.
DOES: Final = {
    "create": "created",
    "append": "modified",
    "append x5": "modified",  # five in a row, with nothing between them
    "truncate": "modified",
    "mmap write": "modified",
    "chmod": "attributes",
    "rename over": "renamed",
    "rename across": "renamed",
    "rename directory": "renamed",
    "hard link": "linked",
    "unlink": "deleted",
    "mkdir -p": "directory",
    "rm -r": "deleted",
    "flood": "modified",
    "hold": "modified",
    "backlog": "modified",
    "burst": "modified",
    "burst create": "created",
    "end": "created",
}
#: The last operation of every phase, which is no part of its work.
END: Final = "end"


class Operation(NamedTuple):
    """One thing that the writer did."""

    kind: str
    path: str
    #: Where it went, was linked to; "" otherwise.
    other: str
    #: Just before the call, and just after it.
    begin: int
    end: int


class Fact(NamedTuple):
    """What one operation did to one path."""

    #: created, modified, deleted, attributes, gone, came, replaced (came over another)
    what: str
    path: str
    begin: int
    #: The index of the operation.
    operation: int


class Expected(NamedTuple):
    """What a journal gives cause to report."""

    facts: list[Fact]
    #: (what, path) -> the time of each cause: so often it may be reported.
    allowed: dict[tuple[str, str], list[int]]


class _Tree:
    """Which names belong to one file, as far as the journal tells."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}

    def names(self, path: str) -> set[str]:
        """Every name of the file called `path`."""
        return self._names.setdefault(path, {path})

    def others(self, path: str) -> set[str]:
        names = self.names(path)
        return names - {path} if len(names) > 1 else set()

    def link(self, path: str, other: str) -> None:
        names = self.names(path)
        names.add(other)
        self._names[other] = names

    def remove(self, path: str) -> None:
        self.names(path).discard(path)
        self._names.pop(path, None)

    def rename(self, path: str, other: str) -> None:
        self.remove(other)
        names = self.names(path)
        names.discard(path)
        del self._names[path]
        names.add(other)
        self._names[other] = names

    def below(self, directory: str) -> list[str]:
        return [path for path in self._names if path.startswith(directory + "/")]


def expected(operations: Sequence[Operation]) -> Expected:
    """What `operations` (in their order) did to each path."""
    facts: list[Fact] = []
    allowed: dict[tuple[str, str], list[int]] = {}
    tree = _Tree()

    def allow(begin: int, paths: Iterable[str], *what: str) -> None:
        for path in paths:
            for one in what:
                allowed.setdefault((one, path), []).append(begin)

    for index, (kind, path, other, begin, _) in enumerate(operations):
        does = DOES[kind]
        if does == "modified":
            facts.append(Fact("modified", path, begin, index))
            allow(begin, tree.others(path), "modified")
        elif does in ("created", "directory"):
            facts.append(Fact("created", path, begin, index))
            tree.names(path)
            if does == "created":
                allow(begin, [path], "modified")
        elif does == "attributes":
            facts.append(Fact("attributes", path, begin, index))
            allow(begin, tree.others(path), "attributes")
        elif does == "linked":
            facts.append(Fact("created", other, begin, index))
            tree.link(path, other)
            allow(begin, tree.names(path), "attributes")
        elif does == "deleted":
            facts.append(Fact("deleted", path, begin, index))
            allow(begin, tree.names(path), "attributes")
            tree.remove(path)
        else:
            came = "replaced" if kind == "rename over" else "came"
            facts.append(Fact("gone", path, begin, index))
            facts.append(Fact(came, other, begin, index))
            if kind == "rename directory":
                for old in tree.below(path):
                    new = other + old[len(path) :]
                    allow(begin, [old], "moved from", "deleted")
                    allow(begin, [new], "moved to", "created")
                    tree.rename(old, new)
            else:
                allow(begin, tree.others(other), "attributes")
                allow(begin, tree.names(path) | {other}, "attributes")
            tree.rename(path, other)
    return Expected(facts, allowed)


def directories(operations: Iterable[Operation]) -> Iterator[str]:
    """Every directory that holds one of the paths, the root ("") among them."""
    seen: set[str] = set()
    for operation in operations:
        for path in (operation.path, operation.other):
            while path:
                path = path.rpartition("/")[0]
                if path in seen:
                    break
                seen.add(path)
                yield path


def save(path: Path, operations: Sequence[Operation]) -> None:
    """Write a journal as columns: names once, then numbers.  Raises OSError."""
    names: dict[str, int] = {}
    columns = [
        [names.setdefault(text, len(names)) for text in column]
        for column in list(zip(*operations, strict=True))[:3] or ((), (), ())
    ]
    times = [[one.begin for one in operations], [one.end for one in operations]]
    path.write_text(json.dumps({"names": list(names), "columns": columns, "times": times}))


def load(path: Path) -> list[Operation]:
    """Read what `save` wrote.  Raises OSError, or ValueError where it is something else."""
    data = json.loads(path.read_text())
    names = data["names"]
    kinds, paths, others = ([names[one] for one in column] for column in data["columns"])
    return list(map(Operation, kinds, paths, others, *data["times"]))
