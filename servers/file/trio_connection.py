"""One HTTP connection on trio, as one would tell it: read, answer, wait.

Facts
-----
*   A cancellation may come whenever a task waits.  While an answer is sent it must not come from
    outside (the drain lets transfers finish), so that each wait for room is shielded, and has a
    scope of its own for the send timeout.
*   A scope a request would cost as much as its answer.  There is one a connection, which the sweep
    or the drain cancels; what it means depends on what the connection was waiting for then
    (`_interrupted`).
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

import trio
from trio.lowlevel import wait_readable, wait_writable

from pollers.sockqueue import unread
from pollers.system import MSG_MORE
from servers.file.parts import parts
from servers.file.plan import Plan
from servers.file.service import (
    GONE,
    LINGER_BYTES,
    RECEIVE,
    RESET_ON_CLOSE,
    TURN,
    TURN_SECONDS,
    State,
)
from servers.file.transfers.base import Mover, Truncated

if TYPE_CHECKING:
    from servers.file.on_trio import TrioService

Step: TypeAlias = Callable[[], Awaitable[None]]


class Connection:
    """One connection: the service's task for it is `live()`."""

    __slots__ = (
        "_fd",
        "_first",
        "_host",
        "_scope",
        "_sending",
        "_sent",
        "_service",
        "_session",
        "_settled",
        "_sock",
        "_tally",
        "owed",
        "since",
        "state",
    )

    def __init__(self, sock: socket.socket, service: TrioService, host: str) -> None:
        """`host` is the peer's address, for the access log."""
        self.state = State.HEAD
        self.since = monotonic()
        self.owed = 0
        self._sock = sock
        self._fd = sock.fileno()
        self._service = service
        self._tally = service.tally
        self._session = service.session()
        self._first = service.transfer.sender(sock)
        self._host = host
        #: Whether the next read begins a request.
        self._settled = True
        #: What ends a wait for the client's bytes, and for room.
        self._scope = trio.CancelScope()
        self._sending: trio.CancelScope | None = None
        self._sent = 0

    async def live(self) -> None:
        """Serve until the end."""
        step: Step | None = self._converse
        try:
            while step is not None:
                with trio.CancelScope() as self._scope:
                    await step()
                step = self._interrupted() if self._scope.cancelled_caught else None
        except Truncated:
            self._tally.truncated += 1
            # Only the end can tell the client, and a reset drops what may be zeros by now.
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        except OSError as error:
            if error.errno not in GONE:
                self._service.complain(error)
            self._tally.resets += 1

    # -- what others ask of it

    def fileno(self) -> int:
        return self._fd

    def look(self) -> None:
        """What went is noted as it goes."""

    def expire(self) -> None:
        """Its deadline has passed."""
        if self._sending is None:
            self._scope.cancel()
            return
        self._tally.timeouts += 1
        # Without this the kernel would go on trying to send what is in its buffer.
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._sending.cancel()

    def drain(self) -> None:
        """The server ends: close as soon as what has come is answered."""
        if self.state in (State.HEAD, State.IDLE):
            self._scope.cancel()

    def abort(self) -> None:
        """Give up what is being answered, which a cancellation from outside does not reach."""
        self._session.ended = True
        if self._sending is not None:
            self._sending.cancel()

    def _interrupted(self) -> Step | None:
        """What follows a cancellation; None: the end."""
        if self.state is State.SENDING:
            return None
        if self._service.overdue((self,), monotonic()):  # nothing came in the last moment
            self._tally.timeouts += 1
            late = self.state is State.HEAD and self._session.partial
            return self._time_out if late else None
        if self.state is State.LINGER:
            return self._linger
        return None if self._spare() else self._converse

    def _spare(self) -> bool:
        """Whether the drain has begun and nothing is left to be answered."""
        return self._service.draining and self._settled and not unread(self._fd)

    # -- reading

    async def _converse(self) -> None:
        """Read and answer until the end, of the file or of the conversation."""
        service, session, recv = self._service, self._session, self._sock.recv
        memo, news, fd = service.site.memo, service.news, self._fd
        unlimited = not service.options.max_requests
        while True:
            await wait_readable(fd)
            try:
                data = recv(RECEIVE)
            except BlockingIOError:
                continue
            if not data:
                return
            if news(0):
                service.site.read_changes()
            plan = memo.get(data)
            if (
                plan is not None
                and unlimited
                and self._settled
                and plan.expires > (now := monotonic())
            ):
                self.since = now
                await self._answer(plan)
                self.state = State.IDLE
            else:
                session.feed(data)
                if not await self._serve():
                    await self._finish()
                    return
            if self._spare():
                return

    async def _serve(self) -> bool:
        """Answer what has come.  True where reading may go on."""
        session = self._session
        until = monotonic() + TURN_SECONDS
        answered = False
        while (plan := session.next_plan()) is not None:
            await self._answer(plan)
            if plan.close:
                return False
            answered = True
            if (now := monotonic()) >= until:
                self.state = State.SENDING  # for the drain and the deadlines, which it is
                self.since = now
                # Shielded, as what has come is answered whatever ends the wait for more.
                await trio.lowlevel.cancel_shielded_checkpoint()
                until = monotonic() + TURN_SECONDS
        self._settled = session.settled
        if self._settled:
            self.state = State.IDLE
            self.since = monotonic()
        elif answered or self.state is not State.HEAD:  # the deadline of one head is absolute
            self.state = State.HEAD
            self.since = monotonic()
        return True

    async def _time_out(self) -> None:
        await self._answer(self._session.timeout())
        await self._finish()

    async def _finish(self) -> None:
        """The last answer has gone: the end, at once where the client cannot be sending."""
        self._sock.shutdown(socket.SHUT_WR)
        self.state = State.LINGER
        self.since = monotonic()
        if not self._session.orderly or unread(self._fd):
            await self._linger()

    async def _linger(self) -> None:
        """Throw away what comes until the client closes too: see reactor_connection.py."""
        discarded = 0
        while discarded < LINGER_BYTES:
            await wait_readable(self._fd)
            with contextlib.suppress(BlockingIOError):
                data = self._sock.recv(RECEIVE)
                if not data:
                    return
                discarded += len(data)

    # -- sending

    async def _answer(self, plan: Plan) -> None:
        self._tally.requests += 1
        try:
            sent = self._first(plan)
        except BlockingIOError:
            sent = 0
        self._tally.sent += sent
        if sent != plan.total:
            await self._go_on(plan, sent)
        elif self._service.access_log is not None:
            self._service.access_log.add(self._host, plan, plan.length)

    async def _go_on(self, plan: Plan, sent: int) -> None:
        """Send what follows the first `sent` bytes."""
        self._tally.stalls += 1
        self.state = State.SENDING
        self.since = monotonic()
        self._sent = sent
        if plan.file is not None:
            plan.file.take()
        try:
            with trio.CancelScope(shield=True) as self._sending:
                await self._send(plan)
                return
        finally:
            self._sending = None
            if self._service.access_log is not None:
                content = self._sent - (plan.total - plan.length)
                self._service.access_log.add(self._host, plan, max(0, content))
            if plan.file is not None:
                plan.file.release()
        self._scope.cancel()  # the send timeout, or the end of the drain
        await trio.lowlevel.checkpoint()

    async def _send(self, plan: Plan) -> None:
        service = self._service
        left = parts(plan, self._sent)
        for i, part in enumerate(left, 1):
            last = i == len(left)
            if isinstance(part, bytes):
                await self._send_bytes(part, 0 if last else MSG_MORE)
                continue
            assert plan.file is not None
            mover = service.transfer.mover(plan.file, *part, last, _never)
            with contextlib.closing(mover):
                await self._move(mover)

    async def _send_bytes(self, data: bytes, flags: int) -> None:
        view = memoryview(data)
        while view:
            try:
                sent = self._sock.send(view, flags)
            except BlockingIOError:
                await wait_writable(self._fd)
            else:
                view = view[sent:]
                self._went(sent)

    async def _move(self, mover: Mover) -> None:
        until = self._sent + TURN
        while mover.left:
            try:
                sent = mover.move(self._sock)
            except BlockingIOError:
                await wait_writable(self._fd)
                until = self._sent + TURN
                continue
            self._went(sent)
            if mover.full:
                await wait_writable(self._fd)
                until = self._sent + TURN
            elif self._sent >= until:
                await trio.lowlevel.checkpoint()  # the others have their turn
                until = self._sent + TURN

    def _went(self, count: int) -> None:
        self._sent += count
        self._tally.sent += count
        self.since = monotonic()


def _never() -> None:
    raise AssertionError("only backend aio waits for a disk, and trio has it not")
