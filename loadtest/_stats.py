"""Microseconds in Locust's statistics.

Facts about Locust's statistics (2.47)
--------------------------------------
*   A response time is a number of milliseconds.  `stats.bucket_response_time` rounds it for the
    histogram, to whole ones below 100: over loopback every percentile becomes 0 or 1.  It is a
    documented hook; ours keeps three significant digits and nothing below a microsecond.
*   CSV files and the web UI's table round once more, by int() and proper_round(), and the console
    by %d.  So the entry class and the CSV column function are replaced as well; `stats` looks all
    of them up in its own namespace, after the locustfiles were imported.
*   A worker sends its entries, and `stats.total` by itself, every three seconds and resets them.
    What is merged into both before that reaches the master like everything else.
*   `StatsEntry.extend` merges an entry; it needs `start_time` and `last_request_timestamp` right,
    from which requests per second are computed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from locust import stats as locust_stats
from locust.stats import RequestStats, StatsCSV, StatsEntry, StatsError

from loadtest._histogram import Histogram, lowest_values, widths

_MIDDLES_MS = (lowest_values() + widths() // 2) / 1e6


def bucket_response_time(milliseconds: float) -> float:
    """Round to three significant digits, but not below one microsecond."""
    if milliseconds >= 100:
        return float(f"{milliseconds:.3g}")
    return round(milliseconds, 3 if milliseconds < 1 else 2 if milliseconds < 10 else 1)


def show(milliseconds: float) -> str:
    """A time for a narrow column: three digits that count."""
    if milliseconds >= 100:
        return f"{milliseconds:.0f}"
    return f"{milliseconds:.{3 if milliseconds < 1 else 2 if milliseconds < 10 else 1}f}"


class MicrosecondEntry(StatsEntry):
    """A StatsEntry whose tables show what its histogram holds."""

    def to_dict(self, escape_string_values: bool = False) -> dict[str, int | float | str]:
        shown = super().to_dict(escape_string_values)
        shown["min_response_time"] = round(self.min_response_time or 0, 3)
        shown["max_response_time"] = round(self.max_response_time, 3)
        return shown

    def to_string(self, current: bool = True) -> str:
        rate, failing = (
            (self.current_rps, self.current_fail_per_sec)
            if current
            else (self.total_rps, self.total_fail_per_sec)
        )
        width = locust_stats.STATS_NAME_WIDTH - locust_stats.STATS_TYPE_WIDTH + 4
        failed = f"{self.num_failures}({self.fail_ratio * 100:.2f}%)"
        average, least, most, median = (
            show(value or 0)
            for value in (
                self.avg_response_time,
                self.min_response_time,
                self.max_response_time,
                self.median_response_time,
            )
        )
        return (
            f"{self.method or '':<{locust_stats.STATS_TYPE_WIDTH}} {self.name:<{width}} "
            f"{self.num_requests:7d} {failed:>12} |{average:>7} {least:>7} {most:>7}{median:>7} "
            f"| {rate or 0:7.2f} {failing or 0:11.2f}"
        )

    def percentile(self) -> str:
        if not self.num_requests:
            raise ValueError("Can't calculate percentile on url with no successful requests")
        columns = " ".join(
            f"{show(self.get_response_time_percentile(share)):>6}"
            for share in locust_stats.PERCENTILES_TO_REPORT
        )
        return (
            f"{self.method or '':<{locust_stats.STATS_TYPE_WIDTH}} "
            f"{self.name:<{locust_stats.STATS_NAME_WIDTH}} {columns} {self.num_requests:8d}"
        )


def _percentile_fields(self: StatsCSV, entry: StatsEntry, use_current: bool = False) -> list[Any]:
    """StatsCSV's, without int()."""
    if not entry.num_requests:
        return list(self.percentiles_na)
    if use_current and entry.use_response_times_cache:
        read: Any = entry.get_current_response_time_percentile
    else:
        read = entry.get_response_time_percentile
    return [read(share) or 0 for share in self.percentiles_to_report]


def install() -> None:
    """Make this process's Locust keep microseconds.  To be called before a runner is made."""
    replacements = {
        "bucket_response_time": bucket_response_time,
        "StatsEntry": MicrosecondEntry,
    }
    for name, ours in replacements.items():
        setattr(locust_stats, name, ours)
    setattr(StatsCSV, "_percentile_fields", _percentile_fields)  # noqa: B010


def response_times(histogram: Histogram) -> dict[float, int]:
    """A histogram in the shape of `StatsEntry.response_times`: {rounded ms: count}."""
    times: dict[float, int] = {}
    (indices,) = np.nonzero(histogram.counts)
    for middle, count in zip(
        _MIDDLES_MS[indices].tolist(), histogram.counts[indices].tolist(), strict=True
    ):
        key = bucket_response_time(middle)
        times[key] = times.get(key, 0) + count
    return times


def merge(
    stats: RequestStats,
    method: str,
    name: str,
    histogram: Histogram,
    *,
    length: int,
    seconds: float,
    errors: Mapping[str, int],
    in_total: bool = True,
) -> None:
    """Add a histogram, which was filled during the last `seconds`, to Locust's statistics.

    `length` is the size of each reply in bytes, `errors` counts failed messages by their reason.
    With `in_total` False it shows as an entry but is not part of the total, for a second view of
    messages that are counted already.
    """
    now = time.time()
    answered, failed = histogram.total, sum(errors.values())
    if answered + failed == 0:
        return
    entry: Any = locust_stats.StatsEntry(stats, name, method)
    middle = int(now - seconds / 2)
    entry.start_time = now - seconds
    entry.last_request_timestamp = now
    entry.num_requests = answered + failed
    entry.num_none_requests = entry.num_failures = failed
    entry.num_reqs_per_sec[middle] = answered + failed
    if failed:
        entry.num_fail_per_sec[middle] = failed
    if answered:
        entry.total_response_time = histogram.sum / 1e6
        entry.min_response_time = histogram.minimum / 1e6
        entry.max_response_time = histogram.maximum / 1e6
        entry.total_content_length = answered * length
        entry.response_times.update(response_times(histogram))
    stats.entries[(name, method)].extend(entry)
    if in_total:
        stats.total.extend(entry)
    for reason, count in errors.items():
        _count_error(stats, method, name, reason, count)


def _count_error(stats: RequestStats, method: str, name: str, reason: str, count: int) -> None:
    key = StatsError.create_key(method, name, reason)
    error = stats.errors.setdefault(key, StatsError(method, name, reason))
    error.occurred()  # sets first_seen and last_seen
    error.occurrences += count - 1
