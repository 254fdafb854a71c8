"""Which pollers and watchers work here, and whether the limits allow 10,000 connections."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from rich.console import Console
from rich.table import Table

from pollers import limits, registry, watch

if TYPE_CHECKING:
    from pollers.aio.probe import PathReport

#: What a probe finds, of a poller or of a watcher.
Found: TypeAlias = registry.Availability | watch.Availability

EPILOG = """exit status: 0 if every poller that this platform should have works and every limit
is high enough, 1 if not, 2 for a wrong command line"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pollers", description=__doc__, epilog=EPILOG)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--path",
        action="append",
        default=[],
        metavar="DIR",
        help="tell as well whether direct reads in DIR are asynchronous; may be repeated",
    )
    options = parser.parse_args(arguments)
    paths: list[PathReport] = []
    if options.path:
        try:
            from pollers.aio.probe import probe_path  # needs numpy, which the rest does not
        except ImportError as error:
            parser.error(f"--path: {error}; install it, or leave --path out")
        try:
            paths = [probe_path(path) for path in options.path]
        except OSError as error:
            parser.error(f"--path: {error.strerror}; name a directory")

    adapters, watchers = registry.probe_all(), watch.probe_all()
    found = limits.read()
    if options.json:
        report = {
            "schema": 1,
            "platform": platform.platform(),
            "python": platform.python_version(),
            "pollers": [adapter.as_dict() for adapter in adapters],
            "watchers": [watcher.as_dict() for watcher in watchers],
            "connections": limits.CONNECTIONS,
            "limits": [limit.as_dict() for limit in found],
            "paths": [path.as_dict() for path in paths],
        }
        print(json.dumps(report, indent=2))
    else:
        _show_adapters("poller", f"Pollers on {platform.platform()}", adapters)
        _show_adapters("watcher", "Watchers", watchers)
        _show_limits(found)
        _show_paths(paths)
    missing = any(adapter.expected and not adapter.available for adapter in adapters)
    low = any(limit.enough is False for limit in found)
    return 1 if missing or low else 0


def _show_adapters(kind: str, title: str, adapters: Sequence[Found]) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column(kind, no_wrap=True)
    table.add_column("works", no_wrap=True)
    table.add_column("beyond the contract")
    table.add_column("note, or why not", ratio=1)
    for adapter in adapters:
        table.add_row(
            adapter.name,
            _works(adapter),
            _capabilities(adapter),
            adapter.note if adapter.available else adapter.reason,
        )
    Console(highlight=False).print(table)


def _show_limits(found: list[limits.Limit]) -> None:
    console = Console(highlight=False)
    table = Table(title=f"Limits, for {limits.CONNECTIONS:,} connections", title_justify="left")
    table.add_column("limit", no_wrap=True)
    table.add_column("is", justify="right", no_wrap=True)
    table.add_column("needs", justify="right", no_wrap=True)
    table.add_column("enough", no_wrap=True)
    table.add_column("what runs out", ratio=1)
    for limit in found:
        table.add_row(
            limit.name,
            _number(limit.value),
            _number(limit.need),
            {True: "yes", False: "NO", None: "unknown"}[limit.enough],
            limit.meaning,
        )
    console.print(table)
    # Outside the table and never wrapped, so that a command can be copied.
    for limit in found:
        if limit.remedy:
            console.print(f"{limit.name} is too low: {limit.remedy}", soft_wrap=True, markup=False)


def _show_paths(paths: list[PathReport]) -> None:
    console = Console(highlight=False)
    for path in paths:
        # Never wrapped either: it is one line for each.
        where = f"{path.path} ({path.filesystem or 'filesystem unknown'})"
        advice = f"; {path.remedy}" if path.remedy else ""
        line = f"Direct reads in {where}: {path.summary}{advice}"
        console.print(line, soft_wrap=True, markup=False)


def _works(adapter: Found) -> str:
    if adapter.available:
        return "emulated" if adapter.emulated else "yes"
    return "NO" if adapter.expected else "not here"


def _capabilities(adapter: Found) -> str:
    names = adapter.as_dict()["capabilities"]
    assert isinstance(names, list)
    return ", ".join(names)


def _number(value: int | None) -> str:
    if value is None:
        return "unknown"
    return "unlimited" if value == sys.maxsize else f"{value:,}"


if __name__ == "__main__":
    sys.exit(main())
