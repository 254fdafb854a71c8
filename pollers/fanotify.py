"""fanotify(7) with names, Linux 5.9, by system call: marks, and the events that they cause.

Some facts about fanotify
-------------------------
*   A mark sits on an inode, a mount or a file system.  Only inode marks are used here: the other
    two ask for CAP_SYS_ADMIN, and tell of every file that the machine touches.  A directory's
    mark with FAN_EVENT_ON_CHILD tells of its entries, and with FAN_ONDIR of directories among
    them.
*   With FAN_REPORT_DFID_NAME (5.9) an event has no open fd; it names a directory by its file
    handle (pollers.filehandle), and an entry in it.  "." is the directory itself.  Who keeps the
    handles of what was marked finds the path without opening by handle, which asks for more.
*   FAN_REPORT_TARGET_FID (5.17) adds the handle of the entry itself: it has a generation number,
    and tells a file from another one that took its inode number.
*   FAN_RENAME (5.17) tells both names in one event, where both directories are marked; else it
    has the marked half only.  FAN_MOVED_FROM and FAN_MOVED_TO have no cookie: nothing joins them.
*   **The order within the queue is not the order in which things happened.**  An event about the
    same object, name and process is merged into an unread earlier one, past all that lies between
    (the 128 latest of its hash bucket are looked at; inotify looks at the last event only), and
    one mask then says CREATE and DELETE without which came last.  FAN_RENAME merges too: f to g,
    g to f, f to g is read as "f to g, g to f".  What is read is which names to look at again.
*   The queue holds fs.fanotify.max_queued_events (16,384); then one FAN_Q_OVERFLOW without
    records follows, and the rest is lost.
*   Since 5.13 any user may make a group of this kind; it then has no pids, and its marks are
    counted (fs.fanotify.max_user_marks), as are groups (max_user_groups, 128).  A mark asks for
    read permission.
*   A mark ends with its inode and says nothing; FAN_DELETE_SELF comes, if it was asked for.
*   Not every file system has file handles or an id: EOPNOTSUPP, ENODEV.  A btrfs subvolume is
    EXDEV.  Not reported: writes through mmap(2), by a hard link in a directory that has no mark,
    and what others do to a network file system.
*   glibc wraps both calls, musl does too; they are called by number, like all that CPython lacks.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
import sys
from types import TracebackType
from typing import Final, NamedTuple, Self

from pollers.filehandle import MAX_HANDLE, NO_HANDLES, Handle
from pollers.syscall import MACHINE, syscall

#: Elsewhere the numbers below are other calls'.
LINUX: Final[bool] = sys.platform == "linux"

# System call numbers: x86_64's own, and asm-generic's for what is younger than the list.
_X86: Final = MACHINE == "x86_64"
NR_FANOTIFY_INIT: Final = 300 if _X86 else 262
NR_FANOTIFY_MARK: Final = 301 if _X86 else 263

# fanotify_init(2)
FAN_CLOEXEC: Final = 0x1
FAN_NONBLOCK: Final = 0x2
FAN_CLASS_NOTIF: Final = 0x0
FAN_REPORT_FID: Final = 0x200
FAN_REPORT_DIR_FID: Final = 0x400
FAN_REPORT_NAME: Final = 0x800
FAN_REPORT_TARGET_FID: Final = 0x1000
FAN_REPORT_DFID_NAME: Final = FAN_REPORT_DIR_FID | FAN_REPORT_NAME
FAN_REPORT_DFID_NAME_TARGET: Final = FAN_REPORT_DFID_NAME | FAN_REPORT_FID | FAN_REPORT_TARGET_FID

# fanotify_mark(2)
FAN_MARK_ADD: Final = 0x1
FAN_MARK_REMOVE: Final = 0x2

# Events
FAN_MODIFY: Final = 0x2
FAN_ATTRIB: Final = 0x4
FAN_CLOSE_WRITE: Final = 0x8
FAN_MOVED_FROM: Final = 0x40
FAN_MOVED_TO: Final = 0x80
FAN_CREATE: Final = 0x100
FAN_DELETE: Final = 0x200
FAN_DELETE_SELF: Final = 0x400
FAN_MOVE_SELF: Final = 0x800
FAN_Q_OVERFLOW: Final = 0x4000
FAN_RENAME: Final = 0x10000000
#: Asked for with a mark; ONDIR in an event: it is about a directory.
FAN_EVENT_ON_CHILD: Final = 0x08000000
FAN_ONDIR: Final = 0x40000000

#: struct fanotify_event_metadata: event_len, vers, reserved, metadata_len, mask, fd, pid.
METADATA: Final = struct.Struct("=IBBHQii")
METADATA_VERSION: Final = 3
#: struct fanotify_event_info_header: info_type, pad, len.
INFO: Final = struct.Struct("=BBH")
#: What follows in a record with a handle: fsid, and of struct file_handle handle_bytes and
#: handle_type; then its bytes.
FID: Final = struct.Struct("=8sIi")
#: FAN_EVENT_INFO_TYPE_*
INFO_FID: Final = 1
INFO_DFID_NAME: Final = 2
INFO_DFID: Final = 3
INFO_OLD_DFID_NAME: Final = 10
INFO_NEW_DFID_NAME: Final = 12

#: The longest event that is asked for: FAN_RENAME's two names and three handles.
LONGEST: Final = METADATA.size + 3 * (INFO.size + FID.size + MAX_HANDLE) + 2 * 260
#: Bytes of one read(2), and reads of one `read()`.
BUFFER: Final = 65536
READS: Final = 4

_SECCOMP: Final = "a seccomp filter blocks it; allow it in the container's profile"
_SETTING: Final = "as root: sysctl -w fs.fanotify."
_REASONS: Final = {
    "fanotify_init": {
        errno.EMFILE: "no more fanotify groups (fs.fanotify.max_user_groups) or open files "
        f"(ulimit -n); {_SETTING}max_user_groups=1024",
        errno.EINVAL: "this kernel's fanotify has no directory handles with names: Linux 5.9 has",
        errno.EPERM: "only root may use it here (any user may from Linux 5.13), or "
        f"{_SECCOMP}; use another watcher",
        errno.ENOSYS: f"this kernel has none (CONFIG_FANOTIFY), or {_SECCOMP}",
    },
    "fanotify_mark": {
        errno.ENOSPC: f"no more fanotify marks; {_SETTING}max_user_marks=1048576",
        errno.EOPNOTSUPP: NO_HANDLES,
        errno.ENODEV: "this file system has no id (fsid); use another watcher",
        errno.EXDEV: "the ids of this file system's subvolumes differ (btrfs); "
        "use another watcher",
    },
}


class Place(NamedTuple):
    """An entry of a directory; b"." is the directory itself."""

    directory: Handle
    name: bytes


class Event(NamedTuple):
    """One event, as the kernel has it; perhaps several that were merged."""

    mask: int
    #: Where it happened; None with FAN_Q_OVERFLOW, and in a rename.
    place: Place | None = None
    #: The two sides of a FAN_RENAME; None where that directory has no mark.
    old: Place | None = None
    new: Place | None = None
    #: What it happened to, where the kernel tells (FAN_REPORT_TARGET_FID).
    target: Handle | None = None


def parse(buffer: bytes) -> list[Event]:
    """The events in what read(2) returned.

    Records of types that were not asked for are skipped.  Raises ValueError where an event or a
    record is cut off or of another version.
    """
    events = []
    at, end = 0, len(buffer)
    while at < end:
        if end - at < METADATA.size:
            raise ValueError(f"{end - at} bytes are no fanotify event")
        length, version, _, header, mask, _, _ = METADATA.unpack_from(buffer, at)
        if version != METADATA_VERSION:
            raise ValueError(f"a fanotify event of version {version}, not {METADATA_VERSION}")
        if not METADATA.size <= header <= length <= end - at:
            raise ValueError(f"a fanotify event has {end - at} of {length} bytes")
        events.append(_event(mask, buffer, at + header, at + length))
        at += length
    return events


def _event(mask: int, buffer: bytes, at: int, end: int) -> Event:
    """The event whose records are buffer[at:end]."""
    place = old = new = target = None
    while at < end:
        if end - at < INFO.size:
            raise ValueError(f"{end - at} bytes are no record of a fanotify event")
        kind, _, length = INFO.unpack_from(buffer, at)
        if not INFO.size <= length <= end - at:
            raise ValueError(f"a fanotify record has {end - at} of {length} bytes")
        if kind == INFO_FID:
            target = _place(buffer, at, at + length).directory
        elif kind in (INFO_DFID_NAME, INFO_DFID):
            place = _place(buffer, at, at + length)
        elif kind == INFO_OLD_DFID_NAME:
            old = _place(buffer, at, at + length)
        elif kind == INFO_NEW_DFID_NAME:
            new = _place(buffer, at, at + length)
        at += length
    return Event(mask, place, old, new, target)


def _place(buffer: bytes, at: int, end: int) -> Place:
    """The handle of the record buffer[at:end], and the name behind it: "." where there is none."""
    start = at + INFO.size + FID.size
    if start > end:
        raise ValueError(f"a fanotify record of {end - at} bytes has no handle")
    fsid, size, kind = FID.unpack_from(buffer, at + INFO.size)
    if start + size > end:
        raise ValueError(f"a fanotify handle has {end - start} of {size} bytes")
    name = buffer[start + size : end]
    if b"\0" in name:
        name = name[: name.index(b"\0")]
    return Place(Handle(fsid, kind, buffer[start : start + size]), name or b".")


class Fanotify:
    """A fanotify group that reports names: non-blocking, close-on-exec.

    Raises OSError where there can be none, with the reason and what to do: ENOSYS, EINVAL, EPERM,
    EMFILE.
    """

    def __init__(self) -> None:
        self._fd = -1
        #: Whether events name what they happened to, and FAN_RENAME can be asked for: Linux 5.17.
        self.targets = True
        if not LINUX:
            raise OSError(errno.ENOSYS, "this system has no fanotify (Linux has)")
        basic = FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK
        try:
            self._fd = self._init(basic | FAN_REPORT_DFID_NAME_TARGET)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self.targets = False
            self._fd = self._init(basic | FAN_REPORT_DFID_NAME)

    def add_fd(self, fd: int, mask: int) -> None:
        """Mark what `fd` has open for the events in `mask`, added to those it is marked for.

        Raises OSError: EBADF for an O_PATH descriptor; ENOSPC, EOPNOTSUPP, ENODEV and EXDEV say
        what to do.
        """
        self._mark(FAN_MARK_ADD, fd, mask)

    def remove_fd(self, fd: int, mask: int) -> None:
        """Take the events in `mask` from a mark; without any it ends.  No error where none is."""
        with contextlib.suppress(FileNotFoundError):
            self._mark(FAN_MARK_REMOVE, fd, mask)

    def read(self) -> list[Event]:
        """What has happened, merged and in the queue's order; [] where nothing has.

        At most READS buffers of it: where more is waiting, the fd stays readable.
        """
        events: list[Event] = []
        with contextlib.suppress(BlockingIOError):
            for _ in range(READS):
                buffer = os.read(self._fd, BUFFER)
                events += parse(buffer)
                if len(buffer) <= BUFFER - LONGEST:  # the queue was empty
                    break
        return events

    def fileno(self) -> int:
        """Readable when there are events; -1 when closed."""
        return self._fd

    def close(self) -> None:
        """End every mark.  May be repeated."""
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

    def _init(self, flags: int) -> int:
        return _call("fanotify_init", NR_FANOTIFY_INIT, ctypes.c_uint(flags),
                     ctypes.c_uint(os.O_RDONLY | os.O_CLOEXEC))  # fmt: skip

    def _mark(self, flags: int, fd: int, mask: int) -> None:
        _call("fanotify_mark", NR_FANOTIFY_MARK, self._fd, ctypes.c_uint(flags),
              ctypes.c_uint64(mask), fd, None)  # fmt: skip


def _call(name: str, number: int, *args: object) -> int:
    try:
        return syscall(name, number, *args)
    except OSError as error:
        reason = _REASONS[name].get(error.errno or 0)
        if reason is None:
            raise
        raise OSError(error.errno, f"{name}: {reason}") from None
