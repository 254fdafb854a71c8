"""Many registrations by one kevent(2): a receipt for every change, and errors told one by one."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from keventmodel import READ, SYSTEMS, WRITE, Kernel, System, knotes_of

from pollers import registry
from pollers.base import POLLIN, POLLOUT, POLLPRI
from pollers.kevents import Change
from pollers.kqueue import KqueuePoller, Opened

BOTH = POLLIN | POLLOUT


def over(kernel: Kernel) -> KqueuePoller:
    return KqueuePoller(lambda: Opened(kernel, Change, kernel.system.dialect))


@pytest.fixture(params=SYSTEMS, ids=str)
def kernel(request: pytest.FixtureRequest) -> Kernel:
    return Kernel(request.param)


@pytest.fixture
def poller(kernel: Kernel) -> Iterator[KqueuePoller]:
    with over(kernel) as poller:
        yield poller


def test_many_fds_are_one_call(kernel: Kernel, poller: KqueuePoller) -> None:
    kernel.open = set(range(10, 510))
    calls = poller.counters.kernel_calls
    assert poller.register_many(dict.fromkeys(kernel.open, BOTH)) == {}
    assert poller.counters.kernel_calls == calls + 1
    assert all(knotes_of(kernel, fd).keys() == {READ, WRITE} for fd in kernel.open)


def test_none_is_no_call(kernel: Kernel, poller: KqueuePoller) -> None:
    calls = poller.counters.kernel_calls
    assert poller.register_many({}) == {}
    assert poller.counters.kernel_calls == calls


def test_what_is_refused_comes_with_its_error_and_the_rest_is_registered(
    kernel: Kernel, poller: KqueuePoller
) -> None:
    kernel.open = {10, 11, 12, 14}
    kernel.refuse = {(11, READ): errno.ENOMEM, (14, WRITE): errno.EINVAL}
    poller.register(12, POLLIN)
    refused = poller.register_many(dict.fromkeys(range(10, 15), BOTH))
    assert {fd: error.errno for fd, error in refused.items()} == {
        11: errno.ENOMEM,
        12: errno.EEXIST,
        13: errno.EBADF,
        14: errno.EINVAL,
    }
    assert isinstance(refused[12], FileExistsError)
    assert [fd for fd in range(10, 15) if knotes_of(kernel, fd)] == [10, 12]
    for fd in (11, 13, 14):  # what failed left nothing, on neither side
        with pytest.raises(FileNotFoundError):
            poller.modify(fd, POLLIN)


def test_an_error_of_one_alone_is_raised(kernel: Kernel, poller: KqueuePoller) -> None:
    kernel.open = {10}
    kernel.refuse = {(10, WRITE): errno.ENOMEM}
    with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)) as caught:
        poller.register(10, BOTH)
    assert caught.value.errno == poller.register_many({10: BOTH})[10].errno


@pytest.mark.parametrize(
    ("interests", "error"),
    [({10: POLLIN, 11: 0}, ValueError), ({10: POLLIN, -1: POLLIN}, OSError)],
)
def test_what_no_kernel_has_to_judge_is_raised_before_anything_is_changed(
    kernel: Kernel, poller: KqueuePoller, interests: dict[int, int], error: type[Exception]
) -> None:
    kernel.open = {10, 11}
    with pytest.raises(error):
        poller.register_many(interests)
    assert not knotes_of(kernel, 10)


def test_urgent_data_alone_is_refused_before_anything_is_changed(
    kernel: Kernel, poller: KqueuePoller
) -> None:
    kernel.open = {10, 11}
    with pytest.raises(OSError, match="POLLPRI"):
        poller.register_many({10: POLLIN, 11: POLLPRI})
    assert not knotes_of(kernel, 10)


@given(
    system=st.sampled_from(SYSTEMS),
    interests=st.dictionaries(st.integers(10, 20), st.sampled_from([POLLIN, POLLOUT, BOTH])),
    open_fds=st.sets(st.integers(10, 20)),
    refuse=st.dictionaries(
        st.tuples(st.integers(10, 20), st.sampled_from([READ, WRITE])),
        st.sampled_from([errno.ENOMEM, errno.EINVAL]),
    ),
)
def test_it_does_what_one_register_after_the_other_does(
    system: System,
    interests: dict[int, int],
    open_fds: set[int],
    refuse: dict[tuple[int, int], int],
) -> None:
    one, many = Kernel(system), Kernel(system)
    with over(one) as singly, over(many) as at_once:
        for kernel in (one, many):
            kernel.open, kernel.refuse = set(open_fds), dict(refuse)
        expected = {}
        for fd, interest in interests.items():
            try:
                singly.register(fd, interest)
            except OSError as error:
                expected[fd] = error.errno
        refused = at_once.register_many(interests)
        assert {fd: error.errno for fd, error in refused.items()} == expected
        assert many.knotes == one.knotes


@pytest.fixture(scope="module")
def found() -> registry.Availability:
    """Before the first test that needs one: libkqueue keeps files for the whole process."""
    return registry.probe("kqueue")


@pytest.fixture
def real(found: registry.Availability) -> Iterator[KqueuePoller]:
    """A kqueue of this system, or the one that libkqueue imitates."""
    if not found.available:
        assert not found.expected, found.reason
        pytest.skip(found.reason)
    with KqueuePoller() as poller:
        yield poller


def test_a_kqueue_that_is_there_answers_for_each(real: KqueuePoller) -> None:
    with ExitStack() as stack:
        near = []
        for _ in range(100):
            ends = socket.socketpair()
            for end in ends:
                stack.enter_context(end)
            near.append(ends[0])
        closed = os.dup(near[0].fileno())
        os.close(closed)
        interests = {sock.fileno(): POLLOUT for sock in near}
        refused = real.register_many({**interests, closed: POLLIN})
        assert {fd: error.errno for fd, error in refused.items()} == {closed: errno.EBADF}
        ready: dict[int, int] = {}
        while len(ready) < len(interests):
            found = dict(real.poll(1.0))
            assert found
            ready |= found
        assert ready.keys() == interests.keys()
        for fd in interests:
            real.unregister(fd)
