"""Where fanotify ends: its queue, its limits, and who may have it; each fact a test."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fanotifygroup import NAMES, Marked, kernel, seen
from namespaces import limited

from pollers import fanotify
from pollers.fanotify import (
    FAN_CREATE,
    FAN_ONDIR,
    FAN_Q_OVERFLOW,
    Event,
    Fanotify,
)


@pytest.fixture
def group() -> Iterator[Fanotify]:
    with Fanotify() as group:
        yield group


@kernel
def test_a_full_queue_says_so_once_and_forgets(group: Fanotify, tmp_path: Path) -> None:
    limit = int(Path("/proc/sys/fs/fanotify/max_queued_events").read_text())
    (tmp_path / "file").touch()
    Marked(group, tmp_path, NAMES)
    directory = os.fsencode(tmp_path)
    for number in range(limit + 500):  # no name twice, as that would be merged
        os.link(directory + b"/file", directory + b"/%d" % number)
        os.unlink(directory + b"/%d" % number)
    events = []
    while more := group.read():
        events += more
    assert len(events) == limit + 1
    assert events[-1] == Event(FAN_Q_OVERFLOW)
    (tmp_path / "again").touch()
    assert seen(group) == [(FAN_CREATE, b"again")]  # it goes on


#: As any user, from Linux 5.13 on.
UNPRIVILEGED = """
import os, sys
from pollers.fanotify import *
from pollers.filehandle import handle_of
os.chmod(".", 0o755)
if not os.getuid():
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
try:
    group = Fanotify()
except OSError as error:
    sys.exit(f"refused {error}")
fd = os.open(sys.argv[1], os.O_RDONLY)
group.add_fd(fd, FAN_CREATE | FAN_ONDIR)
print("ready", flush=True)
sys.stdin.readline()
(event,) = group.read()
print(event.place.name, event.place.directory == handle_of(fd), flush=True)
"""


@kernel
def test_any_user_may_have_it(tmp_path: Path) -> None:
    for parent in (tmp_path, *tmp_path.parents):
        if not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    with subprocess.Popen(
        [sys.executable, "-c", UNPRIVILEGED, str(tmp_path)],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        if child.stdout.readline() != "ready\n":
            pytest.skip(f"a user without rights has no fanotify here: {child.stderr.read()}")
        (tmp_path / "file").mkdir()
        out, _ = child.communicate("\n", timeout=30)
    assert out == "b'file' True\n"


FEW = """
import os
from pollers.fanotify import *
groups = [Fanotify()]
try:
    for name in "abcd":
        if sys.argv[1] == "groups":
            groups.append(Fanotify())
        os.mkdir(name)
        groups[0].add_fd(os.open(name, os.O_RDONLY), FAN_CREATE)
except OSError as error:
    print(name, error)
"""


@kernel
@pytest.mark.parametrize(
    ("what", "last", "number"),
    [("groups", "c", errno.EMFILE), ("marks", "d", errno.ENOSPC)],
)
def test_a_limit_says_what_to_raise(tmp_path: Path, what: str, last: str, number: int) -> None:
    said = limited(FEW, {f"max_fanotify_{what}": 3}, what, cwd=tmp_path)
    assert said.startswith(f"{last} [Errno {number}] "), said
    assert f"sysctl -w fs.fanotify.max_user_{what}=" in said


@kernel
def test_a_file_system_without_what_it_needs_is_said(group: Fanotify) -> None:
    """/proc has no file handles that name_to_handle_at(2) gives before Linux 6.5, or no id."""
    fd = os.open("/proc/self", os.O_RDONLY)
    said = ""
    try:
        group.add_fd(fd, FAN_CREATE | FAN_ONDIR)
    except OSError as error:
        said = str(error)
    finally:
        os.close(fd)
    assert not said or "use another watcher" in said


def test_without_fanotify_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a kernel without it: the number of a call that does not exist."""
    monkeypatch.setattr(fanotify, "NR_FANOTIFY_INIT", 2**30)
    with pytest.raises(OSError, match="fanotify") as refused:
        Fanotify()
    assert refused.value.errno == errno.ENOSYS


def test_a_refusal_for_want_of_rights_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container's seccomp filter, or a kernel before 5.13 for who is not root."""

    def refuse(name: str, number: int, *args: object) -> int:
        raise OSError(errno.EPERM, name)

    monkeypatch.setattr(fanotify, "syscall", refuse)
    with pytest.raises(PermissionError, match="only root may use it here"):
        Fanotify()
