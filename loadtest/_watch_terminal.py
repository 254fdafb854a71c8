"""What `compare --workload watch` prints: the verdict, two tables, and where each one lies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
            output.print(_table(title, headings, line, rows))
            output.print()
        output.print("Where each one lies", style="bold", markup=False)
        for row in load["rows"]:
            if row["key"] != CONTROL:
                said = "; ".join(_watch_words.lies(row))
                output.print(f"  {row['label']}: {said}.", markup=False, soft_wrap=True)


def _table(
    title: str,
    headings: Sequence[str],
    line: Callable[[Mapping[str, Any]], list[str]],
    rows: Sequence[Mapping[str, Any]],
) -> Table:
    made = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, heading in enumerate(headings):
        made.add_column(heading, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        made.add_row(*map(escape, line(row)), style=STYLES[look(row)])
    return made
