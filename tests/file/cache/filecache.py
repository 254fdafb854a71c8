"""Files that change while a clock stands still, and random changes of a small site."""

from __future__ import annotations

import contextlib
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import strategies as st
from leaks import open_fds

from servers.file.cache import UNWATCHED_EVERY, FileCache, OpenFile
from servers.file.changes import Changes
from servers.file.root import Root


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def content(file: OpenFile) -> bytes:
    return os.pread(file.fd, file.size + 1, 0)


def replace(path: Path, data: bytes) -> None:
    """As an editor saves: written beside it, and renamed over it."""
    new = path.with_name(".new")
    new.write_bytes(data)
    os.replace(new, path)


def overflow(site: Path) -> None:
    """Have more happen to two files than inotify's queue has room for."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with open(site / "file", "wb") as one, open(site / "a" / "file", "rb") as other:
        for _ in range(limit // 2 + 500):
            os.utime(one.fileno())
            os.utime(other.fileno())


@contextlib.contextmanager
def no_more_fds() -> Iterator[None]:
    """Have no descriptor left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    hogs = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_fds()) + 1, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                hogs.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in hogs:
            os.close(fd)


DIRECTORIES = ("", "a", "c", "a/b", "link")
PATHS = [os.path.join(directory, "f") for directory in DIRECTORIES]
SOME_FILE, SOME_DIRECTORY = st.sampled_from(PATHS), st.sampled_from(DIRECTORIES[1:4])
STEPS = st.one_of(
    st.tuples(st.sampled_from(["write", "write", "replace", "remove", "touch"]), SOME_FILE),
    st.tuples(st.just("rename"), SOME_FILE, SOME_FILE),
    st.tuples(st.sampled_from(["make", "make", "clear"]), SOME_DIRECTORY),
    st.sampled_from([("move", "a", "c"), ("move", "c", "a"), ("move", "a/b", "c")]),
    st.tuples(st.just("link"), st.sampled_from(DIRECTORIES[:4])),
    st.tuples(st.just("symlink"), SOME_FILE, SOME_FILE),
)


def step(site: str, number: int, what: str, *names: str) -> None:
    """Change something below `site`, as far as it can be done."""
    paths = [os.path.join(site, name) for name in names]
    data = b"%d" % number * (number % 3 + 1)
    if what == "write":
        with open(paths[0], "wb") as file:
            file.write(data)
    elif what == "replace":
        replace(Path(paths[0]), data)
    elif what == "remove":
        os.unlink(paths[0])
    elif what == "touch":
        os.utime(paths[0])
    elif what in ("rename", "move"):
        os.rename(*paths)
    elif what == "make":
        os.makedirs(paths[0])
    elif what == "clear":
        os.rmdir(paths[0])
    elif what == "link":
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(site, "link"))
        os.symlink(names[0] or ".", os.path.join(site, "link"))
    elif what == "symlink":
        os.symlink(os.path.relpath(paths[0], os.path.dirname(paths[1])), paths[1])


def beneath(site: str, path: str) -> bytes:
    """What a file holds; where a link leads out of the site there is none."""
    there = os.path.realpath(os.path.join(site, path))
    if not there.startswith(os.path.realpath(site) + "/"):
        raise FileNotFoundError(path)
    with open(there, "rb") as file:
        return file.read()


def serve_what_is_there(steps: list[tuple[str, ...]], watching: Callable[[Root], Changes]) -> None:
    """After each step: a file that is watched, at once; another one, when its second is over."""
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory() as above,  # a step may write through a link to "../f"
        tempfile.TemporaryDirectory(dir=above) as base,
        Root(base) as root,
        watching(root) as changes,
    ):
        patch.setattr("servers.file.cache.WATCHED_EVERY", float("inf"))
        clock = Clock()
        cache = FileCache(root, changes, capacity=6, clock=clock)
        os.makedirs(os.path.join(base, "a/b"))
        for path in ("f", "a/f", "a/b/f"):
            Path(base, path).write_bytes(b"first")
        held: list[OpenFile] = []
        for number, (what, *names) in enumerate(steps):
            with contextlib.suppress(OSError):
                step(base, number, what, *names)
            cache.read_changes()
            for path in PATHS:
                known = os.fsencode(path)
                if not cache.covered(known):
                    clock.advance(UNWATCHED_EVERY)
                try:
                    expected = beneath(base, path)
                except OSError:
                    with pytest.raises(OSError, match=r"No such file|Is a directory"):
                        cache.open(known)
                    continue
                found = cache.open(known)
                assert (found.size, content(found)) == (len(expected), expected), path
                if number % 3 == 0:
                    found.take()
                    held.append(found)
        for found in held:
            found.release()
        assert all(found.fd == -1 or found.in_cache for found in held)
        cache.close()
