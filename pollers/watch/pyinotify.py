"""The watcher over the package pyinotify (0.9.6, of 2015), driven through its own classes.

Its WatchManager adds the watches, its Notifier reads the queue and takes the events apart, and a
ProcessEvent of ours gets them: what they become is what pollers.watch.inotify makes of its own.

Some facts about pyinotify, and what they mean here
---------------------------------------------------
*   It imports asyncore, which Python 3.12 dropped: there it needs the package pyasyncore.  On 3.11
    that import warns.  It is imported when a watcher is made, and not before.
*   Its import puts a handler for stderr on the logger "pyinotify", and its classes log errors that
    are none: an event of a watch that was just removed, a directory that was moved out.  That
    logger is silent while they run for us, and refusals are raised.
*   It calls inotify_init() without flags.  CLOEXEC and NONBLOCK are set afterwards: a process that
    another thread forks and executes in between inherits the fd.
*   Recursion (`rec`, `auto_add`) loses what is created before a new directory has its watch, and
    tells twice of what its listing and the kernel both found; the path that it keeps of a watch is
    wrong after a rename above it.  None of that is used: each directory is added by itself, by fd
    through /proc, and paths are kept here.
*   Removing a watch forgets it at once, and events that are queued for it are then "unknown".
    It is put back, until the kernel's IN_IGNORED ends it.
*   A name that is no UTF-8 raises UnicodeDecodeError in the middle of a buffer that has been read:
    all behind it is lost.  That counts as an overflow, and the trees are looked at again.  So does
    IN_Q_OVERFLOW, of which it only logs a warning.
*   Its coalescing drops events that are equal though others stand between them: not switched on.
*   `Notifier.read_events` raises on an empty queue; it is asked first (`check_events`).  It reads
    all that FIONREAD counts at once: 16,384 events are some 0.3 s.
*   `Notifier.stop` and `WatchManager.close` close the same fd number: only the first is called.
*   Its errors have no errno attribute; ctypes still has it.
*   Per event it costs several times what pollers.inotify costs: two objects, a dict, and look-ups
    of methods by name.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import warnings
from collections.abc import Iterator
from typing import Any, Final

from pollers.inotify import IN_Q_OVERFLOW, Event, Fields
from pollers.registry import Unavailable
from pollers.watch.inotify import InotifyWatcher, Instance

_REMEDIES: Final = {
    errno.EMFILE: "; no more inotify instances or open files: as root "
    "sysctl -w fs.inotify.max_user_instances=1024, or ulimit -n",
    errno.ENOSPC: "; no more inotify watches: as root "
    "sysctl -w fs.inotify.max_user_watches=1048576",
}


class PyinotifyWatcher(InotifyWatcher):
    """The adapter over pyinotify.

    Raises Unavailable where it cannot be imported, and OSError, with what to do, where there can
    be no instance.
    """

    name = "pyinotify"

    def _instance(self) -> Instance:
        return Package()


class Package:
    """pyinotify's classes in the shape of pollers.inotify.Inotify."""

    #: All that is queued is read at once.
    behind = False

    def __init__(self) -> None:
        self._pyinotify = pyinotify = _import()
        self._events: list[Event] = []
        events = self._events

        class Collector(pyinotify.ProcessEvent):  # type: ignore[misc, name-defined]
            def process_default(self, event: Any) -> None:
                # A rename's halves alone have a cookie.
                cookie = getattr(event, "cookie", 0)
                events.append(Event(event.wd, event.mask, cookie, event.name.encode()))

            def process_IN_Q_OVERFLOW(self, event: Any) -> None:
                events.append(_OVERFLOW)

        try:
            self._manager = pyinotify.WatchManager()
        except OSError as error:
            raise _error("pyinotify.WatchManager", error) from None
        self._fd: int = self._manager.get_fd()
        os.set_inheritable(self._fd, False)
        os.set_blocking(self._fd, False)
        self._notifier = pyinotify.Notifier(self._manager, Collector())

    def add_fd(self, fd: int, mask: int) -> int:
        """Watch what `fd` has open; return the wd.  Raises OSError; ENOSPC says what to do."""
        path = f"/proc/self/fd/{fd}"
        try:
            wd: int = self._manager.add_watch(path, mask, quiet=False)[path]
        except self._pyinotify.WatchManagerError as error:
            raise _error("pyinotify.add_watch", error) from None
        return wd

    def remove(self, wd: int) -> None:
        """End a watch.  One that has ended by itself is no error."""
        watch = self._manager.get_watch(wd)
        try:
            self._manager.rm_watch(wd, quiet=False)
        except self._pyinotify.WatchManagerError:
            self._manager.watches.pop(wd, None)
            return
        if watch is not None:
            self._manager.watches[wd] = watch

    def records(self) -> list[Event]:
        """What has happened, oldest first; [] where nothing has."""
        notifier = self._notifier
        with self._silence():
            if not notifier.check_events(timeout=0):
                return []
            lost = False
            try:
                notifier.read_events()
            except UnicodeDecodeError:
                lost = True
            notifier.process_events()
        events = self._events.copy()
        self._events.clear()
        if lost:
            events.append(_OVERFLOW)
        return events

    @staticmethod
    def decode(event: Event) -> Fields:
        """They are events already."""
        return event

    def fileno(self) -> int:
        """Readable when there are events; -1 when closed."""
        return self._fd

    def close(self) -> None:
        """End every watch.  May be repeated."""
        if self._fd != -1:
            self._fd = -1
            self._notifier.stop()

    @contextlib.contextmanager
    def _silence(self) -> Iterator[None]:
        log = self._pyinotify.log
        before, log.disabled = log.disabled, True
        try:
            yield
        finally:
            log.disabled = before


_OVERFLOW: Final = Event(-1, IN_Q_OVERFLOW, 0, b"")


def _import() -> Any:
    """The package.  Raises Unavailable with what to install."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # asyncore
            import pyinotify
    except ModuleNotFoundError as error:
        package = "pyasyncore" if error.name == "asyncore" else error.name
        raise Unavailable(
            f"pyinotify cannot be used here: it needs the module {error.name}, which is not "
            f"installed; pip install {package}"
        ) from error
    return pyinotify


def _error(call: str, error: Exception) -> OSError:
    """The OSError that the package's own error stands for."""
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}{_REMEDIES.get(number, '')}")
