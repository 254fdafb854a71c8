"""A watcher that is behind, has lost events, or cannot be had.

Facts
-----
*   inotify queues 16,384 events (fs.inotify.max_queued_events) and then says only that some are
    lost.  A server reads a bounded number of them at a time: what it has not read yet, it does not
    know, and must not answer as if it did.
*   poll() reports what became ready in an order of its own.  A request and the change that was
    made before it may be in one batch.
*   Inotify instances and watches are counted per user *and user namespace*: in a namespace of
    their own they run out without anybody else noticing (user_namespaces(7), namespaces.7's
    /proc/sys/user/max_inotify_*).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from fileserving import (
    DEADLINE,
    LOOPS,
    REACTORS,
    FileServer,
    Incoming,
    get,
    request_bytes,
    until,
)
from serverprocess import ServerProcess, killed_afterwards

#: Each poller and each loop: they decide in which order a batch is handled.
CHOSEN = [*(each for each in REACTORS if each.backend == "copy"), *LOOPS[1:]]

chosen = pytest.mark.parametrize("combination", CHOSEN, ids=str, indirect=True, scope="module")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("changes")
    (directory / "steady").write_bytes(b"steady\n")
    (directory / "sub").mkdir()
    return directory


def replace(path: Path, data: bytes) -> None:
    """Put another file there, in one step."""
    other = path.with_name(path.name + ".new")
    other.write_bytes(data)
    os.replace(other, path)


@contextmanager
def stopped(server: FileServer) -> Iterator[None]:
    """What happens meanwhile comes to the server as one batch."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def churn(directory: Path, count: int) -> None:
    """Cause three events `count` times."""
    for i in range(count):
        path = directory / f"churn{i}"
        path.touch()
        path.unlink()


@chosen
def test_change_and_request_in_one_batch(server: FileServer, root: Path) -> None:
    """The change was made first, so the answer is the new file's: 40 times."""
    file = root / "batch"
    replace(file, b"at first\n")
    with server.connect() as sock:
        for i in range(40):
            assert get(sock, "/batch").status == 200
            with stopped(server):
                replace(file, b"version %d\n" % i)
                sock.sendall(request_bytes("/batch"))
            assert Incoming(sock).response().body == b"version %d\n" % i


@chosen
def test_changes_one_after_another(server: FileServer, root: Path) -> None:
    """The same without stopping anything, 1,000 times: news may come late by a hair.

    Linux AIO completes a poll of an inotify fd through a work queue, as inotify wakes without
    saying for what: a request that was sent later can be in the ring before it.
    """
    file = root / "hasty"
    with server.connect() as sock:
        stale = 0
        for i in range(1000):
            replace(file, b"version %d\n" % i)
            stale += get(sock, "/hasty").body != b"version %d\n" % i
        assert stale == 0


@chosen
@pytest.mark.parametrize("count", [300, 4_000])
def test_changes_behind_many_others(server: FileServer, root: Path, count: int) -> None:
    """The queue holds more than is read at once, and the change that matters is its last."""
    file = root / "behind"
    replace(file, b"at first\n")
    with server.connect() as sock:
        for i in range(2):
            assert get(sock, "/behind").status == 200
            with stopped(server):
                churn(root, count)
                replace(file, b"version %d\n" % i)
                sock.sendall(request_bytes("/behind"))
            assert Incoming(sock).response().body == b"version %d\n" % i


@chosen
def test_overflow(server: FileServer, root: Path) -> None:
    """Events were lost: whatever may have changed is looked at again, and watched again."""
    named = [root / "lost", root / "sub" / "lost"]
    for file in named:
        replace(file, b"at first\n")
    with server.connect() as sock:
        for target in ("/lost", "/sub/lost"):
            assert get(sock, target).body == b"at first\n"
        with stopped(server):
            churn(root, 6_000)
            for file in named:
                replace(file, b"after the overflow\n")
            sock.sendall(request_bytes("/lost") + request_bytes("/sub/lost"))
        incoming = Incoming(sock)
        for _ in named:
            assert incoming.response().body == b"after the overflow\n"
        for i in range(10):
            for file, target in zip(named, ("/lost", "/sub/lost"), strict=True):
                replace(file, b"watched %d\n" % i)
                assert get(sock, target).body == b"watched %d\n" % i


def is_answered(sock: socket.socket, target: str, wanted: bytes) -> bool:
    return get(sock, target).body == wanted


class Rationed(ServerProcess):
    """A file server in a user namespace that has only so many of something of inotify's."""

    def __init__(self, limit: str, number: int, root: Path, *words: str) -> None:
        super().__init__("rationed", limit, str(number), "--root", str(root), *words)


@pytest.fixture
def ration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `python -m rationed` work; skips where there can be no user namespace."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    probe = subprocess.run(
        [sys.executable, "-m", "rationed", "max_inotify_instances", "5", "--help"],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    if probe.returncode:
        pytest.skip(probe.stderr.strip())


@pytest.mark.usefixtures("ration")
def test_no_inotify_instance_is_left(root: Path) -> None:
    """It says so once and serves, looking at files once a second."""
    file = root / "unwatched"
    replace(file, b"at first\n")
    with killed_afterwards(Rationed("max_inotify_instances", 0, root)) as server:
        assert server.ready["watcher"] == "none"
        [said] = server.stderr()
        assert "max_user_instances" in said
        with server.connect() as sock:
            assert get(sock, "/unwatched").body == b"at first\n"
            replace(file, b"replaced\n")
            until(partial(is_answered, sock, "/unwatched", b"replaced\n"), seconds=3)
        server.terminate()
        assert server.process.wait(DEADLINE) == 0
        assert server.stderr() == [said]


@pytest.mark.usefixtures("ration")
def test_no_inotify_instance_is_left_where_it_is_demanded(root: Path) -> None:
    """`--watcher inotify` and no inotify: one line, exit code 2."""
    words = ["max_inotify_instances", "0", "--root", str(root), "--watcher", "inotify"]
    ended = subprocess.run(
        [sys.executable, "-m", "rationed", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    [said] = ended.stderr.splitlines()
    assert said.startswith("servers.file: --watcher inotify: ")
    assert "max_user_instances" in said


@pytest.mark.usefixtures("ration")
def test_no_inotify_watch_is_left(root: Path) -> None:
    """The root is watched and nothing below it can be: said once, and looked at once a second."""
    above, below = root / "above", root / "sub" / "below"
    with killed_afterwards(Rationed("max_inotify_watches", 1, root)) as server:
        assert server.ready["watcher"] == "inotify"
        with server.connect() as sock:
            for i in range(2):
                replace(above, b"above %d\n" % i)
                replace(below, b"below %d\n" % i)
                assert get(sock, "/above").body == b"above %d\n" % i
                until(partial(is_answered, sock, "/sub/below", b"below %d\n" % i), seconds=3)
        [said] = server.stderr()
        assert "max_user_watches" in said
        server.terminate()
        assert server.process.wait(DEADLINE) == 0
