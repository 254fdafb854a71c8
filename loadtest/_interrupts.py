"""SIGTERM as KeyboardInterrupt: whoever makes files before it measures takes them away again."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


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
