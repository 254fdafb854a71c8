"""What happens around a test, whatever it loads: server started, verified, watched, stopped.

Facts about Locust's events (2.47)
----------------------------------
*   `test_start` is fired on a local runner, on a master and on each worker; the master fires it
    before it tells the workers, with `environment.host` in what it tells them.  So the master
    starts the one server and sets `host`, and every user finds the address in `self.host`.
*   An exception in a listener is logged with a traceback and the test goes on.  GreenletExit ends
    the starting greenlet in silence, after one line of ours.
*   `test_stop` comes after the users of a local runner have stopped, but when a master *quits*, it
    comes before the workers are told.  There the server is stopped at `quitting`.
*   `quit` comes last, whatever happened: nothing started here is left running after it.
*   `environment.process_exit_code` wins over Locust's own idea of the exit code.
*   gevent counts a timer from when its loop last looked at the clock.  Importing takes a second or
    more without it, which --run-time would be short of: so it is made to look at `init`.
*   A SIGINT raises KeyboardInterrupt in whichever greenlet runs, and Locust's statistics printer
    takes it for its own end: the test goes on.  So here it is always thrown into the main one.
*   --processes forks workers that keep --json-file, alone of what only a master can write: each of
    them writes its own statistics there, which are empty, and whoever is last has written it.
"""

from __future__ import annotations

import logging
import math
import signal
from typing import Any, Final
from weakref import WeakKeyDictionary

import gevent
from locust import events
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtest import _options, _stats
from loadtest._options import BadOption, Options
from loadtest._server import ServerError, ServerUnavailable
from loadtest._sources import parse_url
from loadtest._testrun import TestRun, end, own_urls
from loadtest._users import is_swarm, unnamed, workloads_of
from loadtest._workload import ECHO, FILE
from pollers.limits import OTHER_FDS, raise_nofile

logger = logging.getLogger(__name__)

#: A worker's message to its master: the test cannot go on.
ABORT: Final = "pollmark_abort"
#: The users of each workload that are measured, and the scheme of its servers' addresses.
SWARMS: Final = {ECHO.name: "EchoSwarm", FILE.name: "FileSwarm"}
SCHEMES: Final = {ECHO.name: "tcp", FILE.name: "http"}
#: Exit codes: what was asked for cannot run; something broke while it ran.
CANNOT_RUN, BROKE = 2, 1


_tests: WeakKeyDictionary[Environment, TestRun] = WeakKeyDictionary()


def current(environment: Environment) -> TestRun:
    """The test that is running.  Raises KeyError before there was one."""
    return _tests[environment]


def abort(environment: Environment, why: str, code: int) -> None:
    """End the test, and Locust unless it has a web UI, with one line and an exit code."""
    runner = environment.runner
    assert runner is not None
    if isinstance(runner, WorkerRunner):
        runner.send_message(ABORT, {"why": why, "code": code})
        return
    if environment.process_exit_code:  # what follows from the first failure is no news
        return
    logger.error("%s", why)
    environment.process_exit_code = code
    runner.log_exception("local", why, why)
    if environment in _tests:
        kind = "unavailable" if code == CANNOT_RUN else "failed"
        _tests[environment].write({kind: why})
    gevent.spawn(end, environment)


def check(environment: Environment, options: Options) -> None:
    """Raise BadOption for what the runner and the limits make impossible."""
    runner: Any = environment.runner
    swarms = [is_swarm(user) for user in environment.user_classes]
    if options.measurement_out and (isinstance(runner, MasterRunner) or not any(swarms)):
        raise BadOption(
            f"--measurement-out measures {SWARMS[options.workload]} in one Locust process: name "
            "it, and leave out --processes, --master and --worker"
        )
    alone = swarms == [True] and runner.target_user_count == 1
    if options.cache == "cold" and (isinstance(runner, MasterRunner) or not alone):
        raise BadOption(
            "--cache cold is for one FileSwarm, whose helper evicts the files: name it alone, "
            "with -u 1, and leave out --processes, --master and --worker"
        )
    given = environment.host if environment.host not in own_urls else None
    if given:
        try:
            parse_url(given, SCHEMES[options.workload])
        except ValueError as error:
            raise BadOption(f"--host {error}") from error
    nofile, _ = raise_nofile()
    largest = nofile - OTHER_FDS
    if len(swarms) != 1:
        return
    each = options.connections + options.slow_readers if swarms == [True] else 1
    nodes = runner.worker_count if isinstance(runner, MasterRunner) else 1
    users = runner.target_user_count
    in_one = each if swarms == [True] else math.ceil(users / max(nodes, 1))
    whole = 0 if given else users * each / options.workers
    if in_one > largest or whole > largest:
        raise BadOption(
            f"{max(in_one, math.ceil(whole))} connections do not fit in one process's {nofile} "
            f"file descriptors: use at most {largest}, or raise the limit as root before "
            f"(prlimit --pid $$ --nofile={max(in_one, math.ceil(whole)) + OTHER_FDS})"
        )


def install() -> None:
    """Register the listeners, once, however many locustfiles call it."""
    _stats.install()
    hooks: dict[Any, Any] = {
        events.init_command_line_parser: _options.add,
        events.init: _on_init,
        events.test_start: _on_test_start,
        events.spawning_complete: _on_spawning_complete,
        events.test_stopping: _on_test_stopping,
        events.test_stop: _on_test_stop,
        events.quitting: _on_quitting,
        events.quit: _on_quit,
    }
    for hook, listener in hooks.items():
        if listener not in hook._handlers:
            hook.add_listener(listener)


def _on_init(environment: Environment, runner: Any, **_: Any) -> None:
    gevent.get_hub().loop.update_now()
    main = gevent.getcurrent()
    gevent.signal_handler(signal.SIGINT, lambda: gevent.kill(main, KeyboardInterrupt))
    options: Any = environment.parsed_options
    if not options.user_classes and not options.class_picker:
        usual = unnamed(environment.user_classes, options.server)
        environment.user_classes[:] = usual or environment.user_classes
    if isinstance(runner, WorkerRunner) and options.processes:
        options.json_file = None
    if isinstance(runner, MasterRunner):
        runner.register_message(
            ABORT, lambda environment, msg: abort(environment, msg.data["why"], msg.data["code"])
        )


def _on_test_start(environment: Environment, **_: Any) -> None:
    environment.process_exit_code = None
    try:
        parsed: Any = environment.parsed_options
        worker = isinstance(environment.runner, WorkerRunner)
        # A worker may know more classes than run, but gets its master's options.
        workloads = {parsed.workload} if worker else workloads_of(environment.user_classes)
        options = _options.read(parsed, workloads)
        parsed.workload = options.workload
        _tests[environment] = test = TestRun(
            environment, options, lambda why: abort(environment, why, BROKE)
        )
        if not worker:
            check(environment, options)
        else:
            raise_nofile()
        test.start()
    except (BadOption, ServerError) as error:
        bad = isinstance(error, BadOption | ServerUnavailable)
        abort(environment, str(error), CANNOT_RUN if bad else BROKE)
        raise gevent.GreenletExit from error


def _on_spawning_complete(user_count: int, **_: Any) -> None:
    for environment, test in list(_tests.items()):
        if test.local:
            assert environment.runner is not None
            counts = environment.runner.user_classes_count
            swarms = {user.__name__ for user in environment.user_classes if is_swarm(user)}
            test.begin_measurement(sum(counts.get(name, 0) for name in swarms))


def _on_test_stopping(environment: Environment, **_: Any) -> None:
    if environment in _tests:
        _tests[environment].end_measurement()


def _on_test_stop(environment: Environment, **_: Any) -> None:
    test, runner = _tests.get(environment), environment.runner
    if test is None:
        return
    test.unpin()
    if not isinstance(runner, MasterRunner) or runner.user_count == 0:
        test.stop_server()


def _on_quitting(environment: Environment, **_: Any) -> None:
    if environment in _tests and isinstance(environment.runner, MasterRunner):
        _tests[environment].stop_server()


def _on_quit(**_: Any) -> None:
    for test in list(_tests.values()):
        test.stop_server()
