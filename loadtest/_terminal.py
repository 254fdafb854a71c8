"""What a run shows on the terminal: a progress bar while it measures, then verdict and table."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from loadtest import _verdict
from loadtest._rounds import AnyCell
from loadtest._table import COLUMNS, Columns, look, ordered

#: Columns of a table that nobody's window limits (a file, a pipe, a log of CI).
WIDE: Final = 150
STYLES: Final = {
    "baseline": "bold",
    "better": "bold green",
    "worse": "red",
    "same": "",
    "unranked": "dim",
}


def console(stderr: bool = False) -> Console:
    """A console; one that is no terminal is as wide as a table needs, unless COLUMNS says else."""
    made = Console(stderr=stderr, highlight=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = WIDE
    return made


class Bar:
    """The progress bar; on what is no terminal one line a round."""

    def __init__(self, output: Console, cells: int, rounds: int) -> None:
        self._output = output
        self._round = -1
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=output,
            transient=True,
            refresh_per_second=2,  # its drawing takes CPU from what is measured
            disable=not output.is_terminal,
        )
        self._task = self._progress.add_task("", total=cells * rounds)
        self._total = cells * rounds

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def cell(self, round_number: int, rounds: int, cell: AnyCell) -> None:
        """This cell is being measured now."""
        text = f"round {round_number + 1}/{rounds}  {cell.row.label}  {cell.load.title}"
        self._progress.update(self._task, description=escape(text))
        if round_number != self._round and not self._output.is_terminal:
            self._output.print(f"round {round_number + 1} of {rounds} ...", markup=False)
        self._round = round_number

    def done(self, cell: AnyCell, measurement: Mapping[str, Any]) -> None:
        """It was measured; what went wrong is said at once."""
        self._progress.advance(self._task)
        for word in ("failed", "unavailable"):
            if word in measurement:
                text = f"{cell.row.label} ({cell.load.key}) {word}: {measurement[word]}"
                self._output.print(text, markup=False, soft_wrap=True)

    def fewer(self, cells: int) -> None:
        """So many measurements fewer will be made."""
        self._total -= cells
        self._progress.update(self._task, total=self._total)


def show(output: Console, results: Mapping[str, Any], columns: Columns = COLUMNS) -> None:
    """Print the verdict, then a table for each load."""
    analysis = results["analysis"]
    for sentence in _verdict.whole(analysis):
        style = "bold red" if sentence.startswith(("UNSTABLE", "NOISY")) else ""
        output.print(sentence, style=style, markup=False)
    if results["stopped"]:
        output.print(f"Ended early: {results['stopped']}.", style="yellow", markup=False)
    if not analysis["rounds"]:
        return
    for load in analysis["loads"]:
        output.print(f"\n{load['title']}", style="bold", markup=False)
        headline, *others = [*_verdict.of_load(load), *columns.besides(load)]
        output.print(f"  {headline}", style="bold green", markup=False)
        for sentence in others:
            output.print(f"  {sentence}", markup=False)
    for load in analysis["loads"]:
        output.print()
        for table in tables(load, output.width, columns):
            output.print(table)
        for one in load["rows"]:
            if one["status"] not in ("ok", "client-bound"):
                text = f"  {one['label']}: {one['status']}: {one['reason']}"
                output.print(text, markup=False, soft_wrap=True)
        output.print(f"  {columns.sources(load)}", style="dim", markup=False, soft_wrap=True)


def tables(load: Mapping[str, Any], width: int, columns: Columns = COLUMNS) -> list[Table]:
    """One load as a table, or as two where `width` columns would cut figures off.

    Rows without figures are left to the lines below it.
    """
    above = columns.headings(load)
    lines = [(columns.line(one, load), look(one, load)) for one in ordered(load)]
    first = above.index(next(text for text in above if text.startswith("p50"))) + 1
    made = [_table(load["title"], range(len(above)), above, lines)]
    if Console(width=1000).measure(made[0]).maximum > width:
        made = [
            _table(load["title"], range(first), above, lines),
            _table("", (0, *range(first, len(above))), above, lines),
        ]
    return made


def _table(
    title: str,
    columns: Sequence[int],
    above: Sequence[str],
    lines: Sequence[tuple[list[str], str]],
) -> Table:
    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        left = column < 2 or column == len(above) - 1
        made.add_column(above[column], justify="left" if left else "right", no_wrap=True)
    for cells, style in lines:
        made.add_row(*(escape(cells[column]) for column in columns), style=STYLES[style])
    return made
