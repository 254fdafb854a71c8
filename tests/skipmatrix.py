"""The table at the end of a run: which adapter ran, which was skipped, and why.

A suite that skips what does not work here is green on a machine where nothing works.  So the run
ends with a row for each adapter of each registry, and a run of everything fails where one that
this platform should have was only ever skipped, or where no test was about it.  A run of a part
(`-k`, a directory) shows its rows and judges nothing.

A test may be about several adapters: a server has a loop, a poller and a backend.  Where one of
them is not expected here, that it was skipped is said of that one alone.

`--skip-matrix=FILE` writes the table, as Markdown, for whoever compares platforms.
"""

from __future__ import annotations

import platform
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

#: How much of a reason the table shows (characters).
WIDEST: Final = 90


@dataclass(frozen=True)
class Kind:
    """One registry: its names, those that this platform should have, and whose test is whose."""

    title: str
    names: Sequence[str]
    expected: Sequence[str]
    #: The names that one parameter of a test stands for: (item, fixture, value) -> names.
    named_by: Callable[[pytest.Item, str, Any], Iterable[str]]


@dataclass
class Row:
    """What happened to the tests of one adapter."""

    ran: int = 0
    skipped: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


class SkipMatrix:
    """The plugin; `pytest_configure` of a conftest registers one."""

    def __init__(self, config: pytest.Config, kinds: Callable[[], Sequence[Kind]]) -> None:
        self._config = config
        self._kinds = kinds()
        self._rows = {(kind.title, name): Row() for kind in self._kinds for name in kind.names}
        self._expected = [(kind.title, name) for kind in self._kinds for name in kind.expected]
        self.faults: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, Any, Any]:
        report = yield
        # On the report, not here: with pytest-xdist the item is in another process.
        report.adapters = list(self._adapters(item))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        adapters = [tuple(pair) for pair in getattr(report, "adapters", ())]
        if report.skipped and not hasattr(report, "wasxfail"):
            unexpected = [adapter for adapter in adapters if adapter not in self._expected]
            for adapter in unexpected or adapters:
                self._rows[adapter].skipped += 1
                self._rows[adapter].reasons[_reason(report)] += 1
        elif report.when == "call" or report.failed:
            for adapter in adapters:
                self._rows[adapter].ran += 1

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(self._config, "workerinput"):  # a worker of pytest-xdist: the others count too
            return
        if _is_whole(session):
            self.faults = list(self._find_faults())
            if self.faults:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if file := self._config.getoption("skip_matrix"):
            path = Path(file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join([*self._lines(every=True), *self.faults, ""]))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if any(row.ran or row.skipped for row in self._rows.values()):
            terminalreporter.section("skip matrix")
            for line in self._lines(every=False):
                terminalreporter.write_line(line)
        for fault in self.faults:
            terminalreporter.write_line(fault, red=True)

    def _adapters(self, item: pytest.Item) -> Iterator[tuple[str, str]]:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        for kind in self._kinds:
            found = {
                name
                for fixture, value in params.items()
                for name in kind.named_by(item, fixture, value)
            }
            yield from ((kind.title, name) for name in kind.names if name in found)

    def _find_faults(self) -> Iterator[str]:
        for title, name in self._expected:
            row = self._rows[title, name]
            if not row.ran:
                why = "no test ran over it"
                if row.skipped:
                    why = f"all its tests were skipped: {row.reasons.most_common(1)[0][0]}"
                yield f"FAILED {title} {name}: {sys.platform} should have it, but {why}"

    def _lines(self, every: bool) -> Iterator[str]:
        """The table; with `every`, also the rows that no selected test was about."""
        release = f"{platform.system()} {platform.release()} {platform.machine()}"
        yield f"{release}, {platform.python_implementation()} {platform.python_version()}"
        yield ""
        table = [["kind", "adapter", "expected", "ran", "skipped", "why"]]
        for kind in self._kinds:
            for name in kind.names:
                row = self._rows[kind.title, name]
                if every or row.ran or row.skipped:
                    why = "; ".join(reason[:WIDEST] for reason, _ in row.reasons.most_common(3))
                    expected = "yes" if name in kind.expected else "no"
                    counts = [str(row.ran), str(row.skipped)]
                    table.append([kind.title, name, expected, *counts, why])
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        table.insert(1, ["-" * width for width in widths])
        for cells in table:
            padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
            yield f"| {' | '.join(padded)} |".replace("\n", " ")


def add_option(parser: pytest.Parser) -> None:
    parser.addoption(
        "--skip-matrix",
        metavar="FILE",
        help="write which adapters ran and which were skipped, and why",
    )


def _reason(report: pytest.TestReport) -> str:
    """Why a test was skipped, on one line."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return " ".join(text.removeprefix("Skipped: ").split())


def _is_whole(session: pytest.Session) -> bool:
    """Whether all tests were to run, and did."""
    option = session.config.option
    selected = option.keyword or option.markexpr or option.deselect or getattr(option, "lf", False)
    selected = selected or option.ignore or option.ignore_glob
    everything = session.config.args_source is pytest.Config.ArgsSource.TESTPATHS
    stopped = session.shouldstop or session.shouldfail or option.collectonly
    ended = session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    return bool(everything and ended and not selected and not stopped)
