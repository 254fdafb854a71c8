"""What the kernel holds for a socket: pollers.sockqueue, against real sockets."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest

from pollers.sockqueue import unread, unsent


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection; the second reads through a small buffer."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as far:
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        far.connect(listener.getsockname())
        near, _ = listener.accept()
        with near:
            yield near, far


def test_unread_counts_bytes_and_not_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    assert unread(far.fileno()) == 0
    near.sendall(b"seven b")
    far.recv(1, socket.MSG_PEEK)  # wait for them
    assert unread(far.fileno()) == 7
    far.recv(5)
    assert unread(far.fileno()) == 2
    far.recv(5)
    near.shutdown(socket.SHUT_WR)
    assert far.recv(1) == b""
    assert unread(far.fileno()) == 0


def test_unsent_falls_as_the_peer_reads_though_the_socket_stays_full(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    near, far = pair
    near.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            near.send(bytes(65536))
    full = unsent(near.fileno())
    assert full > 65536
    while unsent(near.fileno()) == full:  # it tells of a larger window when that pays
        assert far.recv(4096)
    assert unsent(near.fileno()) < full


def test_no_socket_is_an_error() -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    os.close(write_fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        unsent(write_fd)
