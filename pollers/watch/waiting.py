"""An fd that becomes readable when a time has come, and one that does when any of some others is.

Facts
-----
*   timerfd (Linux 2.6.25) is readable from its expiry until it is read or set anew.  CPython
    has it from 3.13, so that libc's functions are called.  A relative time of 0 disarms it:
    what is due at once is set to one nanosecond.
*   A kqueue is itself readable while an event waits in it, so that one with an EVFILT_TIMER is a
    timer, on every BSD and on macOS.  EV_ADD of a timer that is there sets it anew and takes a
    pending expiry back; EV_DELETE of one that has fired is ENOENT.
*   An epoll instance is readable while one of its files is ready, and so is a kqueue with an
    EVFILT_READ: neither copies anything, and it costs nothing until it is asked.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import sys
from typing import Any, Final

if sys.platform == "linux":
    from pollers.syscall import Timespec, check

    _libc: Final = ctypes.CDLL(None, use_errno=True)
    CLOCK_MONOTONIC: Final = 1

    class _Itimerspec(ctypes.Structure):
        """struct itimerspec: {period, first}."""

        _fields_ = [("it_interval", Timespec), ("it_value", Timespec)]

    class Timer:
        """A one-shot timer.  Raises OSError where there can be no fd for it."""

        def __init__(self) -> None:
            flags = os.O_NONBLOCK | os.O_CLOEXEC  # TFD_NONBLOCK and TFD_CLOEXEC are the same
            self._fd = check(_libc.timerfd_create(CLOCK_MONOTONIC, flags), "timerfd_create")

        def set(self, seconds: float) -> None:
            """Become readable in `seconds`, and not before, whatever was set."""
            self._settime(Timespec.of(max(seconds, 0.0)))  # which rounds up: never 0

        def clear(self) -> None:
            """Not be readable, until it is set again."""
            self._settime(Timespec(0, 0))

        def fileno(self) -> int:
            return self._fd

        def close(self) -> None:
            """May be repeated."""
            fd, self._fd = self._fd, -1
            if fd != -1:
                os.close(fd)

        def _settime(self, first: Timespec) -> None:
            new = _Itimerspec(Timespec(0, 0), first)
            check(_libc.timerfd_settime(self._fd, 0, ctypes.byref(new), None), "timerfd_settime")

    class AnyOf:
        """Readable while one of some fds is; these stay open as long.  Raises OSError."""

        def __init__(self, *fds: int) -> None:
            self._epoll = select.epoll()
            try:
                for fd in fds:
                    self._epoll.register(fd, select.EPOLLIN)
            except OSError:
                self._epoll.close()
                raise

        def fileno(self) -> int:
            return self._epoll.fileno()

        def close(self) -> None:
            """May be repeated."""
            self._epoll.close()

else:

    class Timer:
        """A one-shot timer.  Raises OSError where there can be no fd for it."""

        def __init__(self) -> None:
            self._kq: Any = select.kqueue()

        def set(self, seconds: float) -> None:
            """Become readable in `seconds`, and not before, whatever was set."""
            milliseconds = max(1, -int(-seconds * 1000 // 1))  # rounded up
            self.clear()
            flags = select.KQ_EV_ADD | select.KQ_EV_ONESHOT
            self._kq.control(
                [select.kevent(1, select.KQ_FILTER_TIMER, flags, data=milliseconds)], 0, 0
            )

        def clear(self) -> None:
            """Not be readable, until it is set again."""
            with contextlib.suppress(FileNotFoundError):  # none is set
                self._kq.control(
                    [select.kevent(1, select.KQ_FILTER_TIMER, select.KQ_EV_DELETE)], 0, 0
                )

        def fileno(self) -> int:
            return int(self._kq.fileno())

        def close(self) -> None:
            """May be repeated."""
            self._kq.close()

    class AnyOf:
        """Readable while one of some fds is; these stay open as long.  Raises OSError."""

        def __init__(self, *fds: int) -> None:
            self._kq: Any = select.kqueue()
            try:
                changes = [
                    select.kevent(fd, select.KQ_FILTER_READ, select.KQ_EV_ADD) for fd in fds
                ]
                self._kq.control(changes, 0, 0)
            except OSError:
                self._kq.close()
                raise

        def fileno(self) -> int:
            return int(self._kq.fileno())

        def close(self) -> None:
            """May be repeated."""
            self._kq.close()
