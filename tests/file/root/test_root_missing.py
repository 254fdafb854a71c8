"""The document root: one answer, FileNotFoundError, for all that is no regular file beneath it."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rootfiles import content

from servers.file.root import Root

NOBODY = 65534


def as_nobody(call: Callable[[], object]) -> str:
    """What `call` does where permissions count: its result, or the name of what it raises."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            try:
                said = repr(call())
            except OSError as error:
                said = type(error).__name__
            os.write(writer, said.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(pid, 0)
    return said


@pytest.mark.parametrize(
    "path",
    [
        b"none",
        b"none/file",
        b"file/",
        b"file/file",
        b"/file",
        b"/etc/passwd",
        b"..",
        b".",
        b"./file",
        b"sub/./file",
        b"sub//file",
        b"sub/",
        b"../outside/file",
        b"../site/file",
        b"../site-sibling/file",
        b"sub/../file",
        b"sub/../../outside/file",
        b"x" * 300,
        b"x" * 5000,
        b"x/" * 3000 + b"x",
        b"file\0",
        b"\0",
        b"file\0.html",
        b"\xff",
    ],
    ids=lambda path: repr(path[:24]),
)
def test_nothing_is_there(root: Root, path: bytes) -> None:
    with pytest.raises(FileNotFoundError):
        root.open(path)


@pytest.mark.parametrize(
    "target",
    [
        "../outside/file",
        "{outside}/file",
        "nowhere",
        "loop",
        "sub/../../outside/file",
        "/dev/null",
    ],
)
def test_a_link_that_leads_nowhere_or_outside(root: Root, site: Path, target: str) -> None:
    (site / "loop").symlink_to("loop")
    (site / "link").symlink_to(target.format(outside=site.parent / "outside"))
    with pytest.raises(FileNotFoundError):
        root.open(b"link")
    with pytest.raises(FileNotFoundError):
        root.open(b"link/file")
    assert {entry.name for entry in root.entries(b"")} == {b"sub", b"file"}


@pytest.mark.timeout(5)
def test_a_fifo_does_not_block(root: Root, site: Path) -> None:
    os.mkfifo(site / "fifo")
    with pytest.raises(FileNotFoundError):
        root.open(b"fifo")
    writer = threading.Thread(target=lambda: os.close(os.open(site / "fifo", os.O_WRONLY)))
    writer.start()  # one that waits for a reader
    while writer.is_alive():
        with pytest.raises(FileNotFoundError):
            root.open(b"fifo")
    writer.join()


def test_a_socket(root: Root, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site)  # sun_path is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        with pytest.raises(FileNotFoundError):
            root.open(b"socket")


@pytest.mark.timeout(5)
@pytest.mark.parametrize("device", [(1, 3), (1, 5), (5, 0), (240, 77)])
def test_a_device(root: Root, site: Path, device: tuple[int, int]) -> None:
    """null, zero, tty (ENXIO without one), and one that does not exist."""
    try:
        os.mknod(site / "device", stat.S_IFCHR | 0o666, os.makedev(*device))
    except PermissionError:
        pytest.skip("only root may make device nodes")
    with pytest.raises(FileNotFoundError):
        root.open(b"device")
    assert b"device" not in {entry.name for entry in root.entries(b"")}


def test_no_permission_is_no_file(root: Root, site: Path) -> None:
    """One answer, whatever is behind it: no oracle for what exists."""
    (site / "file").chmod(0)
    (site / "sub").chmod(0o700 if os.getuid() == 0 else 0o000)
    try:
        for path in (b"file", b"sub/file", b"sub/none", b"sub", b"sub/deep"):
            assert as_nobody(lambda path=path: root.open(path)) == "FileNotFoundError"
        assert as_nobody(lambda: root.is_directory(b"sub")) == "False"
        assert as_nobody(lambda: root.entries(b"sub")) == "FileNotFoundError"
    finally:
        (site / "sub").chmod(0o755)


def test_a_directory_that_may_be_searched_and_not_read(root: Root, site: Path) -> None:
    """Its files are served, and it is a directory; its listing is not to be had."""
    (site / "sub").chmod(0o711 if os.getuid() == 0 else 0o111)
    try:
        assert as_nobody(lambda: content(root.open(b"sub/file"))) == "b'inside'"
        assert as_nobody(lambda: root.open(b"sub")) == "IsADirectoryError"
        assert as_nobody(lambda: root.entries(b"sub")) == "FileNotFoundError"
    finally:
        (site / "sub").chmod(0o755)


# Whatever is asked.

PARTS = st.sampled_from(
    [b"..", b".", b"", b"/", b"sub", b"deep", b"file", b"out", b"up", b"fifo", b"\0", b"%2e%2e"]
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(path=st.lists(PARTS | st.binary(max_size=4), max_size=7).map(b"/".join))
def test_nothing_outside_and_no_other_error(root: Root, site: Path, path: bytes) -> None:
    if not (site / "out").is_symlink():
        (site / "out").symlink_to("../outside")
        (site / "up").symlink_to("..")
        (site / "sub" / "up").symlink_to("..")
        os.mkfifo(site / "fifo")
    with contextlib.suppress(FileNotFoundError, IsADirectoryError):
        assert content(root.open(path)) == b"inside"
    if root.is_directory(path):
        names = {entry.name for entry in root.entries(path)}
        assert names <= {b"sub", b"deep", b"file", b"up"}
