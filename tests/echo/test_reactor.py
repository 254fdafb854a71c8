"""servers/reactor.py alone: over a scripted poller, and over every real one."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from serverprocess import probe

import pollers
from pollers.base import POLLIN, POLLOUT, Poller
from pollers.fake import FakePoller
from servers.reactor import Handler, Reactor

SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """run() ends with its signals blocked, as the process that it is made for ends too."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    yield
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # drops what is pending
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(params=pollers.names())
def poller(request: pytest.FixtureRequest) -> Iterator[Poller]:
    found = probe(request.param)
    if not found.available:
        if found.expected:
            pytest.fail(found.reason, pytrace=False)
        pytest.skip(found.reason)
    with pollers.create(request.param) as poller:
        yield poller


class Owner:
    """Something with a close() that tells."""

    def __init__(self, log: list[str], name: str) -> None:
        self._log, self._name = log, name

    def close(self) -> None:
        self._log.append(f"close {self._name}")


# Batches


def test_removed_within_the_batch() -> None:
    """An fd that an earlier handler closed is not called, and is closed after the batch only."""
    log: list[str] = []
    reactor = Reactor(FakePoller([[(1, POLLIN), (2, POLLIN), (3, POLLIN)], []]))

    def first(bits: int) -> None:
        log.append("first")
        reactor.close(2, Owner(log, "2"))

    def third(bits: int) -> None:
        log.append("third")
        reactor.stop()

    reactor.add(1, POLLIN, first)
    reactor.add(2, POLLIN, lambda bits: log.append("second"))
    reactor.add(3, POLLIN, third)
    reactor.run()
    assert log == ["first", "third", "close 2"]
    assert 2 not in reactor.handlers


def test_closes_itself() -> None:
    log: list[str] = []
    poller = FakePoller([[(1, POLLIN)]])
    reactor = Reactor(poller)

    def handler(bits: int) -> None:
        reactor.close(1, Owner(log, "1"))
        assert log == []
        reactor.stop()

    reactor.add(1, POLLIN, handler)
    reactor.run()
    assert log == ["close 1"]
    assert poller.interests == {}


def test_removed_and_added_again_within_the_batch() -> None:
    """The later registration stays."""
    log: list[str] = []
    reactor = Reactor(FakePoller([[(1, POLLIN)], [(2, POLLIN)]]))

    def again(bits: int) -> None:
        log.append("again")
        reactor.stop()

    def first(bits: int) -> None:
        reactor.remove(2)
        reactor.add(2, POLLIN, again)

    reactor.add(1, POLLIN, first)
    reactor.add(2, POLLIN, lambda bits: log.append("old"))
    reactor.run()
    assert log == ["again"]
    assert 2 in reactor.handlers


def test_switch_changes_interest_and_handler() -> None:
    log: list[str] = []
    poller = FakePoller([[(1, POLLIN)], [(1, POLLOUT)]])
    reactor = Reactor(poller)

    def write(bits: int) -> None:
        log.append(f"write {bits}")
        reactor.stop()

    def read(bits: int) -> None:
        log.append(f"read {bits}")
        reactor.switch(1, POLLOUT, write)

    reactor.add(1, POLLIN, read)
    reactor.run()
    assert log == [f"read {POLLIN}", f"write {POLLOUT}"]
    assert poller.interests == {1: POLLOUT}


def test_refused_registration_leaves_no_handler() -> None:
    reactor = Reactor(FakePoller())
    handler: Handler = lambda bits: None  # noqa: E731
    reactor.add(1, POLLIN, handler)
    with pytest.raises(FileExistsError):
        reactor.add(1, POLLIN, lambda bits: None)
    assert reactor.handlers == {1: handler}
    with pytest.raises(OSError, match="Bad file descriptor"):
        reactor.add(-1, POLLIN, handler)
    assert reactor.handlers == {1: handler}


def test_max_events_is_passed_on(poller: Poller) -> None:
    seen: list[int] = []
    with ExitStack() as stack:
        reactor = Reactor(poller, max_events=2)
        for _ in range(7):
            ours, theirs = (stack.enter_context(each) for each in socket.socketpair())
            theirs.send(b"x")

            def handler(bits: int, sock: socket.socket = ours) -> None:
                sock.recv(1)
                seen.append(sock.fileno())
                if len(seen) == 7:
                    reactor.stop()

            reactor.add(ours.fileno(), POLLIN, handler)
        reactor.run()
        assert len(set(seen)) == 7
    assert all(bound <= 2 for bound in poller.counters.histogram())


def test_number_is_not_used_twice_within_a_batch(poller: Poller) -> None:
    """All of a batch close each other and open new sockets: no event meets the wrong one."""
    wrong: list[str] = []
    with ExitStack() as stack:
        reactor = Reactor(poller)
        alive: dict[int, socket.socket] = {}
        fresh: set[int] = set()

        def never(bits: int) -> None:
            wrong.append(f"event {bits:#x} for a new socket")

        def handler(bits: int, mine: int) -> None:
            if mine not in alive:
                wrong.append(f"closed fd {mine} was called")
            for fd in [fd for fd in alive if fd != mine]:
                reactor.close(fd, alive.pop(fd))
            # New sockets with nothing to read, while the closed ones' events stand in the batch.
            for _ in range(10):
                ours, _ = (stack.enter_context(each) for each in socket.socketpair())
                fresh.add(ours.fileno())
                reactor.add(ours.fileno(), POLLIN, never)
            reactor.call_later(0.02, reactor.stop)
            alive[mine].recv(1)

        old = []
        for _ in range(10):
            ours, theirs = (stack.enter_context(each) for each in socket.socketpair())
            theirs.send(b"x")
            fd = ours.fileno()
            alive[fd] = ours
            old.append(fd)
            reactor.add(fd, POLLIN, lambda bits, fd=fd: handler(bits, fd))
        reactor.run()
        assert wrong == []
        assert not fresh & set(old)
        assert len(alive) == 1


# Timers and wake-ups


def test_timers_in_order_and_never_early(poller: Poller) -> None:
    reactor = Reactor(poller)
    fired: list[tuple[str, float]] = []
    began = time.monotonic()

    def note(name: str) -> None:
        fired.append((name, time.monotonic() - began))

    reactor.call_later(0.03, lambda: note("late"))
    reactor.call_later(0.01, lambda: note("early"))
    reactor.call_later(0.01, lambda: note("early too"))
    reactor.call_later(0.02, lambda: note("cancelled")).cancel()
    reactor.call_later(0.04, reactor.stop)
    reactor.run()
    assert [name for name, _ in fired] == ["early", "early too", "late"]
    assert all(at >= least for (_, at), least in zip(fired, [0.01, 0.01, 0.03], strict=True))
    assert poller.counters.polls < 20  # it slept meanwhile


def test_timer_sets_the_next() -> None:
    reactor = Reactor(FakePoller())
    count = 0

    def tick() -> None:
        nonlocal count
        count += 1
        if count == 5:
            reactor.stop()
        else:
            reactor.call_later(0, tick)

    reactor.call_later(0, tick)
    reactor.run()
    assert count == 5


def test_timer_closes() -> None:
    log: list[str] = []
    reactor = Reactor(FakePoller())
    reactor.add(1, POLLIN, lambda bits: None)
    reactor.call_later(0, lambda: reactor.close(1, Owner(log, "1")))
    reactor.call_later(0, reactor.stop)
    reactor.run()
    assert log == ["close 1"]
    assert reactor.handlers == {}


def test_stop_from_another_thread(poller: Poller) -> None:
    reactor = Reactor(poller)
    thread = threading.Timer(0.02, reactor.stop)
    thread.start()
    reactor.run()
    thread.join()


# Signals


def test_signal_ends_a_wait(poller: Poller) -> None:
    """A process that has nothing else to do answers signals, each of them, and then no more."""
    reactor = Reactor(poller)
    answered = threading.Semaphore(0)
    answers = 0
    reactor.on_signal(signal.SIGUSR1, answered.release)
    reactor.on_signal(signal.SIGUSR2, reactor.stop)

    def send() -> None:
        nonlocal answers
        for _ in range(50):
            os.kill(os.getpid(), signal.SIGUSR1)
            if not answered.acquire(timeout=10):
                break
            answers += 1
        os.kill(os.getpid(), signal.SIGUSR2)

    thread = threading.Thread(target=send)
    thread.start()
    reactor.run()
    thread.join()
    assert answers == 50
    assert not answered.acquire(blocking=False)
    os.kill(os.getpid(), signal.SIGUSR2)  # blocked by now: neither a call nor the end


def test_signal_before_run(poller: Poller) -> None:
    reactor = Reactor(poller)
    reactor.on_signal(signal.SIGUSR2, reactor.stop)
    os.kill(os.getpid(), signal.SIGUSR2)
    reactor.run()


def test_signal_on_the_way_into_poll() -> None:
    """The case that a Python-level handler cannot serve: after its last chance to run.

    The scripted poll() stands for that moment: the signal is in the process when the "system
    call" starts to wait, and only the wake-up fd makes it return.
    """
    reactor: Reactor

    def enter() -> list[tuple[int, int]]:
        os.kill(os.getpid(), signal.SIGUSR2)
        [(fd, _)] = poller.interests.items()
        return [(fd, POLLIN)] if readable(fd) else []

    poller = FakePoller([enter])
    reactor = Reactor(poller)
    reactor.on_signal(signal.SIGUSR2, reactor.stop)
    reactor.run()  # a fake that is asked to wait for ever raises


def readable(fd: int) -> bool:
    with pollers.create("poll") as poller:
        poller.register(fd, POLLIN)
        return bool(poller.poll(0))


def test_signals_that_others_handle(poller: Poller) -> None:
    """Python writes the number of every handled signal into the one pipe there is."""
    reactor = Reactor(poller)
    others: list[int] = []
    reactor.on_signal(signal.SIGUSR2, reactor.stop)
    signal.signal(signal.SIGUSR1, lambda number, frame: others.append(number))
    os.kill(os.getpid(), signal.SIGUSR1)
    reactor.call_later(0.01, lambda: os.kill(os.getpid(), signal.SIGUSR2))
    reactor.run()
    assert others == [signal.SIGUSR1]
