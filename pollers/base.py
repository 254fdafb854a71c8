"""The Poller protocol: its contract, stated once, and what an adapter needs to keep it.

Contract
--------
1.  *Level-triggered.*  `poll()` returns an fd for as long as its condition holds.  Edge-triggered
    and one-shot delivery are asked for at `register()` and only where `capabilities` has them.
2.  *Ready bits are poll(2)'s*: `POLLIN` and friends below, on every adapter.  `POLLERR` and
    `POLLHUP` come whatever the interest was, so test with `READABLE` and `WRITABLE`, never with
    `POLLIN` alone: a hang-up must wake the reader and the writer.
3.  *Interest is never 0.*  To pause an fd, unregister it.  (kqueue has no empty filter set, and
    epoll goes on reporting hang-ups for an empty mask: only absence means the same everywhere.)
4.  `register()` of a registered fd raises FileExistsError; `modify()` and `unregister()` of an
    unknown one raise FileNotFoundError; a closed or negative fd raises OSError(EBADF).  An
    operation that raises has changed nothing, in the adapter or in the kernel.
5.  *Unregister, then close.*  After `unregister(fd)` no later `poll()` returns an event of that
    registration, and a `close(fd)` that follows is seen by the peer as FIN (or RST) at once.
    An fd closed while still registered yields nothing, or `POLLNVAL` once, after which its
    registration is gone; `unregister()` of it may raise OSError, and the number can then be
    registered anew.
6.  `poll()` returns at most `max_events` pairs, each fd at most once, and is fair: while more
    are ready than fit, repeated calls return every one of them before any a second time, give or
    take one round.
7.  *Timeouts*: None waits for an event, 0 or less never waits, anything else is seconds and is
    never cut short without an event or a wake.  A signal whose handler returns does not end the
    wait; what remains of it is waited for.
8.  *Spurious events are allowed*, lost ones are not.  What `poll()` returns was true when the
    kernel was last asked: handlers use non-blocking fds and take EAGAIN for an answer.
9.  `wake()` may be called from any thread, any number of times, and from signal handlers: a
    `poll()` in progress, or else the next one, returns.  It shows as no event.
10. One thread polls and registers.  A poller belongs to the process that made it: in a forked
    child only `close()` is allowed, and it leaves the parent's registrations alone.
11. `close()` may be repeated; everything else on a closed poller raises ValueError.  File
    descriptors that an adapter opens are close-on-exec.

Portability
-----------
What differs, so that a user of the contract can know it:

=================== =============== ========== ========== =============== ====================
                    epoll           poll       select     kqueue          aio (IOCB_CMD_POLL)
=================== =============== ========== ========== =============== ====================
edge / one-shot     yes / yes       no / no    no / no    yes / yes       no / yes
largest fd          nofile          nofile     1023       nofile          nofile
how many            nofile          nofile     1024       nofile          `capacity` (sysctl
                                                                          fs.aio-max-nr)
cost of one poll()  O(ready)        O(all)     O(all)     O(ready)        O(ready), re-armed
timeout granularity 1 ns (5.11) or  1 ms       1 us       1 ns            1 ns
                    1 ms
regular file        EPERM           ready      ready      ready           ready
two-queue files     yes             yes        yes        yes             POLLNVAL at poll()
(O_RDWR FIFO, pty)                                                        unless ready
POLLRDHUP, POLLPRI  yes             yes        no / yes   EV_EOF / no     yes
can be nested       yes             no         no         yes             no
(`fileno()`)
=================== =============== ========== ========== =============== ====================

*   An interest in `POLLRDHUP` is accepted everywhere; select reports a half-close as POLLIN only.
    One in `POLLPRI` beside others is accepted everywhere too, and alone it is refused by kqueue,
    which has no filter for it (EOPNOTSUPP).
*   kqueue reports a pipe without writers as POLLIN, not POLLHUP.
*   A signal handler written in Python runs between bytecodes, so that a signal which comes after
    poll() was entered and before its system call has begun calls `wake()` too late.  Who must
    not miss one gives `signal.set_wakeup_fd()` a pipe and registers it (see servers/reactor.py).
*   A timeout of more than 24 days (2**31 ms) may wait for ever.
*   A condition that the facility cannot watch is refused at `register()` where the kernel
    answers there, or reported as `POLLNVAL` at the next `poll()` where it does not (aio).
*   epoll keys a registration by (number, open file).  A number that is closed while a duplicate
    keeps its file open goes on reporting; see tests/test_epoll_facts.py.
*   poll and select watch numbers: one that is closed while registered and opened again before
    the next poll() goes on being watched, with its new file.
*   The kernel may complete an aio poll from a work queue: its event then shows at a poll() a
    moment later than the condition holds, so that one poll(0) may miss it.
*   aio holds a reference to an armed file.  `unregister()` drops it by io_cancel, which walks a
    list of all armed polls: closing thousands of *idle* sockets at once is cheaper if each is
    `shutdown()` first, as the poll has then completed by itself.
"""

from __future__ import annotations

import enum
import errno
import os
from typing import Protocol, Self, TypeAlias

POLLIN = 0x1
POLLPRI = 0x2
POLLOUT = 0x4
POLLERR = 0x8
POLLHUP = 0x10
POLLNVAL = 0x20
POLLRDHUP = 0x2000

#: Ready bits after which a read does not block (it may return an error or end of file).
READABLE = POLLIN | POLLPRI | POLLERR | POLLHUP | POLLRDHUP | POLLNVAL
#: Ready bits after which a write does not block (it may return an error).
WRITABLE = POLLOUT | POLLERR | POLLHUP | POLLNVAL

#: What may be asked for; POLLERR, POLLHUP and POLLNVAL come unasked.
INTEREST = POLLIN | POLLPRI | POLLOUT | POLLRDHUP

#: How many events one poll() returns unless told otherwise.
MAX_EVENTS = 512

#: Timeouts (seconds) beyond this wait for ever where the facility takes milliseconds in an int:
#: 24 days.
LONGEST = (2**31 - 1) // 1000

Events: TypeAlias = list[tuple[int, int]]


class Capability(enum.Flag):
    """What one adapter can do beyond the contract."""

    NONE = 0
    EDGE = enum.auto()
    """`register(..., edge=True)`: one event per change of condition."""
    ONESHOT = enum.auto()
    """`register(..., oneshot=True)`: one event, then silence until `modify()`."""
    FILENO = enum.auto()
    """`fileno()` returns an fd that is itself readable while events wait."""
    SUBMILLISECOND = enum.auto()
    """Timeouts below one millisecond are not rounded up to one."""


class Counters:
    """What a poller did since it was made.  Plain integers, cheap to keep and safe to read.

    `sizes[n]` counts the poll() calls that returned n events, so that one increment on the hot
    path gives the number of polls, of events, and the histogram.  `kernel_calls` counts the
    system calls of the adapter itself (waiting, registering, waking), not those of its user.
    """

    __slots__ = ("kernel_calls", "rearms", "sizes", "stale", "wakes")

    def __init__(self) -> None:
        self.sizes: list[int] = [0] * (MAX_EVENTS + 1)
        self.kernel_calls = 0
        self.rearms = 0
        self.stale = 0
        self.wakes = 0

    def count(self, events: int) -> None:
        """Count one poll() that returned `events`, however many that is."""
        sizes = self.sizes
        if events >= len(sizes):
            sizes.extend([0] * (events + 1 - len(sizes)))
        sizes[events] += 1

    @property
    def polls(self) -> int:
        return sum(self.sizes)

    @property
    def events(self) -> int:
        return sum(n * count for n, count in enumerate(self.sizes))

    def histogram(self) -> dict[int, int]:
        """Events per wake-up: {upper bound of the bucket, a power of two or 0: polls}."""
        buckets: dict[int, int] = {}
        for n, count in enumerate(self.sizes):
            if count:
                bound = 1 << (n - 1).bit_length() if n else 0
                buckets[bound] = buckets.get(bound, 0) + count
        return buckets

    def as_dict(self) -> dict[str, object]:
        return {
            "polls": self.polls,
            "events": self.events,
            "kernel_calls": self.kernel_calls,
            "rearms": self.rearms,
            "stale": self.stale,
            "wakes": self.wakes,
            "events_per_wakeup": {str(k): v for k, v in self.histogram().items()},
        }


class Poller(Protocol):
    """One readiness facility.  The module docstring is the contract."""

    #: The registry's name of the adapter: "epoll", "kqueue", ...
    name: str
    #: True where the facility is imitated by a library over another one.
    emulated: bool
    capabilities: Capability
    counters: Counters

    def register(
        self, fd: int, interest: int, *, edge: bool = False, oneshot: bool = False
    ) -> None:
        """Watch `fd` for `interest`.

        Raises FileExistsError, OSError(EBADF), another OSError where the facility cannot watch
        such a file, ValueError for an interest of 0 or beyond `INTEREST` and for a mode that
        `capabilities` lacks.
        """

    def modify(self, fd: int, interest: int, *, edge: bool = False, oneshot: bool = False) -> None:
        """Replace the interest and mode of a registered fd; re-enables a fired one-shot."""

    def unregister(self, fd: int) -> None:
        """Forget `fd`.  Raises FileNotFoundError where it was not registered."""

    def poll(self, timeout: float | None = None, max_events: int = MAX_EVENTS) -> Events:
        """Wait up to `timeout` seconds; return up to `max_events` pairs of (fd, ready bits).

        Raises ValueError for `max_events` below 1.
        """

    def wake(self) -> None:
        """Make poll() return.  Thread-safe and signal-safe."""

    def fileno(self) -> int:
        """An fd that is readable while events wait.  Raises ValueError without FILENO."""

    def close(self) -> None:
        """Release everything.  May be repeated."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


def check_registration(
    fd: int, interest: int, edge: bool, oneshot: bool, capabilities: Capability, name: str
) -> None:
    """Raise what `Poller.register` promises for arguments that no kernel has to judge."""
    if fd < 0:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    if not interest or interest & ~INTEREST:
        raise ValueError(f"interest must be some bits of {INTEREST:#x}, not {interest:#x}")
    if edge and not capabilities & Capability.EDGE:
        raise ValueError(f"{name} has no edge-triggered mode")
    if oneshot and not capabilities & Capability.ONESHOT:
        raise ValueError(f"{name} has no one-shot mode")


def check_max_events(max_events: int) -> None:
    """Raise ValueError unless a poll() may return something."""
    if max_events < 1:
        raise ValueError(f"max_events must be at least 1, not {max_events}")


class Adapter:
    """What every adapter shares: counters, the context manager, and saying that it is closed."""

    name: str
    emulated = False
    capabilities = Capability.NONE

    def __init__(self) -> None:
        self.counters = Counters()
        self.closed = False

    def fileno(self) -> int:
        raise ValueError(f"{self.name} has no file descriptor of its own")

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError(f"operation on a closed {self.name} poller")
