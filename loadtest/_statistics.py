"""Ratios within rounds, their median and its interval.  Pure; numpy only.

How the numbers are made
------------------------
*   The unit is one fresh server process: one measurement of a cell in one round.  A row is
    compared with the baseline of the *same round* and load, as a ratio.  The result is the median
    of these ratios.
*   With six rounds or more the interval is the 95 % bootstrap percentile interval of that median.
    With fewer the bootstrap knows too little: then it is the smallest to the largest ratio, which
    holds the true median with a probability of 1 - 2 ** (1 - rounds): 75 % for three rounds, 94 %
    for five.
*   Three rounds can agree by chance.  So no interval is narrower than what all rows of the load
    together say about noise: two standard errors of a median (1.25 s / sqrt(rounds)), where s is
    the typical standard deviation, over rounds, of the logarithm of a row's ratio.
*   An interval that contains 1 means "no difference shown".  The smallest difference that a row
    could have shown is the distance from its median to the far end of its interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: From this many rounds on the bootstrap is used.
ENOUGH_FOR_BOOTSTRAP: Final = 6
RESAMPLES: Final = 10_000
CONFIDENCE: Final = 0.95


@dataclass(frozen=True)
class Ratio:
    """A row against the baseline; `low` <= `median` <= `high`."""

    median: float
    low: float
    high: float
    rounds: int

    @property
    def shown(self) -> bool:
        """Whether a difference was shown: the interval does not contain 1."""
        return self.rounds > 1 and not self.low <= 1.0 <= self.high

    @property
    def smallest(self) -> float | None:
        """The smallest relative difference these rounds could have shown: 0.02 is 2 %.

        None for a single round, which can show none.
        """
        if self.rounds < 2:
            return None
        return max(self.high / self.median, self.median / self.low) - 1.0

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "shown": self.shown, "smallest": self.smallest}


def compare(values: Sequence[float], baseline: Sequence[float], noise: float = 0.0) -> Ratio:
    """The ratio of two series whose elements belong to the same rounds; all are above 0.

    `noise` is the standard deviation of a log ratio, see `typical_noise`.
    """
    ratios = np.sort(np.asarray(values, dtype=np.float64) / np.asarray(baseline, np.float64))
    count = len(ratios)
    median = float(np.median(ratios))
    low, high = interval(ratios)
    floor = math.exp(2 * 1.25 * noise / math.sqrt(count))
    return Ratio(median, min(low, median / floor), max(high, median * floor), count)


def interval(ratios: Floats) -> tuple[float, float]:
    """The interval of the median of sorted `ratios`."""
    if len(ratios) < ENOUGH_FOR_BOOTSTRAP:
        return float(ratios[0]), float(ratios[-1])
    chance = np.random.default_rng(len(ratios))  # the same data give the same interval
    picks = chance.integers(0, len(ratios), size=(RESAMPLES, len(ratios)))
    medians = np.median(ratios[picks], axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(medians, (tail, 1 - tail))
    return float(low), float(high)


def coverage(rounds: int) -> float:
    """How surely the interval of so many rounds holds the true median."""
    return CONFIDENCE if rounds >= ENOUGH_FOR_BOOTSTRAP else 1 - 2.0 ** (1 - rounds)


def typical_noise(series: Sequence[Sequence[float]]) -> float:
    """The typical standard deviation of log ratios, one sequence of ratios a row.

    The median over rows of their variances, so that one wild row does not blur the others, divided
    by what the median of a chi-square variable is of its mean (Wilson and Hilferty).  0 where no
    row has two rounds.
    """
    logs = [np.log(np.asarray(ratios, np.float64)) for ratios in series if len(ratios) > 1]
    if not logs:
        return 0.0
    variance = float(np.median([np.var(log, ddof=1) for log in logs]))
    freedom = min(len(log) for log in logs) - 1
    return math.sqrt(variance / (1 - 2 / (9 * freedom)) ** 3)
