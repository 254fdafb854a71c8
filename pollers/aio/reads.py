"""One direct read: what was asked for (a ticket), and what came of it (a block)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

from pollers.aio.direct import DirectFile

#: The slot of a block that has no buffer.
NO_SLOT: Final = -1

#: How often in a row io_submit(2) may answer EAGAIN while nothing is under way, which is a want of
#: memory (or somebody who injects errors); then the read fails with it.
PATIENCE: Final = 100


class Owner(Protocol):
    """Whose buffers blocks hold."""

    #: Takes a buffer back, and is no function of Python, so that no signal handler raises in it.
    give_back: Callable[[int], None]

    def before_giving_back(self) -> None: ...


class Block:
    """What came of one read.  Its buffer is the receiver's until `release()`."""

    __slots__ = ("_owner", "error", "slot", "view")

    def __init__(self, owner: Owner, slot: int, view: memoryview, error: OSError | None) -> None:
        self._owner: Owner | None = owner
        #: For the owner: which buffer.
        self.slot = slot
        #: The bytes asked for; fewer at the end of the file, none beyond it or after an error.
        #: As with pread(2), whoever expected more than a short answer asks for the rest.
        self.view = view
        self.error = error

    def release(self) -> None:
        """Give the buffer back.  `view` cannot be read any more.

        Slices of it and arrays over it still can, and would show another read's bytes: they must
        be gone.  Raises ValueError the second time, and BufferError where `view` itself is in use
        by a call that has not returned; the buffer then stays the caller's.  It may be repeated
        where a signal handler raised in it.
        """
        owner = self._owner
        if owner is None:
            raise ValueError("this block was released before")
        self.view.release()
        if self.slot != NO_SLOT:
            owner.before_giving_back()
            self._owner = None
            owner.give_back(self.slot)
        self._owner = None


Done: TypeAlias = Callable[[Block], None]


class Ticket:
    """One read, from `submit()` until `done` is called; its holder may only cancel it."""

    __slots__ = ("count", "done", "file", "offset")

    def __init__(self, file: DirectFile, offset: int, count: int, done: Done) -> None:
        self.file = file
        self.offset = offset
        self.count = count
        #: None once it was called or is not to be called.
        self.done: Done | None = done

    def error(self, number: int) -> OSError:
        what = f"direct read of {self.count} bytes at {self.offset}"
        return OSError(number, f"{what}: {os.strerror(number)}")
