"""Backend `sendfile`: sendfile(2), from the page cache to the socket without user memory.

Facts
-----
*   Linux has no headers argument: the head goes first, with MSG_MORE, so that it shares a segment
    with the body.  FreeBSD sends both in one call (sendfile(2), struct sf_hdtr).
*   Linux moves at most 0x7ffff000 bytes a call; a count of 0 means nothing there and "to the end
    of the file" on FreeBSD: it is never given.
*   On a socket that is full after some bytes FreeBSD returns EAGAIN *and* a count; os.sendfile
    turns that into the count.
*   The pages are sent, not a copy: a file that is rewritten in place while it is being sent
    delivers its new bytes, and one that was truncated ends with a return of 0.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from pollers.system import MSG_MORE, SENDFILE_TAKES_HEADERS, sendfile_with_head
from servers.file.cache import OpenFile
from servers.file.plan import Plan
from servers.file.transfers.base import CHUNK, Range, Sender, Truncated


class SendfileTransfer:
    """The backend; see Transfer."""

    name = "sendfile"

    def sender(self, sock: socket.socket) -> Sender:
        fd, send, sendfile = sock.fileno(), sock.send, os.sendfile

        def first(plan: Plan) -> int:
            count, head = plan.count, plan.head
            if not count:
                return send(head)
            sent = send(head, MSG_MORE)
            if sent == len(head):
                try:
                    sent += sendfile(fd, plan.fd, plan.offset, min(count, CHUNK))
                except BlockingIOError:
                    return sent
            return sent

        def first_at_once(plan: Plan) -> int:
            count, head = plan.count, plan.head
            if not count:
                return send(head)
            return sendfile_with_head(fd, plan.fd, plan.offset, min(count, CHUNK), head)

        return first_at_once if SENDFILE_TAKES_HEADERS else first

    def mover(
        self, file: OpenFile, offset: int, count: int, last: bool, resume: Callable[[], None]
    ) -> SendfileMover:
        return SendfileMover(file, offset, count, last, CHUNK)

    def close(self) -> None:
        """It holds nothing."""


class SendfileMover(Range):
    """See Mover.

    Nothing is read for nothing here, so that it always offers all it may.  And it never knows that
    the socket is full before it is told: it moves fewer bytes than asked for before the end of the
    file too, and before a page that cannot be read.
    """

    __slots__ = ()

    def move(self, sock: socket.socket) -> int:
        count = os.sendfile(sock.fileno(), self.file.fd, self.offset, min(self.left, CHUNK))
        if not count:
            raise Truncated
        self.offset += count
        self.left -= count
        return count
