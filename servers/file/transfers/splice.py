"""Backend `splice`: splice(2), page cache -> pipe -> socket (Linux 2.6.17).

Facts
-----
*   It moves references to pages, as sendfile(2) does, which is itself a splice through a pipe of
    the kernel's.  Doing it by hand costs one call more.
*   One pipe serves all connections: what the socket did not take is thrown away (by a splice to
    /dev/null) and read again later, so that the pipe is empty between two calls.  A pipe that held
    bytes for every slow reader would take two fds of each.
*   EAGAIN can only mean that the socket is full, as the pipe is not: SPLICE_F_NONBLOCK concerns
    the pipe, and the socket is non-blocking by itself.
*   SPLICE_F_MORE is MSG_MORE: it is given for all but an answer's last bytes.
*   A pipe holds 64 KiB; F_SETPIPE_SZ raises it to 1 MiB without privilege (pipe-max-size).
*   A page that is cut off the file while it is in the pipe arrives as zeros, unseen: the file's
    size is looked at between the two splices.  (What is in the socket by then can still turn to
    zeros, as with sendfile(2).)
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from pollers.system import MSG_MORE, SPLICE_F_MORE, SPLICE_F_NONBLOCK, splice
from servers.file.cache import OpenFile
from servers.file.plan import Plan
from servers.file.transfers.base import CHUNK, Range, Sender, Truncated, size
from servers.pipes import Pipe


class SpliceTransfer:
    """The backend; see Transfer.  Raises OSError at EMFILE."""

    name = "splice"

    def __init__(self) -> None:
        self._pipe = Pipe()
        self.room = self._pipe.resize(CHUNK)
        try:
            self._null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            self._pipe.close()
            raise

    def sender(self, sock: socket.socket) -> Sender:
        fd, send, through = sock.fileno(), sock.send, self.through

        def first(plan: Plan) -> int:
            count, head = plan.count, plan.head
            if not count:
                return send(head)
            sent = send(head, MSG_MORE)
            if sent == len(head):
                sent += through(fd, plan.fd, plan.offset, count, count, not plan.rest)[1]
            return sent

        return first

    def through(
        self, to_fd: int, from_fd: int, offset: int, count: int, left: int, last: bool
    ) -> tuple[int, int]:
        """Move up to `count` of `left` bytes through the pipe.

        Returns how many were inside it, and how many of them the socket took (0: it was full).
        Raises Truncated and OSError.
        """
        pipe = self._pipe
        count = min(count, self.room)
        inside = splice(from_fd, pipe.write_fd, count, offset_src=offset, flags=SPLICE_F_NONBLOCK)
        if not inside:
            raise Truncated
        if size(from_fd) < offset + inside:
            self._empty(inside)
            raise Truncated
        more = 0 if last and inside == left else SPLICE_F_MORE
        sent = 0
        try:
            while sent != inside:  # a signal cuts it short too: only EAGAIN says that it is full
                sent += splice(pipe.read_fd, to_fd, inside - sent, flags=SPLICE_F_NONBLOCK | more)
        except BlockingIOError:
            pass
        except OSError:
            self._empty(inside - sent)
            raise
        if sent != inside:
            self._empty(inside - sent)
        return inside, sent

    def _empty(self, count: int) -> None:
        while count:
            count -= splice(self._pipe.read_fd, self._null, count)

    def mover(
        self, file: OpenFile, offset: int, count: int, last: bool, resume: Callable[[], None]
    ) -> SpliceMover:
        return SpliceMover(file, offset, count, last, self)

    def close(self) -> None:
        self._pipe.close()
        os.close(self._null)


class SpliceMover(Range):
    """See Mover."""

    __slots__ = ("_transfer",)

    def __init__(
        self, file: OpenFile, offset: int, count: int, last: bool, transfer: SpliceTransfer
    ) -> None:
        super().__init__(file, offset, count, last, transfer.room)
        self._transfer = transfer

    def move(self, sock: socket.socket) -> int:
        inside, sent = self._transfer.through(
            sock.fileno(), self.file.fd, self.offset, self.offer(), self.left, self.last
        )
        self.went(inside, sent)
        if not sent:
            raise BlockingIOError
        return sent
