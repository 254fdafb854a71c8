"""kqueue's translation and adapter, on any system: records and answers as FreeBSD gives them.

`Kernel` is a model of what FreeBSD's kqueue_register() and kqueue_scan() do with change lists
(sys/kern/kern_event.c); the adapter runs over it, and after any sequence of operations its
filters must be those that were asked for.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pollers import kevents
from pollers.base import (
    LONGEST,
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLNVAL,
    POLLOUT,
    POLLPRI,
    POLLRDHUP,
    READABLE,
    WRITABLE,
)
from pollers.kevents import (
    EV_ADD,
    EV_CLEAR,
    EV_DELETE,
    EV_DISABLE,
    EV_DISPATCH,
    EV_ENABLE,
    EV_EOF,
    EV_ERROR,
    EV_RECEIPT,
    NEVER,
    NOTE_LOWAT,
    NOTE_TRIGGER,
    WAKE_IDENT,
    Change,
    Dialect,
    Mode,
    Registration,
)
from pollers.kqueue import KqueuePoller, Opened

FREEBSD = kevents.DIALECTS["freebsd"]
READ, WRITE, USER, POLL = FREEBSD.read, FREEBSD.write, FREEBSD.user, FREEBSD.file_poll
WAKE = (WAKE_IDENT, -11)
EBADF, EINVAL, ENOMEM = map(os.strerror, (errno.EBADF, errno.EINVAL, errno.ENOMEM))


class Kernel:
    """FreeBSD's kqueue for idents that need not be open, with errors on demand."""

    def __init__(self) -> None:
        self.open: set[int] = set()
        #: In the order of the kernel's queue.
        self.knotes: dict[tuple[int, int], Change] = {}
        self.disabled: set[tuple[int, int]] = set()
        #: What is ready: (ident, filter) -> (flags, fflags, data).
        self.ready: dict[tuple[int, int], tuple[int, int, int]] = {}
        #: Additions that fail, and why.
        self.refuse: dict[tuple[int, int], int] = {}
        self.timeouts: list[float | None] = []
        self.closed = False
        self.closes = 0

    def close_fd(self, fd: int) -> None:
        """close(2): removes the knotes of fd."""
        self.open.discard(fd)
        for key in [key for key in self.knotes if key[0] == fd]:
            self.drop(key)

    def drop(self, key: tuple[int, int]) -> None:
        del self.knotes[key]
        self.disabled.discard(key)

    def fileno(self) -> int:
        return 3

    def close(self) -> None:
        self.closed = True
        self.closes += 1

    def control(
        self, changelist: Sequence[Change] | None, max_events: int, timeout: float | None = None, /
    ) -> list[Change]:
        receipts: list[Change] = []
        for change in changelist or ():
            error = self.apply(change)
            if error or change.flags & EV_RECEIPT:
                if len(receipts) == max_events:
                    if error:
                        raise OSError(error, os.strerror(error))
                    return receipts
                receipts.append(Change(change.ident, change.filter, EV_ERROR, 0, error))
        if receipts or not max_events:
            return receipts
        self.timeouts.append(timeout)
        return self.scan(max_events)

    def apply(self, change: Change) -> int:
        key = change.ident, change.filter
        if change.filter == USER:
            if change.flags & EV_ADD and key in self.refuse:
                return self.refuse[key]
            if change.fflags & NOTE_TRIGGER:
                self.ready[key] = (0, 0, 0)
        elif change.ident not in self.open:
            return errno.EBADF
        if key not in self.knotes:
            if not change.flags & EV_ADD:
                return errno.ENOENT
            if key in self.refuse:
                return self.refuse[key]
            self.knotes[key] = change
        elif change.flags & EV_DELETE:
            self.drop(key)
            return 0
        else:
            flags = self.knotes[key].flags  # EV_ADD does not change them
            self.knotes[key] = change._replace(flags=flags)
        if change.flags & EV_DISABLE:
            self.disabled.add(key)
        if change.flags & EV_ENABLE:
            self.disabled.discard(key)
        return 0

    def scan(self, max_events: int) -> list[Change]:
        records: list[Change] = []
        for key, knote in list(self.knotes.items()):
            if len(records) == max_events:
                break
            if key in self.disabled or key not in self.ready:
                continue
            flags, fflags, data = self.ready[key]
            kept = knote.flags & ~(EV_ADD | EV_DELETE | EV_ENABLE | EV_DISABLE)
            records.append(Change(*key, kept | flags, fflags, data))
            if knote.flags & EV_DISPATCH:
                self.disabled.add(key)
            if knote.flags & EV_CLEAR:
                del self.ready[key]
            self.knotes[key] = self.knotes.pop(key)  # to the end of the queue
        return records


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def poller(kernel: Kernel) -> Iterator[KqueuePoller]:
    with KqueuePoller(lambda: Opened(kernel, Change, FREEBSD)) as poller:
        yield poller


# Interest to changes.


@pytest.mark.parametrize(
    ("interest", "edge", "oneshot", "filters"),
    [
        (POLLIN, False, False, {READ: Mode(0, POLL)}),
        (POLLOUT, False, False, {WRITE: Mode()}),
        (POLLIN | POLLOUT, False, False, {READ: Mode(0, POLL), WRITE: Mode()}),
        (POLLIN | POLLRDHUP, False, False, {READ: Mode(0, POLL)}),
        (POLLRDHUP, False, False, {READ: Mode(0, NOTE_LOWAT, NEVER)}),
        (POLLOUT, True, False, {WRITE: Mode(EV_CLEAR)}),
        (POLLIN, False, True, {READ: Mode(EV_DISPATCH, POLL)}),
        (POLLOUT, True, True, {WRITE: Mode(EV_CLEAR | EV_DISPATCH)}),
    ],
)
def test_filters_of_an_interest(
    interest: int, edge: bool, oneshot: bool, filters: dict[int, Mode]
) -> None:
    assert kevents.registration(interest, edge, oneshot, FREEBSD).filters == filters


def test_urgent_data_alone_is_refused(kernel: Kernel, poller: KqueuePoller) -> None:
    kernel.open = {5}
    before = dict(kernel.knotes)
    with pytest.raises(OSError, match="POLLPRI") as caught:
        poller.register(5, POLLPRI)
    assert caught.value.errno == errno.EOPNOTSUPP
    assert kernel.knotes == before
    poller.register(5, POLLPRI | POLLOUT)
    assert knotes_of(kernel, 5) == {WRITE: 0}


def test_a_registration_is_one_change_a_filter() -> None:
    both = kevents.registration(POLLIN | POLLOUT, False, False, FREEBSD)
    assert kevents.added(5, both) == [
        Change(5, READ, EV_ADD | EV_RECEIPT, POLL),
        Change(5, WRITE, EV_ADD | EV_RECEIPT),
    ]


def test_replacing_deletes_first_and_confirms_what_stays() -> None:
    old = kevents.registration(POLLIN | POLLOUT, False, False, FREEBSD)
    new = kevents.registration(POLLIN, False, False, FREEBSD)
    assert kevents.replaced(5, old, new) == [
        Change(5, WRITE, EV_DELETE | EV_RECEIPT),
        Change(5, READ, EV_ENABLE | EV_RECEIPT, POLL),
    ]


def test_another_mode_is_deleted_and_added_as_flags_cannot_be_changed() -> None:
    old = kevents.registration(POLLOUT, False, False, FREEBSD)
    new = kevents.registration(POLLOUT, False, True, FREEBSD)
    assert kevents.replaced(5, old, new) == [
        Change(5, WRITE, EV_DELETE | EV_RECEIPT),
        Change(5, WRITE, EV_ADD | EV_RECEIPT | EV_DISPATCH),
    ]


def test_an_edge_triggered_filter_is_made_anew() -> None:
    edge = kevents.registration(POLLOUT, True, False, FREEBSD)
    flags = [change.flags for change in kevents.replaced(5, edge, edge)]
    assert flags == [EV_DELETE | EV_RECEIPT, EV_ADD | EV_RECEIPT | EV_CLEAR]


@pytest.mark.skipif(not hasattr(select, "KQ_EV_ADD"), reason="this Python has no select.kqueue")
def test_constants_are_the_systems() -> None:
    for name in ("ADD", "DELETE", "ENABLE", "DISABLE", "CLEAR", "ERROR", "EOF"):
        assert getattr(kevents, f"EV_{name}") == getattr(select, f"KQ_EV_{name}")
    assert getattr(select, "KQ_NOTE_LOWAT") == NOTE_LOWAT  # noqa: B009
    opened = __import__("pollers.kqueue").kqueue.open_kqueue()
    opened.kq.close()
    assert opened.dialect.read == getattr(select, "KQ_FILTER_READ")  # noqa: B009
    assert opened.dialect.write == getattr(select, "KQ_FILTER_WRITE")  # noqa: B009


# Records to ready bits.


def ready(records: list[Change], interests: dict[int, int]) -> kevents.Ready:
    table = {
        fd: kevents.registration(interest, False, False, FREEBSD)
        for fd, interest in interests.items()
    }
    return kevents.ready(records, table, FREEBSD, WAKE)


BOTH = POLLIN | POLLOUT | POLLRDHUP
#: FreeBSD keeps EV_RECEIPT in the flags that it returns.
FLAGS = EV_RECEIPT


@pytest.mark.parametrize(
    ("records", "interest", "bits"),
    [
        pytest.param([Change(5, READ, FLAGS, 0, 3)], BOTH, POLLIN, id="data"),
        pytest.param([Change(5, READ, FLAGS, 0, 1)], POLLIN, POLLIN, id="connection to accept"),
        pytest.param([Change(5, WRITE, FLAGS, 0, 9000)], BOTH, POLLOUT, id="room"),
        pytest.param(
            [Change(5, READ, FLAGS, 0, 3), Change(5, WRITE, FLAGS, 0, 9000)],
            BOTH,
            POLLIN | POLLOUT,
            id="both filters",
        ),
        pytest.param(
            [Change(5, READ, FLAGS | EV_EOF, 0, 3)], BOTH, POLLIN | POLLRDHUP, id="FIN, data left"
        ),
        pytest.param(
            [Change(5, READ, FLAGS | EV_EOF)], BOTH, POLLIN | POLLRDHUP, id="FIN, no data left"
        ),
        pytest.param(
            [Change(5, READ, FLAGS | EV_EOF)], POLLIN, POLLIN, id="FIN, POLLRDHUP unasked"
        ),
        pytest.param(
            [Change(5, READ, FLAGS | EV_EOF)], POLLRDHUP, POLLRDHUP, id="FIN, POLLRDHUP alone"
        ),
        pytest.param(
            [Change(5, READ, FLAGS, 0, 3)], POLLRDHUP, POLLIN, id="low-water mark ignored"
        ),
        pytest.param(
            [Change(5, READ, FLAGS | EV_EOF), Change(5, WRITE, FLAGS, 0, 9000)],
            BOTH,
            POLLIN | POLLRDHUP | POLLOUT,
            id="half-closed, room to write",
        ),
        pytest.param(
            [Change(5, READ, FLAGS | EV_EOF, 0, 3), Change(5, WRITE, FLAGS | EV_EOF)],
            BOTH,
            POLLIN | POLLRDHUP | POLLHUP,
            id="peer gone, data left",
        ),
        pytest.param(
            [Change(5, WRITE, FLAGS | EV_EOF)], POLLOUT, POLLHUP, id="pipe has no reader"
        ),
        pytest.param(
            [Change(5, READ, FLAGS | EV_EOF, errno.ECONNRESET)],
            POLLIN,
            POLLIN | POLLERR | POLLHUP,
            id="reset, read filter",
        ),
        pytest.param(
            [Change(5, WRITE, FLAGS | EV_EOF, errno.ECONNRESET)],
            POLLOUT,
            POLLERR | POLLHUP,
            id="reset, write filter",
        ),
        pytest.param(
            [Change(5, WRITE, FLAGS | EV_EOF, errno.ECONNREFUSED)],
            POLLOUT,
            POLLERR | POLLHUP,
            id="connect refused",
        ),
        pytest.param([Change(5, READ, EV_ERROR, 0, errno.ENOMEM)], POLLIN, POLLERR, id="EV_ERROR"),
    ],
)
def test_ready_bits(records: list[Change], interest: int, bits: int) -> None:
    assert ready(records, {5: interest}) == ([(5, bits)], 0, 0, [])


@pytest.mark.parametrize("error", [errno.EBADF, errno.ENOENT])
def test_an_error_that_says_the_knote_is_gone_ends_the_registration(error: int) -> None:
    found = ready([Change(5, READ, EV_ERROR, 0, error)], {5: POLLIN})
    assert found == ([(5, POLLNVAL)], 0, 0, [5])


def test_records_of_no_registration_are_counted_and_dropped() -> None:
    records = [Change(5, READ, FLAGS, 0, 1), Change(6, READ, FLAGS, 0, 1)]
    assert ready(records, {6: POLLIN}) == ([(6, POLLIN)], 0, 1, [])


def test_the_wake_is_no_event() -> None:
    records = [Change(WAKE_IDENT, -11, EV_CLEAR), Change(5, WRITE, FLAGS, 0, 1)]
    assert ready(records, {5: POLLOUT}) == ([(5, POLLOUT)], 1, 0, [])


def test_reading_is_filter_0_on_netbsd() -> None:
    netbsd = kevents.DIALECTS["netbsd"]
    table = {5: kevents.registration(POLLIN | POLLOUT, False, False, netbsd)}
    records = [Change(5, 0, 0, 0, 1), Change(5, 1, 0, 0, 1)]
    assert kevents.ready(records, table, netbsd, WAKE).events == [(5, POLLIN | POLLOUT)]


RECORDS = st.lists(
    st.builds(
        Change,
        ident=st.integers(4, 9),
        filter=st.sampled_from([READ, WRITE]),
        flags=st.sampled_from([0, EV_RECEIPT, EV_CLEAR, EV_EOF, EV_EOF | EV_DISPATCH]),
        fflags=st.sampled_from([0, 0, errno.ECONNRESET, errno.EPIPE]),
        data=st.integers(0, 10**6),
    ),
    unique_by=lambda record: (record.ident, record.filter),
)


@given(RECORDS, st.integers(1, 12))
def test_each_fd_comes_once_and_no_more_than_the_records(
    records: list[Change], max_events: int
) -> None:
    taken = records[:max_events]
    events = ready(taken, dict.fromkeys(range(4, 10), BOTH)).events
    fds = [fd for fd, _ in events]
    assert fds == list(dict.fromkeys(record.ident for record in taken))
    assert len(events) <= max_events


@given(RECORDS)
def test_every_record_wakes_the_side_that_its_filter_is_for(records: list[Change]) -> None:
    events = dict(ready(records, dict.fromkeys(range(4, 10), BOTH)).events)
    for record in records:
        wakes = READABLE if record.filter == READ else WRITABLE
        assert events[record.ident] & wakes
        if record.flags & EV_EOF and record.fflags:  # a reset must wake both
            assert events[record.ident] & READABLE
            assert events[record.ident] & WRITABLE


@given(RECORDS, st.sampled_from([POLLIN, POLLOUT, POLLIN | POLLOUT]))
def test_no_bit_that_was_not_asked_for(records: list[Change], interest: int) -> None:
    watched = [r for r in records if interest & (POLLIN if r.filter == READ else POLLOUT)]
    for _, bits in ready(watched, dict.fromkeys(range(4, 10), interest)).events:
        assert bits
        assert not bits & ~(interest | POLLERR | POLLHUP)


# Receipts.


def test_receipts_are_matched_in_order() -> None:
    changes = [Change(5, READ, EV_DELETE), Change(5, READ, EV_ADD), Change(5, WRITE, EV_ADD)]
    receipts = [
        Change(5, READ, EV_ERROR, 0, 0),
        Change(5, READ, EV_ERROR, 0, errno.ENOMEM),
        Change(5, WRITE, EV_ERROR | EV_ADD | EV_RECEIPT, 0, 0),  # macOS keeps the flags
    ]
    assert kevents.errors_of(changes, receipts) == [0, errno.ENOMEM, 0]


@pytest.mark.parametrize(
    "receipts",
    [
        pytest.param([], id="none"),
        pytest.param([Change(5, WRITE, EV_ERROR)], id="another"),
        pytest.param([Change(5, READ, 0, 0, 1)], id="an event"),
        pytest.param([Change(5, READ, EV_ERROR), Change(6, READ, 0)], id="an event as well"),
    ],
)
def test_an_answer_that_is_not_one_receipt_a_change_is_not_guessed_at(
    receipts: list[Change],
) -> None:
    with pytest.raises(RuntimeError, match="kevent answered"):
        kevents.errors_of([Change(5, READ, EV_ADD)], receipts)


# The adapter over the model.


def knotes_of(kernel: Kernel, fd: int) -> dict[int, int]:
    """The filters of fd in the kernel, with what is left of their flags."""
    keep = EV_CLEAR | EV_DISPATCH
    return {f: knote.flags & keep for (i, f), knote in kernel.knotes.items() if i == fd}


@pytest.mark.parametrize("refused", [READ, WRITE])
@pytest.mark.parametrize("error", [errno.ENOMEM, errno.EINVAL])
def test_a_failed_register_leaves_nothing(
    kernel: Kernel, poller: KqueuePoller, refused: int, error: int
) -> None:
    kernel.open = {5}
    kernel.refuse = {(5, refused): error}
    with pytest.raises(OSError, match=os.strerror(error)):
        poller.register(5, POLLIN | POLLOUT)
    assert knotes_of(kernel, 5) == {}
    with pytest.raises(FileNotFoundError):
        poller.unregister(5)


@pytest.mark.parametrize("edge", [False, True])
def test_a_failed_modify_leaves_what_was(kernel: Kernel, poller: KqueuePoller, edge: bool) -> None:
    kernel.open = {5}
    poller.register(5, POLLIN, edge=edge)
    before = knotes_of(kernel, 5)
    kernel.refuse = {(5, WRITE): errno.EINVAL}
    with pytest.raises(OSError, match=EINVAL):
        poller.modify(5, POLLOUT, oneshot=True)
    assert knotes_of(kernel, 5) == before
    kernel.ready[5, READ] = (0, 0, 1)
    assert poller.poll(0) == [(5, POLLIN)]


def test_a_failed_modify_does_not_enable_what_fired(kernel: Kernel, poller: KqueuePoller) -> None:
    kernel.open = {5}
    kernel.ready = {(5, READ): (0, 0, 1)}
    poller.register(5, POLLIN, oneshot=True)
    assert poller.poll(0) == [(5, POLLIN)]
    kernel.refuse = {(5, WRITE): errno.EINVAL}
    with pytest.raises(OSError, match=EINVAL):
        poller.modify(5, POLLIN | POLLOUT, oneshot=True)
    assert poller.poll(0) == []
    with pytest.raises(OSError, match=EINVAL):  # READ is deleted, added and deleted again here
        poller.modify(5, POLLIN | POLLOUT)
    assert poller.poll(0) == []
    poller.modify(5, POLLIN)
    assert poller.poll(0) == [(5, POLLIN)]


def test_where_the_old_state_cannot_be_had_again_nothing_is_registered(
    kernel: Kernel, poller: KqueuePoller
) -> None:
    kernel.open = {5}
    poller.register(5, POLLIN | POLLOUT)
    kernel.refuse = {(5, READ): errno.ENOMEM}
    with pytest.raises(OSError, match=ENOMEM):
        poller.modify(5, POLLIN | POLLOUT, edge=True)
    assert knotes_of(kernel, 5) == {}
    with pytest.raises(FileNotFoundError):
        poller.unregister(5)


def test_a_number_that_was_closed_and_opened_again(kernel: Kernel, poller: KqueuePoller) -> None:
    kernel.open = {5}
    poller.register(5, POLLIN)
    with pytest.raises(FileExistsError):
        poller.register(5, POLLOUT)
    kernel.close_fd(5)
    with pytest.raises(OSError, match=EBADF):
        poller.register(5, POLLOUT)
    kernel.open = {5}
    poller.register(5, POLLOUT)
    assert knotes_of(kernel, 5) == {WRITE: 0}


def test_a_fired_one_shot_is_still_registered(kernel: Kernel, poller: KqueuePoller) -> None:
    kernel.open = {5}
    kernel.ready = {(5, READ): (0, 0, 1)}
    poller.register(5, POLLIN, oneshot=True)
    assert poller.poll(0) == [(5, POLLIN)]
    with pytest.raises(FileExistsError):
        poller.register(5, POLLIN)
    assert poller.poll(0) == []  # which did not enable it
    kernel.close_fd(5)
    kernel.open = {5}
    poller.register(5, POLLIN)
    assert poller.poll(0) == [(5, POLLIN)]


def test_modify_after_close_and_open_finds_nothing(kernel: Kernel, poller: KqueuePoller) -> None:
    kernel.open = {5}
    poller.register(5, POLLIN)
    kernel.close_fd(5)
    kernel.open = {5}
    with pytest.raises(FileNotFoundError):
        poller.modify(5, POLLIN | POLLOUT)
    assert knotes_of(kernel, 5) == {}
    poller.register(5, POLLIN)


def test_a_one_shot_of_two_filters_is_one_event(kernel: Kernel, poller: KqueuePoller) -> None:
    kernel.open = {5, 6}
    poller.register(5, POLLIN | POLLOUT, oneshot=True)
    poller.register(6, POLLIN | POLLOUT)
    kernel.ready = {(5, READ): (0, 0, 1)}
    assert poller.poll(0) == [(5, POLLIN)]
    kernel.ready |= {(5, WRITE): (0, 0, 1), (6, WRITE): (0, 0, 1)}
    assert poller.poll(0) == [(6, POLLOUT)]
    poller.modify(5, POLLIN | POLLOUT, oneshot=True)
    assert dict(poller.poll(0)) == {5: POLLIN | POLLOUT, 6: POLLOUT}
    assert poller.poll(0) == [(6, POLLOUT)]


def test_max_events_and_both_filters_lose_nothing(kernel: Kernel, poller: KqueuePoller) -> None:
    kernel.open = set(range(10, 30))
    for fd in kernel.open:
        poller.register(fd, POLLIN | POLLOUT, edge=True)
        kernel.ready |= {(fd, READ): (0, 0, 1), (fd, WRITE): (0, 0, 1)}
    seen = dict.fromkeys(kernel.open, 0)
    while events := poller.poll(0, 3):
        assert len(events) <= 3
        assert len(dict(events)) == len(events)
        for fd, bits in events:
            assert not seen[fd] & bits
            seen[fd] |= bits
    assert set(seen.values()) == {POLLIN | POLLOUT}


def test_max_events_must_be_positive(poller: KqueuePoller) -> None:
    with pytest.raises(ValueError, match="max_events"):
        poller.poll(0, 0)


@pytest.mark.parametrize(
    ("timeout", "given"), [(0, 0), (-1, 0), (None, None), (LONGEST + 1, None)]
)
def test_timeouts(
    kernel: Kernel, poller: KqueuePoller, timeout: float | None, given: float | None
) -> None:
    poller.wake()
    assert poller.poll(timeout) == []
    assert kernel.timeouts == [given]


def test_what_remains_is_waited_for_after_an_empty_answer(
    kernel: Kernel, poller: KqueuePoller
) -> None:
    began = time.monotonic()
    assert poller.poll(0.02) == []
    assert time.monotonic() - began >= 0.02
    assert kernel.timeouts[0] == 0.02
    given = [timeout for timeout in kernel.timeouts if timeout is not None]
    assert given == sorted(given, reverse=True)
    assert given[-1] > 0


def test_a_wake_is_consumed_by_one_poll_and_counted(kernel: Kernel, poller: KqueuePoller) -> None:
    calls = poller.counters.kernel_calls
    poller.wake()
    poller.wake()
    assert poller.poll(None) == []
    assert kernel.scan(1) == []
    assert (poller.counters.wakes, poller.counters.polls) == (2, 1)
    assert poller.counters.kernel_calls - calls == 3


@pytest.mark.parametrize("user", [None, USER])
def test_without_evfilt_user_a_pipe_wakes(user: int | None) -> None:
    kernel = Kernel()
    kernel.open = set(range(100))  # the pipe's number among them
    kernel.refuse = {WAKE: errno.EINVAL}
    with KqueuePoller(lambda: Opened(kernel, Change, Dialect(user=user))) as poller:
        ((fd, filter_),) = kernel.knotes
        assert filter_ == READ
        poller.wake()
        assert select.select([fd], [], [], 0)[0]
        kernel.ready = {(fd, READ): (0, 0, 1)}
        assert poller.poll(None) == []
        assert not select.select([fd], [], [], 0)[0]


def test_a_wake_that_cannot_be_added_closes_everything() -> None:
    kernel = Kernel()  # nothing is open: EBADF
    before = os.listdir("/dev/fd")
    with pytest.raises(OSError, match=EBADF):
        KqueuePoller(lambda: Opened(kernel, Change, kevents.OTHER))
    assert kernel.closes == 1
    assert os.listdir("/dev/fd") == before


def test_a_child_leaves_the_number_alone(kernel: Kernel, poller: KqueuePoller) -> None:
    pid = os.fork()
    if not pid:
        try:
            poller.close()
            os._exit(kernel.closes)
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_close_may_be_repeated_and_all_else_is_refused(
    kernel: Kernel, poller: KqueuePoller
) -> None:
    poller.close()
    poller.close()
    assert kernel.closes == 1
    for call in (
        lambda: poller.register(5, POLLIN),
        lambda: poller.modify(5, POLLIN),
        lambda: poller.unregister(5),
        lambda: poller.poll(0),
        poller.wake,
    ):
        with pytest.raises(ValueError, match="closed"):
            call()


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
        self.poller = KqueuePoller(lambda: Opened(self.kernel, Change, FREEBSD))
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
        wanted = kevents.registration(interest, False, False, FREEBSD).filters
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
            in kevents.registration(self.registered[fd][0], False, False, FREEBSD).filters
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
            wanted: Registration = kevents.registration(interest, edge, oneshot, FREEBSD)
            assert knotes_of(self.kernel, fd) == {f: m.flags for f, m in wanted.filters.items()}
            for filter_, mode in wanted.filters.items():
                key = fd, filter_
                knote = self.kernel.knotes[key]
                assert (knote.fflags, knote.data) == (mode.fflags, mode.data)
                assert (key in self.kernel.disabled) == (fd in self.spent)

    def teardown(self) -> None:
        self.poller.close()


TestAnySequence = AnySequence.TestCase
