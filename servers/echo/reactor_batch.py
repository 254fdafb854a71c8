"""Echo on the reactor, backend `batch`: one io_submit of all receives and one of all sends a turn.

    poll -> arrays of fds and bits -> receive all -> send all -> what is left goes the plain way

Facts
-----
*   What Python costs a message is what it does *for each* message.  Here that is a share of about
    twenty numpy operations, which take some 30 us however many messages there are: a batch is
    worth it from a few (`FEWEST`) on, and for hundreds it is some 0.1 us each.
*   A poll() in which something is to be done for one fd in particular (an end of file, an error,
    a hang-up, a peer that does not take its bytes, the listener) is split: the others stay in the
    batch, and these go the *plain* way, which is the backend `copy`'s.
*   Which fds go in batches is one byte each, in an array over all fds: a connection leaves it
    when it stalls, and comes back when its peer has taken everything.
*   Received bytes are counted in an array too; a connection's `received` reads and writes there.
*   A message longer than `CHUNK` is echoed in several turns: readiness is level-triggered.
*   No bytes stay in the batch's buffers between turns, so that their number is that of a batch
    and not of the connections.  What a peer did not take is copied, CHUNK at most.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from pollers.aio.sockets import SocketBatch
from pollers.arrays import poll_arrays
from pollers.base import POLLIN, POLLOUT, Events, Poller

if TYPE_CHECKING:
    from servers.echo.on_reactor import EchoService

#: The most that one place receives, bytes.
CHUNK: Final = 16384
#: The most places of a batch: beyond them, what was received leaves the cache before it is sent.
MOST: Final = 1024
#: Fewer events than this go the plain way.
FEWEST: Final = 8

Integers = NDArray[np.int64]


class Batches:
    """The batches of one reactor, and what they have to know of each fd."""

    def __init__(self, poller: Poller, max_events: int) -> None:
        self._batch = SocketBatch(min(max_events, MOST), CHUNK)
        self._poll = poll_arrays(poller)
        self._connections: dict[int, BatchConnection] = {}
        #: fd -> whether it goes in batches, and the bytes received from it.
        self._batched = np.zeros(1024, np.bool_)
        self.received = np.zeros(1024, np.int64)
        #: Messages (one receive and its send) that went in batches, and batches.
        self.messages = 0
        self.batches = 0

    def poll(self, timeout: float | None, max_events: int) -> Events:
        """Poll, handle what goes in batches, and return the other events."""
        fds, bits = self._poll(timeout, max_events)
        if len(fds) < FEWEST:
            return list(zip(fds.tolist(), bits.tolist(), strict=True))
        if fds.max() >= len(self._batched):
            self._make_room(int(fds.max()))
        batched = self._batched[fds] & (bits == POLLIN)
        events: Events = []
        if not batched.all():
            plain = ~batched
            events = list(zip(fds[plain].tolist(), bits[plain].tolist(), strict=True))
            fds = fds[batched]
        size = self._batch.size
        for start in range(0, len(fds), size):
            self._echo(fds[start : start + size])
        return events

    def add(self, connection: BatchConnection) -> None:
        fd = connection.fd
        if fd >= len(self._batched):
            self._make_room(fd)
        self._connections[fd] = connection
        self._batched[fd] = True
        self.received[fd] = 0

    def remove(self, fd: int) -> None:
        del self._connections[fd]
        self._batched[fd] = False

    def plain(self, fd: int) -> None:
        """`fd` goes the plain way until further notice."""
        self._batched[fd] = False

    def batched(self, fd: int) -> None:
        self._batched[fd] = True

    def close(self) -> None:
        self._batch.close()

    def _echo(self, fds: Integers) -> None:
        batch = self._batch
        self.batches += 1
        lengths = batch.receive(fds)
        if lengths.min() > 0:
            self.messages += len(fds)
            self.received[fds] += lengths
            sent = batch.send(fds, lengths)
            if (sent != lengths).any():
                self._unsent(np.flatnonzero(sent != lengths), fds, lengths, sent)
            return
        for place in np.flatnonzero(lengths <= 0).tolist():
            self._connections[int(fds[place])].on_nothing(int(lengths[place]))
        places = np.flatnonzero(lengths > 0)
        if not len(places):
            return
        fds, lengths = fds[places], lengths[places]
        self.messages += len(fds)
        self.received[fds] += lengths
        sent = batch.send_from(places, fds, lengths)
        for index in np.flatnonzero(sent != lengths).tolist():
            self._stall(int(places[index]), int(fds[index]), int(lengths[index]), int(sent[index]))

    def _make_room(self, fd: int) -> None:
        more = max(fd + 1, 2 * len(self._batched)) - len(self._batched)
        self._batched = np.concatenate((self._batched, np.zeros(more, np.bool_)))
        self.received = np.concatenate((self.received, np.zeros(more, np.int64)))
