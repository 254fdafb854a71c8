"""The kernel's count of system calls, against loops whose number of calls is known."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from loadtest._kernelcount import ATTR, KernelCalls

CALLS = 1000
#: Calls that the interpreter makes besides (allocation, locks, reading the counter).
SLACK = 400


@pytest.fixture
def counting() -> KernelCalls:
    counter = KernelCalls([os.getpid()])
    if counter.reason:
        pytest.skip(counter.reason)
    counter.close()
    return counter


def call() -> None:
    for _ in range(CALLS):
        os.getppid()


def test_the_struct_is_the_first_published_size() -> None:
    assert ATTR.size == 64  # PERF_ATTR_SIZE_VER0


@pytest.mark.usefixtures("counting")
def test_calls_of_this_thread_are_counted() -> None:
    with KernelCalls([os.getpid()]) as counter:
        before = counter.read()
        call()
        after = counter.read()
    assert before is not None
    assert after is not None
    assert CALLS <= after - before <= CALLS + SLACK


@pytest.mark.usefixtures("counting")
def test_threads_that_exist_and_threads_to_come_are_counted_once() -> None:
    go, stop = threading.Event(), threading.Event()

    def early() -> None:
        go.wait(30)
        call()
        stop.wait(30)

    first = threading.Thread(target=early)
    first.start()
    with KernelCalls([os.getpid()]) as counter:
        before = counter.read()
        go.set()
        second = threading.Thread(target=call)
        second.start()
        second.join()
        stop.set()
        first.join()
        after = counter.read()
    assert before is not None
    assert after is not None
    assert 2 * CALLS <= after - before <= 2 * CALLS + 2 * SLACK


@pytest.mark.usefixtures("counting")
def test_another_process_and_its_children_are_counted_after_their_end() -> None:
    code = (
        "import os, sys\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "pid = os.fork()\n"
        f"for _ in range({CALLS}): os.getppid()\n"
        "if pid: os.waitpid(pid, 0)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with KernelCalls([process.pid]) as counter:
            process.communicate(b"go\n", timeout=30)
            count = counter.read()
    assert count is not None
    assert 2 * CALLS <= count <= 2 * CALLS + 4 * SLACK


def test_a_missing_tracefs_is_a_reason_and_no_number(tmp_path: Path) -> None:
    counter = KernelCalls([os.getpid()], tracefs=[tmp_path])
    assert counter.read() is None
    assert "raw_syscalls:sys_enter" in counter.reason
    assert "mount -t tracefs" in counter.reason
    assert "\n" not in counter.reason
    counter.close()


@pytest.mark.usefixtures("counting")
def test_a_process_that_has_gone_is_a_reason() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait(30)
    counter = KernelCalls([os.getpid(), process.pid])
    assert counter.read() is None
    assert str(process.pid) in counter.reason


@pytest.mark.usefixtures("counting")
def test_close_returns_every_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    counter = KernelCalls([os.getpid()])
    assert len(os.listdir("/proc/self/fd")) > before
    counter.close()
    counter.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert counter.read() is None
