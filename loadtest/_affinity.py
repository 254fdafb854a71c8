"""Which cores another process may run on: psutil, which macOS gives no such calls to."""

from __future__ import annotations

from collections.abc import Sequence

import psutil


def cores_of(pid: int) -> list[int]:
    """The cores that a process may run on; empty where the system cannot tell.

    Raises psutil.NoSuchProcess.
    """
    ask = getattr(psutil.Process(pid), "cpu_affinity", None)
    return list(ask() or []) if ask is not None else []


def pin(pid: int, cores: Sequence[int]) -> None:
    """Let a process run on these cores only.

    Raises psutil.NoSuchProcess, ValueError for a core that there is not, and OSError where the
    system has no such call.
    """
    set_to = getattr(psutil.Process(pid), "cpu_affinity", None)
    if set_to is None:
        raise OSError("this system pins no process to a core; leave --load-cpu out")
    set_to(list(cores))
