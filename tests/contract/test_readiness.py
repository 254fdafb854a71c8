"""Contract 1, 2 and 8: what is ready is returned, for as long as it is, and in poll(2)'s bits."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable

import pytest
from expectations import Pair, expect_events, expect_no_events, fill, receive_to_end
from serverprocess import until

from pollers import POLLIN, POLLOUT, POLLPRI, READABLE, WRITABLE
from pollers.base import Poller
from pollers.libkqueue import DIFFERENCES

#: Sends RST at close instead of FIN.
LINGER_0 = struct.pack("ii", 1, 0)


def test_nothing_is_ready_at_first(poller: Poller, pair: Pair) -> None:
    poller.register(pair[0].fileno(), POLLIN)
    expect_no_events(poller, pair[0].fileno(), spurious=2)


def test_readable_until_read(poller: Poller, pair: Pair) -> None:
    near, far = pair
    poller.register(near.fileno(), POLLIN)
    far.send(b"xy")
    for _ in range(3):
        expect_events(poller, {near.fileno(): POLLIN})
    near.recv(1)
    expect_events(poller, {near.fileno(): POLLIN})
    near.recv(1)
    expect_no_events(poller, near.fileno(), spurious=2)
    far.send(b"z")
    expect_events(poller, {near.fileno(): POLLIN})


def test_data_that_came_before_the_registration(poller: Poller, pair: Pair) -> None:
    near, far = pair
    far.send(b"x")
    poller.register(near.fileno(), POLLIN)
    assert dict(poller.poll(5))[near.fileno()] & POLLIN


def test_writable_until_full(poller: Poller, pair: Pair) -> None:
    near, far = pair
    poller.register(near.fileno(), POLLOUT)
    for _ in range(3):
        expect_events(poller, {near.fileno(): POLLOUT})
    sent = fill(near)
    expect_no_events(poller, near.fileno(), spurious=2)
    while sent:
        sent -= len(far.recv(1 << 20))
    expect_events(poller, {near.fileno(): POLLOUT})


def test_every_ready_fd_is_returned(poller: Poller, tcp_pairs: Callable[[], Pair]) -> None:
    pairs = [tcp_pairs() for _ in range(20)]
    for near, _ in pairs:
        poller.register(near.fileno(), POLLIN)
    ready = pairs[::2]
    for _, far in ready:
        far.send(b"x")
    expect_events(poller, {near.fileno(): POLLIN for near, _ in ready})
    expect_no_events(poller, *(near.fileno() for near, _ in pairs[1::2]), spurious=2)


def test_each_fd_is_returned_once_a_poll(poller: Poller, pair: Pair) -> None:
    near, far = pair
    poller.register(near.fileno(), POLLIN | POLLOUT)
    poller.register(far.fileno(), POLLIN | POLLOUT)
    near.send(b"x")
    far.send(b"x")
    for _ in range(5):
        fds = [fd for fd, _ in poller.poll(5)]
        assert len(fds) == len(set(fds))


def test_events_come_as_a_list_of_pairs(poller: Poller, pair: Pair) -> None:
    poller.register(pair[0].fileno(), POLLOUT)
    events = poller.poll(5)
    assert type(events) is list
    ((fd, bits),) = events
    assert (type(fd), type(bits)) == (int, int)
    assert (fd, bits & POLLOUT) == (pair[0].fileno(), POLLOUT)


def test_a_listener_is_readable_when_it_can_accept(poller: Poller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        poller.register(listener.fileno(), POLLIN)
        expect_no_events(poller, listener.fileno(), spurious=2)
        with socket.create_connection(listener.getsockname()):
            expect_events(poller, {listener.fileno(): POLLIN})
            listener.accept()[0].close()
        expect_no_events(poller, listener.fileno(), spurious=2)
        poller.unregister(listener.fileno())


def test_a_connect_ends_in_writability(poller: Poller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.setblocking(False)
        assert client.connect_ex(listener.getsockname()) == errno.EINPROGRESS
        poller.register(client.fileno(), POLLOUT)
        expect_events(poller, {client.fileno(): POLLOUT})
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        poller.unregister(client.fileno())


@pytest.mark.parametrize(("interest", "expected"), [(POLLIN, READABLE), (POLLOUT, WRITABLE)])
def test_a_refused_connect_wakes_reader_and_writer(
    poller: Poller, interest: int, expected: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    with socket.socket() as client:
        client.setblocking(False)
        client.connect_ex(address)
        poller.register(client.fileno(), interest)
        expect_events(poller, {client.fileno(): expected})
        if poller.emulated:
            pytest.skip(f"woken, as it should be, but then: {DIFFERENCES['socket error']}")
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
        poller.unregister(client.fileno())


@pytest.mark.parametrize(("interest", "expected"), [(POLLIN, READABLE), (POLLOUT, WRITABLE)])
@pytest.mark.parametrize("early", [True, False], ids=["before", "after"])
def test_a_reset_wakes_reader_and_writer(
    poller: Poller, tcp: Pair, interest: int, expected: int, early: bool
) -> None:
    """Also a writer that waits for room which will never come."""
    near, far = tcp
    if interest == POLLOUT:
        fill(near)
    if early:
        poller.register(near.fileno(), interest)
        expect_no_events(poller, near.fileno(), spurious=2)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
    far.close()
    if not early:
        poller.register(near.fileno(), interest)
    expect_events(poller, {near.fileno(): expected})
    if poller.emulated:
        pytest.skip(f"woken, as it should be, but then: {DIFFERENCES['socket error']}")
    with pytest.raises(ConnectionResetError):
        near.recv(1)


@pytest.mark.parametrize(("interest", "expected"), [(POLLIN, READABLE), (POLLOUT, WRITABLE)])
def test_a_hang_up_wakes_reader_and_writer(
    poller: Poller, pair: Pair, interest: int, expected: int
) -> None:
    near, far = pair
    if interest == POLLOUT:
        fill(near)
    poller.register(near.fileno(), interest)
    expect_no_events(poller, near.fileno(), spurious=2)
    far.close()
    for _ in range(3):  # a hang-up is a condition, too: it stays
        expect_events(poller, {near.fileno(): expected})


def test_a_pipe_without_writers_wakes_its_reader(poller: Poller) -> None:
    reader, writer = os.pipe()
    try:
        poller.register(reader, POLLIN)
        expect_no_events(poller, reader, spurious=2)
        os.close(writer)
        expect_events(poller, {reader: READABLE})
        poller.unregister(reader)
    finally:
        os.close(reader)


def test_a_pipe_without_readers_wakes_its_writer(poller: Poller) -> None:
    reader, writer = os.pipe()
    try:
        os.set_blocking(writer, False)
        while True:
            try:
                os.write(writer, bytes(4096))
            except BlockingIOError:
                break
        poller.register(writer, POLLOUT)
        expect_no_events(poller, writer, spurious=2)
        os.close(reader)
        expect_events(poller, {writer: WRITABLE})
        poller.unregister(writer)
    finally:
        os.close(writer)


def test_data_before_the_end_is_not_lost(poller: Poller, tcp: Pair) -> None:
    near, far = tcp
    poller.register(near.fileno(), POLLIN)
    far.send(b"last words")
    far.close()
    expect_events(poller, {near.fileno(): READABLE})
    assert near.recv(4) == b"last"
    expect_events(poller, {near.fileno(): READABLE})
    assert near.recv(100) == b" words"
    expect_events(poller, {near.fileno(): READABLE})
    assert near.recv(1) == b""


def test_a_half_close_still_delivers_what_is_left_to_send(poller: Poller, tcp: Pair) -> None:
    """The peer has said all it had to say, and wants to hear the rest."""
    near, far = tcp
    far.shutdown(socket.SHUT_WR)
    poller.register(near.fileno(), POLLIN)
    expect_events(poller, {near.fileno(): READABLE})
    assert near.recv(1) == b""

    message = os.urandom(1 << 20) * 8
    left = memoryview(message)
    left = left[near.send(left) :]
    poller.modify(near.fileno(), POLLOUT)  # from here on POLLIN would be ready for ever
    received = bytearray()
    while left:
        try:
            received += far.recv(1 << 20)
        except BlockingIOError:
            expect_events(poller, {near.fileno(): POLLOUT})
            left = left[near.send(left[:65536]) :]
    poller.unregister(near.fileno())
    near.close()
    received += receive_to_end(far)
    assert received == message


def test_urgent_data(poller: Poller, adapter: str, tcp: Pair) -> None:
    near, far = tcp
    poller.register(near.fileno(), POLLIN | POLLPRI)
    far.send(b"!", socket.MSG_OOB)
    if adapter == "kqueue":  # has no filter for it everywhere: only that nothing breaks
        far.send(b"x")
        expect_events(poller, {near.fileno(): READABLE})
    else:
        expect_events(poller, {near.fileno(): POLLPRI})


def test_what_is_ready_can_be_taken_without_waiting(poller: Poller, tcp: Pair) -> None:
    near, far = tcp
    poller.register(near.fileno(), POLLIN)
    poller.poll(0)
    far.send(b"x")
    until(lambda: near.fileno() in dict(poller.poll(0)))
