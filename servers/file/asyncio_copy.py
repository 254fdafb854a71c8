"""One HTTP connection on asyncio or uvloop: a protocol on the loop's transport.

Facts
-----
*   `BufferedProtocol` reads into a buffer of ours, which bounds a read on both loops.  While an
    answer waits for room nothing is read, so that one read is all that is ever buffered.
*   `set_write_buffer_limits(0)` makes the transport say `pause_writing()` as soon as it could not
    send everything: from then on it holds the rest of one chunk, and is given no other before
    `resume_writing()`.  That is COPIED bytes for a slow reader (130 KiB of memory on uvloop, 200
    on asyncio, whose buffer grows ahead), where the reactor holds none.
*   In `resume_writing()` a transport of asyncio's must not be closed: it looks at itself
    afterwards, and would be lost twice.  So the protocol goes on in the loop's next turn.
*   After a reset asyncio's transports take what they are given, and complain in the log: whether
    one is closing is asked before each chunk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from time import monotonic
from typing import TYPE_CHECKING, cast

from pollers.sockqueue import unread
from servers.file.parts import chunks
from servers.file.plan import Plan
from servers.file.service import (
    FULL,
    GONE,
    LINGER_BYTES,
    RECEIVE,
    RESET_ON_CLOSE,
    TURN,
    TURN_SECONDS,
    State,
)
from servers.file.transfers.base import COPIED, Truncated

if TYPE_CHECKING:
    from servers.file.on_asyncio import AsyncioService


class FileProtocol(asyncio.BufferedProtocol):
    """Backend `copy`: pread(2) into user memory, which the transport sends."""

    __slots__ = (
        "_chunks",
        "_discarded",
        "_fast",
        "_fd",
        "_full",
        "_handed",
        "_host",
        "_log",
        "_loop",
        "_memo",
        "_news",
        "_plan",
        "_sent",
        "_service",
        "_session",
        "_settled",
        "_tally",
        "_unlimited",
        "_view",
        "_write",
        "owed",
        "since",
        "state",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, service: AsyncioService) -> None:
        self.state = State.HEAD
        self.since = monotonic()
        self.owed = 0
        self._service = service
        self._loop = service.loop
        self._tally = service.tally
        self._log = service.access_log
        self._memo = service.site.memo
        self._news = service.news
        self._view = service.view
        self._session = service.session()
        self._fd = -1
        self._host = ""
        #: Whether the next read begins a request, and whether the memo alone may answer it.
        self._settled = True
        self._fast = self._unlimited = not service.options.max_requests
        #: Whether the transport holds something.
        self._full = False
        #: The answer under way, what is still to be read of it, how much of it the transport was
        #: given, and how much of that the kernel has taken, as far as we know.
        self._plan: Plan | None = None
        self._chunks: Iterator[bytes] = iter(())
        self._handed = 0
        self._sent = 0
        self._discarded = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the interface without being registered as its subclasses.
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(0)
        self._write = self.transport.write
        self._fd = self.transport.get_extra_info("socket").fileno()
        if self._log is not None:
            peer = self.transport.get_extra_info("peername")
            self._host = peer[0] if peer else ""  # it has gone already
        if not self._service.connect(self):
            self._write(FULL)
            with contextlib.suppress(OSError):
                os.read(self._fd, RECEIVE)  # unread, it would turn the answer into a reset
            self.transport.close()
        elif self._service.draining:  # it was accepted before
            self.drain()

    def fileno(self) -> int:
        return self._fd

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_plan()
        self._service.disconnect(self, reset=exc is not None)

    # -- reading

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._view[:nbytes])
        if self._news(0):
            self._service.site.read_changes()
        plan = self._memo.get(data)
        if plan is not None and self._fast and plan.expires > (now := monotonic()):
            self.since = now
            if self._answer(plan):
                self.state = State.IDLE
            return
        if self.state is State.LINGER:
            self._discarded += nbytes
            if self._discarded >= LINGER_BYTES:
                self.transport.close()
            return
        self._session.feed(data)
        if self._serve() and self._service.draining:
            self.drain()

    def eof_received(self) -> bool:
        return False  # nothing is read while something is owed: the transport may close itself

    def _serve(self) -> bool:
        """Answer what has come.  True where all of it is answered, and reading may go on."""
        session = self._session
        until = monotonic() + TURN_SECONDS
        answered = False
        while (plan := session.next_plan()) is not None:
            if not self._answer(plan):
                return False
            if plan.close:
                self._finish()
                return False
            answered = True
            if monotonic() >= until:
                self._give_way()
                return False
        self._settled = session.settled
        self._fast = self._settled and self._unlimited
        if self._settled:
            self.state = State.IDLE
            self.since = monotonic()
        elif answered or self.state is not State.HEAD:  # the deadline of one head is absolute
            self.state = State.HEAD
            self.since = monotonic()
        return True

    def _give_way(self) -> None:
        """Answer what else has come after the others had their turn."""
        self.state = State.SENDING  # for the drain and the deadlines, which it is
        self.since = monotonic()
        self.transport.pause_reading()
        self._loop.call_soon(self._go_on_serving)

    def _go_on_serving(self) -> None:
        if not self.transport.is_closing():
            self._after()

    # -- sending

    def _answer(self, plan: Plan) -> bool:
        """Send a plan.  True where all of it went at once."""
        self._tally.requests += 1
        if plan.total > COPIED or plan.rest:
            return self._begin(plan, chunks(plan, COPIED))
        data = plan.head
        if plan.count:
            try:
                data += os.pread(plan.fd, plan.count, plan.offset)
            except OSError as error:
                self._failed(error)
                return False
        if len(data) != plan.total:  # truncated; all that was read is still to be sent
            return self._begin(plan, chunks(plan, COPIED))
        self._write(data)
        if self._full or self.transport.is_closing():
            return self._begin(plan, iter(()), len(data))
        self._tally.sent += len(data)
        if self._log is not None:
            self._log.add(self._host, plan, plan.length)
        return True

    def _begin(self, plan: Plan, rest: Iterator[bytes], handed: int = 0) -> bool:
        """Send the `rest` of a plan, of which the transport was given `handed` bytes."""
        self._take(plan, rest, handed)
        if self._pump():
            return True
        self.transport.pause_reading()
        return False

    def _take(self, plan: Plan, rest: Iterator[bytes], handed: int) -> None:
        self._plan = plan
        self._chunks = rest
        self._handed = handed
        self._sent = 0
        self.state = State.SENDING
        self.since = monotonic()
        if plan.file is not None:
            plan.file.take()

    def _pump(self) -> bool:
        """Give the transport what it sends.  True where all of the plan has gone."""
        until = self._handed + TURN
        try:
            while not self._full and not self.transport.is_closing():
                data = next(self._chunks, None)
                if data is None:
                    self.note_progress()
                    self._end_plan()
                    return True
                self._hand_over(data)
                if self._handed >= until:
                    self._loop.call_soon(self._go_on)  # when the others had their turn
                    break
            self.note_progress()
        except Truncated:
            self._cut_short()
        except OSError as error:
            self._failed(error)
        return False

    def _hand_over(self, data: bytes) -> None:
        self._write(data)
        self._handed += len(data)

    def pause_writing(self) -> None:
        self._full = True
        self._tally.stalls += 1

    def resume_writing(self) -> None:
        self._full = False
        self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """There is room, or the others had their turn."""
        if self._plan is not None and not self.transport.is_closing() and self._pump():
            self._after()

    def _after(self) -> None:
        """A plan that had to wait has gone, or a turn is over: go on with what has come."""
        if self._session.ended:
            self._finish()
        elif self._serve():
            self.transport.resume_reading()
            if self._service.draining:
                self.drain()

    def note_progress(self) -> None:
        """Count what the kernel took of what the transport was given."""
        sent = self._handed - self.transport.get_write_buffer_size()
        if sent > self._sent and not self.transport.is_closing():  # then it may be empty for that
            self._tally.sent += sent - self._sent
            self._sent = sent
            self.since = monotonic()

    def look(self) -> None:
        """The sweep asks how it is getting on."""
        self.note_progress()

    def _end_plan(self) -> None:
        """Let go of the plan under way, and log what went of it."""
        plan, self._plan = self._plan, None
        if plan is None:
            return
        self._chunks = iter(())
        if self._log is not None:
            content = self._sent - (plan.total - plan.length)
            self._log.add(self._host, plan, max(0, content))
        if plan.file is not None:
            plan.file.release()

    # -- ending

    def _finish(self) -> None:
        """The last answer has gone: close, at once where the client cannot be sending."""
        self._fast = False
        if self._session.orderly and not unread(self._fd):
            self.transport.close()
            return
        self.state = State.LINGER
        self.since = monotonic()
        try:
            self.transport.write_eof()
        except OSError:
            self._tally.resets += 1
            self.abort()
            return
        self.transport.resume_reading()

    def expire(self) -> None:
        """Its deadline has passed."""
        self._tally.timeouts += 1
        if self.state is State.HEAD and self._session.partial:
            if self._answer(self._session.timeout()):
                self._finish()
            return
        if self.state is State.SENDING:
            # Without this the kernel would go on trying to send what is in its buffer.
            self._reset_on_close()
        self.abort()

    def drain(self) -> None:
        """The server ends: close where nothing has come that is to be answered first."""
        waits = self.state in (State.HEAD, State.IDLE) and self._settled
        if waits and not self.transport.is_closing() and not unread(self._fd):
            self.transport.close()

    def _reset_on_close(self) -> None:
        """Let the end, when it comes, drop what the kernel has not sent."""
        self.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE
        )

    def abort(self) -> None:
        """End it now, whatever is still to be sent."""
        self.transport.abort()

    def _cut_short(self) -> None:
        """The file ended too early: only the end of the connection can tell the client."""
        self._tally.truncated += 1
        self.note_progress()
        self.transport.close()

    def _failed(self, error: OSError) -> None:
        """Reading the file or writing to the socket failed."""
        if self.transport.is_closing():  # it failed before, and connection_lost() counts that
            return
        if error.errno not in GONE:
            self._service.complain(error)
        self._tally.resets += 1
        self.abort()
