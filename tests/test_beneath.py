"""Opening below a directory: the contract of `open_beneath`, by every method that works here."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from beneathtree import WORKING, Tree, content, refused, served

from pollers.beneath import LOOK, open_beneath


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    with served(tmp_path) as made:
        yield made


@pytest.fixture(params=WORKING)
def by(request: pytest.FixtureRequest) -> str:
    """Each method that works here."""
    name: str = request.param
    return name


def follows_links(by: str) -> bool:
    return by != "component by component"


@pytest.mark.parametrize("path", [b"file", b"sub/file", b"sub//file", b"./sub/./file"])
def test_what_is_below_opens(tree: Tree, by: str, path: bytes) -> None:
    assert content(open_beneath(tree.fd, path, os.O_RDONLY, by=by)) == b"inside"


@pytest.mark.parametrize("path", [b"", b".", b"./."])
def test_the_directory_itself(tree: Tree, by: str, path: bytes) -> None:
    fd = open_beneath(tree.fd, path, LOOK | os.O_DIRECTORY, by=by)
    assert os.path.samestat(os.fstat(fd), os.fstat(tree.fd))
    os.close(fd)


def test_it_is_not_inherited(tree: Tree, by: str) -> None:
    fd = open_beneath(tree.fd, b"sub/file", os.O_RDONLY, by=by)
    assert not os.get_inheritable(fd)
    os.close(fd)


@pytest.mark.parametrize(
    "path",
    [
        b"..",
        b"../outside/file",
        b"../inside-sibling/file",
        b"sub/../../outside/file",
        b"sub/deep/../../../outside/file",
        b"/",
        b"/etc/passwd",
        b"//etc/passwd",
        b"../inside/file",  # it comes back, and has been out
    ],
)
def test_what_leads_out_is_exdev(tree: Tree, by: str, path: bytes) -> None:
    assert refused(tree.fd, path, by) == errno.EXDEV


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"none", errno.ENOENT),
        (b"none/file", errno.ENOENT),
        (b"file/", errno.ENOTDIR),
        (b"file/.", errno.ENOTDIR),
        (b"file/file", errno.ENOTDIR),
        (b"x" * 300, errno.ENAMETOOLONG),
        (b"x/" * 3000, errno.ENOENT),
        (b"file\0", errno.ENOENT),
        (b"\0", errno.ENOENT),
        (b"file\0/../../outside/file", errno.ENOENT),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_names_nothing(tree: Tree, by: str, path: bytes, expected: int) -> None:
    found = refused(tree.fd, path, by)
    # 6,000 bytes are more than a path may have, where it goes to the kernel in one piece.
    assert found == expected or (len(path) > 4096 and found == errno.ENAMETOOLONG)


@pytest.mark.parametrize(
    "target",
    ["../outside", "/", "sub/../../outside", "{outside}", "/proc/self/cwd", "/proc/self/root"],
)
@pytest.mark.parametrize("links", [True, False])
def test_a_link_that_leads_out(tree: Tree, by: str, target: str, links: bool) -> None:
    (tree.inside / "link").symlink_to(target.format(outside=tree.outside))
    for path in (b"link", b"link/", b"link/file", b"sub/../link/file"):
        assert refused(tree.fd, path, by, links=links) in (errno.EXDEV, errno.ELOOP)


def test_links_that_stay_below(tree: Tree, by: str) -> None:
    (tree.inside / "directory").symlink_to("sub")
    (tree.inside / "sub" / "chain").symlink_to("../sub/deep/../../file")
    (tree.inside / "first").symlink_to("sub/chain")
    for path in (b"directory/file", b"directory/chain", b"sub/chain", b"first"):
        if follows_links(by):
            assert content(open_beneath(tree.fd, path, os.O_RDONLY, by=by)) == b"inside"
        else:
            assert refused(tree.fd, path, by) == errno.ELOOP


@pytest.mark.parametrize("flags", [os.O_RDONLY, LOOK, LOOK | os.O_DIRECTORY])
def test_no_link_where_links_are_refused(tree: Tree, by: str, flags: int) -> None:
    (tree.inside / "file-link").symlink_to("file")
    (tree.inside / "directory-link").symlink_to("sub")
    (tree.inside / "dangling").symlink_to("nowhere")
    for path in (b"file-link", b"directory-link", b"directory-link/deep", b"dangling"):
        assert refused(tree.fd, path, by, flags, links=False) == errno.ELOOP
    os.close(open_beneath(tree.fd, b"sub/deep", LOOK | os.O_DIRECTORY, links=False, by=by))


def test_a_loop_of_links(tree: Tree, by: str) -> None:
    (tree.inside / "a").symlink_to("b")
    (tree.inside / "b").symlink_to("a")
    assert refused(tree.fd, b"a", by) == errno.ELOOP
    assert refused(tree.fd, b"a/file", by) == errno.ELOOP


def test_magic_links_are_refused(by: str) -> None:
    """/proc/self/fd/N leads where no path leads."""
    if not os.path.exists("/proc/self/fd/0"):
        pytest.skip("this system has no /proc/self/fd")
    with open(__file__, "rb") as file:
        proc = os.open("/proc/self", LOOK | os.O_DIRECTORY)
        try:
            # Beneath /proc/self the link is refused for leading out; as the last step, for itself.
            assert refused(proc, f"fd/{file.fileno()}".encode(), by) in (errno.ELOOP, errno.EXDEV)
        finally:
            os.close(proc)


def test_it_goes_by_the_directory_not_its_name(tree: Tree, by: str) -> None:
    moved = tree.inside.with_name("moved")
    tree.inside.rename(moved)
    tree.inside.mkdir()
    (tree.inside / "file").write_bytes(b"another")
    assert content(open_beneath(tree.fd, b"file", os.O_RDONLY, by=by)) == b"inside"


def test_special_files_open_at_once(tree: Tree, by: str) -> None:
    """With O_NONBLOCK a FIFO does not wait for its writer; a socket cannot be opened at all."""
    os.mkfifo(tree.inside / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        at = os.open(tree.inside, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{at}/socket")  # sun_path is short
        os.close(at)
        os.close(open_beneath(tree.fd, b"fifo", os.O_RDONLY | os.O_NONBLOCK, by=by))
        assert refused(tree.fd, b"socket", by, os.O_RDONLY | os.O_NONBLOCK) == errno.ENXIO


def test_no_fd_is_left_by_a_refusal_on_the_way(tree: Tree, by: str) -> None:
    """The suite's own check finds any that is; here are many at once."""
    for path in (b"sub/none/x", b"sub/deep/none", b"sub/file/x", b"sub/../../x"):
        for _ in range(50):
            refused(tree.fd, path, by)
