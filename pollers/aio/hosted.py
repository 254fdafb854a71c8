"""What readers that tasks await have in common, whichever loop hosts them.

Facts
-----
*   Loops differ in how a task is woken, when it may be cancelled, and what runs at the end of a
    turn: pollers.aio.on_asyncio and on_trio have that, each for its own.
*   All of them know who waits for which read: asyncio by a future, trio by the task itself.

What does this mean for us?
---------------------------
*   A reader is entered once, asked for reads, and left; or it is *broken*, where completions
    cannot be had any more.  Either end is told to everyone who still waits.
*   An exception is raised in one task: each gets one of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import Generic, TypeVar

from pollers.aio.counters import DiskCounters
from pollers.aio.direct import ALIGNMENT
from pollers.aio.disk import DiskReader
from pollers.aio.whole import WholeRead

Waiter = TypeVar("Waiter")


class Hosted(ABC, Generic[Waiter]):
    """A DiskReader, and who awaits which of its reads.  The arguments are DiskReader's."""

    def __init__(
        self,
        depth: int = 64,
        block: int = 131072,
        *,
        alignment: int = ALIGNMENT,
        count_switches: bool = False,
    ) -> None:
        self._make = partial(
            DiskReader, depth, block, alignment=alignment, count_switches=count_switches
        )
        self._reader: DiskReader | None = None
        self._leaving = False
        self._awaited: dict[Waiter, WholeRead] = {}
        #: Why completions cannot be had any more: the kernel refuses io_getevents(2).
        self._broken: OSError | None = None

    @property
    def counters(self) -> DiskCounters:
        """What this reader did since it was made; reads from the page cache are not among it."""
        return self._open().counters

    @abstractmethod
    def _end(self, waiter: Waiter, error: Exception) -> None:
        """Raise `error` where `waiter` waits."""

    def _check_new(self) -> None:
        if self._reader is not None:
            raise ValueError("this disk reader was entered before; make another one")

    def _open(self) -> DiskReader:
        if self._reader is None:
            raise ValueError("this disk reader is not open: use it by `async with`")
        return self._reader

    def _usable(self) -> DiskReader:
        """The reader, for another read.  Raises ValueError, and OSError where it is broken."""
        reader = self._open()
        if self._leaving:
            raise ValueError("operation on a closed disk reader")
        if self._broken is not None:
            raise OSError(*self._broken.args)
        return reader

    def _leave(self) -> DiskReader:
        """From now on nothing is read.  The reader may have reads under way."""
        reader = self._open()
        self._leaving = True
        self._end_all(ValueError, "the disk reader was closed during this read")
        return reader

    def _tell(self, reader: DiskReader) -> bool:
        """Wake whose reads have completed.  False once the reader is broken."""
        try:
            reader.reap()
        except OSError as error:
            if error.errno is None:  # a signal handler's: the kernel's have a number
                raise
            self._broken = error
            self._end_all(OSError, *error.args)
            return False
        return True

    def _end_all(self, kind: type[Exception], *words: object) -> None:
        for waiter, whole in self._awaited.items():
            whole.cancel()
            self._end(waiter, kind(*words))
        self._awaited.clear()
