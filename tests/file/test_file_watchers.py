"""A server over every watcher: what was replaced is not served any more.

Over inotify, and without a watcher, on every loop: test_file_faults_changes.py and others.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from fileserving import get, serving_files, until

from pollers import watch
from pollers.watch import Capability


@pytest.mark.parametrize(
    ("name", "loop"),
    [
        ("fanotify", "reactor"),
        ("fanotify", "trio"),
        ("pyinotify", "reactor"),
        ("pyinotify", "asyncio"),
        ("kqueue", "reactor"),
        ("kqueue", "trio"),
        ("stat", "asyncio"),
    ],
)
def test_a_replaced_file_is_served_new(tmp_path: Path, name: str, loop: str) -> None:
    """By a prompt watcher at once, 200 times; by one that looks, in its time."""
    found = watch.probe(name)
    if not found.available:
        if found.expected:
            pytest.fail(f"this platform should have {name}, but: {found.reason}")
        pytest.skip(found.reason)
    prompt = Capability.PROMPT in found.capabilities
    (tmp_path / "below").mkdir()
    file = tmp_path / "below" / "file"
    file.write_bytes(b"at first")
    with serving_files(tmp_path, "--watcher", name, "--loop", loop) as server:
        assert server.ready["watcher"] == name
        with server.connect() as sock:
            assert get(sock, "/below/file").body == b"at first"
            for number in range(200 if prompt else 2):
                wanted = b"version %d" % number
                (tmp_path / "new").write_bytes(wanted)
                os.replace(tmp_path / "new", file)
                if prompt:
                    assert get(sock, "/below/file").body == wanted
                else:
                    until(partial(_is_answered, sock, wanted), seconds=10)
        server.terminate()
        assert server.process.wait(15) == 0


def _is_answered(sock: socket.socket, wanted: bytes) -> bool:
    return get(sock, "/below/file").body == wanted


def test_what_is_not_here_is_refused(tmp_path: Path) -> None:
    missing = [found for found in map(watch.probe, watch.names()) if not found.available]
    if not missing:
        pytest.skip("every watcher works here")
    ended = subprocess.run(
        [sys.executable, "-m", "servers.file", "--root", tmp_path, "--watcher", missing[0].name],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    [said] = ended.stderr.splitlines()
    assert said.startswith(f"servers.file: --watcher {missing[0].name}: ")
    assert "--watcher none" in said
