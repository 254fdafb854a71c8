"""Which pollers there are, which of them work here, and why the others do not.

One ordered table; adapters are imported when they are asked for, so that `import pollers` works
where numpy is missing or where gevent's monkey patching took `select.epoll` away.  A probe does
the operation: it makes the poller, has it report a socket as readable, and closes it again.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from pollers.base import POLLIN, READABLE, Capability, Poller

#: How long a probe waits for its own byte to show (seconds).
PROBE_TIMEOUT: Final = 2.0


class UnknownPoller(ValueError):
    """No adapter has this name."""


class Unavailable(OSError):
    """The adapter cannot run here; `str()` is one line that says what, why and what to do."""


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


def _epoll() -> Poller:
    _require_native("epoll")
    if sys.platform == "linux":  # so that the type checker leaves it out elsewhere
        from pollers.epoll import EpollPoller

        return EpollPoller()
    else:  # noqa: RET505
        raise Unavailable("epoll cannot be used here: it is Linux's; use kqueue")


def _kqueue() -> Poller:
    from pollers.kqueue import KqueuePoller

    return KqueuePoller()


def _aio() -> Poller:
    from pollers.aio.poller import AioPoller

    return AioPoller()


def _poll() -> Poller:
    _require_native("poll")
    from pollers.poll import PollPoller

    return PollPoller()


def _select() -> Poller:
    _require_native("select")
    from pollers.select import SelectPoller

    return SelectPoller()


@dataclass(frozen=True)
class Entry:
    """One adapter: how to make it, and the platforms (prefixes of sys.platform) that have it."""

    factory: Callable[[], Poller]
    platforms: tuple[str, ...]
    note: str


#: In the order of preference.
ADAPTERS: Final[dict[str, Entry]] = {
    "epoll": Entry(_epoll, ("linux",), "Linux's own; one call returns only what is ready"),
    "kqueue": Entry(
        _kqueue, ("freebsd", "darwin"), "BSD's own; on Linux only by libkqueue, which uses epoll"
    ),
    "aio": Entry(_aio, ("linux",), "IOCB_CMD_POLL (Linux 4.18): one-shot polls, armed in batches"),
    "poll": Entry(_poll, ("linux", "freebsd", "darwin"), "walks all fds at each call"),
    "select": Entry(
        _select, ("linux", "freebsd", "darwin"), "walks all fds at each call; fds below 1024 only"
    ),
}

#: What a probe has seen working in this process.
_working: Final[set[Entry]] = set()

#: What to do about an errno that a factory or a probe met.
REMEDIES: Final = {
    errno.EMFILE: "close files, or raise the limit: ulimit -n 20000",
    errno.ENFILE: "raise the system's limit: sysctl fs.file-max (FreeBSD: kern.maxfiles)",
    errno.ENOMEM: "free some memory",
    errno.ENOSYS: "use a kernel that has it, or a container whose seccomp filter allows it",
    errno.EPERM: "use a container whose seccomp filter allows it",
    errno.EACCES: "use a container whose security policy allows it",
}


def names() -> list[str]:
    """Every adapter's name, whether it works here or not, the best first."""
    return list(ADAPTERS)


def expected_names(platform: str = sys.platform) -> list[str]:
    """The adapters that a platform (a value of sys.platform, this one's) should have."""
    return [name for name, entry in ADAPTERS.items() if platform.startswith(entry.platforms)]


def probe(name: str) -> Availability:
    """Try adapter `name` out.  Raises UnknownPoller."""
    entry = _entry(name)
    expected = name in expected_names()
    try:
        poller = _make(name, entry)
        try:
            with poller:
                _try_out(poller)
        except OSError as error:
            raise Unavailable(explain(name, error)) from error
    except Unavailable as error:
        return Availability(name, False, str(error), False, Capability.NONE, expected, entry.note)
    _working.add(entry)
    return Availability(name, True, "", poller.emulated, poller.capabilities, expected, entry.note)


def probe_all() -> list[Availability]:
    """Try every adapter out, the best first."""
    return [probe(name) for name in ADAPTERS]


def create(name: str) -> Poller:
    """Make a poller; the first of its kind only after a probe has shown that it works.

    Raises UnknownPoller, or Unavailable with the reason.
    """
    entry = _entry(name)
    if entry not in _working:
        found = probe(name)
        if not found.available:
            raise Unavailable(found.reason)
    return _make(name, entry)


def _entry(name: str) -> Entry:
    try:
        return ADAPTERS[name]
    except KeyError:
        known = ", ".join(ADAPTERS)
        raise UnknownPoller(f"no poller is called {name!r}; there are: {known}") from None


def _make(name: str, entry: Entry) -> Poller:
    with explaining(name):
        return entry.factory()


@contextlib.contextmanager
def explaining(name: str) -> Iterator[None]:
    """Making adapter `name`, of whatever kind: what goes wrong is raised as Unavailable."""
    try:
        yield
    except Unavailable:
        raise
    except ModuleNotFoundError as error:
        raise Unavailable(
            f"{name} cannot be used here: it needs the module {error.name}, which is not "
            f"installed; pip install {error.name}"
        ) from error
    except ImportError as error:
        why = " ".join(str(error).split())
        raise Unavailable(
            f"{name} cannot be used here: a module of it does not load ({why}); reinstall it"
        ) from error
    except OSError as error:
        raise Unavailable(explain(name, error)) from error


def explain(name: str, error: OSError) -> str:
    """One line: what failed, why, and what to do where the errno tells."""
    why = error.strerror or str(error)
    # An adapter that knows better has put what to do after a semicolon.
    remedy = None if ";" in why else REMEDIES.get(error.errno or 0)
    what = f"{name} cannot be used here: {why}"
    return f"{what}; {remedy}" if remedy else what


def _require_native(facility: str) -> None:
    """Raise Unavailable unless the select module has the kernel's own `facility`."""
    found = getattr(select, facility, None)
    if found is None:
        if "gevent" in sys.modules:
            raise Unavailable(
                f"{facility} cannot be used here: gevent's monkey patching removed it from the "
                "select module; use it in a process of its own"
            )
        raise Unavailable(
            f"{facility} cannot be used here: this system's Python has no select.{facility}; "
            "use another poller"
        )
    if getattr(found, "__module__", None) != "select":
        raise Unavailable(
            f"{facility} cannot be used here: select.{facility} was replaced by "
            f"{found.__module__}; use it in a process of its own"
        )


def _try_out(poller: Poller) -> None:
    """Raise OSError unless `poller` sees a byte that was sent, and nothing before it."""
    reader, writer = socket.socketpair()
    with reader, writer:
        fd = reader.fileno()
        poller.register(fd, POLLIN)
        early = poller.poll(0)
        poller.unregister(fd)  # while nothing has happened: aio has a poll to cancel then
        poller.register(fd, POLLIN)
        writer.send(b"x")
        late = poller.poll(PROBE_TIMEOUT)
        poller.unregister(fd)
    if early:
        raise OSError(0, f"it reported {early} for a socket with nothing to read")
    if not any(number == fd and bits & READABLE for number, bits in late):
        raise OSError(0, f"it did not report a readable socket within {PROBE_TIMEOUT:g} s")
