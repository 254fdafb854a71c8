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


def render(
    results: Mapping[str, Any],
    columns: _table.Columns = _table.COLUMNS,
    template: str = "report.html.j2",
) -> str:
    """The report of the results that `_results.load` returns or `_results.save` was given.

    `columns` and `template` are the workload's, whose template extends the usual one.
    """
    analysis = results["analysis"]
    return filled(
        template,
        results,
        whole=_verdict.whole(analysis),
        loads=[_load(load, columns) for load in analysis["loads"]] if analysis["rounds"] else [],
        versus=_table.against(analysis["loads"][0]) if analysis["loads"] else "",
    )


def filled(template: str, results: Mapping[str, Any], **values: Any) -> str:
    """The HTML of a template, with `values` and what every report says of its results."""
    templates = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template(template).render(
        stopped=results["stopped"],
        environment=[(name, _in_words(value)) for name, value in results["environment"].items()],
        options=[(name, _in_words(value)) for name, value in results["options"].items()],
        seed=results["seed"],
        started=results["started"],
        words=_workload.of(results),
        **values,
    )


def _load(load: Mapping[str, Any], columns: _table.Columns) -> dict[str, Any]:
    headline, *others = [*_verdict.of_load(load), *columns.besides(load)]
    with_figures = _table.ordered(load)
    return {
        "title": load["title"],
        "headings": [text.split("\n") for text in columns.headings(load)],
        "versus": _table.against(load),
        "headline": headline,
        "others": others,
        "ratios": Markup(_plots.ratios(load)),  # our own SVG, which escapes its text
        "latencies": Markup(_plots.latencies(load)),
        "rows": [
            {"cells": columns.line(one, load), "look": _table.look(one, load)}
            for one in with_figures
        ],
        "without": [one for one in load["rows"] if one["status"] not in ("ok", "client-bound")],
        "sources": columns.sources(load),
    }


def _in_words(value: Any) -> str:
    """A value of the environment in one line."""
    if value is None:
        return "not known"
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {_in_words(one)}" for name, one in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_in_words, value))
    if isinstance(value, float):
        return f"{value:.2f}"
    return value if isinstance(value, str) else json.dumps(value)
