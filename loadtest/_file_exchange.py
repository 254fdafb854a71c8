"""Requests out, files back: the hot path of a file swarm.

Facts about this loop
---------------------
*   A server that uses sendfile(2) copies nothing, so a client that copies and compares every byte
    would be slower than it.  Reads go into one buffer that is there already.
*   A small response comes in one read, and its length is known once one of the same file was
    parsed: then its length, the start of its status line and every byte of its body are compared,
    the last by memcmp against the block that the files are slices of (`bytes.startswith` with an
    offset), and nothing is parsed.
*   Of larger bodies (`WHOLE`) one in `SAMPLE` is read and compared entirely.  Of each other the
    first and last `EDGE` bytes are compared and all are counted; what is between is taken from
    the socket without being copied where the kernel can do that: recv(2) with MSG_TRUNC, which
    drops the bytes of a TCP stream since Linux 2.4 (tcp(7)).  It is tried on a connection of its
    own first, as a kernel without it would copy them.  How many bodies were compared entirely is
    part of the result.
*   Bytes beyond Content-Length, and any before a request, are wrong.
"""

from __future__ import annotations

import os
import socket
from time import monotonic_ns
from typing import Any, Final, Protocol, Self

from loadtest._block import CLOSED, EVENTS, GATHER, READ, WRONG, Block, Recorder
from loadtest._histogram import Histogram
from loadtest._response import END, HEAD, trouble
from loadtest._shelf import Shelf
from loadtest._site import File, Site
from pollers.base import POLLIN, Poller

#: Bodies up to this size are compared entirely, and of larger ones one in SAMPLE.
WHOLE: Final = 64 << 10
SAMPLE: Final = 8
#: Bytes at both ends of a body that are always compared.
EDGE: Final = 512
#: The most bytes dropped by one call.
DROP: Final = 4 << 20
OK: Final = b"HTTP/1.1 200 "
#: In `_at`: the head of a response is awaited.
AWAITED: Final = -1

EXCESS: Final = "bytes beyond Content-Length"
UNASKED: Final = "bytes before a request"


class FileRecorder(Recorder):
    """What was observed, by size of file as well."""

    def __init__(self, fds: int, labels: list[str]) -> None:
        super().__init__(fds)
        self.kinds = {label: Histogram() for label in labels}
        #: Bytes of whole bodies, and how many of these were compared entirely.
        self.bytes = 0
        self.compared = 0
        #: Pages looked at before their file was asked for, and how many were not in memory.
        self.probed = 0
        self.cold = 0

    def add(self, other: Self) -> None:
        super().add(other)
        for label, histogram in self.kinds.items():
            histogram.add(other.kinds[label])
        self.bytes += other.bytes
        self.compared += other.compared
        self.probed += other.probed
        self.cold += other.cold

    def as_dict(self) -> dict[str, Any]:
        return super().as_dict() | {
            "bytes": self.bytes,
            "compared": self.compared,
            "probed": self.probed,
            "cold": self.cold,
            "sizes": {
                label: histogram.to_json()
                for label, histogram in self.kinds.items()
                if histogram.total
            },
        }


class Besides(Protocol):
    """What is driven beside the active connections: slow readers."""

    def turn(self, errors: Any) -> float:
        """Do what is due, count what failed in `errors`; return the seconds until more is."""

    def close(self) -> None:
        """Close what is open."""


class FileExchange(Block):
    """One request in flight on each active connection, the next as soon as it is answered."""

    awaited = "whole response"

    def __init__(
        self,
        poller: Poller,
        sockets: list[socket.socket],
        active: list[int],
        site: Site,
        shelf: Shelf,
        *,
        besides: Besides | None = None,
        drops: bool = False,
    ) -> None:
        """`drops` says whether MSG_TRUNC works here, see `can_drop`."""
        self._site = site
        super().__init__(poller, sockets, active)
        self._shelf = shelf
        self._besides = besides
        self._drops = drops
        self._content = site.content
        self._buffer = bytearray(READ)
        self._view = memoryview(self._buffer)
        self._dropped = bytearray(DROP) if drops else b""  # stays untouched
        #: What each fd has asked for; None where nothing is under way.
        self._file: list[File | None] = [None] * self.fds
        #: How many bytes of the body have come, or AWAITED.
        self._at: list[int] = [AWAITED] * self.fds
        #: Whether every byte of this body is compared.
        self._entirely: list[bool] = [True] * self.fds
        self._heads: dict[int, bytes] = {}
        self._large = 0
        #: Bodies above WHOLE that were compared entirely since the last flush.
        self._compared = 0

    def recorder(self) -> FileRecorder:
        return FileRecorder(self.fds, [one.label for one in self._site.mix])

    def turn(self, timeout: float) -> None:
        if self._besides is not None:
            timeout = min(timeout, self._besides.turn(self._recorder.errors))
        if self._waiting:
            self._send_first()
            timeout = 0
        read, write, clock = os.readv, os.write, monotonic_ns
        files, ats, sent = self._file, self._at, self._sent
        take, give = self._shelf.take, self._shelf.give
        answered, content = self._answered.append, self._content
        buffer, view = self._buffer, self._view
        buffers = [view]
        for fd, bits in self.poller.poll(timeout, EVENTS):
            if bits != POLLIN:
                self._uncommon(fd, bits)
                continue
            file = files[fd]
            try:
                if file is None or ats[fd] != AWAITED:
                    self._receive(fd)
                    continue
                count = read(fd, buffers)
            except OSError as error:
                self._failed(fd, error)
                continue
            if (
                count != file.whole
                or not buffer.startswith(OK)
                or not content.startswith(view[count - file.size : count], file.offset)
            ):
                self._begin(fd, count)
                continue
            now = clock()
            file.latencies.append(now - sent[fd])
            answered(fd)
            if give:
                give(file)
            files[fd] = file = take()
            sent[fd] = clock() if give else now  # taking a cold one takes time
            try:
                count = write(fd, file.request)
            except OSError as error:
                self._failed(fd, error)
                count = 0
            if count != len(file.request):
                self._blocked(fd, file.request[count:])
        if len(self._answered) > GATHER:
            self.flush()

    def flush(self) -> None:
        recorder: Any = self._recorder
        for size, files in zip(self._site.mix, self._site.kinds, strict=True):
            latencies = files[0].latencies  # the same list for all of a size
            self._latencies += latencies
            recorder.kinds[size.label].record(latencies)
            recorder.bytes += len(latencies) * size.size
            recorder.compared += len(latencies) if size.size <= WHOLE else 0
            latencies.clear()
        recorder.compared += self._compared
        self._compared = 0
        super().flush()

    def collect(self) -> Recorder:
        recorder: Any = self._recorder
        shelf = self._shelf
        recorder.probed, recorder.cold = shelf.probed, shelf.cold
        shelf.probed = shelf.cold = 0
        return super().collect()

    def close(self) -> None:
        super().close()
        if self._besides is not None:
            self._besides.close()
        self._shelf.close()

    def _under_way(self, fd: int) -> bool:
        return self._file[fd] is not None

    def _send(self, fd: int, now: int) -> None:
        file = self._file[fd] = self._shelf.take()
        self._at[fd] = AWAITED
        self._sent[fd] = monotonic_ns() if self._shelf.give else now
        self._write(fd, file.request)

    def _receive(self, fd: int) -> None:
        file, at = self._file[fd], self._at[fd]
        if file is None or at == AWAITED:
            self._begin(fd, os.readv(fd, [self._view]))
            return
        left = file.size - at
        if self._drops and at >= EDGE and left > EDGE and not self._entirely[fd]:
            most = min(left - EDGE, DROP)
            count = self._sockets[fd].recv_into(self._dropped, most, socket.MSG_TRUNC)
            if count:
                self._at[fd] = at + count
                return
        else:
            count = os.readv(fd, [self._view])
        if count:
            self._body(fd, file, at, self._view[:count])
        else:
            self._lose(fd, CLOSED)

    def _begin(self, fd: int, count: int) -> None:
        """`count` bytes have come into the buffer, in which the head of a response begins."""
        file = self._file[fd]
        if not count:
            self._lose(fd, CLOSED)
            return
        if file is None:
            self._lose(fd, UNASKED)
            return
        kept = self._heads.pop(fd, b"")
        start = kept + bytes(self._view[: min(count, HEAD)])
        end = start.find(END)
        if end < 0:
            if len(start) >= HEAD:
                self._lose(fd, "a head without an end")
            else:
                self._heads[fd] = start
            return
        end += len(END)
        if why := trouble(start[:end], file.size):
            self._lose(fd, why)
            return
        if file.size <= WHOLE:
            file.whole = end + file.size
            self._entirely[fd] = True
        else:
            self._large += 1
            self._entirely[fd] = self._large % SAMPLE == 0
        self._body(fd, file, 0, self._view[end - len(kept) : count])

    def _body(self, fd: int, file: File, at: int, piece: memoryview) -> None:
        """The next piece of a body has come, perhaps an empty one."""
        content, count = self._content, len(piece)
        place, end = file.offset + at, at + count
        if end > file.size:
            self._lose(fd, EXCESS)
            return
        if self._entirely[fd]:
            right = content.startswith(piece, place)
        else:
            # What of the piece is within EDGE of either end, which may come in any pieces.
            first, last = max(0, EDGE - at), max(0, file.size - EDGE - at)
            right = content.startswith(piece[:first], place)
            right &= content.startswith(piece[last:], place + last)
        if not right:
            self._lose(fd, WRONG)
        elif end == file.size:
            self._complete(fd, file)
        else:
            self._at[fd] = end

    def _complete(self, fd: int, file: File) -> None:
        now = monotonic_ns()
        file.latencies.append(now - self._sent[fd])
        self._answered.append(fd)
        self._compared += file.size > WHOLE and self._entirely[fd]
        if self._shelf.give:
            self._shelf.give(file)
        self._send(fd, now)

    def _lose(self, fd: int, why: str) -> None:
        file, self._file[fd] = self._file[fd], None
        if file is not None and self._shelf.give:
            self._shelf.give(file)
        self._heads.pop(fd, None)
        super()._lose(fd, why)


def can_drop() -> bool:
    """Whether recv(2) with MSG_TRUNC takes bytes from a TCP stream without copying them."""
    into = bytearray(4)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname(), timeout=1.0) as ours,
        listener.accept()[0] as theirs,
    ):
        theirs.sendall(b"dropkept")
        count = ours.recv_into(into, 4, socket.MSG_TRUNC)
        return count == 4 and into == bytes(4) and ours.recv(4) == b"kept"
