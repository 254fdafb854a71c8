"""A command on a leash ends with its parent."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import psutil
import pytest

SLEEPER = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"
#: A command that has a child of its own.
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEPER!r}])"


def leash(code: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "loadtest._leash", sys.executable, "-c", code]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("pass", 0),
        ("raise SystemExit(2)", 2),
        ("import os; os.kill(os.getpid(), 9)", 128 + signal.SIGKILL),
    ],
)
def test_the_exit_code_is_the_commands(code: str, expected: int) -> None:
    with leash(code) as process:
        assert process.wait(10) == expected


@pytest.mark.parametrize("code", [SLEEPER, STUBBORN, PARENT], ids=["polite", "stubborn", "parent"])
def test_the_end_of_stdin_ends_the_command_and_its_children(code: str) -> None:
    with leash(code) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        below = psutil.Process(process.pid).children(recursive=True)
        assert below
        process.stdin.close()
        assert process.wait(10) > 128
        assert process.stdout.read() == b""  # nobody holds the other end any more
    assert ended(below) == []


def test_stdout_ends_with_the_command() -> None:
    """The leash itself holds no copy of it."""
    with leash(SLEEPER) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (child,) = psutil.Process(process.pid).children()
        child.kill()
        assert process.stdout.read() == b""
        assert process.wait(10) == 128 + signal.SIGKILL


def ended(processes: list[psutil.Process]) -> list[psutil.Process]:
    """The processes that are still there five seconds from now, zombies apart."""
    deadline = time.monotonic() + 5
    left = processes
    while left and time.monotonic() < deadline:
        left = [p for p in left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    return left
