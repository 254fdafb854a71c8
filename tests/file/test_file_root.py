"""The document root: regular files beneath it, and one answer for everything else."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from leaks import open_fds

from pollers import beneath
from servers.file.root import Entry, Identity, LinkFound, Root

NOBODY = 65534


@pytest.fixture(params=[name for name in beneath.METHODS if not beneath.why_not(name)])
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every way of opening beneath that works here."""
    name: str = request.param
    monkeypatch.setattr(beneath, "method", lambda: name)
    return name


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """What is served, beside files that must not be."""
    site = tmp_path / "site"
    (site / "sub" / "deep").mkdir(parents=True)
    (site / "file").write_bytes(b"inside")
    (site / "sub" / "file").write_bytes(b"inside")
    for outside in ("outside", "site-sibling"):
        (tmp_path / outside).mkdir()
        (tmp_path / outside / "file").write_bytes(b"secret")
    return site


@pytest.fixture
def root(site: Path, by: str) -> Iterator[Root]:
    with Root(str(site)) as root:
        yield root


def content(opened: tuple[int, os.stat_result]) -> bytes:
    fd, found = opened
    try:
        return os.pread(fd, found.st_size + 1, 0)
    finally:
        os.close(fd)


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


# Files and directories.


@pytest.mark.parametrize("path", [b"file", b"sub/file"])
def test_a_regular_file(root: Root, path: bytes) -> None:
    fd, found = root.open(path)
    assert stat.S_ISREG(found.st_mode)
    assert found.st_ino == os.fstat(fd).st_ino
    assert not os.get_inheritable(fd)
    assert content((fd, found)) == b"inside"


def test_any_name_that_a_file_can_have(root: Root, site: Path) -> None:
    for name in (b"\xff\xfe", b"%2e%2e", b"a b\n", b"...", b"..a", b"a..", b"\\", b"x" * 255):
        with open(os.path.join(os.fsencode(site), name), "wb") as file:
            file.write(b"inside")
        assert content(root.open(name)) == b"inside"


@pytest.mark.parametrize("path", [b"", b"sub", b"sub/deep"])
def test_a_directory(root: Root, path: bytes) -> None:
    with pytest.raises(IsADirectoryError):
        root.open(path)
    assert root.is_directory(path)


@pytest.mark.parametrize("path", [b"file", b"none", b"sub/file", b"..", b"/", b"../outside"])
def test_no_directory(root: Root, path: bytes) -> None:
    assert not root.is_directory(path)


def test_links_that_stay_below(root: Root, site: Path, by: str) -> None:
    (site / "to-file").symlink_to("sub/../file")
    (site / "to-directory").symlink_to("sub")
    if by == "component by component":
        for path in (b"to-file", b"to-directory", b"to-directory/file"):
            with pytest.raises(FileNotFoundError):
                root.open(path)
        return
    assert content(root.open(b"to-file")) == b"inside"
    assert content(root.open(b"to-directory/file")) == b"inside"
    with pytest.raises(IsADirectoryError):
        root.open(b"to-directory")


def test_a_link_is_told_from_what_is_missing(root: Root, site: Path) -> None:
    (site / "to-file").symlink_to("file")
    (site / "to-directory").symlink_to("sub")
    for path in (b"to-file", b"to-directory/file"):
        with pytest.raises(LinkFound):
            root.open(path, links=False)
    with pytest.raises(FileNotFoundError) as missing:
        root.open(b"none", links=False)
    assert not isinstance(missing.value, LinkFound)
    assert content(root.open(b"sub/file", links=False)) == b"inside"


# What is a 404.


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


# The root, and what goes wrong with the server.


def test_the_root_is_a_directory_not_a_name(root: Root, site: Path) -> None:
    site.rename(site.with_name("moved"))
    site.mkdir()
    (site / "file").write_bytes(b"another")
    assert content(root.open(b"file")) == b"inside"


@pytest.mark.parametrize(
    ("path", "reason"),
    [("none", "No such file"), ("file", "Not a directory"), ("\0", "null byte")],
)
def test_what_cannot_be_a_root(site: Path, path: str, reason: str) -> None:
    with pytest.raises(OSError, match=f"cannot serve .*{reason}"):
        Root(f"{site}/{path}")


def test_out_of_fds_is_no_404(root: Root) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    hogs = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_fds()) + 1, hard))
    try:
        while True:
            try:
                hogs.append(os.dup(0))
            except OSError:
                break
        for call in (root.open, root.entries, root.is_directory):
            with pytest.raises(OSError, match="Too many open files") as caught:
                call(b"sub/file")
            assert caught.value.errno == errno.EMFILE
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in hogs:
            os.close(fd)


def test_closing_twice_is_closing_once(root: Root) -> None:
    root.close()
    root.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        root.open(b"file")


# The same file.


def test_the_same_file_until_something_changes(root: Root, site: Path) -> None:
    fd, found = root.open(b"file")
    os.close(fd)
    identity = Identity.of(found)
    assert root.is_same(b"file", identity)
    assert not root.is_same(b"sub/file", identity)
    assert not root.is_same(b"none", identity)
    os.utime(site / "file", ns=(0, 0))
    assert not root.is_same(b"file", identity)


def test_a_write_that_hides_is_found_by_ctime(root: Root, site: Path) -> None:
    """The same inode and size, and mtime set back."""
    file = site / "file"
    fd, found = root.open(b"file")
    os.close(fd)
    while file.stat().st_ctime_ns == found.st_ctime_ns:  # a clock with a coarse tick
        file.write_bytes(b"forged")
        os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert file.stat().st_mtime_ns == found.st_mtime_ns
    assert not root.is_same(b"file", Identity.of(found))


def test_a_replaced_file_is_another(root: Root, site: Path) -> None:
    fd, found = root.open(b"file")
    (site / "new").write_bytes(b"inside")
    os.utime(site / "new", ns=(found.st_atime_ns, found.st_mtime_ns))
    os.replace(site / "new", site / "file")
    assert not root.is_same(b"file", Identity.of(found))
    os.close(fd)


# Listings.


def test_entries(root: Root, site: Path, by: str) -> None:
    os.utime(site / "file", (5, 5))
    os.utime(site / "sub" / "file", ns=(0, -1))  # before the epoch
    os.utime(site / "sub", (7, 7))
    os.mkfifo(site / "fifo")
    (site / "to-file").symlink_to("sub/file")
    (site / "to-directory").symlink_to("sub")
    (site / "outside").symlink_to("../outside")
    (site / "dangling").symlink_to("none")
    with open(os.fsencode(site) + b"/\xff", "wb"):
        os.utime(os.fsencode(site) + b"/\xff", (6, 6))
    size = (site / "sub").stat().st_size
    expected = {
        Entry(b"file", False, 6, 5),
        Entry(b"\xff", False, 0, 6),
        Entry(b"sub", True, size, 7),
    }
    if by != "component by component":
        expected |= {Entry(b"to-file", False, 6, -1), Entry(b"to-directory", True, size, 7)}
    entries = root.entries(b"")
    assert set(entries) == expected
    assert len(entries) == len(expected)
    assert {entry.name for entry in root.entries(b"sub")} == {b"file", b"deep"}
    assert root.entries(b"sub/deep") == []


def test_of_a_long_directory_some_entries(root: Root, site: Path) -> None:
    for number in range(20):
        (site / "sub" / "deep" / f"{number}").touch()
    assert len(set(root.entries(b"sub/deep", limit=7))) == 7
    assert len(root.entries(b"sub/deep")) == 20


@pytest.mark.parametrize("path", [b"file", b"none", b"..", b"/", b"sub/", b"\0", b"sub/../sub"])
def test_entries_of_what_is_no_directory(root: Root, path: bytes) -> None:
    with pytest.raises(FileNotFoundError):
        root.entries(path)


@pytest.mark.timeout(5)
def test_entries_of_a_fifo(root: Root, site: Path) -> None:
    os.mkfifo(site / "fifo")
    with pytest.raises(FileNotFoundError):
        root.entries(b"fifo")


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
