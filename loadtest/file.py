"""Locustfile for file servers: `locust -f loadtest/ FileUser`.

`FileUser` is Locust's FastHttpUser: a connection in gevent, a file at a time.  `FileSwarm` drives
thousands of connections, some of them slow readers, in a helper process on pollmark's own pollers.
The files are generated (--file-mix), the server is started with the test, verified, and stopped
with it; `-H http://host:port` loads one that already serves what --file-root holds.

Every body is compared with what the file holds, byte by byte: any process of the load knows that
(_site.py), it tells more than a digest, and costs a tenth of one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from locust import FastHttpUser, task

from loadtest import _lifecycle
from loadtest._histogram import Histogram
from loadtest._shelf import HotShelf
from loadtest._site import File, Site
from loadtest._swarm_user import SwarmUser
from loadtest._testrun import START_ONE, TestRun
from loadtest._workload import FILE

_lifecycle.install()


class FileUser(FastHttpUser):
    """One connection; asks for a file, waits for it and compares it."""

    host = START_ONE
    workload = FILE.name

    def wait_time(self) -> float:
        return self.test.options.think_time

    def on_start(self) -> None:
        self.test = _lifecycle.current(self.environment)
        self.shared = _Shared.of(self.test)
        # Else every path would begin with two slashes.
        self.client.base_url = str(self.host).rstrip("/")

    @task
    def get(self) -> None:
        file = self.shared.take()
        site = self.shared.site
        label = site.mix[file.kind].label
        with self.client.get(f"/{file.path}", name=label, catch_response=True) as response:
            if getattr(response, "error", None):
                return  # no response at all: Locust reports why
            content = response.content or b""
            if response.status_code != 200:
                response.failure(f"status {response.status_code}")
            elif not site.holds(file, content):
                response.failure("wrong bytes" if len(content) == file.size else "wrong length")


class _Shared:
    """What all FileUsers of one test share: the files, and which is next."""

    _latest: _Shared | None = None

    def __init__(self, test: TestRun) -> None:
        self.test = test
        self.site: Site = test.site or Site(test.options.mix)
        self.take: Callable[[], File] = HotShelf(self.site, seed=0).take

    @classmethod
    def of(cls, test: TestRun) -> _Shared:
        if cls._latest is None or cls._latest.test is not test:
            cls._latest = cls(test)
        return cls._latest


class FileSwarm(SwarmUser):
    """A block of connections (--swarm-connections) in a helper process on pollmark's pollers."""

    host = START_ONE
    workload = FILE.name

    def merge(self, line: dict[str, Any]) -> None:
        sizes = {one.label: one.size for one in self.test.options.mix}
        for label, histogram in line["sizes"].items():
            self.merge_into(label, line, histogram, sizes[label], {})
        if line["errors"]:
            nothing = Histogram().to_json()
            self.merge_into(",".join(sizes), line, nothing, 0, line["errors"])
