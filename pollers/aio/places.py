"""Which aligned reads bring what is wanted, for pollers.aio.bulk.

A direct read begins at a multiple of the file's alignment and is a multiple of it long: each is
rounded outwards, and what is wanted begins at its *head*.  Everything here is plain data.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pollers.aio.prepared import Integers


class Places(NamedTuple):
    """What is to be read: arrays of equal length."""

    starts: Integers
    lengths: Integers
    #: Where in a read the bytes that are wanted begin.
    heads: Integers
    #: How many bytes are wanted of each.
    wanted: int
    #: Whether every head is 0 and every length what is wanted.
    plain: bool


def places(offsets: ArrayLike, wanted: int, unit: int, largest: int) -> Places:
    """Those of `wanted` bytes at each of `offsets`, of a file that asks for multiples of `unit`.

    `largest` is the most bytes that a read may have, for offsets so far out that it would not fit.
    Raises ValueError for these, and for negative ones.
    """
    wants = np.array(offsets, np.int64).reshape(-1)
    if len(wants) and not 0 <= wants.min() <= wants.max() < (1 << 63) - largest:
        raise ValueError("offsets must be from 0 to about 2**63")
    heads = wants % unit
    lengths = -(-(heads + wanted) // unit) * unit
    plain = not heads.any() and wanted % unit == 0
    return Places(wants - heads, lengths, heads, wanted, plain)
