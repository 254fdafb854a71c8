"""One test on one node: its server, its pinning and its measurement, from start to stop."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

import gevent
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtest import _affinity, _measurement
from loadtest._figures import summary
from loadtest._measurement import Measurement, MeasurementError
from loadtest._nginx import Nginx
from loadtest._options import BadOption, Options
from loadtest._pagecache import why_never_cold
from loadtest._server import Server, ServerError, ServerUnavailable, command
from loadtest._site import Site
from loadtest._verify import verify_echo, verify_files
from loadtest._workload import FILE

logger = logging.getLogger(__name__)

#: Seconds for a measurement to end when the test is stopped.
END_TIMEOUT: Final = 15.0

Fail: TypeAlias = Callable[[str], None]

#: What stands in the web form where no host was given, and means that a server is to be started.
START_ONE: Final = "start a server"
#: Hosts that are none of the user's: that, and the addresses of servers that were started here,
#: which the web form may send back after their end.
own_urls: set[str] = {START_ONE}


class TestRun:
    """One test on one node, from its start to its stop."""

    def __init__(self, environment: Environment, options: Options, fail: Fail) -> None:
        """`fail` ends the test, with one line."""
        self.environment = environment
        self.options = options
        self._fail = fail
        self.server: Server | None = None
        self.measurement: Measurement | None = None
        self.measuring: gevent.Greenlet | None = None
        self._affinity: list[int] = []
        self._given_host = environment.host
        self._swarms = max(0, getattr(environment.runner, "worker_index", 0))
        self._written = False
        #: What a file server is to serve, and where that is; None where nothing of it is known.
        self.site: Site | None = None
        self.root: Path | None = None
        self._scratch = ""

    @property
    def local(self) -> bool:
        """Whether this node both owns the server and runs the users."""
        return not isinstance(self.environment.runner, MasterRunner | WorkerRunner)

    def start(self) -> None:
        """Start and verify the server, or verify the one that runs.  Raises ServerError."""
        if isinstance(self.environment.runner, WorkerRunner):
            self._pin()
            return
        if self._given_host in own_urls:
            self._given_host = None
        rss_empty = None
        if self.options.workload == FILE.name:
            self._make_files()
        if self._given_host:
            self._verify(self._given_host)
        else:
            self.server = self._make_server()
            ready = self.server.start()
            own_urls.add(self.server.url)
            self._verify(self.server.url)
            self.environment.host = self.server.url
            rss_empty = self.server.rss_kib()
            logger.info(
                "server under test: %s on %s, %s/%s/%s%s, pid %s",
                ready["server"],
                ready["url"],
                ready["loop"],
                ready["poller"],
                ready["backend"],
                " (emulated)" if ready["emulated"] else "",
                ready["pid"],
            )
        if self.local:
            self.measurement = Measurement(self.options, self.server, rss_empty)
            self._pin()

    def _make_files(self) -> None:
        """Write the document root.  Raises BadOption, ServerError."""
        options = self.options
        try:
            self.site = Site(options.mix, options.cache, options.active)
        except ValueError as error:
            raise BadOption(f"--cache {options.cache}: {error}") from error
        if not options.file_root and not self._given_host:
            self._scratch = tempfile.mkdtemp(prefix="pollmark-files-")
        if chosen := options.file_root or self._scratch:
            self.root = Path(chosen).absolute()
            try:
                self.site.write(self.root)
            except OSError as error:
                raise BadOption(
                    f"the files cannot be written to {self.root}: {error.strerror}; name another "
                    "directory by --file-root"
                ) from error
        if options.cache == "cold":
            if self.root is None:
                raise BadOption("--cache cold evicts files: name their directory by --file-root")
            if why := why_never_cold(self.root):
                raise ServerUnavailable(f"--cache cold is not possible: {why}")

    def _make_server(self) -> Server:
        if self.options.server == "nginx":
            assert self.root is not None
            return Nginx(self.options, self.root, self._fail)
        return Server(command(self.options, self.root), self._fail)

    def _verify(self, url: str) -> None:
        if self.site is not None:
            verify_files(url, self.site)
        else:
            verify_echo(url)

    def next_core(self) -> int | None:
        """The core for the next swarm's helper."""
        cores = self.options.load_cpus
        self._swarms += 1
        return cores[(self._swarms - 1) % len(cores)] if cores else None

    def begin_measurement(self, swarms: int) -> None:
        """All users were spawned: measure, if any of them are swarms of this node."""
        if self.measurement and swarms and self.measuring is None:
            self.measuring = gevent.spawn(self._measure, self.measurement, swarms)

    def end_measurement(self) -> None:
        """The users are about to be stopped."""
        if self.measurement is None:
            return
        self.measurement.stop()
        if self.measuring:
            ends = self.measurement.lasting and not self.environment.process_exit_code
            self.measuring.join(END_TIMEOUT if ends else 0)
            self.measuring.kill()
        if self.options.measurement_out and not self._written:
            why = "the test was stopped before the measurement was complete"
            logger.error("%s: let it run longer", why)
            self.environment.process_exit_code = self.environment.process_exit_code or 1
            self.write({"failed": why})

    def stop_server(self) -> None:
        """Stop the server that was started here, and say what it did.  May be repeated."""
        server, self.server = self.server, None
        if server is None:
            self._remove_files()
            return
        counters = server.stop()
        self._remove_files()
        self.environment.host = self._given_host
        if counters:
            logger.info(
                "server stopped: %d connections, %.2f s of user and %.2f s of system CPU, "
                "%d resets, %d stalls",
                counters["accepted"],
                counters["user_cpu"],
                counters["system_cpu"],
                counters["resets"],
                counters["stalls"],
            )

    def _remove_files(self) -> None:
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = ""

    def unpin(self) -> None:
        """Let Locust run on every core again."""
        if self._affinity:
            _affinity.pin(os.getpid(), self._affinity)
            self._affinity = []

    def write(self, result: dict[str, Any]) -> None:
        """Write the measurement's file, if one is wanted and none was written yet."""
        path = self.options.measurement_out
        if not path or self._written or isinstance(self.environment.runner, WorkerRunner):
            return
        self._written = True
        try:
            _measurement.write(path, {"cell": self.options.cell(), **result})
        except OSError as error:
            logger.error("the measurement cannot be written to %s: %s", path, error.strerror)
            self.environment.process_exit_code = 1

    def _pin(self) -> None:
        if self.options.load_cpus:
            self._affinity = _affinity.cores_of(os.getpid())
            _affinity.pin(os.getpid(), self.options.load_cpus)

    def _measure(self, measurement: Measurement, swarms: int) -> None:
        try:
            result = measurement.run(swarms)
        except (MeasurementError, ServerError) as error:
            self._fail(str(error))
            return
        self.write(result)
        logger.info("%s", summary(result))
        if self.options.measure:
            gevent.spawn(end, self.environment)


def end(environment: Environment) -> None:
    """Stop the test, and Locust with it unless it has a web UI to go on with."""
    assert environment.runner is not None
    if environment.web_ui is None:
        environment.runner.quit()
    else:
        environment.runner.stop()
