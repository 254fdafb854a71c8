"""What Linux AIO's IOCB_CMD_POLL does, each fact a test.

`pollers/aio/poller.py` rests on these; they use the raw context, not the poller.  Sources:
fs/aio.c, io_submit(2), io_cancel(2), <linux/aio_abi.h>.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pty
import socket
import time
from collections.abc import Iterator

import numpy as np
import pytest

import pollers
from pollers.base import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP

if not pollers.probe("aio").available:  # the contract tests fail where it was expected
    pytest.skip(f"aio: {pollers.probe('aio').reason}", allow_module_level=True)

from pollers.aio.abi import IO_EVENT, IOCB, IOCB_CMD_POLL, numbers
from pollers.aio.context import Context
from pollers.aio.poller import AioPoller

EPOLLET = 1 << 31
EPOLLONESHOT = 1 << 30


class Ring:
    """A context with a few control blocks, to submit and reap by hand."""

    def __init__(self) -> None:
        self.context = Context(64)
        self.iocbs = np.zeros(64, IOCB)
        self.events = np.zeros(64, IO_EVENT)

    def address(self, slot: int) -> int:
        return int(self.iocbs.ctypes.data + slot * IOCB.itemsize)

    def arm(self, slot: int, fd: int, mask: int, data: int | None = None) -> int:
        iocb = self.iocbs[slot]
        iocb["data"] = slot if data is None else data
        iocb["opcode"], iocb["fd"], iocb["buf"] = IOCB_CMD_POLL, fd, mask
        return self.submit(slot)

    def submit(self, *slots: int) -> int:
        addresses = np.array([self.address(slot) for slot in slots], np.uint64)
        return self.context.submit(addresses.ctypes.data, len(slots))

    def reap(self, timeout: float = 0, least: int = 1) -> list[tuple[int, int]]:
        """[(data, res)] of what completes within `timeout` seconds."""
        count = self.context.wait(self.events.ctypes.data, least, len(self.events), timeout)
        return [(int(e["data"]), int(e["res"])) for e in self.events[:count]]


@pytest.fixture
def ring() -> Iterator[Ring]:
    ring = Ring()
    yield ring
    ring.context.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far:
        yield near, far


@pytest.fixture
def tcp() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname(), timeout=5)
        near, _ = listener.accept()
    with near, far:
        yield near, far


def test_layouts_are_the_headers() -> None:
    assert IOCB.itemsize == 64
    offsets = {name: field[1] for name, field in (IOCB.fields or {}).items()}
    assert offsets == {
        "data": 0,
        "key": 8,
        "rw_flags": 12,
        "opcode": 16,
        "reqprio": 18,
        "fd": 20,
        "buf": 24,
        "nbytes": 32,
        "offset": 40,
        "reserved2": 48,
        "flags": 56,
        "resfd": 60,
    }
    assert IO_EVENT.itemsize == 32
    events = {name: field[1] for name, field in (IO_EVENT.fields or {}).items()}
    assert events == {"data": 0, "obj": 8, "res": 16, "res2": 24}


def test_syscall_numbers_differ_in_order_between_architectures() -> None:
    assert numbers("x86_64") == (206, 207, 208, 209, 210)
    assert numbers("aarch64") == numbers("riscv64") == (0, 1, 4, 2, 3)
    with pytest.raises(OSError, match="no AIO syscall numbers for vax; known are x86_64"):
        numbers("vax")
    with pytest.raises(OSError, match="it is Linux's"):  # an Intel macOS says x86_64 too
        numbers("x86_64", linux=False)


def test_a_poll_that_holds_completes_at_submission(ring: Ring, pair) -> None:
    near, far = pair
    far.send(b"x")
    ring.arm(1, near.fileno(), POLLIN)
    assert ring.reap() == [(1, POLLIN)]


def test_a_poll_is_one_shot_and_level_when_armed_again(ring: Ring, pair) -> None:
    near, far = pair
    far.send(b"x")
    ring.arm(1, near.fileno(), POLLIN)
    assert len(ring.reap()) == 1
    assert ring.reap(0.01) == []  # still readable, but nobody is armed
    ring.submit(1)
    assert ring.reap() == [(1, POLLIN)]


def test_the_result_of_a_later_completion_is_the_raw_wake_key(ring: Ring, pair) -> None:
    near, far = pair
    ring.arm(1, near.fileno(), POLLIN)
    assert ring.reap() == []
    far.send(b"x")
    ((slot, bits),) = ring.reap(5)
    assert slot == 1
    assert bits & POLLIN
    assert bits & ~(POLLIN | POLLERR | POLLHUP), "EPOLLRDNORM at least: mask what comes back"


@pytest.mark.parametrize("flag", [EPOLLET, EPOLLONESHOT])
def test_the_mask_has_16_bits_and_no_modes(ring: Ring, pair, flag: int) -> None:
    with pytest.raises(OSError, match="io_submit") as refused:
        ring.arm(1, pair[0].fileno(), POLLIN | flag)
    assert refused.value.errno == errno.EINVAL


def test_a_half_close_is_reported_when_asked_for(ring: Ring, tcp) -> None:
    near, far = tcp
    far.shutdown(socket.SHUT_WR)
    ring.arm(1, near.fileno(), POLLRDHUP)
    ((_, bits),) = ring.reap(5)
    assert bits & POLLRDHUP


def test_submission_stops_at_the_first_bad_iocb(ring: Ring, pair) -> None:
    near, far = pair
    far.send(b"x")
    gone = os.open(os.devnull, os.O_RDONLY)
    os.close(gone)
    for slot, fd in ((1, near.fileno()), (2, gone), (3, near.fileno())):
        iocb = ring.iocbs[slot]
        iocb["data"], iocb["opcode"], iocb["fd"], iocb["buf"] = slot, IOCB_CMD_POLL, fd, POLLIN
    assert ring.submit(1, 2, 3) == 1  # how many came before it
    assert ring.reap() == [(1, POLLIN)]
    with pytest.raises(OSError, match="io_submit") as refused:
        ring.submit(2, 3)  # its own error only when it is the first
    assert refused.value.errno == errno.EBADF


def test_a_cancelled_poll_completes_through_the_ring(ring: Ring, pair) -> None:
    ring.arm(1, pair[0].fileno(), POLLIN)
    ring.context.cancel(ring.address(1))
    assert ring.reap(5) == [(1, 0)]


def test_cancelling_what_has_completed_is_no_error(ring: Ring, pair) -> None:
    near, far = pair
    far.send(b"x")
    ring.arm(1, near.fileno(), POLLIN)
    ring.context.cancel(ring.address(1))
    assert ring.reap() == [(1, POLLIN)]


def test_an_armed_poll_keeps_the_file_open_after_close(ring: Ring, tcp) -> None:
    """The peer sees no FIN; this is what `unregister()` and `shutdown()` are for."""
    near, far = tcp
    ring.arm(1, near.fileno(), POLLIN)
    near.close()
    far.settimeout(0.1)
    with pytest.raises(TimeoutError):
        far.recv(1)
    ring.context.cancel(ring.address(1))
    far.settimeout(5)
    assert far.recv(1) == b""


def test_shutdown_completes_an_armed_poll_and_lets_close_close(ring: Ring, tcp) -> None:
    near, far = tcp
    ring.arm(1, near.fileno(), POLLIN)
    near.shutdown(socket.SHUT_RDWR)
    ((slot, _),) = ring.reap(5)
    near.close()
    far.settimeout(5)
    assert (slot, far.recv(1)) == (1, b"")


def test_a_stale_completion_arrives_after_the_number_was_used_again(ring: Ring, pair) -> None:
    """Which is why the event carries a slot, not an fd."""
    near, far = pair
    number = near.fileno()
    ring.arm(1, number, POLLIN, data=111)
    with open(os.devnull) as other:
        os.dup2(other.fileno(), number)  # closes `near`'s number; its file lives on in the ring
        far.send(b"x")
        assert [data for data, _ in ring.reap(5)] == [111]


def test_files_with_two_wait_queues_are_refused_unless_ready(ring: Ring, tmp_path) -> None:
    """The kernel can wait in one queue only; a condition that holds needs none."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    fd = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    master, slave = pty.openpty()
    try:
        for refused_fd in (fd, master):
            with pytest.raises(OSError, match="io_submit") as refused:
                ring.arm(1, refused_fd, POLLIN)
            assert refused.value.errno == errno.EINVAL
        ring.arm(1, fd, POLLIN | POLLOUT)
        assert ring.reap() == [(1, POLLOUT)]
    finally:
        for number in (fd, master, slave):
            os.close(number)


def test_the_poller_reports_what_the_kernel_refused(tmp_path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    fd = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    with AioPoller() as poller:
        poller.register(fd, POLLIN)
        assert poller.poll(1) == [(fd, pollers.POLLNVAL)]
        with pytest.raises(FileNotFoundError):
            poller.unregister(fd)
    os.close(fd)


def test_a_regular_file_is_ready_at_once(ring: Ring) -> None:
    with open(__file__, "rb") as file:
        ring.arm(1, file.fileno(), POLLIN)
        assert ring.reap()[0][1] & POLLIN


def test_a_context_belongs_to_one_address_space(ring: Ring, pair) -> None:
    near, far = pair
    far.send(b"x")
    pid = os.fork()
    if pid == 0:
        try:
            ring.arm(1, near.fileno(), POLLIN)
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == errno.EINVAL
    ring.arm(1, near.fileno(), POLLIN)
    assert ring.reap() == [(1, POLLIN)]


def test_io_setup_says_what_to_raise() -> None:
    with open("/proc/sys/fs/aio-max-nr") as sysctl:
        beyond = int(sysctl.read()) + 1
    with pytest.raises(OSError, match=r"fs\.aio-max-nr is used up .* sysctl -w") as refused:
        Context(beyond)
    assert refused.value.errno == errno.EAGAIN


def test_a_poller_grows_and_forgets_nothing() -> None:
    """Doubling destroys the old context, with every armed poll; all of them are armed again."""
    pairs = [socket.socketpair() for _ in range(40)]
    with AioPoller(capacity=4) as poller:
        for near, _ in pairs[:20]:
            poller.register(near.fileno(), POLLIN)
        assert poller.poll(0) == []  # armed now
        for near, _ in pairs[20:]:
            poller.register(near.fileno(), POLLIN)
        for _, far in pairs:
            far.send(b"x")
        seen: dict[int, int] = {}
        while len(seen) < len(pairs) and (events := poller.poll(5)):
            seen |= dict(events)
        assert seen == {near.fileno(): POLLIN for near, _ in pairs}
    for near, far in pairs:
        near.close()
        far.close()


def test_the_calls_of_a_poll_do_not_grow_with_its_events() -> None:
    """What lazy re-arming is for: one io_submit, and io_getevents where the ring is not read."""
    pairs = [socket.socketpair() for _ in range(100)]
    with AioPoller() as poller:
        for near, far in pairs:
            poller.register(near.fileno(), POLLIN)
            far.send(b"x")
        before = poller.counters.kernel_calls
        for _ in range(10):
            assert len(poller.poll(1)) == len(pairs)
        with contextlib.closing(Context(1)) as context:
            calls = 1 if context.ring is not None else 2
        assert poller.counters.kernel_calls - before == 10 * calls
        assert poller.counters.rearms == 900
    for near, far in pairs:
        near.close()
        far.close()


def test_a_stale_completion_neither_shows_nor_ends_a_wait(pair) -> None:
    near, _ = pair
    with AioPoller() as poller:
        poller.register(near.fileno(), POLLIN)
        assert poller.poll(0) == []  # armed now
        poller.unregister(near.fileno())  # cancelled: its completion is on the way
        start = time.monotonic()
        assert poller.poll(0.05) == []
        assert time.monotonic() - start >= 0.05
        assert poller.counters.stale == 1


def test_modify_needs_no_place_for_what_is_not_armed() -> None:
    """A stalled connection at exactly full capacity must not double the ring."""
    pairs = [socket.socketpair() for _ in range(3)]
    with AioPoller(capacity=4) as poller:  # the fourth is the wake-up's
        for near, far in pairs:
            poller.register(near.fileno(), POLLIN)
            far.send(b"x")
        assert len(poller.poll(5)) == 3
        calls = poller.counters.kernel_calls
        poller.modify(pairs[0][0].fileno(), POLLOUT)
        assert poller.counters.kernel_calls == calls + 1  # it looks whether the fd is open
        assert dict(poller.poll(5))[pairs[0][0].fileno()] == POLLOUT
    for near, far in pairs:
        near.close()
        far.close()
