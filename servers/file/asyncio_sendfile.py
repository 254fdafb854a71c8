"""One HTTP connection on asyncio with backend `sendfile`: `loop.sendfile()`, which uvloop lacks.

Facts
-----
*   It waits until what was written before has gone: a head stays in front of its body.
*   It is a coroutine, so that each answer with a body takes a task; and it waits for the selector
    once more when all has been sent.  That is its price for small files.
*   It tells nothing before its end, and is given one chunk a call.  Nor does it say that the
    socket was full: a stall is counted when the sweep finds it so.
*   Of a failed sendfile(2) asyncio says no errno (SendfileNotAvailableError): whether file or
    client is to blame is asked of the file.
*   While it waits the loop watches the socket for it: it is cancelled first, and the transport
    closed when it has ended.
"""

from __future__ import annotations

import asyncio
import errno
import io
import os
import select
from typing import TYPE_CHECKING

from pollers.base import POLLOUT
from servers.file.asyncio_copy import FileProtocol
from servers.file.parts import parts
from servers.file.plan import Plan
from servers.file.transfers.base import CHUNK, Truncated

if TYPE_CHECKING:
    from servers.file.on_asyncio import AsyncioService


class SendfileProtocol(FileProtocol):
    """Backend `sendfile` of one connection."""

    __slots__ = ("_stalled", "_task")

    def __init__(self, service: AsyncioService) -> None:
        super().__init__(service)
        self._task: asyncio.Task[None] | None = None
        #: Whether the answer under way was counted among the stalls.
        self._stalled = False

    def _answer(self, plan: Plan) -> bool:
        if not plan.count:
            return super()._answer(plan)
        self._tally.requests += 1
        self._take(plan, iter(()), 0)
        self._stalled = False
        self.transport.pause_reading()  # else every loop.sendfile() does, and resumes it
        self._task = self._loop.create_task(self._send(plan))
        self._task.add_done_callback(self._on_sent)
        return False

    async def _send(self, plan: Plan) -> None:
        with io.FileIO(plan.fd, closefd=False) as file:
            for part in parts(plan):
                if isinstance(part, bytes):
                    self._hand_over(part)
                else:
                    await self._send_range(file, *part)

    async def _send_range(self, file: io.FileIO, offset: int, left: int) -> None:
        while left:
            if self.transport.is_closing():
                raise ConnectionResetError(errno.ECONNRESET, "reset while its head was sent")
            try:
                count = await self._loop.sendfile(
                    self.transport, file, offset, min(left, CHUNK), fallback=False
                )
            except asyncio.SendfileNotAvailableError as error:
                os.pread(file.fileno(), 1, offset)  # raises where it is the file that fails
                raise ConnectionResetError(errno.ECONNRESET, str(error)) from None
            if not count:
                raise Truncated
            self._handed += count
            self.note_progress()
            offset += count
            left -= count

    def _on_sent(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if task.cancelled():
            super().abort()
            return
        error = task.exception()
        if error is None:
            self._go_on()  # when the transport has nothing left either
        elif isinstance(error, Truncated):
            self._reset_on_close()  # pages that are still to be sent may be zeros by now
            self._cut_short()
        elif isinstance(error, OSError):
            self._failed(error)
        else:
            super().abort()
            raise error

    def look(self) -> None:
        super().look()
        if not self._stalled and self._task is not None and _full(self._fd):
            self._stalled = True
            self._tally.stalls += 1

    def _go_on(self) -> None:
        if self._task is None:
            super()._go_on()

    def abort(self) -> None:
        if self._task is not None:
            # The transport's socket must not be closed while loop.sendfile() waits for it.
            self._task.cancel()
        else:
            super().abort()


def _full(fd: int) -> bool:
    """Whether a socket has no room for more."""
    poll = select.poll()
    poll.register(fd, POLLOUT)
    return not poll.poll(0)
