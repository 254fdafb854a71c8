"""One measurement: all swarms steady, then one window in which everything is read twice.

What this file is
-----------------
The swarms of a local runner are told together to warm up, and together when the window begins and
ends; the server's counters are asked for at the same two moments.  What the server spent is
divided by the messages that the *server* read between the two, so that neither a delay of some
milliseconds nor the thousands of messages that wait in sockets falsify it.

System calls are counted from outside in a short window of their own before that, as counting slows
each of them (_kernelcount.py).
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import gevent
from gevent.event import Event

from loadtest._attest import attest
from loadtest._figures import (
    bound,
    client_share,
    fairness_of,
    merged,
    responses,
    served,
    server_figures,
    throughput,
)
from loadtest._kernelcount import KernelCalls
from loadtest._options import Options
from loadtest._server import Server
from loadtest._swarm_link import CONNECT_TIMEOUT, SwarmLink
from loadtest._workload import FILE

logger = logging.getLogger(__name__)

SCHEMA: Final = 1
#: Seconds from an order to the moment that it names, and for its result to arrive.
LEAD, PATIENCE = 0.05, 10.0
#: Seconds of the window in which system calls are counted.
COUNTING: Final = 0.5
#: The part of the evicted pages, as far as was looked, that must have been gone.
KEPT_COLD: Final = 0.95
#: The part of a schedule that must have been answered for it to count as kept.
KEPT: Final = 0.99


class MeasurementError(Exception):
    """The measurement came to nothing; `str()` is one line."""


def write(path: str, result: dict[str, Any]) -> None:
    """Write a result to `path`, whole or not at all.  Raises OSError."""
    part = f"{path}.part"
    with open(part, "w", encoding="utf-8") as file:
        json.dump({"schema": SCHEMA, **result}, file)
        file.write("\n")
    os.replace(part, path)


class Measurement:
    """What is measured of one test: swarms register, lines come in, `run` returns the result."""

    def __init__(self, options: Options, server: Server | None, rss_empty: int | None) -> None:
        """`server` is None where Locust did not start it: its figures are then null."""
        self._options = options
        self._server = server
        self._rss_empty = rss_empty
        self._links: list[SwarmLink] = []
        self._lines: dict[str, dict[SwarmLink, dict[str, Any]]] = {}
        self._errors: Counter[str] = Counter()
        self._changed = Event()
        self._stop = Event()
        #: Whether the window has begun that lasts until `stop` is called.
        self.lasting = False
        self._notes: list[str] = []

    def add(self, link: SwarmLink) -> None:
        """A swarm has been started."""
        self._links.append(link)

    def take(self, link: SwarmLink, line: dict[str, Any]) -> None:
        """A line came from `link`."""
        if line["event"] == "sample":
            self._errors.update(line["errors"])
        else:
            self._lines.setdefault(line["event"], {})[link] = line
            self._changed.set()

    def stop(self) -> None:
        """End the window now, if it lasts until the test stops."""
        self._stop.set()

    def run(self, swarms: int) -> dict[str, Any]:
        """Wait for so many swarms, warm up, measure.  Raises MeasurementError, ServerError."""
        self._wait("connected", swarms, CONNECT_TIMEOUT + PATIENCE)
        links = list(self._lines["connected"])
        server = self._server
        rss_loaded = server.rss_kib() if server else None
        attestation = attest(server.pids, server.ready) if server else None
        warm_up = self._warm_up(links)
        calls, source = self._count_calls(links, server) if server else (None, None)
        before, window, after = self._window(links, self._read, self._options.measure)
        own = (after["locust_cpu"] - before["locust_cpu"]) / (after["read_at"] - before["read_at"])
        result: dict[str, Any] = {
            "cell": self._cell(swarms),
            "ready": server.ready if server else None,
            "attestation": attestation,
            **self._observed(window),
            "client": self._client(links, window, own),
            "warm_up": warm_up,
        }
        if server:
            messages, counted_by = self._served(before, after, window)
            figures = server_figures(before, after, messages, server.cores())
            figures["messages_counted_by"] = counted_by
            if calls is None:  # then the poller's own, without those that move bytes
                calls, source = figures["kernel_calls_per_message"], "adapter"
            figures["kernel_calls_per_message"] = calls
            figures["kernel_calls_source"] = source if calls is not None else None
            result["server"] = figures | self._memory(rss_loaded, swarms)
            result["bound"] = bound(figures["cpu_share"], result["client"]["cpu_share"])
        else:
            result["server"] = None
            result["bound"] = bound(None, result["client"]["cpu_share"])
        result["notes"] = self._notes
        return result

    # -- steps

    def _wait(self, event: str, count: int, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while len(self._lines.get(event, {})) < count:
            self._changed.clear()
            if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                done = len(self._lines.get(event, {}))
                raise MeasurementError(
                    f"{done} of {count} swarms were {event} after {timeout:g} s"
                )

    def _warm_up(self, links: list[SwarmLink]) -> dict[str, Any]:
        limit = self._options.warmup
        if not limit:
            return {"seconds": 0.0, "steady": False}
        for link in links:
            link.order("warm up", limit=limit)
        self._wait("steady", len(links), limit + PATIENCE)
        lines = self._lines["steady"].values()
        steady = all(line["steady"] for line in lines)
        return {"seconds": max(line["seconds"] for line in lines), "steady": steady}

    def _count_calls(
        self, links: list[SwarmLink], server: Server
    ) -> tuple[float | None, str | None]:
        """System calls of the server a message, counted by the kernel, or None."""
        calls = KernelCalls(server.pids)
        try:
            if calls.read() is None:
                self._notes.append(f"system calls not counted by the kernel: {calls.reason}")
                return None, None
            first, window, last = self._window(
                links, lambda: server.counters() | {"calls": calls.read()}, COUNTING
            )
        finally:
            calls.close()
        messages, _ = self._served(first, last, window)
        return (last["calls"] - first["calls"]) / messages if messages else None, "tracepoint"

    def _read(self) -> dict[str, Any]:
        """The CPU time of Locust's own process so far (seconds), and the server's counters."""
        own = {"locust_cpu": time.process_time(), "read_at": time.monotonic()}
        return own | (self._server.counters() if self._server else {})

    def _window(
        self, links: list[SwarmLink], read: Callable[[], dict[str, Any]], seconds: float
    ) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
        """`read()` at its beginning, what the swarms measured, `read()` at its end."""
        self._lines["measured"] = {}
        begin = time.monotonic() + LEAD
        for link in links:
            link.order("measure", at=begin, until=begin + seconds if seconds else None)
        gevent.sleep(max(0.0, begin - time.monotonic()))
        before = read()
        self.lasting = not seconds
        if seconds:
            gevent.sleep(max(0.0, begin + seconds - time.monotonic()))
        else:
            self._stop.wait()
            for link in links:
                link.order("end")
        after = read()
        self._wait("measured", len(links), PATIENCE)
        return before, list(self._lines["measured"].values()), after

    def _served(
        self, before: dict[str, Any], after: dict[str, Any], window: list[dict[str, Any]]
    ) -> tuple[float, str]:
        """How many messages the server served between two looks at it, and who counted them."""
        if self._options.workload == FILE.name:
            return responses(before, after, window)
        return served(before, after, self._options.message_size), "server"

    # -- parts of the result

    def _cell(self, swarms: int) -> dict[str, Any]:
        cell = self._options.cell()
        for name in ("connections", "active", "rate"):
            cell[name] = cell[name] and cell[name] * swarms
        if self._server:
            ready = self._server.ready
            cell |= {name: ready[name] for name in ("loop", "poller", "backend", "workers")}
        return cell

    def _observed(self, window: list[dict[str, Any]]) -> dict[str, Any]:
        service = merged([line["service"] for line in window])
        scheduled = [line["intended"] for line in window if line["intended"] is not None]
        intended = merged(scheduled) if scheduled else service
        rate, swarms = throughput(window), len(window)
        if scheduled and rate < KEPT * self._options.rate * swarms:
            self._notes.append(
                f"the schedule was not kept: {rate:.0f} of {self._options.rate * swarms:.0f} "
                "messages a second were answered, so latencies from intended send are the queue's"
            )
        return {
            "seconds": sum(line["until"] - line["from"] for line in window) / swarms,
            "messages": sum(line["messages"] for line in window),
            "throughput": rate,
            "errors": dict(self._errors),
            "latency": {"service": service.summary(), "intended": intended.summary()},
            "fairness": fairness_of(window),
            **(self._files(window) if self._options.workload == FILE.name else {}),
        }

    def _files(self, window: list[dict[str, Any]]) -> dict[str, Any]:
        """What a load of files observed besides."""
        labels = dict.fromkeys(label for line in window for label in line["sizes"])
        probed, cold = (sum(line[name] for line in window) for name in ("probed", "cold"))
        if cold < KEPT_COLD * probed:
            self._notes.append("not cold: the page cache kept part of what was evicted")
        return {
            "bytes": sum(line["bytes"] for line in window),
            "bytes_per_second": throughput(window, "bytes"),
            "compared": sum(line["compared"] for line in window),
            "cold": {"probed": probed, "cold": cold} if self._options.cache == "cold" else None,
            "sizes": {
                label: merged(
                    [line["sizes"][label] for line in window if label in line["sizes"]]
                ).summary()
                for label in labels
            },
        }

    def _client(
        self, links: list[SwarmLink], window: list[dict[str, Any]], own: float
    ) -> dict[str, Any]:
        """`own` is the share of a core that Locust itself used."""
        cpus = [link.cpu for link in links]
        shares = [line["cpu_seconds"] / (line["until"] - line["from"]) for line in window]
        share, cores = client_share(shares, cpus, self._options.load_cpus, own)
        first = self._lines["connected"][links[0]]
        return {
            "cpu_share": share,
            "cores": cores,
            "locust_share": own,
            "poller": first["poller"],
            "cpu": links[0].cpu,
            "processes": len(links),
            "connect_seconds": max(line["seconds"] for line in self._lines["connected"].values()),
        }

    def _memory(self, loaded: int | None, swarms: int) -> dict[str, Any]:
        empty = self._rss_empty
        known = empty is not None and loaded is not None
        grown = (loaded or 0) - (empty or 0)
        connections = (self._options.connections + self._options.slow_readers) * swarms
        return {
            "rss_empty_kib": empty,
            "rss_loaded_kib": loaded,
            "rss_per_connection_bytes": grown * 1024 / connections if known else None,
        }
