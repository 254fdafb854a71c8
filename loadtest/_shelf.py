"""Which file is asked for next; a cold one is evicted just before.

What this file is
-----------------
A hot shelf goes round.  A cold shelf lends: a file that is under way to one connection is not
given to another, and comes back to the end of its queue when the response is whole.  It is evicted
when it is taken again, as late as possible: by then nothing refers to its pages any more, and the
server has long ended whatever it read ahead.  Every `PROBE`-th is then looked at by mincore(2):
how many of its pages were really gone is part of the result.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from loadtest._pagecache import PAGE, evict, resident
from loadtest._site import File, Site, turns

#: One eviction in so many is checked.
PROBE: Final = 16


class Shelf(Protocol):
    """Gives files to ask for."""

    #: Called with a file whose response has ended; None where nobody wants to know.
    give: Callable[[File], None] | None
    #: Pages looked at after an eviction, and how many of them were gone.
    probed: int
    cold: int

    def take(self) -> File:
        """The next file."""

    def close(self) -> None:
        """Let go of what is open."""


class HotShelf:
    """The files of each size in turn, sizes by their weight."""

    give: Callable[[File], None] | None = None
    probed = cold = 0

    def __init__(self, site: Site, seed: int) -> None:
        rounds = [itertools.cycle(files) for files in site.kinds]
        # Drawn at once: one next() of a cycle is all that a request costs then.
        order = turns(site.mix, seed)
        span = len(order) * max(len(files) for files in site.kinds)
        limit = min(span, 1 << 16)
        kinds = itertools.islice(itertools.cycle(order), limit)
        self.take: Callable[[], File] = itertools.cycle(
            [next(rounds[kind]) for kind in kinds]
        ).__next__

    def close(self) -> None:
        pass


class ColdShelf:
    """Each file to one connection at a time, out of the page cache when it is taken."""

    def __init__(self, site: Site, seed: int, root: Path) -> None:
        """Raises OSError where a file cannot be opened."""
        self.give: Callable[[File], None] | None = self._give
        self.probed = 0
        self.cold = 0
        lent = site.largest  # to slow readers, which would keep its pages
        self._queues = [deque(file for file in kind if file is not lent) for kind in site.kinds]
        self._kinds = itertools.cycle(turns(site.mix, seed))
        self._fds: dict[File, int] = {}
        self._taken = 0
        try:
            for file in site.files:
                self._fds[file] = os.open(root / file.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.close()
            raise

    def take(self) -> File:
        """The next file, evicted.  There are more files than connections to ask for them."""
        for kind in self._kinds:
            if self._queues[kind]:
                break
        file = self._queues[kind].popleft()
        fd = self._fds[file]
        evict(fd)
        if self._taken % PROBE == 0:
            pages = -(-file.size // PAGE)
            self.probed += pages
            self.cold += pages - resident(fd, file.size)
        self._taken += 1
        return file

    def _give(self, file: File) -> None:
        self._queues[file.kind].append(file)

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.popitem()[1])
