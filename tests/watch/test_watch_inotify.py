"""What is inotify's alone: its limits, mounts, and watches that the kernel ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from adapters import available

available("inotify")

#: In namespaces of its own a process has limits and mounts of its own.
PRELUDE = """
import ctypes, os, select, sys, time
from pollers.watch.inotify import InotifyWatcher
def unshare(flags):
    if ctypes.CDLL(None).unshare(flags):
        sys.exit("unshare")
def mount(*arguments):
    if ctypes.CDLL(None, use_errno=True).mount(*arguments):
        sys.exit("unshare")
def limit(name, number):
    try:
        with open(f"/proc/sys/user/max_inotify_{name}", "w") as file:
            file.write(str(number))
    except OSError:
        sys.exit("unshare")
def told(watcher):
    deadline = time.monotonic() + 0.3
    changes = []
    while time.monotonic() < deadline:
        if select.select([watcher], [], [], 0.05)[0]:
            changes += watcher.read()
    return [(c.kind.value, os.fsdecode(c.path), c.directory) for c in changes]
NEWUSER, NEWNS, BIND, REC_PRIVATE, DETACH = 0x10000000, 0x20000, 4096, 0x44000, 2
def own_mounts():
    unshare(NEWNS)
    mount(None, b"/", None, ctypes.c_ulong(REC_PRIVATE), None)
"""


def run(code: str, directory: Path) -> list[str]:
    """What a process of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.stderr == "unshare\n":
        pytest.skip("this system lets no process have limits or mounts of its own")
    assert done.stderr == "", done.stderr
    return done.stdout.splitlines()


def test_no_instance_says_what_to_raise(tmp_path: Path) -> None:
    [line] = run(
        """
unshare(NEWUSER)
limit("instances", 1)
kept = InotifyWatcher()
before = len(os.listdir("/proc/self/fd"))
try:
    InotifyWatcher()
except OSError as error:
    print(len(os.listdir("/proc/self/fd")) - before, error)
""",
        tmp_path,
    )
    assert line.startswith("0 [Errno 24] ")
    assert "sysctl -w fs.inotify.max_user_instances=" in line


def test_a_tree_that_is_too_large_is_refused_whole(tmp_path: Path) -> None:
    """And what was watched before still is."""
    (tmp_path / "few" / "below").mkdir(parents=True)
    for name in "abcd":
        (tmp_path / "many" / name).mkdir(parents=True)
    refused, watches, told = run(
        """
unshare(NEWUSER)
limit("watches", 5)
watcher = InotifyWatcher()
watcher.add("few", recursive=True)
try:
    watcher.add("many", recursive=True)
except OSError as error:
    print(error)
print(watcher.counters.watches)
open("few/below/file", "w").close()
open("many/file", "w").close()
print(sorted(set(path for _, path, _ in told(watcher))))
""",
        tmp_path,
    )
    assert refused.startswith("[Errno 28] ")
    assert "sysctl -w fs.inotify.max_user_watches=" in refused
    assert watches == "2"
    assert told == "['few/below/file']"


def test_a_new_directory_beyond_the_limit_is_said_by_read(tmp_path: Path) -> None:
    """Once; what was told before it is not lost, and it is watched when there is room."""
    refused, changes, later = run(
        """
unshare(NEWUSER)
limit("watches", 2)
watcher = InotifyWatcher()
watcher.add(".", recursive=True)
os.mkdir("a")
os.mkdir("b")
try:
    watcher.read()
except OSError as error:
    print(error)
print(told(watcher))
os.rmdir("a")
os.rename("b", "c")
open("c/file", "w").close()
print(("created", "./c/file", False) in told(watcher))
""",
        tmp_path,
    )
    assert "sysctl -w fs.inotify.max_user_watches=" in refused
    assert changes == "[('created', './a', True), ('created', './b', True)]"
    assert later == "True"


#: A directory that there was no watch for, in which a file is made unseen.
SHORT = """
from pollers.watch import again
unshare(NEWUSER)
limit("watches", 3)
watcher = InotifyWatcher()
watcher.add("tree", recursive=True)
watcher.add("other", recursive=True)
os.mkdir("tree/a")
os.mkdir("tree/b")
os.mkdir("tree/b/below")
"""


def test_a_directory_beyond_the_limit_is_tried_again_by_itself(tmp_path: Path) -> None:
    """It is said once, however often it is refused, and one is tried for all."""
    for name in "tree", "other":
        (tmp_path / name).mkdir()
    said, tries, watched, last = run(
        SHORT
        + """
again.AGAIN = 0.01
raised, tried = [], []
mark = watcher._mark
watcher._mark = lambda fd, root: tried.append(fd) or mark(fd, root)
def read_until(enough):
    changes, deadline = [], time.monotonic() + 15
    while not enough(changes):
        if time.monotonic() > deadline:
            sys.exit(f"never: {changes}")
        if select.select([watcher], [], [], 1)[0]:
            try:
                changes += watcher.read()
            except OSError as error:
                raised.append(error.errno)
                tried.clear()
    return changes
limit("watches", 2)
os.mkdir("tree/c")
read_until(lambda _: len(tried) >= 10)
print(raised)
print(len(tried))
open("tree/c/unseen", "w").close()
limit("watches", 100)
told_now = [c.path for c in read_until(lambda told: any(b"unseen" in c.path for c in told))]
print(len(raised), watcher.counters.watches, watcher._again == {} and not watcher._missed)
open("tree/b/below/file", "w").close()
read_until(lambda told: b"tree/b/below/file" in [c.path for c in told])
print("told")
""",
        tmp_path,
    )
    assert said == "[28]"
    assert tries == "10"
    assert watched == "1 6 True"
    assert last == "told"


def test_a_watch_that_was_given_back_is_used_at_once(tmp_path: Path) -> None:
    for name in "tree", "other":
        (tmp_path / name).mkdir()
    [line] = run(
        SHORT
        + """
again.AGAIN = 1000
def read():
    try:
        return watcher.read()
    except OSError as error:
        return [error.errno]
print(read(), end="; ")
print(sorted(c.path for c in read()), end="; ")
open("tree/b/file", "w").close()
print(read(), end="; ")
watcher.remove("other")
os.rmdir("tree/a")
print(sorted(c.path for c in read()))
""",
        tmp_path,
    )
    assert line == (
        "[28]; [b'tree/a', b'tree/b']; []; [b'tree/a', b'tree/b/below', b'tree/b/file']"
    )


def test_a_file_system_that_is_unmounted_is_gone(tmp_path: Path) -> None:
    """That of what was added; below it, what the mount had hidden is there again."""
    (tmp_path / "tree" / "below").mkdir(parents=True)
    (tmp_path / "tree" / "below" / "hidden").touch()
    (tmp_path / "root").mkdir()
    inner, outer, still = run(
        """
own_mounts()
for at in b"root", b"tree/below":
    mount(b"tmpfs", at, b"tmpfs", ctypes.c_ulong(0), None)
open("tree/below/shown", "w").close()
watcher = InotifyWatcher()
watcher.add("root", recursive=True)
watcher.add("tree", recursive=True)
libc = ctypes.CDLL(None)
libc.umount2(b"tree/below", DETACH)
print(told(watcher))
libc.umount2(b"root", DETACH)
print(told(watcher))
open("tree/below/new", "w").close()
print(("created", "tree/below/new", False) in told(watcher))
""",
        tmp_path,
    )
    assert inner == (
        "[('deleted', 'tree/below/shown', False), ('created', 'tree/below/hidden', False)]"
    )
    assert outer == "[('deleted', 'root', True)]"
    assert still == "True"


def test_a_bind_mount_is_another_path_of_the_same(tmp_path: Path) -> None:
    for name in "tree/one", "tree/two":
        (tmp_path / name).mkdir(parents=True)
    [line] = run(
        """
own_mounts()
mount(b"tree/one", b"tree/two", None, ctypes.c_ulong(BIND), None)
watcher = InotifyWatcher()
watcher.add("tree", recursive=True)
os.mkdir("tree/one/new")
print(sorted(path for kind, path, _ in told(watcher) if kind == "created"))
""",
        tmp_path,
    )
    assert line == "['tree/one/new', 'tree/two/new']"


def test_a_directory_that_was_unreadable_is_watched_once_it_is_not(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(0o000)
    (tmp_path / "shut" / "file").touch() if os.geteuid() == 0 else None
    tmp_path.chmod(0o755)
    if os.geteuid() == 0:
        os.chown(tmp_path / "shut", 65534, 65534)
    lines = run(
        """
if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)
watcher = InotifyWatcher()
watcher.add(".", recursive=True)
print(watcher.counters.unreadable)
os.chmod("shut", 0o700)
open("shut/new", "w").close()
print(("created", "./shut/new", False) in told(watcher))
""",
        tmp_path,
    )
    assert lines == ["1", "True"]
