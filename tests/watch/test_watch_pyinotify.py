"""What is done about pyinotify's defects; the contract is in test_watch_contract_*.py."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from adapters import available
from watching import Copy, names, settle

from pollers import watch
from pollers.watch.base import Change, Kind
from pollers.watch.pyinotify import Package, PyinotifyWatcher


@pytest.fixture
def watcher() -> Iterator[PyinotifyWatcher]:
    with available("pyinotify")() as watcher:
        assert isinstance(watcher, PyinotifyWatcher)
        yield watcher


def test_its_fd_does_not_block_and_is_not_inherited(watcher: PyinotifyWatcher) -> None:
    fd = watcher._inotify.fileno()
    assert not os.get_blocking(fd)
    assert not os.get_inheritable(fd)


def test_it_runs_on_the_packages_own_classes(watcher: PyinotifyWatcher) -> None:
    import pyinotify

    package = watcher._inotify
    assert isinstance(package, Package)
    assert isinstance(package._manager, pyinotify.WatchManager)
    assert isinstance(package._notifier, pyinotify.Notifier)
    assert isinstance(package._notifier.proc_fun(), pyinotify.ProcessEvent)


def test_a_name_that_is_no_utf_8_makes_it_look_again(
    watcher: PyinotifyWatcher, tree: Path
) -> None:
    """The package has read the buffer and raises in the middle of it."""
    watcher.add(tree)
    copy = Copy(tree)
    directory = os.fsencode(tree)
    for name in (b"before", b"\xff", b"after"):
        os.mkdir(directory + b"/" + name)
    told = settle(watcher, tree)
    assert Change(Kind.OVERFLOW, directory, None, True) in told
    copy.apply(told)
    assert copy.names == names(tree)


def test_it_logs_nothing_of_what_is_no_error(
    watcher: PyinotifyWatcher,
    tree: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Events of watches that were removed, and directories that were moved out."""
    (tree / "below").mkdir()
    (tree / "away").mkdir()
    watcher.add(tree, recursive=True)
    watcher.add(tree / "away")
    (tree / "below" / "file").touch()
    (tree / "away").rename(tree.parent / "outside" / "away")
    (tree / "below" / "file").unlink()
    (tree / "below").rmdir()
    watcher.remove(tree)
    assert watcher.read() == []
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_its_logger_speaks_again_afterwards(watcher: PyinotifyWatcher, tree: Path) -> None:
    import pyinotify

    watcher.add(tree)
    (tree / "file").touch()
    settle(watcher, tree)
    assert not pyinotify.log.disabled


def test_a_watch_that_ended_is_forgotten(watcher: PyinotifyWatcher, tree: Path) -> None:
    (tree / "below").mkdir()
    watcher.add(tree, recursive=True)
    (tree / "below").rmdir()
    settle(watcher, tree)
    watcher.remove(tree)
    watcher.read()
    package = watcher._inotify
    assert isinstance(package, Package)
    assert package._manager.watches == {}


def test_closing_closes_its_fd_once(watcher: PyinotifyWatcher) -> None:
    """The package's two ways to close share a number, which may be another file's by then."""
    fd = watcher._inotify.fileno()
    watcher.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    pipe = os.pipe()
    watcher.close()
    for end in pipe:
        os.close(end)


@pytest.mark.parametrize(
    ("module", "package"), [("asyncore", "pyasyncore"), ("pyinotify", "pyinotify")]
)
def test_without_a_module_it_says_what_to_install(module: str, package: str) -> None:
    """asyncore is missing on Python 3.12 and later."""
    script = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from pollers import watch\n"
        "print(watch.probe('pyinotify').reason)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30
    )
    assert done.stdout.endswith(f"pip install {package}\n"), done


def test_importing_the_adapter_imports_no_package() -> None:
    script = "import sys, pollers.watch.pyinotify; print('pyinotify' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=30
    )
    assert done.stdout == "False\n", done


#: In a user namespace of its own a process has limits of its own.
FEW = """
import ctypes, os, sys
from pollers.watch.pyinotify import PyinotifyWatcher
if ctypes.CDLL(None).unshare(0x10000000):  # CLONE_NEWUSER
    sys.exit("unshare")
try:
    with open(f"/proc/sys/user/max_inotify_{sys.argv[1]}", "w") as limit:
        limit.write("3")
except OSError:
    sys.exit("unshare")
os.makedirs("tree/a/b/c")
watchers = []
try:
    for _ in range(4):
        watchers.append(PyinotifyWatcher())
        if sys.argv[1] == "watches":
            watchers[0].add("tree", recursive=True)
except OSError as error:
    print(error.errno, error)
"""


@pytest.mark.parametrize("what", ["instances", "watches"])
def test_a_limit_says_what_to_raise(tmp_path: Path, what: str) -> None:
    assert watch.probe("pyinotify").available
    done = subprocess.run(
        [sys.executable, "-c", FEW, what],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
    )
    if done.stderr == "unshare\n":
        pytest.skip("this system lets no process make a user namespace with limits of its own")
    assert f"sysctl -w fs.inotify.max_user_{what}=" in done.stdout, done
