"""Random operations on a tree: what a watcher tells, replayed, gives the tree that is there."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from adapters import available
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from watching import Copy, names, overflow, settle, there

from pollers import watch
from pollers.watch import Capability

NAMES = st.sampled_from([b"a", b"b", b"c\xff", b"d"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)
PLACES = st.sampled_from(["tree", "tree", "tree", "outside"])


class Tree(RuleBasedStateMachine):
    """Operations that may fail, as a user's may: then nothing happened."""

    adapter: str

    def __init__(self) -> None:
        super().__init__()
        self.top = Path(tempfile.mkdtemp(prefix="watch-"))
        self.root = self.top / "tree"
        self.linked: set[int] = set()
        self.flooded = False

    @initialize(before=st.lists(PATHS, max_size=4))
    def begin(self, before: list[bytes]) -> None:
        self.root.mkdir()
        (self.top / "outside").mkdir()
        for path in before:
            self.make_directories(path, "tree")
        self.watcher = available(self.adapter)()
        self.watcher.add(self.root, recursive=True)
        self.copy = Copy(self.root)

    def at(self, place: str, path: bytes) -> bytes:
        return os.path.join(os.fsencode(self.top / place), path)

    @rule(path=PATHS, place=PLACES)
    def make_directories(self, path: bytes, place: str) -> None:
        attempt(os.makedirs, self.at(place, path))

    @rule(path=PATHS, place=PLACES, text=st.binary(max_size=3), mode=st.sampled_from("xaw"))
    def write(self, path: bytes, place: str, text: bytes, mode: str) -> None:
        attempt(_write, self.at(place, path), text, mode + "b")

    @rule(path=PATHS, size=st.integers(0, 3))
    def truncate(self, path: bytes, size: int) -> None:
        attempt(_truncate, self.at("tree", path), size)

    @rule(old=PATHS, new=PATHS, begin=PLACES, end=PLACES)
    def rename(self, old: bytes, new: bytes, begin: str, end: str) -> None:
        attempt(os.rename, self.at(begin, old), self.at(end, new))

    @rule(path=PATHS, text=st.binary(max_size=3))
    def save(self, path: bytes, text: bytes) -> None:
        """As an editor does."""
        temporary = self.at("tree", path) + b"~"
        if attempt(_write, temporary, text, "xb") and not attempt(
            os.rename, temporary, self.at("tree", path)
        ):
            os.unlink(temporary)

    @rule(old=PATHS, new=PATHS, begin=PLACES, end=PLACES)
    def link(self, old: bytes, new: bytes, begin: str, end: str) -> None:
        if attempt(os.link, self.at(begin, old), self.at(end, new)):
            self.linked.add(os.lstat(self.at(end, new)).st_ino)

    @rule(path=PATHS)
    def symlink(self, path: bytes) -> None:
        attempt(os.symlink, b".", self.at("tree", path))

    @rule(path=PATHS)
    def unlink(self, path: bytes) -> None:
        attempt(os.unlink, self.at("tree", path))

    @rule(path=PATHS)
    def remove_tree(self, path: bytes) -> None:
        if not os.path.islink(self.at("tree", path)):
            attempt(shutil.rmtree, self.at("tree", path))

    @rule(path=PATHS, mode=st.sampled_from([0o600, 0o644, 0o700]))
    def chmod(self, path: bytes, mode: int) -> None:
        path = self.at("tree", path)
        if not os.path.islink(path):
            attempt(os.chmod, path, mode | (0o100 if os.path.isdir(path) else 0))

    @precondition(
        lambda self: not self.flooded and Capability.OVERFLOW in self.watcher.capabilities
    )
    @rule()
    def overflow(self) -> None:
        """What happens until the next read is lost.  Once a run: it takes half a second."""
        self.flooded = True
        overflow(self.root)

    @rule()
    def read(self) -> None:
        """So that what is told and what happens alternate in every way."""
        self.copy.apply(self.watcher.read())

    @rule()
    def look(self) -> None:
        self.copy.apply(settle(self.watcher, self.root))
        assert self.copy.names == names(self.root)
        stale = self.copy.stale()
        if Capability.LINKS not in self.watcher.capabilities:
            found = there(self.root)
            stale = {path for path in stale if found[path].st_ino not in self.linked}
        assert stale == set()
        self.copy.take()

    def teardown(self) -> None:
        try:
            if hasattr(self, "copy"):
                self.look()
        finally:
            if hasattr(self, "watcher"):
                self.watcher.close()
            shutil.rmtree(self.top)


def attempt(operation, *arguments) -> bool:  # type: ignore[no-untyped-def]
    """Whether it succeeded."""
    try:
        operation(*arguments)
    except OSError:
        return False
    return True


def _write(path: bytes, text: bytes, mode: str) -> None:
    with open(path, mode) as file:
        file.write(text)


def _truncate(path: bytes, size: int) -> None:
    os.truncate(path, size)


@pytest.mark.parametrize("adapter", watch.names())
@pytest.mark.timeout(300)
def test_what_is_told_replayed_gives_what_is_there(adapter: str) -> None:
    available(adapter)
    machine = type(f"Tree_{adapter}", (Tree,), {"adapter": adapter})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=int(os.environ.get("WATCH_EXAMPLES", "8")),
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
