"""report.html: one file, nothing loaded from elsewhere; verdict, plots, table, environment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from loadtest import _plots, _table, _verdict, _workload

HERE = Path(__file__).resolve().parent


def render(results: Mapping[str, Any]) -> str:
    """The report of the results that `_results.load` returns or `_results.save` was given."""
    templates = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    analysis = results["analysis"]
    return templates.get_template("report.html.j2").render(
        whole=_verdict.whole(analysis),
        stable=analysis["stable"],
        stopped=results["stopped"],
        loads=[_load(load) for load in analysis["loads"]] if analysis["rounds"] else [],
        environment=[(name, _words(value)) for name, value in results["environment"].items()],
        options=[(name, _words(value)) for name, value in results["options"].items()],
        seed=results["seed"],
        started=results["started"],
        words=_workload.of(results),
        versus=_table.against(analysis["loads"][0]) if analysis["loads"] else "",
    )


def _load(load: Mapping[str, Any]) -> dict[str, Any]:
    basis = load["basis"]
    headline, *others = _verdict.of_load(load)
    with_figures = _table.ordered(load)
    return {
        "title": load["title"],
        "headings": [text.split("\n") for text in _table.headings(load)],
        "versus": _table.against(load),
        "headline": headline,
        "others": others,
        "ratios": Markup(_plots.ratios(load)),  # our own SVG, which escapes its text
        "latencies": Markup(_plots.latencies(load)),
        "rows": [
            {"cells": _table.line(one, load), "look": _table.look(one, basis)}
            for one in with_figures
        ],
        "without": [one for one in load["rows"] if one["status"] not in ("ok", "client-bound")],
        "sources": _table.sources(load),
    }


def _words(value: Any) -> str:
    """A value of the environment in one line."""
    if value is None:
        return "not known"
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {_words(one)}" for name, one in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    if isinstance(value, float):
        return f"{value:.2f}"
    return value if isinstance(value, str) else json.dumps(value)
