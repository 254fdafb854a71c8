"""The ring of an AIO context, read without a system call: layout, order, wrapping, fork, close."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pollers
from pollers.base import POLLIN

if not pollers.probe("aio").available:  # the contract tests fail where it was expected
    pytest.skip(f"aio: {pollers.probe('aio').reason}", allow_module_level=True)

from pollers.aio import ring as layout
from pollers.aio.abi import IO_EVENT, IOCB, IOCB_CMD_POLL
from pollers.aio.context import Context
from pollers.aio.ring import Ring, why_not

GOOD = [0, 128, 0, 0, 0xA10A10A1, 1, 0, 32]


class Ready:
    """A context and an eventfd that is readable: polls of it complete when they are submitted."""

    def __init__(self, capacity: int, *, mapped: bool = True) -> None:
        self.context = Context(capacity, mapped=mapped)
        self.fd = os.eventfd(1)
        self.iocbs = np.zeros(512, IOCB)
        self.iocbs["opcode"], self.iocbs["fd"], self.iocbs["buf"] = IOCB_CMD_POLL, self.fd, POLLIN
        self.addresses = np.arange(512, dtype=np.uint64) * np.uint64(64)
        self.addresses += np.uint64(self.iocbs.ctypes.data)
        self.events = np.zeros(512, IO_EVENT)
        self.next = 0

    def submit(self, count: int) -> int:
        """Completions with the next numbers as their data."""
        self.iocbs["data"][:count] = np.arange(self.next, self.next + count)
        try:
            done = self.context.submit(self.addresses.ctypes.data, count)
        except BlockingIOError:
            done = 0
        self.next += done
        return done

    def by_call(self, most: int) -> list[int]:
        count = self.context.wait(self.events.ctypes.data, 0, most, 0)
        return [int(data) for data in self.events["data"][:count]]

    def close(self) -> None:
        self.context.close()
        os.close(self.fd)


@pytest.fixture
def ready() -> Iterator[Ready]:
    ready = Ready(8)
    if ready.context.ring is None:
        ready.close()
        pytest.skip(f"no ring to read here: {ready.context.unmapped}")
    yield ready
    ready.close()


# -- the layout


def test_constants_are_the_kernels() -> None:
    """fs/aio.c: struct aio_ring and AIO_RING_*."""
    assert (layout.NR, layout.HEAD, layout.TAIL, layout.MAGIC) == (1, 2, 3, 4)
    assert (layout.COMPAT, layout.INCOMPAT, layout.LENGTH) == (5, 6, 7)
    assert (layout.HEADER_LENGTH, layout.RING_MAGIC, layout.COMPAT_FEATURES) == (32, 0xA10A10A1, 1)


def test_the_ring_of_this_kernel_is_as_expected(ready: Ready) -> None:
    assert ready.context.unmapped == ""
    ring = ready.context.ring
    assert ring is not None
    assert ring.nr > 8, "at least what was asked for, and one place that stays empty"
    assert len(ring) == 0


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (layout.MAGIC, 0xA10A10A2, "magic number is 0xa10a10a2"),
        (layout.INCOMPAT, 1, "incompatible features"),
        (layout.COMPAT, 2, "lacks the features"),
        (layout.LENGTH, 40, "header has 40 bytes"),
        (layout.HEAD, 128, "beyond its 128 places"),
        (layout.TAIL, 200, "beyond its 128 places"),
        (layout.NR, 0, "beyond its 0 places"),
    ],
)
def test_another_layout_is_refused_with_the_reason(place: int, value: int, reason: str) -> None:
    header = list(GOOD)
    assert why_not(header, "x86_64") == ""
    header[place] = value
    assert reason in why_not(header, "x86_64")


@pytest.mark.parametrize("machine", ["aarch64", "riscv64"])
def test_a_machine_with_weak_order_calls_the_kernel(ready: Ready, machine: str) -> None:
    assert machine in why_not(GOOD, machine)
    with pytest.raises(OSError, match=f"{machine} does not keep the order") as refused:
        Ring(ready.context._id, machine)
    assert refused.value.errno == errno.ENOTSUP


# -- taking


def test_what_completed_is_taken_without_a_call_and_in_order(ready: Ready) -> None:
    ring = ready.context.ring
    assert ring is not None
    assert ready.submit(5) == 5
    assert len(ring) == 5
    data, results = ready.context.completions(1, 3, None)
    assert (data.tolist(), results.tolist()) == ([0, 1, 2], [POLLIN] * 3)
    assert [int(each) for each in ring.take(10)[0]] == [3, 4]
    assert ready.context.completions(0, 10, 0)[0].tolist() == []
    assert (ready.context.taken, ready.context.getevents_calls) == (3, 0)


def test_what_was_taken_makes_room_again(ready: Ready) -> None:
    """Far more than there are places, and not one call of io_getevents."""
    ring = ready.context.ring
    assert ring is not None
    seen: list[int] = []
    while len(seen) < 20 * ring.nr:
        ready.submit(512)
        seen += ready.context.completions(1, 4096, None)[0].tolist()
    assert seen == list(range(len(seen)))
    assert ready.context.getevents_calls == 0


def test_results_come_whole_whatever_way_they_are_taken(ready: Ready) -> None:
    """In one piece, around the end of the memory, and after some that were taken by a call."""
    ring = ready.context.ring
    assert ring is not None
    ready.submit(3)
    for count in (2, 4):
        assert ring.take_results(count) is None, "not as many"
    assert len(ring) == 3, "nothing was taken"
    found = ring.take_results(3)
    assert found is not None
    assert found.tolist() == [POLLIN] * 3
    assert ready.context.results(0) == []
    pieces = 0
    for count in range(1, ring.nr):
        assert ready.submit(min(count, 8)) == min(count, 8)
        parts = ready.context.results(min(count, 8))
        pieces += len(parts) == 1
        assert [int(each) for part in parts for each in part] == [POLLIN] * min(count, 8)
        assert len(ring) == 0
    assert pieces > ring.nr // 2


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 300), st.booleans())))
def test_calls_and_the_ring_may_be_mixed(steps: list[tuple[int, int, bool]]) -> None:
    """As one thread may: nothing twice, nothing lost, in order, around the end of the memory."""
    ready = Ready(8)
    try:
        if ready.context.ring is None:
            pytest.skip(f"no ring to read here: {ready.context.unmapped}")
        seen: list[int] = []
        for count, most, by_call in steps:
            if count:
                ready.submit(count)
            seen += ready.by_call(most) if by_call else ready.context.ring.take(most)[0].tolist()
        while left := ready.context.completions(0, 100, 0)[0].tolist():
            seen += left
        assert seen == list(range(ready.next))
    finally:
        ready.close()


def test_a_context_without_a_ring_does_the_same_by_calls() -> None:
    ready = Ready(8, mapped=False)
    assert ready.context.ring is None
    assert ready.context.unmapped == "it was not asked for"
    ready.submit(3)
    assert ready.context.completions(1, 2, None)[0].tolist() == [0, 1]
    assert ready.context.completions(1, 9, 5)[0].tolist() == [2]
    assert ready.context.completions(0, 9, 0)[0].tolist() == []
    assert (ready.context.taken, ready.context.getevents_calls) == (0, 3)
    ready.close()


# -- the end


def test_a_closed_context_is_not_looked_at(ready: Ready) -> None:
    """Its memory is gone: a look would end the process."""
    ring = ready.context.ring
    assert ring is not None
    ready.submit(1)
    ready.context.close()
    with pytest.raises(OSError, match="this AIO context is closed"):
        ring.take(1)
    with pytest.raises(OSError, match="this AIO context is closed"):
        len(ring)


def test_a_forked_child_is_told_and_takes_nothing(ready: Ready) -> None:
    """It has inherited the memory, and could."""
    ready.submit(3)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            calls = [
                lambda: ready.context.completions(0, 3, 0),
                lambda: ready.context.completions(1, 3, None),
                lambda: ready.context.reap(ready.events.ctypes.data, 0, 3, 0),
                lambda: ready.context.submit(ready.addresses.ctypes.data, 1),
                ready.context.check_ours,
            ]
            for call in calls:
                with pytest.raises(OSError, match="forked from; make one here") as refused:
                    call()
                assert refused.value.errno == errno.EINVAL
            ready.context.close()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert ready.context.completions(3, 3, None)[0].tolist() == [0, 1, 2]


def test_without_the_ring_a_forked_child_is_told_too() -> None:
    ready = Ready(8, mapped=False)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            ready.context.completions(0, 3, 0)
        except OSError as error:
            code = 0 if "forked from" in str(error) else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    ready.close()
