"""Random operations on a tree, every kind that a watcher should tell of, each into the journal.

What this file is
-----------------
`Tree.step()` does one thing that programs do to files, chosen by a seeded random generator, so
that the same seed does the same things.  It is one system call or a few: an atomic save is a new
file and a rename; `mkdir -p` makes three directories and a file in the last one at once, before a
watcher can have looked; `rm -r` unlinks everything below, then the directories.  Each call is one
`Operation`.

A write through a mapping is the only thing that ever happens to its file once that was made, and
the mapping stays, and with it the open file.  A watcher that tells of closes would tell of the
write when it has ended, and should not look as if it saw the write itself.
"""

from __future__ import annotations

import mmap
import os
import random
import time
from typing import Final

from loadtest._watch_journal import Operation

#: How often each kind of step comes, in parts of the whole.
WEIGHTS: Final = {
    "create": 20,
    "append": 20,
    "append x5": 3,
    "truncate": 8,
    "mmap write": 4,
    "chmod": 8,
    "rename over": 9,
    "rename across": 8,
    "rename directory": 2,
    "hard link": 5,
    "unlink": 7,
    "mkdir -p": 4,
    "rm -r": 2,
}
#: Directories to begin with.
DIRECTORIES: Final = 4
#: Most writes through a mapping: what is written so was made long before, and told.
MAPPED: Final = 32

now = time.monotonic_ns


class Tree:
    """New directories below `root`/`name`, what `populate` makes there, and what `step` does."""

    def __init__(
        self, root: str, name: str, chance: random.Random, journal: list[Operation]
    ) -> None:
        self._root = root
        self._chance = chance
        self._journal = journal
        self._steps = 0
        self._name = name
        self._files: list[str] = []
        #: Files to write through a mapping, each once, and the mappings.
        self._to_map: list[str] = []
        self._mappings: list[mmap.mmap] = []
        #: Those that `mkdir -p` made: they can be moved and removed.
        self._grown: list[str] = []
        self._directories = [f"{name}/{number}" for number in range(DIRECTORIES)]
        for directory in (name, *self._directories):
            self._mkdir(directory)

    def populate(self) -> None:
        """Make the first files, when whoever watches has had time for the new directories."""
        for _ in range(DIRECTORIES):
            self._create()
        for _ in range(MAPPED):
            self._to_map.append(self._new(self._chance.choice(self._directories), ".map"))
            self._write_new("create", self._to_map[-1])

    def step(self) -> None:
        """Do one thing."""
        self._steps += 1
        (kind,) = self._chance.choices(list(WEIGHTS), list(WEIGHTS.values()))
        needs = {"rm -r": self._grown, "rename directory": self._grown, "mmap write": self._to_map}
        if not needs.get(kind, self._files):
            kind = "create"
        self._do(kind)

    def _do(self, kind: str) -> None:
        if kind == "create":
            self._create()
        elif kind == "mkdir -p":
            self._mkdir_p()
        elif kind == "rm -r":
            self._rm_r()
        elif kind == "rename directory":
            self._rename_directory()
        elif kind == "mmap write":
            self._write_mapped(kind)
        elif kind == "rename over":
            target = self._file()
            draft = self._new(target.rpartition("/")[0], ".tmp")
            self._write_new("create", draft)
            self._renamed(kind, draft, target)
        elif kind == "rename across":
            path = self._file()
            other = self._new(self._chance.choice(self._directories))
            self._renamed(kind, path, other)
            self._files[self._files.index(path)] = other
        elif kind == "hard link":
            path, other = self._file(), self._new(self._chance.choice(self._directories))
            begin = now()
            os.link(self._at(path), self._at(other))
            self._note(kind, path, begin, other)
            self._files.append(other)
        elif kind == "unlink":
            path = self._file()
            self._files.remove(path)
            self._unlink(kind, path)
        else:
            self._change(kind, self._file())

    def _change(self, kind: str, path: str) -> None:
        """What leaves every name where it is."""
        if kind == "chmod":
            mode = 0o600 if os.stat(self._at(path)).st_mode & 0o040 else 0o640
            begin = now()
            os.chmod(self._at(path), mode)
            self._note(kind, path, begin)
            return
        fd = os.open(self._at(path), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            if kind == "truncate":
                size = os.fstat(fd).st_size
                begin = now()
                os.ftruncate(fd, size // 2)  # tells also where the size stays
                self._note(kind, path, begin)
            else:
                for _ in range(5 if kind == "append x5" else 1):
                    begin = now()
                    os.write(fd, b"0123456789")
                    self._note(kind, path, begin)
        finally:
            os.close(fd)

    def _write_mapped(self, kind: str) -> None:
        """Write through a mapping of a file that was made for it in the beginning."""
        path = self._to_map.pop()
        fd = os.open(self._at(path), os.O_RDWR | os.O_CLOEXEC)
        try:
            self._mappings.append(mmap.mmap(fd, 0))
        finally:
            os.close(fd)
        begin = now()
        self._mappings[-1][0] ^= 1
        self._note(kind, path, begin)

    def _create(self) -> None:
        path = self._new(self._chance.choice(self._directories))
        self._write_new("create", path)
        self._files.append(path)

    def _mkdir_p(self) -> None:
        path = self._new(self._chance.choice(self._directories), "d")
        self._grown.append(path)
        for part in ("", "/a", "/a/b"):
            self._mkdir(path + part)
        file = f"{path}/a/b/file"
        self._write_new("create", file)
        self._files.append(file)

    def _rm_r(self) -> None:
        path = self._chance.choice(self._grown)
        self._grown.remove(path)
        for file in [file for file in self._files if file.startswith(path + "/")]:
            self._files.remove(file)
            self._unlink("rm -r", file)
        for part in ("/a/b", "/a", ""):
            begin = now()
            os.rmdir(self._at(path + part))
            self._note("rm -r", path + part, begin)

    def _rename_directory(self) -> None:
        path = self._chance.choice(self._grown)
        other = self._new(self._chance.choice(self._directories), "d")
        self._renamed("rename directory", path, other)
        self._grown[self._grown.index(path)] = other
        self._files = [
            other + file[len(path) :] if file.startswith(path + "/") else file
            for file in self._files
        ]

    def _file(self) -> str:
        return self._chance.choice(self._files)

    def _new(self, directory: str, suffix: str = "") -> str:
        return f"{directory}/{self._steps}-{len(self._journal)}{suffix}"

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _write_new(self, kind: str, path: str) -> None:
        begin = now()
        fd = os.open(self._at(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o640)
        os.write(fd, b"0123456789")
        os.close(fd)
        self._note(kind, path, begin)

    def _mkdir(self, path: str) -> None:
        begin = now()
        os.mkdir(self._at(path))
        self._note("mkdir -p", path, begin)

    def _unlink(self, kind: str, path: str) -> None:
        begin = now()
        os.unlink(self._at(path))
        self._note(kind, path, begin)

    def _renamed(self, kind: str, path: str, other: str) -> None:
        begin = now()
        os.rename(self._at(path), self._at(other))
        self._note(kind, path, begin, other)

    def _note(self, kind: str, path: str, begin: int, other: str = "") -> None:
        self._journal.append(Operation(kind, path, other, begin, now()))
