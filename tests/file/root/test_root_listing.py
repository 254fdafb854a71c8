"""The document root: what its directories list."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from servers.file.root import Entry, Root


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
