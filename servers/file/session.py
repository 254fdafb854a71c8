"""One connection's side of HTTP: bytes in, plans out, whatever loop moves them.

Rules
-----
1.  Plans come in the order of their requests, one when it is asked for: who has not sent the last
    one yet does not ask, does not read, and so bounds what a connection can hold.
2.  After a plan with `close` there is no other, and whatever still comes is discarded.
3.  A body is never taken for a request: it is skipped where it is short and of known length,
    else the answer is the connection's last.
4.  A request whose head is bad is answered once, and is the last one.
"""

from __future__ import annotations

from typing import Final

from servers.file.plan import Plan
from servers.file.site import Site
from servers.http.framing import HeadBuffer
from servers.http.request import BadRequest, Limits, Request, parse

#: `quota` of a connection that may ask as often as it likes.
UNLIMITED: Final = 1 << 62


class Session:
    """The requests of one connection."""

    __slots__ = ("_heads", "_limits", "_site", "ended", "orderly", "quota")

    def __init__(self, site: Site, limits: Limits, max_requests: int) -> None:
        """`max_requests` of 0 stands for any number."""
        self._site = site
        self._limits = limits
        self._heads = HeadBuffer(limits)
        #: How many requests may still be answered.
        self.quota = max_requests or UNLIMITED
        #: Whether the last plan was given.
        self.ended = False
        #: Whether the client, once it has the last answer, has nothing left to send.
        self.orderly = True

    @property
    def partial(self) -> bool:
        """Whether a request has begun to arrive and is not whole."""
        return self._heads.partial

    @property
    def settled(self) -> bool:
        """Whether nothing is buffered and no body is being skipped: the next read is a head's."""
        return self._heads.empty

    def feed(self, data: bytes) -> None:
        """Take what was read."""
        if not self.ended:
            self._heads.feed(data)

    def next_plan(self) -> Plan | None:
        """The answer to the next whole request; None where there is none yet."""
        if self.ended:
            return None
        head = None
        try:
            head = self._heads.next_head()
            if head is None:
                return None
            plan = self._site.recall(head) if self.quota > 1 else None
            if plan is None:
                plan = self._decide(head, parse(head, self._limits))
        except BadRequest as bad:
            silent = head is not None and head.startswith(b"HEAD ")
            plan = self._site.refuse(bad.status, silent=silent)
            self.orderly = False
        self.quota -= 1
        self.ended = plan.close
        return plan

    def timeout(self) -> Plan:
        """The answer (408) to a head that did not end in time."""
        self.ended = True
        self.orderly = False
        return self._site.refuse(408)

    def _decide(self, head: bytes, request: Request) -> Plan:
        drained = 0 <= request.body <= self._limits.body_bytes
        # Who waits for 100 (Continue) may or may not send the body after another answer.
        close = not drained or not request.keep_alive or self.quota <= 1
        close = close or (request.continues and request.body != 0)
        plan = self._site.answer(head, request, close)
        if request.body:
            if plan.close:
                self.orderly = False
            else:
                self._heads.skip(request.body)
        return plan
