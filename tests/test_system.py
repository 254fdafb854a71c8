"""pollers.system: the same calls on every system, and one line where one has none."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from pollers import system


@pytest.mark.parametrize("platform", [sys.platform, "darwin"])
def test_a_pipe_does_not_block_and_is_not_inherited(
    monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    ends = system.pipe()
    try:
        assert [os.get_blocking(fd) for fd in ends] == [False, False]
        assert [os.get_inheritable(fd) for fd in ends] == [False, False]
        os.write(ends[1], b"x")
        assert os.read(ends[0], 9) == b"x"
    finally:
        for fd in ends:
            os.close(fd)


def test_pages_are_forgotten_or_it_is_said_that_they_cannot_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with open(tmp_path / "file", "rb") as file:
        monkeypatch.setattr(sys, "platform", "darwin")
        with pytest.raises(OSError, match="posix_fadvise") as caught:
            system.forget_pages(file.fileno())
        assert caught.value.errno == errno.ENOSYS
        monkeypatch.undo()
        if hasattr(os, "posix_fadvise"):
            system.forget_pages(file.fileno())
