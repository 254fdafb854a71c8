"""The registry of pollers: what it finds here, and what it says about the rest."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable

import pytest

import pollers
from pollers import __main__ as command
from pollers import limits, registry, watch
from pollers.base import Capability, Poller
from pollers.fake import FakePoller


def test_the_names_and_their_order() -> None:
    assert pollers.names() == ["epoll", "kqueue", "aio", "poll", "select"]


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ("linux", ["epoll", "aio", "poll", "select"]),
        ("freebsd14", ["kqueue", "poll", "select"]),
        ("darwin", ["kqueue", "poll", "select"]),
        ("sunos5", []),
    ],
)
def test_what_each_platform_should_have(platform: str, expected: list[str]) -> None:
    assert pollers.expected_names(platform) == expected


@pytest.mark.parametrize("name", pollers.expected_names())
def test_what_is_expected_here_works(name: str) -> None:
    found = pollers.probe(name)
    assert (found.available, found.reason) == (True, "")
    assert (found.name, found.expected, found.emulated) == (name, True, False)
    with pollers.create(name) as first, pollers.create(name) as second:
        assert first is not second
        assert (first.name, first.capabilities) == (name, found.capabilities)


def test_every_probe_has_an_answer() -> None:
    for found in pollers.probe_all():
        assert found.available != bool(found.reason)
        assert "\n" not in found.reason
        assert found.note
        assert json.loads(json.dumps(found.as_dict()))["name"] == found.name


def test_create_says_the_same_as_the_probe() -> None:
    for found in pollers.probe_all():
        if not found.available:
            with pytest.raises(pollers.Unavailable) as caught:
                pollers.create(found.name)
            assert str(caught.value) == found.reason


@pytest.mark.parametrize("ask", [pollers.create, pollers.probe])
def test_unknown_names_are_refused_with_the_known_ones(ask: Callable[[str], object]) -> None:
    with pytest.raises(pollers.UnknownPoller, match=r"'epol'.*epoll, kqueue, aio, poll, select"):
        ask("epol")
    assert issubclass(pollers.UnknownPoller, ValueError)
    assert issubclass(pollers.Unavailable, OSError)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Poller]], None]:
    """Makes the registry use another factory for "epoll"."""

    def use(factory: Callable[[], Poller]) -> None:
        entry = registry.Entry(factory, (sys.platform,), "for a test")
        monkeypatch.setitem(registry.ADAPTERS, "epoll", entry)

    return use


def failing(error: Exception) -> Callable[[], Poller]:
    def factory() -> Poller:
        raise error

    return factory


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSYS, "io_setup: Function not implemented"), "io_setup.*; use a kernel"),
        (OSError(errno.EPERM, "Operation not permitted"), "not permitted; use a container"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files; .*ulimit -n"),
        (OSError("in its own words"), "in its own words"),
        (OSError(errno.ENOSYS, "no AIO; build it in"), "no AIO; build it in$"),
        (pollers.Unavailable("what; why; what to do"), "^what; why; what to do$"),
        (ModuleNotFoundError("No module", name="numpy"), "needs the module numpy.*pip install"),
    ],
)
def test_a_factory_that_fails_is_a_reason(
    install: Callable[[Callable[[], Poller]], None], error: Exception, reason: str
) -> None:
    install(failing(error))
    found = pollers.probe("epoll")
    assert not found.available
    assert found.capabilities == Capability.NONE
    with pytest.raises(pollers.Unavailable, match=reason):
        pollers.create("epoll")


def test_a_bug_is_not_taken_for_absence(install: Callable[[Callable[[], Poller]], None]) -> None:
    install(failing(AttributeError("a typing error")))
    with pytest.raises(AttributeError):
        pollers.probe("epoll")


def test_the_probe_wants_to_see_the_event(
    install: Callable[[Callable[[], Poller]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[FakePoller] = []

    def silent() -> Poller:
        made.append(FakePoller(script=[[], []]))
        return made[-1]

    install(silent)
    monkeypatch.setattr(registry, "PROBE_TIMEOUT", 0.01)
    assert "did not report a readable socket" in pollers.probe("epoll").reason
    assert [call[0] for call in made[0].calls] == ["register", "poll", "unregister"] * 2
    assert made[0].closed


def test_the_probe_wants_to_see_nothing_else(
    install: Callable[[Callable[[], Poller]], None],
) -> None:
    class Eager(FakePoller):
        def poll(self, *args: object) -> pollers.Events:
            return [(fd, pollers.POLLIN) for fd in self.interests]

    install(Eager)
    assert "with nothing to read" in pollers.probe("epoll").reason


def in_python(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_imports_no_adapter() -> None:
    loaded = in_python("import sys, pollers; print(*sys.modules)").split()
    assert "pollers.base" in loaded
    assert not {"numpy", "ctypes", "pollers.epoll", "pollers.kqueue", "pollers.aio"} & set(loaded)


def test_after_gevents_monkey_patching() -> None:
    """`import locust` does that.  Nothing is used by accident that would block its hub."""
    program = """if True:
        from gevent import monkey
        monkey.patch_all()
        import pollers
        for name in ("epoll", "poll", "select"):
            print(pollers.probe(name).reason)
    """
    epoll, poll, select = in_python(program).splitlines()
    assert "gevent's monkey patching" in epoll
    assert "process of its own" in epoll
    assert "select.poll was replaced by gevent" in poll
    assert "select.select was replaced by gevent" in select


@pytest.mark.skipif("aio" not in pollers.expected_names(), reason="AIO is Linux's")
def test_without_numpy_only_aio_is_missing() -> None:
    program = """if True:
        import sys
        sys.modules["numpy"] = None
        import pollers
        for found in pollers.probe_all():
            print(found.name, found.available, found.reason)
    """
    lines = dict(line.split(" ", 1) for line in in_python(program).splitlines())
    assert lines["epoll"].startswith("True")
    assert "it needs the module numpy" in lines["aio"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = command.main(list(arguments))
    return status, capsys.readouterr().out


def test_the_command_prints_every_adapter_and_limit(capsys: pytest.CaptureFixture[str]) -> None:
    _, output = run(capsys)
    for name in [*pollers.names(), *watch.names(), *(limit.name for limit in limits.read())]:
        assert name in output


def test_the_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    _, output = run(capsys, "--json")
    report = json.loads(output)
    assert report["schema"] == 1
    assert [adapter["name"] for adapter in report["pollers"]] == pollers.names()
    assert [watcher["name"] for watcher in report["watchers"]] == watch.names()
    assert {"name", "value", "need", "enough", "meaning", "remedy"} == set(report["limits"][0])


def test_the_exit_status(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    install: Callable[[Callable[[], Poller]], None],
) -> None:
    fine = limits.judge("nofile", 20_000, 10_000, "files", "ulimit -n 10000")
    low = limits.judge("nofile", 1_000, 10_000, "files", "ulimit -n 10000")
    monkeypatch.setattr(limits, "read", lambda: [fine])
    assert run(capsys)[0] == 0
    monkeypatch.setattr(limits, "read", lambda: [fine, low])
    status, output = run(capsys)
    assert status == 1
    assert "nofile is too low: ulimit -n 10000\n" in output
    monkeypatch.setattr(limits, "read", lambda: [fine])
    install(failing(OSError(errno.ENOSYS, "Function not implemented")))
    status, output = run(capsys)
    assert status == 1
    assert "NO" in output


def test_the_command_line_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["--yaml"])
    assert caught.value.code == 2
    assert "--yaml" in capsys.readouterr().err
