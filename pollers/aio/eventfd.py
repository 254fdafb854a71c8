"""The eventfd(2) through which any loop hears of completions (IOCB_FLAG_RESFD).

Facts
-----
*   The kernel adds one for each completion, after it is in the ring.  Read it before the ring,
    and a completion in between is signalled again.
*   It is inherited by fork(2) and shared then: who reads it in the child takes the signal from the
    parent.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Final

#: What adds one: a u64 in the machine's order.
_ONE: Final = (1).to_bytes(8, sys.byteorder)


def new() -> int:
    """A new one, non-blocking, close-on-exec."""
    if sys.platform == "linux":
        return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    else:  # noqa: RET505 - mypy would call what follows unreachable
        raise OSError(errno.ENOSYS, "eventfd(2) and Linux AIO exist on Linux only")


def nudge(fd: int) -> None:
    """Make it readable."""
    os.write(fd, _ONE)


def clear(fd: int) -> None:
    """Make it unreadable, whether it was readable or not."""
    try:
        os.read(fd, 8)
    except BlockingIOError:
        return
