"""servers/accept.py alone: what accept(2) fails with, and what is made of it."""

from __future__ import annotations

import errno
import os
import socket
import time
from typing import Any

import pytest

from pollers.base import POLLIN
from pollers.fake import FakePoller
from servers.accept import RETRY, Acceptor
from servers.lifecycle import Tally
from servers.reactor import Reactor


class Listener:
    """A listening socket whose accept() follows a script."""

    def __init__(self, *script: OSError | socket.socket) -> None:
        self.script = list(script)

    def fileno(self) -> int:
        return 3

    def accept(self) -> tuple[socket.socket, Any]:
        if not self.script:
            raise BlockingIOError
        step = self.script.pop(0)
        if isinstance(step, OSError):
            raise step
        return step, None

    def close(self) -> None:
        pass


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN])
def test_error_of_one_connection(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    """It is that connection's: the next is accepted in the same breath; one line is logged."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        poller = FakePoller([[(3, POLLIN)]])
        reactor, tally = Reactor(poller), Tally()
        got: list[socket.socket] = []
        listener: Any = Listener(*(error(number) for _ in range(50)), ours)
        Acceptor(reactor, listener, tally, got.append)
        reactor.call_later(0, reactor.stop)
        reactor.run()
        assert got == [ours]
        assert not ours.getblocking()
    assert (tally.accepted, tally.accept_errors) == (1, 50)
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_exhausted(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    """It stops listening for RETRY seconds, and not for ever."""
    poller = FakePoller([[(3, POLLIN)]])
    reactor, tally = Reactor(poller), Tally()
    listener: Any = Listener(error(number))
    began = time.monotonic()
    Acceptor(reactor, listener, tally, lambda sock: None)
    assert 3 in poller.interests
    reactor.call_later(RETRY / 2, lambda: paused.append(3 not in poller.interests))
    reactor.call_later(RETRY * 1.01, reactor.stop)
    paused: list[bool] = []
    reactor.run()
    assert time.monotonic() - began >= RETRY
    assert paused == [True]
    assert 3 in poller.interests
    assert tally.accept_errors == 1
    [line] = capsys.readouterr().err.splitlines()
    assert os.strerror(number) in line


def test_close_while_paused(capsys: pytest.CaptureFixture[str]) -> None:
    """The drain may begin while the listener is not registered: it does not come back."""
    poller = FakePoller([[(3, POLLIN)]])
    reactor = Reactor(poller)
    listener: Any = Listener(error(errno.EMFILE))
    acceptor = Acceptor(reactor, listener, Tally(), lambda sock: None)
    reactor.call_later(RETRY / 4, acceptor.close)
    reactor.call_later(RETRY * 1.1, reactor.stop)
    reactor.run()
    assert 3 not in poller.interests


def test_poller_is_full(capsys: pytest.CaptureFixture[str]) -> None:
    """A connection that cannot be watched is closed at once, counted, and said."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reactor, tally = Reactor(FakePoller([[(3, POLLIN)]])), Tally()

        def connect(sock: socket.socket) -> None:
            raise error(errno.EINVAL)

        listener: Any = Listener(ours)
        Acceptor(reactor, listener, tally, connect)
        reactor.call_later(0, reactor.stop)
        reactor.run()
        assert theirs.recv(1) == b""
    assert (tally.accepted, tally.closed, tally.accept_errors) == (1, 1, 1)
    assert "refused" in capsys.readouterr().err
