"""nginx as a server under test, started and read like one of our own.

Facts about nginx
-----------------
*   `nginx -p DIR -c FILE` runs unprivileged where every path of its configuration lies below DIR
    and its port is above 1023.  As root its workers become another user, unless `user` names one.
*   A master process starts the workers, which serve.  They say nothing of themselves: their CPU
    time and context switches are read from the system (psutil), in ticks of 10 ms, and how many
    requests they served is what the client counted.  Its first worker is there when the port
    accepts.
*   It is set up for what the comparison asks: sendfile, tcp_nopush, open_file_cache, no access
    log, no end to a connection's requests.  `worker_cpu_affinity` takes masks; the workers are
    pinned here instead, before any load.
*   It cannot choose a free port by itself.  One is found by binding, and another one tried where
    somebody else was quicker.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import gevent
import psutil

from loadtest import _affinity, _peers
from loadtest._attest import look
from loadtest._options import Options
from loadtest._server import START_TIMEOUT, Server, ServerError, ServerUnavailable
from pollers.limits import BACKLOG, raise_nofile

#: Ports that are tried, and seconds between looks at a server that starts.
TRIES, LOOK = 3, 0.02

CONFIGURATION: Final = """\
daemon off;
{user}
worker_processes {workers};
worker_rlimit_nofile {nofile};
pid {prefix}/nginx.pid;
error_log stderr error;
events {{
    worker_connections {connections};
}}
http {{
    access_log off;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    open_file_cache max=16384 inactive=1h;
    open_file_cache_valid 60s;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    reset_timedout_connection on;
    client_body_temp_path {prefix}/body;
    proxy_temp_path {prefix}/proxy;
    fastcgi_temp_path {prefix}/fastcgi;
    uwsgi_temp_path {prefix}/uwsgi;
    scgi_temp_path {prefix}/scgi;
    server {{
        listen {host}:{port} backlog={backlog};
        root {root};
    }}
}}
"""


class Nginx(Server):
    """One nginx with its workers, from `start` to `stop`; the system counts for it."""

    def __init__(self, options: Options, root: Path, on_death: Callable[[str], None]) -> None:
        self._options = options
        self._root = root
        self._prefix = tempfile.mkdtemp(prefix="pollmark-nginx-")
        super().__init__([], on_death)

    def start(self) -> dict[str, Any]:
        """Start it; return a ready line as ours give one.  Raises ServerError."""
        if why := _peers.missing("nginx"):
            raise ServerUnavailable(why)
        asked = self._options.server_port
        for attempt in range(TRIES):
            port = asked or _free_port(self._options.server_host)
            try:
                return self._start_on(port)
            except ServerUnavailable:
                if asked or attempt == TRIES - 1:
                    raise
        raise AssertionError("unreachable")

    def counters(self) -> dict[str, Any]:
        """What the workers have used so far.  Raises ServerError where one has ended."""
        line: dict[str, Any] = {"monotonic": time.monotonic(), "user_cpu": 0.0, "system_cpu": 0.0}
        line |= {"voluntary_switches": 0, "involuntary_switches": 0}
        try:
            for pid in self.pids:
                worker = psutil.Process(pid)
                used, switches = worker.cpu_times(), worker.num_ctx_switches()
                line["user_cpu"] += used.user
                line["system_cpu"] += used.system
                line["voluntary_switches"] += switches.voluntary
                line["involuntary_switches"] += switches.involuntary
        except psutil.NoSuchProcess as error:
            raise ServerError(f"a worker of nginx has ended: pid {error.pid}") from error
        return line

    def stop(self) -> dict[str, Any] | None:
        if self.launched:
            super().stop()
        shutil.rmtree(self._prefix, ignore_errors=True)
        return None

    def _start_on(self, port: int) -> dict[str, Any]:
        options = self._options
        nofile, _ = raise_nofile()
        text = CONFIGURATION.format(
            user=_user(),
            workers=options.workers,
            nofile=nofile,
            prefix=self._prefix,
            connections=nofile - 16,
            host=options.server_host,
            port=port,
            backlog=BACKLOG,
            root=self._root,
        )
        configuration = Path(self._prefix, "nginx.conf")
        configuration.write_text(text)
        program = _peers.program("nginx") or "nginx"
        self.launch([program, "-p", self._prefix, "-c", str(configuration), "-e", "stderr"])
        master, workers = self._await(port)
        for number, pid in enumerate(workers):
            if options.server_cpus:
                core = options.server_cpus[number % len(options.server_cpus)]
                _affinity.pin(pid, [core])
        self.ready = {
            "ready": True,
            "server": "nginx",
            "url": f"http://{options.server_host}:{port}/",
            "pid": master,
            "pids": workers,
            "loop": "nginx",
            "poller": _poller(workers[0]),
            "backend": "sendfile",
            "emulated": False,
            "workers": options.workers,
        }
        return self.ready

    def _await(self, port: int) -> tuple[int, list[int]]:
        """The pids of the master and of its workers, once it accepts."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and not self.ended:
            master = self._master()
            if master is not None:
                workers = [one.pid for one in master.children()]
                if len(workers) == self._options.workers and self._accepts(port):
                    return master.pid, workers
            gevent.sleep(LOOK)
        said = self.last_error()
        late = not self.ended
        self.stop_process()
        if late:
            raise ServerError(f"nginx did not accept within {START_TIMEOUT:g} s")
        raise ServerUnavailable(said or "nginx ended at once and said nothing")

    def _master(self) -> psutil.Process | None:
        try:
            return psutil.Process(int(Path(self._prefix, "nginx.pid").read_text()))
        except (OSError, ValueError, psutil.NoSuchProcess):
            return None

    def _accepts(self, port: int) -> bool:
        try:
            with socket.create_connection((self._options.server_host, port), timeout=1.0):
                return True
        except OSError:
            return False


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as sock:
        return int(sock.getsockname()[1])


def _poller(pid: int) -> str | None:
    """What the worker is seen to wait on: it says nothing of it, and chooses by itself."""
    try:
        return "epoll" if look(pid)["eventpoll"] else None
    except OSError:
        return None


def _user() -> str:
    """Keeps the workers ours where we are root: the files are."""
    if os.geteuid():
        return ""
    return f"user {pwd.getpwuid(0).pw_name} {grp.getgrgid(0).gr_name};"
