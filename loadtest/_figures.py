"""From what the swarms and the server said to the figures that are reported.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from loadtest._histogram import Histogram
from loadtest._workload import ECHO, WORKLOADS

#: A core's share from which on a process was limited by it.
SATURATED: Final = 0.9


def merged(parts: list[dict[str, Any]]) -> Histogram:
    """The sum of histograms as they came in lines."""
    total = Histogram()
    for part in parts:
        total.add(Histogram.from_json(part))
    return total


def throughput(window: list[dict[str, Any]], what: str = "messages") -> float:
    """Messages (or bytes) a second of all swarms, each over its own window."""
    rates = (float(line[what] / (line["until"] - line["from"])) for line in window)
    return sum(rates)


def fairness_of(window: list[dict[str, Any]]) -> dict[str, float]:
    """The fairness of one swarm; of several the extremes, and medians and indices averaged."""
    parts = [line["fairness"] for line in window]
    return {
        "min": min(part["min"] for part in parts),
        "median": sum(part["median"] for part in parts) / len(parts),
        "max": max(part["max"] for part in parts),
        "jain": sum(part["jain"] for part in parts) / len(parts),
    }


def client_share(
    helpers: Sequence[float], cpus: Sequence[int | None], load_cpus: Sequence[int], locust: float
) -> tuple[float, int]:
    """How full the load's cores were, 1 being full, and how many they are.

    `helpers` are the shares of a core that the swarms' helpers used, `cpus` the cores that they
    are pinned to (None: not pinned), `locust` is the share that Locust itself used.  Locust counts
    where every core that it may run on (`load_cpus`) has a helper, as it then takes its time from
    them; with a core to spare it does not.
    """
    if None in cpus:
        return sum(helpers) / len(helpers), len(helpers)
    shared = bool(load_cpus) and set(load_cpus) <= set(cpus)
    cores = len(set(cpus))
    return (sum(helpers) + (locust if shared else 0.0)) / cores, cores


def bound(server: float | None, client: float) -> str | None:
    """Who was the bottleneck, from how full the cores of each were; None: unknown."""
    if server is not None and server >= SATURATED:
        return "server"
    if client >= SATURATED:
        return "client"
    return None if server is None else "host"


def served(before: dict[str, Any], after: dict[str, Any], size: int) -> float:
    """Messages of `size` bytes that an echo server read between two lines of its counters.

    The client's count will not do: at a window's edges thousands of messages wait in sockets.
    """
    return float(after["received"] - before["received"]) / size


def responses(
    before: dict[str, Any], after: dict[str, Any], window: list[dict[str, Any]]
) -> tuple[float, str]:
    """Responses that a file server began between two lines of its counters, and who says so.

    A peer counts none: then it is what the swarms took, scaled to the time between the lines.
    """
    if "requests" in before and "requests" in after:
        return float(after["requests"] - before["requests"]), "server"
    return throughput(window) * (after["monotonic"] - before["monotonic"]), "client"


def server_figures(
    before: dict[str, Any], after: dict[str, Any], messages: float, cores: int = 1
) -> dict[str, Any]:
    """What the server spent on each of `messages` between two lines of counters.

    `cores` is how many it can fill; `cpu_share` is of all of them.
    """

    def spent(name: str) -> float:
        return float(after[name] - before[name])

    span = after["monotonic"] - before["monotonic"]
    counted = before.get("kernel_calls") is not None and after.get("kernel_calls") is not None
    figures: dict[str, Any] = {
        "user_cpu_us_per_message": spent("user_cpu") * 1e6 / messages if messages else None,
        "system_cpu_us_per_message": spent("system_cpu") * 1e6 / messages if messages else None,
        "cpu_share": (spent("user_cpu") + spent("system_cpu")) / span / cores,
        "cores": cores,
        "voluntary_switches": int(spent("voluntary_switches")),
        "involuntary_switches": int(spent("involuntary_switches")),
        "stalls": int(spent("stalls")) if "stalls" in after else None,
        "longest_stall": after.get("longest_stall"),
        "kernel_calls_per_message": spent("kernel_calls") / messages
        if counted and messages
        else None,
        "events_per_wakeup_mean": None,
        "events_per_wakeup": None,
        "rearms": None,
    }
    first, last = before.get("poller"), after.get("poller")
    if first and last:
        sizes = {
            bucket: count - first["events_per_wakeup"].get(bucket, 0)
            for bucket, count in last["events_per_wakeup"].items()
        }
        polls = last["polls"] - first["polls"]
        figures["events_per_wakeup"] = {bucket: n for bucket, n in sizes.items() if n}
        figures["events_per_wakeup_mean"] = (
            (last["events"] - first["events"]) / polls if polls else None
        )
        figures["rearms"] = last["rearms"] - first["rearms"]
    return figures


def summary(result: dict[str, Any]) -> str:
    """A measurement in one line."""
    service = result["latency"]["service"]
    rate = result.get("bytes_per_second")
    units = WORKLOADS[result.get("cell", {}).get("workload", ECHO.name)].units
    line = (
        f"measured {result['seconds']:.1f} s: {result['throughput']:.0f} {units}/s, "
        + (f"{rate / 1e6:.1f} MB/s, " if rate is not None else "")
        + f"p50 {service['p50']:.0f} us, p99 {service['p99']:.0f} us, "
        f"p99.9 {service['p99.9']:.0f} us, {sum(result['errors'].values())} errors"
    )
    for name, who in (("server", "server"), ("client", "load")):
        if used := result[name]:
            of = "a core" if used["cores"] == 1 else f"{used['cores']} cores"
            line += f"; {who} {used['cpu_share']:.0%} of {of}"
    line += f"; bound: {result['bound'] or 'unknown'}"
    return line if result["warm_up"]["steady"] else f"{line}; begun before it was steady"
