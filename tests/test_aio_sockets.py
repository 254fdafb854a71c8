"""Facts about socket reads and writes by io_submit(2), and the batches made of them."""

from __future__ import annotations

import errno
import os
import random
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pollers
from pollers.aio.poller import AioPoller
from pollers.aio.sockets import SocketBatch
from pollers.base import POLLIN

if not (found := pollers.probe("aio")).available and not found.expected:
    pytest.skip(found.reason, allow_module_level=True)

Pairs = list[tuple[socket.socket, socket.socket]]
PLACES = 8
CHUNK = 1000


@pytest.fixture(scope="module")
def pairs() -> Iterator[Pairs]:
    """Connected stream sockets, the near ends non-blocking."""
    with ExitStack() as stack:
        made = [socket.socketpair() for _ in range(PLACES)]
        for near, far in made:
            stack.enter_context(near).setblocking(False)
            stack.enter_context(far).settimeout(20)
        yield made


@pytest.fixture(params=["own context", "the poller's"])
def batch(request: pytest.FixtureRequest) -> Iterator[SocketBatch]:
    with ExitStack() as stack:
        poller = None
        if request.param == "the poller's":
            poller = stack.enter_context(AioPoller())
        yield stack.enter_context(closing(SocketBatch(PLACES, CHUNK, poller)))


def near_fds(pairs: Pairs) -> np.ndarray:
    return np.array([near.fileno() for near, _ in pairs])


def test_each_place_receives_and_sends_its_own(batch: SocketBatch, pairs: Pairs) -> None:
    for i, (_, far) in enumerate(pairs):
        far.sendall(bytes([65 + i]) * (i + 1))
    fds = near_fds(pairs)
    lengths = batch.receive(fds)
    assert lengths.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert batch.take_out(2, 1, 3) == b"CC"
    assert batch.send(fds, lengths).tolist() == lengths.tolist()
    for i, (_, far) in enumerate(pairs):
        assert far.recv(100) == bytes([65 + i]) * (i + 1)


def test_nothing_there_is_eagain_and_an_end_is_zero(batch: SocketBatch) -> None:
    with ExitStack() as stack:
        a, b, c = (stack.enter_context(end) for end in (*socket.socketpair(), socket.socket()))
        a.setblocking(False)
        assert batch.receive(np.array([a.fileno()])).tolist() == [-errno.EAGAIN]
        b.shutdown(socket.SHUT_WR)
        assert batch.receive(np.array([a.fileno()])).tolist() == [0]
        assert batch.receive(np.array([c.fileno()])).tolist() == [-errno.ENOTCONN]


def test_a_closed_fd_fails_by_itself_and_the_others_go_on(
    batch: SocketBatch, pairs: Pairs
) -> None:
    """io_submit stops there, and is called again for what comes behind."""
    gone = os.dup(0)
    os.close(gone)
    fds = near_fds(pairs)
    fds[[0, 3, 7]] = gone
    for _, far in pairs:
        far.sendall(b"abc")
    lengths = batch.receive(fds).copy()
    bad = -errno.EBADF
    assert lengths.tolist() == [bad, 3, 3, bad, 3, 3, 3, bad]
    places = np.flatnonzero(lengths > 0)
    fds = fds[places]
    assert batch.send(fds, lengths[places], places).tolist() == [3] * 5
    for i, (near, far) in enumerate(pairs):
        assert (near if lengths[i] < 0 else far).recv(10) == b"abc"


def test_a_full_peer_takes_a_part_then_nothing(batch: SocketBatch) -> None:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        fds, lengths = np.array([near.fileno()]), np.array([CHUNK])
        results: list[int] = []
        while not results or results[-1] == CHUNK:
            results += batch.send(fds, lengths).tolist()
        assert results[-1] == -errno.EAGAIN or 0 < results[-1] < CHUNK
        assert batch.send(fds, lengths).tolist() == [-errno.EAGAIN]


def test_a_peer_that_has_gone_is_epipe_and_no_signal(batch: SocketBatch) -> None:
    near, far = socket.socketpair()
    with near:
        near.setblocking(False)
        far.close()
        results = batch.send(np.array([near.fileno()]), np.array([1]))
        assert results.tolist() == [-errno.EPIPE]


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_any_places_any_lengths(pairs: Pairs, data: st.DataObject) -> None:
    """What was received at some places is sent from them, in part, and nothing else is."""
    seed = data.draw(st.integers(0, 1 << 32))
    sizes = data.draw(st.lists(st.integers(1, CHUNK), min_size=PLACES, max_size=PLACES))
    places = np.array(sorted(data.draw(st.sets(st.integers(0, PLACES - 1), min_size=1))))
    source = [random.Random(seed + i).randbytes(size) for i, size in enumerate(sizes)]
    with closing(SocketBatch(PLACES, CHUNK)) as batch:
        for text, (_, far) in zip(source, pairs, strict=True):
            far.sendall(text)
        fds = near_fds(pairs)
        assert batch.receive(fds).tolist() == sizes
        lengths = np.array([data.draw(st.integers(1, sizes[place])) for place in places])
        assert batch.send(fds[places], lengths, places).tolist() == lengths.tolist()
    for place, length in zip(places.tolist(), lengths.tolist(), strict=True):
        assert pairs[place][1].recv(CHUNK) == source[place][:length]
    assert select.select([far for _, far in pairs], [], [], 0)[0] == []


def test_polls_are_armed_with_the_sends_and_none_is_lost(pairs: Pairs) -> None:
    """In the poller's context: one io_submit does the sends and arms what had fired."""
    with AioPoller() as poller, closing(SocketBatch(PLACES, CHUNK, poller)) as batch:
        for near, _ in pairs:
            poller.register(near.fileno(), POLLIN)
        for turn in range(20):
            for _, far in pairs:
                far.sendall(b"x" * (turn + 1))
            seen: set[int] = set()
            while len(seen) < PLACES:
                fds, bits = poller.poll_arrays(20, 100)
                assert len(fds)
                assert set(bits.tolist()) == {POLLIN}
                seen |= set(fds.tolist())
                lengths = batch.receive(fds)
                before, rearms = poller.counters.kernel_calls, poller.counters.rearms
                batch.send(fds, lengths)
                assert poller.counters.kernel_calls - before <= 2
                assert poller.counters.rearms - rearms == len(fds)
            for _, far in pairs:
                assert far.recv(100) == b"x" * (turn + 1)
        assert poller.poll(0) == []


def test_what_becomes_ready_in_a_transfer_comes_with_the_next_poll(pairs: Pairs) -> None:
    (near, far), (other, its_far) = pairs[:2]
    with AioPoller() as poller, closing(SocketBatch(PLACES, CHUNK, poller)) as batch:
        poller.register(other.fileno(), POLLIN)
        assert poller.poll(0) == []  # armed now
        its_far.sendall(b"y")
        far.sendall(b"x")
        assert batch.receive(np.array([near.fileno()])).tolist() == [1]
        assert poller.poll(20) == [(other.fileno(), POLLIN)]
    assert other.recv(10) == b"y"


def test_transfers_that_fill_the_ring_keep_no_poll_from_being_armed() -> None:
    """Those that are done are taken out first, as they keep their places until then."""
    with ExitStack() as stack:
        made = [socket.socketpair() for _ in range(2)]
        for end in (end for pair in made for end in pair):
            stack.enter_context(end).setblocking(False)
        (waiting, waker), (near, far) = made
        poller = stack.enter_context(AioPoller(capacity=4))
        batch = stack.enter_context(closing(SocketBatch(1000, 1, poller)))
        poller.register(waiting.fileno(), POLLIN)
        waker.send(b"x")
        assert poller.poll(20) == [(waiting.fileno(), POLLIN)]
        results = batch.send(np.full(1000, near.fileno()), np.ones(1000, np.int64))
        assert set(results.tolist()) == {1, -errno.EAGAIN}, "nothing filled the ring"
        assert len(far.recv(2000)) == np.count_nonzero(results == 1)
        assert poller.poll(20) == [(waiting.fileno(), POLLIN)]
