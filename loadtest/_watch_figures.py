"""The figures of one measurement: what matching has found, and the time and CPU of each phase.

Pure, but for the histograms' arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from loadtest._histogram import Histogram
from loadtest._watch_match import Matched

#: The phases in which the watcher alone works begin so.
BACKLOG: Final = "backlog"
#: The same of files that were not written before.
FRESH: Final = "fresh"
#: Memory and descriptors are given for so many files.
PER_FILES: Final = 10_000


def figures(matched: Matched, work: Mapping[str, Mapping[str, Any]], files: int) -> dict[str, Any]:
    """{"phases": by name, "kinds": by kind of operation, "wrong_names": examples}.

    `work` is what _watch_measure.py noted of each phase.
    """
    return {
        "phases": {name: _phase(matched, name, one) for name, one in work.items()},
        "kinds": {kind: count.as_dict() for kind, count in matched.kinds.items()},
        "wrong_names": [f"{one.what} {one.path}" for one in matched.examples],
    }


def _phase(matched: Matched, name: str, work: Mapping[str, Any]) -> dict[str, Any]:
    count = matched.phases[name]
    histogram = Histogram()
    histogram.record(count.latencies)
    begin, end = matched.spans.get(name, (0, 0))
    known = count.told + count.coalesced
    before, after = work["before"], work["after"]
    user, system = (after[key] - before[key] for key in ("user_cpu", "system_cpu"))
    seconds = (end - begin) / 1e9
    resumed = work["writer"].get("resumed")
    taking = (end - resumed) / 1e9 if resumed else 0.0
    return {
        **count.as_dict(),
        "operations": work["writer"]["operations"],
        "reports": matched.reports[name],
        "duplicated": matched.duplicated[name],
        "allowed": matched.allowed[name],
        "wrong_name": matched.wrong_name[name],
        "out_of_order": matched.out_of_order[name],
        #: Whether the end was reported in time; if not, whether other reports still came.
        "ended": work["ended"],
        "telling": work["telling"],
        #: From the first operation to the last report.
        "seconds": seconds,
        "told_per_second": known / seconds if seconds else 0.0,
        #: Of a backlog, from when the watcher went on.
        "taken_per_second": known / taking if taking > 0 else None,
        "written_per_second": work["writer"]["operations"] / work["writer"]["seconds"],
        "cpu_us": (user + system) * 1e6 / known if known else None,
        "user_cpu_us": user * 1e6 / known if known else None,
        "cpu_share": (user + system) / seconds if seconds else 0.0,
        "writer_share": work["writer"]["cpu_share"],
        "switches": after["switches"] - before["switches"],
        "latency": histogram.summary(),
    }
