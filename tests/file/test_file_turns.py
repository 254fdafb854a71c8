"""Many requests in one turn of the loop: a server that was stopped finds them all at once.

Backend `copy` then reads a file once for all who asked for it.  What each of them gets is what it
would get alone.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import psutil
import pytest
from fileserving import (
    REACTORS,
    Combination,
    FileServer,
    Incoming,
    content,
    get,
    quiet,
    request_bytes,
    reset,
    serving_files,
    until,
)

import pollers
from pollers.base import POLLIN
from servers import cli
from servers.file.on_reactor import ReactorService
from servers.file.options import BACKENDS, FileOptions, add, further

copies = pytest.mark.parametrize(
    "combination", [each for each in REACTORS if each.backend == "copy"], ids=str, indirect=True
)
SIZES = (0, 14, 4096, 32768)
CLIENTS = 30


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("turns")
    for size in SIZES:
        (root / f"{size}.bin").write_bytes(content(size))
    return root


@contextmanager
def stopped(server: FileServer) -> Iterator[None]:
    """What happens meanwhile is one turn's work when the server goes on."""
    process = psutil.Process(server.pid)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        until(lambda: process.status() == psutil.STATUS_STOPPED)
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def reads(server: FileServer) -> int:
    """System calls so far that read files and pipes; those on sockets are not among them."""
    with open(f"/proc/{server.pid}/io") as io:
        return int(dict(line.split(": ") for line in io.read().splitlines())["syscr"])


def familiar(stack: ExitStack, server: FileServer, count: int) -> list[socket.socket]:
    """Connections of a server that remembers the answer to each request of these tests."""
    socks = [stack.enter_context(server.connect()) for _ in range(count)]
    for sock in socks:
        for size in SIZES:
            assert get(sock, f"/{size}.bin").body == content(size)
    return socks


@copies
def test_all_who_ask_in_one_turn_get_what_they_asked_for(
    combination: Combination, site: Path
) -> None:
    with quiet(FileServer(site, *combination.words)) as server, ExitStack() as stack:
        socks = familiar(stack, server, CLIENTS)
        with stopped(server):
            for number, sock in enumerate(socks):
                sock.sendall(request_bytes(f"/{SIZES[number % len(SIZES)]}.bin"))
        for number, sock in enumerate(socks):
            incoming = Incoming(sock)
            assert incoming.response().body == content(SIZES[number % len(SIZES)])
            incoming.nothing_more()


@pytest.mark.skipif(not os.path.exists("/proc/self/io"), reason="no /proc/PID/io to count reads")
def test_a_file_is_read_once_for_all_who_ask_in_one_turn(site: Path) -> None:
    words = REACTORS[0].words
    with quiet(FileServer(site, *words)) as server, ExitStack() as stack:
        socks = familiar(stack, server, CLIENTS)
        before = reads(server)
        with stopped(server):
            for sock in socks:
                sock.sendall(request_bytes("/4096.bin"))
        for sock in socks:
            assert Incoming(sock).response().body == content(4096)
        # A batch may be smaller than what waits, and the Date may change meanwhile.
        assert reads(server) - before < CLIENTS / 2


@copies
def test_what_was_rewritten_in_place_before_the_turn_is_sent_as_it_is_then(
    combination: Combination, tmp_path: Path
) -> None:
    for size in SIZES:
        (tmp_path / f"{size}.bin").write_bytes(content(size))
    with quiet(FileServer(tmp_path, *combination.words)) as server, ExitStack() as stack:
        socks = familiar(stack, server, CLIENTS)
        with stopped(server):
            for sock in socks:
                sock.sendall(request_bytes("/4096.bin"))
            with open(tmp_path / "4096.bin", "r+b") as file:
                file.write(content(4096, seed=1))
        for sock in socks:
            assert Incoming(sock).response().body == content(4096, seed=1)


def test_of_a_file_that_shrank_nobody_gets_padding(tmp_path: Path) -> None:
    """Nothing tells the server, which looks once a second: it has promised 32 KiB to each."""
    for size in SIZES:
        (tmp_path / f"{size}.bin").write_bytes(content(size))
    words = [*REACTORS[0].words, "--watcher", "none"]
    with serving_files(tmp_path, *words) as server, ExitStack() as stack:
        socks = familiar(stack, server, CLIENTS)
        with stopped(server):
            for sock in socks:
                sock.sendall(request_bytes("/32768.bin"))
            os.truncate(tmp_path / "32768.bin", 1000)
        for sock in socks:
            incoming = Incoming(sock)
            try:
                body = incoming.response().body
            except (AssertionError, ConnectionResetError):  # cut off
                assert bytes(incoming.buffer) in (b"", content(32768)[:1000])
            else:
                assert body == content(32768)[:1000]  # it had looked again


@copies
def test_a_client_that_reads_slowly_gets_the_rest_later(
    combination: Combination, site: Path
) -> None:
    with quiet(FileServer(site, *combination.words)) as server, ExitStack() as stack:
        quick = familiar(stack, server, 10)
        slow = stack.enter_context(server.connect(receive_buffer=4096, segment=1000))
        assert get(slow, "/32768.bin").body == content(32768)
        with stopped(server):
            for sock in (*quick, slow):
                sock.sendall(request_bytes("/32768.bin"))
        for sock in (*quick, slow):
            assert Incoming(sock).response().body == content(32768)
        assert get(slow, "/14.bin").body == content(14)


def test_each_answer_of_a_turn_is_logged_once(site: Path, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    words = [*REACTORS[0].words, "--access-log", str(log)]
    with quiet(FileServer(site, *words)) as server, ExitStack() as stack:
        socks = familiar(stack, server, CLIENTS)
        with stopped(server):
            for sock in socks:
                sock.sendall(request_bytes("/14.bin"))
        for sock in socks:
            assert Incoming(sock).response().body == content(14)
    lines = log.read_text().splitlines()
    assert len(lines) == CLIENTS * (len(SIZES) + 1)
    assert sum('"GET /14.bin HTTP/1.1" 200 14' in line for line in lines) == 2 * CLIENTS


def test_a_client_that_resets_within_the_turn_disturbs_nobody(site: Path) -> None:
    with quiet(FileServer(site, *REACTORS[0].words)) as server, ExitStack() as stack:
        socks = familiar(stack, server, CLIENTS)
        with stopped(server):
            for sock in socks:
                sock.sendall(request_bytes("/4096.bin"))
            for sock in socks[::2]:
                reset(sock)
        for sock in socks[1::2]:
            assert Incoming(sock).response().body == content(4096)


@pytest.mark.parametrize("more", [[], ["--poller", "poll"]], ids=["default", "poll"])
def test_pipelined_requests_of_two_reads_in_one_turn_are_answered_in_order(
    more: list[str], site: Path
) -> None:
    """An event brings the first, a read that was put off in the turn before brings the second."""
    parser = cli.parser("servers.file", "", BACKENDS)
    add(parser)
    parsed = parser.parse_args(["--root", str(site), "--watcher", "none", *more])
    options = cli.options(FileOptions, parsed, BACKENDS, **further(parsed))
    assert options.poller is not None
    with ExitStack() as stack:
        poller = stack.enter_context(pollers.create(options.poller))
        service = ReactorService(options, poller)
        stack.enter_context(closing(service))
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        far = stack.enter_context(socket.create_connection(listener.getsockname(), timeout=20))
        near, _ = listener.accept()
        near.setblocking(False)
        service._connect(near)
        (connection,) = service.connections
        incoming = Incoming(far)
        assert service.turn is not None

        def ask(size: int) -> None:
            far.sendall(request_bytes(f"/{size}.bin"))
            assert select.select([near], [], [], 20)[0]

        for _ in range(3):  # within a second most of it is remembered, as it has to be
            for size in SIZES:
                ask(size)
                connection.on_readable(POLLIN)
                service.turn.flush()
                assert incoming.response().body == content(size)
            connection._read_on()
            ask(0)
            connection.on_readable(POLLIN)
            ask(14)
            service.reactor._run_soon()
            service.turn.flush()
            assert [incoming.response().body for _ in range(2)] == [content(0), content(14)]
            service.reactor._run_soon()  # nothing more is there, and nothing is put off then
