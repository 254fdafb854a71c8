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
from pathlib import Path
from typing import Final

FACILITIES: Final = ("inotify", "fanotify")


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
