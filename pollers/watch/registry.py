"""Which watchers there are, which of them work here, and why the others do not.

One ordered table, as in pollers.registry; adapters are imported when they are asked for.  A probe
does the operation: it watches a new directory, makes a file in it, and waits to be told.
"""

from __future__ import annotations

import importlib
import os
import select
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Final, cast

from pollers.registry import Unavailable, explain, explaining
from pollers.watch.base import Capability, Kind, Watcher

#: How long a probe waits to be told of its own file (seconds).
PROBE_TIMEOUT: Final = 2.0
#: How often a watcher that polls looks (seconds), unless told otherwise; and for a probe.
PERIOD: Final = 1.0
PROBE_PERIOD: Final = 0.02


class UnknownWatcher(ValueError):
    """No adapter has this name."""


@dataclass(frozen=True)
class Entry:
    """One adapter: where its class is, and the platforms (prefixes of sys.platform) that have it.

    `polls`: the class takes `period`, the seconds between two looks; `pairs`: it takes `wait`, for
    which a rename's first half waits for the second.
    """

    module: str
    watcher: str
    platforms: tuple[str, ...]
    note: str
    polls: bool = False
    pairs: bool = False


@dataclass(frozen=True)
class Availability:
    """What the probe of one adapter found."""

    name: str
    available: bool
    #: Why not, and what to do about it; "" where available.
    reason: str
    #: True where a library imitates the facility over another one.
    emulated: bool
    capabilities: Capability
    #: Whether this platform should have it: its absence is then a fault.
    expected: bool
    #: What to know before using it.
    note: str

    def as_dict(self) -> dict[str, object]:
        """For JSON: capabilities as a list of their names in lower case."""
        names = [c.name.lower() for c in Capability if c & self.capabilities and c.name]
        return {**vars(self), "capabilities": names}


#: In the order of preference.
ADAPTERS: Final[dict[str, Entry]] = {
    "inotify": Entry(
        "pollers.watch.inotify",
        "InotifyWatcher",
        ("linux",),
        "one watch a directory; our own",
        pairs=True,
    ),
    "fanotify": Entry(
        "pollers.watch.fanotify",
        "FanotifyWatcher",
        (),  # what it needs, a kernel and rights, differs from machine to machine
        "Linux 5.9, for any user 5.13; one mark a directory, order not kept",
    ),
    "pyinotify": Entry(
        "pollers.watch.pyinotify",
        "PyinotifyWatcher",
        ("linux",),
        "the package of that name, over inotify",
        pairs=True,
    ),
    "kqueue": Entry(
        "pollers.watch.kqueue",
        "KqueueWatcher",
        ("freebsd", "darwin"),
        "one open file a name, and directories listed again",
    ),
    "stat": Entry(
        "pollers.watch.stat",
        "StatWatcher",
        ("linux", "freebsd", "darwin"),
        "looks at everything once a period; works on any file system",
        polls=True,
    ),
}

#: What a probe has seen working in this process.
_working: Final[set[str]] = set()


def names() -> list[str]:
    """Every adapter's name, whether it works here or not, the best first."""
    return list(ADAPTERS)


def expected_names(platform: str = sys.platform) -> list[str]:
    """The adapters that a platform (a value of sys.platform, this one's) should have."""
    return [name for name, entry in ADAPTERS.items() if platform.startswith(entry.platforms)]


def probe(name: str) -> Availability:
    """Try adapter `name` out.  Raises UnknownWatcher."""
    entry = _entry(name)
    expected = name in expected_names()
    try:
        try:
            watcher = _make(name, entry, PROBE_PERIOD)
            with watcher:
                _try_out(watcher)
        except OSError as error:
            if isinstance(error, Unavailable):
                raise
            raise Unavailable(explain(name, error)) from error
    except Unavailable as error:
        return Availability(name, False, str(error), False, Capability.NONE, expected, entry.note)
    _working.add(name)
    return Availability(
        name, True, "", watcher.emulated, watcher.capabilities, expected, entry.note
    )


def probe_all() -> list[Availability]:
    """Try every adapter out, the best first."""
    return [probe(name) for name in ADAPTERS]


def create(name: str = "auto", *, period: float = PERIOD, pairing: float | None = None) -> Watcher:
    """Make a watcher; the first of its kind only after a probe has shown that it works.

    "auto" is the first in the table that works here; `watcher.name` says which.  `period`: the
    seconds between two looks of one that polls.  `pairing`: the most seconds for which anything is
    held back, so that a rename's halves are told as one; 0 tells each at once that is read alone.
    Raises UnknownWatcher, or Unavailable with the reason.
    """
    if name == "auto":
        reasons = []
        for candidate in ADAPTERS:
            try:
                return create(candidate, period=period, pairing=pairing)
            except Unavailable as error:
                reasons.append(str(error))
        raise Unavailable("no watcher works here: " + " | ".join(reasons))
    entry = _entry(name)
    if name not in _working:
        found = probe(name)
        if not found.available:
            raise Unavailable(found.reason)
    return _make(name, entry, period, pairing)


def _entry(name: str) -> Entry:
    try:
        return ADAPTERS[name]
    except KeyError:
        known = ", ".join(ADAPTERS)
        raise UnknownWatcher(f"no watcher is called {name!r}; there are: {known}") from None


def _make(name: str, entry: Entry, period: float, pairing: float | None = None) -> Watcher:
    options = {"period": period} if entry.polls else {}
    if entry.pairs and pairing is not None:
        options["wait"] = pairing
    with explaining(name):
        watcher = getattr(importlib.import_module(entry.module), entry.watcher)
        return cast(Watcher, watcher(**options))


def _try_out(watcher: Watcher) -> None:
    """Raise OSError unless `watcher` tells of a file that is made, and of nothing before it."""
    with tempfile.TemporaryDirectory(prefix="pollers-watch-") as directory:
        watcher.add(directory)
        early = watcher.read()
        if early:
            raise OSError(0, f"it told {early} of a directory in which nothing happened")
        path = os.fsencode(os.path.join(directory, "file"))
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        deadline = time.monotonic() + PROBE_TIMEOUT
        poll = select.poll()
        poll.register(watcher.fileno(), select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            poll.poll(left * 1000)
            told = watcher.read()
            if any(change.kind is Kind.CREATED and change.path == path for change in told):
                watcher.remove(directory)
                return
    raise OSError(0, f"it did not tell of a new file within {PROBE_TIMEOUT:g} s")
