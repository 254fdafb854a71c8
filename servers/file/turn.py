"""The small answers of one turn of the reactor, sent together at its end (backend `copy`).

Facts
-----
*   A turn of a busy server brings many requests, and often for the same file.  It is read once for
    all who asked in this turn, after the last of their requests came in: nobody gets bytes that
    are older than the request.
*   send(2) over loopback, and to a client that sleeps, pays for waking it.  Sends that follow each
    other directly find it awake, and a loop of one step each stays in the CPU's cache.
*   Only one answer is in memory at a time, however many there are: they are read one by one.
*   A plan's file is held from the first request to the last send: a handler of the same turn may
    make the cache forget it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from servers.file.plan import Plan

if TYPE_CHECKING:
    from servers.file.reactor_connection import Connection
    from servers.file.service import FileTally


class Turn:
    """Who asked for what since the last `flush()`."""

    __slots__ = ("_asked", "_tally")

    def __init__(self, tally: FileTally) -> None:
        self._asked: dict[Plan, list[Connection]] = {}
        self._tally = tally

    def ask(self, plan: Plan, connection: Connection) -> None:
        """Answer `connection` at the end of the turn; it must not read further until then."""
        askers = self._asked.get(plan)
        if askers is not None:
            askers.append(connection)
            return
        self._asked[plan] = [connection]
        if plan.file is not None:
            plan.file.take()

    def flush(self) -> None:
        """Send everything; what a socket does not take is its connection's business."""
        if not self._asked:
            return
        asked, self._asked = self._asked, {}
        for plan, askers in asked.items():
            try:
                self._answer(plan, askers)
            finally:
                if plan.file is not None:
                    plan.file.release()

    def _answer(self, plan: Plan, askers: list[Connection]) -> None:
        tally, total = self._tally, plan.total
        tally.requests += len(askers)
        try:
            data = plan.head
            if plan.count:
                data += os.pread(plan.fd, plan.count, plan.offset)
        except OSError as error:
            for connection in askers:
                connection.failed(error)
            return
        for connection in askers:
            try:
                sent = connection.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                connection.failed(error)
                continue
            tally.sent += sent
            if sent != total or connection.logged:
                connection.went(plan, sent)
