"""report.html of `compare --workload watch`: verdict, tables, where each one lies, environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loadtest import _watch_words
from loadtest._report import filled
from loadtest._watch_rows import CONTROL
from loadtest._watch_table import TABLES, look, ordered

Row = Mapping[str, Any]


def render(results: Mapping[str, Any]) -> str:
    """The report of the results that `_results.load` returns or `_results.save` was given."""
    analysis = results["analysis"]
    return filled(
        "watch_report.html.j2",
        results,
        whole=[*_watch_words.whole(analysis), *filter(None, [results["self_test"].get("said")])],
        loads=[_load(load) for load in analysis["loads"]] if analysis["rounds"] else [],
    )


def _load(load: Mapping[str, Any]) -> dict[str, Any]:
    headline, *others = _watch_words.headlines(load)
    rows = ordered(load)
    return {
        "title": load["title"],
        "headline": headline,
        "others": others,
        "tables": [_table(title, headings, line, rows) for title, headings, line in TABLES],
        "lies": [
            (row["label"], "; ".join(_watch_words.lies(row)))
            for row in load["rows"]
            if row["key"] != CONTROL
        ],
    }


def _table(
    title: str, headings: Sequence[str], line: Callable[[Row], list[str]], rows: Sequence[Row]
) -> dict[str, Any]:
    return {
        "title": title,
        "headings": [text.split("\n") for text in headings],
        "rows": [{"cells": line(row), "look": look(row)} for row in rows],
    }
