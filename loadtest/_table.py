"""The table's lines in words and figures, alike on the terminal and in the report.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from loadtest import _verdict, _workload


def ordered(load: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows with figures, best first: the ranked ones, then the others."""
    place = {key: number for number, key in enumerate(load["ranking"])}
    words = _workload.of(load)
    place[words.control] = place.get(words.baseline, -1)
    rows = [one for one in load["rows"] if one["throughput"] is not None]
    return sorted(rows, key=lambda one: place.get(one["key"], len(place)))


def headings(load: Mapping[str, Any]) -> list[str]:
    """What stands above `line`, in two lines where there is a newline."""
    words, versus = _workload.of(load), against(load)
    made = [
        "",
        f"CPU {versus}\n[low, high]" if load["basis"] == "cost" else f"{versus}\n[low, high]",
        f"{words.units}/s",
        "p50 / p99 / p99.9\nms",
        f"CPU us/{words.unit}\nuser + system",
        "KiB per\nconnect.",
        f"calls\n/{words.unit}",
        "events\n/wakeup",
        "bound",
    ]
    if words.shows_bytes:
        made.insert(3, "MB/s")
    return made


def line(one: Mapping[str, Any], load: Mapping[str, Any]) -> list[str]:
    """One row's figures, as the terminal and the report print them."""
    counted = one["kernel_calls_source"] == "adapter"
    made = [
        one["label"],
        standing(one, load),
        number(one["throughput"], 0),
        " / ".join(milliseconds(one[name]) for name in ("p50", "p99", "p99.9")),
        f"{number(one['user_cpu'], 1)} + {number(one['system_cpu'], 1)}",
        number(one["rss_per_connection"], 1, 1 / 1024),
        number(one["kernel_calls"], 2) + ("*" if counted else ""),
        number(one["events_per_wakeup"], 1),
        one["bound"],
    ]
    if _workload.of(load).shows_bytes:
        made.insert(3, number(one["megabytes"], 1))
    return made


def against(load: Mapping[str, Any]) -> str:
    """What ratios are to: "x epoll"."""
    base = _workload.of(load).baseline
    return "x " + next(str(one["label"]) for one in load["rows"] if one["key"] == base)


def standing(one: Mapping[str, Any], load: Mapping[str, Any]) -> str:
    """The ratio that the load is ranked by, or why this row has none."""
    basis = load["basis"]
    if one["key"] == _workload.of(load).baseline and one["status"] in ("ok", "client-bound"):
        return "1 (baseline)"
    if one["status"] == "ok" or (one["status"] == "client-bound" and basis == "cost"):
        return _verdict.ratio(one[basis]) if basis else "-"
    return _verdict.NOT_RANKED[one["status"]]


def sources(load: Mapping[str, Any]) -> str:
    """Where the table's figures come from."""
    rounds = max((one["rounds"] for one in load["rows"]), default=0)
    counted = {one["kernel_calls_source"] for one in load["rows"]}
    text = f"medians of {rounds} rounds"
    if "tracepoint" in counted:
        text += "; kernel calls as the kernel's tracepoint counts them"
    if "adapter" in counted:
        text += f"; * the poller's own calls only, without {_workload.of(load).moves}"
    if any(one["counted_by"] == "client" for one in load["rows"]):
        text += "; of a peer the client counted what was served"
    if cold := [one["cold"] for one in load["rows"] if one["cold"] is not None]:
        text += f"; of what was evicted before a request at least {min(cold):.1%} was gone"
    held = {one["label"]: one["holds"] for one in load["rows"] if "io_uring" in one["holds"]}
    if held:
        text += "; " + "; ".join(f"{label} holds {what}" for label, what in held.items())
    return text


@dataclass(frozen=True)
class Columns:
    """What a workload's table has: of a load, and of one of its rows."""

    headings: Callable[[Mapping[str, Any]], list[str]]
    line: Callable[[Mapping[str, Any], Mapping[str, Any]], list[str]]
    sources: Callable[[Mapping[str, Any]], str]
    #: Sentences of a load's verdict that only this workload has.
    besides: Callable[[Mapping[str, Any]], list[str]] = lambda load: []


COLUMNS: Final = Columns(headings, line, sources)


def milliseconds(microseconds: float | None) -> str:
    """Three digits or so of a time."""
    if microseconds is None:
        return "-"
    value = microseconds / 1000
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def number(value: float | None, digits: int, scale: float = 1.0) -> str:
    """A figure with thousands separated; "-" where there is none."""
    return "-" if value is None else f"{value * scale:,.{digits}f}"


def look(one: Mapping[str, Any], load: Mapping[str, Any]) -> str:
    """How a row is shown: baseline, unranked, better, worse or same."""
    basis, words = load["basis"], _workload.of(load)
    if one["key"] == words.baseline:
        return "baseline"
    if one["status"] != "ok" and not (one["status"] == "client-bound" and basis == "cost"):
        return "unranked"
    if basis is None or one[basis] is None or one["key"] == words.control:
        return "same"
    return {"better": "better", "worse": "worse"}.get(
        _verdict.difference(one[basis], basis), "same"
    )
