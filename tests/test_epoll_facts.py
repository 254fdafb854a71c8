"""epoll's design errors, and what else it does that one would not guess: on the raw system call.

Each test is a fact about the kernel that an adapter, or its user, has to live with.  The adapter
itself is held to its contract in tests/contract.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import pollers

if not hasattr(select, "epoll"):
    pytest.skip("epoll is Linux's: this system has none", allow_module_level=True)

from select import EPOLLERR, EPOLLET, EPOLLEXCLUSIVE, EPOLLHUP, EPOLLIN, EPOLLONESHOT, EPOLLOUT

EPOLLRDHUP = select.EPOLLRDHUP
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def ep() -> Iterator[select.epoll]:
    with select.epoll() as ep:
        yield ep


@pytest.fixture
def pair() -> Iterator[Pair]:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        yield near, far


# A registration belongs to the open file, and is found by the number.


def test_a_duplicate_keeps_a_closed_number_reporting(ep: select.epoll, pair: Pair) -> None:
    near, far = pair
    fd = os.dup(near.fileno())
    ep.register(fd, EPOLLIN)
    os.close(fd)  # the file stays open as `near`
    far.send(b"x")
    assert ep.poll(1) == [(fd, EPOLLIN)]
    for operation in (lambda: ep.modify(fd, EPOLLIN), lambda: ep.unregister(fd)):
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            operation()  # and nobody can stop it any more
        assert caught.value.errno == errno.EBADF
    assert ep.poll(1) == [(fd, EPOLLIN)]


def test_a_new_file_can_be_added_under_a_number_with_stale_events(
    ep: select.epoll, pair: Pair
) -> None:
    near, far = pair
    reader, writer = os.pipe()
    fd = os.dup(near.fileno())
    ep.register(fd, EPOLLIN)
    os.close(fd)
    far.send(b"x")
    try:
        os.dup2(reader, fd)
        ep.register(fd, EPOLLIN)  # no EEXIST: another file
        assert ep.poll(1) == [(fd, EPOLLIN)]
        os.set_blocking(reader, False)
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)  # the event was not about the pipe
        os.write(writer, b"y")
        assert ep.poll(1) == [(fd, EPOLLIN), (fd, EPOLLIN)]  # one number, two files
    finally:
        os.close(fd)
        os.close(reader)
        os.close(writer)


def test_closing_the_last_descriptor_removes_the_registration(ep: select.epoll) -> None:
    near, far = socket.socketpair()
    with far:
        ep.register(near.fileno(), EPOLLIN)
        far.send(b"x")
        near.close()
        assert ep.poll(0) == []


def test_a_child_keeps_the_parents_closed_socket_reporting(ep: select.epoll, pair: Pair) -> None:
    """fork() duplicates every descriptor, so that close() in the parent ends nothing."""
    near, far = pair
    fd = os.dup(near.fileno())
    near.close()
    ep.register(fd, EPOLLIN)
    leash_reader, leash_writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(leash_writer)
        os.read(leash_reader, 1)  # until the parent closes the other end
        os._exit(0)
    os.close(leash_reader)
    try:
        os.close(fd)
        far.send(b"x")
        assert ep.poll(1) == [(fd, EPOLLIN)]
    finally:
        os.close(leash_writer)
        os.waitpid(child, 0)
    assert ep.poll(0) == []  # the child's exit was the last close


def test_a_childs_unregister_silences_the_parent(ep: select.epoll, pair: Pair) -> None:
    near, far = pair
    ep.register(near.fileno(), EPOLLIN)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            ep.unregister(near.fileno())
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    far.send(b"x")
    assert ep.poll(0) == []
    with pytest.raises(FileNotFoundError):
        ep.unregister(near.fileno())


def test_an_fd_closed_by_a_handler_is_still_in_the_batch(ep: select.epoll) -> None:
    """The batch is a copy.  Who closes fds while handling it must check for that."""
    with ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(2)]
        for near, far in pairs:
            stack.enter_context(near)
            stack.enter_context(far)
            ep.register(near.fileno(), EPOLLIN)
            far.send(b"x")
        batch = ep.poll(1)
        numbers = {near.fileno() for near, _ in pairs}
        for near, _ in pairs:
            near.close()
        assert {fd for fd, _ in batch} == numbers
        reused = os.dup(0)
        os.close(reused)
        assert reused in numbers  # the very next open() gets a number that is in the batch


# What can be registered.


def test_regular_files_are_refused(ep: select.epoll, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(PermissionError) as caught:
        ep.register(file.fileno(), EPOLLIN)
    assert caught.value.errno == errno.EPERM


def test_an_epoll_cannot_watch_itself(ep: select.epoll) -> None:
    with pytest.raises(OSError, match="Invalid argument") as caught:
        ep.register(ep.fileno(), EPOLLIN)
    assert caught.value.errno == errno.EINVAL


def test_epolls_cannot_watch_each_other(ep: select.epoll) -> None:
    with select.epoll() as other:
        ep.register(other.fileno(), EPOLLIN)
        with pytest.raises(OSError, match="Too many levels") as caught:
            other.register(ep.fileno(), EPOLLIN)
        assert caught.value.errno == errno.ELOOP


def test_a_chain_of_epolls_ends_at_the_fifth(ep: select.epoll) -> None:
    """EP_MAX_NESTS is 4: four epolls above the first, the fifth is refused."""
    with ExitStack() as stack:
        chain = [ep, *(stack.enter_context(select.epoll()) for _ in range(5))]
        for n in range(4):
            chain[n + 1].register(chain[n].fileno(), EPOLLIN)
        with pytest.raises(OSError, match="Too many levels") as caught:
            chain[5].register(chain[4].fileno(), EPOLLIN)
        assert caught.value.errno == errno.ELOOP


def test_there_is_one_registration_for_reading_and_writing(ep: select.epoll, pair: Pair) -> None:
    """kqueue has one each.  Here whoever adds the second interest must know the first."""
    near, far = pair
    ep.register(near.fileno(), EPOLLIN)
    with pytest.raises(FileExistsError):
        ep.register(near.fileno(), EPOLLOUT)
    ep.modify(near.fileno(), EPOLLOUT)
    far.send(b"x")
    assert ep.poll(1) == [(near.fileno(), EPOLLOUT)]  # the interest in reading is lost


# Modes.


def test_edge_triggered_after_a_partial_read_is_silent(ep: select.epoll, pair: Pair) -> None:
    near, far = pair
    ep.register(near.fileno(), EPOLLIN | EPOLLET)
    far.send(b"xy")
    assert ep.poll(1) == [(near.fileno(), EPOLLIN)]
    near.recv(1)
    assert ep.poll(0) == []  # and a byte is waiting
    far.send(b"z")
    assert ep.poll(1) == [(near.fileno(), EPOLLIN)]
    assert ep.poll(0) == []
    ep.modify(near.fileno(), EPOLLIN | EPOLLET)
    assert ep.poll(1) == [(near.fileno(), EPOLLIN)]


def test_a_fired_oneshot_is_modified_not_added(ep: select.epoll, pair: Pair) -> None:
    near, far = pair
    ep.register(near.fileno(), EPOLLIN | EPOLLONESHOT)
    far.send(b"x")
    assert ep.poll(1) == [(near.fileno(), EPOLLIN)]
    assert ep.poll(0) == []
    with pytest.raises(FileExistsError):
        ep.register(near.fileno(), EPOLLIN | EPOLLONESHOT)
    ep.modify(near.fileno(), EPOLLIN | EPOLLONESHOT)
    assert ep.poll(1) == [(near.fileno(), EPOLLIN)]


@pytest.mark.parametrize("extra", [EPOLLONESHOT, EPOLLRDHUP], ids=["ONESHOT", "RDHUP"])
def test_exclusive_goes_with_little(ep: select.epoll, pair: Pair, extra: int) -> None:
    with pytest.raises(OSError, match="Invalid argument") as caught:
        ep.register(pair[0].fileno(), EPOLLIN | EPOLLEXCLUSIVE | extra)
    assert caught.value.errno == errno.EINVAL


def test_exclusive_cannot_be_modified(ep: select.epoll, pair: Pair) -> None:
    near, _ = pair
    ep.register(near.fileno(), EPOLLIN | EPOLLEXCLUSIVE)
    for mask in (EPOLLOUT, EPOLLIN | EPOLLEXCLUSIVE):
        with pytest.raises(OSError, match="Invalid argument") as caught:
            ep.modify(near.fileno(), mask)
        assert caught.value.errno == errno.EINVAL


def woken_by_one_connection(flags: int, waiters: int = 8) -> int:
    """How many of `waiters` epolls that watch one listener return for one connection."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        epolls = [stack.enter_context(select.epoll()) for _ in range(waiters)]
        for ep in epolls:
            ep.register(listener.fileno(), EPOLLIN | flags)
        woken: list[int] = []
        tids: list[int] = []

        def wait(index: int) -> None:
            tids.append(threading.get_native_id())
            if epolls[index].poll(0.5):
                woken.append(index)

        threads = [threading.Thread(target=wait, args=(n,)) for n in range(waiters)]
        for thread in threads:
            thread.start()
        try:
            wait_until_in_epoll(tids, waiters)
            stack.enter_context(socket.create_connection(listener.getsockname()))
        finally:
            for thread in threads:
                thread.join()
        return len(woken)


def wait_until_in_epoll(tids: list[int], count: int) -> None:
    """Until all threads sleep in epoll_wait(2), or in epoll_pwait(2), which libc may call."""
    numbers = {"232", "281"} if os.uname().machine == "x86_64" else {"22"}
    deadline = time.monotonic() + 10
    while True:
        calls = [Path(f"/proc/self/task/{tid}/syscall").read_text().split()[0] for tid in tids]
        if len(calls) == count and numbers.issuperset(calls):
            return
        assert time.monotonic() < deadline, f"the threads are in system calls {calls}"
        time.sleep(0.005)


def test_a_connection_wakes_the_whole_herd() -> None:
    """The contract of level-triggered epoll: it is ready for everyone, though one can accept."""
    assert woken_by_one_connection(0) == 8


def test_exclusive_thins_the_herd() -> None:
    """At least one, not all; epoll_ctl(2) promises no more than that."""
    assert 1 <= woken_by_one_connection(EPOLLEXCLUSIVE) < 8


# Waiting.


def test_cpython_rounds_timeouts_up_to_a_millisecond(ep: select.epoll) -> None:
    """So the adapter calls epoll_pwait2 by ctypes where a millisecond matters."""
    start = time.monotonic()
    for _ in range(20):
        assert ep.poll(0.0001) == []
    assert time.monotonic() - start >= 20 * 0.001


def test_cpythons_default_batch_is_fd_setsize(ep: select.epoll) -> None:
    """FD_SETSIZE - 1 of those that are ready, whatever their number: give maxevents yourself."""
    with ExitStack() as stack:
        near, far = socket.socketpair()
        stack.enter_context(near)
        stack.enter_context(far)
        far.send(b"x")
        for _ in range(1100):
            fd = os.dup(near.fileno())
            stack.callback(os.close, fd)
            ep.register(fd, EPOLLIN)
        assert len(ep.poll(1)) == 1023
        assert len(ep.poll(1, 2000)) == 1100


# Conditions.


def test_an_empty_mask_does_not_see_the_peers_fin(ep: select.epoll) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        near = stack.enter_context(socket.create_connection(listener.getsockname()))
        far = stack.enter_context(listener.accept()[0])
        ep.register(near.fileno(), 0)
        far.close()
        assert near.recv(1) == b""  # the FIN is here
        assert ep.poll(0) == []
        ep.modify(near.fileno(), EPOLLRDHUP)
        assert ep.poll(1) == [(near.fileno(), EPOLLRDHUP)]


def test_an_empty_mask_does_see_hang_ups(ep: select.epoll, pair: Pair) -> None:
    """Which is why "interest 0" is no portable pause: unregister instead."""
    near, far = pair
    ep.register(near.fileno(), 0)
    far.close()
    assert ep.poll(1) == [(near.fileno(), EPOLLHUP)]


def test_a_pipe_without_readers_is_an_error_for_the_writer(ep: select.epoll) -> None:
    reader, writer = os.pipe()
    try:
        ep.register(writer, EPOLLOUT)
        os.close(reader)
        assert ep.poll(1) == [(writer, EPOLLOUT | EPOLLERR)]
    finally:
        os.close(writer)


def test_the_event_bits_are_polls() -> None:
    """So that epoll's list goes to the caller as it is."""
    for name in ("IN", "PRI", "OUT", "ERR", "HUP", "RDHUP"):
        assert getattr(select, f"EPOLL{name}") == getattr(pollers, f"POLL{name}")
