"""The table's lines in words and figures, alike on the terminal and in the report.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadtest import _verdict
from loadtest._cells import BASELINE, CONTROL


def ordered(load: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows with figures, best first: the ranked ones, then the others."""
    place = {key: number for number, key in enumerate(load["ranking"])}
    place[CONTROL] = place.get(BASELINE, -1)
    rows = [one for one in load["rows"] if one["throughput"] is not None]
    return sorted(rows, key=lambda one: place.get(one["key"], len(place)))


def line(one: Mapping[str, Any], basis: str | None) -> list[str]:
    """One row's figures, as the terminal and the report print them."""
    return [
        one["label"],
        standing(one, basis),
        number(one["throughput"], 0),
        " / ".join(milliseconds(one[name]) for name in ("p50", "p99", "p99.9")),
        f"{number(one['user_cpu'], 1)} + {number(one['system_cpu'], 1)}",
        number(one["rss_per_connection"], 1, 1 / 1024),
        number(one["kernel_calls"], 2) + ("*" if one["kernel_calls_source"] == "adapter" else ""),
        number(one["events_per_wakeup"], 1),
        one["bound"],
    ]


def standing(one: Mapping[str, Any], basis: str | None) -> str:
    """The ratio that the load is ranked by, or why this row has none."""
    if one["key"] == BASELINE and one["status"] in ("ok", "client-bound"):
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
        text += "; * the poller's own calls only, without recv and send"
    held = {one["label"]: one["holds"] for one in load["rows"] if "io_uring" in one["holds"]}
    if held:
        text += "; " + "; ".join(f"{label} holds {what}" for label, what in held.items())
    return text


def milliseconds(microseconds: float | None) -> str:
    """Three digits or so of a time."""
    if microseconds is None:
        return "-"
    value = microseconds / 1000
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def number(value: float | None, digits: int, scale: float = 1.0) -> str:
    """A figure with thousands separated; "-" where there is none."""
    return "-" if value is None else f"{value * scale:,.{digits}f}"


def look(one: Mapping[str, Any], basis: str | None) -> str:
    """How a row is shown: baseline, unranked, better, worse or same."""
    if one["key"] == BASELINE:
        return "baseline"
    if one["status"] != "ok" and not (one["status"] == "client-bound" and basis == "cost"):
        return "unranked"
    if basis is None or one[basis] is None or one["key"] == CONTROL:
        return "same"
    return {"better": "better", "worse": "worse"}.get(
        _verdict.difference(one[basis], basis), "same"
    )
