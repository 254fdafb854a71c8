"""What EVFILT_VNODE says of an open file or directory, as hints: pure, as pollers.kevents is.

Some facts about vnode notes
----------------------------
*   A knote is on an open file.  Its record has the fd, and in fflags which of the notes that were
    asked for have happened since the last record: they are joined, and say nothing of an order or
    a number.
*   A directory's NOTE_WRITE says that a name came or went, and not which.  NOTE_LINK comes with it
    where that was a directory, NOTE_EXTEND where it was a rename (FreeBSD).
*   NOTE_RENAME and NOTE_DELETE are about the file itself.  NOTE_DELETE comes when its *last*
    name goes (FreeBSD: when any goes), NOTE_LINK when the number of names changed.
*   Truncation is NOTE_ATTRIB on FreeBSD, NOTE_TRUNCATE on OpenBSD, NOTE_WRITE elsewhere: sizes are
    compared.
*   NOTE_REVOKE: revoke(2), or its file system was unmounted.
*   FreeBSD 11 has NOTE_CLOSE_WRITE; that bit is another note elsewhere, and not asked for there.
*   Writes by mmap(2) say nothing.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from pollers.watch.hints import ALTERED, WRITTEN

# <sys/event.h>; the first seven are the same on every BSD and on macOS.
NOTE_DELETE: Final = 0x0001
NOTE_WRITE: Final = 0x0002
NOTE_EXTEND: Final = 0x0004
NOTE_ATTRIB: Final = 0x0008
NOTE_LINK: Final = 0x0010
NOTE_RENAME: Final = 0x0020
NOTE_REVOKE: Final = 0x0040
#: OpenBSD, and libkqueue; NOTE_OPEN on FreeBSD, NOTE_NONE on macOS.
NOTE_TRUNCATE: Final = 0x0080
#: FreeBSD 11.
NOTE_CLOSE_WRITE: Final = 0x0200

EVFILT_VNODE: Final = -4
#: NetBSD numbers its filters from 0.
EVFILT_VNODE_NETBSD: Final = 3

COMMON: Final = (
    NOTE_DELETE | NOTE_WRITE | NOTE_EXTEND | NOTE_ATTRIB | NOTE_LINK | NOTE_RENAME | NOTE_REVOKE
)


class Dialect(NamedTuple):
    """What differs between systems."""

    filter: int
    #: What is asked for.
    notes: int
    #: Which of it says that a file has other bytes.
    written: int


#: By the beginning of sys.platform.
DIALECTS: Final = {
    "freebsd": Dialect(
        EVFILT_VNODE,
        COMMON | NOTE_CLOSE_WRITE,
        NOTE_WRITE | NOTE_EXTEND | NOTE_CLOSE_WRITE,
    ),
    "openbsd": Dialect(
        EVFILT_VNODE, COMMON | NOTE_TRUNCATE, NOTE_WRITE | NOTE_EXTEND | NOTE_TRUNCATE
    ),
    "netbsd": Dialect(EVFILT_VNODE_NETBSD, COMMON, NOTE_WRITE | NOTE_EXTEND),
}
#: macOS, DragonFly and libkqueue.
OTHER: Final = Dialect(EVFILT_VNODE, COMMON, NOTE_WRITE | NOTE_EXTEND)


class Said(NamedTuple):
    """What one record says of a watched name."""

    #: What is said of the name (see pollers.watch.hints).
    what: int
    #: Its names have to be listed: it is a directory in which one came or went.
    list_it: bool
    #: It has another name now, in this directory or elsewhere.
    renamed: bool
    #: It has no name any more, or not this one.
    gone: bool


def dialect_of(platform: str) -> Dialect:
    """The dialect of a value of sys.platform."""
    return next((d for name, d in DIALECTS.items() if platform.startswith(name)), OTHER)


def said(fflags: int, directory: bool, dialect: Dialect) -> Said:
    """What a record's fflags say of a name that is, or is not, a directory's."""
    list_it = directory and bool(fflags & (NOTE_WRITE | NOTE_EXTEND | NOTE_LINK))
    what = 0
    if not directory and fflags & dialect.written:
        what |= WRITTEN
    # Of a file that lost a name it may be that which is told; a look shows what it has left.
    if fflags & NOTE_ATTRIB or (fflags & NOTE_LINK and not directory):
        what |= 0 if fflags & NOTE_DELETE else ALTERED
    renamed = bool(fflags & NOTE_RENAME)
    return Said(what, list_it, renamed, renamed or bool(fflags & (NOTE_DELETE | NOTE_REVOKE)))
