"""What `compare --workload watch` prints: the verdict, the tables, and where each one lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loadtest import _watch_words
from loadtest._terminal import STYLES
from loadtest._watch_rows import CONTROL
from loadtest._watch_table import TABLES, look, ordered


def show(output: Console, results: Mapping[str, Any]) -> None:
    """Print everything."""
    analysis = results["analysis"]
    for sentence in _watch_words.whole(analysis):
        style = "bold red" if sentence.startswith("UNSTABLE") else ""
        output.print(sentence, style=style, markup=False)
    if results["stopped"]:
        output.print(f"Ended early: {results['stopped']}.", style="yellow", markup=False)
    if test := results["self_test"]:
        style = "" if test["shown"] else "bold red"
        output.print(test["said"], style=style, markup=False, soft_wrap=True)
    if not analysis["rounds"]:
        return
    for load in analysis["loads"]:
        output.print(f"\n{load['title']}", style="bold", markup=False)
        for sentence in _watch_words.headlines(load):
            output.print(f"  {sentence}", markup=False)
        rows = ordered(load)
        output.print()
        for title, headings, line in TABLES:
            lines = [(line(row), STYLES[look(row)]) for row in rows]
            for table in tables(title, headings, lines, output.width):
                output.print(table)
            output.print()
        output.print("Where each one lies", style="bold", markup=False)
        for row in load["rows"]:
            if row["key"] != CONTROL:
                said = "; ".join(_watch_words.lies(row))
                output.print(f"  {row['label']}: {said}.", markup=False, soft_wrap=True)


def tables(
    title: str, headings: Sequence[str], lines: Sequence[tuple[list[str], str]], width: int
) -> list[Table]:
    """One table, in as many parts as it takes that `width` columns cut no figure off.

    `lines` are cells with their style; the first cell stands in each part.
    """
    made = []
    columns = [0]
    for column in range(1, len(headings)):
        wider = _table(title, headings, lines, [*columns, column])
        if len(columns) > 1 and Console(width=1000).measure(wider).maximum > width:
            made.append(_table(title, headings, lines, columns))
            title, columns = "", [0]
        columns.append(column)
    return [*made, _table(title, headings, lines, columns)]


def _table(
    title: str,
    headings: Sequence[str],
    lines: Sequence[tuple[list[str], str]],
    columns: Sequence[int],
) -> Table:
    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column else "left"
        made.add_column(headings[column], justify=justify, no_wrap=True)
    for cells, style in lines:
        made.add_row(*(escape(cells[column]) for column in columns), style=style)
    return made
