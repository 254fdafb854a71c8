"""A directory that is served, beside what must never be, and how a path below it is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from pollers.beneath import LOOK, METHODS, open_beneath, why_not

#: The methods that work here; that openat2 is among them is a test of its own.
WORKING = [name for name in METHODS if not why_not(name)]


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


@contextmanager
def served(base: Path) -> Iterator[Tree]:
    """The tree below `base`, opened."""
    inside, outside = make_tree(base)
    fd = os.open(inside, LOOK | os.O_DIRECTORY)
    try:
        yield Tree(inside, outside, fd)
    finally:
        os.close(fd)


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
