"""The hot path of a swarm, against peers that answer exactly as each test says."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic_ns
from typing import TypeAlias

import pytest

import pollers
from loadtest._exchange import CLOSED, WRONG, Exchange, payloads
from loadtest._pipeline import Pipeline
from loadtest._schedule import Schedule
from pollers.base import POLLIN

SIZE = 100


Sockets: TypeAlias = list[socket.socket]


@contextmanager
def connected(count: int) -> Iterator[tuple[pollers.Poller, Sockets, Sockets]]:
    pairs = [socket.socketpair() for _ in range(count)]
    ours, peers = [a for a, _ in pairs], [b for _, b in pairs]
    with pollers.create("poll") as poller:
        for sock in ours:
            sock.setblocking(False)
            poller.register(sock.fileno(), POLLIN)
        try:
            yield poller, ours, peers
        finally:
            for sock in ours + peers:
                sock.close()


def turns(exchange: Exchange, count: int = 3) -> None:
    for _ in range(count):
        exchange.turn(0)


def receive(peer: socket.socket, size: int = SIZE) -> bytes:
    peer.settimeout(5)
    return peer.recv(size, socket.MSG_WAITALL)


def test_payloads_differ_from_their_neighbours() -> None:
    for size in (4, 64, 1 << 20):
        made = payloads(size, seed=3)
        assert len(set(made)) == len(made) >= 3
        assert {len(payload) for payload in made} == {size}


def test_only_active_connections_send_and_an_echo_brings_the_next_message() -> None:
    with connected(3) as (poller, ours, peers):
        exchange = Exchange(poller, ours, [0, 2], SIZE, seed=1)
        turns(exchange)
        first = receive(peers[0])
        other = receive(peers[2])
        assert first != other
        peers[1].setblocking(False)
        with pytest.raises(BlockingIOError):
            peers[1].recv(1)
        peers[0].sendall(first)
        turns(exchange)
        assert receive(peers[0]) not in (first, other)
        done = exchange.collect()
        assert done.messages == done.service.total == 1
        assert done.served[ours[0].fileno()] == 1
        assert not done.errors


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_an_echo_may_come_in_pieces(depth: int) -> None:
    with connected(1) as (poller, ours, peers):
        exchange = make(poller, ours, depth)
        turns(exchange)
        echo = receive(peers[0], SIZE * max(depth, 1))
        for at in range(0, len(echo), 7):
            peers[0].sendall(echo[at : at + 7])
            turns(exchange, 1)
        done = exchange.collect()
        assert done.messages == max(depth, 1)
        assert not done.errors


@pytest.mark.parametrize("depth", [0, 2])
def test_a_wrong_byte_is_an_error_and_ends_the_connection(depth: int) -> None:
    with connected(1) as (poller, ours, peers):
        exchange = make(poller, ours, depth)
        turns(exchange)
        echo = bytearray(receive(peers[0]))
        echo[-1] ^= 1
        peers[0].sendall(echo)
        turns(exchange)
        done = exchange.collect()
        assert done.errors == {WRONG: 1}
        assert (done.messages, exchange.open) == (0, 0)


@pytest.mark.parametrize("depth", [0, 2])
def test_bytes_that_nobody_asked_for_are_wrong(depth: int) -> None:
    with connected(2) as (poller, ours, peers):
        exchange = make(poller, ours, depth)
        turns(exchange)
        peers[1].sendall(b"unasked")  # slot 1 is idle
        peers[0].sendall(receive(peers[0], SIZE * max(depth, 1)) + b"x")
        turns(exchange)
        assert exchange.collect().errors == {WRONG: 2}


@pytest.mark.parametrize("depth", [0, 2])
def test_an_end_of_file_is_an_error_on_idle_connections_too(depth: int) -> None:
    with connected(2) as (poller, ours, peers):
        exchange = make(poller, ours, depth)
        turns(exchange)
        for peer in peers:
            receive(peer, 0)
            peer.shutdown(socket.SHUT_WR)
        turns(exchange)
        done = exchange.collect()
        assert done.errors == {CLOSED: 2}
        assert (done.messages, exchange.open) == (0, 0)


def test_a_message_beyond_the_socket_buffer_is_sent_when_there_is_room() -> None:
    size = 4 << 20
    with connected(1) as (poller, ours, peers):
        exchange = Exchange(poller, ours, [0], size, seed=1)
        peer, received = peers[0], bytearray()
        peer.setblocking(False)
        while len(received) < size:
            exchange.turn(0)
            received += peer.recv(1 << 20)
        returned = 0
        while not exchange.collect().messages:
            if returned < size:
                returned += peer.send(received[returned : returned + (1 << 18)])
            exchange.turn(0)
        assert exchange.open == 1


def test_a_connection_without_its_echo_is_given_up_and_an_idle_one_is_not() -> None:
    for depth in (0, 2):
        with connected(2) as (poller, ours, _):
            exchange = make(poller, ours, depth)
            turns(exchange)
            exchange.expire(60)
            assert exchange.open == 1
            exchange.expire(0)
            assert exchange.open == 0
            assert sum(exchange.collect().errors.values()) == 1


def test_depth_messages_are_in_flight_and_no_more() -> None:
    with connected(1) as (poller, ours, peers):
        exchange = make(poller, ours, 4)
        turns(exchange)
        sent = receive(peers[0], 4 * SIZE)
        assert len(set(chunks(sent))) == 4
        peers[0].setblocking(False)
        with pytest.raises(BlockingIOError):
            peers[0].recv(1)
        peers[0].sendall(sent[: 2 * SIZE])
        turns(exchange)
        assert len(receive(peers[0], 2 * SIZE)) == 2 * SIZE
        assert exchange.collect().messages == 2


def test_a_late_message_counts_from_when_it_was_meant_to_go() -> None:
    """The server holds an echo back for five periods: what queued behind it shows the wait."""
    rate, period = 100.0, 10_000_000
    with connected(1) as (poller, ours, peers):
        schedule = Schedule(rate, 1, monotonic_ns())
        exchange = Pipeline(poller, ours, [0], SIZE, 1, depth=1, schedule=schedule)
        turns(exchange)
        held = receive(peers[0])
        while schedule.cursor < 6:  # the time of five more messages passes
            exchange.turn(0.001)
        peers[0].sendall(held)
        for _ in range(5):
            turns(exchange)
            peers[0].sendall(receive(peers[0]))
        turns(exchange)
        done = exchange.collect()
        assert done.messages == 6
        assert done.intended is not None
        assert done.intended.total == 6
        # From the actual send it is less, by as much as the first message itself went late.
        assert done.service.maximum <= done.intended.maximum
        assert done.intended.maximum >= 5 * period
        # From the actual send five of six look fast; from the intended send they were late.
        assert done.intended.sum - done.service.sum >= (4 + 3 + 2 + 1) * period


def test_nothing_is_sent_before_its_time() -> None:
    with connected(2) as (poller, ours, peers):
        schedule = Schedule(0.001, 2, monotonic_ns() + 10**12)
        exchange = Pipeline(poller, ours, [0, 1], SIZE, 1, depth=1, schedule=schedule)
        turns(exchange)
        peers[0].setblocking(False)
        with pytest.raises(BlockingIOError):
            peers[0].recv(1)


def make(poller: pollers.Poller, ours: Sockets, depth: int) -> Exchange:
    """A closed loop on the first connection; `depth` 0 asks for the plain exchange."""
    if depth:
        return Pipeline(poller, ours, [0], SIZE, 1, depth=depth, schedule=None)
    return Exchange(poller, ours, [0], SIZE, seed=1)


def chunks(data: bytes) -> list[bytes]:
    return [data[at : at + SIZE] for at in range(0, len(data), SIZE)]
