"""The kqueue adapter over libkqueue, where that can be loaded: real files, real waiting.

What every adapter has to do is in tests/contract.  Here is what only this shim does: its layout,
its receipts, its errors, and the differences that it lists.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from pollers import libkqueue
from pollers.base import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP, Capability
from pollers.kevents import (
    EV_ADD,
    EV_CLEAR,
    EV_DELETE,
    EV_DISABLE,
    EV_ENABLE,
    EV_ERROR,
    EV_RECEIPT,
    NOTE_TRIGGER,
    WAKE_IDENT,
)
from pollers.kqueue import KqueuePoller

READ, WRITE, USER = -1, -2, -11


@pytest.fixture(scope="module")
def library() -> None:
    """Have what libkqueue keeps for the whole process made before the first test."""
    try:
        libkqueue.kqueue().close()
    except OSError as error:
        pytest.skip(str(error))


@pytest.fixture
def kq(library: None) -> Iterator[libkqueue.kqueue]:
    kq = libkqueue.kqueue()
    yield kq
    kq.close()


@pytest.fixture
def poller(library: None) -> Iterator[KqueuePoller]:
    with KqueuePoller() as poller:
        yield poller


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


# Where there is no libkqueue as well.


def test_struct_kevent_is_that_of_a_64_bit_freebsd_11() -> None:
    names = [field[0] for field in libkqueue.kevent._fields_]
    layout = {name: getattr(libkqueue.kevent, name) for name in names}
    assert {name: (field.offset, field.size) for name, field in layout.items()} == {
        "ident": (0, 8),
        "filter": (8, 2),
        "flags": (10, 2),
        "fflags": (12, 4),
        "data": (16, 8),
        "udata": (24, 8),
    }
    assert ctypes.sizeof(libkqueue.kevent) == 32


def test_kevent_takes_select_kevents_arguments() -> None:
    short = libkqueue.kevent(5)
    assert (short.ident, short.filter, short.flags) == (5, READ, EV_ADD)
    full = libkqueue.kevent(5, WRITE, EV_DELETE, NOTE_TRIGGER, -3, 7)
    assert (full.filter, full.flags, full.fflags) == (WRITE, EV_DELETE, NOTE_TRIGGER)
    assert (full.data, full.udata) == (-3, 7)


def test_a_library_that_cannot_be_loaded_is_one_line_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(libkqueue, "LIBRARY", "libno-such-library.so.0")
    libkqueue._load.cache_clear()
    with pytest.raises(OSError, match="install libkqueue") as caught:
        libkqueue.kqueue()
    libkqueue._load.cache_clear()
    assert "libno-such-library" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_difference_has_a_reason() -> None:
    assert all(len(reason) > 40 for reason in libkqueue.DIFFERENCES.values())


# The shape of select.kqueue.


def test_each_change_has_its_receipt_and_no_event_is_mixed_in(
    kq: libkqueue.kqueue, pair: tuple[socket.socket, socket.socket]
) -> None:
    fd = pair[0].fileno()
    changes = [
        libkqueue.kevent(fd, WRITE, EV_ADD | EV_RECEIPT),
        libkqueue.kevent(fd, READ, EV_DELETE | EV_RECEIPT),
        libkqueue.kevent(fd, READ, EV_ADD | EV_RECEIPT),
        libkqueue.kevent(10**6, READ, EV_ADD | EV_RECEIPT),
        libkqueue.kevent(fd, WRITE, EV_ENABLE | EV_RECEIPT),
    ]
    receipts = kq.control(changes, 5, 0)
    assert [(r.ident, r.filter, r.flags, r.data) for r in receipts] == [
        (fd, WRITE, EV_ERROR, 0),
        (fd, READ, EV_ERROR, errno.ENOENT),
        (fd, READ, EV_ERROR, 0),
        (10**6, READ, EV_ERROR, errno.EBADF),
        (fd, WRITE, EV_ERROR, 0),
    ]
    assert [(e.ident, e.filter) for e in kq.control(None, 5, 0)] == [(fd, WRITE)]


def test_an_error_without_room_for_its_record_is_raised(kq: libkqueue.kqueue) -> None:
    with pytest.raises(FileNotFoundError):
        kq.control([libkqueue.kevent(0, READ, EV_DELETE)], 0)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        kq.control([libkqueue.kevent(10**6, READ, EV_ADD)], 0)


def test_no_room_returns_at_once_whatever_the_timeout(kq: libkqueue.kqueue) -> None:
    assert list(kq.control(None, 0, None)) == []
    assert list(kq.control(None, 0, 60.0)) == []


def test_a_negative_timeout_is_refused(kq: libkqueue.kqueue) -> None:
    with pytest.raises(ValueError, match="positive"):
        kq.control(None, 1, -1.0)


def test_an_interrupted_wait_goes_on_with_what_remains(kq: libkqueue.kqueue) -> None:
    calls: list[float] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: calls.append(time.monotonic()))
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        began = time.monotonic()
        assert list(kq.control(None, 1, 0.1)) == []
        assert time.monotonic() - began >= 0.1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(calls) > 1


def test_a_handler_that_wakes_does_not_disturb_the_wait(poller: KqueuePoller) -> None:
    before = signal.signal(signal.SIGALRM, lambda number, frame: poller.wake())
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        for _ in range(50):
            assert poller.poll(10) == []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_user_event_is_cleared_by_its_delivery(kq: libkqueue.kqueue) -> None:
    kq.control([libkqueue.kevent(WAKE_IDENT, USER, EV_ADD | EV_CLEAR)], 0)
    assert list(kq.control(None, 1, 0)) == []
    for _ in range(3):
        kq.control([libkqueue.kevent(WAKE_IDENT, USER, 0, NOTE_TRIGGER)], 0)
    assert [(e.ident, e.filter) for e in kq.control(None, 1, 0)] == [(WAKE_IDENT, USER)]
    assert list(kq.control(None, 1, 0)) == []


def test_a_number_whose_file_is_another_one_lost_its_knotes(kq: libkqueue.kqueue) -> None:
    first, second = os.pipe(), os.pipe()
    number = first[0]
    kq.control([libkqueue.kevent(number, READ, EV_ADD)], 0)
    os.dup2(second[0], number)
    confirm = libkqueue.kevent(number, READ, EV_ENABLE | EV_RECEIPT)
    assert [r.data for r in kq.control([confirm], 1)] == [errno.ENOENT]
    kq.control([libkqueue.kevent(number, READ, EV_ADD)], 0)
    os.write(second[1], b"x")
    assert [e.ident for e in kq.control(None, 1, 1.0)] == [number]
    os.close(number)
    assert [r.data for r in kq.control([confirm], 1)] == [errno.EBADF]
    for fd in (first[1], *second):
        os.close(fd)


def test_a_closed_kqueue_says_so_and_leaves_no_descriptor(library: None) -> None:
    before = set(os.listdir("/proc/self/fd"))
    kq = libkqueue.kqueue()
    assert os.get_inheritable(kq.fileno()) is False
    kq.close()
    kq.close()
    assert kq.closed
    for call in (kq.fileno, lambda: kq.control(None, 1, 0)):
        with pytest.raises(ValueError, match="closed"):
            call()
    if hasattr(kq._library, "libkqueue_drain_pending_close"):
        assert set(os.listdir("/proc/self/fd")) == before


def test_in_a_child_it_is_closed_and_its_number_is_left_alone(poller: KqueuePoller) -> None:
    numbers = {int(fd) for fd in os.listdir("/proc/self/fd")}
    pid = os.fork()
    if not pid:
        try:
            free = numbers - {int(fd) for fd in os.listdir("/proc/self/fd")}
            for fd in free:
                os.dup2(0, fd)
            poller.close()
            for fd in free:
                os.fstat(fd)
            os._exit(0)
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    poller.wake()
    assert poller.poll(None) == []


def test_events_that_did_not_fit_come_next_unless_they_were_disabled_or_closed(
    kq: libkqueue.kqueue,
) -> None:
    pairs = [socket.socketpair() for _ in range(5)]
    fds = [near.fileno() for near, _ in pairs]
    kq.control([libkqueue.kevent(fd, f, EV_ADD) for fd in fds for f in (READ, WRITE)], 0)
    for _, far in pairs:
        far.send(b"x")
    first = [(event.ident, event.filter) for event in kq.control(None, 3, 1.0)]
    assert len(set(first)) == 3
    left = {(fd, f) for fd in fds for f in (READ, WRITE)} - set(first)
    gone = left.pop()
    kq.control([libkqueue.kevent(*gone, EV_DISABLE)], 0)
    closed = next(fd for fd, _ in left if fd != gone[0])
    for near, far in pairs:
        if near.fileno() == closed:
            near.close()
            far.close()
    second = {(event.ident, event.filter) for event in kq.control(None, 100, 0)}
    assert second == {(fd, f) for fd, f in left if fd != closed}
    for near, far in pairs:
        near.close()
        far.close()


# The adapter.


def test_it_is_marked_as_emulated_and_cannot_be_nested(poller: KqueuePoller) -> None:
    assert poller.emulated
    assert poller.name == "kqueue"
    assert not poller.capabilities & Capability.FILENO
    with pytest.raises(ValueError, match="no file descriptor"):
        poller.fileno()


def test_readiness_of_both_sides_is_one_event(
    poller: KqueuePoller, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    fd = near.fileno()
    poller.register(fd, POLLIN | POLLOUT)
    assert poller.poll(1) == [(fd, POLLOUT)]
    far.send(b"x")
    assert poller.poll(1) == [(fd, POLLIN | POLLOUT)]
    poller.modify(fd, POLLIN | POLLRDHUP)
    assert poller.poll(1) == [(fd, POLLIN)]
    near.recv(1)
    assert poller.poll(0) == []
    far.shutdown(socket.SHUT_WR)
    assert poller.poll(1) == [(fd, POLLIN | POLLRDHUP)]


def test_a_reset_wakes_both_sides_even_if_its_errno_is_used_up(poller: KqueuePoller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far = listener.accept()[0]
    with near:
        poller.register(near.fileno(), POLLIN | POLLOUT)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        far.close()
        deadline = time.monotonic() + 5
        bits = 0
        while not bits & POLLHUP and time.monotonic() < deadline:
            for fd, found in poller.poll(1):
                assert fd == near.fileno()
                bits |= found
        assert bits & POLLHUP
        assert bits & POLLERR
        assert "socket error" in libkqueue.DIFFERENCES
        assert near.recv(1) == b""  # a kernel's kqueue would leave ECONNRESET here


def test_a_half_close_alone_is_awaited_without_data_waking(poller: KqueuePoller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far = listener.accept()[0]
    with near, far:
        fd = near.fileno()
        poller.register(fd, POLLRDHUP)
        far.send(b"x")
        assert poller.poll(0.05) == []
        far.shutdown(socket.SHUT_WR)
        assert poller.poll(5) == [(fd, POLLRDHUP)]
        poller.unregister(fd)
        assert near.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1


def test_a_wake_from_a_thread_ends_a_wait_without_end(poller: KqueuePoller) -> None:
    waker = threading.Timer(0.05, poller.wake)
    waker.start()
    assert poller.poll(None) == []
    waker.join()
    assert poller.counters.wakes == 1
    assert poller.counters.histogram() == {0: 1}
