"""Halves of renames, and changes made fewer: no kernel."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from watching import Carrying

from pollers.inotify import IN_CREATE, IN_MOVED_FROM, IN_MOVED_TO, Event
from pollers.watch.base import Change, Kind
from pollers.watch.debounce import merge
from pollers.watch.pairing import Pairing
from pollers.watch.replay import Contradiction, Replica

#: On a machine that is busy with something else.
patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def event(cookie: int, mask: int = IN_CREATE, name: bytes = b"n") -> Event:
    return Event(1, mask, cookie, name)


def first(cookie: int) -> Event:
    return event(cookie, IN_MOVED_FROM)


def second(cookie: int) -> Event:
    return event(cookie, IN_MOVED_TO)


def test_what_is_no_rename_is_not_held_back() -> None:
    pairing: Pairing[Event] = Pairing()
    assert pairing.feed([event(0), second(5)], 0) == [(event(0), None), (second(5), None)]
    assert pairing.deadline is None


def test_two_halves_are_one_at_the_place_of_the_first() -> None:
    pairing: Pairing[Event] = Pairing()
    told = pairing.feed([first(1), event(0), second(1)], 0)
    assert told == [(first(1), second(1)), (event(0), None)]


def test_a_pair_may_be_split_over_two_reads() -> None:
    pairing: Pairing[Event] = Pairing(wait=1)
    assert pairing.feed([event(0), first(1), event(0)], 10) == [(event(0), None)]
    assert pairing.deadline == 11
    assert pairing.feed([event(0), second(1)], 10.5) == [
        (first(1), second(1)),
        (event(0), None),
        (event(0), None),
    ]
    assert pairing.deadline is None
    assert len(pairing) == 0


def test_a_second_half_that_never_comes_is_not_waited_for_longer() -> None:
    pairing: Pairing[Event] = Pairing(wait=1)
    assert pairing.feed([first(1), event(0)], 10) == []
    assert pairing.feed([], 10.9) == []
    assert pairing.feed([], 11) == [(first(1), None), (event(0), None)]
    assert pairing.feed([second(1)], 11) == [(second(1), None)]  # too late


def test_many_halves_wait_once() -> None:
    pairing: Pairing[Event] = Pairing(wait=1)
    firsts = [first(cookie) for cookie in range(1, 1001)]
    assert pairing.feed(firsts, 10) == []
    assert pairing.feed([], 11) == [(half, None) for half in firsts]


@patiently
@given(
    st.lists(st.tuples(st.integers(1, 5), st.sampled_from([0, IN_MOVED_FROM, IN_MOVED_TO]))),
    st.lists(st.integers(0, 10), max_size=5),
)
def test_each_event_comes_once_and_in_order(made: list[tuple[int, int]], cuts: list[int]) -> None:
    """Wherever the reads are cut: what is told last is all that was read."""
    cookies: set[int] = set()
    events = []
    for number, (cookie, mask) in enumerate(made):
        if mask == IN_MOVED_FROM and cookie in cookies:  # the kernel counts them
            continue
        cookies |= {cookie} if mask == IN_MOVED_FROM else set()
        events.append(event(cookie if mask else 0, mask or IN_CREATE, b"%d" % number))
    pairing: Pairing[Event] = Pairing(wait=1)
    told = []
    at = 0
    for step, cut in enumerate(cuts):
        told += pairing.feed(events[at : at + cut], step / 3)
        at += cut
    told += pairing.feed(events[at:], 100)
    told += pairing.feed([], math.inf)
    assert sorted(e.name for pair in told for e in pair if e) == sorted(e.name for e in events)
    order = [events.index(e) for e, _ in told]
    assert order == sorted(order)
    assert all(one.cookie == other.cookie for one, other in told if other)
    assert pairing.deadline is None


# Fewer changes.

C, M, D, A = Kind.CREATED, Kind.MODIFIED, Kind.DELETED, Kind.ATTRIBUTES


@pytest.mark.parametrize(
    ("kinds", "left"),
    [
        ([C, M, M], [C]),
        ([M, M, A, M], [M, A]),
        ([C, D], []),
        ([C, M, D], []),
        ([D, C], [M, A]),
        ([M, D], [D]),
        ([D, C, D], [D]),
        ([C, D, C], [C]),
    ],
)
def test_changes_of_one_name_are_one(kinds: list[Kind], left: list[Kind]) -> None:
    told = [Change(kind, b"a") for kind in kinds]
    assert merge(told) == [Change(kind, b"a") for kind in left]


def test_an_atomic_save_is_one_modification() -> None:
    told = [Change(C, b"t"), Change(M, b"t"), Change(A, b"t"), Change(M, b"a", b"t")]
    assert merge(told) == [Change(M, b"a")]


PATHS = st.sampled_from([b"a", b"b", b"d", b"d/a", b"d/b", b"d/e", b"d/e/a"])


@patiently
@given(
    st.dictionaries(PATHS, st.booleans()),
    st.lists(
        st.tuples(st.sampled_from([C, M, D, A, Kind.MOVED]), PATHS, PATHS, st.booleans()),
        max_size=30,
    ),
)
def test_fewer_changes_replayed_give_the_same(
    begin: dict[bytes, bool], asked: list[tuple[Kind, bytes, bytes, bool]]
) -> None:
    names = {path: path in (b"d", b"d/e") for path in begin}
    names = {path: directory for path, directory in names.items() if _has_parent(path, names)}
    every, told = Replica(names.items()), []
    for kind, path, source, directory in asked:
        change = _possible(every, kind, path, source, directory)
        if change is not None:
            every.apply([change])
            told.append(change)
    fewer = Carrying(dict(names), {})
    merged = merge(told)
    fewer.apply(merged)
    assert len(merged) <= len(told) + 1
    assert fewer.names == every.names
    assert every.dirty - {p for p in every.names if every.names[p]} <= fewer.dirty
    assert every.changed <= fewer.changed | fewer.dirty


def _has_parent(path: bytes, names: dict[bytes, bool]) -> bool:
    above = path.rpartition(b"/")[0]
    return not above or (above in names and _has_parent(above, names))


def _possible(
    replica: Replica, kind: Kind, path: bytes, source: bytes, directory: bool
) -> Change | None:
    """The change, if it can follow from what is there and is one that a watcher would tell."""
    names = replica.names
    if not _has_parent(path, names) or path.startswith(source + b"/"):
        return None
    if kind is Kind.MOVED:
        change = Change(kind, path, source, names.get(source, False))
        if names.get(source) is False and names.get(path) is False and path != source:
            change = Change(Kind.MODIFIED, path, source)
    elif kind is Kind.CREATED:
        change = Change(kind, path, None, directory and path in (b"d", b"d/e"))
    else:
        change = Change(kind, path, None, names.get(path, False))
    try:
        Replica(names.items()).apply([change])
    except Contradiction:
        return None
    return change
