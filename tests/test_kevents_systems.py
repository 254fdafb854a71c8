"""Where the systems' kqueues differ, each difference by its name, and that the adapter bears it.

Read in the manual pages and kernel sources that each line names.  FreeBSD's are what the adapter
was written for; macOS, OpenBSD and NetBSD are tested by these records alone, and nothing here has
been run on any of the four.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

import pytest
from keventmodel import FREEBSD, MACOS, NETBSD, OPENBSD, SYSTEMS, WAKE, Kernel, System

from pollers import kevents
from pollers.base import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP
from pollers.kevents import (
    EV_ADD,
    EV_CLEAR,
    EV_DISPATCH,
    EV_ENABLE,
    EV_EOF,
    EV_ERROR,
    EV_RECEIPT,
    NEVER,
    NOTE_LOWAT,
    Change,
)
from pollers.kqueue import KqueuePoller, Opened

BOTH = POLLIN | POLLOUT | POLLRDHUP
#: EV_FLAG1: macOS's EV_OOBAND, OpenBSD's __EV_HUP.
FLAG1 = 0x2000


@dataclass(frozen=True)
class Case:
    """Records that one system returns, and what they mean."""

    system: System
    difference: str
    #: (is it the read filter?, flags, fflags, data)
    records: tuple[tuple[bool, int, int, int], ...]
    interest: int
    bits: int

    def __str__(self) -> str:
        return f"{self.system}: {self.difference}"


CASES = [
    # sys/kern/kern_event.c: kqueue_register() clears the four actions before it keeps the flags.
    Case(FREEBSD, "no actions in flags", ((True, EV_RECEIPT, 0, 3),), BOTH, POLLIN),
    Case(FREEBSD, "EV_EOF with data left", ((True, EV_EOF, 0, 3),), BOTH, POLLIN | POLLRDHUP),
    Case(
        FREEBSD,
        "EV_EOF with data left and the socket's error",
        ((True, EV_EOF | EV_RECEIPT, errno.ECONNRESET, 3),),
        BOTH,
        POLLIN | POLLRDHUP | POLLERR | POLLHUP,
    ),
    # filt_soread(): an error without an end of file is readable, and the read says which.
    Case(FREEBSD, "a socket's error without EV_EOF", ((True, 0, 0, 0),), BOTH, POLLIN),
    # kqueue(2), NOTE_FILE_POLL: at the end of a regular file too, with data 0.
    Case(FREEBSD, "NOTE_FILE_POLL", ((True, EV_RECEIPT, 0, 0),), POLLIN, POLLIN),
    # bsd/kern/kern_event.c: a knote keeps EV_ADD and EV_ENABLE.
    Case(MACOS, "actions in flags", ((True, EV_ADD | EV_ENABLE, 0, 3),), BOTH, POLLIN),
    # kqueue(2): EV_OOBAND in the flags of EVFILT_READ says that urgent data is there.
    Case(MACOS, "EV_OOBAND", ((True, EV_ADD | FLAG1, 0, 1),), BOTH, POLLIN),
    # kqueue(2): the low-water mark is bounded by the buffer's size: a full one is reported.
    Case(MACOS, "NOTE_LOWAT is bounded", ((True, EV_ADD, 0, 131072),), POLLRDHUP, POLLIN),
    Case(
        MACOS,
        "EV_EOF beside the actions",
        ((True, EV_ADD | EV_EOF, 0, 0), (False, EV_ADD | EV_EOF, errno.EPIPE, 0)),
        BOTH,
        POLLIN | POLLRDHUP | POLLHUP | POLLERR,
    ),
    # kqueue(2): data may be negative where the file was truncated below the offset.
    Case(MACOS, "negative data of a file", ((True, EV_ADD, 0, -5),), POLLIN, POLLIN),
    # sys/kern/kern_event.c: `kn->kn_kevent = *kev`, all flags of the change.
    Case(OPENBSD, "all flags of the change", ((True, EV_ADD | EV_RECEIPT, 0, 3),), BOTH, POLLIN),
    # kqueue(2), NOTE_EOF: at the end of a regular file, with NOTE_EOF in fflags and no EV_EOF.
    Case(OPENBSD, "NOTE_EOF of a file is no error", ((True, EV_ADD, 0x2, 0),), POLLIN, POLLIN),
    Case(OPENBSD, "EV_FLAG1", ((False, EV_ADD | FLAG1, 0, 9000),), BOTH, POLLOUT),
    # sys/sys/event.h: EVFILT_READ is 0 and EVFILT_WRITE 1, unsigned; flags have 32 bits.
    Case(
        NETBSD,
        "filters are numbered from 0",
        ((True, EV_ADD, 0, 3), (False, EV_ADD, 0, 9000)),
        BOTH,
        POLLIN | POLLOUT,
    ),
    Case(NETBSD, "EV_EOF on filter 0", ((True, EV_ADD | EV_EOF, 0, 0),), POLLIN, POLLIN),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_records_of_each_system_mean_the_same(case: Case) -> None:
    dialect = case.system.dialect
    records = [
        Change(5, dialect.read if reads else dialect.write, flags, fflags, data)
        for reads, flags, fflags, data in case.records
    ]
    table = {5: kevents.registration(case.interest, False, False, dialect)}
    assert kevents.ready(records, table, dialect, WAKE) == ([(5, case.bits)], 0, 0, [])


@pytest.mark.parametrize(
    ("system", "flags"),
    [
        pytest.param(FREEBSD, EV_ERROR, id="freebsd: EV_ERROR alone"),
        pytest.param(OPENBSD, EV_ERROR, id="openbsd: EV_ERROR alone"),
        pytest.param(NETBSD, EV_ERROR, id="netbsd: EV_ERROR alone"),
        pytest.param(MACOS, EV_ERROR | EV_ADD | EV_RECEIPT, id="macos: beside what was given"),
    ],
)
def test_receipts_are_read_whatever_flags_they_have(system: System, flags: int) -> None:
    dialect = system.dialect
    both = kevents.registration(POLLIN | POLLOUT, False, False, dialect)
    changes = kevents.added(5, both)
    receipts = [
        change._replace(flags=flags, data=error)
        for change, error in zip(changes, (0, errno.EINVAL), strict=True)
    ]
    assert kevents.errors_of(changes, receipts) == [0, errno.EINVAL]


@pytest.mark.parametrize(
    ("system", "fflags"),
    [(FREEBSD, 0x2), (OPENBSD, 0x2), (MACOS, 0), (NETBSD, 0)],
    ids=["freebsd: NOTE_FILE_POLL", "openbsd: NOTE_EOF", "macos: neither", "netbsd: neither"],
)
def test_a_file_at_its_end_is_asked_for_where_the_system_can(system: System, fflags: int) -> None:
    read = kevents.registration(POLLIN, False, False, system.dialect).filters
    assert read[system.dialect.read].fflags == fflags
    hidden = kevents.registration(POLLRDHUP, False, False, system.dialect).filters
    assert hidden[system.dialect.read] == (0, NOTE_LOWAT, NEVER)


@pytest.mark.parametrize("system", SYSTEMS, ids=str)
def test_the_modes_are_ev_clear_and_ev_dispatch_everywhere(system: System) -> None:
    """Their numbers, and EV_RECEIPT's, are the same in all four <sys/event.h>."""
    dialect = system.dialect
    both = kevents.registration(POLLIN | POLLOUT, True, True, dialect).filters
    assert {mode.flags for mode in both.values()} == {EV_CLEAR | EV_DISPATCH}
    assert set(both) == {dialect.read, dialect.write}


@pytest.mark.parametrize("system", SYSTEMS, ids=str)
def test_a_release_without_evfilt_user_is_woken_by_a_pipe(system: System) -> None:
    """OpenBSD and NetBSD had none for long; adding an unknown filter is EINVAL on all four."""
    kernel = Kernel(system)
    kernel.open = set(range(100))  # the pipe's number among them
    kernel.refuse = {WAKE: errno.EINVAL}
    with KqueuePoller(lambda: Opened(kernel, Change, system.dialect)) as poller:
        assert all(ident < 100 for ident, _ in kernel.knotes)
        poller.wake()


def test_no_two_differences_of_a_system_have_one_name() -> None:
    names = [str(case) for case in CASES]
    assert len(set(names)) == len(names)
