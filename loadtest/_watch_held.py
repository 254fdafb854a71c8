"""What the kernel says that a watcher holds, whatever it says itself.

Facts
-----
*   /proc/PID/fd names inotify instances "anon_inode:inotify", fanotify groups
    "anon_inode:[fanotify]".  libkqueue's emulation of EVFILT_VNODE holds an inotify instance for
    each watched name.
*   /proc/PID/fdinfo/FD has a line "inotify wd:..." for each watch and "fanotify ino:...",
    "fanotify mnt_id:..." or "fanotify sdev:..." for each mark (proc_pid_fdinfo(5)).
*   Without /proc nothing is known, and an empty dictionary is returned.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

FACILITIES: Final = ("inotify", "fanotify")
#: What each holds on Linux, "" for none of them; kqueue is emulated there, by more than one way.
HOLDS: Final = {
    "inotify": "inotify",
    "pyinotify": "inotify",
    "fanotify": "fanotify",
    "stat": "",
    "watchdog": "inotify",
    "watchfiles": "inotify",
}


def held(pid: int) -> dict[str, int]:
    """{"inotify", "fanotify": how many instances, "watches": watches and marks of them all}."""
    place = Path(f"/proc/{pid}")
    found = dict.fromkeys((*FACILITIES, "watches"), 0)
    try:
        for name in os.listdir(place / "fd"):
            try:
                target = os.readlink(place / "fd" / name)
                facility = target.removeprefix("anon_inode:").strip("[]")
                if target.startswith("anon_inode:") and facility in FACILITIES:
                    found[facility] += 1
                    lines = (place / "fdinfo" / name).read_text().splitlines()
                    # A group's own line is "fanotify flags:...".
                    found["watches"] += sum(
                        line.startswith((f"{facility} ", facility + "\t"))
                        and "flags:" not in line.split()[1]
                        for line in lines
                    )
            except FileNotFoundError:  # closed since it was listed
                continue
    except OSError:
        return {}
    return found


def other_than(facility: str, holds: Mapping[str, int]) -> str:
    """How what a watcher holds differs from its name; "" where it does not, or nobody knows."""
    if not holds or facility not in HOLDS:
        return ""
    found = [name for name in FACILITIES if holds[name]]
    if found == [name for name in FACILITIES if name == HOLDS[facility]]:
        return ""
    said = " and ".join(found) or "neither inotify nor fanotify"
    return f"{facility} runs over something else than it should: it holds {said}"
