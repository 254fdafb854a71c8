"""inotify(7), Linux 2.6.13, by ctypes: watches, and the events that they cause.

Some facts about inotify
------------------------
*   A watch sits on an inode, whatever its names.  A directory that is moved away goes on
    reporting; the same inode by another path gives the same watch descriptor (wd).
*   An event is in the queue before the system call that caused it returns: who reads the queue
    afterwards finds it.
*   An event equal to the last unread one is dropped: five writes are one IN_MODIFY.
*   The queue holds fs.inotify.max_queued_events (16,384).  When it is full one IN_Q_OVERFLOW with
    wd -1 follows, and what happened from then on is lost: look at everything again.
*   A watch ends by itself with its inode, or when its file system is unmounted, and on `remove`:
    IN_IGNORED.  Events that were queued before still come, under a wd that is used no more:
    the kernel counts upwards and starts again only at the end of its numbers.
*   Not reported: writes through mmap(2), writes by another hard link from elsewhere, a new hard
    link made elsewhere, a mount on top, what others do to a network file system.
*   read(2) returns whole events only, and EINVAL where the buffer has no room for the next one.
    Where the rest of the buffer could have held another one, the queue was empty.
*   A name is padded with NULs to a multiple of the header's size.
*   A watch needs read permission.  Watches (max_user_watches) and instances
    (max_user_instances, 128) are counted per user.
*   FreeBSD 15 has the same functions in its libc; before it there is none.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeAlias

IN_ACCESS: Final = 0x0001
IN_MODIFY: Final = 0x0002
IN_ATTRIB: Final = 0x0004
IN_CLOSE_WRITE: Final = 0x0008
IN_CLOSE_NOWRITE: Final = 0x0010
IN_OPEN: Final = 0x0020
IN_MOVED_FROM: Final = 0x0040
IN_MOVED_TO: Final = 0x0080
IN_CREATE: Final = 0x0100
IN_DELETE: Final = 0x0200
IN_DELETE_SELF: Final = 0x0400
IN_MOVE_SELF: Final = 0x0800

#: Reported without being asked for.
IN_UNMOUNT: Final = 0x2000
IN_Q_OVERFLOW: Final = 0x4000
IN_IGNORED: Final = 0x8000
#: The event is about a directory.
IN_ISDIR: Final = 0x40000000

#: Asked for with a watch.
IN_ONLYDIR: Final = 0x01000000
IN_DONT_FOLLOW: Final = 0x02000000
IN_EXCL_UNLINK: Final = 0x04000000
IN_MASK_CREATE: Final = 0x10000000
IN_MASK_ADD: Final = 0x20000000

#: struct inotify_event without its name: wd, mask, cookie, len.
HEADER: Final = struct.Struct("=iIII")
#: Where the name begins.
NAME: Final = HEADER.size
#: Of it, `len` alone.
LENGTH: Final = struct.Struct("=12xI")
#: The longest event: NAME_MAX and its NUL, padded.
LONGEST: Final = HEADER.size + 256
#: Bytes of one read(2), and reads of one `read()`: 4,000 events of short names, some 10 ms.
BUFFER: Final = 65536
READS: Final = 2

_libc: Final = ctypes.CDLL(None, use_errno=True)
_init1: Final[Any] = getattr(_libc, "inotify_init1", None)

_SECCOMP: Final = "a seccomp filter blocks it; allow inotify_init1 in the container's profile"
_INSTANCES: Final = (
    "no more inotify instances (fs.inotify.max_user_instances) or open files (ulimit -n); "
    "as root: sysctl -w fs.inotify.max_user_instances=1024"
)
_WATCHES: Final = "no more inotify watches; as root: sysctl -w fs.inotify.max_user_watches=1048576"


class Event(NamedTuple):
    """One event, as the kernel has it."""

    #: The watch that it is about; -1 for IN_Q_OVERFLOW.
    wd: int
    mask: int
    #: The same in the two halves of a rename.
    cookie: int
    #: The name in the watched directory; b"" where it is the watched inode itself.
    name: bytes


#: An Event as a plain tuple, which is made in a fifth of the time.
Fields: TypeAlias = tuple[int, int, int, bytes]


def split(buffer: bytes) -> list[bytes]:
    """The records in what read(2) returned, an event each.

    Two events are equal where their records are, and finding that out needs no look inside.
    Raises ValueError where one is cut off.
    """
    records: list[bytes] = []
    append, unpack = records.append, LENGTH.unpack_from
    at, end = 0, len(buffer)
    while at < end:
        if end - at < HEADER.size:
            raise ValueError(f"{end - at} bytes are no inotify event")
        (length,) = unpack(buffer, at)
        after = at + HEADER.size + length
        if after > end:
            had = end - at - HEADER.size
            raise ValueError(f"an inotify event's name has {had} of {length} bytes")
        append(buffer[at:after])
        at = after
    return records


def decode(record: bytes) -> Fields:
    """The event in one record."""
    wd, mask, cookie, _ = HEADER.unpack_from(record)
    return wd, mask, cookie, record[NAME:].rstrip(b"\0")


class Inotify:
    """An inotify instance: non-blocking, close-on-exec.

    Raises OSError where there can be none, with the reason and what to do: ENOSYS, EMFILE, EPERM.
    """

    def __init__(self) -> None:
        if _init1 is None:
            raise OSError(errno.ENOSYS, "this system has no inotify (Linux, FreeBSD 15)")
        fd: int = _init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if fd == -1:
            number = ctypes.get_errno()
            reasons = {errno.EMFILE: _INSTANCES, errno.ENOSYS: _SECCOMP, errno.EPERM: _SECCOMP}
            reason = reasons.get(number, os.strerror(number))
            raise OSError(number, f"inotify_init1: {reason}")
        self._fd = fd
        #: Whether the last `read` may have left something: then more has happened than it told.
        self.behind = False

    def add(self, path: bytes | str, mask: int) -> int:
        """Watch what `path` names; return the wd.

        The mask of an inode that is watched already is replaced.  Raises OSError; ENOSPC says
        what to do.
        """
        wd: int = _libc.inotify_add_watch(self._fd, os.fsencode(path), ctypes.c_uint32(mask))
        if wd == -1:
            number = ctypes.get_errno()
            reason = _WATCHES if number == errno.ENOSPC else os.strerror(number)
            raise OSError(number, f"inotify_add_watch({os.fsdecode(path)}): {reason}")
        return wd

    def add_fd(self, fd: int, mask: int) -> int:
        """Watch what `fd` has open, O_PATH or not, wherever its path leads by now.

        It goes through /proc, and raises OSError(ENOENT) where that is not mounted.
        """
        return self.add(f"/proc/self/fd/{fd}", mask)

    def remove(self, wd: int) -> None:
        """End a watch.  One that has ended by itself is no error."""
        if _libc.inotify_rm_watch(self._fd, wd) == -1:
            number = ctypes.get_errno()
            if number != errno.EINVAL:
                raise OSError(number, f"inotify_rm_watch: {os.strerror(number)}")

    def read(self) -> list[Event]:
        """What has happened, oldest first; [] where nothing has.

        At most READS buffers of it: where more is waiting, the fd stays readable.
        """
        return [Event._make(decode(record)) for record in self.records()]

    def records(self) -> list[bytes]:
        """The same, as the kernel wrote it."""
        self.behind = False
        records: list[bytes] = []
        for _ in range(READS):
            try:
                buffer = os.read(self._fd, BUFFER)
            except BlockingIOError:
                return records
            records = records + split(buffer) if records else split(buffer)
            if len(buffer) <= BUFFER - LONGEST:  # the queue was empty
                return records
        self.behind = True
        return records

    #: The event in one of the records.
    decode = staticmethod(decode)

    def fileno(self) -> int:
        """Readable when there are events; -1 when closed."""
        return self._fd

    def close(self) -> None:
        """End every watch.  May be repeated."""
        fd, self._fd = self._fd, -1
        if fd != -1:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
