"""What kqueue(2) tells: records to ready bits, as FreeBSD returns them."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pollers import kevents
from pollers.base import POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLRDHUP, READABLE, WRITABLE
from pollers.kevents import EV_CLEAR, EV_DISPATCH, EV_EOF, EV_ERROR, EV_RECEIPT, WAKE_IDENT, Change

FREEBSD = kevents.DIALECTS["freebsd"]
READ, WRITE = FREEBSD.read, FREEBSD.write
WAKE = (WAKE_IDENT, -11)


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
