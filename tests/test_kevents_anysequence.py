"""Any sequence of operations: the kernel has the filters of what is registered, and no others."""

from __future__ import annotations

import errno
from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from keventmodel import FREEBSD, READ, WRITE, Kernel, knotes_of

from pollers import kevents
from pollers.base import POLLIN, POLLOUT, POLLRDHUP
from pollers.kevents import Change, Registration
from pollers.kqueue import KqueuePoller, Opened

FDS = st.integers(10, 12)
INTERESTS = st.sampled_from([POLLIN, POLLOUT, POLLIN | POLLOUT, POLLRDHUP, POLLRDHUP | POLLOUT])


def outcome(call: Callable[[], None]) -> int:
    """The errno that `call` raised, or 0."""
    try:
        call()
    except OSError as error:
        return error.errno or -1
    return 0


class AnySequence(RuleBasedStateMachine):
    """After any operations the kernel has the filters of what is registered, and no others."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = Kernel()
        self.poller = KqueuePoller(lambda: Opened(self.kernel, Change, FREEBSD.dialect))
        #: What a user of the contract believes: fd -> (interest, edge, oneshot).
        self.registered: dict[int, tuple[int, bool, bool]] = {}
        self.spent: set[int] = set()

    @rule(fd=FDS)
    def open(self, fd: int) -> None:
        self.kernel.open.add(fd)

    @rule(fd=FDS)
    def close(self, fd: int) -> None:
        self.kernel.close_fd(fd)
        self.registered.pop(fd, None)
        self.spent.discard(fd)

    @rule(fd=FDS, filter_=st.sampled_from([READ, WRITE]))
    def refuse(self, fd: int, filter_: int) -> None:
        self.kernel.refuse[fd, filter_] = errno.EINVAL

    @precondition(lambda self: self.kernel.refuse)
    @rule()
    def allow(self) -> None:
        self.kernel.refuse.clear()

    def refused(self, fd: int, interest: int) -> bool:
        wanted = kevents.registration(interest, False, False, FREEBSD.dialect).filters
        return any((fd, filter_) in self.kernel.refuse for filter_ in wanted)

    @rule(fd=FDS, interest=INTERESTS, edge=st.booleans(), oneshot=st.booleans())
    def register(self, fd: int, interest: int, edge: bool, oneshot: bool) -> None:
        error = outcome(lambda: self.poller.register(fd, interest, edge=edge, oneshot=oneshot))
        if fd in self.registered:
            assert error == errno.EEXIST
        elif fd not in self.kernel.open:
            assert error == errno.EBADF
        elif self.refused(fd, interest):
            assert error == errno.EINVAL
        else:
            assert error == 0
            self.registered[fd] = interest, edge, oneshot

    @rule(fd=FDS, interest=INTERESTS, edge=st.booleans(), oneshot=st.booleans())
    def modify(self, fd: int, interest: int, edge: bool, oneshot: bool) -> None:
        error = outcome(lambda: self.poller.modify(fd, interest, edge=edge, oneshot=oneshot))
        old = self.registered.get(fd)
        if old is None:
            # The number of a closed file: the kernel says EBADF once, the table ENOENT.
            assert error in (errno.ENOENT, 0 if fd in self.kernel.open else errno.EBADF)
            assert error
        elif error:
            assert error == errno.EINVAL
            assert self.refused(fd, interest)
            if self.refused(fd, old[0]):  # the old state may be out of reach as well
                assert len(knotes_of(self.kernel, fd)) in (0, bin(old[0]).count("1"))
                outcome(lambda: self.poller.unregister(fd))
                self.registered.pop(fd)
                self.spent.discard(fd)
        else:
            self.registered[fd] = interest, edge, oneshot
            self.spent.discard(fd)

    @rule(fd=FDS)
    def unregister(self, fd: int) -> None:
        error = outcome(lambda: self.poller.unregister(fd))
        if self.registered.pop(fd, None):
            assert error == 0
            self.spent.discard(fd)
        else:
            assert error in (errno.ENOENT, errno.EBADF)

    @rule(
        ready=st.sets(st.tuples(FDS, st.sampled_from([READ, WRITE]))),
        max_events=st.integers(1, 4),
    )
    def poll(self, ready: set[tuple[int, int]], max_events: int) -> None:
        self.kernel.ready = dict.fromkeys(ready, (0, 0, 1))
        expected = {
            fd
            for fd, filter_ in ready
            if fd in self.registered
            and fd not in self.spent
            and filter_
            in kevents.registration(self.registered[fd][0], False, False, FREEBSD.dialect).filters
        }
        events = self.poller.poll(0, max_events)
        fds = {fd for fd, _ in events}
        assert len(fds) == len(events) <= max_events
        assert fds <= expected
        assert bool(fds) == bool(expected)
        self.spent |= {fd for fd in fds if self.registered[fd][2]}
        self.kernel.ready = {}

    @invariant()
    def both_sides_agree(self) -> None:
        for fd in range(10, 13):
            if fd not in self.registered:
                assert knotes_of(self.kernel, fd) == {}
                continue
            interest, edge, oneshot = self.registered[fd]
            wanted: Registration = kevents.registration(interest, edge, oneshot, FREEBSD.dialect)
            assert knotes_of(self.kernel, fd) == {f: m.flags for f, m in wanted.filters.items()}
            for filter_, mode in wanted.filters.items():
                key = fd, filter_
                knote = self.kernel.knotes[key]
                assert (knote.fflags, knote.data) == (mode.fflags, mode.data)
                assert (key in self.kernel.disabled) == (fd in self.spent)

    def teardown(self) -> None:
        self.poller.close()


TestAnySequence = AnySequence.TestCase
