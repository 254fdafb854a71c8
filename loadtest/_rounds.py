"""What a cell is, and in which order cells are measured.  Pure.

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
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

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


RowT = TypeVar("RowT", bound=Row, covariant=True)
LoadT = TypeVar("LoadT", bound=Load, covariant=True)


@dataclass(frozen=True)
class Cell(Generic[RowT, LoadT]):
    """One row under one load."""

    row: RowT
    load: LoadT

    @property
    def key(self) -> str:
        return f"{self.row.key}@{self.load.key}"

    def as_dict(self) -> dict[str, Any]:
        """What results.json keeps of it."""
        return {
            "key": self.key,
            "row": self.row.key,
            "label": self.row.label,
            "load": self.load.key,
            "workload": self.load.workload,
            "title": self.load.title,
            **self.facts(),
        }

    def facts(self) -> dict[str, Any]:
        """What only the cells of its workload have."""
        return {}


#: A cell of any workload.
AnyCell: TypeAlias = Cell[Row, Load]


def order(cells: Sequence[T], round_number: int, seed: int) -> list[T]:
    """The order of round `round_number` (from 0); the same for the same arguments."""
    pair, second = divmod(round_number, 2)
    shuffled = list(cells)
    random.Random(f"{seed}/{pair}").shuffle(shuffled)
    return shuffled[::-1] if second else shuffled
