"""Edge-triggered and one-shot delivery, where the capability says so."""

from __future__ import annotations

import pytest
from expectations import Pair, expect_events, expect_no_events

from pollers import POLLIN, POLLOUT
from pollers.base import Capability, Poller


@pytest.fixture
def edge(poller: Poller) -> Poller:
    if not poller.capabilities & Capability.EDGE:
        pytest.skip(f"{poller.name} has no edge-triggered mode, and says so")
    return poller


@pytest.fixture
def oneshot(poller: Poller) -> Poller:
    if not poller.capabilities & Capability.ONESHOT:
        pytest.skip(f"{poller.name} has no one-shot mode, and says so")
    return poller


def test_edge_reports_a_change_once(edge: Poller, pair: Pair) -> None:
    near, far = pair
    edge.register(near.fileno(), POLLIN, edge=True)
    far.send(b"x")
    expect_events(edge, {near.fileno(): POLLIN})
    expect_no_events(edge, near.fileno())
    far.send(b"y")
    expect_events(edge, {near.fileno(): POLLIN})
    expect_no_events(edge, near.fileno())


def test_edge_after_a_partial_read(edge: Poller, pair: Pair) -> None:
    near, far = pair
    edge.register(near.fileno(), POLLIN, edge=True)
    far.send(b"xy")
    expect_events(edge, {near.fileno(): POLLIN})
    near.recv(1)
    expect_no_events(edge, near.fileno())
    edge.modify(near.fileno(), POLLIN, edge=True)
    expect_events(edge, {near.fileno(): POLLIN})


def test_edge_reports_what_was_there_before(edge: Poller, pair: Pair) -> None:
    near, far = pair
    far.send(b"x")
    edge.register(near.fileno(), POLLIN, edge=True)
    expect_events(edge, {near.fileno(): POLLIN})


def test_edge_can_be_turned_off(edge: Poller, pair: Pair) -> None:
    near, far = pair
    far.send(b"x")
    edge.register(near.fileno(), POLLIN, edge=True)
    expect_events(edge, {near.fileno(): POLLIN})
    edge.modify(near.fileno(), POLLIN)
    for _ in range(3):
        expect_events(edge, {near.fileno(): POLLIN})


def test_oneshot_reports_once_until_modified(oneshot: Poller, pair: Pair) -> None:
    near, far = pair
    fd = near.fileno()
    oneshot.register(fd, POLLIN, oneshot=True)
    expect_no_events(oneshot, fd)
    far.send(b"x")
    expect_events(oneshot, {fd: POLLIN})
    expect_no_events(oneshot, fd)
    far.send(b"y")
    expect_no_events(oneshot, fd)
    oneshot.modify(fd, POLLIN, oneshot=True)
    expect_events(oneshot, {fd: POLLIN})
    expect_no_events(oneshot, fd)


def test_a_fired_oneshot_is_still_registered(oneshot: Poller, pair: Pair) -> None:
    near, far = pair
    far.send(b"x")
    oneshot.register(near.fileno(), POLLIN, oneshot=True)
    expect_events(oneshot, {near.fileno(): POLLIN})
    with pytest.raises(FileExistsError):
        oneshot.register(near.fileno(), POLLIN)
    oneshot.unregister(near.fileno())
    oneshot.register(near.fileno(), POLLIN)
    for _ in range(3):
        expect_events(oneshot, {near.fileno(): POLLIN})


def test_oneshot_is_one_for_all_interests(oneshot: Poller, pair: Pair) -> None:
    """One registration, one event: what fires for POLLOUT is silent for POLLIN as well."""
    near, far = pair
    oneshot.register(near.fileno(), POLLIN | POLLOUT, oneshot=True)
    expect_events(oneshot, {near.fileno(): POLLOUT})
    far.send(b"x")
    expect_no_events(oneshot, near.fileno())
    oneshot.modify(near.fileno(), POLLIN | POLLOUT, oneshot=True)
    expect_events(oneshot, {near.fileno(): POLLIN})


def test_oneshot_can_be_turned_off(oneshot: Poller, pair: Pair) -> None:
    near, far = pair
    far.send(b"x")
    oneshot.register(near.fileno(), POLLIN, oneshot=True)
    expect_events(oneshot, {near.fileno(): POLLIN})
    oneshot.modify(near.fileno(), POLLIN)
    for _ in range(3):
        expect_events(oneshot, {near.fileno(): POLLIN})


def test_a_level_registration_can_become_oneshot(oneshot: Poller, pair: Pair) -> None:
    near, far = pair
    far.send(b"x")
    oneshot.register(near.fileno(), POLLIN)
    expect_events(oneshot, {near.fileno(): POLLIN})
    oneshot.modify(near.fileno(), POLLIN, oneshot=True)
    expect_events(oneshot, {near.fileno(): POLLIN})
    expect_no_events(oneshot, near.fileno())
