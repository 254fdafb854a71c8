"""A plan on its way to a socket that did not take all of it at once, on the reactor."""

from __future__ import annotations

import socket
from collections.abc import Callable

from pollers.system import MSG_MORE
from servers.file.parts import parts
from servers.file.plan import Plan
from servers.file.transfers.base import Mover, Transfer


class Outgoing:
    """What of a plan has gone, and what is still to go: bytes, a range that moves, other parts."""

    __slots__ = (
        *("_bytes", "_mover", "_parts", "_resume", "_sock", "_transfer"),
        *("full", "plan", "sent"),
    )

    def __init__(
        self,
        plan: Plan,
        sent: int,
        sock: socket.socket,
        transfer: Transfer,
        resume: Callable[[], None],
    ) -> None:
        """The first `sent` bytes have gone.  `resume` is called after Pending."""
        self.plan = plan
        self.sent = sent
        #: Whether the last step has filled the socket.
        self.full = False
        self._sock = sock
        self._transfer = transfer
        self._resume = resume
        self._parts = parts(plan, sent)
        self._bytes: memoryview | None = None
        self._mover: Mover | None = None
        if plan.file is not None:
            plan.file.take()

    @property
    def content(self) -> int:
        """How many bytes of content have gone."""
        return max(0, self.sent - (self.plan.total - self.plan.length))

    def step(self) -> bool:
        """Send something; False where nothing is left.

        Raises BlockingIOError where the socket is full, Pending, Truncated, and OSError.
        """
        if self._bytes is not None:
            sent = self._sock.send(self._bytes, MSG_MORE if self._parts else 0)
            self._bytes = self._bytes[sent:] if sent < len(self._bytes) else None
        elif self._mover is not None:
            sent = self._mover.move(self._sock)
            self.full = self._mover.full
            if not self._mover.left:
                self._mover.close()
                self._mover = None
        elif self._parts:
            self._begin()
            return True
        else:
            return False
        self.sent += sent
        return True

    def _begin(self) -> None:
        """Turn to the next part."""
        part = self._parts.pop(0)
        if isinstance(part, bytes):
            self._bytes = memoryview(part)
            return
        assert self.plan.file is not None
        last = not self._parts
        self._mover = self._transfer.mover(self.plan.file, *part, last, self._resume)

    def close(self) -> None:
        """Let go of the file, and of what moves it."""
        if self._mover is not None:
            self._mover.close()
            self._mover = None
        if self.plan.file is not None:
            self.plan.file.release()
