"""select(2), 4.2BSD.

Some facts about select
-----------------------
*   Three bit sets of FD_SETSIZE (1,024) bits: fds from 1024 on cannot be named at all, however
    few there are.  Linux takes longer sets, but CPython and libc are compiled with that size.
*   There are no ready bits, only readable, writable and exceptional (which is POLLPRI: urgent
    data).  A hang-up counts as readable; an error as readable and writable; a half-close is
    readable, so that POLLIN stands for POLLRDHUP.
*   One closed fd fails the whole call with EBADF and does not say which it was.
*   The sets are overwritten by the result and have to be made again for each call.  CPython does
    that in C from lists; the lists here are rebuilt only after a change.
*   The timeout has microseconds; CPython rounds up.
"""

from __future__ import annotations

import errno
import fcntl
import select
from typing import Final

from pollers.base import LONGEST, POLLIN, POLLNVAL, POLLOUT, POLLPRI, POLLRDHUP, Capability, Events
from pollers.scan import ScanAdapter

#: The size of an fd_set: <sys/select.h> on Linux, FreeBSD and macOS.
FD_SETSIZE: Final = 1024


def check_range(fd: int) -> None:
    """Raise OSError(EINVAL) for an fd that no fd_set can hold."""
    if fd >= FD_SETSIZE:
        raise OSError(
            errno.EINVAL,
            f"select cannot watch fd {fd}: its sets end at {FD_SETSIZE - 1} (FD_SETSIZE); "
            "use poll, or stay below that many open files",
        )


class SelectPoller(ScanAdapter):
    """The adapter over select; the contract is in pollers.base.

    Raises OSError at EMFILE, and where 1,024 fds are open already: its wake-up needs one below.
    """

    name = "select"
    capabilities = Capability.SUBMILLISECOND

    def __init__(self) -> None:
        super().__init__()
        try:
            check_range(self._wakeup.fd)
        except OSError:
            self.close()
            raise
        self._readers: list[int] = []
        self._writers: list[int] = []
        self._exceptional: list[int] = []
        self._changed = True

    def _watch(self, fd: int, interest: int) -> None:
        check_range(fd)
        self._changed = True

    def _forget(self, fd: int) -> None:
        self._changed = True

    def _scan(self, timeout: float | None) -> Events:
        if self._changed:
            self._rebuild()
        if timeout is not None:
            timeout = None if timeout > LONGEST else max(timeout, 0)
        try:
            readable, writable, exceptional = select.select(
                self._readers, self._writers, self._exceptional, timeout
            )
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            return self._closed_while_registered()
        if not writable and not exceptional:
            return [(fd, POLLIN) for fd in readable]
        ready = dict.fromkeys(readable, POLLIN)
        for fd in writable:
            ready[fd] = ready.get(fd, 0) | POLLOUT
        for fd in exceptional:
            ready[fd] = ready.get(fd, 0) | POLLPRI
        return list(ready.items())

    def _rebuild(self) -> None:
        interests = self._interests.items()
        self._readers = [fd for fd, interest in interests if interest & (POLLIN | POLLRDHUP)]
        self._readers.append(self._wakeup.fd)
        self._writers = [fd for fd, interest in interests if interest & POLLOUT]
        self._exceptional = [fd for fd, interest in interests if interest & POLLPRI]
        self._changed = False

    def _closed_while_registered(self) -> Events:
        closed = []
        for fd in self._interests:
            self.counters.kernel_calls += 1
            try:
                fcntl.fcntl(fd, fcntl.F_GETFD)
            except OSError:
                closed.append(fd)
        for fd in closed:
            self._drop(fd)
        return [(fd, POLLNVAL) for fd in closed]
