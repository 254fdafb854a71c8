"""io_cancel(2) that fails as it should not: nothing is changed, and nothing used too early."""

from __future__ import annotations

import ctypes
import errno
import socket
from collections.abc import Iterator

import pytest

import pollers
from pollers.base import POLLIN, POLLOUT

if not pollers.probe("aio").available:  # the contract tests fail where it was expected
    pytest.skip(f"aio: {pollers.probe('aio').reason}", allow_module_level=True)

from pollers.aio import context
from pollers.aio.poller import AioPoller

Pair = tuple[socket.socket, socket.socket]

#: EINPROGRESS is success, and EINVAL says that nothing was there to be cancelled.
UNEXPECTED = [errno.EAGAIN, errno.EPERM, errno.ENOSYS, errno.EFAULT, errno.EINTR]

unexpected = pytest.mark.parametrize("number", UNEXPECTED, ids=lambda n: errno.errorcode[n])


@pytest.fixture
def pair() -> Iterator[Pair]:
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far:
        yield near, far


@pytest.fixture
def armed(pair: Pair) -> Iterator[AioPoller]:
    """A poller with few places, in which the near end of `pair` waits for bytes."""
    with AioPoller(capacity=4) as poller:
        poller.register(pair[0].fileno(), POLLIN)
        assert poller.poll(0) == []
        yield poller


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have the system call fail, as strace(1)'s inject=io_cancel:error= does: it is not made."""

    def cancel(*_: object) -> int:
        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(context, "_cancel", cancel)


@unexpected
def test_a_refused_unregister_has_changed_nothing(
    armed: AioPoller, pair: Pair, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    near, far = pair
    with monkeypatch.context() as patch:
        refuse(patch, number)
        with pytest.raises(OSError, match="io_cancel") as refused:
            armed.unregister(near.fileno())
    assert refused.value.errno == number
    with pytest.raises(FileExistsError):
        armed.register(near.fileno(), POLLIN)
    assert armed.poll(0) == []
    far.send(b"x")
    assert armed.poll(5) == [(near.fileno(), POLLIN)]
    assert armed.poll(5) == [(near.fileno(), POLLIN)], "still level-triggered"
    armed.unregister(near.fileno())
    assert armed.poll(0) == []
    assert armed.counters.stale == 0


@unexpected
def test_a_refused_modify_has_changed_nothing(
    armed: AioPoller, pair: Pair, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    near, far = pair
    with monkeypatch.context() as patch:
        refuse(patch, number)
        with pytest.raises(OSError, match="io_cancel"):
            armed.modify(near.fileno(), POLLOUT)
    assert armed.poll(0) == [], "it is not asked for POLLOUT"
    far.send(b"x")
    assert armed.poll(5) == [(near.fileno(), POLLIN)]
    armed.modify(near.fileno(), POLLOUT)
    assert armed.poll(5) == [(near.fileno(), POLLOUT)]


def test_a_poll_that_stays_armed_keeps_its_slot(
    armed: AioPoller, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EINVAL, and it had not completed: whoever comes next gets another slot."""
    near, far = pair
    slots = armed._slots
    old = slots.of[near.fileno()]
    refuse(monkeypatch, errno.EINVAL)
    armed.unregister(near.fileno())
    others = [socket.socketpair() for _ in range(6)]  # more than there is room for
    try:
        for one, _ in others[:2]:
            armed.register(one.fileno(), POLLIN)
        assert armed.poll(0) == []
        assert slots.armed[old]
        assert old not in {slots.of[one.fileno()] for one, _ in others[:2]} | set(slots.free)
        far.send(b"x")
        assert armed.poll(0.05) == []  # it completes now, and concerns nobody
        assert armed.counters.stale == 1
        assert old in slots.free
        for one, _ in others[2:]:
            armed.register(one.fileno(), POLLIN)
        for _, other in others:
            other.send(b"x")
        seen: dict[int, int] = {}
        while len(seen) < len(others) and (events := armed.poll(5)):
            seen |= dict(events)
        assert seen == {one.fileno(): POLLIN for one, _ in others}
    finally:
        for one, other in others:
            one.close()
            other.close()


@pytest.mark.parametrize("oneshot", [False, True], ids=["level", "one-shot"])
def test_a_signal_handler_that_raises_after_the_call_costs_nothing(
    armed: AioPoller, pair: Pair, monkeypatch: pytest.MonkeyPatch, oneshot: bool
) -> None:
    """The poll is cancelled, and its registration goes on."""
    near, far = pair
    armed.modify(near.fileno(), POLLIN, oneshot=oneshot)
    assert armed.poll(0) == []
    call = context._cancel

    def interrupted(*arguments: object) -> int:
        call(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(context, "_cancel", interrupted)
        with pytest.raises(KeyboardInterrupt):
            armed.unregister(near.fileno())
    assert armed.poll(0.01) == []
    far.send(b"x")
    assert armed.poll(5) == [(near.fileno(), POLLIN)]
    armed.unregister(near.fileno())
    armed.register(near.fileno(), POLLIN)
    assert armed.poll(5) == [(near.fileno(), POLLIN)]
