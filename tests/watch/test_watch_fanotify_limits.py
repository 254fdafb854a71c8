"""What the fanotify watcher does when there are no more marks."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from pollers import fanotify

try:
    fanotify.Fanotify().close()
except OSError as error:
    pytest.skip(f"no fanotify here: {error}", allow_module_level=True)

#: In a user namespace of its own a process has limits of its own.
FEW = """
import ctypes, os, select, sys, time
from pollers.watch.fanotify import FanotifyWatcher
CLONE_NEWUSER = 0x10000000
if ctypes.CDLL(None).unshare(CLONE_NEWUSER):
    sys.exit("unshare")
def limit(number):
    try:
        with open("/proc/sys/user/max_fanotify_marks", "w") as file:
            file.write(str(number))
    except OSError:
        sys.exit("unshare")
limit(4)
os.makedirs("many/a/b/c/d/e")
os.makedirs("few/a")
with FanotifyWatcher() as watcher:
    try:
        watcher.add("many", recursive=True)
    except OSError as error:
        print(error.errno, error)
    print(watcher.counters.watches)
    watcher.add("few", recursive=True)
    os.makedirs("few/a/b/c/d")
    try:
        watcher.read()
    except OSError as error:
        print(error.errno, error)
    print(select.select([watcher], [], [], 5)[0] == [watcher])
    print([os.fsdecode(change.path) for change in watcher.read()])
    open("few/a/b/c/d/unseen", "w").close()
    limit(100)
    changes, deadline = [], time.monotonic() + 15
    while not changes and time.monotonic() < deadline:
        if select.select([watcher], [], [], 1)[0]:
            changes += watcher.read()
    print([os.fsdecode(change.path) for change in changes], watcher.counters.watches)
"""


def test_at_the_limit_it_says_what_to_raise_and_goes_on(tmp_path: Path) -> None:
    """What it could not mark is tried again by itself."""
    done = subprocess.run(
        [sys.executable, "-c", FEW], cwd=tmp_path, capture_output=True, text=True, timeout=30
    )
    if done.stderr == "unshare\n":
        pytest.skip("this system lets no process make a user namespace with limits of its own")
    refused, left, again, fd, told, later = done.stdout.splitlines()
    assert refused.startswith(f"{errno.ENOSPC} ")
    assert "sysctl -w fs.fanotify.max_user_marks=" in refused
    assert left == "0"
    assert again.startswith(f"{errno.ENOSPC} ")
    assert fd == "True"
    assert told.startswith("['few/a/b'")
    assert later == "['few/a/b/c/d/unseen'] 5"
