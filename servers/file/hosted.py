"""The file service on a loop that is not ours: asyncio's, uvloop, trio.

Facts
-----
*   None of them promises an order to what became ready in one turn: trio shuffles its tasks, and a
    level-triggered epoll tells first of whom it had told before.  So the news of a file that was
    replaced can come behind a request that was sent after it.  Whoever answers looks first
    whether there are any (`news`): one poll(2) a read, about a microsecond.
"""

from __future__ import annotations

import select
from collections.abc import Callable

from pollers.base import POLLIN
from servers.file.options import FileOptions
from servers.file.service import Service


class HostedService(Service):
    """What Service lacks on these loops.  Raises CannotServe."""

    def __init__(self, options: FileOptions) -> None:
        super().__init__(options)
        #: Given 0: something where the watcher has reported what nobody has read.
        self.news: Callable[[int], object] = _no_news
        if self.changes is not None:
            poll = select.poll()
            poll.register(self.changes.fileno(), POLLIN)
            self.news = poll.poll


def _no_news(timeout: int) -> object:
    return None
