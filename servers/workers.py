"""One process, or several that share a port, behind one ready line and one line of counters.

Facts
-----
*   Each worker has a listening socket of its own (SO_REUSEPORT, or SO_REUSEPORT_LB), and the
    kernel spreads connections by a hash of their addresses.  Nothing is shared, nothing herds.
*   FreeBSD deals connections out to every socket that is bound with SO_REUSEPORT_LB, whether it
    listens or not (sys/netinet/in_pcb.c, in_pcbinslbgrouphash; later releases wait for listen(2)),
    and refuses those of one that does not.  So no socket only holds the port: the parent binds
    the workers' own, each worker listens on its one, and then it says that it is ready.
*   Workers are forked before any poller exists: a kqueue is not inherited, an AIO context
    belongs to one address space, an epoll would be shared.
*   SO_REUSEPORT also lets a second server of the same user join a port in silence, so a port
    that was asked for is first bound without it.
*   Ctrl-C reaches the whole process group.  Workers keep SIGINT blocked: the parent's SIGTERM
    would be their second signal, which ends the drain.
*   A worker prints into a pipe to the parent, whose end of file is also the news of its death.
    The other way round the kernel signals the worker when the parent dies: none is left behind.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final, Generic, TypeAlias

import pollers
from pollers import system
from pollers.base import POLLIN
from servers import cli, lifecycle
from servers.cli import OptionsT
from servers.lifecycle import CannotServe, log
from servers.listen import bind, listen, url
from servers.reactor import Reactor

#: Counters of which the sum of several workers is the highest.
HIGHEST: Final = ("monotonic", "longest_stall")

Announce: TypeAlias = Callable[..., None]
Serve: TypeAlias = Callable[[OptionsT, socket.socket, Announce], None]


def run(server: str, options: OptionsT, serve: Serve[OptionsT], scheme: str = "tcp") -> int:
    """Serve with `options.workers` processes until signalled; return the exit code.

    `scheme` is that of the URL in the ready line.

    Raises CannotServe.
    """
    pollers.raise_nofile()
    if options.workers == 1:
        with bind(options.host, options.port) as listener:
            _work(server, options, serve, listener, 0, scheme)
        return 0
    if options.port:
        bind(options.host, options.port).close()
    with ExitStack() as stack:
        listeners = [stack.enter_context(bind(options.host, options.port, share=True))]
        host, port = listeners[0].getsockname()[:2]
        try:
            while len(listeners) < options.workers:
                listeners.append(stack.enter_context(bind(host, port, share=True)))
        except OSError as error:
            raise _cannot_start(len(listeners) + 1, options.workers, error) from None
        parent = _Parent(server, options, serve, listeners, scheme)
    return parent.run()


def _work(
    server: str,
    options: OptionsT,
    serve: Serve[OptionsT],
    listener: socket.socket,
    i: int,
    scheme: str,
) -> None:
    if options.cpus:
        try:
            system.pin(options.cpus[i % len(options.cpus)])
        except OSError as error:
            raise CannotServe(f"--cpu: {error}") from None
    listen(listener)
    address = url(listener, scheme)

    serving = False

    def announce(**actual: Any) -> None:
        nonlocal serving
        serving = True
        pid = os.getpid()
        lifecycle.say(cli.ready(options, server, address, pid=pid, pids=[pid], **actual))

    try:
        serve(options, listener, announce)
    except OSError as error:
        if serving:
            raise
        # Starting needs fds and kernel memory (an AIO ring, a pipe): say which call was refused.
        raise CannotServe(f"{error}; `python -m pollers` shows the limits") from error


class _Worker:
    """What the parent knows of one child process."""

    def __init__(self, pid: int, pipe: int) -> None:
        self.pid = pid
        self.pipe = pipe
        self.unread = b""
        self.final: dict[str, Any] | None = None
        self.code: int | None = None

    def lines(self, data: bytes) -> list[dict[str, Any]]:
        *whole, self.unread = (self.unread + data).split(b"\n")
        return [json.loads(line) for line in whole]


class _Parent(Generic[OptionsT]):
    """Starts the workers, passes signals on, adds up what they say."""

    def __init__(
        self,
        server: str,
        options: OptionsT,
        serve: Serve[OptionsT],
        listeners: list[socket.socket],
        scheme: str,
    ) -> None:
        """Start a worker for each of `listeners`, which are then its own and closed here."""
        self._server = server
        self._options = options
        self._serve = serve
        self._listeners = listeners
        self._scheme = scheme
        self._url = url(listeners[0], scheme)
        self._workers = {worker.pipe: worker for worker in self._start_all()}
        self._left = dict(self._workers)
        self._ready: list[dict[str, Any]] = []
        self._snapshots: dict[int, dict[str, Any]] = {}
        self._stopping = False
        self._trouble = ""

    def run(self) -> int:
        with pollers.create("poll") as poller:
            self._reactor = Reactor(poller)
            for number in lifecycle.STOP_SIGNALS:
                self._reactor.on_signal(number, self._stop)
            self._reactor.on_signal(lifecycle.COUNTERS_SIGNAL, self._ask)
            for worker in self._workers.values():
                self._reactor.add(worker.pipe, POLLIN, self._reader(worker))
            self._reactor.run()
        for worker in self._workers.values():
            os.close(worker.pipe)
        if self._trouble:
            raise CannotServe(self._trouble)
        finals = [worker.final for worker in self._workers.values() if worker.final]
        if finals:
            lifecycle.say(_sum(finals))
        return max(abs(worker.code or 0) for worker in self._workers.values())

    def _start_all(self) -> list[_Worker]:
        workers: list[_Worker] = []
        try:
            for i in range(self._options.workers):
                workers.append(self._start(i, workers))
        except OSError as error:
            for worker in workers:
                os.kill(worker.pid, signal.SIGKILL)
                os.waitpid(worker.pid, 0)
                os.close(worker.pipe)
            raise _cannot_start(len(workers) + 1, self._options.workers, error) from None
        return workers

    def _start(self, i: int, others: list[_Worker]) -> _Worker:
        read_fd, write_fd = os.pipe()
        sys.stdout.flush()
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            os.close(read_fd)
            os.close(write_fd)
            raise
        if pid == 0:
            os._exit(self._child(i, parent, write_fd, [read_fd, *(one.pipe for one in others)]))
        os.close(write_fd)
        self._listeners[i].close()
        return _Worker(pid, read_fd)

    def _child(self, i: int, parent: int, stdout: int, foreign: list[int]) -> int:
        """All that a worker does.  Nothing is raised: above stands the parent's code."""
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            for fd in foreign:
                os.close(fd)
            os.dup2(stdout, 1)
            os.close(stdout)
            try:
                system.die_with_parent(signal.SIGTERM)
            except OSError as error:
                raise CannotServe(f"--workers: {error}; use --workers 1") from None
            if os.getppid() != parent:  # it was dead before the kernel was asked to tell
                return 1
            for later in self._listeners[i + 1 :]:
                later.close()
            with self._listeners[i] as listener:
                _work(self._server, self._options, self._serve, listener, i, self._scheme)
        except CannotServe as error:
            lifecycle.say({"error": str(error)})
            return 2
        except BaseException:
            traceback.print_exc()
            return 1
        return 0

    def _reader(self, worker: _Worker) -> Callable[[int], None]:
        def on_readable(bits: int) -> None:
            data = os.read(worker.pipe, 65536)
            if not data:
                self._gone(worker)
            for line in worker.lines(data):
                self._hear(worker, line)

        return on_readable

    def _hear(self, worker: _Worker, line: dict[str, Any]) -> None:
        if "error" in line:
            self._trouble = self._trouble or line["error"]
        elif "ready" in line:
            self._ready.append(line)
            if len(self._ready) == len(self._workers):
                pids = [ready["pid"] for ready in self._ready]
                lifecycle.say(line | {"url": self._url, "pid": os.getpid(), "pids": pids})
        elif line["final"]:
            worker.final = line
        else:
            # By worker: of signals in quick succession one may answer more than another, and one
            # that has ended answers no more, but what it counted still counts.
            self._snapshots[worker.pid] = line
            workers = self._workers.values()
            known = [self._snapshots.get(one.pid) or one.final for one in workers]
            told = [each for each in known if each is not None]
            if len(told) == len(known):
                lifecycle.say(_sum(told) | {"final": False})
                self._snapshots.clear()

    def _gone(self, worker: _Worker) -> None:
        self._reactor.remove(worker.pipe)
        _, status = os.waitpid(worker.pid, 0)
        worker.code = os.waitstatus_to_exitcode(status)
        del self._left[worker.pipe]
        if not self._stopping:
            self._trouble = self._trouble or (
                f"worker {worker.pid} ended by itself (exit code {worker.code}); "
                "the others were stopped"
            )
            self._stop()
        if not self._left:
            self._reactor.stop()

    def _stop(self) -> None:
        self._stopping = True
        self._signal(signal.SIGTERM)

    def _ask(self) -> None:
        self._snapshots.clear()
        self._signal(lifecycle.COUNTERS_SIGNAL)

    def _signal(self, number: int) -> None:
        for worker in self._left.values():
            try:
                os.kill(worker.pid, number)
            except ProcessLookupError:  # it is dead already; its end of file is on the way
                log(f"worker {worker.pid} is gone")


def _cannot_start(worker: int, workers: int, error: OSError) -> CannotServe:
    return CannotServe(
        f"cannot start worker {worker} of {workers}: {error.strerror}; "
        "ask for fewer --workers, or raise `ulimit -n` and `ulimit -u`"
    )


def _sum(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """One counters line for all workers: numbers added, buckets too, peak RSS included."""
    total: dict[str, Any] = {}
    for line in lines:
        for key, value in line.items():
            if isinstance(value, dict):
                total[key] = _sum([total.get(key) or {}, value])
            elif isinstance(value, bool) or value is None:
                total[key] = value
            elif key in HIGHEST:
                total[key] = max(value, total.get(key, 0.0))
            else:
                total[key] = total.get(key, 0) + value
    if "pid" in total:
        total["pid"] = os.getpid()
    return total
