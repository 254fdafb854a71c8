"""What every watcher does at its limits: what it may not read, no descriptors, a full queue."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from adapters import probe
from watching import PATIENCE, Copy, names, no_descriptors, overflow, readable, settle

from pollers.watch import Capability, Change, Kind, Watcher


def run(code: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`code` in a process of its own."""
    words = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=60)


#: As another user, of whom root may not read everything.
SHUT = """
import os, select, sys, time
from pollers import watch
watch.create(sys.argv[1]).close()  # its modules may be out of reach later
os.makedirs("tree/shut")
open("tree/shut/file", "w").close()
if os.geteuid() == 0:
    for path in ".", "tree", "tree/shut", "tree/shut/file":
        os.chown(path, 65534, 65534)
    os.setegid(65534)
    os.seteuid(65534)
def told(watcher, path):
    poll = select.poll()
    poll.register(watcher.fileno(), select.POLLIN)
    deadline = time.monotonic() + 15
    changes = []
    while path not in [c.path for c in changes if c.kind is watch.Kind.CREATED]:
        if time.monotonic() > deadline:
            sys.exit(f"not told: {path}, but {changes}")
        poll.poll(100)
        changes += watcher.read()
os.chmod("tree/shut", int(sys.argv[2], 8))
with watch.create(sys.argv[1], period=0.02) as watcher:
    watcher.add("tree", recursive=True)
    print(watcher.counters.unreadable > 0)
    open("tree/new", "w").close()
    told(watcher, b"tree/new")
    os.chmod("tree/shut", 0o700)
    told(watcher, b"tree/shut/file")
    try:
        os.chmod("tree", int(sys.argv[2], 8))
        watch.create(sys.argv[1]).add("tree")
    except PermissionError:
        print("refused")
    os.chmod("tree", 0o700)
"""


def not_emulated(adapter: str) -> None:
    """Skip where a library finds names in /proc, which is shut once the process is not root's."""
    if probe(adapter).emulated and os.geteuid() == 0:
        pytest.skip("libkqueue looks names up in /proc/self/fd, which who was root may not read")


@pytest.mark.parametrize("mode", ["0", "0444"])
def test_what_may_not_be_read_or_searched_is_left_out(
    adapter: str, tmp_path: Path, mode: str
) -> None:
    """And is there once it may be."""
    not_emulated(adapter)
    tmp_path.chmod(0o755)
    done = run(SHUT, adapter, mode, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("True\nrefused\n", "")


#: What is hinted at before the root may not be read is told when it may.
CLOSED = """
import os, select, sys, time
from pollers import watch
watch.create(sys.argv[1]).close()
os.mkdir("tree")
if os.geteuid() == 0:
    for path in ".", "tree":
        os.chown(path, 65534, 65534)
    os.setegid(65534)
    os.seteuid(65534)
with watch.create(sys.argv[1], period=0.02) as watcher:
    poll = select.poll()
    poll.register(watcher.fileno(), select.POLLIN)
    def told(enough):
        changes, deadline = [], time.monotonic() + 15
        while not enough(changes):
            if time.monotonic() > deadline:
                sys.exit(f"not told, but {changes}")
            if poll.poll(100):
                changes += watcher.read()
        return changes
    watcher.add("tree", recursive=True)
    os.close(os.open("tree/file", os.O_CREAT | os.O_WRONLY))
    os.chmod("tree", 0)
    seen = []
    closed = lambda changes: watcher.counters.unreadable or changes
    seen += told(closed)
    os.chmod("tree", 0o700)
    created = (watch.Kind.CREATED, b"tree/file")
    told(lambda changes: created in [c[:2] for c in seen + changes])
"""


def test_what_is_said_before_the_root_is_shut_is_not_lost(adapter: str, tmp_path: Path) -> None:
    not_emulated(adapter)
    tmp_path.chmod(0o755)
    done = run(CLOSED, adapter, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("", "")


#: A mount whose server is gone, which root may make in a namespace of its own.
DEAD = """
import ctypes, os, select, sys, time
from pollers import watch
libc = ctypes.CDLL(None, use_errno=True)
watch.create(sys.argv[1]).close()
for path in "tree/dead", "tree/other":
    os.makedirs(path)
def dead():
    fd = os.open("/dev/fuse", os.O_RDWR)
    options = b"fd=%d,rootmode=40000,user_id=0,group_id=0" % fd
    failed = libc.mount(b"fuse", b"tree/dead", b"fuse", ctypes.c_ulong(0), options)
    os.close(fd)
    return failed
try:
    made = not libc.unshare(0x20000)
    made = made and not libc.mount(None, b"/", None, ctypes.c_ulong(0x44000), None)
    if not made or dead():
        sys.exit("no mount")
except (AttributeError, OSError):
    sys.exit("no mount")
try:
    os.listdir("tree/dead")
except OSError as error:
    print(error.errno)
with watch.create(sys.argv[1], period=0.02) as watcher:
    watcher.add("tree", recursive=True)
    print(watcher.counters.unreadable > 0)
    poll = select.poll()
    poll.register(watcher.fileno(), select.POLLIN)
    changes, deadline = [], time.monotonic() + 15
    os.mkdir("tree/other/new")
    while b"tree/other/new" not in [change.path for change in changes]:
        if time.monotonic() > deadline:
            sys.exit(f"not told: {changes}")
        if poll.poll(100):
            changes += watcher.read()
    print(any(b"dead" in change.path for change in changes))
"""


def test_a_dead_mount_is_left_out_and_the_rest_is_watched(adapter: str, tmp_path: Path) -> None:
    done = run(DEAD, adapter, cwd=tmp_path)
    if done.stderr == "no mount\n":
        pytest.skip("a mount of one's own asks for Linux, root and /dev/fuse")
    assert (done.stdout, done.stderr) == (f"{errno.ENOTCONN}\nTrue\nFalse\n", "")


def test_a_damaged_directory_is_left_out_until_a_look_finds_it_well(
    watcher: Watcher, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was there already, and one that comes: it cannot be listed."""
    late, bad = tree.parent / "outside" / "late", tree / "bad"
    for path in late / "below", bad / "below", tree / "good":
        path.mkdir(parents=True)
    damaged = {late.stat().st_ino, bad.stat().st_ino}

    def damage(name: str) -> None:
        whole = getattr(os, name)

        def listing(fd: Any) -> Any:
            if os.stat(fd).st_ino in damaged:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return whole(fd)

        monkeypatch.setattr(os, name, listing)

    damage("scandir")
    damage("listdir")
    watcher.add(tree, recursive=True)
    assert watcher.counters.unreadable >= 1
    watches = watcher.counters.watches
    late.rename(tree / "late")
    (tree / "good" / "file").touch()
    told = settle(watcher, tree)
    assert Change(Kind.CREATED, os.fsencode(tree / "late"), None, True) in told
    assert Change(Kind.CREATED, os.fsencode(tree / "good" / "file")) in told
    assert watcher.counters.unreadable >= 2
    if watcher.name != "kqueue":  # which watches names
        assert watcher.counters.watches == watches
    damaged.clear()
    for name in "late", "bad":
        (tree / name).chmod(0o700)
    told = settle(watcher, tree)
    for name in "late", "bad":
        assert Change(Kind.CREATED, os.fsencode(tree / name / "below"), None, True) in told
    (tree / "bad" / "below" / "file").touch()
    told = settle(watcher, tree)
    assert Change(Kind.CREATED, os.fsencode(tree / "bad" / "below" / "file")) in told


# Falling behind.


def test_an_overflow_loses_nothing_in_the_end(watcher: Watcher, tree: Path) -> None:
    if Capability.OVERFLOW not in watcher.capabilities:
        pytest.skip(f"{watcher.name} cannot fall behind")
    (tree / "kept").write_bytes(b"1")
    (tree / "away").mkdir()
    (tree / "away" / "file").touch()
    (tree / "moved").touch()
    watcher.add(tree, recursive=True)
    copy = Copy(tree)
    overflow(tree)
    # Nobody is told of what follows.
    (tree / "kept").write_bytes(b"2")
    shutil.rmtree(tree / "away")
    (tree / "new" / "below").mkdir(parents=True)
    (tree / "new" / "below" / "file").write_bytes(b"3")
    (tree / "moved").rename(tree / "new" / "moved")
    told = settle(watcher, tree)
    assert [c for c in told if c.kind is Kind.OVERFLOW] == [
        Change(Kind.OVERFLOW, os.fsencode(tree), None, True)
    ]
    assert watcher.counters.overflows >= 1
    copy.apply(told)
    assert copy.names == names(tree)
    assert copy.stale() == set()
    copy.take()
    (tree / "new" / "below" / "more").touch()
    (tree / "kept").write_bytes(b"4")
    copy.apply(settle(watcher, tree))
    assert copy.names == names(tree)
    assert copy.stale() == set()


def churn_without_descriptors(watcher: Watcher, copy: Copy) -> None:
    """Read for a while; what cannot be looked at is raised, now and then and not all the time."""
    raised, end = 0, time.monotonic() + PATIENCE
    with no_descriptors():
        while time.monotonic() < end:
            if readable(watcher, 0.05):
                try:
                    copy.apply(watcher.read())
                except OSError as error:
                    assert "ulimit -n" in str(error)  # noqa: PT017
                    end = end if raised else time.monotonic() + 0.3
                    raised += 1
    assert 1 <= raised <= 30


def test_without_descriptors_nothing_is_lost_in_the_end(watcher: Watcher, tree: Path) -> None:
    watcher.add(tree, recursive=True)
    copy = Copy(tree)
    (tree / "new" / "below").mkdir(parents=True)
    (tree / "new" / "below" / "file").write_bytes(b"1")
    churn_without_descriptors(watcher, copy)
    read_until_there(watcher, copy, tree)
    (tree / "new" / "below" / "file").write_bytes(b"22")
    (tree / "new" / "more").touch()
    copy.take()
    copy.apply(settle(watcher, tree))
    assert copy.names == names(tree)


def test_an_overflow_without_descriptors_loses_nothing_in_the_end(
    watcher: Watcher, tree: Path
) -> None:
    if Capability.OVERFLOW not in watcher.capabilities:
        pytest.skip(f"{watcher.name} cannot fall behind")
    watcher.add(tree, recursive=True)
    copy = Copy(tree)
    overflow(tree)
    (tree / "new").mkdir()
    churn_without_descriptors(watcher, copy)
    read_until_there(watcher, copy, tree)


def read_until_there(watcher: Watcher, copy: Copy, tree: Path) -> None:
    """Read until what was told is what is there, without anything that happens."""
    deadline = time.monotonic() + PATIENCE
    while copy.names != names(tree):
        left = deadline - time.monotonic()
        assert left > 0, f"{copy.names} and not {names(tree)}"
        if readable(watcher, left):
            copy.apply(watcher.read())
    assert copy.stale() == set()
