"""Microseconds in Locust's statistics.

Importing locust patches the standard library for gevent, so each check runs in a process of its
own: this file, called with the name of a function.
"""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from typing import Any

import pytest


def rounding_keeps_three_digits_and_microseconds() -> None:
    from loadtest._stats import bucket_response_time, show

    for given, kept in [
        (0.0474, 0.047),
        (0.1234, 0.123),
        (1.2345, 1.23),
        (98.76, 98.8),
        (147.3, 147.0),
        (58_760.0, 58_800.0),
        (0.0001, 0.0),
    ]:
        assert bucket_response_time(given) == kept, (given, bucket_response_time(given))
    assert [show(x) for x in (0.0474, 1.234, 12.34, 1234.5)] == ["0.047", "1.23", "12.3", "1234"]


def a_merged_histogram_shows_everywhere() -> None:
    """In the entry, the total, the web UI's table, the CSV file and the console, as it was."""
    stats, _ = merged()
    for entry in (stats.entries[("64 B", "SWARM")], stats.total):
        assert entry.num_requests == 1003
        assert entry.num_failures == 3
        assert entry.get_response_time_percentile(0.5) == 0.05
        assert 0.0495 <= entry.avg_response_time <= 0.07
        assert (entry.min_response_time, entry.max_response_time) == (0.05, 2.0)
        assert entry.total_content_length == 64_000
        assert sum(entry.num_reqs_per_sec.values()) == 1003
        shown = entry.to_dict()
        assert (shown["min_response_time"], shown["max_response_time"]) == (0.05, 2.0)
        assert "0.050" in entry.to_string(current=False)
        assert "0.050" in entry.percentile()
    assert 0 < stats.total.total_rps <= 1003
    (error,) = stats.errors.values()
    assert (error.error, error.occurrences) == ("wrong bytes", 3)


def a_second_view_is_not_part_of_the_total() -> None:
    stats, again = merged()
    again("from intended send", in_total=False)
    assert stats.total.num_requests == 1003
    assert stats.entries[("from intended send", "SWARM")].num_requests == 1003


def the_csv_file_keeps_fractions() -> None:
    from locust.env import Environment
    from locust.stats import PERCENTILES_TO_REPORT, StatsCSV

    stats, _ = merged()
    environment = Environment()
    environment.stats = stats
    file = io.StringIO()
    StatsCSV(environment, PERCENTILES_TO_REPORT).requests_csv(csv.writer(file))
    rows = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert [row["50%"] for row in rows] == ["0.05", "0.05"]
    assert [row["100%"] for row in rows] == ["2.0", "2.0"]


def a_workers_report_reaches_the_master_as_it_was() -> None:
    """The way of a report: the worker's listener, msgpack, the master's listener."""
    from locust import stats as locust_stats
    from locust.env import Environment
    from locust.rpc.protocol import Message

    from loadtest._stats import MicrosecondEntry

    worker, _ = merged()
    there, here = Environment(), Environment()
    locust_stats.setup_distributed_stats_event_listeners(there.events, worker)
    locust_stats.setup_distributed_stats_event_listeners(here.events, here.stats)
    report: dict[str, Any] = {}
    there.events.report_to_master.fire(client_id="w", data=report)
    received = Message.unserialize(Message("stats", report, "w").serialize()).data
    for _ in range(2):
        here.events.worker_report.fire(client_id="w", data=received)
    assert worker.total.num_requests == 0
    assert isinstance(here.stats.total, MicrosecondEntry)
    for entry in (here.stats.entries[("64 B", "SWARM")], here.stats.total):
        assert entry.num_requests == 2006
        assert entry.get_response_time_percentile(0.5) == 0.05
    assert next(iter(here.stats.errors.values())).occurrences == 6


def merged() -> Any:
    """Statistics with 999 messages of 50 us, one of 2 ms, three errors; and how to add more."""
    from loadtest import _stats
    from loadtest._histogram import Histogram

    _stats.install()
    from locust.stats import RequestStats

    histogram = Histogram()
    histogram.record([50_000] * 999 + [2_000_000])
    stats = RequestStats()

    def add(name: str, in_total: bool = True) -> None:
        _stats.merge(
            stats,
            "SWARM",
            name,
            histogram,
            length=64,
            seconds=1.0,
            errors={"wrong bytes": 3},
            in_total=in_total,
        )

    add("64 B")
    return stats, add


CHECKS = [
    rounding_keeps_three_digits_and_microseconds,
    a_merged_histogram_shows_everywhere,
    a_second_view_is_not_part_of_the_total,
    the_csv_file_keeps_fractions,
    a_workers_report_reaches_the_master_as_it_was,
]


@pytest.mark.parametrize("name", [check.__name__ for check in CHECKS])
def test(name: str) -> None:
    words = [sys.executable, __file__, name]
    done = subprocess.run(words, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    globals()[sys.argv[1]]()
