"""The hot path of a file swarm, against peers that answer exactly as each test says."""

from __future__ import annotations

import itertools
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pollers
from loadtest._block import CLOSED, WRONG
from loadtest._file_exchange import EDGE, EXCESS, UNASKED, WHOLE, FileExchange, can_drop
from loadtest._response import trouble
from loadtest._shelf import HotShelf
from loadtest._site import File, Site, parse_mix
from loadtest._slow import SlowReaders
from pollers.base import POLLIN

SMALL, LARGE = 1000, WHOLE + 3 * EDGE


def make_site(size: int) -> Site:
    site = Site(parse_mix(str(size)))
    site.requests("h:1")
    return site


class Pair:
    """An exchange over one active connection and one idle, and the other ends of both."""

    def __init__(self, site: Site, poller: pollers.Poller, drops: bool = False) -> None:
        self.site = site
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.ours, self.peers = [], []
            for _ in range(2):
                self.ours.append(socket.create_connection(listener.getsockname()))
                self.peers.append(listener.accept()[0])
        for sock in self.ours:
            sock.setblocking(False)
            poller.register(sock.fileno(), POLLIN)
        self.exchange = FileExchange(
            poller, self.ours, [0], site, HotShelf(site, seed=1), drops=drops
        )
        self.peer, self.idle = self.peers
        self.peer.settimeout(5)

    def asked(self) -> File:
        """The file that the next request names, once that has come."""
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            self.exchange.turn(0)
            try:
                self.peer.setblocking(False)
                request += self.peer.recv(4096)
            except BlockingIOError:
                continue
        path = request.split()[1].decode()
        assert request == f"GET {path} HTTP/1.1\r\nHost: h:1\r\n\r\n".encode()
        return next(file for file in self.site.files if f"/{file.path}" == path)

    def answer(self, file: File, pieces: list[int] | None = None, **changes: Any) -> None:
        """Send the response for `file`, cut at `pieces`."""
        self.feed(response(self.site, file, **changes), pieces)

    def feed(self, data: bytes, pieces: list[int] | None = None) -> None:
        self.peer.settimeout(5)
        cuts = sorted({0, len(data), *(at % len(data) for at in pieces or ())})
        for first, last in itertools.pairwise(cuts):
            rest = memoryview(data)[first:last]
            while rest:
                rest = rest[self.peer.send(rest[: 1 << 16]) :]
                self.exchange.turn(0)

    def until(self, messages: int) -> Any:
        """What was observed when so many responses or any error came."""
        total = self.exchange.collect()
        deadline = time.monotonic() + 5
        while total.messages < messages and not total.errors:
            assert time.monotonic() < deadline
            self.exchange.turn(0.01)
            total.add(self.exchange.collect())
        return total

    def close(self) -> None:
        self.exchange.close()
        for sock in self.ours + self.peers:
            sock.close()


def response(site: Site, file: File, **changes: Any) -> bytes:
    body = bytes(site.expected(file))
    given: dict[str, Any] = {"status": "200 OK", "length": len(body), "extra": "", "body": body}
    given |= changes
    head = f"HTTP/1.1 {given['status']}\r\nServer: t\r\n{given['extra']}"
    head += f"Content-Length: {given['length']}\r\n\r\n"
    return head.encode() + given["body"]


@contextmanager
def pair(size: int = SMALL, drops: bool = False) -> Iterator[Pair]:
    with pollers.create("poll") as poller:
        made = Pair(make_site(size), poller, drops)
        try:
            yield made
        finally:
            made.close()


@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize("size", [1, SMALL, LARGE])
def test_whole_files_are_counted_and_bring_the_next_request(size: int, drops: bool) -> None:
    if drops and not can_drop():
        pytest.skip("this kernel does not drop the bytes of a TCP stream (MSG_TRUNC)")
    with pair(size, drops) as one:
        seen = set()
        for _ in range(20):
            file = one.asked()
            seen.add(file.path)
            one.answer(file)
        done = one.until(20)
    assert not done.errors
    assert done.messages == done.service.total == 20
    assert done.bytes == 20 * size
    assert done.compared == (20 if size <= WHOLE else 20 // 8)
    assert done.kinds[str(size)].total == 20
    assert len(seen) > 3


@settings(max_examples=40, deadline=None)
@given(size=st.sampled_from([1, SMALL, LARGE]), pieces=st.lists(st.integers(1, LARGE), max_size=6))
def test_a_response_may_come_in_any_pieces(size: int, pieces: list[int]) -> None:
    with pair(size) as one:
        for _ in range(2):
            one.answer(one.asked(), pieces)
        done = one.until(2)
    assert not done.errors
    assert done.messages == 2


def flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("known", [False, True], ids=["first", "later"])
@pytest.mark.parametrize("at", [0, 500, SMALL - 1])
def test_any_wrong_byte_of_a_small_file_is_seen(at: int, known: bool) -> None:
    with pair() as one:
        if known:  # every file was answered once, so that lengths are known
            for _ in one.site.files:
                one.answer(one.asked())
            assert not one.until(len(one.site.files)).errors
        file = one.asked()
        one.answer(file, body=flipped(bytes(one.site.expected(file)), at))
        done = one.until(1)
        assert done.errors == {WRONG: 1}
        assert one.exchange.open == 0


@pytest.mark.parametrize("at", [0, EDGE - 1, LARGE - EDGE, LARGE - 1])
@pytest.mark.parametrize("drops", [False, True])
def test_a_wrong_byte_at_an_end_of_a_large_file_is_always_seen(at: int, drops: bool) -> None:
    if drops and not can_drop():
        pytest.skip("this kernel does not drop the bytes of a TCP stream (MSG_TRUNC)")
    with pair(LARGE, drops) as one:
        file = one.asked()
        one.answer(file, body=flipped(bytes(one.site.expected(file)), at))
        assert one.until(1).errors == {WRONG: 1}


@pytest.mark.parametrize("at", [0, EDGE - 1, LARGE - EDGE, LARGE - 1])
@pytest.mark.parametrize("drops", [False, True])
def test_also_where_that_end_comes_in_two_pieces(at: int, drops: bool) -> None:
    if drops and not can_drop():
        pytest.skip("this kernel does not drop the bytes of a TCP stream (MSG_TRUNC)")
    with pair(LARGE, drops) as one:
        file = one.asked()
        wrong = flipped(bytes(one.site.expected(file)), at)
        with suppress(ConnectionError):  # it does not wait for the rest
            one.answer(file, [-LARGE + EDGE // 2, -EDGE // 2], body=wrong)
        assert one.until(1).errors == {WRONG: 1}


def test_a_wrong_byte_within_a_large_file_is_seen_in_one_response_of_eight() -> None:
    with pair(LARGE) as one:
        for number in range(1, 9):
            file = one.asked()
            one.answer(file, body=flipped(bytes(one.site.expected(file)), LARGE // 2))
            done = one.until(1)
            assert done.errors == ({WRONG: 1} if number == 8 else {})


def test_another_file_of_the_same_size_is_wrong() -> None:
    with pair() as one:
        file = one.asked()
        other = next(known for known in one.site.files if known is not file)
        one.answer(other)
        assert one.until(1).errors == {WRONG: 1}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"status": "404 Not Found"}, "status 404"),
        ({"length": SMALL - 1}, "another Content-Length"),
        ({"extra": "Transfer-Encoding: chunked\r\n"}, "transfer-encoding without"),
        ({"extra": "Connection: keep-alive, close\r\n"}, "Connection: close"),
        ({"extra": f"X: {'y' * 20000}\r\n"}, "a head without an end"),
    ],
)
def test_what_is_no_whole_file_is_an_error_with_its_name(
    changes: dict[str, Any], why: str
) -> None:
    with pair() as one:
        one.answer(one.asked(), **changes)
        (error,) = one.until(1).errors
        assert why in error


def test_bytes_that_nobody_asked_for_are_wrong_before_and_behind() -> None:
    with pair() as one:
        file = one.asked()
        one.idle.sendall(b"HTTP/1.1 200 OK\r\n")
        assert one.until(1).errors == {UNASKED: 1}
        one.feed(response(one.site, file) + b"x")
        assert one.until(1).errors == {EXCESS: 1}


@pytest.mark.parametrize("sent", [0, 20, 600])
def test_an_end_of_file_at_any_place_is_an_error(sent: int) -> None:
    with pair() as one:
        data = response(one.site, one.asked())
        one.peer.sendall(data[:sent])
        one.peer.shutdown(socket.SHUT_WR)
        assert one.until(1).errors == {CLOSED: 1}


def test_a_connection_without_its_whole_response_is_given_up() -> None:
    with pair() as one:
        one.asked()
        one.exchange.expire(60)
        assert one.exchange.open == 1
        one.exchange.expire(0)
        assert one.exchange.open == 0
        assert one.exchange.collect().errors == {"no whole response within 0 s": 1}


@given(st.binary(max_size=200), st.integers(0, 10**6))
def test_whatever_a_head_holds_it_is_judged_and_never_raises(head: bytes, size: int) -> None:
    assert trouble(head, size)  # no random bytes are the head of a file
    good = b"HTTP/1.1 200 \r\ncontent-LENGTH: %d\r\n\r\n" % size
    assert trouble(good, size) == ""
    assert trouble(good, size + 1)


# -- slow readers


def test_a_slow_reader_takes_whole_files_at_its_rate_and_sees_what_is_wrong() -> None:
    site = make_site(SMALL)
    rate = 4000.0
    ours, peer = socket.socketpair()
    with peer:
        ours.setblocking(False)
        slow = SlowReaders([ours], site, rate, patience=5.0)
        errors: Counter[str] = Counter()
        began = time.monotonic()

        def until_asked() -> None:
            peer.settimeout(0.01)
            while True:
                slow.turn(errors)
                try:
                    assert peer.recv(4096) == site.largest.request
                except TimeoutError:
                    continue
                return

        until_asked()
        for files in (1, 2):
            peer.sendall(response(site, site.largest))
            until_asked()  # it asks again when it has it all
            assert slow.files == files
        assert time.monotonic() - began >= 2 * SMALL / rate - 0.2  # no more than the rate
        assert not errors
        peer.sendall(response(site, site.largest, body=bytes(SMALL)))
        while slow.open:
            slow.turn(errors)
        assert errors == {f"slow reader: {WRONG}": 1}


@pytest.mark.parametrize(("patience", "why"), [(5.0, CLOSED), (0.0, "no byte within 0 s")])
def test_a_slow_reader_that_gets_no_more_is_an_error(patience: float, why: str) -> None:
    ours, peer = socket.socketpair()
    with peer:
        ours.setblocking(False)
        slow = SlowReaders([ours], make_site(SMALL), 1000.0, patience)
        errors: Counter[str] = Counter()
        if patience:
            slow.turn(errors)
            peer.recv(4096)
            peer.shutdown(socket.SHUT_WR)
        while slow.open:
            slow.turn(errors)
        slow.close()
    assert errors == {f"slow reader: {why}": 1}
