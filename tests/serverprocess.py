"""A server of this project as a real process, and the client's side of its connections.

Everything here has a deadline: a server that hangs fails the test that asked it something.
What one kind of server alone needs is in tests/echo/serving.py and tests/file/fileserving.py.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psutil
import pytest

import pollers
from pollers.system import HAS_SPLICE

#: Seconds that any single step may take before it counts as a hang.
DEADLINE = 20.0

Line = dict[str, Any]


@dataclass(frozen=True)
class Combination:
    """What of the server's command line decides which code serves."""

    loop: str
    poller: str | None = None
    backend: str = "copy"

    @property
    def words(self) -> list[str]:
        words = ["--loop", self.loop, "--backend", self.backend]
        if self.poller is not None:
            words += ["--poller", self.poller]
        return words

    @property
    def most(self) -> int:
        """Connections that are asked of it at once: select(2) stops at fd 1023."""
        return 900 if self.poller == "select" else 1000

    def __str__(self) -> str:
        return f"{self.poller or self.loop}-{self.backend}"


#: pollers.probe, once a poller: it may start a process to find out.
probe = functools.cache(pollers.probe)


def require(combination: Combination) -> None:
    """Fail or skip where the combination does not work here.

    A poller that this platform should have and that does not work is a failure; one that this
    platform does not have is skipped with the probe's reason.  The other loops are dependencies
    of the package: one that is missing fails by itself.
    """
    if combination.poller is not None:
        found = probe(combination.poller)
        if not found.available:
            if found.expected:
                pytest.fail(f"this platform should have it, but: {found.reason}", pytrace=False)
            pytest.skip(found.reason)
    if combination.backend == "splice" and not HAS_SPLICE:
        pytest.skip("this system has no splice(2)")
    if combination.backend == "batch" and not (found := probe("aio")).available:
        pytest.skip(found.reason)


class ServerProcess:
    """One running server.  Its stderr goes to a file: it can be counted, and never blocks."""

    def __init__(self, module: str, *words: str, nofile: int | None = None) -> None:
        """`nofile` is the limit of fds that it starts with, and cannot raise."""
        limit = None
        if nofile is not None:
            limit = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (nofile, nofile))
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed by kill)
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            preexec_fn=limit,
        )
        assert self.process.stdout is not None
        self.stdout = self.process.stdout
        self._unread = b""
        try:
            self.ready = self.line()
            assert self.ready["ready"] is True, self.ready
            url = urlsplit(self.ready["url"])
        except BaseException:
            self.kill()
            raise
        self.address = (url.hostname, url.port)

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self, seconds: float = DEADLINE) -> Line:
        """The next JSON line of its stdout."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._unread:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self.stdout], [], [], left)[0]:
                raise TimeoutError(f"no line within {seconds} s; stderr: {self.stderr()}")
            if not (data := os.read(self.stdout.fileno(), 65536)):
                raise EOFError(f"the server's stdout has ended; stderr: {self.stderr()}")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return dict(json.loads(line))

    def lines(self) -> list[Line]:
        """Every line that is left in its stdout, which must end."""
        lines = []
        with suppress(EOFError):
            while True:
                lines.append(self.line())
        return lines

    def stderr(self) -> list[str]:
        """The lines that it has written to stderr so far."""
        size = os.fstat(self._stderr.fileno()).st_size
        return os.pread(self._stderr.fileno(), size, 0).decode().splitlines()

    def connect(self, receive_buffer: int = 0, segment: int = 0) -> socket.socket:
        """A new connection, with a receive buffer or a segment size of its own if asked for.

        Small segments keep the *server's* send buffer small (it is sized in segments), and let a
        small window move without the sender's silly-window timer.
        """
        sock = socket.socket()
        try:
            if receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            if segment:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment)
            sock.settimeout(DEADLINE)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect(self.address)
        except BaseException:
            sock.close()
            raise
        return sock

    def counters(self) -> Line:
        """The counters so far."""
        os.kill(self.pid, signal.SIGUSR1)
        line = self.line()
        assert line["final"] is False
        return line

    def until(self, condition: Callable[[Line], bool], seconds: float = DEADLINE) -> Line:
        """The first counters for which the condition holds."""
        deadline = time.monotonic() + seconds
        while not condition(line := self.counters()):
            assert time.monotonic() < deadline, f"it did not come to that: {line}"
            time.sleep(0.005)
        return line

    def listens(self) -> bool:
        """Whether it has a listening socket, seen from outside: a connect would be counted."""
        for pid in self.ready["pids"]:
            with suppress(psutil.NoSuchProcess):  # a worker without connections ends at once
                connections = psutil.Process(pid).net_connections("tcp")
                if any(each.status == psutil.CONN_LISTEN for each in connections):
                    return True
        return False

    def until_it_refuses(self) -> None:
        """Wait until it has stopped accepting, and see that a connect is refused."""
        until(lambda: not self.listens())
        with socket.socket() as sock:
            sock.settimeout(DEADLINE)
            assert sock.connect_ex(self.address) == errno.ECONNREFUSED

    def cpu(self) -> float:
        """Seconds of CPU used so far, user and system."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    def rss(self) -> int:
        """Resident memory now, bytes."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def fds(self) -> int:
        return int(psutil.Process(self.pid).num_fds())

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def ends(self, seconds: float = DEADLINE) -> Line:
        """Wait for a clean end; return the final counters, which must be the last line."""
        code = self.process.wait(seconds)
        *others, last = self.lines() or [{}]
        assert (code, self.stderr()) == (0, []), (code, self.stderr())
        assert last.get("final") is True, (others, last)
        return last

    def stop(self) -> Line:
        """SIGTERM, then `ends()`."""
        self.terminate()
        return self.ends()

    def kill(self) -> None:
        """Leave nothing of it behind, whatever state it is in.  May be repeated."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE)
        self.stdout.close()
        self._stderr.close()


S = TypeVar("S", bound=ServerProcess)


@contextmanager
def killed_afterwards(server: S) -> Iterator[S]:
    """The server, which is killed at the end if it still runs."""
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def quiet(server: S) -> Iterator[S]:
    """The server, which must afterwards end cleanly and have nothing to complain about."""
    with killed_afterwards(server):
        yield server
        final = server.stop()
        assert final["open"] == 0, final
        assert final["accepted"] == final["closed"], final


def until(condition: Callable[[], bool], seconds: float = DEADLINE) -> None:
    """Wait for a condition that nothing announces."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{condition} did not hold within {seconds} s"
        time.sleep(0.005)


def read_exactly(sock: socket.socket, count: int) -> bytes:
    """`count` bytes of a blocking socket."""
    received = bytearray()
    while len(received) < count:
        data = sock.recv(count - len(received))
        assert data, f"end of file after {len(received)} of {count} bytes"
        received += data
    return bytes(received)


def fill(sock: socket.socket, source: bytes) -> int:
    """Send from `source` until the kernel takes no more; return how many bytes it took."""
    sock.setblocking(False)
    taken = 0
    with suppress(BlockingIOError):
        while taken < len(source):
            taken += sock.send(memoryview(source)[taken:])
    sock.settimeout(DEADLINE)
    return taken


def reset(sock: socket.socket) -> None:
    """Close with RST instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


@contextmanager
def injecting(pid: int, *faults: str) -> Iterator[None]:
    """Have system calls of a running process fail, as strace(1)'s `-e inject=` has it.

    "accept4:error=ECONNABORTED:when=1+2" fails every other accept4.  Skips where it cannot.
    """
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace, which injects the fault, is not installed: apt-get install strace")
    names = ",".join(fault.partition(":")[0] for fault in faults)
    words = [word for fault in faults for word in ("-e", f"inject={fault}")]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [strace, "-f", "-p", str(pid), "-e", f"trace={names}", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )

        def attached() -> bool:
            output = os.pread(said.fileno(), 65536, 0).decode()
            if process.poll() is not None:
                pytest.skip(f"strace cannot attach here: {output.strip()}")
            return "attached" in output

        try:
            until(attached)
            yield
        finally:
            process.terminate()  # it detaches, and the process goes on
            process.wait(DEADLINE)
