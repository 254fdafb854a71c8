"""How many bytes the kernel holds for a TCP socket, in either direction.

Facts
-----
*   FIONREAD (SIOCINQ, tcp(7)) tells what has come and was not read; the end of file counts for
    nothing.
*   SIOCOUTQ (Linux, tcp(7)) and FIONWRITE (FreeBSD, <sys/filio.h>) tell what was written and not
    yet acknowledged by the peer.  So a change means that the peer took something, or that the
    socket was given something: who writes only when the socket is writable may wait long for
    that, as it is writable again when a third of a buffer of megabytes is free.
"""

from __future__ import annotations

import fcntl
import sys
import termios
from typing import Final

#: SIOCOUTQ has TIOCOUTQ's number on Linux; _IOR('f', 119, int) on FreeBSD.
_OUT: Final[int] = 0x40046677 if sys.platform.startswith("freebsd") else termios.TIOCOUTQ


def unread(fd: int) -> int:
    """Bytes that have come and were not read.  Raises OSError."""
    return _ask(fd, termios.FIONREAD)


def unsent(fd: int) -> int:
    """Bytes that were written and that the peer has not acknowledged.  Raises OSError."""
    return _ask(fd, _OUT)


def _ask(fd: int, what: int) -> int:
    return int.from_bytes(fcntl.ioctl(fd, what, bytes(4)), sys.byteorder)
