"""The document root: regular files beneath it, and when one is still the same."""

from __future__ import annotations

import errno
import os
import resource
import stat
from pathlib import Path

import pytest
from leaks import open_fds
from rootfiles import content

from servers.file.root import Identity, LinkFound, Root

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
