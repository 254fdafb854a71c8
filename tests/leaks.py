"""What a process holds: open fds, threads, child processes, each with a name for a failure."""

from __future__ import annotations

import errno
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
    """Every open fd with what it refers to, as far as the system tells.

    Raises RuntimeError where the system does not show them all.
    """
    directory = Path("/proc/self/fd")
    if not directory.exists():
        directory = Path("/dev/fd")
    own = os.open(directory, os.O_RDONLY)
    try:
        names = {int(name) for name in os.listdir(own)}
    finally:
        os.close(own)
    if own not in names:  # FreeBSD's devfs has 0, 1 and 2 alone
        raise RuntimeError(
            f"{directory} does not show every open file, so that a leak could not be seen; "
            "as root: mount -t fdescfs -o linrdlnk fdescfs /dev/fd"
        )
    found = {}
    for fd in names:
        try:
            found[fd] = os.readlink(directory / str(fd))
        except OSError as error:  # closed: the listing's own; or no links in /dev/fd
            if error.errno not in (errno.ENOENT, errno.EBADF):
                found[fd] = "open file"
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
