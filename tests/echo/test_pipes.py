"""The pipe pool: never more than its limit, never a byte of one connection for another."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from leaks import open_fds

from servers.pipes import Pipe, PipePool


@pytest.fixture
def pool() -> Iterator[PipePool]:
    pool = PipePool(limit=3)
    yield pool
    pool.close()


def test_pipe_does_not_block_and_is_not_inherited() -> None:
    pipe = Pipe()
    for fd in (pipe.read_fd, pipe.write_fd):
        assert not os.get_blocking(fd)
        assert not os.get_inheritable(fd)
    pipe.close()


@pytest.mark.parametrize("count", [0, 1, 4096, 65536])
def test_take_out(count: int) -> None:
    pipe = Pipe()
    data = os.urandom(count)
    for i in range(0, count, 4096):  # full pages: 16 of them fit
        os.write(pipe.write_fd, data[i : i + 4096])
    assert pipe.take_out(count) == data
    pipe.close()


def test_at_most_limit(pool: PipePool) -> None:
    taken = [pool.take() for _ in range(5)]
    assert [pipe is not None for pipe in taken] == [True, True, True, False, False]
    first, second, third = (pipe for pipe in taken if pipe is not None)
    pool.give_back(first)
    assert pool.take() is first  # kept, not made anew
    pool.discard(second)
    fresh = pool.take()
    assert fresh is not None
    for pipe in (first, third, fresh):
        pool.give_back(pipe)


def test_no_fds_left(pool: PipePool) -> None:
    """EMFILE is an answer, not an error, and does not count against the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_fds()) + 1, hard))
    hogs = []
    try:
        while True:
            try:
                hogs.append(os.dup(0))
            except OSError:
                break
        assert pool.take() is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in hogs:
            os.close(fd)
    taken = [pool.take() for _ in range(3)]
    assert None not in taken
    for pipe in taken:
        if pipe is not None:
            pool.discard(pipe)


@given(st.lists(st.sampled_from(["take", "give back", "discard"]), max_size=40))
def test_any_order(steps: list[str]) -> None:
    """The limit holds, pipes in use are distinct, and close() leaves no fd of a free one."""
    before = open_fds()
    pool = PipePool(limit=4)
    used: list[Pipe] = []
    for step in steps:
        if step == "take":
            pipe = pool.take()
            assert (pipe is None) == (len(used) == 4)
            if pipe is not None:
                assert pipe not in used
                used.append(pipe)
        elif used:
            (pool.give_back if step == "give back" else pool.discard)(used.pop())
    fds = {fd for pipe in used for fd in (pipe.read_fd, pipe.write_fd)}
    assert len(fds) == 2 * len(used)
    for pipe in used:
        pool.discard(pipe)
    pool.close()
    assert open_fds() == before
