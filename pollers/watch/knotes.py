"""Open files with knotes: a kqueue that watches files, the kernel's own or libkqueue's.

How a file may be opened
------------------------
*   Open for reading, a file keeps its file system mounted.  macOS has O_EVTONLY, which does not;
    Linux and FreeBSD 13.1 have O_PATH, which asks for no permission to read.  Whether notes come
    of what is open so is tried out.

Over libkqueue, on Linux
------------------------
*   It keeps an inotify instance for each knote, of which a user has 128.
*   It adds its watch by the path that the fd has at the moment (readlink(2) in /proc).  Where the
    file is renamed right then that fails, and is tried again; where another one took its name,
    that is watched instead, which cannot be seen.
*   Its fd is never readable.  Behind it is an epoll instance that is, found by what it watches.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, Final

from pollers.kevents import EV_ADD, EV_CLEAR, EV_DELETE, Kevent
from pollers.kqueue import Opened
from pollers.watch.vnodes import NOTE_WRITE, OTHER, dialect_of

_ALWAYS: Final = os.O_CLOEXEC | os.O_NONBLOCK
#: How a file may be opened for its notes, the best first.
FLAGS: Final[tuple[int, ...]] = tuple(
    flag | _ALWAYS
    for flag in (
        getattr(os, "O_PATH", None),
        getattr(os, "O_EVTONLY", None),
        os.O_RDONLY,
    )
    if flag is not None
)
#: Records of one call.
RECORDS: Final = 512
#: What an open file or a knote too many is.
LIMITS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
#: How often libkqueue may find that a file was just renamed.
TRIES: Final = 20


class Knotes:
    """A kqueue for open files.

    Raises what `kq_factory` (see `pollers.kqueue.open_kqueue`) raises, and OSError where no open
    file has notes.
    """

    def __init__(self, kq_factory: Callable[[], Opened]) -> None:
        opened = kq_factory()
        self._kq, self._kevent, _, self.emulated = opened
        self.dialect = OTHER if self.emulated else dialect_of(sys.platform)
        try:
            #: How a file is to be opened: one of FLAGS.
            self.flags = self._find_flags()
            self._fd: int = _epoll_behind(opened) if self.emulated else self._kq.fileno()
        except BaseException:
            self._kq.close()
            raise

    def fileno(self) -> int:
        """Readable when there are records."""
        return self._fd

    def read(self) -> Sequence[Kevent]:
        """The records of what has happened, at most RECORDS."""
        return self._kq.control(None, RECORDS, 0)

    def close(self) -> None:
        """May be repeated."""
        self._kq.close()

    def register(self, fd: int, notes: int) -> None:
        """Raises OSError; over libkqueue FileNotFoundError where the file has no name any more."""
        for last in [not self.emulated, *[False] * (TRIES - 2), True]:
            try:
                self._change(fd, EV_ADD | EV_CLEAR, notes)
                return
            except OSError as error:
                if last or error.errno not in (errno.EINVAL, errno.ENOENT):
                    raise self.explained(error) from None
                if not os.fstat(fd).st_nlink:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None

    def unregister(self, fd: int) -> None:
        """libkqueue does not see a close(fd); a kernel does it by itself."""
        if self.emulated:
            with contextlib.suppress(OSError):
                self._change(fd, EV_DELETE, 0)

    def _change(self, fd: int, flags: int, notes: int) -> None:
        self._kq.control([self._kevent(fd, self.dialect.filter, flags, notes, 0)], 0, 0)

    def explained(self, error: OSError) -> OSError:
        """The same error, with what to do where it is a limit."""
        if error.errno not in LIMITS or ";" in str(error.strerror):
            return error
        if self.emulated:
            remedy = "libkqueue has an inotify instance for each name: as root sysctl -w "
            remedy += "fs.inotify.max_user_instances=20000, or use inotify"
        else:
            remedy = "kqueue needs an open file for each name that is watched: ulimit -n 20000"
        return OSError(error.errno, f"{error.strerror}; {remedy}")

    def _find_flags(self) -> int:
        """The first of FLAGS with which notes come.  Raises OSError."""
        refusal: OSError | None = None
        with tempfile.TemporaryDirectory(prefix="pollers-watch-") as directory:
            for number, flags in enumerate(FLAGS):
                try:
                    fd = os.open(directory, flags)
                    try:
                        self.register(fd, NOTE_WRITE)
                        os.mkdir(os.path.join(directory, str(number)))
                        if any(r.ident == fd for r in self._kq.control(None, RECORDS, 0)):
                            return flags
                    finally:
                        self.unregister(fd)
                        os.close(fd)
                except OSError as error:
                    refusal = error
        raise refusal or OSError(errno.ENOTSUP, "EVFILT_VNODE says nothing of a new directory")


def _epoll_behind(opened: Opened) -> int:
    """The epoll instance of a libkqueue kqueue: the one that watches a pipe given to it.

    Raises OSError where there is none, or /proc is not mounted.
    """
    pipe = os.pipe()
    change: Callable[[int], Any] = lambda flags: opened.kq.control(  # noqa: E731
        [opened.kevent(pipe[0], opened.dialect.read, flags, 0, 0)], 0, 0
    )
    try:
        change(EV_ADD)
        try:
            for number in os.listdir("/proc/self/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/self/fd/{number}") != "anon_inode:[eventpoll]":
                        continue
                    with open(f"/proc/self/fdinfo/{number}") as lines:
                        watched = [line.split()[1] for line in lines if line.startswith("tfd:")]
                    if str(pipe[0]) in watched:
                        return int(number)
        finally:
            change(EV_DELETE)
    finally:
        for fd in pipe:
            os.close(fd)
    raise OSError(errno.ENOTSUP, "libkqueue's epoll instance was not found in /proc/self/fdinfo")
