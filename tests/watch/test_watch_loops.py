"""Watching under asyncio and trio, with a debounce, and from the command line."""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from watching import PATIENCE, read_until, readable

from pollers import watch
from pollers.watch import Change, Debounced, Kind, Watcher

# Loops.


@pytest.mark.asyncio
async def test_asyncio_iterates_over_changes(watcher: Watcher, tree: Path) -> None:
    watcher.add(tree)
    changes = watch.changes_asyncio(watcher)
    for name in "one", "two":
        (tree / name).mkdir()
        wanted = Change(Kind.CREATED, os.fsencode(tree / name), None, True)
        async with asyncio.timeout(PATIENCE):
            while wanted not in await anext(changes):
                pass
    await changes.aclose()


@pytest.mark.asyncio
async def test_a_cancelled_task_leaves_no_reader(watcher: Watcher, tree: Path) -> None:
    watcher.add(tree)
    changes = watch.changes_asyncio(watcher)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await anext(changes)
    assert not asyncio.get_running_loop().remove_reader(watcher.fileno())


@pytest.mark.trio
async def test_trio_iterates_over_changes(watcher: Watcher, tree: Path) -> None:
    watcher.add(tree)
    changes = watch.changes_trio(watcher)
    for name in "one", "two":
        (tree / name).mkdir()
        wanted = Change(Kind.CREATED, os.fsencode(tree / name), None, True)
        with trio.fail_after(PATIENCE):
            while wanted not in await anext(changes):
                pass
    await changes.aclose()


def test_importing_it_imports_no_loop() -> None:
    code = (
        "import sys, pollers.watch as w; w.create('auto').close(); "
        "print([m for m in ('trio', 'asyncio', 'numpy', 'pyinotify') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")


# Debounce.


def test_a_debounce_tells_once_and_by_itself(make: Callable[[], Watcher], tree: Path) -> None:
    (tree / "file").write_bytes(b"old")
    with Debounced(make(), 0.3) as watcher:
        watcher.add(tree)
        began = time.monotonic()
        (tree / "file~").write_bytes(b"new")
        os.replace(tree / "file~", tree / "file")
        told = read_until(watcher, Kind.MODIFIED, os.fsencode(tree / "file"))
        assert time.monotonic() - began >= 0.3
        assert told == [Change(Kind.MODIFIED, os.fsencode(tree / "file"))]
        assert watcher.read() == []
        assert not readable(watcher, 0)


def test_what_a_debounce_holds_of_what_was_removed_is_not_told(
    make: Callable[[], Watcher], tree: Path
) -> None:
    away = tree.parent / "outside"
    with Debounced(make(), 0.3) as watcher:
        watcher.add(tree)
        watcher.add(away)
        (tree / "file").mkdir()
        while not watcher._held:
            assert readable(watcher, PATIENCE)
            assert watcher.read() == []
        watcher.remove(tree)
        (away / "file").mkdir()
        told = read_until(watcher, Kind.CREATED, os.fsencode(away / "file"))
        assert {change.path for change in told} == {os.fsencode(away / "file")}


def test_a_debounce_has_a_time(make: Callable[[], Watcher]) -> None:
    with pytest.raises(ValueError, match="debounce"):
        Debounced(make(), 0)


# The registry.


def test_the_one_that_is_chosen_says_its_name() -> None:
    with watch.create() as watcher:
        assert watcher.name in watch.names()
    with pytest.raises(watch.UnknownWatcher, match="there are: inotify"):
        watch.create("dnotify")


def test_every_probe_tells_why_not_or_what_it_can() -> None:
    for found in watch.probe_all():
        if found.available:
            assert found.reason == ""
        else:
            assert found.reason.startswith(f"{found.name} cannot be used here: ")
            assert "; " in found.reason
        json.dumps(found.as_dict())


# The command line.


@pytest.fixture
def run(tree: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts `python -m pollers.watch`, and waits until it watches."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                [sys.executable, "-m", "pollers.watch", str(tree), *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stderr is not None
            assert b"watching" in process.stderr.readline()
            return process

        yield start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_changes_until_a_signal(
    run: Callable[..., subprocess.Popen[bytes]], tree: Path, number: int
) -> None:
    process = run("--json")
    os.mkdir(os.fsencode(tree) + b"/a\xff\n")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline()) == {
        "kind": "created",
        "path": f"{tree}/a\udcff\n",
        "directory": True,
    }
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (0, b"")
    assert b"1 created; 0 overflows" in err
    assert b"Traceback" not in err


def test_text_is_a_line_a_change(run: Callable[..., subprocess.Popen[bytes]], tree: Path) -> None:
    process = run("--no-recursive", "--debounce", "0.1", "--watcher", "stat", "--period", "0.02")
    os.mkdir(os.fsencode(tree) + b"/a\n")
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"created    b'")
    process.terminate()


def test_a_closed_pipe_ends_it_quietly(
    run: Callable[..., subprocess.Popen[bytes]], tree: Path
) -> None:
    process = run()
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(PATIENCE) == 0
    assert process.stderr is not None
    assert b"no changes" in process.stderr.read()


def test_a_signal_ends_it_where_nobody_reads(
    run: Callable[..., subprocess.Popen[bytes]], tree: Path
) -> None:
    process = run("--json")
    assert process.stdout is not None
    for number in range(2000):
        os.mkdir(tree / f"{number}")
    taken = array.array("i", [0])
    deadline = time.monotonic() + PATIENCE
    while taken[0] < 16_000:  # a tenth of all, and no more than a pipe holds
        assert time.monotonic() < deadline, taken
        fcntl.ioctl(process.stdout, termios.FIONREAD, taken)
    process.terminate()
    assert process.wait(PATIENCE) == 0
    assert process.stderr is not None
    assert b" created; 0 overflows" in process.stderr.read()


def test_it_ends_with_its_directory(
    run: Callable[..., subprocess.Popen[bytes]], tree: Path
) -> None:
    process = run()
    tree.rmdir()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert out.startswith(b"deleted")
    assert b"is gone" in err


@pytest.mark.parametrize(
    ("name", "why"), [("missing", "No such file"), ("file", "watch the directory that it is in")]
)
def test_what_cannot_be_watched_is_one_line(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, "-m", "pollers.watch", tmp_path / name],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert why in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_empty_path_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pollers.watch", ""], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "the path to watch is empty" in done.stderr
    assert "Traceback" not in done.stderr


# Time.


def test_a_timer_is_readable_when_its_time_has_come() -> None:
    from pollers.watch.waiting import AnyOf, Timer

    timer = Timer()
    both = AnyOf(timer.fileno())
    assert not select.select([both], [], [], 0)[0]
    began = time.monotonic()
    timer.set(0.05)
    assert select.select([both], [], [], PATIENCE)[0]
    assert time.monotonic() - began >= 0.05
    timer.clear()
    assert not select.select([both], [], [], 0)[0]
    timer.set(0)
    assert select.select([both], [], [], PATIENCE)[0]
    timer.set(60)
    assert not select.select([both], [], [], 0)[0]
    assert not os.get_inheritable(timer.fileno())
    for one in both, timer, both, timer:
        one.close()
