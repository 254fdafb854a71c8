"""Signals and files: whoever makes files to measure with takes them away again."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """While nobody else takes it, SIGTERM is a KeyboardInterrupt, as SIGINT is.

    For the main thread only.
    """

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


@contextmanager
def scratch(where: Path | None) -> Iterator[Path]:
    """A directory below `where` (None: the usual place), which is gone in the end.

    SIGINT and SIGTERM are ignored while it is taken away: the impatient press Ctrl-C twice.  For
    the main thread only.
    """
    made = tempfile.TemporaryDirectory(prefix="pollmark-", dir=where)
    try:
        yield Path(made.name)
    finally:
        numbers = (signal.SIGINT, signal.SIGTERM)
        former = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
        try:
            made.cleanup()
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)
