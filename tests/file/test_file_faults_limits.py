"""No file descriptor left, for a connection or for a file; a disk that gives an error.

What each loop does at EMFILE on accept(2) is a fact about it, as tests/echo/test_faults.py has it:
the reactor, asyncio and trio wait and try again, uvloop accepts and closes.  For a file server a
file is one more thing that cannot be opened: 503, as nothing is wrong with the request.
"""

from __future__ import annotations

import fcntl
import functools
import os
import select
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from fileserving import (
    BACKENDS,
    COMBINATIONS,
    DEADLINE,
    LOOPS,
    Combination,
    FileServer,
    Incoming,
    content,
    get,
    request_bytes,
    until,
)

MIB = 1 << 20

#: Hard limit of open files for a server that is to run out of them, and the connects it gets.
NOFILE = 64
CONNECTS = 200

#: What a server without fds may do while it waits for one: share of a core, log lines a second.
WINDOW = 0.5
SHARE = 0.15  # a spinning loop takes all of it; less would count single clock ticks

#: Bytes of a block of the disk that breaks, and ioctl_fibmap(2).
BLOCK = 4096
FIBMAP = 1

#: Every backend once, on every loop that has it.
CHOSEN = [*BACKENDS, *(each for each in COMBINATIONS if each.poller is None)]

#: The same bytes are wanted again and again.
known = functools.cache(content)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("limits")
    for name in ("first", "second", "third"):
        (directory / name).write_bytes(name.encode())
    return directory


def answered(socks: list[socket.socket]) -> list[socket.socket]:
    """Those on which something has come: an answer, or the end."""
    poll = select.poll()
    by_fd = {sock.fileno(): sock for sock in socks}
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    return [by_fd[fd] for fd, _ in poll.poll(0)]


@pytest.mark.parametrize("combination", LOOPS, ids=str, indirect=True, scope="module")
def test_no_fd_for_a_connection_and_then_the_drain(
    combination: Combination, start: Callable[..., FileServer], tmp_path: Path
) -> None:
    """Nobody tries to accept again where nobody listens any more, or complains that he cannot."""
    (tmp_path / "big").write_bytes(bytes(5 * MIB))
    server = start(tmp_path, "--drain-timeout", "1.2", nofile=NOFILE)  # asyncio tries after 1 s
    with ExitStack() as stack:
        stuck = stack.enter_context(server.connect(receive_buffer=4096))
        stuck.sendall(request_bytes("/big"))
        server.until(lambda line: line["stalls"] > 0)
        waiting = [stack.enter_context(server.connect()) for _ in range(CONNECTS)]
        if combination.loop == "uvloop":  # which closes them, and counts nothing
            until(lambda: bool(answered(waiting)))
        else:
            server.until(lambda line: line["accept_errors"] > 0)
        server.terminate()
        assert server.process.wait(DEADLINE) == 0
        assert server.lines()[-1]["open"] == 0
    assert all("Too many open files" in line for line in server.stderr())


@pytest.mark.parametrize("combination", LOOPS, ids=str, indirect=True, scope="module")
def test_no_fd_for_a_connection(
    combination: Combination, start: Callable[..., FileServer], root: Path
) -> None:
    """It serves whom it has, waits without spinning or chatting, and goes on after."""
    begin = time.monotonic()
    server = start(root, nofile=NOFILE)
    with server.connect() as sock:
        assert get(sock, "/first").body == b"first"  # it is open from now on
    with ExitStack() as stack:
        waiting = [stack.enter_context(server.connect()) for _ in range(CONNECTS)]
        for sock in waiting:
            with suppress(ConnectionError):  # uvloop may have closed it already
                sock.sendall(request_bytes("/first"))
        until(lambda: len(answered(waiting)) > NOFILE / 2)
        if combination.loop != "uvloop":
            server.until(lambda line: line["accept_errors"] > 0)
        said, cpu, since = len(server.stderr()), server.cpu(), time.monotonic()
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(WINDOW)
        passed = time.monotonic() - since
        assert server.cpu() - cpu < SHARE * passed
        assert len(server.stderr()) - said <= passed + 1
        served = closed = 0
        while waiting:
            for sock in answered(waiting):
                try:
                    served += Incoming(sock).response().body == b"first"
                except (AssertionError, ConnectionError):  # the end, or what uvloop made of it
                    closed += 1
                sock.close()
                waiting.remove(sock)
            if waiting:
                until(lambda: bool(answered(waiting)), seconds=5)
    if combination.loop == "uvloop":
        assert served > NOFILE / 2
    else:
        assert (served, closed) == (CONNECTS, 0)
        assert len(server.stderr()) <= time.monotonic() - begin + 1
    with server.connect() as sock:
        assert get(sock, "/second").body == b"second"
    server.until(lambda line: line["open"] == 0)
    server.terminate()
    assert server.process.wait(DEADLINE) == 0


@pytest.mark.parametrize("combination", CHOSEN, ids=str, indirect=True, scope="module")
def test_no_fd_for_a_file(
    combination: Combination, start: Callable[..., FileServer], root: Path
) -> None:
    """503 for what is not open yet, said once a second at most, and it recovers by itself."""
    begin = time.monotonic()
    server = start(root, nofile=NOFILE)
    with ExitStack() as stack:
        first = stack.enter_context(server.connect())
        assert get(first, "/first").body == b"first"
        others = [stack.enter_context(server.connect()) for _ in range(NOFILE)]
        if combination.loop == "uvloop":  # it keeps one in reserve, and tells nobody
            until(lambda: bool(answered(others)))
        else:
            server.until(lambda line: line["accept_errors"] > 0)
        statuses = [get(first, f"/{name}").status for name in ("second", "third") * 40]
        assert set(statuses) == {503}, statuses
        assert get(first, "/first").body == b"first"  # what is open and remembered needs no fd
        response = get(first, "/second")
        assert "retry-after" in response.fields
        assert "connection" not in response.fields
        for sock in others:
            sock.close()
        until(lambda: get(first, "/second").status == 200, seconds=5)
        assert get(first, "/second").body == b"second"
        assert get(first, "/third").body == b"third"
        assert len(server.stderr()) <= 2 * (time.monotonic() - begin + 1)
        assert all("Too many open files" in line or "EMFILE" in line for line in server.stderr())
    server.until(lambda line: line["open"] == 0)
    server.terminate()
    assert server.process.wait(DEADLINE) == 0


@pytest.fixture(scope="module")
def broken_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system whose medium ends in the middle of the file `bad` (`good` comes before it).

    An image of ext4 on a loop device, cut off under what is mounted.  That takes root.
    """
    mount = tmp_path_factory.mktemp("disk")
    image = tmp_path_factory.mktemp("medium") / "image"
    for tool in ("mkfs.ext4", "mount", "umount"):
        if shutil.which(tool) is None:
            pytest.skip(f"a broken disk is made with {tool}, which is not installed")
    with open(image, "wb") as file:
        file.truncate(48 * MIB)
    run("mkfs.ext4", "-q", "-F", "-b", str(BLOCK), str(image))
    run("mount", "-o", "loop", str(image), str(mount))
    try:
        (mount / "good").write_bytes(known(MIB))
        (mount / "bad").write_bytes(known(20 * MIB))
        os.sync()
        cut = block(mount / "bad", 10 * MIB)
        assert block(mount / "good", MIB - 1) < cut
        assert block(mount / "bad", 0) < cut
    finally:
        run("umount", str(mount))
    run("mount", "-o", "loop,ro,noload", str(image), str(mount))
    try:
        os.truncate(image, cut * BLOCK)
        yield mount
    finally:
        run("umount", str(mount))


def block(path: Path, offset: int) -> int:
    """Which block of its disk an offset of a file lies in.  Only root may ask."""
    with open(path, "rb") as file:
        number = struct.pack("i", offset // BLOCK)
        return int(struct.unpack("i", fcntl.ioctl(file, FIBMAP, number))[0])


def run(*words: str) -> None:
    """Run a tool.  Skips where it is refused, with what it said."""
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=DEADLINE)
    if ended.returncode:
        pytest.skip(f"{' '.join(words[:3])}: {ended.stderr.strip()}")


@pytest.mark.parametrize("combination", CHOSEN, ids=str, indirect=True, scope="module")
def test_disk_error(broken_disk: Path, start: Callable[..., FileServer]) -> None:
    """EIO in mid-transfer: the connection ends, it is said once a second, and others go on."""
    begin = time.monotonic()
    server = start(broken_disk)
    with server.connect() as other:
        for _ in range(10):
            assert get(other, "/good").body == known(MIB)
            with server.connect() as sock:
                sock.sendall(request_bytes("/bad") + request_bytes("/good"))
                received = bytearray()
                with suppress(ConnectionResetError):
                    while data := sock.recv(MIB):
                        received += data
            head, _, body = received.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert len(body) < 20 * MIB
            assert body == known(20 * MIB)[: len(body)]
        assert get(other, "/good", range="bytes=5-9").body == known(MIB)[5:10]
        server.until(lambda line: line["open"] == 1)
    passed = time.monotonic() - begin
    assert 1 <= len(server.stderr()) <= passed + 1
    assert all("Input/output error" in line for line in server.stderr()), server.stderr()
    server.kill()  # what it has open keeps the file system from being unmounted
