"""The Locust user that drives a block of connections in a helper process.

One such user stands for as many connections as --swarm-connections says.  What the helper observed
comes as histograms, once a second, and is merged into Locust's statistics (_stats.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Final

import gevent
from locust import User, task

from loadtest import _lifecycle, _stats
from loadtest._histogram import Histogram
from loadtest._swarm_link import SwarmLink, config

#: Seconds that a user waits to be stopped after its helper has ended.
STOPPED: Final = 60.0


class SwarmUser(User):
    """Starts a helper, takes its lines, ends it; `merge` is each workload's own."""

    abstract = True
    swarm = True
    _seeds = itertools.count(1)

    def on_start(self) -> None:
        self.test = _lifecycle.current(self.environment)
        self.link = SwarmLink(
            config(self.test.options, str(self.host), next(self._seeds), self.test.root),
            self.test.next_core(),
        )
        if self.test.measurement:
            self.test.measurement.add(self.link)

    def on_stop(self) -> None:
        for line in self.link.stop():
            self.take(line)

    @task
    def drive(self) -> None:
        """Take the helper's lines until the user is stopped."""
        for line in self.link.lines():
            self.take(line)
        _lifecycle.abort(self.environment, "a swarm's helper ended by itself", _lifecycle.BROKE)
        gevent.sleep(STOPPED)

    def take(self, line: dict[str, Any]) -> None:
        """Merge a sample into Locust's statistics; hand everything to the measurement."""
        match line["event"]:
            case "sample":
                self.merge(line)
            case "failed":
                _lifecycle.abort(self.environment, line["why"], _lifecycle.BROKE)
        if self.test.measurement:
            self.test.measurement.take(self.link, line)

    def merge(self, line: dict[str, Any]) -> None:
        """Merge one sample."""
        raise AssertionError(f"{type(self).__name__} does not say how its samples are merged")

    def merge_into(
        self,
        name: str,
        line: dict[str, Any],
        histogram: dict[str, Any],
        length: int,
        errors: Mapping[str, int],
        *,
        in_total: bool = True,
    ) -> None:
        """Add a histogram of `line`, of answers of `length` bytes, to the entry `name`."""
        _stats.merge(
            self.environment.stats,
            "SWARM",
            name,
            Histogram.from_json(histogram),
            length=length,
            seconds=line["until"] - line["from"],
            errors=errors,
            in_total=in_total,
        )
