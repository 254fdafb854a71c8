"""What a process holds: open fds, threads, child processes, each with a name for a failure."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

#: How long threads and processes that were told to end may take (seconds).
GRACE = 5.0

#: trio keeps idle worker threads for ten seconds, to use them again; they hold nothing.
CACHED_THREADS = ("Trio thread", "trio.")


def open_fds() -> dict[int, str]:
    """Every open fd with what it refers to, as far as the system tells."""
    directory = Path("/proc/self/fd")
    if not directory.exists():
        directory = Path("/dev/fd")
    found = {}
    for name in os.listdir(directory):
        try:
            found[int(name)] = os.readlink(directory / name)
        except FileNotFoundError:  # the listing's own fd
            continue
        except OSError:  # no links in /dev/fd
            found[int(name)] = "open file"
    return found


def running_threads() -> dict[int, str]:
    return {
        thread.ident: thread.name
        for thread in threading.enumerate()
        if thread.ident is not None and not thread.name.startswith(CACHED_THREADS)
    }


def child_processes() -> dict[int, str]:
    """Children of this process, zombies included: a child that is not waited for is left."""
    found = {}
    for child in psutil.Process().children():
        try:
            found[child.pid] = f"{child.pid} {' '.join(child.cmdline()) or child.name()}"
        except psutil.NoSuchProcess:
            continue
        except psutil.ZombieProcess:
            found[child.pid] = f"{child.pid} (zombie)"
    return found


def until_none_left(look: Callable[[], dict[int, str]], before: dict[int, str]) -> list[str]:
    """What `look` finds beyond `before`, once that is nothing or the time is up."""
    deadline = time.monotonic() + GRACE
    while True:
        left = [name for key, name in look().items() if key not in before]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.005)
