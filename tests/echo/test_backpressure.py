"""Peers that read slowly, or never: bounded memory, no CPU, nobody disturbed, nothing lost."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest
from serving import REACTORS, Combination, EchoServer, Line, echo, fill, read_exactly

from servers.listen import CHUNK
from servers.pipes import LIMIT

MIB = 1 << 20

#: Peers that never read.
PEERS = 200

#: What each of them may cost the server in user memory, bytes: the one chunk that was read and
#: not yet written, and its objects (trio: a task with its stack).  Socket buffers are the
#: kernel's, and no part of it.
BOUND = CHUNK + 32 * 1024

#: Seconds without anything to do, of which a server may spend the share below.
WINDOW = 0.5
SHARE = 0.15  # a spinning loop takes all of it; less would count single clock ticks


@dataclass
class Peer:
    """A client that sends and does not read."""

    sock: socket.socket
    sent: int = 0

    def read_everything(self) -> bytes:
        """Begin to read, at full speed: what was sent, to the end of file."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB)
        self.sock.shutdown(socket.SHUT_WR)
        received = read_exactly(self.sock, self.sent)
        assert self.sock.recv(1) == b""
        return received


@contextmanager
def never_reading(server: EchoServer, count: int, send_buffer: int = 0) -> Iterator[list[Peer]]:
    """That many peers, with the smallest windows, and with small send buffers if asked for."""
    with ExitStack() as stack:
        peers = []
        for _ in range(count):
            sock = stack.enter_context(server.connect(receive_buffer=4096, segment=1400))
            if send_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
            peers.append(Peer(sock))
        yield peers


def settled(server: EchoServer, peers: list[Peer], source: bytes) -> Line:
    """Offer `source` until the server takes nothing any more; return its counters then."""
    before, quiet = -1, 0
    for _ in range(200):
        for peer in peers:
            peer.sent += fill(peer.sock, source[peer.sent :])
        line = server.counters()
        quiet = quiet + 1 if line["received"] == before else 0
        if quiet == 4:
            assert all(peer.sent < len(source) for peer in peers), "the server read without bound"
            return line
        before = line["received"]
        time.sleep(0.05)  # how long "nothing any more" is looked at
    pytest.fail("the server went on reading from peers that never read")


def test_peers_that_never_read(server: EchoServer) -> None:
    """200 of them, each offering 8 MiB, cost a chunk each and no CPU, and others are served."""
    source = random.Random(1).randbytes(8 * MIB)
    with server.connect() as other:
        echo(other, source[:MIB])  # what the first big transfer allocates is not theirs
        before = server.rss()
        with never_reading(server, PEERS) as peers:
            line = settled(server, peers, source)
            assert line["open"] == PEERS + 1
            growth = server.rss() - before
            assert growth < PEERS * BOUND, f"{growth / PEERS / 1024:.0f} KiB a peer"
            cpu = server.cpu()
            time.sleep(WINDOW)  # of what it does while it can do nothing, this much is looked at
            assert server.cpu() - cpu < SHARE * WINDOW
            echo(other, source[:MIB])
            with server.connect() as newcomer:
                echo(newcomer, source[:65537])
            # They begin to read: everything that was sent is there, in order.
            for peer in peers[:20]:
                assert peer.sent > MIB // 2
                assert peer.read_everything() == source[: peer.sent]
    after = server.until(lambda line: line["open"] == 0)
    assert after["idle_closes"] == 0


def test_slow_reader(server: EchoServer) -> None:
    """512 KiB at 4 KiB a millisecond through a window of a few segments arrives intact."""
    source = random.Random(2).randbytes(MIB // 2)
    sent, received = 0, bytearray()
    before = server.counters()
    with server.connect(receive_buffer=8192, segment=1400) as sock:
        while len(received) < len(source):
            if sent < len(source):
                sent += fill(sock, source[sent : sent + 262144])
            received += sock.recv(4096)
            time.sleep(0.001)  # this is what makes it slow
    assert received == source
    after = server.until(lambda line: line["closed"] > before["closed"])
    assert after["received"] - before["received"] == len(source)


def test_stalls_are_counted(combination: Combination, server: EchoServer) -> None:
    """Once a stall, however long it lasts; trio does not tell of its own, and counts none."""
    before = server.counters()
    source = bytes(8 * MIB)
    with never_reading(server, 1) as peers:
        line = settled(server, peers, source)
        stalls = line["stalls"] - before["stalls"]
        assert stalls == 0 if combination.loop == "trio" else 0 < stalls < 1000
        time.sleep(WINDOW / 5)  # a stall that lasts is the same one: so long none is counted
        assert server.counters()["stalls"] == line["stalls"]


def test_reset_of_stalled_peers(server: EchoServer) -> None:
    """RST while the server waits to write: it notices, frees everything, and counts it."""
    before = server.until(lambda line: line["open"] == 0)
    fds = server.fds()
    source = bytes(8 * MIB)
    with never_reading(server, 20) as peers:
        settled(server, peers, source)
        # Closing with unread bytes in the receive buffer sends RST.
    after = server.until(lambda line: line["open"] == 0)
    assert after["closed"] - before["closed"] == 20
    assert after["resets"] - before["resets"] == 20
    assert server.fds() <= fds


@pytest.mark.parametrize(
    "combination", [each for each in REACTORS if each.backend == "splice"], ids=str, indirect=True
)
def test_more_stalls_than_pipes(start: Callable[..., EchoServer]) -> None:
    """splice: beyond the pool's pipes, bytes are kept in memory; all arrive when peers read."""
    server = start()
    source = random.Random(3).randbytes(8 * MIB)
    count = LIMIT + 50
    with never_reading(server, count, send_buffer=32768) as peers:
        line = settled(server, peers, source)
        assert line["spills"] >= 50
        assert server.fds() < 2 * (LIMIT + 1) + count + 50
        for peer in peers:
            assert peer.read_everything() == source[: peer.sent]
    server.until(lambda line: line["open"] == 0)
    # The pipes are back in the pool, empty: the next stall does not see the last one's bytes.
    source = source[::-1]
    with never_reading(server, 20, send_buffer=32768) as peers:
        again = settled(server, peers, source)
        assert again["spills"] == line["spills"]
        assert again["stalls"] >= line["stalls"] + 20
        for peer in peers:
            assert peer.read_everything() == source[: peer.sent]
    server.until(lambda line: line["open"] == 0)
    assert server.stop()["open"] == 0
