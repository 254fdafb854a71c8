"""Backend `aio` by itself: whose buffer goes to whom, and which files it can read."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from fileserving import content, read_exactly

import pollers
from servers.file.cache import FileCache
from servers.file.root import Entry, Root
from servers.file.transfers.base import Pending
from servers.lifecycle import CannotServe
from servers.reactor import Reactor

if not pollers.probe("aio").available:
    pytest.skip(f"aio: {pollers.probe('aio').reason}", allow_module_level=True)

from servers.file.transfers.aio import BLOCK, AioTransfer, direct_file


@pytest.fixture
def shelf(tmp_path: Path, no_direct_io: str) -> Iterator[Root]:
    """A root with one file of two blocks."""
    if no_direct_io:
        pytest.skip(no_direct_io)
    (tmp_path / "file").write_bytes(content(2 * BLOCK))
    with Root(str(tmp_path)) as root:
        yield root


def test_a_slow_peer_keeps_its_block_while_buffers_are_free(shelf: Root) -> None:
    """Also while another's read is queued and not yet with the kernel."""
    with ExitStack() as stack:
        reactor = Reactor(stack.enter_context(pollers.create("poll")))
        cache = stack.enter_context(closing(FileCache(shelf, None)))
        transfer = stack.enter_context(closing(AioTransfer(reactor, shelf)))
        here, peer = map(stack.enter_context, socket.socketpair())
        here.setblocking(False)
        here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        file = cache.open(b"file")
        slow = transfer.mover(file, 0, BLOCK, True, reactor.stop)
        other = transfer.mover(file, BLOCK, BLOCK, True, reactor.stop)
        with pytest.raises(Pending):
            slow.move(here)
        reactor.run()  # until its block is there
        with pytest.raises(Pending):
            other.move(here)
        received = b""
        while slow.left:
            received += read_exactly(peer, slow.move(here))
        assert received == content(2 * BLOCK)[:BLOCK]
        assert transfer.reader.counters.reads == 1
        slow.close()
        other.close()


def test_a_file_of_larger_units_is_an_error_of_that_file(shelf: Root) -> None:
    """An OSError, for which a connection is closed, and not the server."""
    fd, _ = shelf.open(b"file")
    with open(fd, "rb") as file:
        before = set(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match="units of") as caught:
            direct_file(file.fileno(), most=1)
        assert caught.value.errno == errno.EOPNOTSUPP
        assert set(os.listdir("/proc/self/fd")) == before


class Vanishing(Root):
    """A root whose listing begins with a name that cannot be opened."""

    def entries(self, path: bytes, limit: int = 10) -> list[Entry]:
        return [Entry(b"gone", False, 1, 1), *super().entries(path, limit)]


def test_the_start_goes_by_a_file_that_can_be_opened(
    tmp_path: Path, shelf: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is not to be read is a 404 later, and no reason not to start."""
    with Vanishing(str(tmp_path)) as root, pollers.create("poll") as poller:
        AioTransfer(Reactor(poller), root).close()
        monkeypatch.setattr("servers.file.transfers.aio.direct_file", _refused)
        with pytest.raises(CannotServe, match="--backend sendfile"):  # it did look at the other
            AioTransfer(Reactor(poller), root)


def _refused(fd: int) -> None:
    raise OSError(errno.EINVAL, "no direct I/O on this file")
