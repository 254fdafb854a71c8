"""results.json, report.html and the terminal: nothing lost, mistaken or unescaped."""

from __future__ import annotations

import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from compare_measurements import HISTOGRAM, LOAD, measurement, open_fonts
from hdrh.histogram import HdrHistogram
from rich.console import Console

from loadtest import _terminal
from loadtest._analyse import analyse
from loadtest._cells import Cell
from loadtest._echo_cells import ROWS
from loadtest._environment import environment
from loadtest._report import render
from loadtest._results import SCHEMA, BadResults, load, load_measurement, save

EVIL = "<script>alert('x')</script> & co"


@pytest.fixture(scope="module", autouse=True)
def _fonts() -> None:
    open_fonts()


@pytest.fixture
def results() -> dict[str, Any]:
    """Every row, three rounds; select unavailable, trio failed."""
    cells = [Cell(row, LOAD) for row in ROWS]
    unavailable = {"select@busy": EVIL}
    rounds = []
    for number in range(3):
        made = {
            cell.key: measurement(cell.row, 50_000.0 * (1 + 0.07 * place) + 100 * number)
            for place, cell in enumerate(cells)
            if cell.row.key not in ("select", "trio")
        }
        made["trio@busy"] = {"schema": 1, "cell": cells[-1].as_dict(), "failed": EVIL}
        rounds.append({"number": number, "seconds": 12.5, "measurements": made})
    return {
        "workload": "echo",
        "started": "2026-01-01T00:00:00+00:00",
        "seconds": 40.0,
        "environment": {**environment("0", "1"), "cpu_model": EVIL},
        "options": {"rounds": 3, "quick": True},
        "seed": 7,
        "cells": [cell.as_dict() for cell in cells],
        "schedule": [[cell.key for cell in cells]] * 3,
        "unavailable": unavailable,
        "rounds": rounds,
        "unfinished": None,
        "stopped": "",
        "analysis": analyse(cells, unavailable, [one["measurements"] for one in rounds]),
    }


def test_what_is_saved_is_loaded_again(results: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    save(path, results)
    found = load(path)
    assert found.pop("schema") == SCHEMA
    assert found.pop("kind") == "pollmark compare"
    assert found == json.loads(json.dumps(results))
    kept = found["rounds"][0]["measurements"]["aio@busy"]["latency"]["service"]["histogram"]
    assert kept == HISTOGRAM
    assert HdrHistogram.decode(kept).get_total_count() == 3
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": SCHEMA + 1}, f"schema {SCHEMA + 1}, this version reads {SCHEMA}"),
        ({"kind": "pyperf"}, "no result of"),
        ({"rounds": "three"}, "'rounds' is missing or of another type"),
        ({"environment": None}, "'environment' is missing"),
    ],
)
def test_another_file_is_refused(
    results: dict[str, Any], tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path = tmp_path / "results.json"
    save(path, results)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadResults, match=said):
        load(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_what_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(BadResults):
        load(path)


def test_a_measurement_of_another_schema_or_without_its_figures_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps(measurement(ROWS[0]) | {"schema": 2}))
    with pytest.raises(BadResults, match="schema 2, not 1"):
        load_measurement(path)
    lacking = measurement(ROWS[0])
    del lacking["latency"]
    path.write_text(json.dumps(lacking))
    with pytest.raises(BadResults, match="'latency'"):
        load_measurement(path)


class Page(HTMLParser):
    """The text of a page, its tags, and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [
            str(value)
            for name, value in attrs
            if name in ("src", "href", "xlink:href") and not str(value).startswith("#")
        ]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_report_holds_every_row_and_escapes_text(results: dict[str, Any]) -> None:
    page = Page(render(results))
    text = " ".join(page.texts)
    for row in ROWS:
        assert row.label in text
    assert text.count(EVIL) >= 3  # select's reason, trio's, and the CPU's model
    assert "script" not in page.tags
    assert page.tags.count("svg") == 2
    assert page.loads == []


def test_the_report_opens_with_the_verdict(results: dict[str, Any]) -> None:
    text = " ".join(Page(render(results)).texts)
    assert "served the most messages" in text
    assert text.index("served the most messages") < text.index("KiB per")


@pytest.mark.parametrize("rounds", [0, 1])
def test_the_report_of_an_interrupted_run_renders(results: dict[str, Any], rounds: int) -> None:
    cells = [Cell(row, LOAD) for row in ROWS]
    kept = results["rounds"][:rounds]
    measured = [one["measurements"] for one in kept]
    cut = results | {
        "rounds": kept,
        "stopped": "SIGINT during round 2, which is left out",
        "analysis": analyse(cells, results["unavailable"], measured),
    }
    text = " ".join(Page(render(cut)).texts)
    assert "SIGINT during round 2" in text
    assert ("No round was finished" in text) == (rounds == 0)


def test_the_terminal_shows_verdict_rows_and_reasons(results: dict[str, Any]) -> None:
    output = io.StringIO()
    _terminal.show(Console(file=output, width=140), results)
    text = output.getvalue()
    for row in ROWS:
        assert row.label in text
    assert "served the most messages" in text
    assert f"select: unavailable: {EVIL}" in text
    assert f"trio: failed: {EVIL} (3 of 3 rounds)" in text
    assert text.index("served the most") < text.index("messages/s")


@pytest.mark.parametrize("width", [80, 100, 140])
def test_a_narrow_terminal_gets_two_tables_and_every_figure(
    results: dict[str, Any], width: int
) -> None:
    output = io.StringIO()
    for table in _terminal.tables(results["analysis"]["loads"][0], width):
        Console(file=output, width=width).print(table)
    text = output.getvalue()
    assert "\u2026" not in text  # rich's mark of what it cut off
    for row in ROWS:
        shown = row.key not in ("select", "trio")
        assert text.count(f"\n{row.label}  ") == shown * (1 if width > 130 else 2)


def test_the_environment_says_what_a_number_depends_on() -> None:
    found = environment("0", "none")
    assert found["packages"]["locust"]
    assert found["kernel"]
    assert found["python"]
    assert found["limits"]["nofile (hard)"] > 0
    assert (found["server_cpu"], found["load_cpu"]) == ("0", "none")
    json.dumps(found, allow_nan=False)
