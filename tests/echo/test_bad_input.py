"""What cannot run as asked: exit code 2, one line that says what, why and what to do."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
from serverprocess import probe
from serving import DEADLINE, serving


def refused(*words: str) -> list[str]:
    """What the server says on stderr as it refuses; it must say nothing on stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "servers.echo", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert (done.returncode, done.stdout) == (2, ""), done
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("--poller devpoll", ["--poller devpoll", "epoll, kqueue, aio, poll, select"]),
        ("--loop trio --poller epoll", ["--poller epoll", "--loop reactor", "leave one"]),
        ("--loop uvloop --poller poll", ["--poller poll", "--loop reactor", "leave one"]),
        ("--backend splice --loop asyncio", ["--backend splice", "--loop reactor", "copy"]),
        ("--host 192.0.2.1", ["cannot bind 192.0.2.1", "assign", "choose another --host"]),
        ("--host 192.0.2.1 --workers 2", ["cannot bind 192.0.2.1", "choose another --host"]),
        ("--host a..b", ["no address for --host a..b", "give an address"]),
        ("--cpu 9999", ["--cpu", "core 9999", "this process may use 0"]),
        ("--cpu -1", ["--cpu", "core -1", "this process may use 0"]),
        ("--cpu 9999 --workers 3", ["--cpu", "core 9999", "this process may use 0"]),
        ("--cpu 9999 --loop trio", ["--cpu", "core 9999", "this process may use 0"]),
    ],
)
def test_one_clear_line(words: str, parts: list[str]) -> None:
    [line] = refused(*words.split())
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--port 65536", "--port: a port is 0 to 65535, not 65536"),
        ("--port -1", "--port: a port is 0 to 65535, not -1"),
        ("--port http", "--port: must be a number, not 'http'"),
        ("--workers 0", "--workers: must be 1 to 1024, not 0"),
        ("--workers two", "--workers: must be a number, not 'two'"),
        ("--max-events 0", "--max-events: must be 1 to 65536, not 0"),
        ("--max-events 9999999999", "--max-events: must be 1 to 65536, not 9999999999"),
        ("--idle-timeout nan", "--idle-timeout: must be 0 to 86400 seconds, not nan"),
        ("--idle-timeout -1", "--idle-timeout: must be 0 to 86400 seconds, not -1"),
        ("--drain-timeout inf", "--drain-timeout: must be 0 to 86400 seconds, not inf"),
        ("--drain-timeout soon", "--drain-timeout: must be a number, not 'soon'"),
        ("--cpu 0,", "--cpu: must be a number, not ''"),
        ("--loop gevent", "--loop: invalid choice: 'gevent' (choose from"),
        ("--backend sendfile", "--backend: invalid choice: 'sendfile' (choose from"),
        ("--frobnicate", "unrecognized arguments: --frobnicate"),
    ],
)
def test_usage(words: str, why: str) -> None:
    """argparse prints the usage before it."""
    *usage, line = refused(*words.split())
    assert usage[0].startswith("usage: python -m servers.echo")
    assert why in line


def test_poller_that_is_not_here() -> None:
    found = probe("kqueue")
    if found.available:
        pytest.skip("kqueue works here")
    [line] = refused("--poller", "kqueue")
    assert line.startswith("servers.echo: --poller kqueue is not available here: ")
    assert "; use another poller" in line


@pytest.mark.parametrize("first", ["1", "2"])
@pytest.mark.parametrize("second", ["1", "2"])
def test_port_that_another_server_uses(first: str, second: str) -> None:
    """Also where both have workers: SO_REUSEPORT alone would let the second join in silence."""
    with serving("--workers", first) as server:
        port = str(server.address[1])
        [line] = refused("--port", port, "--workers", second)
        assert f"127.0.0.1:{port}" in line
        assert "Address already in use" in line
        assert "choose another" in line
        with server.connect() as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"


@pytest.mark.parametrize("loop", ["reactor", "asyncio", "uvloop", "trio"])
def test_port_that_becomes_used(loop: str) -> None:
    """A port may be bound twice and listened on once: the error then comes from listen(2)."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        [line] = refused("--port", str(other.getsockname()[1]), "--loop", loop)
        assert "Address already in use" in line


def test_too_few_fds_to_start() -> None:
    """Not even the poller can be made: no traceback."""
    with pytest.raises(EOFError) as raised, serving("--poller", "poll", nofile=5):
        pass
    assert "Too many open files" in str(raised.value)
    assert "Traceback" not in str(raised.value)
