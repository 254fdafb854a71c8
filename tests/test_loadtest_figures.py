"""From two lines of counters and the swarms' windows to what is reported."""

from __future__ import annotations

from typing import Any

import pytest

from loadtest._figures import (
    bound,
    client_share,
    fairness_of,
    merged,
    responses,
    served,
    server_figures,
    summary,
    throughput,
)
from loadtest._histogram import Histogram


def counters(monotonic: float, **changes: Any) -> dict[str, Any]:
    return {
        "monotonic": monotonic,
        "user_cpu": 1.0,
        "system_cpu": 2.0,
        "voluntary_switches": 5,
        "involuntary_switches": 7,
        "stalls": 0,
        "received": 640,
        "kernel_calls": 100,
        "poller": {
            "polls": 10,
            "events": 40,
            "rearms": 3,
            "events_per_wakeup": {"4": 10},
        },
        **changes,
    }


BEFORE = counters(100.0)
AFTER = counters(
    102.0,
    user_cpu=1.5,
    system_cpu=3.0,
    involuntary_switches=17,
    stalls=2,
    received=640 + 2000 * 64,
    kernel_calls=600,
    poller={"polls": 30, "events": 1040, "rearms": 5, "events_per_wakeup": {"4": 10, "64": 20}},
)


def test_what_the_server_spent_is_divided_by_the_messages_that_it_read() -> None:
    assert served(BEFORE, AFTER, size=64) == 2000
    figures = server_figures(BEFORE, AFTER, 2000)
    assert figures["user_cpu_us_per_message"] == pytest.approx(250)
    assert figures["system_cpu_us_per_message"] == pytest.approx(500)
    assert figures["cpu_share"] == pytest.approx(0.75)
    assert (figures["voluntary_switches"], figures["involuntary_switches"]) == (0, 10)
    assert figures["stalls"] == 2
    assert figures["kernel_calls_per_message"] == pytest.approx(0.25)
    assert figures["events_per_wakeup"] == {"64": 20}
    assert figures["events_per_wakeup_mean"] == pytest.approx(50)
    assert figures["rearms"] == 2


def test_what_a_loop_does_not_count_is_null_and_so_is_a_share_of_nothing() -> None:
    silent = {"poller": None, "kernel_calls": None}
    figures = server_figures(counters(1.0, **silent), counters(2.0, **silent), 0)
    for name in ("kernel_calls_per_message", "events_per_wakeup", "rearms"):
        assert figures[name] is None
    idle = server_figures(BEFORE, AFTER, served(BEFORE, {**AFTER, "received": 640}, size=64))
    assert idle["user_cpu_us_per_message"] is None
    assert idle["kernel_calls_per_message"] is None
    assert idle["cpu_share"] == pytest.approx(0.75)


def test_what_a_peer_does_not_count_the_client_has_counted() -> None:
    window = [{"from": 0.0, "until": 2.0, "messages": 100}]
    own = {"requests": 5}, {"requests": 65}
    assert responses(BEFORE | own[0], AFTER | own[1], window) == (60, "server")
    assert responses(BEFORE, AFTER, window) == (100, "client")  # 50 a second, in 2 s
    silent = {name: BEFORE[name] for name in BEFORE if name not in ("stalls", "poller")}
    peer = {name: value for name, value in AFTER.items() if name != "stalls"}
    assert server_figures(silent, peer, 100)["stalls"] is None
    stalled = server_figures(BEFORE, AFTER | {"longest_stall": 0.25}, 100)
    assert stalled["longest_stall"] == 0.25


@pytest.mark.parametrize(
    ("server", "client", "who"),
    [
        (0.99, 0.99, "server"),
        (0.9, 0.2, "server"),
        (0.89, 0.95, "client"),
        (0.5, 0.5, "host"),
        (None, 0.95, "client"),
        (None, 0.5, None),
    ],
)
def test_the_bottleneck_is_who_used_up_a_core(
    server: float | None, client: float, who: str | None
) -> None:
    assert bound(server, client) == who


def test_workers_that_fill_their_cores_are_the_bottleneck_and_half_full_ones_are_not() -> None:
    # The counters of workers are sums: 0.75 cores together.
    assert server_figures(BEFORE, AFTER, 2000, cores=2)["cpu_share"] == pytest.approx(0.375)
    full = {**AFTER, "user_cpu": 2.9, "system_cpu": 4.0}
    assert bound(server_figures(BEFORE, full, 2000, cores=2)["cpu_share"], 0.1) == "server"
    half = {**AFTER, "user_cpu": 2.0, "system_cpu": 3.0}
    assert bound(server_figures(BEFORE, half, 2000, cores=2)["cpu_share"], 0.1) == "host"


@pytest.mark.parametrize(
    ("helpers", "cpus", "load_cpus", "share"),
    [
        ([0.8], [1], [1], 0.95),  # Locust runs on the helper's core
        ([0.8], [1], [1, 2], 0.8),  # it has one to itself
        ([0.8], [None], [], 0.8),  # nothing is pinned
        ([0.8, 0.6], [1, 2], [1, 2], 0.775),
        ([0.5, 0.3], [1, 1], [1], 0.95),
        ([0.8, 0.6], [None, None], [], 0.7),
    ],
)
def test_the_load_is_everything_on_its_cores(
    helpers: list[float], cpus: list[int | None], load_cpus: list[int], share: float
) -> None:
    found, cores = client_share(helpers, cpus, load_cpus, 0.15)
    assert found == pytest.approx(share)
    assert cores == (len(helpers) if None in cpus else len(set(cpus)))


def test_swarms_are_added_up_each_over_its_own_window() -> None:
    histogram = Histogram()
    histogram.record([1000, 3000])
    window = [
        {
            "from": 0.0,
            "until": seconds,
            "messages": 100,
            "fairness": {"min": n, "median": n + 1, "max": n + 2, "jain": 1.0},
        }
        for seconds, n in ((1.0, 5), (2.0, 1))
    ]
    assert throughput(window) == pytest.approx(150)
    assert fairness_of(window) == {"min": 1, "median": 4, "max": 7, "jain": 1.0}
    both = merged([histogram.to_json(), histogram.to_json()])
    assert (both.total, both.minimum, both.maximum) == (4, 1000, 3000)


def test_the_summary_is_one_line() -> None:
    latency = {"p50": 10.0, "p99": 20.0, "p99.9": 30.0}
    result: dict[str, Any] = {
        "seconds": 2.0,
        "throughput": 61_728.4,
        "errors": {"wrong bytes": 2, "closed by the server": 1},
        "latency": {"service": latency},
        "server": {"cpu_share": 0.99, "cores": 1},
        "client": {"cpu_share": 0.5, "cores": 2},
        "bound": "server",
        "warm_up": {"seconds": 1.0, "steady": True},
    }
    assert summary(result) == (
        "measured 2.0 s: 61728 messages/s, p50 10 us, p99 20 us, p99.9 30 us, 3 errors; "
        "server 99% of a core; load 50% of 2 cores; bound: server"
    )
    assert "before it was steady" in summary(result | {"warm_up": {"steady": False}})
    assert "server" not in summary(result | {"server": None, "bound": None})
    files = {"cell": {"workload": "file"}, "bytes_per_second": 123_456_789.0}
    assert "61728 requests/s, 123.5 MB/s, p50" in summary(result | files)
