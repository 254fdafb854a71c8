"""Options are checked again, as the web form bypasses argparse."""

from __future__ import annotations

import argparse
from argparse import Namespace
from types import SimpleNamespace
from typing import Any

import pytest

from loadtest import _options
from loadtest._options import BadOption, share_cores
from loadtest._users import unnamed


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
    ("words", "workloads", "expected"),
    [
        ((), {"echo"}, ("echo", "echo")),
        ((), {"file"}, ("file", "file")),
        (("--server", "file"), {"file"}, ("file", "file")),
        (("--server", "nginx"), {"file"}, ("file", "nginx")),
        (("--server", "echo"), {"echo"}, ("echo", "echo")),
    ],
)
def test_the_server_follows_from_the_users(
    words: tuple[str, ...], workloads: set[str], expected: tuple[str, str]
) -> None:
    options = _options.read(parsed(*words), workloads)
    assert (options.workload, options.server) == expected


def test_users_that_run_unnamed_are_single_ones_of_the_server() -> None:
    def user(workload: str, swarm: bool) -> SimpleNamespace:
        return SimpleNamespace(workload=workload, swarm=swarm)

    echo, file = user("echo", False), user("file", False)
    all_ = [echo, user("echo", True), file, user("file", True)]
    assert unnamed(all_, "auto") == unnamed(all_, "echo") == [echo]
    assert unnamed(all_, "file") == unnamed(all_, "nginx") == [file]
    assert unnamed(all_[2:], "auto") == [file]  # one locustfile alone


@pytest.mark.parametrize(
    ("words", "workloads", "why"),
    [
        ((), {"echo", "file"}, "name EchoUser or EchoSwarm, or FileUser or FileSwarm"),
        (("--server", "file"), {"echo"}, "--server file is loaded by FileUser or FileSwarm"),
        (("--server", "echo"), {"file"}, "--server echo is loaded by EchoUser or EchoSwarm"),
        (("--server", "nginx", "--loop", "trio"), {"file"}, "--loop is chosen by nginx itself"),
        (("--server", "nginx", "--backend", "aio"), {"file"}, "--backend is chosen by nginx"),
        (("--backend", "sendfile"), {"echo"}, "--backend 'sendfile' is unknown"),
        (("--swarm-rate", "5"), {"file"}, "--swarm-rate is EchoSwarm's"),
        (("--swarm-pipeline", "2"), {"file"}, "--swarm-pipeline is EchoSwarm's"),
        (("--cache", "cold"), {"echo"}, "--cache is for FileSwarm"),
        (("--slow-readers", "2"), {"echo"}, "--slow-readers is for FileSwarm"),
        (("--file-mix", "1k:"), {"file"}, "--file-mix: "),
        (("--slow-rate", "0"), {"file"}, "--slow-rate 0.0 is not possible"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(
    words: tuple[str, ...], workloads: set[str], why: str
) -> None:
    with pytest.raises(BadOption) as caught:
        _options.read(parsed(*words), workloads)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_cell_of_files_says_which() -> None:
    cell = _options.read(parsed("--file-mix", "16k"), {"file"}).cell()
    assert (cell["size"], cell["mix"], cell["cache"]) == (16384, {"16k": 1.0}, "hot")
    assert _options.read(parsed(), {"file"}).cell()["size"] is None
    assert _options.read(parsed()).cell()["mix"] is None


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
