"""In which order cells are measured.  Pure.

What this file is
-----------------
A machine drifts: it warms up, another tenant arrives, the page cache fills.  In every round each
cell is measured once, in an order that a seed decides, and every second round is the one before it
backwards.  So a steady drift gives each cell of such a pair the same mean position, and a ratio
taken within a round meets as little of the drift as the round is long.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Named(Protocol):
    """A row or a load, for people."""

    @property
    def key(self) -> str: ...


class Row(Named, Protocol):
    @property
    def label(self) -> str: ...


class Load(Named, Protocol):
    @property
    def title(self) -> str: ...
    @property
    def workload(self) -> str: ...


class AnyCell(Protocol):
    """A cell of any workload: all that scheduling and showing need of it."""

    @property
    def key(self) -> str: ...
    @property
    def row(self) -> Row: ...
    @property
    def load(self) -> Load: ...


def order(cells: Sequence[T], round_number: int, seed: int) -> list[T]:
    """The order of round `round_number` (from 0); the same for the same arguments."""
    pair, second = divmod(round_number, 2)
    shuffled = list(cells)
    random.Random(f"{seed}/{pair}").shuffle(shuffled)
    return shuffled[::-1] if second else shuffled
