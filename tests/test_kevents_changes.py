"""What kqueue(2) is told: interest to change lists, and what the receipts say of them."""

from __future__ import annotations

import errno
import select

import pytest

from pollers import kevents
from pollers.base import POLLIN, POLLOUT, POLLRDHUP
from pollers.kevents import (
    EV_ADD,
    EV_CLEAR,
    EV_DELETE,
    EV_DISPATCH,
    EV_ENABLE,
    EV_ERROR,
    EV_RECEIPT,
    NEVER,
    NOTE_LOWAT,
    Change,
    Mode,
)

FREEBSD = kevents.DIALECTS["freebsd"]
READ, WRITE, POLL = FREEBSD.read, FREEBSD.write, FREEBSD.file_poll


@pytest.mark.parametrize(
    ("interest", "edge", "oneshot", "filters"),
    [
        (POLLIN, False, False, {READ: Mode(0, POLL)}),
        (POLLOUT, False, False, {WRITE: Mode()}),
        (POLLIN | POLLOUT, False, False, {READ: Mode(0, POLL), WRITE: Mode()}),
        (POLLIN | POLLRDHUP, False, False, {READ: Mode(0, POLL)}),
        (POLLRDHUP, False, False, {READ: Mode(0, NOTE_LOWAT, NEVER)}),
        (POLLOUT, True, False, {WRITE: Mode(EV_CLEAR)}),
        (POLLIN, False, True, {READ: Mode(EV_DISPATCH, POLL)}),
        (POLLOUT, True, True, {WRITE: Mode(EV_CLEAR | EV_DISPATCH)}),
    ],
)
def test_filters_of_an_interest(
    interest: int, edge: bool, oneshot: bool, filters: dict[int, Mode]
) -> None:
    assert kevents.registration(interest, edge, oneshot, FREEBSD).filters == filters


def test_a_registration_is_one_change_a_filter() -> None:
    both = kevents.registration(POLLIN | POLLOUT, False, False, FREEBSD)
    assert kevents.added(5, both) == [
        Change(5, READ, EV_ADD | EV_RECEIPT, POLL),
        Change(5, WRITE, EV_ADD | EV_RECEIPT),
    ]


def test_replacing_deletes_first_and_confirms_what_stays() -> None:
    old = kevents.registration(POLLIN | POLLOUT, False, False, FREEBSD)
    new = kevents.registration(POLLIN, False, False, FREEBSD)
    assert kevents.replaced(5, old, new) == [
        Change(5, WRITE, EV_DELETE | EV_RECEIPT),
        Change(5, READ, EV_ENABLE | EV_RECEIPT, POLL),
    ]


def test_another_mode_is_deleted_and_added_as_flags_cannot_be_changed() -> None:
    old = kevents.registration(POLLOUT, False, False, FREEBSD)
    new = kevents.registration(POLLOUT, False, True, FREEBSD)
    assert kevents.replaced(5, old, new) == [
        Change(5, WRITE, EV_DELETE | EV_RECEIPT),
        Change(5, WRITE, EV_ADD | EV_RECEIPT | EV_DISPATCH),
    ]


def test_an_edge_triggered_filter_is_made_anew() -> None:
    edge = kevents.registration(POLLOUT, True, False, FREEBSD)
    flags = [change.flags for change in kevents.replaced(5, edge, edge)]
    assert flags == [EV_DELETE | EV_RECEIPT, EV_ADD | EV_RECEIPT | EV_CLEAR]


@pytest.mark.skipif(not hasattr(select, "KQ_EV_ADD"), reason="this Python has no select.kqueue")
def test_constants_are_the_systems() -> None:
    for name in ("ADD", "DELETE", "ENABLE", "DISABLE", "CLEAR", "ERROR", "EOF"):
        assert getattr(kevents, f"EV_{name}") == getattr(select, f"KQ_EV_{name}")
    assert getattr(select, "KQ_NOTE_LOWAT") == NOTE_LOWAT  # noqa: B009
    opened = __import__("pollers.kqueue").kqueue.open_kqueue()
    opened.kq.close()
    assert opened.dialect.read == getattr(select, "KQ_FILTER_READ")  # noqa: B009
    assert opened.dialect.write == getattr(select, "KQ_FILTER_WRITE")  # noqa: B009


# Receipts.


def test_receipts_are_matched_in_order() -> None:
    changes = [Change(5, READ, EV_DELETE), Change(5, READ, EV_ADD), Change(5, WRITE, EV_ADD)]
    receipts = [
        Change(5, READ, EV_ERROR, 0, 0),
        Change(5, READ, EV_ERROR, 0, errno.ENOMEM),
        Change(5, WRITE, EV_ERROR | EV_ADD | EV_RECEIPT, 0, 0),  # macOS keeps the flags
    ]
    assert kevents.errors_of(changes, receipts) == [0, errno.ENOMEM, 0]


@pytest.mark.parametrize(
    "receipts",
    [
        pytest.param([], id="none"),
        pytest.param([Change(5, WRITE, EV_ERROR)], id="another"),
        pytest.param([Change(5, READ, 0, 0, 1)], id="an event"),
        pytest.param([Change(5, READ, EV_ERROR), Change(6, READ, 0)], id="an event as well"),
    ],
)
def test_an_answer_that_is_not_one_receipt_a_change_is_not_guessed_at(
    receipts: list[Change],
) -> None:
    with pytest.raises(RuntimeError, match="kevent answered"):
        kevents.errors_of([Change(5, READ, EV_ADD)], receipts)
