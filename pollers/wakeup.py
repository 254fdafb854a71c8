"""How another thread, or a signal handler, ends a poll() that waits.

Facts
-----
*   An eventfd (Linux 2.6.22, eventfd(2)) is one fd and one counter; elsewhere a pipe does it.
*   A wake that arrives while one is pending adds nothing: they coalesce, at no kernel call.
*   The flag is set before the write and cleared after the read, both under the lock, so that
    whoever sees the fd readable also sees the flag.  A poller may therefore look at the flag
    alone on its hot path (one attribute) and search its events for the fd only when it is set.
*   The lock is re-entrant because a signal handler may call `set()` while the main thread holds
    it.  A wake that comes between read and clear is lost on purpose: the poll() that clears the
    flag is about to return, and that is all a wake asks for.
"""

from __future__ import annotations

import os
import sys
import threading


class Wakeup:
    """An fd that becomes readable when `set()` is called, until `clear()`."""

    __slots__ = ("_lock", "_write_fd", "fd", "pending")

    def __init__(self) -> None:
        if sys.platform == "linux":
            self.fd = self._write_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        else:
            self.fd, self._write_fd = os.pipe()  # close-on-exec since PEP 446
            os.set_blocking(self.fd, False)
            os.set_blocking(self._write_fd, False)
        self._lock = threading.RLock()
        #: True from before the fd is readable until after it was emptied.
        self.pending = False

    def set(self) -> None:
        """Make the fd readable.  From any thread and from signal handlers."""
        with self._lock:
            if self._write_fd < 0:
                raise ValueError("operation on a closed poller")
            if not self.pending:
                self.pending = True
                os.write(self._write_fd, (1).to_bytes(8, "little"))

    def clear(self) -> None:
        """Empty the fd."""
        with self._lock:
            try:
                os.read(self.fd, 8)
            except BaseException:
                # A signal handler raised here, before the read or after it.  One wake too many is
                # allowed; an fd that stays readable with no wake pending would be reported.
                self.pending = False
                self.set()
                raise
            self.pending = False

    def close(self) -> None:
        with self._lock:
            if self.fd >= 0:
                os.close(self.fd)
                if self._write_fd != self.fd:
                    os.close(self._write_fd)
                self.fd = self._write_fd = -1
