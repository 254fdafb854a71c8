"""Echo on the reactor, backend `batch`: one io_submit of all receives and one of all sends.

    poll -> arrays of fds and bits -> receive all -> send all -> once more, while that pays
         -> what is left goes the plain way

Facts
-----
*   What Python costs a message is what it does *for each* message.  Here that is a share of about
    twenty numpy operations, which take some 30 us by themselves, however many messages there
    are: a batch is worth it from a few (`FEWEST`) on, and for hundreds it is below 1 us each.
    While there are fewer at once, an event is handled as the backend `copy` does it.
*   A poll() in which something is to be done for one fd in particular (an end of file, an error,
    a hang-up, a peer that does not take its bytes, the listener) is split: the others stay in the
    batch, and these go the *plain* way, which is the backend `copy`'s.
*   Which fds go in batches stands in an array over all fds: a connection leaves it when it stalls,
    and comes back when its peer has taken everything.
*   A busy peer answers at once, so that batches can stay as small as thirty: the price of a turn
    counts.  numpy's min(), all() and any() take 2.5 us from Python; argmin(), argmax() and
    comparing bytes take 0.6 and answer the same questions.
*   Those who were just answered are asked once more before the next poll, as long as that pays:
    see servers.echo.encores.
*   After hundreds of messages the kernel's TCP has left nothing of ours in the caches: each numpy
    call then costs 5 to 20 us instead of 1.  So of the bytes received only their sum is
    kept, and per connection the number of the batch that brought some, for the idle timeout.
*   Level-triggered epoll polls every socket of a batch once more in the next epoll_wait, only to
    find it empty; with thousands of busy connections that is a tenth of all CPU (measured).
    Where edges are to be had they are asked for, with POLLRDHUP and POLLPRI: while the bits are
    POLLIN and nothing else, no end of file and no urgent mark is in the socket, so that a receive
    which did not fill its place has emptied it (epoll(7)).  Whatever comes later is a new edge.
    In all other cases the connection reads on by itself, once a turn, until EAGAIN.
*   A message longer than `CHUNK` is echoed in several turns.
*   No bytes stay in the batch's buffers between turns, so that their number is that of a batch
    and not of the connections.  What a peer did not take is copied, CHUNK at most.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Final

import numpy as np

from pollers.aio.sockets import Integers, SocketBatch, Submitter
from pollers.arrays import from_events, poll_arrays
from pollers.base import POLLIN, POLLPRI, POLLRDHUP, Capability, Events, Poller
from servers.echo.encores import COHORT, Encores
from servers.echo.reactor_copy import CopyConnection
from servers.listen import CHUNK as LARGEST

if TYPE_CHECKING:
    from servers.echo.on_reactor import Connection, EchoService

#: The most that one place receives, bytes.
CHUNK: Final = 16384
#: The most places of a batch, whatever --max-events says.  Between 128 and 1024 no difference was
#: to be measured; this bounds the memory.
MOST: Final = 1024
#: Fewer events than this go the plain way.
FEWEST: Final = 12

#: What tells of no fault of the connection: it is still readable or writable, and comes again.
AGAIN: Final = frozenset({errno.EAGAIN, errno.EINTR})


class Batches:
    """The batches of one reactor, and what they have to know of each fd."""

    def __init__(self, poller: Poller, max_events: int) -> None:
        # The aio poller's context takes the transfers too, and arms its polls with them.
        submitter = poller if isinstance(poller, Submitter) else None
        self._batch = SocketBatch(min(max_events, MOST), CHUNK, submitter)
        self._poll, self._poll_arrays = poller.poll, poll_arrays(poller)
        #: Whether the last poll() brought few events: the next one is asked for a list.
        self._few = True
        # libkqueue's edges do not tell of an end of file that comes with the last bytes.
        self.edge = bool(poller.capabilities & Capability.EDGE) and not poller.emulated
        self.interest = POLLIN | POLLPRI | POLLRDHUP if self.edge else POLLIN
        self._connections: dict[int, BatchConnection] = {}
        #: fd -> the bits with which it goes in batches (0: with none), and the last batch in which
        #: something came.  The last place is nobody's.
        self._wanted = np.zeros(1024, np.int64)
        self._latest = np.zeros(1024, np.int64)
        self._received = 0
        #: Messages (one receive and its send) that went in batches; batches that were polled for.
        self.messages = 0
        self.batches = 0
        self.encores = Encores()

    def poll(self, timeout: float | None, max_events: int) -> Events:
        """Poll, handle what goes in batches, and return the other events."""
        if self._few:
            events = self._poll(timeout, max_events)
            self._few = len(events) < FEWEST
            if self._few:
                return events
            fds, bits = from_events(events)
        else:
            fds, bits = self._poll_arrays(timeout, max_events)
            self._few = len(fds) < FEWEST
            if not len(fds):
                return []
        # An fd beyond the arrays is no connection (the listener's may be anything): it reads the
        # last place, which is 0.
        wanted = self._wanted.take(fds, mode="clip")
        events = []
        if wanted.tobytes() != bits.tobytes():
            batched = wanted == bits
            plain = ~batched
            events = list(zip(fds[plain].tolist(), bits[plain].tolist(), strict=True))
            fds = fds[batched]
        self._in_batches(fds)
        return events

    def connection(self, sock: socket.socket, service: EchoService) -> BatchConnection:
        """The connection for an accepted, non-blocking socket."""
        return BatchConnection(sock, service, self)

    def add(self, connection: BatchConnection) -> None:
        """Let its messages go in batches from now on."""
        self._connections[connection.fd] = connection
        self._wanted[connection.fd] = POLLIN

    def remove(self, fd: int) -> None:
        """Forget it: it is about to be closed."""
        self._wanted[fd] = 0
        self._connections.pop(fd, None)

    def switch(self, fd: int, batched: bool) -> None:
        """Whether the messages of `fd` go in batches or the plain way."""
        self._wanted[fd] = POLLIN if batched else 0

    def make_room(self, fd: int) -> None:
        """See to it that the arrays have a place for `fd`."""
        more = fd + 2 - len(self._wanted)
        if more > 0:
            more = max(more, len(self._wanted))
            self._wanted = np.concatenate((self._wanted, np.zeros(more, np.int64)))
            self._latest = np.concatenate((self._latest, np.zeros(more, np.int64)))

    def progress(self, connection: Connection) -> int:
        """What is another number whenever something came, in a batch or the plain way."""
        return connection.received + int(self._latest[connection.fd])

    def take_received(self) -> int:
        """The bytes that came in batches since the last call, which no connection counts."""
        count, self._received = self._received, 0
        return count

    def counters(self) -> dict[str, float | None]:
        """For the counters line."""
        return {
            "batches": self.batches,
            "batched": self.messages,
            "encores": self.encores.tried,
            "encored": self.encores.found,
        }

    def close(self) -> None:
        self._batch.close()

    def _in_batches(self, fds: Integers) -> None:
        """Handle those of a poll, each cohort twice where an encore is due."""
        encore = self.encores.due()
        size = min(COHORT, self._batch.size) if encore else self._batch.size
        tried = found = 0
        for start in range(0, len(fds), size):
            # What the aio poller arms before it was received from would fire for nothing.
            last = start + size >= len(fds)
            answered = self._echo(fds[start : start + size], arm=last and not encore)
            if encore and len(answered) >= FEWEST:
                tried += len(answered)
                found += len(self._echo(answered, told=False, arm=last))
        if tried:
            self.encores.tell(tried, found)

    def _echo(self, fds: Integers, *, told: bool = True, arm: bool = True) -> Integers:
        """One batch: receive from all, send to all from whom something came.

        `told`: the poller has told of them; else they may well have nothing.  `arm`: see
        SocketBatch.send.  Returns those that were answered and took all of it.
        """
        batch, places = self._batch, None
        self.batches += told
        lengths = batch.receive(fds)
        if lengths[lengths.argmin()] <= 0:
            nothing = lengths <= 0
            if not told:
                nothing &= lengths != -errno.EAGAIN
            for place in np.flatnonzero(nothing).tolist():
                self._connections[int(fds[place])].on_nothing(-int(lengths[place]))
            places = np.flatnonzero(lengths > 0)
            fds, lengths = fds[places], lengths[places]
            if not len(places):
                return fds
        self.messages += len(fds)
        self._received += int(lengths.sum())
        if told:  # else it stands there
            self._latest[fds] = self.batches
        sent = batch.send(fds, lengths, places, arm=arm)
        # What an encore leaves came after the poll, or is read on already.
        if told and self.edge and lengths[lengths.argmax()] == CHUNK:
            for fd in fds[lengths == CHUNK].tolist():
                self._connections[fd].read_on()
        if sent.tobytes() == lengths.tobytes():
            return fds
        short = sent != lengths
        for index in np.flatnonzero(short).tolist():
            place = index if places is None else int(places[index])
            count, result = int(lengths[index]), int(sent[index])
            rest = batch.take_out(place, max(0, result), count)
            self._connections[int(fds[index])].on_short(rest, max(0, -result))
        whole: Integers = fds[~short]
        return whole


class BatchConnection(CopyConnection):
    """One echo connection: what it does by itself, when it is not in a batch."""

    __slots__ = ("_batches",)

    def __init__(self, sock: socket.socket, service: EchoService, batches: Batches) -> None:
        self._batches = batches
        batches.make_room(sock.fileno())
        super().__init__(sock, service)
        batches.add(self)

    def on_readable(self, bits: int) -> None:
        before = self.received
        super().on_readable(bits)
        came = self.received - before
        if self._batches.edge and (came == LARGEST or (came and bits != POLLIN)):
            self.read_on()

    def read_on(self) -> None:
        """There may be more, of which no edge will tell."""
        self._service.reactor.soon(self._again)

    def _again(self) -> None:
        # Not if it was dropped meanwhile, nor if it stalled: then `_resume` asks the kernel anew.
        if self._service.reactor.handlers.get(self.fd) == self.on_readable:
            self.on_readable(0)

    def on_nothing(self, number: int) -> None:
        """The receive in the batch brought the end of file (0) or this errno."""
        if not number:
            self._service.drop(self)
        elif number not in AGAIN:
            self._service.drop(self, reset=True)
        elif self._batches.edge:
            self.read_on()  # perhaps it was not io_submit's turn, and there is something

    def on_short(self, rest: bytes, number: int) -> None:
        """The send in the batch left `rest`, because of this errno (0: the peer is full)."""
        if number and number not in AGAIN:
            self._service.drop(self, reset=True)
        else:
            self._stall(rest)

    def _stall(self, rest: bytes) -> None:
        self._batches.switch(self.fd, False)
        super()._stall(rest)

    def _resume(self) -> None:
        super()._resume()
        self._batches.switch(self.fd, True)

    def close(self) -> None:
        self._batches.remove(self.fd)
        super().close()
