"""One HTTP connection on the reactor.

The connection is in one of four states, and its handler in the reactor's table is the state:

    reading   waits for a request.  The fast path is in this handler: one recv, one look-up in the
              memo, one call of the transfer backend, and nothing has to change for the next one.
    sending   the socket was full: waits for room.
    parked    waits for the disk (backend aio), and for nothing of the socket's.
    lingering the last answer went out: see lingering.py, which has that handler.

Where the poller has edge-triggered mode the socket is registered once for both directions, and a
change of state is a change of the handler alone: no kernel call.  What an edge said while its
handler did not want it is remembered (`_unread`), as it will not be said again.
"""

from __future__ import annotations

import socket
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final

from pollers.base import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP, READABLE
from servers.file.lingering import Lingering
from servers.file.outgoing import Outgoing
from servers.file.plan import Plan
from servers.file.service import (
    GONE,
    RECEIVE,
    RESET_ON_CLOSE,
    TURN,
    TURN_SECONDS,
    State,
)
from servers.file.transfers.base import Pending, Truncated
from servers.file.transfers.copy import JOINED
from servers.reactor import Handler

if TYPE_CHECKING:
    from servers.file.on_reactor import ReactorService

#: Bits that come with an end of file, for which no other edge will come.
ENDED: Final = POLLRDHUP | POLLHUP | POLLERR


class Connection:
    """Made by the service for an accepted, non-blocking socket."""

    __slots__ = (
        "_edge",
        "_fast",
        "_first",
        "_host",
        "_log",
        "_memo",
        "_outgoing",
        "_reading_on",
        "_recv",
        "_service",
        "_session",
        "_settled",
        "_tally",
        "_turn",
        "_unlimited",
        "_unread",
        "fd",
        "logged",
        "owed",
        "registered",
        "send",
        "since",
        "sock",
        "state",
    )

    def __init__(self, sock: socket.socket, service: ReactorService, host: str) -> None:
        """`host` is the peer's address, for the access log."""
        self.sock = sock
        self.fd = sock.fileno()
        self.state = State.HEAD
        self.since = monotonic()
        self.owed = 0
        self.registered = True
        self._service = service
        self._session = service.session()
        self._memo = service.site.memo
        self._tally = service.tally
        self._log = service.access_log
        self._first = service.transfer.sender(sock)
        self._recv = sock.recv
        #: For the turn, which sends small answers: the socket's own, and whether they are logged.
        self.send = sock.send
        self.logged = service.access_log is not None
        self._turn = service.turn
        self._edge = service.edge
        self._host = host
        #: Whether the next read begins a request, and whether the memo alone may answer it.
        self._settled = True
        self._fast = self._unlimited = not service.options.max_requests
        self._unread = False
        #: Whether `_read_again` will be called.
        self._reading_on = False
        #: The answer under way.
        self._outgoing: Outgoing | None = None

    def fileno(self) -> int:
        return self.fd

    def look(self) -> None:
        """What went is noted as it goes."""

    # -- reading

    def on_readable(self, bits: int) -> None:
        if not bits & READABLE:  # an edge of room to write, which nobody waits for now
            return
        try:
            data = self._recv(RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            self._service.drop(self, reset=True)
            return
        plan = self._memo.get(data)
        if plan is not None and self._fast and plan.expires > (now := monotonic()):
            self.since = now
            if bits & ENDED:
                self._unread = True
            elif (
                self._turn is not None
                and plan.count <= JOINED
                and not plan.rest
                and not self._reading_on  # its answer would overtake this one
            ):
                self.state = State.IDLE
                self._turn.ask(plan, self)
                return
            if self._answer(plan):
                self.state = State.IDLE
                if self._unread:
                    self._read_on()
            return
        if not data:
            self._service.drop(self)
            return
        self._session.feed(data)
        if len(data) == RECEIVE or bits & ENDED:  # there is more, and no edge to say so
            self._unread = True
        if self._serve() and self._unread:
            self._read_on()

    def _alive(self) -> bool:
        """Whether it was not dropped since this call was asked for."""
        return self in self._service.connections

    def _read_on(self) -> None:
        """There may be more, of which no edge will tell."""
        self._unread = False
        self._reading_on = True
        self._service.reactor.soon(self._read_again)

    def _read_again(self) -> None:
        self._reading_on = False
        if self._alive() and self._service.reactor.handlers.get(self.fd) == self.on_readable:
            self.on_readable(READABLE)

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
            if (now := monotonic()) >= until:
                self.state = State.SENDING  # for the drain and the deadlines, which it is
                self.since = now
                self._park()
                self._service.reactor.soon(self._after)
                return False
        self._settled = session.settled
        self._fast = self._settled and self._unlimited
        if self._settled:
            if self._service.draining:
                self._finish()
                return False
            self.state = State.IDLE
            self.since = monotonic()
        elif answered or self.state is not State.HEAD:  # the deadline of one head is absolute
            self.state = State.HEAD
            self.since = monotonic()
        return True

    # -- sending

    def went(self, plan: Plan, sent: int) -> None:
        """So much of an answer went at the end of a turn; the rest, if any, is still to go."""
        if sent == plan.total:
            assert self._log is not None
            self._log.add(self._host, plan, plan.length)
        elif self._go_on(plan, sent):
            self._after()

    def _answer(self, plan: Plan) -> bool:
        """Send a plan.  True where all of it went at once."""
        tally = self._tally
        tally.requests += 1
        try:
            sent = self._first(plan)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.failed(error)
            return False
        except Truncated:
            self._cut_short()
            return False
        tally.sent += sent
        if sent == plan.total:
            if self._log is not None:
                self._log.add(self._host, plan, plan.length)
            return True
        return self._go_on(plan, sent)

    def _go_on(self, plan: Plan, sent: int) -> bool:
        """Send what follows the first `sent` bytes of a plan; as _pump."""
        self._tally.stalls += 1
        self.state = State.SENDING
        self.since = monotonic()
        self._outgoing = Outgoing(plan, sent, self.sock, self._service.transfer, self.on_turn)
        return self._pump()

    def _pump(self) -> bool:
        """Send until all has gone (True), or something has to be waited for."""
        outgoing = self._outgoing
        assert outgoing is not None
        before = outgoing.sent
        try:
            while outgoing.step():
                if outgoing.full:
                    self._await(POLLOUT, self.on_writable)
                    return False
                if outgoing.sent - before >= TURN:
                    self._give_way()
                    return False
        except BlockingIOError:
            self._await(POLLOUT, self.on_writable)
            return False
        except Pending:
            self._park()
            return False
        except Truncated:
            self._cut_short()
            return False
        except OSError as error:
            self.failed(error)
            return False
        finally:
            if outgoing.sent != before:
                self._tally.sent += outgoing.sent - before
                self.since = monotonic()
        self._end_outgoing()
        return True

    def on_writable(self, bits: int) -> None:
        if bits & READABLE:
            self._unread = True
        if self._pump():
            self._after()

    def on_parked(self, bits: int) -> None:
        """While the disk or the others have their turn."""
        if bits & READABLE:
            self._unread = True

    def on_turn(self) -> None:
        """The disk has answered, or the others had their turn."""
        if self._outgoing is not None and self._alive() and self._pump():
            self._after()

    def _after(self) -> None:
        """A plan that had to wait has gone: go on with what came meanwhile."""
        if not self._alive():
            return
        if self._session.ended:
            self._finish()
        elif self._serve():
            self._await(POLLIN, self.on_readable)
            if self._unread:
                self._read_on()

    def _end_outgoing(self) -> None:
        """Let go of what was under way, and log how much of it went."""
        outgoing, self._outgoing = self._outgoing, None
        if outgoing is not None:
            outgoing.close()
            if self._log is not None:
                self._log.add(self._host, outgoing.plan, outgoing.content)

    # -- waiting

    def _await(self, interest: int, handler: Handler) -> None:
        reactor = self._service.reactor
        if not self.registered:
            reactor.add(self.fd, interest, handler)
            self.registered = True
        elif self._edge:
            reactor.handlers[self.fd] = handler
        elif reactor.handlers[self.fd] != handler:
            reactor.switch(self.fd, interest, handler)

    def _park(self) -> None:
        """Wait for nothing of the socket's: a level-triggered poller would not stop telling."""
        reactor = self._service.reactor
        if self._edge:
            reactor.handlers[self.fd] = self.on_parked
        elif self.registered:
            reactor.remove(self.fd)
            self.registered = False

    def _give_way(self) -> None:
        """Go on after the others had their turn."""
        if self._edge:
            self._service.reactor.handlers[self.fd] = self.on_parked
            self._service.reactor.soon(self.on_turn)
        else:
            self._await(POLLOUT, self.on_writable)

    # -- ending

    def _finish(self) -> None:
        """The last answer has gone: close, at once where the client cannot be sending."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._service.drop(self, reset=True)
            return
        self.state = State.LINGER
        self.since = monotonic()
        lingering = Lingering(self._recv, self._session.orderly, partial(self._service.drop, self))
        self._await(POLLIN, lingering.on_readable)
        lingering.on_readable(POLLIN)

    def expire(self) -> None:
        """Its deadline has passed."""
        self._tally.timeouts += 1
        if self.state is State.HEAD and self._session.partial:
            if self._answer(self._session.timeout()):
                self._finish()
            return
        if self.state is State.SENDING:  # or the kernel would go on sending what it has
            self._cut()
        else:
            self._service.drop(self)

    def drain(self) -> None:
        """The server ends: answer what has come already, and close where nothing has."""
        if self.state in (State.HEAD, State.IDLE):
            self._fast = False  # there is no turn to answer in any more
            self.on_readable(POLLIN)
            if self.state is State.IDLE or (self.state is State.HEAD and self._settled):
                self._service.drop(self)

    def _cut_short(self) -> None:
        """The file ended too early: only the end of the connection can tell the client.

        By a reset: pages of the file that are still to be sent may be zeros by now.
        """
        self._tally.truncated += 1
        self._cut()

    def _cut(self) -> None:
        """Close by a reset, which leaves nothing to be sent."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._service.drop(self)

    def failed(self, error: OSError) -> None:
        """Reading the file or writing to the socket failed."""
        if error.errno not in GONE:
            self._service.complain(error)
        self._service.drop(self, reset=True)

    def close(self) -> None:
        self._end_outgoing()
        self.sock.close()
