"""How a contract test says what must happen, what may, and what must not.

Events may be spurious, so a test requires the expected ones and tolerates others.  Absence is
proved, not waited for: a socket that is known to be readable is registered beside the others, and
when that one was returned, the kernel has been asked about all.
"""

from __future__ import annotations

import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from pollers.base import POLLIN, Poller

#: The two ends of one connection.
Pair: TypeAlias = tuple[socket.socket, socket.socket]

#: Nothing that is awaited here takes longer than that on a machine that works (seconds).
DEADLINE = 10.0


def expect_events(poller: Poller, expected: dict[int, int], timeout: float = DEADLINE) -> None:
    """Poll until every fd of `expected` was returned with at least one of its bits.

    `timeout` bounds the whole wait, in seconds.
    """
    missing = dict(expected)
    deadline = time.monotonic() + timeout
    while missing:
        left = deadline - time.monotonic()
        assert left > 0, f"no event for {missing}"
        for fd, bits in poller.poll(left):
            if bits & missing.get(fd, 0):
                del missing[fd]


def expect_no_events(poller: Poller, *fds: int, spurious: int = 0) -> None:
    """Show that nothing is returned for `fds` any more; `spurious` rounds may come before.

    Unregistered fds may not be returned even once.  A registered one that is not ready may, by
    the contract, but not for ever: give those a few `spurious` rounds.
    """
    near, far = socket.socketpair()
    with near, far:
        far.send(b"x")
        poller.register(near.fileno(), POLLIN)
        try:
            for left in range(spurious, -1, -1):
                seen = _until_seen(poller, near.fileno()) | _until_seen(poller, near.fileno())
                found = {fd: bits for fd, bits in seen.items() if fd in fds}
                if not found:
                    return
                assert left, f"unexpected events {found}"
        finally:
            poller.unregister(near.fileno())


def _until_seen(poller: Poller, sentinel: int) -> dict[int, int]:
    """Every event until that of `sentinel`."""
    seen: dict[int, int] = {}
    deadline = time.monotonic() + DEADLINE
    while sentinel not in seen:
        left = deadline - time.monotonic()
        assert left > 0, f"a readable socket is not returned, but {seen} is"
        for fd, bits in poller.poll(left):
            seen[fd] = seen.get(fd, 0) | bits
    return seen


@contextmanager
def signals(interval: float, handler: Callable[[], object]) -> Iterator[None]:
    """Call `handler` from SIGUSR1 in the main thread, every `interval` seconds.

    A thread sends them, as SIGALRM and its timer are pytest-timeout's.
    """
    main, done = threading.main_thread().ident, threading.Event()
    assert main is not None

    def send() -> None:
        while not done.wait(interval):
            signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, lambda number, frame: handler())
    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        done.set()
        sender.join()
        signal.signal(signal.SIGUSR1, before)


def fill(sender: socket.socket) -> int:
    """Send until the socket takes no more; return the number of bytes."""
    chunk, sent = bytes(65536), 0
    while True:
        try:
            sent += sender.send(chunk)
        except BlockingIOError:
            return sent


def receive_to_end(receiver: socket.socket) -> bytes:
    """Everything until end of file, on a non-blocking socket."""
    received = bytearray()
    deadline = time.monotonic() + DEADLINE
    while True:
        left = max(0.0, deadline - time.monotonic())
        readable, _, _ = select.select([receiver], [], [], left)
        assert readable, f"no end of file after {len(received)} bytes"
        data = receiver.recv(1 << 20)
        if not data:
            return bytes(received)
        received += data
