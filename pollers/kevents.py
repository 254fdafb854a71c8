"""What kqueue(2) is told and what it tells, as plain values: no system call, no select.kqueue.

Some facts about kevents
------------------------
*   A knote is keyed by (ident, filter): reading and writing are two filters of one fd, each with
    flags of its own.  So one registration is up to two changes, and one ready fd up to two
    records, merged here into one (fd, bits) pair.
*   FreeBSD's EV_ADD of a knote that exists changes its fflags and data, and none of its flags
    (sys/kern/kern_event.c, kqueue_register).  To change the mode is to delete and add.
*   EV_ENABLE of a knote that is enabled changes nothing, and of one that is not there is ENOENT:
    that confirms a registration, as close(fd) removes its knotes in silence.
*   EV_ONESHOT deletes the knote, EV_DISPATCH only disables it.  EV_DISPATCH is used, so that a
    fired one-shot is still known to the kernel, and a reused number is told from it.
*   With EV_RECEIPT and room for each change, each is answered by one EV_ERROR record, in order,
    whose data is 0 or the errno, and no event is mixed in.  Without room, FreeBSD returns after
    the first such change, whether it failed or not, and drops the rest.
*   EV_EOF on EVFILT_READ is the peer's half-close, with `data` bytes still to be read; on
    EVFILT_WRITE nobody will ever read what is written.  fflags then holds the socket's error.
*   NOTE_LOWAT above any buffer's size hides data and leaves EV_EOF: an interest in POLLRDHUP
    alone.  Pipes ignore it, and report POLLIN instead.
*   EVFILT_READ of a regular file is silent at end of file; NOTE_FILE_POLL (FreeBSD 11) makes it
    behave as poll(2) does, and so does OpenBSD's NOTE_EOF.  macOS and NetBSD have neither.
*   Which of the flags that were given come back in a record differs: FreeBSD takes EV_ADD,
    EV_DELETE, EV_ENABLE and EV_DISABLE out, OpenBSD and NetBSD copy the change as it was, macOS
    keeps EV_ADD and EV_ENABLE.  A receipt is EV_ERROR alone, but on macOS EV_ERROR beside what
    was given.  So flags are tested bit by bit and never compared.
*   macOS and OpenBSD use 0x2000 (EV_FLAG1) in records for urgent data and for hang-ups of their
    own poll(2); it is not looked at.

What is only remembered of macOS, OpenBSD and NetBSD, or read and not run, is named in
tests/test_kevents_systems.py.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from pollers.base import (
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLNVAL,
    POLLOUT,
    POLLPRI,
    POLLRDHUP,
    Events,
)

# <sys/event.h>, the same on every BSD and on macOS.
EV_ADD: Final = 0x0001
EV_DELETE: Final = 0x0002
EV_ENABLE: Final = 0x0004
EV_DISABLE: Final = 0x0008
EV_CLEAR: Final = 0x0020
EV_RECEIPT: Final = 0x0040
EV_DISPATCH: Final = 0x0080
EV_ERROR: Final = 0x4000
EV_EOF: Final = 0x8000
NOTE_LOWAT: Final = 0x00000001
NOTE_TRIGGER: Final = 0x01000000

#: A low-water mark that no buffer reaches.
NEVER: Final = 2**31 - 1

#: The ident of the EVFILT_USER knote that wakes a poll(): no fd has this number.
WAKE_IDENT: Final = 2**31 - 1

#: Bits that are reported whatever was asked for.
UNASKED: Final = POLLERR | POLLHUP | POLLNVAL


@dataclass(frozen=True, slots=True)
class Dialect:
    """The numbers that differ between systems."""

    read: int = -1
    write: int = -2
    #: EVFILT_USER, or None where there is none or its number is not known.
    user: int | None = -11
    #: fflags that make EVFILT_READ of a regular file behave as poll(2) does; 0 where none do.
    file_poll: int = 0


#: By the beginning of sys.platform; from each system's <sys/event.h>.
DIALECTS: Final[dict[str, Dialect]] = {
    "freebsd": Dialect(file_poll=0x2),
    "darwin": Dialect(user=-10),
    # Where the release has no EVFILT_USER yet, adding it is EINVAL, and a pipe does.
    "openbsd": Dialect(user=-10, file_poll=0x2),
    "netbsd": Dialect(read=0, write=1, user=8),
}
#: Elsewhere: EVFILT_READ and EVFILT_WRITE are -1 and -2, and a pipe does for EVFILT_USER.
OTHER: Final = Dialect(user=None)


class Kevent(Protocol):
    """A struct kevent: what select.kevent, libkqueue's and `Change` have in common."""

    @property
    def ident(self) -> int: ...
    @property
    def filter(self) -> int: ...
    @property
    def flags(self) -> int: ...
    @property
    def fflags(self) -> int: ...
    @property
    def data(self) -> int: ...


class Change(NamedTuple):
    """One entry of a change list, in the order of select.kevent's arguments."""

    ident: int
    filter: int
    flags: int
    fflags: int = 0
    data: int = 0


class Mode(NamedTuple):
    """How one filter of a registration was added: its flags (without EV_ADD), fflags, data."""

    flags: int = 0
    fflags: int = 0
    data: int = 0


@dataclass(slots=True)
class Registration:
    """What one fd is registered for."""

    interest: int
    filters: Mapping[int, Mode]
    oneshot: bool = False
    #: True once a one-shot fired: its knotes exist and are disabled.
    spent: bool = False


def registration(interest: int, edge: bool, oneshot: bool, dialect: Dialect) -> Registration:
    """The filters that watch for `interest`.

    No filter that all systems have tells urgent data: POLLPRI is never reported, and raises
    OSError(EOPNOTSUPP) where it is all that is asked for.
    """
    if interest == POLLPRI:
        raise OSError(
            errno.EOPNOTSUPP, "kqueue cannot watch for POLLPRI (urgent data); use poll or select"
        )
    flags = (EV_CLEAR if edge else 0) | (EV_DISPATCH if oneshot else 0)
    filters: dict[int, Mode] = {}
    if interest & POLLIN:
        filters[dialect.read] = Mode(flags, dialect.file_poll)
    elif interest & POLLRDHUP:
        filters[dialect.read] = Mode(flags, NOTE_LOWAT, NEVER)
    if interest & POLLOUT:
        filters[dialect.write] = Mode(flags)
    return Registration(interest, filters, oneshot)


def added(fd: int, new: Registration) -> list[Change]:
    """The changes that register `fd`."""
    return [_add(fd, filter_, mode) for filter_, mode in new.filters.items()]


def by_fd(changes: Sequence[Change], errors: Sequence[int]) -> dict[int, list[int]]:
    """The errno of each change, 0 where it was made, under its fd: {fd: errors of its changes}."""
    found: dict[int, list[int]] = {}
    for change, error in zip(changes, errors, strict=True):
        found.setdefault(change.ident, []).append(error)
    return found


def deleted(fd: int, filters: Iterable[int]) -> list[Change]:
    """The changes that remove knotes of `fd`."""
    return [Change(fd, filter_, EV_DELETE | EV_RECEIPT) for filter_ in filters]


def confirmed(fd: int, old: Registration) -> list[Change]:
    """Changes that change nothing, but fail where the knotes of `old` are gone."""
    flags = (EV_DISABLE if old.spent else EV_ENABLE) | EV_RECEIPT
    return [Change(fd, f, flags, mode.fflags, mode.data) for f, mode in old.filters.items()]


def replaced(fd: int, old: Registration, new: Registration) -> list[Change]:
    """The changes that turn `old` into `new`, re-enabling what fired.

    A filter that stays as it is is enabled, which also confirms that it is there.  An
    edge-triggered one is made anew, so that it reports a condition that holds already: as
    epoll's EPOLL_CTL_MOD does.
    """
    staying = {
        filter_
        for filter_, mode in old.filters.items()
        if new.filters.get(filter_) == mode and not mode.flags & EV_CLEAR
    }
    changes = deleted(fd, [filter_ for filter_ in old.filters if filter_ not in staying])
    for filter_, mode in new.filters.items():
        if filter_ in staying:
            flags = EV_ENABLE | EV_RECEIPT
            changes.append(Change(fd, filter_, flags, mode.fflags, mode.data))
        else:
            changes.append(_add(fd, filter_, mode))
    return changes


def undone(
    changes: Sequence[Change], errors: Sequence[int], old: Registration | None
) -> list[Change]:
    """The changes that lead back to `old` after some of `changes` failed; the last come first."""
    undo: list[Change] = []
    for change, error in zip(reversed(changes), reversed(errors), strict=True):
        if error:
            continue
        fd, filter_ = change.ident, change.filter
        if change.flags & EV_ADD:
            undo += deleted(fd, [filter_])
        elif old is not None and change.flags & EV_DELETE:
            again = _add(fd, filter_, old.filters[filter_])
            undo.append(again._replace(flags=again.flags | EV_DISABLE) if old.spent else again)
        elif old is not None and old.spent:
            undo.append(change._replace(flags=EV_DISABLE | EV_RECEIPT))
    return undo


def errors_of(changes: Sequence[Change], receipts: Sequence[Kevent]) -> list[int]:
    """The errno of each change, 0 where it was made.

    Raises RuntimeError where the answer is not one EV_ERROR record for each change, in order:
    then nobody knows what was changed.
    """
    keys = [(change.ident, change.filter) for change in changes]
    answered = [(r.ident, r.filter) for r in receipts if r.flags & EV_ERROR]
    if answered != keys or len(receipts) != len(keys):
        raise RuntimeError(f"kevent answered {answered} to the changes {keys}")
    return [receipt.data for receipt in receipts]


class Ready(NamedTuple):
    """What one list of records says."""

    events: Events
    #: The records that were the wake.
    wakes: int
    #: The records of no registration.
    stale: int
    #: The fds whose registration the kernel no longer has.
    gone: list[int]


def ready(
    records: Iterable[Kevent],
    table: Mapping[int, Registration],
    dialect: Dialect,
    wake: tuple[int, int],
) -> Ready:
    """Records as (fd, ready bits) pairs, in their order, each fd once.

    Bits that were not asked for are left out, but for those that come unasked and where
    nothing would be left.  `wake` is the (ident, filter) that wakes a poll().
    """
    found: dict[int, int] = {}
    gone: list[int] = []
    wakes = stale = 0
    read = dialect.read
    for record in records:
        fd = record.ident
        entry = table.get(fd)
        if entry is None:
            if (fd, record.filter) == wake:
                wakes += 1
            else:
                stale += 1
            continue
        bits = POLLIN if record.filter == read else POLLOUT
        if record.flags & (EV_EOF | EV_ERROR):
            bits = unusual_bits(record, read)
            if bits == POLLNVAL:
                gone.append(fd)
        bits = bits & (entry.interest | UNASKED) or bits
        found[fd] = found.get(fd, 0) | bits
    return Ready(list(found.items()), wakes, stale, gone)


def unusual_bits(record: Kevent, read: int) -> int:
    """The ready bits of a record with EV_EOF or EV_ERROR; `read` is the number of EVFILT_READ."""
    if record.flags & EV_ERROR:
        return POLLNVAL if record.data in (errno.EBADF, errno.ENOENT) else POLLERR
    bits = POLLIN | POLLRDHUP if record.filter == read else POLLHUP
    return bits | POLLERR | POLLHUP if record.fflags else bits


def silenced(records: Iterable[Kevent], table: Mapping[int, Registration]) -> list[Change]:
    """Mark the one-shots that fired as spent; the changes that silence their other filters.

    EV_DISPATCH disables one filter, but a one-shot is one event for the fd.
    """
    fired: dict[int, set[int]] = {}
    for record in records:
        entry = table.get(record.ident)
        if entry is not None and entry.oneshot:
            fired.setdefault(record.ident, set()).add(record.filter)
    changes: list[Change] = []
    for fd, filters in fired.items():
        entry = table[fd]
        entry.spent = True
        for filter_, mode in entry.filters.items():
            if filter_ not in filters:
                flags = EV_DISABLE | EV_RECEIPT
                changes.append(Change(fd, filter_, flags, mode.fflags, mode.data))
    return changes


def _add(fd: int, filter_: int, mode: Mode) -> Change:
    return Change(fd, filter_, EV_ADD | EV_RECEIPT | mode.flags, mode.fflags, mode.data)
