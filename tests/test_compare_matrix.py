"""Which cells there are and in which order they are measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest import _cells
from loadtest._cells import BASELINE, CONTROL, Cell, Unknown, choose, matrix, too_many
from loadtest._echo_cells import ROWS, loads
from loadtest._rounds import order

seeds = st.integers(0, 2**31)
cells = st.lists(st.integers(), unique=True, max_size=30)


@given(cells, st.integers(0, 20), seeds)
def test_every_round_holds_every_cell_once(all_: list[int], number: int, seed: int) -> None:
    assert sorted(order(all_, number, seed)) == sorted(all_)


@given(cells, st.integers(0, 20), seeds)
def test_a_seed_reproduces_the_order(all_: list[int], number: int, seed: int) -> None:
    assert order(all_, number, seed) == order(all_, number, seed)


@given(cells, st.integers(0, 20), seeds)
def test_a_pair_of_rounds_gives_each_cell_the_same_mean_position(
    all_: list[int], pair: int, seed: int
) -> None:
    first, second = order(all_, 2 * pair, seed), order(all_, 2 * pair + 1, seed)
    assert {first.index(one) + second.index(one) for one in all_} <= {len(all_) - 1}


def test_seeds_and_pairs_differ() -> None:
    all_ = list(range(20))
    assert order(all_, 0, 1) != order(all_, 0, 2)
    assert order(all_, 0, 1) != order(all_, 2, 1)


def test_the_control_is_the_baseline_again() -> None:
    by_key = {row.key: row for row in ROWS}
    base, control = by_key[BASELINE], by_key[CONTROL]
    assert base.words() == control.words()
    assert base.env == control.env
    assert len(by_key) == len(ROWS)


def test_names_choose_rows_and_loops() -> None:
    assert [row.key for row in choose(ROWS, ["poll"], [])] == [BASELINE, CONTROL, "poll"]
    assert [row.key for row in choose(ROWS, ["uvloop"], [])] == [
        BASELINE,
        CONTROL,
        "uvloop-0",
        "uvloop-1",
    ]
    assert "trio" not in [row.key for row in choose(ROWS, [], ["trio"])]
    assert choose(ROWS, [], []) == [row for row in ROWS if row.usual]
    assert choose(ROWS, ["all"], []) == list(ROWS)
    for row in ROWS:  # also those that only run where they are named
        assert row in choose(ROWS, [row.key], [])


@pytest.mark.parametrize("names", [(["nosuch"], []), ([], ["nosuch"])])
def test_an_unknown_row_is_named_with_those_that_exist(names: tuple[list[str], list[str]]) -> None:
    with pytest.raises(Unknown, match=r"'nosuch'.*epoll-splice"):
        choose(ROWS, *names)


def test_the_baseline_cannot_be_skipped() -> None:
    with pytest.raises(Unknown, match="epoll cannot be skipped"):
        choose(ROWS, [], ["epoll"])


def test_loads() -> None:
    busy, idle, small = loads(["busy", "idle", "small"], 10_000, 64)
    assert (busy.connections, busy.active) == (10_000, 10_000)
    assert (idle.connections, idle.active) == (10_000, 100)
    assert (small.connections, small.active) == (900, 900)
    assert loads(["idle"], 50, 1)[0].active == 1
    with pytest.raises(Unknown, match=r"'rush'.*busy"):
        loads(["rush"], 10, 1)


def test_select_is_unavailable_above_its_limit_and_never_given_another_load() -> None:
    select = next(row for row in ROWS if row.key == "select")
    large, small = loads(["busy", "small"], 10_000, 64)
    assert "1024" in too_many(Cell(select, large))
    assert too_many(Cell(select, small)) == ""


def test_a_row_that_cannot_run_has_a_reason_and_stays_in_the_matrix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_cells, "missing", lambda row: "no such luck" if row.key == "aio" else "")
    of_two, unavailable = matrix(choose(ROWS, ["aio"], []), loads(["busy"], 100, 64))
    assert [cell.key for cell in of_two] == ["epoll@busy", "epoll-again@busy", "aio@busy"]
    assert unavailable == {"aio@busy": "no such luck"}
