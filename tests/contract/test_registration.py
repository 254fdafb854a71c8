"""Contract 3 and 4: what may be registered, what is refused, and what a refusal leaves."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from expectations import Pair, expect_events, expect_no_events

from pollers import INTEREST, POLLERR, POLLIN, POLLNVAL, POLLOUT, POLLRDHUP, READABLE, WRITABLE
from pollers.base import Capability, Poller


def test_registering_twice_is_refused(any_poller: Poller, pair: Pair) -> None:
    fd = pair[0].fileno()
    any_poller.register(fd, POLLIN)
    with pytest.raises(FileExistsError):
        any_poller.register(fd, POLLOUT)


def test_the_first_registration_survives_the_second(poller: Poller, pair: Pair) -> None:
    near, far = pair
    poller.register(near.fileno(), POLLIN)
    with pytest.raises(FileExistsError):
        poller.register(near.fileno(), POLLOUT)
    expect_no_events(poller, near.fileno(), spurious=2)  # POLLOUT would be ready at once
    far.send(b"x")
    expect_events(poller, {near.fileno(): POLLIN})


def test_unknown_fds_cannot_be_modified(any_poller: Poller, pair: Pair) -> None:
    with pytest.raises(FileNotFoundError):
        any_poller.modify(pair[0].fileno(), POLLIN)


def test_a_refused_modify_registers_nothing(poller: Poller, pair: Pair) -> None:
    fd = pair[0].fileno()
    with pytest.raises(FileNotFoundError):
        poller.modify(fd, POLLOUT)
    expect_no_events(poller, fd)
    poller.register(fd, POLLOUT)
    expect_events(poller, {fd: POLLOUT})


def test_unknown_fds_cannot_be_unregistered(any_poller: Poller, pair: Pair) -> None:
    fd = pair[0].fileno()
    with pytest.raises(FileNotFoundError):
        any_poller.unregister(fd)
    any_poller.register(fd, POLLIN)
    any_poller.unregister(fd)
    with pytest.raises(FileNotFoundError):
        any_poller.unregister(fd)


@pytest.mark.parametrize("operation", ["register", "modify", "unregister"])
def test_negative_fds_are_bad(any_poller: Poller, operation: str) -> None:
    arguments = () if operation == "unregister" else (POLLIN,)
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        getattr(any_poller, operation)(-1, *arguments)
    assert caught.value.errno == errno.EBADF


def test_closed_fds_are_bad(poller: Poller) -> None:
    fd = os.dup(0)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        poller.register(fd, POLLIN)
    assert caught.value.errno == errno.EBADF


def test_a_refused_register_leaves_the_number_free(poller: Poller) -> None:
    near, far = socket.socketpair()
    fd = near.detach()
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        poller.register(fd, POLLIN)
    with far:
        os.dup2(far.fileno(), fd)
        try:
            poller.register(fd, POLLOUT | POLLIN)
            expect_events(poller, {fd: WRITABLE})
            poller.unregister(fd)
        finally:
            os.close(fd)


@pytest.mark.parametrize("interest", [0, POLLERR, POLLIN | POLLNVAL, 1 << 30, INTEREST + 1, -1])
def test_interests_that_mean_nothing(any_poller: Poller, pair: Pair, interest: int) -> None:
    fd = pair[0].fileno()
    with pytest.raises(ValueError, match="interest"):
        any_poller.register(fd, interest)
    any_poller.register(fd, POLLIN)
    with pytest.raises(ValueError, match="interest"):
        any_poller.modify(fd, interest)


@pytest.mark.parametrize(
    ("mode", "needed"), [("edge", Capability.EDGE), ("oneshot", Capability.ONESHOT)]
)
def test_modes_that_the_facility_lacks(
    any_poller: Poller, pair: Pair, mode: str, needed: Capability
) -> None:
    fd = pair[0].fileno()
    if any_poller.capabilities & needed:
        any_poller.register(fd, POLLIN, **{mode: True})
        any_poller.modify(fd, POLLOUT, **{mode: True})
        return
    with pytest.raises(ValueError, match="mode"):
        any_poller.register(fd, POLLIN, **{mode: True})
    any_poller.register(fd, POLLIN)
    with pytest.raises(ValueError, match="mode"):
        any_poller.modify(fd, POLLIN, **{mode: True})


def test_a_failed_modify_changes_nothing(poller: Poller, pair: Pair) -> None:
    near, far = pair
    poller.register(near.fileno(), POLLIN)
    with pytest.raises(ValueError, match="interest"):
        poller.modify(near.fileno(), POLLOUT | POLLERR)
    expect_no_events(poller, near.fileno(), spurious=2)
    far.send(b"x")
    expect_events(poller, {near.fileno(): POLLIN})


def test_a_modify_that_the_kernel_refuses(poller: Poller) -> None:
    """The registration of a closed fd cannot be changed, and the number is not lost for ever."""
    near, far = socket.socketpair()
    with far:
        fd = near.detach()
        poller.register(fd, POLLIN)
        os.close(fd)
        with pytest.raises(OSError) as caught:  # noqa: PT011 - two are acceptable
            poller.modify(fd, POLLOUT)
        assert caught.value.errno in (errno.EBADF, errno.ENOENT)
        with suppress(OSError):
            poller.unregister(fd)
        os.dup2(far.fileno(), fd)
        try:
            poller.register(fd, POLLOUT)
            expect_events(poller, {fd: WRITABLE})
            poller.unregister(fd)
        finally:
            os.close(fd)


def test_modify_replaces_the_interest(poller: Poller, pair: Pair) -> None:
    near, far = pair
    fd = near.fileno()
    poller.register(fd, POLLIN)
    expect_no_events(poller, fd, spurious=2)
    poller.modify(fd, POLLOUT)
    expect_events(poller, {fd: POLLOUT})
    poller.modify(fd, POLLIN)
    expect_no_events(poller, fd, spurious=2)
    far.send(b"x")
    expect_events(poller, {fd: POLLIN})
    poller.modify(fd, POLLIN | POLLOUT)
    expect_events(poller, {fd: POLLOUT})
    expect_events(poller, {fd: POLLIN})


def test_both_interests_are_returned_as_one_event(poller: Poller, pair: Pair) -> None:
    near, far = pair
    far.send(b"x")
    poller.register(near.fileno(), POLLIN | POLLOUT)
    for _ in range(3):
        events = poller.poll(5)
        assert [fd for fd, _ in events] == [near.fileno()]
    assert events[0][1] & (POLLIN | POLLOUT) == POLLIN | POLLOUT


def test_unregistered_fds_are_silent(poller: Poller, pair: Pair) -> None:
    near, far = pair
    fd = near.fileno()
    poller.register(fd, POLLIN)
    far.send(b"x")
    expect_events(poller, {fd: POLLIN})
    poller.unregister(fd)
    expect_no_events(poller, fd)
    poller.register(fd, POLLIN)
    expect_events(poller, {fd: POLLIN})


def test_an_event_that_waits_is_dropped_with_its_registration(
    poller: Poller, tcp_pairs: Callable[[], Pair]
) -> None:
    """Three are ready, one is returned; the other two are unregistered before they could be."""
    pairs = [tcp_pairs() for _ in range(3)]
    fds = [near.fileno() for near, _ in pairs]
    for near, far in pairs:
        far.send(b"x")
        poller.register(near.fileno(), POLLIN)
    first = poller.poll(5, max_events=1)
    assert len(first) == 1
    for fd in fds:
        poller.unregister(fd)
    expect_no_events(poller, *fds)


def test_the_interest_in_a_half_close_is_accepted(poller: Poller, pair: Pair) -> None:
    near, far = pair
    poller.register(near.fileno(), POLLIN | POLLRDHUP)
    far.shutdown(socket.SHUT_WR)
    expect_events(poller, {near.fileno(): READABLE})


def refusal_to_register(poller: Poller, fd: int) -> int | None:
    """The errno with which the facility refuses to watch `fd`, or None."""
    try:
        poller.register(fd, POLLIN)
    except OSError as error:
        return error.errno
    return None


def test_regular_files_are_refused_or_ready(poller: Poller, tmp_path: Path) -> None:
    """Acceptable: EPERM at register (epoll), or always ready (the others)."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with path.open("rb") as file:
        refusal = refusal_to_register(poller, file.fileno())
        assert refusal in (None, errno.EPERM)
        if refusal is None:
            expect_events(poller, {file.fileno(): POLLIN})
            poller.unregister(file.fileno())


def test_two_queue_files_are_watched_or_refused(poller: Poller, tmp_path: Path) -> None:
    """A FIFO opened for both.  Acceptable: its events, or a refusal: an error or POLLNVAL."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        refusal = refusal_to_register(poller, fd)
        assert refusal in (None, errno.EINVAL)
        if refusal:
            return
        os.write(fd, b"x")
        expect_events(poller, {fd: READABLE})
        with suppress(FileNotFoundError):  # gone by itself after POLLNVAL
            poller.unregister(fd)
        expect_no_events(poller, fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("max_events", [0, -1])
def test_a_poll_may_return_something(any_poller: Poller, max_events: int) -> None:
    with pytest.raises(ValueError, match="max_events"):
        any_poller.poll(0, max_events)
