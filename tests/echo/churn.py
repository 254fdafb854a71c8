"""Clients of every temper at once, with every reply checked: random sizes, churn, resets.

Each connection sends bytes from a place of its own in a pool of random bytes, so that a byte that
is lost, doubled, or another connection's shows at once.  What it does is decided by a seed: send a
message of a random size while others are under way, stop reading for a while, shut down and read
to the end, reset, close; then it is replaced.  All of a round is done before anything is read, so
that the server finds many connections ready at once.
"""

from __future__ import annotations

import random
import select
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from serving import DEADLINE

MIB: Final = 1 << 20
#: The same 1 MiB twice: a part of up to 1 MiB begins anywhere in the first.
POOL: Final = memoryview(2 * random.Random(0).randbytes(MIB))
#: Largest message, and how much of one connection may be under way, bytes.
LARGEST: Final = 100_000
UNDER_WAY: Final = 300_000
#: The share of connections with a small window, and what they may have under way: more than the
#: kernel keeps for them, so that the server stalls while they do not read.
NARROW: Final = 0.1
UNDER_WAY_NARROW: Final = 1 << 20


@dataclass
class Peer:
    """One connection, and where in the pool its bytes are."""

    sock: socket.socket
    start: int
    narrow: bool
    sent: int = 0
    #: What send(2) has not taken yet, bytes.
    unsent: int = 0
    received: int = 0
    #: Rounds in which it does not read.
    asleep: int = 0
    closing: bool = False
    since: float = field(default_factory=time.monotonic)

    def take(self, data: bytes) -> None:
        """Check what has come."""
        at = (self.start + self.received) % MIB
        assert data == POOL[at : at + len(data)], f"wrong bytes: {self}"
        self.received += len(data)
        assert self.received <= self.sent, f"more than was sent: {self}"

    def offer(self) -> None:
        """Send what is to be sent, as far as the kernel takes it."""
        with suppress(BlockingIOError):
            while self.unsent:
                at = (self.start + self.sent) % MIB
                count = self.sock.send(POOL[at : at + self.unsent])
                self.sent += count
                self.unsent -= count


class Churn:
    """`count` connections to `address`; `run()` as often as wanted, then `finish()`.

    `patience` is how long an answer may take, seconds, while the peer reads.
    """

    def __init__(
        self, address: tuple[Any, Any], seed: int, count: int, patience: float = DEADLINE
    ) -> None:
        self.address = address
        self.patience = patience
        self.random = random.Random(seed)
        self.poller = select.poll()
        self.peers: dict[int, Peer] = {}
        self.bytes = 0
        self.ends = {"shutdown": 0, "reset": 0, "close": 0}
        for _ in range(count):
            self._connect()

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for peer in list(self.peers.values()):
                self._act(peer)
            self._read()

    def finish(self) -> None:
        """Have everything that is under way come back, and the ends of file with it."""
        try:
            for peer in self.peers.values():
                peer.asleep = 0
                peer.closing = True
                peer.since = time.monotonic()
            while self.peers:
                for peer in list(self.peers.values()):
                    self._push(peer)
                    self._check(peer)
                self._read(replace=False)
        finally:
            self.close()

    def close(self) -> None:
        for peer in self.peers.values():
            peer.sock.close()
        self.peers.clear()

    def _connect(self) -> None:
        sock = socket.socket()
        narrow = self.random.random() < NARROW
        if narrow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
        sock.connect(self.address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        self.poller.register(sock, select.POLLIN)
        self.peers[sock.fileno()] = Peer(sock, self.random.randrange(MIB), narrow)

    def _replace(self, peer: Peer, how: str) -> None:
        self.ends[how] += 1
        del self.peers[peer.sock.fileno()]
        self.poller.unregister(peer.sock)
        if how == "reset":
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.sock.close()

    def _act(self, peer: Peer) -> None:
        """What a peer does in one round."""
        dice = self.random.random()
        self._check(peer)
        peer.asleep = max(0, peer.asleep - 1)
        if peer.closing:
            self._push(peer)
            return
        if dice < 0.004:
            self._replace(peer, "reset" if dice < 0.002 else "close")
            self._connect()
            return
        if dice < 0.010:
            peer.closing, peer.asleep = True, 0
        elif dice < 0.020 or (peer.narrow and dice < 0.1):
            peer.asleep = self.random.randrange(1, 20)
        if peer.narrow and peer.asleep:
            if peer.unsent < LARGEST and peer.sent - peer.received < UNDER_WAY_NARROW:
                peer.unsent += LARGEST
        elif peer.sent + peer.unsent - peer.received < UNDER_WAY:
            largest = LARGEST if dice > 0.99 else 2000 if dice > 0.9 else 100
            peer.unsent += self.random.randrange(1, largest)
        self._push(peer)

    def _check(self, peer: Peer) -> None:
        if (peer.sent > peer.received or peer.closing) and not peer.asleep:
            passed = time.monotonic() - peer.since
            assert passed < self.patience, f"no answer for {passed:.1f} s: {peer}"

    def _push(self, peer: Peer) -> None:
        peer.offer()
        if peer.closing and not peer.unsent:
            with suppress(OSError):  # repeated, it may find that the end is there already
                peer.sock.shutdown(socket.SHUT_WR)

    def _read(self, replace: bool = True) -> None:
        for fd, _ in self.poller.poll(50):
            peer = self.peers[fd]
            if peer.asleep:
                continue
            data = peer.sock.recv(self.random.choice((10, 1000, 1 << 17)))
            peer.since = time.monotonic()
            if not data:
                assert peer.closing, f"an end of file that nobody asked for: {peer}"
                assert peer.received == peer.sent, f"bytes were lost: {peer}"
                self._replace(peer, "shutdown")
                if replace:
                    self._connect()
                continue
            peer.take(data)
            self.bytes += len(data)
