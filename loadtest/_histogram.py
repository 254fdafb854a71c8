"""Latencies in nanoseconds, counted in HdrHistogram's own buckets by numpy.

Facts about hdrhistogram (the Python package)
---------------------------------------------
*   `record_value` is pure Python and costs more than a send(2).  Here latencies are gathered in
    a list and counted some thousands at a time, at about 0.1 us each.
*   Its buckets are log-linear: 2,048 of width 1, then 1,024 of each further power of two, which
    holds three significant digits.  The index is arithmetic, so an array of counts made here is
    an HdrHistogram's array of counts: `to_hdr` copies it and `encode` is hdrhistogram's own.
*   Histograms of the same shape are merged by adding their counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

#: The unit of every value and of the encoded histograms.
UNIT: Final = "ns"
LOWEST: Final = 1
#: One hour.  Anything longer is counted as this.
HIGHEST: Final = 3_600_000_000_000
DIGITS: Final = 3

_HALF_MAGNITUDE: Final = 10
_HALF: Final = 1 << _HALF_MAGNITUDE  # half of the 2,048 sub-buckets that three digits take
_BUCKETS: Final = HIGHEST.bit_length() - _HALF_MAGNITUDE
LENGTH: Final = (_BUCKETS + 1) * _HALF

#: What is reported of each histogram.
PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)


def indices(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bucket of each value (1 ns to one hour)."""
    # frexp's exponent is the bit length, exactly, as the values are below 2**53.
    length = np.frexp((values | (2 * _HALF - 1)).astype(np.float64))[1].astype(np.int64)
    shift = length - (_HALF_MAGNITUDE + 1)
    found: NDArray[np.int64] = (shift << _HALF_MAGNITUDE) + (values >> shift)
    return found


def lowest_values() -> NDArray[np.int64]:
    """The lowest value of each bucket."""
    index = np.arange(LENGTH, dtype=np.int64)
    shift = np.maximum((index >> _HALF_MAGNITUDE) - 1, 0)
    lowest: NDArray[np.int64] = (index - (shift << _HALF_MAGNITUDE)) << shift
    return lowest


def widths() -> NDArray[np.int64]:
    """How many nanoseconds each bucket spans."""
    index = np.arange(LENGTH, dtype=np.int64)
    width: NDArray[np.int64] = np.int64(1) << np.maximum((index >> _HALF_MAGNITUDE) - 1, 0)
    return width


class Histogram:
    """Counts of latencies in nanoseconds, with their exact minimum, maximum and sum."""

    __slots__ = ("counts", "maximum", "minimum", "sum")

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(LENGTH, dtype=np.int64)
        self.minimum = HIGHEST
        self.maximum = 0
        self.sum = 0

    @property
    def total(self) -> int:
        """How many values were recorded."""
        return int(self.counts.sum())

    def record(self, values: Sequence[int]) -> None:
        """Count every one of `values` (nanoseconds; below 1 counts as 1)."""
        if not values:
            return
        array = np.clip(np.array(values, dtype=np.int64), LOWEST, HIGHEST)
        self.counts += np.bincount(indices(array), minlength=LENGTH)
        self.minimum = min(self.minimum, int(array.min()))
        self.maximum = max(self.maximum, int(array.max()))
        self.sum += int(array.sum())

    def add(self, other: Histogram) -> None:
        """Count everything that `other` has counted."""
        self.counts += other.counts
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        self.sum += other.sum

    def percentile(self, percent: float) -> int:
        """The highest value (ns) of the bucket that holds `percent` per cent; 0 where empty."""
        total = self.total
        if not total:
            return 0
        target = max(int(min(percent, 100.0) * total / 100 + 0.5), 1)
        index = int(np.searchsorted(np.cumsum(self.counts), target))
        shift = max((index >> _HALF_MAGNITUDE) - 1, 0)
        highest = ((index - (shift << _HALF_MAGNITUDE) + 1) << shift) - 1
        return min(highest, self.maximum)

    def to_json(self) -> dict[str, Any]:
        """The buckets that are not empty, for a JSON line between two processes."""
        (index,) = np.nonzero(self.counts)
        return {
            "index": index.tolist(),
            "count": self.counts[index].tolist(),
            "min": self.minimum,
            "max": self.maximum,
            "sum": self.sum,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Histogram:
        """What `to_json` gave."""
        made = cls()
        made.counts[data["index"]] = data["count"]
        made.minimum, made.maximum, made.sum = data["min"], data["max"], data["sum"]
        return made

    def to_hdr(self) -> HdrHistogram:
        """The same counts as an HdrHistogram (nanoseconds)."""
        hdr = HdrHistogram(LOWEST, HIGHEST, DIGITS)
        np.ctypeslib.as_array(hdr.counts)[:] = self.counts
        hdr.total_count = self.total
        if hdr.total_count:
            hdr.min_value, hdr.max_value = self.minimum, self.maximum
        return hdr

    def encode(self) -> str:
        """HdrHistogram's V2 compressed encoding in base64; values are nanoseconds."""
        encoded: bytes = self.to_hdr().encode()
        return encoded.decode("ascii")

    def summary(self) -> dict[str, Any]:
        """Percentiles, maximum and mean in microseconds, and the histogram itself."""
        total = self.total
        latencies: dict[str, Any] = {
            f"p{percent:g}": self.percentile(percent) / 1000 for percent in PERCENTILES
        }
        latencies["max"] = self.maximum / 1000
        latencies["mean"] = self.sum / total / 1000 if total else 0.0
        latencies["histogram"] = self.encode()
        latencies["histogram_unit"] = UNIT
        return latencies
