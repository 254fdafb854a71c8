"""Backend `copy`: pread(2) into user memory, send(2) from it.

Facts
-----
*   It copies each byte twice, and that is cheap where it is in the CPU's cache: for small files
    one send(2) of head and body together costs less than the extra call of sendfile(2).
*   One buffer serves all connections, as nothing stays in it between two calls (base.py).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Final

from servers.file.cache import OpenFile
from servers.file.plan import Plan
from servers.file.transfers.base import COPIED, Range, Sender, Truncated

#: Up to this many bytes a body is read into a `bytes` of its own and joined to the head.
JOINED: Final = 32 * 1024
#: Room in front of the buffer for a head.
HEAD: Final = 4096


class CopyTransfer:
    """The backend; see Transfer."""

    name = "copy"

    def __init__(self) -> None:
        self._memory = memoryview(bytearray(HEAD + COPIED))
        self._body = self._memory[HEAD:]

    def sender(self, sock: socket.socket) -> Sender:
        send, pread, large = sock.send, os.pread, self._large

        def first(plan: Plan) -> int:
            count = plan.count
            if count <= JOINED:
                if not count:
                    return send(plan.head)
                return send(plan.head + pread(plan.fd, count, plan.offset))
            return send(large(plan))

        return first

    def _large(self, plan: Plan) -> memoryview | bytes:
        """The head, and as much behind it as the buffer takes."""
        head = len(plan.head)
        if head > HEAD:
            return plan.head
        start = HEAD - head
        self._memory[start:HEAD] = plan.head
        read = os.preadv(plan.fd, [self._body[: min(plan.count, COPIED)]], plan.offset)
        return self._memory[start : HEAD + read]

    def mover(
        self, file: OpenFile, offset: int, count: int, last: bool, resume: Callable[[], None]
    ) -> CopyMover:
        return CopyMover(file, offset, count, last, self._body)

    def close(self) -> None:
        """It holds only memory."""


class CopyMover(Range):
    """See Mover."""

    __slots__ = ("_buffer",)

    def __init__(
        self, file: OpenFile, offset: int, count: int, last: bool, buffer: memoryview
    ) -> None:
        super().__init__(file, offset, count, last, COPIED)
        self._buffer = buffer

    def move(self, sock: socket.socket) -> int:
        read = os.preadv(self.file.fd, [self._buffer[: self.offer()]], self.offset)
        if not read:
            raise Truncated
        return self.went(read, sock.send(self._buffer[:read]))
