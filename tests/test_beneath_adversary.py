"""Opening below a directory while somebody renames in it, and whatever the path is."""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from beneathtree import WORKING, content, make_tree, served
from hypothesis import given, settings
from hypothesis import strategies as st

from pollers.beneath import LOOK, METHODS, open_beneath, why_not

RENAME_EXCHANGE = 2


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


@pytest.mark.parametrize("by", WORKING)
@pytest.mark.parametrize("links", [True, False])
def test_no_swap_of_a_directory_for_a_link_leaks(tmp_path: Path, by: str, links: bool) -> None:
    """An adversary in the root exchanges a directory with a link to outside, all the time."""
    if not hasattr(ctypes.CDLL(None), "renameat2"):
        pytest.skip("this system cannot exchange two names in one step (renameat2)")
    opens = {"openat2": 100_000}.get(by, 20_000)
    if not links:
        opens //= 10
    found, errors = {b"inside": 0, b"refused": 0}, set()
    with served(tmp_path) as tree:
        (tree.inside / "link").symlink_to("../outside")
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
