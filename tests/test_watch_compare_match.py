"""Matching reports with a journal: what is told, coalesced, lost, doubled, misnamed."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest._watch_journal import Operation, directories, expected, load, save
from loadtest._watch_match import Matched, Report, match

KINDS = ("create", "append", "chmod", "unlink", "rename across", "mkdir -p")
#: What a watcher that tells everything says of each fact.
SAYS = {
    "created": "created",
    "modified": "modified",
    "attributes": "attributes",
    "deleted": "deleted",
    "gone": "moved from",
    "came": "moved to",
    "replaced": "moved to",
}


def judge(operations: list[Operation], reports: list[Report]) -> Matched:
    kinds = [one.kind for one in operations]
    return match(
        expected(operations), reports, ["journal"] * len(kinds), kinds, directories(operations)
    )


def operations(*steps: tuple[str, str] | tuple[str, str, str]) -> list[Operation]:
    """One operation every 100 ns, from 1000 on."""
    made = []
    for number, step in enumerate(steps):
        kind, path, other = (*step, "")[:3]
        made.append(Operation(kind, path, other, 1000 + 100 * number, 1050 + 100 * number))
    return made


def perfect(done: list[Operation], delay: int = 10) -> list[Report]:
    """Each fact told after `delay` ns."""
    return [Report(f.begin + delay, SAYS[f.what], f.path) for f in expected(done).facts]


@st.composite
def journals(draw: st.DrawFn) -> list[Operation]:
    """What could have happened: names come before they change, and are not used again."""
    steps: list[tuple[str, str, str]] = []
    alive: list[str] = []
    for number in range(draw(st.integers(1, 40))):
        kind = draw(st.sampled_from(KINDS)) if alive else "create"
        if kind in ("create", "mkdir -p"):
            path = f"d/{number}"
            steps.append((kind, path, ""))
            if kind == "create":
                alive.append(path)
            continue
        path = draw(st.sampled_from(alive))
        other = f"e/{number}" if kind == "rename across" else ""
        steps.append((kind, path, other))
        if kind in ("unlink", "rename across"):
            alive.remove(path)
        if other:
            alive.append(other)
    return operations(*steps)


@given(journals())
def test_who_tells_everything_is_told_to_have(done: list[Operation]) -> None:
    found = judge(done, perfect(done))
    count = found.phases["journal"]
    assert count.told == count.facts == len(expected(done).facts)
    assert count.halves == count.misnamed == count.coalesced == count.lost == count.wrong == 0
    assert set(count.latencies) == {10}
    for wrong in (found.duplicated, found.allowed, found.wrong_name, found.out_of_order):
        assert not wrong.total()


@given(journals(), st.data())
def test_every_fact_is_told_or_coalesced_or_lost_and_never_more_told_than_reported(
    done: list[Operation], data: st.DataObject
) -> None:
    whole = perfect(done, data.draw(st.integers(0, 1000)))
    kept = [one for one in whole if data.draw(st.booleans())]
    late = sorted(one._replace(time=one.time + data.draw(st.integers(0, 2000))) for one in kept)
    found = judge(done, late)
    count = found.phases["journal"]
    assert count.told + count.coalesced + count.lost == count.facts == len(whole)
    assert count.told <= len(kept)
    assert len(count.latencies) == count.told + count.coalesced
    assert all(latency >= 0 for latency in count.latencies)
    surplus = found.duplicated.total() + found.allowed.total() + found.wrong_name.total()
    assert count.told + surplus == len(kept)
    assert sum(one.facts for one in found.kinds.values()) == count.facts


@given(journals(), st.data())
def test_what_is_not_reported_is_lost_or_merged(
    done: list[Operation], data: st.DataObject
) -> None:
    whole = perfect(done)
    gone = data.draw(st.integers(0, len(whole) - 1))
    count = judge(done, whole[:gone] + whole[gone + 1 :]).phases["journal"]
    assert count.told == len(whole) - 1
    assert count.coalesced + count.lost == 1


@given(journals(), st.data())
def test_what_is_said_twice_is_a_duplicate_unless_it_was_allowed(
    done: list[Operation], data: st.DataObject
) -> None:
    whole = perfect(done)
    again = data.draw(st.sampled_from(whole))
    found = judge(done, sorted([*whole, again]))
    assert found.phases["journal"].told == len(whole)
    assert found.duplicated.total() + found.allowed.total() == 1
    assert not found.wrong_name.total()


@given(journals())
def test_a_name_to_which_nothing_happened_is_wrong(done: list[Operation]) -> None:
    found = judge(done, [*perfect(done), Report(10**6, "modified", "elsewhere/file")])
    assert found.wrong_name.total() == 1
    assert found.examples == [Report(10**6, "modified", "elsewhere/file")]


@given(journals())
def test_what_is_told_before_it_happens_was_not_told(done: list[Operation]) -> None:
    early = [one._replace(time=1) for one in perfect(done)]
    found = judge(done, early)
    assert found.phases["journal"].told == 0
    assert found.phases["journal"].lost == len(early)


@given(st.lists(st.integers(0, 30), min_size=2, max_size=30, unique=True))
def test_told_backwards_all_but_the_first_are_out_of_order(numbers: list[int]) -> None:
    done = operations(*(("create", f"f{number}") for number in numbers))
    backwards = [one._replace(time=10**6) for one in perfect(done)[::-1]]
    found = judge(done, backwards)
    assert found.phases["journal"].told == len(numbers)
    assert found.out_of_order.total() == len(numbers) - 1


def test_five_writes_told_as_one_are_four_coalesced_and_each_has_its_latency() -> None:
    done = operations(*[("append x5", "f")] * 5)
    count = judge(done, [Report(2000, "modified", "f")]).phases["journal"]
    assert (count.told, count.coalesced, count.lost) == (1, 4, 0)
    assert sorted(count.latencies) == [600, 700, 800, 900, 1000]


def test_a_duplicate_does_not_make_the_next_change_look_quick_or_slow() -> None:
    done = operations(("append", "f"), ("chmod", "g"), ("append", "f"))
    said = [Report(time, "modified", "f") for time in (1010, 1020, 1210, 1220)]
    found = judge(done, [said[0], said[1], Report(1110, "attributes", "g"), *said[2:]])
    assert found.phases["journal"].latencies == [10, 10, 10]
    assert found.duplicated.total() == 2
    assert not found.out_of_order.total()


def test_a_rename_as_deletion_and_creation_is_told_in_halves() -> None:
    done = operations(("rename across", "a/f", "b/f"))
    count = judge(done, [Report(1001, "deleted", "a/f"), Report(1002, "created", "b/f")])
    journal = count.phases["journal"]
    assert (journal.told, journal.halves, journal.misnamed) == (2, 2, 0)


def test_an_atomic_save_told_as_modification_of_the_name_is_exact() -> None:
    done = operations(("create", "f.tmp"), ("rename over", "f.tmp", "f"))
    said = [
        Report(1001, "created", "f.tmp"),
        Report(1101, "moved from", "f.tmp"),
        Report(1101, "modified", "f"),
    ]
    journal = judge(done, said).phases["journal"]
    assert (journal.facts, journal.told, journal.halves, journal.misnamed) == (3, 3, 0, 0)


def test_a_chmod_told_as_modification_is_misnamed() -> None:
    journal = judge(operations(("chmod", "f")), [Report(1001, "modified", "f")]).phases["journal"]
    assert (journal.told, journal.misnamed) == (1, 1)


@pytest.mark.parametrize(
    ("steps", "wrong"),
    [
        ([("append", "f")], 1),
        ([("create", "f")], 1),
        ([("unlink", "f")], 1),
        ([("create", "f"), ("append", "f"), ("unlink", "f")], 0),
        ([("create", "f"), ("rename over", "f", "g")], 1),  # that g changed
        ([("unlink", "f"), ("create", "f")], 2),  # another file than before
    ],
)
def test_a_loss_is_harmless_where_the_name_came_and_went(
    steps: list[tuple[str, str]], wrong: int
) -> None:
    count = judge(operations(*steps), []).phases["journal"]
    assert count.told == 0
    assert count.wrong == wrong


def test_what_goes_with_its_directory_need_not_be_told_by_itself() -> None:
    done = operations(("unlink", "d/e/f"), ("rm -r", "d/e"), ("rm -r", "d"))
    count = judge(done, [Report(2000, "deleted", "d")]).phases["journal"]
    assert (count.told, count.coalesced, count.lost) == (1, 2, 0)


def test_other_names_of_a_file_and_what_moves_with_a_directory_may_be_told() -> None:
    done = operations(
        ("create", "d/f"),
        ("hard link", "d/f", "g"),
        ("append", "g"),
        ("rename directory", "d", "e"),
    )
    said = [
        *perfect(done),
        Report(1250, "modified", "d/f"),
        Report(1350, "deleted", "d/f"),
        Report(1350, "created", "e/f"),
    ]
    found = judge(done, sorted(said))
    assert found.allowed.total() == 3
    assert not found.wrong_name.total() + found.duplicated.total()


def test_each_phase_is_counted_by_itself() -> None:
    done = operations(("create", "f"), ("append", "f"), ("append", "g"))
    kinds = [one.kind for one in done]
    reports = [Report(1010, "created", "f"), Report(1110, "modified", "f")]
    found = match(expected(done), reports, ["one", "two", "two"], kinds)
    assert found.phases["one"].told == found.phases["two"].told == found.phases["two"].lost == 1
    assert found.reports == Counter(one=1, two=1)
    assert found.spans == {"one": (1000, 1010), "two": (1100, 1110)}


@given(journals())
def test_a_journal_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, done: list[Operation]
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    save(path, done)
    assert load(path) == done


def test_an_empty_journal_is_one(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    save(path, [])
    assert load(path) == []
