"""What fanotify does, each fact a test: on it rests the watcher of that name.

`pollers/fanotify.py` states them; sources are fanotify(7), fs/notify/fanotify/ and trying.
"""

from __future__ import annotations

import errno
import mmap
import os
import select
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pollers import fanotify
from pollers.fanotify import (
    FAN_ATTRIB,
    FAN_CLOSE_WRITE,
    FAN_CREATE,
    FAN_DELETE,
    FAN_DELETE_SELF,
    FAN_EVENT_ON_CHILD,
    FAN_MODIFY,
    FAN_MOVED_FROM,
    FAN_MOVED_TO,
    FAN_ONDIR,
    FAN_Q_OVERFLOW,
    FAN_RENAME,
    FID,
    INFO,
    INFO_DFID,
    INFO_DFID_NAME,
    INFO_FID,
    INFO_NEW_DFID_NAME,
    INFO_OLD_DFID_NAME,
    METADATA,
    Event,
    Fanotify,
    Handle,
    Place,
    handle_of,
    parse,
)

ENTRIES = FAN_ONDIR | FAN_EVENT_ON_CHILD
NAMES = FAN_CREATE | FAN_DELETE | ENTRIES


def refusal() -> OSError | None:
    try:
        Fanotify().close()
    except OSError as error:
        return error
    return None


REFUSAL = refusal()
kernel = pytest.mark.skipif(REFUSAL is not None, reason=f"no fanotify here: {REFUSAL}")


def renames() -> bool:
    if REFUSAL is not None:
        return False
    with Fanotify() as group:
        return group.targets


since_5_17 = pytest.mark.skipif(not renames(), reason="FAN_RENAME came with Linux 5.17")


@pytest.fixture
def group() -> Iterator[Fanotify]:
    with Fanotify() as group:
        yield group


class Marked:
    """A directory with a mark."""

    def __init__(self, group: Fanotify, path: Path, mask: int) -> None:
        path.mkdir(exist_ok=True)
        self.path = path
        self.mask = mask
        self._group = group
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            group.add_fd(fd, mask)
            self.handle = handle_of(fd)
        finally:
            os.close(fd)

    def place(self, name: str) -> Place:
        return Place(self.handle, os.fsencode(name))


def seen(group: Fanotify) -> list[tuple[int, bytes]]:
    """The masks and names of what is queued, renames left out."""
    return [(event.mask, event.place.name) for event in group.read() if event.place is not None]


# The records.


def test_the_structures_are_the_kernels() -> None:
    assert METADATA.size == 24
    assert INFO.size == 4
    assert FID.size == 16  # fsid 8, handle_bytes 4, handle_type 4; f_handle begins here
    packed = METADATA.pack(1, 3, 0, 24, FAN_RENAME, -1, 7)
    assert packed[4] == 3
    assert struct.unpack_from("=H", packed, 6) == (24,)
    assert struct.unpack_from("=Q", packed, 8) == (FAN_RENAME,)
    assert struct.unpack_from("=ii", packed, 16) == (-1, 7)


handles = st.tuples(
    st.binary(min_size=8, max_size=8),
    st.integers(-(2**31), 2**31 - 1),
    st.binary(max_size=fanotify.MAX_HANDLE),
).map(Handle._make)
names = st.binary(min_size=1, max_size=255).filter(lambda name: b"\0" not in name)
places = st.tuples(handles, names).map(Place._make)
masks = st.integers(0, 2**64 - 1)
no = st.none()
#: Overflow, an entry's event, and a rename with one or both of its sides.
events = st.one_of(
    st.tuples(masks, no, no, no, no),
    st.tuples(masks, places, no, no, no | handles),
    st.tuples(masks, no, places, places, no | handles),
    st.tuples(masks, no, places, no, handles),
    st.tuples(masks, no, no, places, handles),
).map(Event._make)


def record(kind: int, handle: Handle, name: bytes | None) -> bytes:
    body = FID.pack(handle.fsid, len(handle.data), handle.type) + handle.data
    if name is not None:
        body += name + b"\0"
    body += b"\0" * (-len(body) % 4)  # the kernel's FANOTIFY_EVENT_ALIGN
    return INFO.pack(kind, 0, INFO.size + len(body)) + body


def packed(event: Event, extra: bytes = b"") -> bytes:
    """As fs/notify/fanotify/fanotify_user.c copies it to the user."""
    body = extra
    for kind, place in (
        (INFO_OLD_DFID_NAME, event.old),
        (INFO_NEW_DFID_NAME, event.new),
        (INFO_DFID_NAME, event.place),
    ):
        if place is not None:
            body += record(kind, place.directory, place.name)
    if event.target is not None:
        body += record(INFO_FID, event.target, None)
    return METADATA.pack(METADATA.size + len(body), 3, 0, METADATA.size, event.mask, -1, 0) + body


@settings(max_examples=40)
@given(st.lists(events, max_size=6))
def test_parse_gives_back_what_was_packed(events: list[Event]) -> None:
    assert parse(b"".join(packed(event) for event in events)) == events


@settings(max_examples=40)
@given(events, st.sampled_from([4, 5, 99]), st.binary(max_size=20))
def test_records_of_other_types_are_skipped(event: Event, kind: int, body: bytes) -> None:
    extra = INFO.pack(kind, 0, INFO.size + len(body)) + body
    assert parse(packed(event, extra)) == [event]


@given(handles)
def test_a_handle_without_a_name_is_the_directory_itself(handle: Handle) -> None:
    body = record(INFO_DFID, handle, None)
    head = METADATA.pack(METADATA.size + len(body), 3, 0, METADATA.size, FAN_ATTRIB, -1, 0)
    (event,) = parse(head + body)
    assert event.place is not None
    # Where its bytes are no multiple of four the padding follows.
    assert event.place == Place(handle, b".")


@given(st.binary(max_size=200))
def test_parse_takes_anything(buffer: bytes) -> None:
    """Either all of it is events, or it says that it is not."""
    try:
        parse(buffer)
    except ValueError:
        return


@settings(max_examples=40)
@given(events, st.data())
def test_parse_refuses_what_is_cut_off(event: Event, data: st.DataObject) -> None:
    whole = packed(event)
    cut = data.draw(st.integers(1, len(whole) - 1))
    with pytest.raises(ValueError, match="fanotify"):
        parse(whole[:cut])


@settings(max_examples=40)
@given(events, st.data())
def test_parse_refuses_records_whose_lengths_lie(event: Event, data: st.DataObject) -> None:
    """A length of 0 would go on for ever, and one that is too long reads what is not there."""
    whole = bytearray(packed(event._replace(place=Place(Handle(b"fsfsfsfs", 1, b"1234"), b"n"))))
    length = data.draw(st.integers(0, 3) | st.integers(len(whole), 2**16 - 1))
    struct.pack_into("=H", whole, METADATA.size + 2, length)
    with pytest.raises(ValueError, match="record"):
        parse(bytes(whole))


def test_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="version 4"):
        parse(METADATA.pack(24, 4, 0, 24, 0, -1, 0))


# The group and its marks.


@kernel
def test_it_does_not_block_and_is_not_inherited(group: Fanotify) -> None:
    assert group.read() == []
    assert not os.get_blocking(group.fileno())
    assert not os.get_inheritable(group.fileno())


@kernel
def test_closing_twice_is_closing_once(group: Fanotify) -> None:
    group.close()
    assert group.fileno() == -1
    group.close()


@kernel
def test_name_to_handle_at_gives_what_events_carry(group: Fanotify, tmp_path: Path) -> None:
    """So that a table of the marked directories is enough to resolve them, without any right."""
    marked = Marked(group, tmp_path, NAMES)
    (tmp_path / "sub").mkdir()
    (event,) = group.read()
    assert event.place == marked.place("sub")
    fd = os.open(tmp_path / "sub", getattr(os, "O_PATH", 0) | os.O_DIRECTORY)
    try:
        if group.targets:
            assert event.target == handle_of(fd)
    finally:
        os.close(fd)


@kernel
@pytest.mark.parametrize("name", [b"n", b"x" * 15, b"x" * 255, b"\xff\xfe", b"a\nb"])
def test_any_name_arrives_whole(group: Fanotify, tmp_path: Path, name: bytes) -> None:
    Marked(group, tmp_path, NAMES)
    os.mkdir(os.path.join(os.fsencode(tmp_path), name))
    assert seen(group) == [(FAN_CREATE | FAN_ONDIR, name)]


@kernel
def test_an_event_is_queued_before_its_cause_returns(group: Fanotify, tmp_path: Path) -> None:
    Marked(group, tmp_path, NAMES)
    for number in range(100):
        (tmp_path / f"file-{number}").touch()
        assert seen(group) == [(FAN_CREATE, b"file-%d" % number)]


@kernel
def test_the_fd_is_readable_until_all_is_read(group: Fanotify, tmp_path: Path) -> None:
    Marked(group, tmp_path, NAMES)
    assert not select.select([group], [], [], 0)[0]
    (tmp_path / "file").touch()
    assert select.select([group], [], [], 0)[0]
    assert len(group.read()) == 1
    assert not select.select([group], [], [], 0)[0]


@kernel
def test_reads_are_bounded_and_the_next_goes_on(group: Fanotify, tmp_path: Path) -> None:
    Marked(group, tmp_path, NAMES)
    names = [b"file-%d" % number for number in range(6000)]
    (tmp_path / "file").touch()
    group.read()
    for name in names:
        os.link(tmp_path / "file", os.fsencode(tmp_path) + b"/" + name)
    first = group.read()
    assert len(first) <= fanotify.READS * fanotify.BUFFER // METADATA.size
    rest: list[Event] = []
    while more := group.read():
        rest += more
    assert rest
    assert [e.place.name for e in first + rest if e.place] == names


@kernel
def test_a_mark_is_of_the_entries_and_not_of_their_entries(
    group: Fanotify, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    Marked(group, tmp_path, NAMES)
    (tmp_path / "sub" / "file").touch()
    assert seen(group) == []


@kernel
def test_the_directory_itself_is_a_dot(group: Fanotify, tmp_path: Path) -> None:
    """Its own events come by its own mark; its parent's tells of them too, by name."""
    Marked(group, tmp_path / "sub", FAN_ATTRIB | ENTRIES)
    Marked(group, tmp_path, FAN_ATTRIB | ENTRIES)
    (tmp_path / "sub").chmod(0o700)
    assert (FAN_ATTRIB | FAN_ONDIR, b".") in seen(group)


@kernel
def test_a_removed_directory_ends_its_mark(group: Fanotify, tmp_path: Path) -> None:
    marked = Marked(group, tmp_path / "sub", NAMES | FAN_DELETE_SELF)
    (tmp_path / "sub").rmdir()
    (event,) = group.read()
    assert (event.mask, event.place) == (FAN_DELETE_SELF | FAN_ONDIR, marked.place("."))
    Marked(group, tmp_path / "sub", NAMES)
    assert seen(group) == []


@kernel
def test_removing_a_mark_that_is_not_there_is_no_error(group: Fanotify, tmp_path: Path) -> None:
    marked = Marked(group, tmp_path, NAMES)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(2):
            group.remove_fd(fd, marked.mask)
        (tmp_path / "file").touch()
        assert seen(group) == []
    finally:
        os.close(fd)


@kernel
def test_an_o_path_descriptor_cannot_be_marked(group: Fanotify, tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_PATH)
    try:
        with pytest.raises(OSError, match="fanotify_mark") as refused:
            group.add_fd(fd, NAMES)
        assert refused.value.errno == errno.EBADF
    finally:
        os.close(fd)


# What a rename says, and what merging makes of it.


@kernel
@since_5_17
def test_a_rename_is_one_event_with_both_names(group: Fanotify, tmp_path: Path) -> None:
    one = Marked(group, tmp_path / "one", FAN_RENAME | ENTRIES)
    two = Marked(group, tmp_path / "two", FAN_RENAME | ENTRIES)
    (one.path / "file").touch()
    (one.path / "file").rename(two.path / "other")
    (event,) = group.read()
    assert (event.mask, event.old, event.new) == (
        FAN_RENAME,
        one.place("file"),
        two.place("other"),
    )


@kernel
@since_5_17
def test_a_rename_over_the_edge_has_one_side(group: Fanotify, tmp_path: Path) -> None:
    one = Marked(group, tmp_path / "one", FAN_RENAME | ENTRIES)
    (one.path / "file").touch()
    (one.path / "file").rename(tmp_path / "out")
    (tmp_path / "out").rename(one.path / "in")
    out, back = group.read()
    assert (out.old, out.new) == (one.place("file"), None)
    assert (back.old, back.new) == (None, one.place("in"))


@kernel
def test_the_halves_of_a_rename_have_nothing_that_joins_them(
    group: Fanotify, tmp_path: Path
) -> None:
    """Before FAN_RENAME: no cookie; from 5.17 on the target's handle does."""
    Marked(group, tmp_path, FAN_MOVED_FROM | FAN_MOVED_TO | ENTRIES)
    (tmp_path / "file").touch()
    (tmp_path / "file").rename(tmp_path / "other")
    gone, come = group.read()
    assert (gone.mask, come.mask) == (FAN_MOVED_FROM, FAN_MOVED_TO)
    assert gone.target == come.target
    assert (gone.target is not None) == group.targets


@kernel
def test_what_happened_to_a_name_is_merged_and_its_order_lost(
    group: Fanotify, tmp_path: Path
) -> None:
    """After the same event the file may be there or not."""
    Marked(group, tmp_path, NAMES)
    (tmp_path / "file").touch()
    os.link(tmp_path / "file", tmp_path / "a")
    os.unlink(tmp_path / "a")
    group.read()
    os.link(tmp_path / "file", tmp_path / "a")
    os.unlink(tmp_path / "a")
    gone = seen(group)
    os.link(tmp_path / "file", tmp_path / "a")
    os.unlink(tmp_path / "a")
    os.link(tmp_path / "file", tmp_path / "a")
    assert seen(group) == gone == [(FAN_CREATE | FAN_DELETE, b"a")]


@kernel
@since_5_17
def test_merging_goes_past_what_lies_between(group: Fanotify, tmp_path: Path) -> None:
    """The file ends as g, and reading the events in order says f."""
    marked = Marked(group, tmp_path, FAN_RENAME | FAN_CREATE | ENTRIES)
    f, g = tmp_path / "f", tmp_path / "g"
    f.touch()
    f.rename(g)
    g.rename(f)
    f.rename(g)
    assert [(e.place, e.old, e.new) for e in group.read()] == [
        (marked.place("f"), None, None),
        (None, marked.place("f"), marked.place("g")),
        (None, marked.place("g"), marked.place("f")),
    ]
    assert g.exists()


@kernel
@since_5_17
def test_another_file_of_the_same_name_is_another_event(group: Fanotify, tmp_path: Path) -> None:
    """By its generation, even where it has the inode number of the one before."""
    Marked(group, tmp_path, NAMES)
    for _ in range(2):
        (tmp_path / "file").touch()
        (tmp_path / "file").unlink()
    first, second = group.read()
    assert first.mask == second.mask == FAN_CREATE | FAN_DELETE
    assert first.target != second.target


# What is not reported.


@kernel
def test_writes_through_a_mapping_are_silent(group: Fanotify, tmp_path: Path) -> None:
    """Until the file is closed, where it was open for writing."""
    (tmp_path / "file").write_bytes(b"old")
    Marked(group, tmp_path, FAN_MODIFY | FAN_CLOSE_WRITE | FAN_ATTRIB | ENTRIES)
    with open(tmp_path / "file", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[:] = b"new"
        mapping.flush()
        assert seen(group) == []
    assert seen(group) == [(FAN_CLOSE_WRITE, b"file")]


@kernel
def test_writes_by_another_hard_link_are_silent(group: Fanotify, tmp_path: Path) -> None:
    marked = Marked(group, tmp_path / "inside", FAN_MODIFY | FAN_ATTRIB | NAMES)
    (marked.path / "file").write_bytes(b"old")
    group.read()
    os.link(marked.path / "file", tmp_path / "outside")
    (tmp_path / "outside").write_bytes(b"new")
    assert seen(group) == []


# Limits and rights.


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


#: In a user namespace of its own a process has limits of its own.
FEW = """
import ctypes, os, sys
from pollers.fanotify import *
CLONE_NEWUSER = 0x10000000
if ctypes.CDLL(None).unshare(CLONE_NEWUSER):
    sys.exit("unshare")
try:
    with open(f"/proc/sys/user/max_fanotify_{sys.argv[1]}", "w") as limit:
        limit.write("3")
except OSError:
    sys.exit("unshare")
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
    done = subprocess.run(
        [sys.executable, "-c", FEW, what],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
    )
    if done.stderr == "unshare\n":
        pytest.skip("this system lets no process make a user namespace with limits of its own")
    assert done.stdout.startswith(f"{last} [Errno {number}] "), done
    assert f"sysctl -w fs.fanotify.max_user_{what}=" in done.stdout


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
