"""An added directory: how it is held, and how what is below it is opened again.

Facts
-----
*   Linux tells of a directory's end only when nobody has it open.  So it is its parent that is
    held, which also makes renames further up harmless.  Where the name does not lead to the same
    inode any more, that was the end of it.
*   A directory below is opened from there, beneath it and never through a link: what is found by
    a path is in the tree.  Where the path leads nowhere, what was there was moved or removed.
*   open(2) takes 4,095 bytes of path, and a tree may be deeper.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass, field
from typing import Final

from pollers.beneath import LOOK, open_beneath
from pollers.watch.base import split
from pollers.watch.tree import OPEN, VANISHED, Snapshot, Status

#: Bytes of a path that one open(2) takes, with some to spare.
LONGEST_PATH: Final = 4000


@dataclass(slots=True, eq=False)
class Root:
    """One added directory, and what is known of it."""

    path: bytes
    recursive: bool
    #: The directory that it is in, open; its name there; its device and inode.
    parent: int
    name: bytes
    identity: tuple[int, int]
    known: Snapshot[Status] = field(default_factory=dict)
    #: Inode numbers of what is said to have been renamed, since the last look.
    moved: set[int] = field(default_factory=set)
    #: Directories that could not be entered.
    missed: set[bytes] = field(default_factory=set)
    #: Directories that might not be read when they were looked at.
    shut: set[bytes] = field(default_factory=set)

    def is_left_out(self, path: bytes) -> bool:
        """Whether a directory that is in `missed` or `shut` is there, and still not entered."""
        above, name = split(path)
        found = self.known.get(above, {}).get(name)
        return found is not None and found.directory and path not in self.known


def make_root(path: bytes, fd: int, recursive: bool) -> Root:
    """A root for the open directory.  Raises OSError; ESTALE where it was just renamed."""
    name = os.path.basename(os.path.realpath(path)) or b"."
    parent = os.open(b"..", LOOK | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    try:
        there = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if (there.st_dev, there.st_ino) != identity(fd):
            raise FileNotFoundError(errno.ENOENT, "")
    except FileNotFoundError:
        os.close(parent)
        raise OSError(
            errno.ESTALE, f"{os.fsdecode(path)} was renamed while it was added; add it again"
        ) from None
    except BaseException:
        os.close(parent)
        raise
    return Root(path, recursive, parent, name, identity(fd))


def open_path(root: Root, path: bytes) -> int:
    """Open what is at the path of a directory by now.  Raises OSError; ENOENT for all races."""
    top = os.open(root.name, OPEN, dir_fd=root.parent)
    try:
        fd = open_known(top, path[len(root.path) :].lstrip(b"/"))
    finally:
        os.close(top)
    if fd is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return fd


def identity(fd: int) -> tuple[int, int]:
    """Device and inode of what is open."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def open_known(top: int, path: bytes) -> int | None:
    """Open a directory below `top`; None where it is no longer there, or may not be read."""
    with contextlib.ExitStack() as opened:
        at = top
        try:
            while len(path) > LONGEST_PATH:
                cut = path.rindex(b"/", 0, LONGEST_PATH)
                at = open_beneath(at, path[:cut], OPEN, links=False)
                opened.callback(os.close, at)
                path = path[cut + 1 :]
            return open_beneath(at, path, OPEN, links=False)
        except PermissionError:
            return None
        except OSError as error:
            if error.errno not in VANISHED:
                raise
            return None
