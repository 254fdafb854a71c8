"""Contract 5, 10 and 11: fds that are closed, numbers that are reused, pollers that are closed."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

import pytest
from expectations import Pair, expect_events, expect_no_events, receive_to_end
from leaks import open_fds

import pollers
from pollers import POLLIN, POLLNVAL, POLLOUT, WRITABLE
from pollers.base import Capability, Poller


@pytest.mark.parametrize("state", ["unarmed", "idle", "after an event", "modified"])
def test_the_peer_sees_the_end_after_unregister_and_close(
    poller: Poller, tcp: Pair, state: str
) -> None:
    """At once, and without another poll(): whatever the kernel still holds for the poller."""
    near, far = tcp
    poller.register(near.fileno(), POLLIN)
    if state != "unarmed":
        poller.poll(0)
    if state == "after an event":
        far.send(b"x")
        expect_events(poller, {near.fileno(): POLLIN})
        near.recv(1)
        poller.poll(0)
    if state == "modified":
        poller.modify(near.fileno(), POLLIN | POLLOUT)
        poller.poll(0)
        poller.modify(near.fileno(), POLLIN)
        poller.poll(0)
    poller.unregister(near.fileno())
    near.close()
    assert receive_to_end(far) == b""


def test_the_peer_sees_the_end_of_many(poller: Poller, tcp_pairs: Callable[[], Pair]) -> None:
    pairs = [tcp_pairs() for _ in range(100)]
    for near, _ in pairs:
        poller.register(near.fileno(), POLLIN)
    poller.poll(0)
    for near, _ in pairs:
        poller.unregister(near.fileno())
        near.close()
    for _, far in pairs:
        assert receive_to_end(far) == b""
    assert poller.poll(0) == []


def test_closing_the_poller_releases_what_it_watched(
    make: Callable[[], Poller], tcp: Pair
) -> None:
    near, far = tcp
    poller = make()
    poller.register(near.fileno(), POLLIN)
    poller.poll(0)
    poller.close()
    near.close()
    assert receive_to_end(far) == b""


def test_an_fd_that_is_closed_while_registered(poller: Poller) -> None:
    """Acceptable: nothing, or POLLNVAL once.  Then the number can be used again."""
    near, far = socket.socketpair()
    with far:
        fd = near.fileno()
        poller.register(fd, POLLIN)
        poller.poll(0)
        near.close()
        events = [event for _ in range(4) for event in poller.poll(0)]
        assert events in ([], [(fd, POLLNVAL)])
        with suppress(OSError):
            poller.unregister(fd)
        os.dup2(far.fileno(), fd)
        try:
            poller.register(fd, POLLOUT)
            expect_events(poller, {fd: WRITABLE})
            poller.unregister(fd)
        finally:
            os.close(fd)


def test_closed_fds_do_not_hide_the_others(poller: Poller, tcp_pairs: Callable[[], Pair]) -> None:
    pairs = [tcp_pairs() for _ in range(6)]
    for near, _ in pairs:
        poller.register(near.fileno(), POLLIN)
    poller.poll(0)
    for near, _ in pairs[:3]:
        near.close()
    for _, far in pairs[3:]:
        far.send(b"x")
    expect_events(poller, {near.fileno(): POLLIN for near, _ in pairs[3:]})


def test_a_number_reused_within_a_batch(poller: Poller, tcp_pairs: Callable[[], Pair]) -> None:
    """The handler of the first event closes everything and connects anew on the same numbers."""
    old = [tcp_pairs() for _ in range(4)]
    for near, far in old:
        far.send(b"x")
        poller.register(near.fileno(), POLLIN)
    assert len(poller.poll(5, max_events=1)) == 1  # three more wait, wherever
    numbers = [near.fileno() for near, _ in old]
    for near, _ in old:
        poller.unregister(near.fileno())
    fresh = [tcp_pairs() for _ in range(4)]
    saved = [os.dup(number) for number in numbers]  # keeps the old files open and readable
    try:
        for (near, _), number in zip(fresh, numbers, strict=True):
            os.dup2(near.fileno(), number)
            poller.register(number, POLLIN)
        expect_no_events(poller, *numbers, spurious=0)
        fresh[0][1].send(b"y")
        expect_events(poller, {numbers[0]: POLLIN})
        assert os.read(numbers[0], 10) == b"y"
    finally:
        for fd in saved:
            os.close(fd)


def test_dup2_over_a_registered_number(poller: Poller, tcp_pairs: Callable[[], Pair]) -> None:
    """The old file is gone without unregister().  Acceptable: unregister() raises OSError."""
    (old, old_far), (new, new_far) = tcp_pairs(), tcp_pairs()
    fd = old.fileno()
    poller.register(fd, POLLIN)
    poller.poll(0)
    os.dup2(new.fileno(), fd)
    with suppress(OSError):
        poller.unregister(fd)
    poller.register(fd, POLLIN)
    old_far.close()
    expect_no_events(poller, fd, spurious=2)
    new_far.send(b"x")
    expect_events(poller, {fd: POLLIN})
    assert os.read(fd, 10) == b"x"


def test_close_may_be_repeated(any_poller: Poller) -> None:
    any_poller.close()
    any_poller.close()


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("register", (0, POLLIN)),
        ("modify", (0, POLLIN)),
        ("unregister", (0,)),
        ("poll", (0,)),
        ("poll", (0.0001,)),
        ("wake", ()),
        ("fileno", ()),
    ],
)
def test_a_closed_poller_says_so(
    any_poller: Poller, operation: str, arguments: tuple[int, ...]
) -> None:
    any_poller.close()
    with pytest.raises(ValueError, match=r"closed|no file descriptor"):
        getattr(any_poller, operation)(*arguments)


def test_a_closed_poller_refuses_a_wake_though_one_is_pending(any_poller: Poller) -> None:
    any_poller.wake()
    any_poller.close()
    with pytest.raises(ValueError, match="closed"):
        any_poller.wake()


def test_pollers_are_context_managers(any_poller: Poller) -> None:
    with any_poller as entered:
        assert entered is any_poller
        any_poller.poll(0)
    with pytest.raises(ValueError, match="closed"):
        any_poller.poll(0)


def test_many_pollers_come_and_go(make: Callable[[], Poller], pair: Pair) -> None:
    near, far = pair
    far.send(b"x")
    for _ in range(20):
        poller = make()
        poller.register(near.fileno(), POLLIN)
        expect_events(poller, {near.fileno(): POLLIN})
        poller.close()


def test_two_pollers_do_not_disturb_each_other(make: Callable[[], Poller], pair: Pair) -> None:
    near, far = pair
    first, second = make(), make()
    first.register(near.fileno(), POLLIN)
    second.register(near.fileno(), POLLIN)
    far.send(b"x")
    expect_events(first, {near.fileno(): POLLIN})
    first.unregister(near.fileno())
    expect_events(second, {near.fileno(): POLLIN})
    first.close()
    expect_events(second, {near.fileno(): POLLIN})


def test_a_program_that_is_executed_inherits_nothing(
    make: Callable[[], Poller], pair: Pair
) -> None:
    before = [fd for fd in open_fds() if is_inheritable(fd)]  # the test runner's own
    poller = make()
    poller.register(pair[0].fileno(), POLLIN)
    poller.poll(0)
    program = """if True:
        import os
        for fd in range(1024):
            try:
                os.fstat(fd)
            except OSError:
                continue
            print(fd)
    """
    child = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        close_fds=False,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert {int(fd) for fd in child.stdout.split()} - {0, 1, 2} == set(before) - {0, 1, 2}


def is_inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def in_a_child(action: Callable[[], object]) -> int:
    """Run `action` in a forked child; return the child's exit status: 0, or 1 if it raised."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_child_may_close_its_copy(poller: Poller, pair: Pair) -> None:
    near, far = pair
    poller.register(near.fileno(), POLLIN)
    poller.poll(0)
    assert in_a_child(poller.close) == 0
    far.send(b"x")
    expect_events(poller, {near.fileno(): POLLIN})
    near.recv(1)
    poller.wake()
    assert [fd for fd, _ in poller.poll(5) if fd != near.fileno()] == []
    poller.modify(near.fileno(), POLLOUT)
    expect_events(poller, {near.fileno(): POLLOUT})
    poller.unregister(near.fileno())
    expect_no_events(poller, near.fileno())


def test_a_forked_child_can_have_a_poller_of_its_own(
    make: Callable[[], Poller], poller: Poller, tcp: Pair
) -> None:
    near, far = tcp
    poller.register(near.fileno(), POLLIN)
    poller.poll(0)
    far.send(b"x")

    def action() -> None:
        poller.close()
        own = make()
        own.register(near.fileno(), POLLIN)
        expect_events(own, {near.fileno(): POLLIN})
        own.close()

    assert in_a_child(action) == 0
    expect_events(poller, {near.fileno(): POLLIN})


def test_a_poller_with_an_fd_can_be_watched(poller: Poller, make: Callable[[], Poller]) -> None:
    """FILENO: the fd is readable while events wait."""
    if not poller.capabilities & Capability.FILENO:
        with pytest.raises(ValueError, match="no file descriptor"):
            poller.fileno()
        return
    near, far = socket.socketpair()
    with near, far:
        outer = make()
        outer.register(poller.fileno(), POLLIN)
        poller.register(near.fileno(), POLLIN)
        expect_no_events(outer, poller.fileno(), spurious=2)
        far.send(b"x")
        expect_events(outer, {poller.fileno(): POLLIN})
        expect_events(poller, {near.fileno(): POLLIN})
        near.recv(1)
        poller.poll(0)
        expect_no_events(outer, poller.fileno(), spurious=2)


def test_out_of_fds_is_one_clear_error(adapter: str) -> None:
    """EMFILE: Unavailable with what to do, and nothing is left open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(pollers.Unavailable) as caught:
            pollers.create(adapter)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert "Too many open files" in str(caught.value)
    assert "ulimit -n" in str(caught.value)
