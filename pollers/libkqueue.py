"""libkqueue's kqueue on Linux, in the shape of select.kqueue and select.kevent.

It runs the kqueue adapter's logic where there is no kqueue.  libkqueue sits on epoll and this on
ctypes: what it costs says nothing about kqueue, and what runs on it is marked as emulated.

Some facts about libkqueue
--------------------------
*   Its struct kevent is that of FreeBSD 11 and before: 32 bytes on a 64-bit system, no ext[4].
*   It keeps knotes in user space and does not see a close(fd).  The changes made here therefore
    look at the file first (fstat): a closed fd is EBADF, as in a kernel, and a number whose file
    is another one than at EV_ADD loses its old knotes before the change is made.
*   Whether receipts come, and whether alone, depends on its version; and a failure may leave
    errno 0.  So changes are given one by one without room for events, and the receipts are
    written here: an event can neither be mixed in nor be lost.
*   Asked for n events it takes n fds from epoll.  An fd with two filters may be two events, and
    what then does not fit is dropped, the same ones each time.  So it is always asked for as
    many as it can give, and what is too much is kept here for the next call.
*   It returns fflags as they were given: NOTE_LOWAT is taken out, as a kernel returns there the
    socket's error.
*   The kqueue is the write end of a pipe.  A thread of libkqueue notices its close, and then
    closes what else belongs to it.  fork() closes all of it in the child.

What cannot be made right here is in DIFFERENCES.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import time
from collections.abc import Iterable, Sequence
from typing import Final

from pollers.kevents import (
    EV_ADD,
    EV_DELETE,
    EV_DISABLE,
    EV_ERROR,
    EV_RECEIPT,
    NOTE_LOWAT,
    Dialect,
)
from pollers.syscall import Timespec

LIBRARY: Final = "libkqueue.so.0"

#: Its numbers are FreeBSD's, without NOTE_FILE_POLL.
DIALECT: Final = Dialect()

#: The most events that one call returns (MAX_KEVENT in libkqueue's source).
MOST_EVENTS: Final = 512

#: What differs from a kernel's kqueue and shows in the adapter: name -> why.
DIFFERENCES: Final[dict[str, str]] = {
    "fileno": "libkqueue's kqueue is the write end of a pipe, which is never readable",
    "close with a duplicate": "libkqueue does not see close(fd), and epoll goes on reporting as "
    "long as a duplicate keeps the file open; deleting such knotes may crash libkqueue",
    "both filters of many fds": "libkqueue takes 512 fds from epoll, and drops what does not fit "
    "into 512 events: with more than 256 fds that are readable and writable at once some starve, "
    "and edge-triggered ones are lost",
    "socket error": "libkqueue asks for SO_ERROR to put it into fflags, which clears it: the "
    "socket then reads end of file, where a kernel leaves ECONNRESET or ECONNREFUSED to be read",
    "half-close with data left": "deleting the write filter of an fd drops EPOLLRDHUP from its "
    "read filter: a half-close then shows when the data is read",
    "POLLRDHUP alone": "libkqueue hides data by SO_RCVLOWAT, which AF_UNIX sockets ignore: they "
    "report POLLIN",
    "regular file at its end": "libkqueue has no NOTE_FILE_POLL: a file is silent at its end",
    "descriptors of the process": "libkqueue's first kqueue leaves an epoll, an eventfd and a "
    "thread until the process ends",
    "same anonymous inode": "a closed eventfd or epoll whose number is another one's now cannot "
    "be told from it, as all share one inode; unregister it first",
}


class kevent(ctypes.Structure):
    """struct kevent, with select.kevent's arguments."""

    _fields_ = [
        ("ident", ctypes.c_size_t),
        ("filter", ctypes.c_short),
        ("flags", ctypes.c_ushort),
        ("fflags", ctypes.c_uint),
        ("data", ctypes.c_ssize_t),
        ("udata", ctypes.c_size_t),
    ]
    ident: int
    filter: int
    flags: int
    fflags: int
    data: int
    udata: int

    def __init__(
        self,
        ident: int,
        filter: int = DIALECT.read,
        flags: int = EV_ADD,
        fflags: int = 0,
        data: int = 0,
        udata: int = 0,
    ) -> None:
        super().__init__(ident, filter, flags, fflags, data, udata)


class kqueue:
    """What pollers.kqueue uses of select.kqueue.

    Raises OSError where the library cannot be loaded (one line: why, and what to do), and
    OSError(EMFILE).
    """

    def __init__(self) -> None:
        self._fd = -1
        self._pid = os.getpid()
        self._library = _load()
        #: The (st_dev, st_ino) that an fd had at EV_ADD.
        self._files: dict[int, tuple[int, int]] = {}
        #: Events that did not fit into what the caller asked for.
        self._rest: list[kevent] = []
        self._fd = self._library.kqueue()
        if self._fd < 0:
            raise _oserror(ctypes.get_errno())

    @property
    def closed(self) -> bool:
        """True after close(), and in a forked child."""
        return self._fd < 0 or self._pid != os.getpid()

    def fileno(self) -> int:
        self._check_open()
        return self._fd

    def close(self) -> None:
        """Close it; returns when libkqueue has closed what belongs to it, where it can tell."""
        if self.closed:
            return
        os.close(self._fd)
        self._fd = -1
        self._files.clear()
        self._rest.clear()
        drain = getattr(self._library, "libkqueue_drain_pending_close", None)
        if drain is not None:
            drain()

    def __del__(self) -> None:
        self.close()

    def control(
        self,
        changelist: Iterable[kevent] | None,
        max_events: int,
        timeout: float | None = None,
        /,
    ) -> Sequence[kevent]:
        """Make the changes; then, without a receipt to return, wait for events.

        A change that fails raises OSError where there is no room for its record.
        """
        self._check_open()
        receipts: list[kevent] = []
        for change in changelist or ():
            error = self._change(change)
            if error or change.flags & EV_RECEIPT:
                if len(receipts) < max_events:
                    receipts.append(kevent(change.ident, change.filter, EV_ERROR, 0, error))
                elif error:
                    raise _oserror(error)
        if receipts or not max_events:
            return receipts
        if timeout is not None and timeout < 0:
            raise ValueError("timeout must be positive or None")
        found = [event for event in self._rest if self._has(event)] or self._wait(timeout)
        self._rest = found[max_events:]
        return found[:max_events]

    def _change(self, change: kevent) -> int:
        """Make one change; its errno, or 0."""
        fd = change.ident
        if change.filter in (DIALECT.read, DIALECT.write):
            try:
                file = _file(fd)
            except OSError as error:
                return error.errno or errno.EBADF
            if self._files.get(fd, file) != file:
                for filter_ in (DIALECT.read, DIALECT.write):
                    self._apply(kevent(fd, filter_, EV_DELETE))
                del self._files[fd]
            if change.flags & EV_ADD:
                self._files[fd] = file
        if change.flags & (EV_DELETE | EV_DISABLE):
            key = (fd, change.filter)
            self._rest = [event for event in self._rest if (event.ident, event.filter) != key]
        return self._apply(change)

    def _has(self, event: kevent) -> bool:
        """Whether the fd of a kept event still is the file that was registered."""
        if event.filter not in (DIALECT.read, DIALECT.write):
            return True
        try:
            return self._files.get(event.ident) == _file(event.ident)
        except OSError:
            return False

    def _apply(self, change: kevent) -> int:
        bare = kevent(
            change.ident,
            change.filter,
            change.flags & ~EV_RECEIPT,
            change.fflags,
            change.data,
            change.udata,
        )
        before = ctypes.set_errno(0)
        result = self._library.kevent(self._fd, ctypes.byref(bare), 1, None, 0, None)
        # Put back what was there: a signal's handler that wakes may run where _wait() has yet
        # to read its own.
        error = ctypes.set_errno(before)
        return 0 if result >= 0 else error or errno.EINVAL

    def _wait(self, timeout: float | None) -> list[kevent]:
        deadline = None if timeout is None else time.monotonic() + timeout
        events = (kevent * MOST_EVENTS)()
        while True:
            limit = None
            if timeout is not None:
                limit = ctypes.byref(Timespec.of(timeout) if timeout else Timespec(0, 0))
            count = self._library.kevent(self._fd, None, 0, events, MOST_EVENTS, limit)
            if count >= 0:
                break
            if ctypes.get_errno() != errno.EINTR:
                raise _oserror(ctypes.get_errno())
            if deadline is not None:  # by now the signal's handler has run
                timeout = max(0.0, deadline - time.monotonic())
        found = events[:count]
        for event in found:
            if event.filter == DIALECT.read and event.fflags == NOTE_LOWAT:
                event.fflags = 0
        return found

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed kqueue object")


@functools.cache
def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY, use_errno=True)
    except OSError as error:
        raise OSError(
            f"this system has no kqueue, and the library that imitates it cannot be loaded "
            f"({error}); use another poller, or install libkqueue where ld.so finds it"
        ) from None
    library.kqueue.argtypes = []
    library.kevent.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_void_p,
    ]
    return library


def _file(fd: int) -> tuple[int, int]:
    """What tells one open file from another, as far as an inode does.  Raises OSError(EBADF)."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _oserror(number: int) -> OSError:
    return OSError(number, os.strerror(number))
