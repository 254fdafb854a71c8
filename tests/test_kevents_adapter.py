"""The kqueue adapter over the model of four systems: what it leaves there, and what it says."""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Iterator

import pytest
from keventmodel import READ, SYSTEMS, USER, WAKE, WRITE, Kernel, knotes_of

from pollers import kevents
from pollers.base import LONGEST, POLLIN, POLLOUT, POLLPRI
from pollers.kevents import Change, Dialect
from pollers.kqueue import KqueuePoller, Opened

EBADF, EINVAL, ENOMEM = map(os.strerror, (errno.EBADF, errno.EINVAL, errno.ENOMEM))


@pytest.fixture(params=SYSTEMS, ids=str)
def kernel(request: pytest.FixtureRequest) -> Kernel:
    return Kernel(request.param)


@pytest.fixture
def poller(kernel: Kernel) -> Iterator[KqueuePoller]:
    with KqueuePoller(lambda: Opened(kernel, Change, kernel.system.dialect)) as poller:
        yield poller


def test_urgent_data_alone_is_refused(kernel: Kernel, poller: KqueuePoller) -> None:
    kernel.open = {5}
    before = dict(kernel.knotes)
    with pytest.raises(OSError, match="POLLPRI") as caught:
        poller.register(5, POLLPRI)
    assert caught.value.errno == errno.EOPNOTSUPP
    assert kernel.knotes == before
    poller.register(5, POLLPRI | POLLOUT)
    assert knotes_of(kernel, 5) == {WRITE: 0}


@pytest.mark.parametrize("refused", [READ, WRITE])
@pytest.mark.parametrize("error", [errno.ENOMEM, errno.EINVAL])
def test_a_failed_register_leaves_nothing(
    kernel: Kernel, poller: KqueuePoller, refused: int, error: int
) -> None:
    kernel.open = {5}
    kernel.refuse = {(5, refused): error}
    with pytest.raises(OSError, match=os.strerror(error)):
        poller.register(5, POLLIN | POLLOUT)
    assert knotes_of(kernel, 5) == {}
    with pytest.raises(FileNotFoundError):
        poller.unregister(5)


@pytest.mark.parametrize("edge", [False, True])
def test_a_failed_modify_leaves_what_was(kernel: Kernel, poller: KqueuePoller, edge: bool) -> None:
    kernel.open = {5}
    poller.register(5, POLLIN, edge=edge)
    before = knotes_of(kernel, 5)
    kernel.refuse = {(5, WRITE): errno.EINVAL}
    with pytest.raises(OSError, match=EINVAL):
        poller.modify(5, POLLOUT, oneshot=True)
    assert knotes_of(kernel, 5) == before
    kernel.ready[5, READ] = (0, 0, 1)
    assert poller.poll(0) == [(5, POLLIN)]


def test_a_failed_modify_does_not_enable_what_fired(kernel: Kernel, poller: KqueuePoller) -> None:
    kernel.open = {5}
    kernel.ready = {(5, READ): (0, 0, 1)}
    poller.register(5, POLLIN, oneshot=True)
    assert poller.poll(0) == [(5, POLLIN)]
    kernel.refuse = {(5, WRITE): errno.EINVAL}
    with pytest.raises(OSError, match=EINVAL):
        poller.modify(5, POLLIN | POLLOUT, oneshot=True)
    assert poller.poll(0) == []
    with pytest.raises(OSError, match=EINVAL):  # READ is deleted, added and deleted again here
        poller.modify(5, POLLIN | POLLOUT)
    assert poller.poll(0) == []
    poller.modify(5, POLLIN)
    assert poller.poll(0) == [(5, POLLIN)]


def test_where_the_old_state_cannot_be_had_again_nothing_is_registered(
    kernel: Kernel, poller: KqueuePoller
) -> None:
    kernel.open = {5}
    poller.register(5, POLLIN | POLLOUT)
    kernel.refuse = {(5, READ): errno.ENOMEM}
    with pytest.raises(OSError, match=ENOMEM):
        poller.modify(5, POLLIN | POLLOUT, edge=True)
    assert knotes_of(kernel, 5) == {}
    with pytest.raises(FileNotFoundError):
        poller.unregister(5)


def test_a_number_that_was_closed_and_opened_again(kernel: Kernel, poller: KqueuePoller) -> None:
    kernel.open = {5}
    poller.register(5, POLLIN)
    with pytest.raises(FileExistsError):
        poller.register(5, POLLOUT)
    kernel.close_fd(5)
    with pytest.raises(OSError, match=EBADF):
        poller.register(5, POLLOUT)
    kernel.open = {5}
    poller.register(5, POLLOUT)
    assert knotes_of(kernel, 5) == {WRITE: 0}


def test_a_fired_one_shot_is_still_registered(kernel: Kernel, poller: KqueuePoller) -> None:
    kernel.open = {5}
    kernel.ready = {(5, READ): (0, 0, 1)}
    poller.register(5, POLLIN, oneshot=True)
    assert poller.poll(0) == [(5, POLLIN)]
    with pytest.raises(FileExistsError):
        poller.register(5, POLLIN)
    assert poller.poll(0) == []  # which did not enable it
    kernel.close_fd(5)
    kernel.open = {5}
    poller.register(5, POLLIN)
    assert poller.poll(0) == [(5, POLLIN)]


def test_modify_after_close_and_open_finds_nothing(kernel: Kernel, poller: KqueuePoller) -> None:
    kernel.open = {5}
    poller.register(5, POLLIN)
    kernel.close_fd(5)
    kernel.open = {5}
    with pytest.raises(FileNotFoundError):
        poller.modify(5, POLLIN | POLLOUT)
    assert knotes_of(kernel, 5) == {}
    poller.register(5, POLLIN)


def test_a_one_shot_of_two_filters_is_one_event(kernel: Kernel, poller: KqueuePoller) -> None:
    kernel.open = {5, 6}
    poller.register(5, POLLIN | POLLOUT, oneshot=True)
    poller.register(6, POLLIN | POLLOUT)
    kernel.ready = {(5, READ): (0, 0, 1)}
    assert poller.poll(0) == [(5, POLLIN)]
    kernel.ready |= {(5, WRITE): (0, 0, 1), (6, WRITE): (0, 0, 1)}
    assert poller.poll(0) == [(6, POLLOUT)]
    poller.modify(5, POLLIN | POLLOUT, oneshot=True)
    assert dict(poller.poll(0)) == {5: POLLIN | POLLOUT, 6: POLLOUT}
    assert poller.poll(0) == [(6, POLLOUT)]


def test_max_events_and_both_filters_lose_nothing(kernel: Kernel, poller: KqueuePoller) -> None:
    kernel.open = set(range(10, 30))
    for fd in kernel.open:
        poller.register(fd, POLLIN | POLLOUT, edge=True)
        kernel.ready |= {(fd, READ): (0, 0, 1), (fd, WRITE): (0, 0, 1)}
    seen = dict.fromkeys(kernel.open, 0)
    while events := poller.poll(0, 3):
        assert len(events) <= 3
        assert len(dict(events)) == len(events)
        for fd, bits in events:
            assert not seen[fd] & bits
            seen[fd] |= bits
    assert set(seen.values()) == {POLLIN | POLLOUT}


def test_max_events_must_be_positive(poller: KqueuePoller) -> None:
    with pytest.raises(ValueError, match="max_events"):
        poller.poll(0, 0)


@pytest.mark.parametrize(
    ("timeout", "given"), [(0, 0), (-1, 0), (None, None), (LONGEST + 1, None)]
)
def test_timeouts(
    kernel: Kernel, poller: KqueuePoller, timeout: float | None, given: float | None
) -> None:
    poller.wake()
    assert poller.poll(timeout) == []
    assert kernel.timeouts == [given]


def test_what_remains_is_waited_for_after_an_empty_answer(
    kernel: Kernel, poller: KqueuePoller
) -> None:
    began = time.monotonic()
    assert poller.poll(0.02) == []
    assert time.monotonic() - began >= 0.02
    assert kernel.timeouts[0] == 0.02
    given = [timeout for timeout in kernel.timeouts if timeout is not None]
    assert given == sorted(given, reverse=True)
    assert given[-1] > 0


def test_a_wake_is_consumed_by_one_poll_and_counted(kernel: Kernel, poller: KqueuePoller) -> None:
    calls = poller.counters.kernel_calls
    poller.wake()
    poller.wake()
    assert poller.poll(None) == []
    assert kernel.scan(1) == []
    assert (poller.counters.wakes, poller.counters.polls) == (2, 1)
    assert poller.counters.kernel_calls - calls == 3


@pytest.mark.parametrize("user", [None, USER])
def test_without_evfilt_user_a_pipe_wakes(user: int | None) -> None:
    kernel = Kernel()
    kernel.open = set(range(100))  # the pipe's number among them
    kernel.refuse = {WAKE: errno.EINVAL}
    with KqueuePoller(lambda: Opened(kernel, Change, Dialect(user=user))) as poller:
        ((fd, filter_),) = kernel.knotes
        assert filter_ == READ
        poller.wake()
        assert select.select([fd], [], [], 0)[0]
        kernel.ready = {(fd, READ): (0, 0, 1)}
        assert poller.poll(None) == []
        assert not select.select([fd], [], [], 0)[0]


def test_a_wake_that_cannot_be_added_closes_everything() -> None:
    kernel = Kernel()  # nothing is open: EBADF
    before = os.listdir("/dev/fd")
    with pytest.raises(OSError, match=EBADF):
        KqueuePoller(lambda: Opened(kernel, Change, kevents.OTHER))
    assert kernel.closes == 1
    assert os.listdir("/dev/fd") == before


def test_a_child_leaves_the_number_alone(kernel: Kernel, poller: KqueuePoller) -> None:
    pid = os.fork()
    if not pid:
        try:
            poller.close()
            os._exit(kernel.closes)
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_close_may_be_repeated_and_all_else_is_refused(
    kernel: Kernel, poller: KqueuePoller
) -> None:
    poller.close()
    poller.close()
    assert kernel.closes == 1
    for call in (
        lambda: poller.register(5, POLLIN),
        lambda: poller.modify(5, POLLIN),
        lambda: poller.unregister(5),
        lambda: poller.poll(0),
        poller.wake,
    ):
        with pytest.raises(ValueError, match="closed"):
            call()
