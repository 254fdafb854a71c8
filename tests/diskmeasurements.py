"""Made-up measurements of the disk workload: the shape of real ones, figures as asked."""

from __future__ import annotations

from typing import Any

from compare_measurements import HISTOGRAM

from loadtest._disk_cells import ROWS, Cell, Load, Row

LOAD = Load("random", True, 64)
BY_KEY = {row.key: row for row in ROWS}


def cells(*keys: str, load: Load = LOAD) -> list[Cell]:
    return [Cell(BY_KEY[key], load) for key in ("aio", "aio-again", *keys)]


def measurement(row: Row, throughput: float = 50_000.0, **changes: Any) -> dict[str, Any]:
    times = {"p50": 1000.0, "p90": 1200.0, "p99": 2000.0, "p99.9": 4000.0, "max": 9000.0}
    latency = {**times, "mean": 1100.0, "histogram": HISTOGRAM}
    made = {
        "schema": 1,
        "cell": Cell(row, LOAD).as_dict(),
        "stayed": 0.0,
        "errors": {},
        "notes": [],
        "seconds": 0.5,
        "reads": int(throughput / 2),
        "throughput": throughput,
        "bytes_per_second": throughput * 4096,
        "latency": latency,
        "lag": None if row.loop in ("none", "fio") else latency,
        "reader": {
            "user_cpu_us_per_read": 4.0,
            "system_cpu_us_per_read": 6.0,
            "cpu_share": 0.5,
            "switches_per_read": 0.1,
            "submit_us_per_read": 2.0,
            "submit_switches_per_read": 0.0,
        },
        "holds": {"aio_rings": 1, "threads": 1},
        "checked": {"numbers": 0 if row.peer else int(throughput / 2), "digests": 16},
        "warm_up": {"seconds": 0.1, "steady": True},
    }
    return made | changes
