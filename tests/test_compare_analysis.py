"""What may be said of measurements, on made-up ones (compare_measurements.py)."""

from __future__ import annotations

import re
from typing import Any

import pytest
from compare_measurements import LOAD, measurement

from loadtest import _verdict
from loadtest._analyse import analyse
from loadtest._cells import BASELINE, CONTROL, Cell, Row
from loadtest._echo_cells import ROWS

BY_KEY = {row.key: row for row in ROWS}
#: What drifts from round to round, for all rows alike.
DRIFT = (1.0, 0.8, 0.9, 1.1, 0.95)


def run(rows: dict[str, dict[str, Any]], rounds: int = 5, **unavailable: str) -> dict[str, Any]:
    """The analysis of one load; each row's figures are for a quiet round and drift with it."""
    chosen = {BASELINE: {}, CONTROL: {}} | rows
    cells = [Cell(BY_KEY[key], LOAD) for key in [*chosen, *unavailable]]
    made = []
    for number in range(rounds):
        drift = DRIFT[number]
        of_round = {}
        for key, figures in chosen.items():
            if isinstance(figures.get(number), dict):  # what this one round gave instead
                of_round[f"{key}@busy"] = figures[number]
                continue
            figures = {name: one for name, one in figures.items() if isinstance(name, str)}
            wobble = 1 + 0.001 * ((number * 7 + len(key)) % 5 - 2)
            figures["throughput"] = figures.get("throughput", 50_000.0) * drift * wobble
            figures["cpu"] = figures.get("cpu", 12.0) / drift / wobble
            of_round[f"{key}@busy"] = measurement(BY_KEY[key], **figures)
        made.append(of_round)
    reasons = {f"{key}@busy": why for key, why in unavailable.items()}
    return analyse(cells, reasons, made)


def rows_of(analysis: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["key"]: one for one in analysis["loads"][0]["rows"]}


def failed(row: Row, why: str) -> dict[str, Any]:
    return {"schema": 1, "cell": Cell(row, LOAD).as_dict(), "failed": why}


def words(analysis: dict[str, Any]) -> str:
    return "\n".join([*_verdict.whole(analysis), *_verdict.of_load(analysis["loads"][0])])


def test_drift_that_all_rows_share_does_not_reach_the_ratio() -> None:
    found = rows_of(run({"aio": {"throughput": 60_000.0, "cpu": 10.0}}))["aio"]
    assert found["ratio"]["median"] == pytest.approx(1.2, rel=0.01)
    assert found["cost"]["median"] == pytest.approx(10 / 12, rel=0.01)
    assert found["ratio"]["shown"]
    assert found["ratio"]["high"] - found["ratio"]["low"] < 0.02


def test_the_winner_is_named_with_its_ratio_and_why() -> None:
    analysis = run(
        {
            "aio": {"throughput": 60_000.0, "cpu": 10.0},
            "poll": {"throughput": 25_000.0, "cpu": 24.0},
            "epoll-splice": {},
        }
    )
    load = analysis["loads"][0]
    assert load["basis"] == "ratio"
    assert load["ranking"][0] == "aio"
    assert load["ranking"][-1] == "poll"
    assert CONTROL not in load["ranking"]
    text = words(analysis)
    assert "aio served the most messages: 1.20 [1." in text
    assert "10.5 us of server CPU per message against 12.6" in text
    assert "Behind: poll 0.50" in text
    assert re.search(r"Less server CPU per message than epoll: aio 0\.8[34] \[", text)
    assert re.search(r"More server CPU per message than epoll: poll (1\.99|2\.0\d) \[", text)
    assert "No difference shown: epoll, splice 1.00" in text
    assert analysis["stable"] is True


def test_rows_that_overlap_with_the_winner_are_said_to() -> None:
    text = words(run({"aio": {"throughput": 60_000.0}, "epoll-splice": {"throughput": 60_010.0}}))
    assert "Not told apart from it: aio." in text or "Not told apart from it: epoll, sp" in text


def test_a_baseline_that_nothing_beats() -> None:
    assert "epoll is not beaten" in words(run({"poll": {"throughput": 25_000.0}}))


def test_a_control_that_differs_marks_the_run_unstable() -> None:
    analysis = run({CONTROL: {"throughput": 55_000.0}, "aio": {}})
    assert analysis["stable"] is False
    assert words(analysis).startswith("UNSTABLE: under busy")
    assert "UNSTABLE; " in words(analysis).splitlines()[-1]


def test_a_client_bound_row_is_not_ranked_by_throughput() -> None:
    analysis = run({"aio": {"throughput": 60_000.0, "bound": "client"}})
    assert rows_of(analysis)["aio"]["status"] == "client-bound"
    assert "aio" not in analysis["loads"][0]["ranking"]
    assert "Not ranked: aio (client-bound)" in words(analysis)


def test_a_client_bound_baseline_leaves_cpu_per_message_to_rank_by() -> None:
    analysis = run(
        {
            BASELINE: {"bound": "client"},
            CONTROL: {"bound": "client"},
            "aio": {"cpu": 9.0, "bound": "client"},
            "poll": {"throughput": 20_000.0, "cpu": 30.0},
        }
    )
    load = analysis["loads"][0]
    assert load["basis"] == "cost"
    assert load["ranking"] == ["aio", "epoll", "poll"]
    text = words(analysis)
    assert "throughput is not ranked" in text
    assert "aio needed the least CPU per message: 0.75 [0.7" in text


def test_one_failed_round_makes_a_row_failed_and_never_slow() -> None:
    row = BY_KEY["trio"]
    found = rows_of(run({"trio": {3: failed(row, "the server died")}}))["trio"]
    assert found["status"] == "failed"
    assert found["reason"] == "the server died (1 of 5 rounds)"
    assert found["throughput"] is None
    assert found["ratio"] is None


def test_errors_above_the_limit_are_not_ranked() -> None:
    analysis = run({"aio": {"errors": {"reset": 500}}, "poll": {"errors": {"reset": 2}}})
    found = rows_of(analysis)
    assert found["aio"]["status"] == "errors"
    assert "2,500 errors" in found["aio"]["reason"]
    assert found["poll"]["status"] == "ok"
    assert "aio (too many errors)" in words(analysis)


def test_a_server_that_holds_other_than_it_claims_is_not_ranked() -> None:
    lie = {"agrees": False, "why": "process 7 claims poll and holds epoll", "holds": "epoll"}
    analysis = run({"poll": {"throughput": 99_000.0, "attestation": lie}})
    assert rows_of(analysis)["poll"]["status"] == "mismatch"
    assert rows_of(analysis)["poll"]["reason"] == lie["why"]
    assert "poll" not in analysis["loads"][0]["ranking"]


def test_an_attestation_that_could_not_be_made_is_no_accusation() -> None:
    unknown = {"agrees": None, "why": "no /proc", "holds": ""}
    assert rows_of(run({"poll": {"attestation": unknown}}))["poll"]["status"] == "ok"


def test_an_emulated_row_is_shown_and_not_ranked() -> None:
    ready = {"loop": "reactor", "poller": "kqueue", "backend": "copy", "emulated": True}
    analysis = run({"kqueue": {"throughput": 99_000.0, "ready": ready}})
    found = rows_of(analysis)["kqueue"]
    assert found["status"] == "emulated"
    assert found["throughput"] is not None
    assert "kqueue" not in analysis["loads"][0]["ranking"]


def test_an_unavailable_row_has_its_reason_and_no_number() -> None:
    found = rows_of(run({}, select="fds below 1024"))["select"]
    assert (found["status"], found["reason"]) == ("unavailable", "fds below 1024")
    assert found["throughput"] is None


def test_a_failed_baseline_compares_nothing() -> None:
    analysis = run({BASELINE: {0: failed(BY_KEY[BASELINE], "no port")}, "aio": {}})
    assert analysis["loads"][0]["basis"] is None
    assert words(analysis).endswith("the baseline is failed: no port (1 of 5 rounds).")


@pytest.mark.parametrize("rounds", [0, 1])
def test_too_few_rounds_show_nothing(rounds: int) -> None:
    analysis = run({"poll": {"throughput": 10_000.0}}, rounds=rounds)
    assert analysis["stable"] is True
    text = "\n".join(_verdict.whole(analysis))
    assert ("No round" in text) if rounds == 0 else ("One round" in text)
    assert "Behind" not in words(analysis) if rounds else True


def test_what_was_measured_before_it_was_steady_is_said_in_one_line() -> None:
    late = {"seconds": 0.3, "steady": False}
    swift = {2: measurement(BY_KEY["aio"], warm_up=late)}
    text = words(run({"poll": {"warm_up": late}, "aio": swift}, rounds=3))
    (line,) = [line for line in text.splitlines() if "steady:" in line]
    assert line.endswith("was steady: poll in 3 of 3 rounds, aio in 1 of 3 rounds.")
    assert "steady:" not in words(run({"poll": {}}))


def test_notes_of_measurements_are_counted() -> None:
    text = words(run({"poll": {"notes": ["the schedule was not kept"]}}, rounds=3))
    assert "Notes of the measurements: the schedule was not kept (3 of 9)." in text


def test_the_pollers_own_calls_are_not_called_kernel_calls_per_message() -> None:
    def counted(source: str) -> dict[str, Any]:
        return measurement(BY_KEY[BASELINE])["server"] | {"kernel_calls_source": source}

    def said(base: str, best: str) -> str:
        rows = {BASELINE: {"server": counted(base)}}
        return words(run(rows | {"aio": {"throughput": 60_000.0, "server": counted(best)}}))

    assert "2.01 kernel calls per message against 2.01" in said("tracepoint", "tracepoint")
    own = said("adapter", "adapter")
    assert "2.01 poller calls (without recv and send) per message against 2.01" in own
    assert "kernel calls" not in own
    assert "calls" not in said("tracepoint", "adapter")


def test_a_run_that_could_show_only_huge_differences_says_so() -> None:
    jumpy = {n: measurement(BY_KEY[CONTROL], 50_000.0 * f) for n, f in enumerate((0.6, 1.6, 1.0))}
    analysis = run({CONTROL: jumpy}, rounds=3)
    assert words(analysis).startswith("NOISY")
