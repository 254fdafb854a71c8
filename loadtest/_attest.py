"""What the kernel says a server holds, set against what the server says it uses.

Facts
-----
*   /proc/PID/fd names every open file.  Facilities have no path and show as
    anon_inode:[eventpoll], anon_inode:[io_uring], anon_inode:inotify (proc_pid_fd(5)).
*   A Linux AIO context is no fd.  It shows in /proc/PID/maps as its ring, a mapping of the file
    "/[aio]", one per io_setup(2).  An io_uring can live as a mapping alone too, once its fd is
    registered and closed.
*   libuv 1.52 (uvloop 0.23) opens an io_uring for batches of epoll_ctl(2) on kernels that have
    one.  UV_USE_IO_URING=0 or =1 decides only about a second ring, for file operations, which an
    echo server never needs: both settings hold "epoll + io_uring".  A table that calls such a
    server "epoll" is wrong, and so is one that calls =0 "without io_uring".
*   poll(2) and select(2) leave no trace, so they are attested by absence: whoever claims them and
    holds an eventpoll is refused.
*   A file server with the backend `aio`, and an echo server with `batch`, hold a ring whatever
    their poller is, and each file server may watch its root by inotify.  nginx makes an AIO ring
    for its event loop where it was built with file AIO, used or not.
*   Readable by the same user, or by one with CAP_SYS_PTRACE.  Without /proc nothing is said.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

#: What a server may hold, in the order in which it is named.
FACILITIES: Final = ("eventpoll", "io_uring", "aio_rings", "inotify")

_WORDS: Final = {"eventpoll": "epoll", "aio_rings": "aio"}

#: Which facility each claimed poller rests on; "" is one that leaves no trace.
_NEEDS: Final = {
    "epoll": "eventpoll",
    "aio": "aio_rings",
    "poll": "",
    "select": "",
    "libuv": "eventpoll",
    "uvloop": "eventpoll",
}
#: Which facility a backend needs, under any poller.
_BACKENDS: Final = {"aio": "aio_rings", "batch": "aio_rings"}
#: What may be held besides, because the claim includes it, or the server always has it.
_MAY: Final = {"libuv": {"io_uring"}, "uvloop": {"io_uring"}, "nginx": {"aio_rings"}}


def attest(pids: Iterable[int], ready: Mapping[str, Any]) -> dict[str, Any]:
    """Look at each process and judge the claim of its ready line.

    Returns {"eventpoll", "io_uring", "aio_rings", "inotify", "sockets": how many the processes
    hold together, "holds": them in words, "agrees": True, False, or None where nothing could be
    looked at, "why": one line where it is not plainly True}.  Raises nothing.
    """
    totals: dict[str, Any] = dict.fromkeys((*FACILITIES, "sockets"), 0)
    complaints: list[str] = []
    unseen: list[str] = []
    for pid in pids:
        try:
            held = look(pid)
        except OSError as error:
            unseen.append(f"process {pid} cannot be looked at: {error.strerror}")
            continue
        for facility, count in held.items():
            totals[facility] += count
        if complaint := judge(held, ready):
            complaints.append(f"process {pid} {complaint}")
    totals["holds"] = words(totals)
    claim = _claim(ready)
    if complaints:
        agrees: bool | None = False
    elif unseen or claim is None:
        agrees = None
        if not unseen:
            unseen = [f"no rule for a claim of {ready.get('poller')!r}"]
    else:
        agrees = True
    totals["agrees"] = agrees
    totals["why"] = "; ".join(complaints or unseen)
    return totals


def look(pid: int) -> dict[str, int]:
    """Count what one process holds.  Raises OSError where /proc is absent or refuses."""
    held = dict.fromkeys((*FACILITIES, "sockets"), 0)
    directory = f"/proc/{pid}/fd"
    for name in os.listdir(directory):
        try:
            target = os.readlink(f"{directory}/{name}")
        except FileNotFoundError:  # closed since it was listed
            continue
        if target.startswith("socket:"):
            held["sockets"] += 1
        elif target.startswith("anon_inode:"):
            facility = target.removeprefix("anon_inode:").strip("[]")
            if facility in held:
                held[facility] += 1
    rings = set()
    uring_mapped = False
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            if "/[aio]" in line:
                rings.add(line.split()[4])  # the inode: one per ring
            elif "anon_inode:[io_uring]" in line:
                uring_mapped = True
    held["aio_rings"] = len(rings)
    if uring_mapped:
        held["io_uring"] = max(held["io_uring"], 1)
    return held


def judge(held: Mapping[str, int], ready: Mapping[str, Any]) -> str:
    """What contradicts the ready line's claim, as the end of a sentence; "" where nothing does."""
    claim = _claim(ready)
    if claim is None:
        return ""
    needs = {need for need in (_NEEDS[claim], _BACKENDS.get(str(ready.get("backend")))) if need}
    for need in sorted(needs):
        if not held[need]:
            which = claim if need == _NEEDS[claim] else f"the backend {ready['backend']}"
            return f"claims {which} and holds no {need.removesuffix('s')}"
    allowed = _MAY.get(claim, set()) | _MAY.get(str(ready.get("server")), set()) | needs
    allowed |= {"inotify"}
    surplus = [name for name in FACILITIES if held[name] and name not in allowed]
    if surplus:
        return f"claims {claim} and holds {words({name: held[name] for name in surplus})}"
    return ""


def words(held: Mapping[str, Any]) -> str:
    """`held` as a person says it: "epoll + io_uring"; "" where none of the facilities is held."""
    return " + ".join(_WORDS.get(name, name) for name in FACILITIES if held.get(name))


def _claim(ready: Mapping[str, Any]) -> str | None:
    """Which row of _NEEDS the ready line claims; None where there is none."""
    loop = str(ready.get("loop") or "")
    if loop == "uvloop":
        return "libuv"
    poller = str(ready.get("poller") or "").lower().removesuffix("selector")
    if poller == "kqueue" and ready.get("emulated"):
        return "epoll"  # libkqueue's Linux platform is built on it
    if loop == "trio" and poller not in ("epoll", "kqueue"):
        return "epoll"  # where there is a /proc to look at, trio has no other
    return poller if poller in _NEEDS else None
