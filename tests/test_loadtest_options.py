"""Options are checked again, as the web form bypasses argparse."""

from __future__ import annotations

import argparse
from argparse import Namespace
from typing import Any

import pytest

from loadtest import _options
from loadtest._options import BadOption, share_cores


class Parser(argparse.ArgumentParser):
    """Locust's parser takes one keyword more."""

    def add_argument(self, *names: Any, include_in_web_ui: bool = True, **known: Any) -> Any:
        return super().add_argument(*names, **known)


def parsed(*words: str) -> Namespace:
    parser = Parser()
    _options.add(parser)
    return parser.parse_args(words)


def test_defaults_are_possible() -> None:
    options = _options.read(parsed())
    assert (options.server, options.loop, options.poller) == ("echo", "reactor", "auto")
    assert options.active == options.connections == 1000
    assert options.message_size == 64


def test_the_cell_says_what_was_asked_and_which_environment_changes_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UV_USE_IO_URING", "0")
    words = ["--loop", "uvloop", "--swarm-connections", "300", "--swarm-active", "1%"]
    cell = _options.read(parsed(*words)).cell()
    assert (cell["loop"], cell["connections"], cell["active"]) == ("uvloop", 300, 3)
    assert cell["rate"] is None
    assert cell["env"] == {"UV_USE_IO_URING": "0"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("server", "http"),
        ("loop", "twisted"),
        ("poller", "nope"),
        ("backend", "magic"),
        ("swarm_poller", ""),
        ("workers", 0),
        ("server_port", 70_000),
        ("message_size", 0),
        ("think_time", -1.0),
        ("think_time", float("nan")),
        ("swarm_rate", float("inf")),
        ("swarm_connections", 0),
        ("swarm_active", "2000"),
        ("swarm_pipeline", 0),
        ("server_cpu", "99999"),
        ("load_cpu", "first"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_that_names_the_option(
    name: str, value: object
) -> None:
    form = parsed()
    setattr(form, name, value)
    with pytest.raises(BadOption) as caught:
        _options.read(form)
    assert "--" + name.replace("_", "-") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("server", "load", "allowed", "workers", "expected"),
    [
        (None, None, [0, 1], 1, ([0], [1])),
        (None, None, [2, 3, 5], 1, ([2], [3, 5])),
        (None, None, [0], 1, ([], [])),
        (None, None, [0, 1], 2, ([], [])),
        (None, [0], [0, 1], 1, ([1], [0])),
        ([1], None, [0, 1], 1, ([1], [0])),
        ([], None, [0, 1], 1, ([], [])),
        ([0, 1], [2], [0, 1, 2], 2, ([0, 1], [2])),
    ],
)
def test_server_and_load_get_different_cores(
    server: list[int] | None,
    load: list[int] | None,
    allowed: list[int],
    workers: int,
    expected: tuple[list[int], list[int]],
) -> None:
    assert share_cores(server, load, allowed, workers) == expected
