"""File handles: what names an inode for as long as its file system is mounted.

Facts (open_by_handle_at(2), Linux 2.6.39)
------------------------------------------
*   name_to_handle_at(2) gives a handle of at most 128 bytes: an inode number and a generation
    number in most file systems.  The latter tells a file from another one that took its inode
    number.
*   A handle means something in one file system only.  Its fsid, of statfs(2), says which; the
    mount id that the call also gives is another one for each mount.
*   With AT_HANDLE_FID (6.5) the handle may be one that cannot be opened again, which more file
    systems have, overlayfs for one.  It is what fanotify(7) reports.
*   open_by_handle_at(2) asks for CAP_DAC_READ_SEARCH, as it passes by the permissions of the
    directories above.  It takes an fd of the same file system, which is not an O_PATH one.
*   glibc wraps both calls, musl does too; they are called by number, like all that CPython lacks.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Final, NamedTuple

from pollers.syscall import MACHINE, syscall

# System call numbers: x86_64's own, and asm-generic's for what is younger than the list.
_X86: Final = MACHINE == "x86_64"
NR_NAME_TO_HANDLE_AT: Final = 303 if _X86 else 264
NR_OPEN_BY_HANDLE_AT: Final = 304 if _X86 else 265

MAX_HANDLE: Final = 128  # MAX_HANDLE_SZ

_AT_EMPTY_PATH: Final = 0x1000
_AT_HANDLE_FID: Final = 0x200

#: What EOPNOTSUPP means, and what to do.
NO_HANDLES: Final = "this file system has no file handles; use another watcher"


class Handle(NamedTuple):
    """What names an inode as long as its file system is mounted: equal where it is the same."""

    fsid: bytes
    type: int
    data: bytes


def handle_of(fd: int) -> Handle:
    """The handle under which fanotify reports what `fd` has open, O_PATH or not.

    Raises OSError; EOPNOTSUPP says what to do.
    """
    answer = ctypes.create_string_buffer(8 + MAX_HANDLE)
    mount = ctypes.c_int()
    flags = _AT_EMPTY_PATH | _AT_HANDLE_FID
    while True:
        struct.pack_into("=I", answer, 0, MAX_HANDLE)
        try:
            syscall("name_to_handle_at", NR_NAME_TO_HANDLE_AT, fd, b"", answer,
                    ctypes.byref(mount), flags)  # fmt: skip
            break
        except OSError as error:
            if error.errno == errno.EINVAL and flags & _AT_HANDLE_FID:  # before Linux 6.5
                flags &= ~_AT_HANDLE_FID
                continue
            if error.errno != errno.EOPNOTSUPP:
                raise
            raise OSError(error.errno, f"name_to_handle_at: {NO_HANDLES}") from None
    size, kind = struct.unpack_from("=Ii", answer)
    return Handle(_fsid(fd), kind, answer.raw[8 : 8 + size])


def open_by_handle(fd: int, handle: Handle) -> int:
    """Open the directory that a handle names, for reading; `fd` has a directory beside it open.

    Asks for CAP_DAC_READ_SEARCH.  Raises OSError; ESTALE where it is gone or elsewhere.
    """
    if handle.fsid != _fsid(fd):  # its bytes mean something else there
        raise OSError(errno.ESTALE, "open_by_handle_at: the handle is another file system's")
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK
    named = struct.pack("=Ii", len(handle.data), handle.type) + handle.data
    mount = os.open(b".", flags, dir_fd=fd)  # O_PATH is EBADF
    try:
        return syscall("open_by_handle_at", NR_OPEN_BY_HANDLE_AT, mount, named, flags)
    finally:
        os.close(mount)


def _fsid(fd: int) -> bytes:
    """statfs(2)'s f_fsid, two ints, of which glibc makes one number in memory order."""
    return struct.pack("=Q", os.fstatvfs(fd).f_fsid)
