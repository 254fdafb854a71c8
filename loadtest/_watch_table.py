"""The tables of `compare --workload watch`, as words: alike on the terminal and in the report.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from loadtest._table import number
from loadtest._verdict import ratio
from loadtest._watch_held import FACILITIES
from loadtest._watch_rows import BASELINE, CONTROL
from loadtest._watch_words import milliseconds

Row = Mapping[str, Any]

SPEED: Final = (
    "",
    "takes in\nchanges/s",
    "x inotify\n[low, high]",
    "sustained\nchanges/s",
    "x inotify\n[low, high]",
    "limit",
    "p50 / p99 / max\nms",
    "p50 x inotify\n[low, high]",
    "at 80 %:\np50 ms",
    "CPU us\n/change",
    "burst: all\nknown, s",
)
HELD: Final = ("", "KiB", "fds", "watches", "set-up\nms", "holds")
TRUTH: Final = (
    "",
    "facts",
    "told",
    "coalesced",
    "lost",
    "left\nwrong",
    "as other\nkind",
    "rename\nin halves",
    "twice",
    "wrong\nname",
    "out of\norder",
    "burst:\nlost",
    "over-\nflows",
)


def speed(row: Row) -> list[str]:
    """What belongs under SPEED."""
    lost = row["phases"].get("burst", {}).get("lost")  # then not all is ever known
    return [
        row["label"],
        number(row["taken"], 0),
        "1 (baseline)" if row["key"] == BASELINE else ratio(row["rate"]),
        number(row["sustained"], 0),
        "1" if row["key"] == BASELINE else ratio(row["sustaining"]),
        row["limit"] or "-",
        " / ".join(milliseconds(row[name]) for name in ("p50", "p99", "max")),
        "1" if row["key"] == BASELINE else ratio(row["latency"]),
        milliseconds(row["held_p50"]),
        number(row["cpu"], 1),
        "-" if lost else number(row["burst_seconds"], 2),
    ]


def held(row: Row) -> list[str]:
    """What belongs under HELD."""
    holds = row["holds"]
    return [
        row["label"],
        number(row["rss"], 0),
        number(row["fds"], 0),
        number(row["watches"], 0),
        number(row["setup_seconds"], 0, 1000),
        ", ".join(f"{holds[name]} {name}" for name in FACILITIES if holds.get(name)) or "-",
    ]


def truth(row: Row) -> list[str]:
    """What belongs under TRUTH: the journal's counts of all rounds."""
    journal, burst = row["phases"].get("journal"), row["phases"].get("burst")
    if journal is None:
        return [row["label"], *["-"] * (len(TRUTH) - 1)]
    names = ("facts", "told", "coalesced", "lost", "wrong", "misnamed", "halves")
    reports = ("duplicated", "wrong_name", "out_of_order")
    return [
        row["label"],
        *(f"{journal[name]:,}" for name in (*names, *reports)),
        "-" if burst is None else f"{burst['lost']:,}",
        f"{row['overflows']:,}",
    ]


#: Title, headings and line of each table.
TABLES: Final[Sequence[tuple[str, Sequence[str], Callable[[Row], list[str]]]]] = (
    ("How fast (medians of rounds)", SPEED, speed),
    ("What watching 10,000 files takes (medians of rounds)", HELD, held),
    ("What became of every change (all rounds)", TRUTH, truth),
)


def ordered(load: Mapping[str, Any]) -> list[Row]:
    """The rows with figures: baseline, control, then by what they take in."""
    place = {BASELINE: 0, CONTROL: 1}
    rows = [one for one in load["rows"] if one["status"] in ("ok", "emulated")]
    return sorted(rows, key=lambda one: (place.get(one["key"], 2), -(one["taken"] or 0)))


def look(row: Row) -> str:
    """How a row is shown: baseline, unranked, better, worse or same."""
    if row["key"] == BASELINE:
        return "baseline"
    if row["status"] != "ok":
        return "unranked"
    rate = row["rate"]
    if row["key"] == CONTROL or not rate or not rate["shown"]:
        return "same"
    return "better" if rate["median"] > 1 else "worse"
