"""What cannot be served as asked ends with exit code 2 and one line: what, why, what to do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from fileserving import DEADLINE, LOOPS, get, quiet, serving_files
from serverprocess import ServerProcess, probe


def refused(*words: str) -> list[str]:
    """What the server says on stderr as it refuses; it must say nothing on stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "servers.file", *words],
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
        (
            "--root /does/not/exist",
            ["--root", "'/does/not/exist'", "No such file", "name a directory"],
        ),
        ("--root /dev/null", ["--root", "'/dev/null'", "Not a directory", "name a directory"]),
        ("--loop trio --poller epoll", ["--poller epoll", "--loop reactor", "leave one"]),
        ("--loop uvloop --backend sendfile", ["sendfile", "reactor", "asyncio", "trio", "copy"]),
        ("--loop trio --backend aio", ["--backend aio", "--loop reactor", "--backend copy"]),
        ("--loop asyncio --backend aio", ["--backend aio", "--loop reactor", "--backend copy"]),
        ("--loop asyncio --backend splice", ["splice", "reactor", "trio", "--backend copy"]),
        ("--loop uvloop --backend splice", ["splice", "reactor", "trio", "--backend copy"]),
        ("--access-log /does/not/exist", ["--access-log", "No such file", "name another"]),
        ("--access-log /", ["--access-log /", "directory", "name another"]),
        ("--host 192.0.2.1", ["cannot bind 192.0.2.1", "assign", "choose another --host"]),
        ("--root /does/not/exist --workers 2", ["--root", "'/does/not/exist'", "No such file"]),
        ("--poller devpoll", ["--poller devpoll", "epoll, kqueue, aio, poll, select"]),
    ],
)
def test_one_clear_line(words: str, parts: list[str]) -> None:
    [line] = refused(*words.split())
    assert line.startswith("servers.file: ")
    for part in parts:
        assert part in line


@pytest.mark.parametrize("loop", [each.loop for each in LOOPS])
def test_root_that_is_none_with_every_loop(loop: str, tmp_path: Path) -> None:
    missing = tmp_path / "gone"
    [line] = refused("--root", str(missing), "--loop", loop)
    assert line.startswith("servers.file: --root")
    assert f"'{missing}': No such file or directory; name a directory" in line


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--watcher kevent", "--watcher: invalid choice: 'kevent' (choose from"),
        ("--loop gevent", "--loop: invalid choice: 'gevent' (choose from"),
        ("--backend batch", "--backend: invalid choice: 'batch' (choose from"),
        ("--max-connections 0", "--max-connections: must be 1 to 1048576, not 0"),
        ("--max-connections many", "--max-connections: must be a number, not 'many'"),
        ("--max-requests -1", "--max-requests: must be 0 to"),
        ("--max-header-bytes 0", "--max-header-bytes: must be 1 to"),
        ("--max-header-fields 1.5", "--max-header-fields: must be a number, not '1.5'"),
        ("--max-uri-bytes 99999999", "--max-uri-bytes: must be 1 to"),
        ("--open-files 1", "--open-files: must be 16 to"),
        ("--header-timeout nan", "--header-timeout: must be 0 to 86400 seconds, not nan"),
        ("--send-timeout -1", "--send-timeout: must be 0 to 86400 seconds, not -1"),
        ("--keep-alive-timeout inf", "--keep-alive-timeout: must be 0 to 86400 seconds, not inf"),
        ("--drain-timeout soon", "--drain-timeout: must be a number, not 'soon'"),
        ("--port 65536", "--port: a port is 0 to 65535, not 65536"),
        ("--listing=no", "--listing"),
        ("somewhere", "unrecognized arguments: somewhere"),
    ],
)
def test_usage(words: str, why: str) -> None:
    """argparse prints the usage before it."""
    *usage, line = refused(*words.split())
    assert usage[0].startswith("usage: python -m servers.file")
    assert why in line


def test_poller_that_is_not_here() -> None:
    found = probe("kqueue")
    if found.available:
        pytest.skip("kqueue works here")
    [line] = refused("--poller", "kqueue")
    assert line.startswith("servers.file: --poller kqueue is not available here: ")


def test_root_that_cannot_be_read(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read every directory")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    [line] = refused("--root", str(closed))
    assert "Permission denied" in line


@pytest.mark.parametrize("loop", [each.loop for each in LOOPS])
def test_port_that_is_used(loop: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        [line] = refused("--port", str(other.getsockname()[1]), "--loop", loop)
        assert "Address already in use" in line
        assert "choose another" in line


def test_no_option_at_all(tmp_path: Path) -> None:
    """The directory that one is in, on a port that is free."""
    (tmp_path / "here").write_bytes(b"yes")
    there = os.getcwd()
    os.chdir(tmp_path)
    try:
        with quiet(ServerProcess("servers.file")) as server, server.connect() as sock:
            assert get(sock, "/here").body == b"yes"
    finally:
        os.chdir(there)


def test_root_that_is_a_link(tmp_path: Path) -> None:
    """What the operator names is followed; only what lies below is held to it."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "f").write_bytes(b"yes")
    (tmp_path / "link").symlink_to("real")
    with serving_files(tmp_path / "link") as server, server.connect() as sock:
        assert get(sock, "/f").body == b"yes"
        server.stop()
