"""Whether to go round a batch of connections once more, right after they were answered.

Facts
-----
*   What TCP keeps for a connection is some kilobytes.  That of a hundred stays in a core's caches
    from one message to the next, that of a thousand does not: *measured*, a message costs 10 us
    with 100 or 300 busy connections, and 14 with 1,000.  (Cohorts of 128, 192 and 256, and two
    encores instead of one, made no difference that 36 interleaved rounds could show.)
*   A peer that has nothing better to do answers within a millisecond.  To receive from all of a
    batch without asking whether they are ready costs less than to ask: what has nothing says
    EAGAIN, within the one io_submit(2).
*   Where the first receive has emptied a socket, what an encore finds has come since the poll, and
    is an edge that was not told yet: whatever it leaves, an end of file or an urgent mark behind
    the bytes, the next poll tells of.  Where it has not, the connection reads on by itself.
*   Nobody is served more than twice by batches in a turn.  Half of the messages are answered
    early, and those that wait for other connections' encores late: with 1,000 busy connections the
    mean falls with the cost of a message, and the longest waits are 1.5 to 1.8 times as long.

What does this mean for us?
---------------------------
*   A poll's events are handled by cohorts, and each is asked for an *encore*.
*   Peers that take their time, or that have a queue of their own, have nothing yet.  Where fewer
    than half of a poll's have something the next poll goes without, then two, then four, up to
    `LONGEST_PAUSE`; and batches are as large as polls meanwhile, which costs Python less.
"""

from __future__ import annotations

from typing import Final

#: The most connections that are gone round twice together.
COHORT: Final = 128
#: The most polls without encores, while they do not pay: to try costs some 100 us a cohort, and a
#: poll of a loaded server takes some milliseconds.
LONGEST_PAUSE: Final = 8


class Encores:
    """Counts them, and says when the next one is due."""

    def __init__(self) -> None:
        #: Receives that were tried without being told of, and how many of them brought a message
        #: that was answered whole.
        self.tried = 0
        self.found = 0
        #: How many polls go without one at present, and how many of these are left.
        self._pause = self._left = 0

    def due(self) -> bool:
        """Whether a poll's events shall have one; asked once a poll."""
        if not self._left:
            return True
        self._left -= 1
        return False

    def tell(self, tried: int, found: int) -> None:
        """It was made: so many connections were asked, and so many of them were answered whole."""
        self.tried += tried
        self.found += found
        if 2 * found >= tried:
            self._pause = 0
        else:
            self._pause = self._left = min(2 * self._pause or 1, LONGEST_PAUSE)
