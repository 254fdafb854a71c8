"""What is said of measured watchers: ratios, limits, and where each one lies."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from loadtest._watch_analyse import analyse
from loadtest._watch_cells import Load, WatchCell
from loadtest._watch_rows import BASELINE, CONTROL, ROWS
from loadtest._watch_table import TABLES, ordered
from loadtest._watch_terminal import show
from loadtest._watch_words import headlines, lies, listed, whole

LOAD = Load(files=10_000)
KEYS = (BASELINE, CONTROL, "watchdog", "watchfiles-1ms", "kqueue")
COUNTS = ("facts", "told", "halves", "misnamed", "coalesced", "lost", "wrong")
REPORTS = ("reports", "duplicated", "allowed", "wrong_name", "out_of_order", "operations")


def kind(facts: int, **counts: int) -> dict[str, int]:
    """Counts of one kind, all told unless something else is said."""
    rest = counts.get("coalesced", 0) + counts.get("lost", 0)
    return dict.fromkeys(COUNTS, 0) | {"facts": facts, "told": facts - rest} | counts


def phase(**values: Any) -> dict[str, Any]:
    latency = {"p50": 100.0, "p90": 200.0, "p99": 300.0, "max": 400.0, "mean": 100.0}
    return {
        **kind(1000),
        **dict.fromkeys(REPORTS, 0),
        "reports": 1000,
        "operations": 1000,
        "ended": True,
        "telling": False,
        "seconds": 0.5,
        "told_per_second": 100_000.0,
        "taken_per_second": None,
        "written_per_second": 100_000.0,
        "cpu_us": 2.0,
        "user_cpu_us": 1.0,
        "latency": latency,
        **values,
    }


def measurement(
    cell: WatchCell, rate: float = 100_000.0, p50: float = 100.0, **values: Any
) -> dict[str, Any]:
    journal, flood = phase(), phase(told_per_second=rate)
    backlog = phase(taken_per_second=2 * rate)
    journal["latency"] = journal["latency"] | {"p50": p50}
    mark = {"rss": 1 << 20, "fds": 5}
    return {
        "schema": 1,
        "cell": cell.as_dict(),
        "ready": {
            "seconds": 0.1,
            "before": mark,
            "after": {"rss": 3 << 20, "fds": 6},
            "about": {},
        },
        "holds": {"inotify": 1, "fanotify": 0, "watches": 101},
        "done": {"overflows": 0},
        "phases": {
            "journal": journal,
            "flood": flood,
            "hold": phase(),
            "fresh": phase(taken_per_second=rate / 2),
            "backlog-1": backlog,
            "backlog-2": backlog | {"taken_per_second": 1.0},
            "backlog-3": backlog,
            "burst": phase(),
        },
        "kinds": {"create": kind(100), "append": kind(100)},
        "wrong_names": [],
        **values,
    }


def cells() -> list[WatchCell]:
    return [WatchCell(ROWS[key], LOAD) for key in KEYS]


def analysed(rounds: int = 6, **rates: float) -> dict[str, Any]:
    factors = {"watchdog": 0.2, "watchfiles-1ms": 0.9} | rates
    made = [
        {
            cell.key: measurement(
                cell, 100_000 * factors.get(cell.row.key, 1.0) * (1 + number / 1000)
            )
            for cell in cells()[:-1]
        }
        for number in range(rounds)
    ]
    return analyse(cells(), {cells()[-1].key: "there is none; get one"}, made)


def row_of(**values: Any) -> dict[str, Any]:
    """One analysed row whose measurement has these values."""
    made = cells()[0]
    found = analyse([made], {}, [{made.key: measurement(made, **values)}] * 2)
    row: dict[str, Any] = found["loads"][0]["rows"][0]
    return row


def test_the_fastest_peer_is_named_with_its_ratio_and_interval() -> None:
    (load,) = analysed()["loads"]
    backlog, fresh, first, second, third, fourth = headlines(load)
    assert backlog == (
        "inotify takes in 200,500 changes a second of a backlog without loss; the fastest peer, "
        "watchfiles, step 1 ms, 0.90 [0.90, 0.90] x that (worse)."
    )
    assert fresh == (
        "Where each file is written for the first time, it takes in 50,125 a second; "
        "watchfiles, step 1 ms 0.90 [0.90, 0.90] x that (worse)."
    )
    assert "it sustains 100,250 changes a second without loss" in first
    assert "watchfiles, step 1 ms 0.90 [0.90, 0.90] x that (worse)" in first
    assert second.startswith("Half of the changes are known within 0.100 ms (inotify)")
    assert "no difference shown" in second
    assert third == (
        "inotify takes 2.0 us of CPU for a change; the cheapest peer, watchdog, "
        "1.00 [1.00, 1.00] x that (no difference shown)."
    )
    assert fourth.startswith("A/A: the same watcher again takes in 1.00")
    assert fourth.endswith("differences below 0.0% and 0.0% could not have been shown.")


def test_the_writer_was_the_limit_where_little_was_on_the_way() -> None:
    # 100,000 a second for 100 us each are 10 on the way, of 4,096 that may be.
    (load,) = analysed()["loads"]
    assert load["rows"][0]["limit"] == "writer"
    assert "and more: the writer could do no more" in headlines(load)[2]
    late = phase(latency=phase()["latency"] | {"mean": 40_000.0})
    kept = measurement(cells()[0])["phases"]
    assert row_of(phases=kept | {"flood": late})["limit"] == "watcher"


def test_a_row_that_cannot_run_says_why_and_has_no_figures() -> None:
    (load,) = analysed()["loads"]
    kqueue = load["rows"][-1]
    assert lies(kqueue) == ["unavailable: there is none; get one"]
    assert kqueue["sustained"] is None
    assert [row["key"] for row in ordered(load)] == [*KEYS[:2], "watchfiles-1ms", "watchdog"]


def test_a_control_that_differs_makes_the_run_unstable() -> None:
    assert analysed()["stable"]
    other = analysed(**{CONTROL: 1.5})
    assert not other["stable"]
    assert whole(other)[0].startswith("UNSTABLE")


def test_a_run_without_a_control_says_so() -> None:
    (load,) = analyse(cells()[:1], {}, [{(c := cells()[0]).key: measurement(c)}] * 2)["loads"]
    assert headlines(load)[-1].startswith("The A/A control has no figures")
    (load,) = analysed(rounds=1)["loads"]
    assert headlines(load)[-1].endswith("one round cannot tell noise from a difference.")


def test_one_failed_round_makes_a_row_failed() -> None:
    cell = cells()[0]
    failed = {"schema": 1, "cell": cell.as_dict(), "failed": "the reporter ended: why"}
    made = [{cell.key: measurement(cell)}, {cell.key: failed}]
    (row,) = analyse([cell], {}, made)["loads"][0]["rows"]
    assert (row["status"], row["reason"]) == ("failed", "the reporter ended: why (1 of 2 rounds)")
    assert row["sustained"] is None


def test_memory_and_descriptors_are_for_ten_thousand_files() -> None:
    row = row_of()
    assert (row["rss"], row["fds"], row["watches"]) == (2048, 1, 101)


def test_who_tells_everything_is_said_to() -> None:
    assert lies(row_of()) == ["told everything, once and in order"]


def test_who_does_nearly_is_not_said_to_tell_everything() -> None:
    kept = measurement(cells()[0])["phases"]
    few = phase(**kind(1000, lost=3, duplicated=2))
    assert lies(row_of(phases=kept | {"journal": few})) == [
        "told nearly everything: of 2,000 facts 6 lost and 4 told twice"
    ]


def test_a_loss_in_the_flood_is_said() -> None:
    kept = measurement(cells()[0])["phases"]
    made = [measurement(cell, phases=kept | {"flood": phase(lost=10)}) for cell in cells()[:2]]
    found = analyse(cells()[:2], {}, [{one["cell"]["key"]: one for one in made}] * 2)
    (load,) = found["loads"]
    assert "changes a second losing 20 of 2,000" in headlines(load)[2]
    assert lies(load["rows"][0]) == ["loses 20 of 2,000 also where the writer waits for it"]


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ({"append x5": kind(50, coalesced=40)}, "5 equal writes in a row are told as 1.0"),
        ({"mmap write": kind(10, lost=10, wrong=10)}, "writes through mmap are unseen"),
        (
            {"create": kind(100, lost=10, wrong=7)},
            "does not tell of 20 of 200 create; 14 of them leave a wrong picture",
        ),
        (
            {"create": kind(100, lost=10)},
            "does not tell of 20 of 200 create, none of which matters later",
        ),
        ({"chmod": kind(10, misnamed=10)}, "tells of chmod as of something else"),
        (
            {"rename across": kind(10, halves=10)},
            "a rename is a deletion and a creation (rename across)",
        ),
        (
            {"append": kind(100, coalesced=30)},
            "merges changes of one name: append are told by a later report",
        ),
    ],
)
def test_each_lie_about_a_kind_of_change_has_its_words(kinds: dict[str, Any], said: str) -> None:
    assert lies(row_of(kinds=kinds)) == [said]


@pytest.mark.parametrize(
    ("name", "values", "overflows", "said"),
    [
        ("journal", {"wrong_name": 3}, 0, "names what nothing had happened to 6 times"),
        (
            "journal",
            {"out_of_order": 250},
            0,
            "order is lost: 25% of what it tells comes after something later",
        ),
        ("journal", {"duplicated": 100}, 0, "tells 200 of 2,000 reports twice"),
        (
            "burst",
            {"lost": 10, "told": 990},
            0,
            "of a burst of 1,000 it loses 1.0% for good, and it does not say so",
        ),
        ("burst", {"lost": 10, "told": 990}, 1, "for good, and it says so"),
        (
            "burst",
            {"lost": 10, "told": 990, "ended": False, "telling": True},
            0,
            "of a burst of 1,000 1.0% is not told 4 s later, while reports still come "
            "(2 of 2 rounds)",
        ),
        ("hold", {"ended": False}, 0, "the end 2 times of the hold was not told within 4 s"),
        (
            "burst",
            {},
            1,
            "a burst of 1,000 overflows it, which it says; looking again finds all 0.5 s after "
            "the first",
        ),
    ],
)
def test_each_lie_of_a_phase_has_its_words(
    name: str, values: dict[str, Any], overflows: int, said: str
) -> None:
    phases = measurement(cells()[0])["phases"]
    phases[name] = phases[name] | values
    (found,) = lies(row_of(phases=phases, done={"overflows": overflows}))
    assert said in found


def test_a_write_through_mmap_is_seen_late_where_closes_are_told() -> None:
    made = measurement(cells()[0])["ready"]
    made["about"] = {"capabilities": ["names", "close_write"]}
    row = row_of(ready=made, kinds={"mmap write": kind(10, lost=10, wrong=10)})
    assert lies(row) == ["writes through mmap are unseen, until the file is closed"]


def test_every_table_has_a_cell_for_each_heading() -> None:
    (load,) = analysed()["loads"]
    for _, headings, line in TABLES:
        for row in ordered(load):
            assert len(line(row)) == len(headings)


@pytest.mark.parametrize("width", [60, 80, 100, 150])
def test_a_narrow_terminal_gets_more_tables_and_every_figure(width: int) -> None:
    found = analysed()
    output = io.StringIO()
    test = {"shown": True, "said": "The watcher was stopped."}
    results = {"analysis": found, "stopped": "", "self_test": test}
    show(Console(file=output, width=width), results)
    text = output.getvalue()
    assert "\u2026" not in text  # an ellipsis, where a cell was cut
    (load,) = found["loads"]
    for title, headings, line in TABLES:
        assert title in " ".join(text.split())
        assert all(word in text for heading in headings for word in heading.split("\n"))
        assert all(cell in text for row in ordered(load) for cell in line(row))


def test_words_are_listed_as_people_do() -> None:
    assert [listed(words) for words in (["a"], ["a", "b"], ["a", "b", "c"])] == [
        "a",
        "a and b",
        "a, b and c",
    ]
