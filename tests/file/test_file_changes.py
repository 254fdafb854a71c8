"""Which paths are said to have changed, by real changes of a real directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pollers import inotify
from servers.file.changes import EVERYTHING, Change, Changes, Reported, affected
from servers.file.root import Root

if inotify._init1 is None:  # where libc has it, it has to work
    pytest.skip("this system has no inotify", allow_module_level=True)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    (site / "a" / "b").mkdir(parents=True)
    (site / "file").touch()
    (site / "a" / "file").touch()
    (tmp_path / "outside").mkdir()
    return site


@pytest.fixture
def root(site: Path) -> Iterator[Root]:
    with Root(str(site)) as root:
        yield root


@pytest.fixture
def changes(root: Root) -> Iterator[Changes]:
    with Changes(root) as changes:
        yield changes


def paths(reported: Reported) -> set[bytes]:
    """What changed by itself."""
    assert reported is not EVERYTHING
    return {path for path, _ in reported}


def trees(reported: Reported) -> set[bytes]:
    """What changed with all below it."""
    assert reported is not EVERYTHING
    return {path for path, below in reported if below}


# Covering.


def test_covering_takes_the_directories_above_too(changes: Changes) -> None:
    assert changes.cover(b"a/b")
    assert [changes.covers(path) for path in (b"", b"a", b"a/b", b"none")] == [True] * 3 + [False]
    assert changes.watches == 3
    assert changes.cover(b"a/b")
    assert changes.cover(b"a")
    assert changes.watches == 3


@pytest.mark.parametrize(
    "path", [b"none", b"file", b"a/none/b", b"a/file/b", b"..", b"../outside", b"/", b"a\0"]
)
def test_what_is_no_directory_is_not_covered(changes: Changes, path: bytes) -> None:
    assert not changes.cover(path)
    assert not changes.covers(path)


def test_a_link_in_the_path_is_not_covered(changes: Changes, site: Path) -> None:
    (site / "link").symlink_to("a")
    (site / "out").symlink_to("../outside")
    for path in (b"link", b"link/b", b"out", b"link"):
        assert not changes.cover(path)
    assert changes.watches == 1


def test_the_number_of_watches_is_bounded(
    root: Root, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(10):
        (site / f"{number}").mkdir()
    with Changes(root, limit=4) as changes:
        covered = [changes.cover(b"%d" % number) for number in range(10)]
        assert covered == [True] * 3 + [False] * 7
        assert changes.watches == 4
        assert changes.cover(b"0")
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "4 directories are watched, which is the limit" in said


#: With limits of its own, in a user namespace, where the fourth watch is refused.
FEW = """
import ctypes, sys
from servers.file.changes import Changes
from servers.file.root import Root
if ctypes.CDLL(None).unshare(0x10000000):
    sys.exit("unshare")
try:
    with open("/proc/sys/user/max_inotify_watches", "w") as limit:
        limit.write(sys.argv[2])
except OSError:
    sys.exit("unshare")
with Root(sys.argv[1]) as root:
    try:
        with Changes(root) as changes:
            print([changes.cover(path) for path in (b"a", b"a/b", b"a/b/c", b"a/b/d", b"a")])
    except OSError as error:
        print(error)
"""


@pytest.mark.parametrize("limit", [3, 0])
def test_the_limit_of_the_system_is_said_once(site: Path, limit: int) -> None:
    for name in "cd":
        (site / "a" / "b" / name).mkdir()
    done = subprocess.run(
        [sys.executable, "-c", FEW, site, f"{limit}"], capture_output=True, text=True, timeout=30
    )
    if done.stderr == "unshare\n":
        pytest.skip("this system lets no process make a user namespace with limits of its own")
    remedy = "sysctl -w fs.inotify.max_user_watches="
    if limit:
        assert done.stdout == "[True, True, False, False, True]\n", done
        assert remedy in done.stderr
        assert done.stderr.count("\n") == 1
    else:  # not even the root
        assert remedy in done.stdout, done
        assert not done.stderr


# What is reported.


def test_nothing_is_nothing(changes: Changes) -> None:
    assert changes.read() == set()


def test_a_write(changes: Changes, site: Path) -> None:
    changes.cover(b"a")
    (site / "a" / "file").write_bytes(b"new")
    assert changes.read() == {Change(b"a/file"), Change(b"a")}


@pytest.mark.parametrize("suffix", [".gz", ".br", ".zst"])
def test_a_precompressed_sibling_is_the_file_too(
    changes: Changes, site: Path, suffix: str
) -> None:
    (site / f"page.html{suffix}").touch()
    assert paths(changes.read()) == {f"page.html{suffix}".encode(), b"page.html", b""}
    (site / f"page.html{suffix}").unlink()
    assert paths(changes.read()) == {f"page.html{suffix}".encode(), b"page.html", b""}


def test_an_atomic_save(changes: Changes, site: Path) -> None:
    (site / ".new").write_bytes(b"new")
    changes.read()
    os.replace(site / ".new", site / "file")
    assert changes.read() == {Change(b".new"), Change(b"file"), Change(b"")}


def test_a_mode_and_a_time(changes: Changes, site: Path) -> None:
    (site / "file").chmod(0)
    assert Change(b"file") in changes.read()
    os.utime(site / "file", (5, 5))
    assert Change(b"file") in changes.read()


def test_a_truncation(changes: Changes, site: Path) -> None:
    (site / "file").write_bytes(b"x" * 100)
    changes.read()
    os.truncate(site / "file", 10)
    assert Change(b"file") in changes.read()


def test_only_what_is_covered(changes: Changes, site: Path) -> None:
    (site / "a" / "file").write_bytes(b"new")
    assert changes.read() == set()


def test_names_are_bytes(changes: Changes, site: Path) -> None:
    os.close(os.open(os.fsencode(site) + b"/\xff\n", os.O_CREAT | os.O_WRONLY))
    assert Change(b"\xff\n") in changes.read()


def test_a_burst_is_few_changes(changes: Changes, site: Path) -> None:
    for _ in range(200):
        for name in ("one", "other"):
            (site / name).write_bytes(b"x")
    assert changes.read() == {Change(b"one"), Change(b"other"), Change(b"")}


# Directories.


def test_a_directory_that_is_moved_is_no_longer_covered(
    changes: Changes, site: Path, tmp_path: Path
) -> None:
    changes.cover(b"a/b")
    (site / "a").rename(tmp_path / "outside" / "a")
    assert trees(changes.read()) == {b"a"}
    assert not changes.covers(b"a")
    assert not changes.covers(b"a/b")
    assert changes.watches == 1
    (tmp_path / "outside" / "a" / "b" / "file").touch()  # nobody's business any more
    assert changes.read() == set()
    assert not changes.cover(b"a/b")


def test_a_directory_that_is_replaced_is_covered_anew(changes: Changes, site: Path) -> None:
    changes.cover(b"a/b")
    (site / "next" / "b").mkdir(parents=True)
    changes.read()
    (site / "a").rename(site / "old")
    (site / "next").rename(site / "a")
    assert {b"a", b"old", b"next"} <= trees(changes.read())
    assert changes.cover(b"a/b")
    (site / "old" / "b" / "wrong").touch()
    assert changes.read() == set()
    (site / "a" / "b" / "right").touch()
    assert changes.read() == {Change(b"a/b/right"), Change(b"a/b")}


def test_covering_between_a_move_and_its_news(changes: Changes, site: Path) -> None:
    """Two paths for one inode and its one watch; in the end neither is left over."""
    changes.cover(b"a/b")
    (site / "a").rename(site / "moved")
    assert changes.cover(b"moved/b")
    assert changes.cover(b"a/b")  # so it seems, until the news is read
    reported = changes.read()
    assert {b"a", b"moved"} <= trees(reported)
    assert [changes.covers(path) for path in (b"a", b"a/b", b"moved", b"moved/b")] == [False] * 4
    assert changes.cover(b"moved/b")
    assert not changes.cover(b"a/b")
    changes.read()
    (site / "moved" / "b" / "file").touch()
    assert changes.read() == {Change(b"moved/b/file"), Change(b"moved/b")}


def test_a_directory_that_comes_between_is_not_missed(changes: Changes, site: Path) -> None:
    """It was replaced and nothing read: what happens in the new one is told with the tree."""
    changes.cover(b"a")
    (site / "a").rename(site / "old")
    (site / "a").mkdir()
    assert changes.cover(b"a")
    (site / "a" / "file").touch()
    assert b"a" in trees(changes.read())


def test_a_removed_directory(changes: Changes, site: Path) -> None:
    changes.cover(b"a/b")
    shutil.rmtree(site / "a")
    reported = changes.read()
    assert {b"a", b"a/b"} <= trees(reported)
    assert changes.watches == 1
    (site / "a").mkdir()
    changes.read()
    assert changes.cover(b"a")


def test_the_mode_of_a_directory_is_all_that_is_below(changes: Changes, site: Path) -> None:
    changes.cover(b"a/b")
    (site / "a").chmod(0o711)
    assert b"a" in trees(changes.read())
    site.chmod(0o711)
    assert changes.read() is EVERYTHING
    assert changes.cover(b"a/b")


def test_a_new_directory(changes: Changes, site: Path) -> None:
    """It may hold files already by the time that anybody looks."""
    (site / "new").mkdir()
    assert trees(changes.read()) == {b"new"}


def test_the_root_may_be_renamed(changes: Changes, site: Path) -> None:
    site.rename(site.with_name("moved"))
    (site.with_name("moved") / "file").write_bytes(b"new")
    assert Change(b"file") in changes.read()


def test_a_link_that_was_met_is_a_tree(changes: Changes, site: Path) -> None:
    """A deployment that moves `current` from one release to the next."""
    (site / "current").symlink_to("a")
    changes.read()
    assert not changes.cover(b"current/b")
    (site / "next").symlink_to("a/b")
    os.replace(site / "next", site / "current")
    assert trees(changes.read()) == {b"current"}
    assert not changes.cover(b"current/b")
    changes.read()
    (site / "current").unlink()
    (site / "current").mkdir()
    assert b"current" in trees(changes.read())
    assert changes.cover(b"current")


def test_an_overflow_is_everything(changes: Changes, site: Path) -> None:
    changes.cover(b"a/b")
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with open(site / "file", "wb") as one, open(site / "a" / "file", "wb") as other:
        for _ in range(limit // 2 + 500):
            os.utime(one.fileno())
            os.utime(other.fileno())
    assert changes.read() is EVERYTHING  # there is more than that, and it may be about any path
    assert changes.watches == 0  # whatever they sat on may be elsewhere
    while (reported := changes.read()) is EVERYTHING:
        assert changes.watches == 0
    assert reported == set()
    assert changes.cover(b"a/b")
    (site / "a" / "b" / "file").touch()
    assert changes.read() == {Change(b"a/b/file"), Change(b"a/b")}


def test_closing_ends_every_watch(changes: Changes) -> None:
    changes.cover(b"a/b")
    changes.close()
    changes.close()
    assert changes.watches == 0
    assert changes.fileno() == -1


# Who is affected.

PATHS = st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=3).map(b"/".join)


@given(st.sets(PATHS), st.sets(st.builds(Change, PATHS, st.booleans())))
def test_affected(held: set[bytes], reported: set[Change]) -> None:
    expected = {
        path
        for path in held
        for change in reported
        if path == change.path
        or (change.below and (not change.path or path.startswith(change.path + b"/")))
    }
    found = affected(reported, held)
    assert set(found) == expected
