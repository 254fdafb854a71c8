"""Slow readers: connections that take a large file a few bytes at a time.

What this file is
-----------------
A server's memory, its pipes and its fairness show when peers do not read.  Each slow reader has a
small receive buffer (SO_RCVBUF, set before it connects, as the window follows from it), asks for
the largest file and reads at a fixed rate, then asks again.  Every byte is compared.  They are no
part of the throughput or the latencies; what goes wrong on them counts as an error, and so does a
server that gives one nothing for a whole `patience`.
"""

from __future__ import annotations

import heapq
import os
import socket
import time
from collections import Counter
from dataclasses import dataclass
from typing import Final

from loadtest._block import CLOSED, WRONG
from loadtest._response import END, HEAD, trouble
from loadtest._site import File, Site

#: Bytes asked of the kernel for a receive buffer; Linux doubles it.
BUFFER: Final = 4096
#: Seconds between two reads of one connection.
PACE: Final = 0.1
#: The start of what an error of theirs is called.
WHO: Final = "slow reader: "


@dataclass(slots=True)
class Reader:
    """One slow connection."""

    sock: socket.socket
    #: Bytes of the body so far; None before its head is whole.
    at: int | None
    head: bytes
    #: When it last got something (time.monotonic()).
    since: float


class SlowReaders:
    """Drives slow connections; every one has its request sent by the first turn."""

    def __init__(
        self, sockets: list[socket.socket], site: Site, rate: float, patience: float
    ) -> None:
        """`rate` is bytes a second of each; the sockets are not registered with a poller."""
        self._file: File = site.largest
        self._content = site.content
        self._piece = max(1, int(rate * PACE))
        self._patience = patience
        self._readers = {sock.fileno(): Reader(sock, None, b"", 0.0) for sock in sockets}
        now = time.monotonic()
        # Spread over the pace, so that they do not come in waves.
        self._due = [
            (now + PACE * number / len(sockets), fd) for number, fd in enumerate(self._readers)
        ]
        self._new = set(self._readers)
        #: Whole files that they have read.
        self.files = 0

    @property
    def open(self) -> int:
        return len(self._readers)

    def turn(self, errors: Counter[str]) -> float:
        """Read what is due; return the seconds until more is."""
        now = time.monotonic()
        due = self._due
        while due and due[0][0] <= now:
            when, fd = due[0]
            reader = self._readers[fd]
            try:
                why = self._advance(fd, reader, now)
            except BlockingIOError:
                why = ""
            except OSError as error:
                why = error.strerror or str(error)
            if not why and now - reader.since > self._patience:
                why = f"no byte within {self._patience:g} s"
            if why:
                errors[WHO + why] += 1
                heapq.heappop(due)
                self._readers.pop(fd).sock.close()
            else:
                heapq.heapreplace(due, (max(when + PACE, now), fd))
        return max(0.0, due[0][0] - now) if due else PACE

    def close(self) -> None:
        """Close every connection by RST."""
        for reader in self._readers.values():
            reader.sock.close()
        self._readers.clear()
        self._due.clear()

    def _advance(self, fd: int, reader: Reader, now: float) -> str:
        """Read once; what is wrong with it, or "".  Raises OSError."""
        if fd in self._new:
            self._new.discard(fd)
            reader.since = now
            os.write(fd, self._file.request)
            return ""
        file = self._file
        # Never into the next response: it comes only when this one has ended.
        data = os.read(fd, self._piece if reader.at is None else min(self._piece, file.size))
        if not data:
            return CLOSED
        reader.since = now
        if reader.at is None:
            reader.head += data
            end = reader.head.find(END) + len(END)
            if end < len(END):
                return "a head without an end" if len(reader.head) > HEAD else ""
            if why := trouble(reader.head[:end], file.size):
                return why
            data, reader.head, reader.at = reader.head[end:], b"", 0
        place = reader.at
        if place + len(data) > file.size or not self._content.startswith(
            data, file.offset + place
        ):
            return WRONG
        reader.at = place + len(data)
        if reader.at == file.size:
            self.files += 1
            reader.at = None
            os.write(fd, file.request)
        return ""
