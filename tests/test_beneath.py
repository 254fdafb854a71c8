"""Opening below a directory: the contract of `open_beneath`, by every method that works here."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pollers import beneath
from pollers.beneath import LOOK, METHODS, method, open_beneath, why_not

RENAME_EXCHANGE = 2


class Tree(NamedTuple):
    """A directory that is served, beside one that must never be."""

    inside: Path
    outside: Path
    fd: int


def make_tree(base: Path) -> tuple[Path, Path]:
    inside, outside = base / "inside", base / "outside"
    (inside / "sub" / "deep").mkdir(parents=True)
    outside.mkdir()
    (inside / "file").write_bytes(b"inside")
    (inside / "sub" / "file").write_bytes(b"inside")
    (outside / "file").write_bytes(b"secret")
    (base / "inside-sibling").mkdir()
    (base / "inside-sibling" / "file").write_bytes(b"secret")
    return inside, outside


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    inside, outside = make_tree(tmp_path)
    fd = os.open(inside, LOOK | os.O_DIRECTORY)
    yield Tree(inside, outside, fd)
    os.close(fd)


@pytest.fixture(params=[name for name in METHODS if not why_not(name)])
def by(request: pytest.FixtureRequest) -> str:
    """Each method that works here; that openat2 is among them is a test of its own."""
    name: str = request.param
    return name


def follows_links(by: str) -> bool:
    return by != "component by component"


def content(fd: int) -> bytes:
    try:
        return os.pread(fd, 100, 0)
    finally:
        os.close(fd)


def refused(
    directory_fd: int, path: bytes, by: str, flags: int = os.O_RDONLY, links: bool = True
) -> int:
    """The errno with which a path is refused."""
    try:
        fd = open_beneath(directory_fd, path, flags, links=links, by=by)
    except OSError as error:
        return error.errno or -1
    os.close(fd)
    pytest.fail(f"{path!r} opened")


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


def test_the_method_is_the_best_that_works() -> None:
    assert method() == next(name for name in METHODS if not why_not(name))
    assert not why_not("component by component")


def test_the_current_directory_does_not_matter(tmp_path: Path) -> None:
    """A server may be started as a user who cannot search where it was started."""
    if why_not("openat2"):
        pytest.skip(f"openat2: {why_not('openat2')}")
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.chdir(tmp_path)
            os.chmod(".", 0)
            if os.geteuid() == 0:
                os.setuid(65534)
            with contextlib.suppress(PermissionError):
                os.stat("./anything")
                os._exit(98)
            code = 0 if why_not("openat2") == "" else 97
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    tmp_path.chmod(0o700)
    assert status == 0


def test_a_flag_that_the_kernel_ignores_is_not_believed() -> None:
    """Linux ignores O_RESOLVE_BENEATH, which a probe that only opens would take for success."""
    if why_not("openat2"):
        pytest.skip("this system may well have O_RESOLVE_BENEATH")
    assert "FreeBSD 13" in why_not("O_RESOLVE_BENEATH")


def test_a_filter_that_forbids_openat2_is_told(tmp_path: Path) -> None:
    """What a container's seccomp profile does, made by seccomp(2) in a child."""
    if why_not("openat2"):
        pytest.skip(f"openat2: {why_not('openat2')}")
    make_tree(tmp_path)
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            if not forbid(beneath.NR_OPENAT2):
                os._exit(77)
            fd = os.open(tmp_path / "inside", LOOK | os.O_DIRECTORY)
            assert method() == "openat2"  # remembered from before; asked anew it is another
            method.cache_clear()
            assert method() == "component by component"
            assert "seccomp" in why_not("openat2")
            assert content(open_beneath(fd, b"sub/file", os.O_RDONLY)) == b"inside"
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == 77:
        pytest.skip("this system lets no process install a seccomp filter")
    assert status == 0


def forbid(number: int) -> bool:
    """Have the kernel answer EPERM to one system call of this process from now on."""

    class Instruction(ctypes.Structure):  # struct sock_filter
        _fields_ = [
            ("code", ctypes.c_uint16),
            ("jt", ctypes.c_uint8),
            ("jf", ctypes.c_uint8),
            ("k", ctypes.c_uint32),
        ]

    class Program(ctypes.Structure):  # struct sock_fprog
        _fields_ = [("len", ctypes.c_uint16), ("filter", ctypes.POINTER(Instruction))]

    filter_ = (Instruction * 4)(
        Instruction(0x20, 0, 0, 0),  # load seccomp_data.nr
        Instruction(0x15, 0, 1, number),  # equal: next, else skip one
        Instruction(0x06, 0, 0, 0x00050000 | errno.EPERM),  # SECCOMP_RET_ERRNO
        Instruction(0x06, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
    )
    program = Program(4, filter_)
    prctl = ctypes.CDLL(None).prctl
    prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
    no_new_privileges, set_seccomp, mode_filter = 38, 22, 2
    prctl(no_new_privileges, 1, 0, 0, 0)
    return int(prctl(set_seccomp, mode_filter, ctypes.addressof(program), 0, 0)) == 0


@contextmanager
def swapping(one: Path, other: Path) -> Iterator[Callable[[], int]]:
    """A thread that exchanges two names without a pause, as long as this lasts.

    Yields what tells how often that was.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    stop = threading.Event()
    times = itertools.count()
    count = 0

    def swap() -> None:
        nonlocal count
        while not stop.is_set():
            assert libc.renameat2(-100, names[0], -100, names[1], RENAME_EXCHANGE) == 0
            count = next(times)

    thread = threading.Thread(target=swap, name="swap")
    thread.start()
    try:
        yield lambda: count
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("links", [True, False])
def test_no_swap_of_a_directory_for_a_link_leaks(tree: Tree, by: str, links: bool) -> None:
    """An adversary in the root exchanges a directory with a link to outside, all the time."""
    if not hasattr(ctypes.CDLL(None), "renameat2"):
        pytest.skip("this system cannot exchange two names in one step (renameat2)")
    opens = {"openat2": 100_000}.get(by, 20_000)
    if not links:
        opens //= 10
    (tree.inside / "link").symlink_to("../outside")
    found, errors = {b"inside": 0, b"refused": 0}, set()
    with swapping(tree.inside / "sub", tree.inside / "link") as swaps:
        for _ in range(opens):
            try:
                fd = open_beneath(tree.fd, b"sub/file", os.O_RDONLY, links=links, by=by)
            except OSError as error:
                errors.add(error.errno)
                found[b"refused"] += 1
            else:
                found[content(fd)] += 1  # KeyError: it leaked
        assert swaps() > opens // 1000
    # EAGAIN: renames without end while the kernel judged the link's "..".  ENOTDIR: it was a
    # link when a step was refused, and a directory when it was asked why.
    assert errors <= {errno.EXDEV, errno.ELOOP, errno.EAGAIN, errno.ENOTDIR}
    # It was a race: both states of the name were met.
    assert min(found.values()) > opens // 1000, found


def test_no_fd_is_left_by_a_refusal_on_the_way(tree: Tree, by: str) -> None:
    """The suite's own check finds any that is; here are many at once."""
    for path in (b"sub/none/x", b"sub/deep/none", b"sub/file/x", b"sub/../../x"):
        for _ in range(50):
            refused(tree.fd, path, by)


NAMES = st.sampled_from([b"..", b".", b"", b"sub", b"deep", b"file", b"link", b"up", b"none"])


@settings(max_examples=200, deadline=None)
@given(st.lists(NAMES, max_size=8), st.booleans())
def test_whatever_the_path_nothing_outside_opens(names: list[bytes], links: bool) -> None:
    with ExitStack() as stack:
        inside, fd = playground()
        stack.callback(os.close, fd)
        for by in (name for name in METHODS if not why_not(name)):
            try:
                opened = open_beneath(fd, b"/".join(names), LOOK, links=links, by=by)
            except OSError:
                continue
            where = os.readlink(f"/proc/self/fd/{opened}") if os.path.exists("/proc") else ""
            os.close(opened)
            assert (where + "/").startswith(f"{inside}/") or not where


_made: list[Path] = []


@pytest.fixture(scope="module", autouse=True)
def _playground(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One tree for all examples of hypothesis."""
    inside, _ = make_tree(tmp_path_factory.mktemp("playground"))
    (inside / "link").symlink_to("../outside")
    (inside / "sub" / "up").symlink_to("..")
    _made.append(inside)


def playground() -> tuple[Path, int]:
    return _made[0], os.open(_made[0], LOOK | os.O_DIRECTORY)
