"""Made-up measurements for the comparator's tests: the shape of a real one, figures as asked."""

from __future__ import annotations

import io
from typing import Any

from hdrh.histogram import HdrHistogram
from matplotlib.figure import Figure

from loadtest._cells import Cell, Load, Row


def histogram(*values: int) -> str:
    hdr = HdrHistogram(1, 3_600_000_000_000, 3)
    for value in values:
        hdr.record_value(value)
    return str(hdr.encode().decode())


HISTOGRAM = histogram(1000, 2000, 3000)

LOAD = Load("busy", 10_000, 10_000, 64)


def open_fonts() -> None:
    """Have matplotlib open its fonts, which it then keeps, before fds are counted."""
    figure = Figure()
    figure.text(0, 0, "x")
    figure.savefig(io.BytesIO(), format="svg")


def measurement(
    row: Row,
    throughput: float = 50_000.0,
    cpu: float = 12.0,
    bound: str = "server",
    load: Load = LOAD,
    **changes: Any,
) -> dict[str, Any]:
    latency = {
        "p50": 150_000.0,
        "p90": 180_000.0,
        "p99": 200_000.0,
        "p99.9": 210_000.0,
        "max": 220_000.0,
        "mean": 151_000.0,
        "histogram": HISTOGRAM,
    }
    made = {
        "schema": 1,
        "cell": Cell(row, load).as_dict(),
        "ready": {
            "server": row.server,
            "loop": row.loop,
            "poller": row.poller,
            "backend": row.backend,
        },
        "attestation": {"eventpoll": 1, "agrees": True, "why": "", "holds": "epoll"},
        "seconds": 1.0,
        "messages": int(throughput),
        "throughput": throughput,
        "errors": {},
        "latency": {"service": latency, "intended": latency},
        "fairness": {"min": 4, "median": 5, "max": 6, "jain": 0.99},
        "server": {
            "user_cpu_us_per_message": cpu * 0.25,
            "system_cpu_us_per_message": cpu * 0.75,
            "cpu_share": 0.97,
            "rss_per_connection_bytes": 512.0,
            "kernel_calls_per_message": 2.01,
            "kernel_calls_source": "tracepoint",
            "events_per_wakeup_mean": 128.0,
        },
        "client": {"cpu_share": 0.7, "poller": "epoll", "cpu": 1},
        "bound": bound,
        "warm_up": {"seconds": 0.5, "steady": True},
        "notes": [],
    }
    return made | changes
