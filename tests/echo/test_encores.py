"""Encores of the backend `batch`: what comes right after an answer, before the next poll.

The reactor, its poller, the batches and the sockets are the real ones.  What the peers do between
an answer and the encore they do when the encore begins, in the server's own thread.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, cast

import pytest
from serving import read_exactly, reset

import pollers
from servers.echo.encores import LONGEST_PAUSE, Encores
from servers.echo.on_reactor import EchoService
from servers.lifecycle import Tally
from servers.reactor import Reactor

CHUNK = 16384  # of one place
MANY = 20  # enough for a batch
COHORTS = 300  # enough for three


# -- when


def test_an_encore_that_pays_is_followed_by_the_next() -> None:
    encores = Encores()
    for _ in range(10):
        assert encores.due()
        encores.tell(100, 50)
    assert (encores.tried, encores.found) == (1000, 500)


def test_those_that_do_not_pay_become_rare() -> None:
    encores = Encores()
    waits = []
    for _ in range(7):
        wait = 0
        while not encores.due():
            wait += 1
        waits.append(wait)
        encores.tell(100, 49)
    assert waits == [0, 1, 2, 4, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]


def test_one_that_pays_ends_the_pauses() -> None:
    encores = Encores()
    for _ in range(5):
        while not encores.due():
            pass
        encores.tell(2, 0)
    while not encores.due():
        pass
    encores.tell(2, 1)
    assert encores.due()
    encores.tell(2, 0)
    assert not encores.due()
    assert encores.due()


# -- what


class Service:
    """As much of an EchoService as a connection knows, and who was dropped."""

    def __init__(self, poller: pollers.Poller) -> None:
        from servers.echo.reactor_batch import Batches

        self.reactor = Reactor(poller)
        self.tally = Tally()
        self.batches = batches = Batches(poller, 512)
        self.interest, self.edge = batches.interest, batches.edge
        self.dropped: list[tuple[int, bool]] = []
        #: What the peers do before the encore.
        self.meanwhile: Callable[[], None] = lambda: None
        echo = batches._echo

        def watched(fds: Any, **how: Any) -> Any:
            if not how.get("told", True):
                self.meanwhile()
            return echo(fds, **how)

        batches._echo = watched  # type: ignore[method-assign]

    def drop(self, connection: Any, reset: bool = False) -> None:
        self.dropped.append((connection.fd, reset))
        self.reactor.close(connection.fd, connection)

    def turn(self) -> None:
        """Handle what is ready, as the reactor does; a second poll sees the end of the first."""
        self.reactor.poll_by(self._last)
        self.reactor.run()

    def _last(self, timeout: float | None, most: int) -> pollers.Events:
        self.reactor.stop()
        events = self.batches.poll(0.5, most)
        # The wake-up of stop() is no event, but may be all that there was.
        return events or self.batches.poll(0.1, most)


POLLERS = ("epoll", "poll", "select", "aio")


@pytest.fixture(params=POLLERS)
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    for name in (request.param, "aio"):
        found = pollers.probe(name)
        if not found.available:
            pytest.skip(found.reason)
    with pollers.create(request.param) as poller:
        service = Service(poller)
        yield service
        service.batches.close()


@pytest.fixture
def peers(service: Service, request: pytest.FixtureRequest) -> Iterator[list[socket.socket]]:
    """The far ends of connections; the first one is what a test is about."""
    count = getattr(request, "param", MANY)
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=count))
        peers = []
        connections = []
        for _ in range(count):
            peer = stack.enter_context(socket.create_connection(listener.getsockname()))
            peer.settimeout(5)
            peers.append(peer)
            near = stack.enter_context(listener.accept()[0])
            near.setblocking(False)
            connection = service.batches.connection(near, cast(EchoService, service))
            connections.append(connection)
            service.reactor.add(
                connection.fd, service.interest, connection.on_readable, service.edge
            )
        yield peers
        gone = {fd for fd, _ in service.dropped}
        for connection in connections:
            if connection.fd not in gone:
                service.reactor.remove(connection.fd)
                service.batches.remove(connection.fd)


def ask(peers: list[socket.socket]) -> None:
    for peer in peers:
        peer.sendall(b"first")


def answered(peers: list[socket.socket], what: bytes = b"first") -> None:
    for peer in peers:
        assert read_exactly(peer, len(what)) == what


@pytest.mark.parametrize(("peers", "batches"), [(MANY, 1), (COHORTS, 3)], indirect=["peers"])
def test_answers_that_come_at_once_need_no_poll(
    service: Service, peers: list[socket.socket], batches: int
) -> None:
    """Every cohort is served twice, and nobody is told of afterwards who has nothing."""
    ask(peers)
    waiting = list(peers)

    def meanwhile() -> None:
        for peer in select.select(waiting, [], [], 0)[0]:
            answered([peer])
            peer.sendall(b"second")
            waiting.remove(peer)

    service.meanwhile = meanwhile
    service.turn()
    answered(peers, b"second")
    done = service.batches
    assert (done.encores.tried, done.encores.found) == (len(peers), len(peers))
    assert done.messages == 2 * len(peers)
    assert done.take_received() == len(peers) * len(b"firstsecond")
    assert done.batches == batches, "who was received from was told of once more"


def test_a_few_are_not_worth_it(service: Service, peers: list[socket.socket]) -> None:
    """Those that are answered of a batch may be fewer than a batch is made for."""
    ask(peers[:5])
    for peer in peers[5:]:
        peer.shutdown(socket.SHUT_WR)
    service.turn()
    answered(peers[:5])
    assert service.batches.encores.tried == 0


def test_whoever_has_nothing_is_asked_by_the_next_poll(
    service: Service, peers: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    from servers.echo.reactor_batch import BatchConnection

    def read_on(connection: object) -> None:
        pytest.fail("it is read for nothing")

    monkeypatch.setattr(BatchConnection, "read_on", read_on)
    ask(peers)
    service.turn()
    answered(peers)
    assert (service.batches.encores.tried, service.batches.encores.found) == (MANY, 0)
    assert not service.dropped
    ask(peers)
    service.turn()
    answered(peers)
    assert service.batches.encores.tried == MANY, "the first pause was left out"


@pytest.mark.parametrize("message", [b"", b"last"], ids=["alone", "behind bytes"])
def test_an_end_of_file_before_the_encore(
    service: Service, peers: list[socket.socket], message: bytes
) -> None:
    ask(peers)

    def meanwhile() -> None:
        peers[0].sendall(message)
        peers[0].shutdown(socket.SHUT_WR)

    service.meanwhile = meanwhile
    service.turn()
    while not service.dropped:
        service.turn()
    assert [reset for _, reset in service.dropped] == [False]
    assert read_exactly(peers[0], 5 + len(message)) == b"first" + message
    assert peers[0].recv(1) == b""
    answered(peers[1:])


def test_a_reset_before_the_encore(service: Service, peers: list[socket.socket]) -> None:
    ask(peers)
    service.meanwhile = lambda: reset(peers[0])
    service.turn()
    while not service.dropped:
        service.turn()
    assert [reset for _, reset in service.dropped] == [True]
    answered(peers[1:])


@pytest.mark.parametrize("size", [CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5])
def test_more_than_a_place_holds(service: Service, peers: list[socket.socket], size: int) -> None:
    """What the encore leaves is told by the next poll, or read on, in order."""
    ask(peers)
    data = bytes(i % 251 for i in range(size))
    service.meanwhile = lambda: peers[0].sendall(data)
    service.turn()
    service.meanwhile = lambda: None
    assert read_exactly(peers[0], 5) == b"first"
    got = b""
    peers[0].setblocking(False)
    while len(got) < size:
        try:
            got += peers[0].recv(size)
        except BlockingIOError:
            service.turn()
    assert got == data


def test_an_urgent_mark_holds_nothing_up(service: Service, peers: list[socket.socket]) -> None:
    """The encore's receive stops at the mark, short, and the socket is not empty."""
    ask(peers)

    def meanwhile() -> None:
        peers[0].sendall(b"abc")
        peers[0].send(b"!", socket.MSG_OOB)
        peers[0].sendall(b"def")

    service.meanwhile = meanwhile
    service.turn()
    service.meanwhile = lambda: None
    peers[0].setblocking(False)
    got = b""
    for _ in range(20):
        try:
            got += peers[0].recv(100)
        except BlockingIOError:
            service.turn()
        if got == b"firstabcdef":
            break
    assert got == b"firstabcdef"


def test_who_stalls_is_not_asked_again(service: Service, peers: list[socket.socket]) -> None:
    """A peer that takes no more is left out, and gets what it is owed in order."""
    near = next(iter(service.batches._connections.values())).sock
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    owed = refusals = 0
    while refusals < 2:
        try:
            owed += near.send(bytes(CHUNK))
            refusals = 0
        except BlockingIOError:  # TCP may send some of it a little later
            refusals += 1
            select.select([], [near], [], 0.1)
    slow, data = peers[0], bytes(i % 251 for i in range(2 * CHUNK))
    slow.sendall(data)
    ask(peers[1:])
    service.turn()
    answered(peers[1:])
    assert service.tally.stalls == 1
    assert service.batches.encores.tried == MANY - 1
    assert read_exactly(slow, owed) == bytes(owed)
    slow.setblocking(False)
    got = b""
    while len(got) < len(data):
        try:
            got += slow.recv(len(data))
        except BlockingIOError:
            service.turn()
    assert got == data
