"""Whether the bytes that were read are those of the file: a wrong read is no fast read.

What this file is
-----------------
*   Each read's first eight bytes are compared with what its block has, and of a read of several
    blocks the last block's too (_disk_file.py says what they have).
*   Of one read in `SAMPLE` the digest of all bytes is taken, and compared when measuring is over,
    as what it ought to be takes a millisecond to compute.
*   Reads in bulk are compared by whole arrays, and a single one by its bytes, which is faster than
    arrays of one (pollers.aio.single says by how much).
"""

from __future__ import annotations

import os
import zlib
from typing import Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from loadtest._disk_file import BLOCK, MARK, digest, marks

Integers = NDArray[np.int64]

#: One read in so many has all its bytes compared, up to so many reads.
SAMPLE: Final = 256
SAMPLES: Final = 16
#: Bytes of a block's number.
WORD: Final = 8


class Failed(Exception):
    """There are no figures; `str()` says why, in one line."""


class WrongBytes(Failed):
    """A read brought other bytes than the file has, or fewer."""


class Check:
    """Compares reads of `block` bytes at `offsets` with the file of `seed`."""

    def __init__(self, offsets: Integers, block: int, seed: int) -> None:
        self.offsets, self.block, self.seed = offsets, block, seed
        self._last = block - BLOCK
        self._marks = marks(offsets // BLOCK)
        self._offset_items = offsets.data  # for one item each
        #: (offset, CRC-32) of reads that are compared as a whole.
        self.samples: list[tuple[int, int]] = []
        self._seen = 0
        self._next_sample = 1

    # -- a read by itself

    def read(self, offset: int, data: bytes | memoryview) -> None:
        """`data` came from `offset`.  Raises WrongBytes."""
        block = self.block
        if len(data) != block:
            raise WrongBytes(f"{len(data)} of {block} bytes came at {offset}")
        if int.from_bytes(data[:WORD], "little") != offset // BLOCK + MARK:
            raise WrongBytes(_other(offset, data[:WORD]))
        if self._last:
            place, last = offset + self._last, data[self._last : self._last + WORD]
            if int.from_bytes(last, "little") != place // BLOCK + MARK:
                raise WrongBytes(_other(place, last))
        self._seen += 1
        if self._seen >= self._next_sample:
            self._sample(offset, data)

    def failed(self, offset: int, number: int) -> NoReturn:
        """The read at `offset` ended with this errno."""
        raise WrongBytes(f"the read at {offset} failed: {os.strerror(number)}")

    # -- reads of a BulkReader

    def look_at(self, rows: NDArray[np.uint8]) -> None:
        """`batch` will be told of these rows."""
        self._rows = rows
        starts = (0, self._last) if self._last else (0,)
        #: (which block of a read, the numbers that the rows hold there)
        self._numbers = [
            (start // BLOCK, rows[:, start : start + WORD].view(np.uint64)[:, 0])
            for start in starts
        ]

    def batch(self, indices: Integers, slots: Integers, results: Integers) -> None:
        """Any batch but an empty one.  Raises WrongBytes."""
        if (results != self.block).any():
            self._short(indices, results)
        expected = self._marks[indices]
        for block, numbers in self._numbers:
            if (numbers[slots] != expected + np.uint64(block)).any():
                self._differs(indices, slots)
        self._seen += len(indices)
        if self._seen >= self._next_sample:
            row = self._rows[slots.item(0), : self.block]
            self._sample(self._offset_items[indices.item(0)], row.data)

    # -- afterwards

    def finish(self) -> None:
        """Compare the digests.  Raises WrongBytes."""
        for offset, found in self.samples:
            if found != digest(self.seed, offset, self.block):
                raise WrongBytes(
                    f"the {self.block} bytes read at {offset} are not those of the file"
                )

    def _sample(self, offset: int, data: bytes | memoryview) -> None:
        self._next_sample = self._seen + SAMPLE
        if len(self.samples) < SAMPLES:
            self.samples.append((offset, zlib.crc32(data)))

    def _short(self, indices: Integers, results: Integers) -> NoReturn:
        one = int(np.flatnonzero(results != self.block)[0])
        offset, result = self._offset_items[int(indices[one])], int(results[one])
        if result < 0:
            self.failed(offset, -result)
        raise WrongBytes(f"{result} of {self.block} bytes came at {offset}")

    def _differs(self, indices: Integers, slots: Integers) -> NoReturn:
        offsets = self.offsets[indices]
        for offset, slot in zip(offsets.tolist(), slots.tolist(), strict=True):
            for block, numbers in self._numbers:
                place = offset + block * BLOCK
                if int(numbers[slot]) != place // BLOCK + MARK:
                    raise WrongBytes(_other(place, numbers[slot].tobytes()))
        raise AssertionError("no block differs")


def _other(offset: int, found: bytes | memoryview) -> str:
    number = int.from_bytes(found, "little") - MARK
    what = f"block {number}" if 0 <= number < 1 << 40 else "other bytes"
    return f"block {offset // BLOCK} was asked for, and {what} came"
