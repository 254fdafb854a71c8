"""How many system calls a process makes, counted by the kernel and not by the process.

Facts
-----
*   The tracepoint raw_syscalls:sys_enter fires at the entry of every system call, 64-bit or not.
    perf_event_open(2) (Linux 2.6.31) opens it as a *counting* event: no samples, no buffer, one
    64-bit number that read(2) returns.
*   Its number differs from kernel to kernel and stands in tracefs, in the file
    events/raw_syscalls/sys_enter/id.  tracefs is mounted at /sys/kernel/tracing, on older
    systems below debugfs.
*   An event follows one *thread*.  With `inherit` it also follows the threads and processes
    which that thread makes later, and its count includes theirs.  So one event per existing
    thread covers a server; a thread made while the events are being opened may be missed, which
    is why this is called when a server is ready and before it is loaded.
*   Right: CAP_PERFMON, or kernel.perf_event_paranoid of -1, and tracefs readable.
*   What it costs: while an event is open, every system call of the process is 0.1 to 0.2 us
    slower (getppid(2) on a 6.18 virtual machine: 0.22 to 0.36 us), so that a server which makes
    more calls is slowed more.  Count in a window of its own, such as the warm-up, and never in
    the one whose throughput or CPU is reported.
*   io_uring does its work without system calls, which is its purpose: a low count there is true.
    The cost of a call is not: compare the CPU per message as well.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Self

from pollers.syscall import MACHINE, syscall

#: perf_event_open(2): asm-generic's number everywhere but where the table is older.
NR_PERF_EVENT_OPEN: Final = {"x86_64": 298, "aarch64": 241, "riscv64": 241}

#: Where tracefs may be mounted, and the file with the tracepoint's number in it.
TRACEFS: Final = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
TRACEPOINT: Final = "events/raw_syscalls/sys_enter/id"

#: The first published struct perf_event_attr, PERF_ATTR_SIZE_VER0: type, size, config,
#: sample_period, sample_type, read_format, flags, wakeup_events, bp_type, bp_addr.
ATTR: Final = struct.Struct("=IIQQQQQIIQ")
PERF_TYPE_TRACEPOINT: Final = 2
FLAG_INHERIT: Final = 1 << 1
PERF_FLAG_FD_CLOEXEC: Final = 8


class KernelCalls:
    """Counts the system calls of processes from now on, present and future threads included.

    Where that is not possible `reason` says in one line why and what to do, and `read()` is None:
    the constructor raises nothing, since a missing count is no reason not to measure.
    """

    def __init__(self, pids: Iterable[int], tracefs: Iterable[Path] = TRACEFS) -> None:
        self.reason = ""
        self._fds: list[int] = []
        try:
            attributes = _attributes(tracefs)
            for pid in pids:
                for thread in _threads(pid):
                    self._fds.append(_open(attributes, thread))
        except OSError as error:
            self.close()
            self.reason = _why(error)

    def read(self) -> int | None:
        """System calls since the constructor; None where they are not counted."""
        if not self._fds:
            return None
        return sum(int.from_bytes(os.read(fd, 8), "little") for fd in self._fds)

    def close(self) -> None:
        """Stop counting.  May be repeated."""
        while self._fds:
            os.close(self._fds.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _attributes(tracefs: Iterable[Path]) -> ctypes.Array[ctypes.c_char]:
    packed = ATTR.pack(
        PERF_TYPE_TRACEPOINT, ATTR.size, _tracepoint(tracefs), 0, 0, 0, FLAG_INHERIT, 0, 0, 0
    )
    return ctypes.create_string_buffer(packed, ATTR.size)


def _tracepoint(tracefs: Iterable[Path]) -> int:
    places = list(tracefs)
    for place in places:
        try:
            return int((place / TRACEPOINT).read_text())
        except FileNotFoundError:
            continue
    raise FileNotFoundError(
        f"the tracepoint raw_syscalls:sys_enter is not below {' or '.join(map(str, places))}; "
        "on Linux: mount -t tracefs tracefs /sys/kernel/tracing"
    )


def _threads(pid: int) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))
    except FileNotFoundError:
        raise ProcessLookupError(f"process {pid} has gone") from None


def _open(attributes: ctypes.Array[ctypes.c_char], thread: int) -> int:
    number = NR_PERF_EVENT_OPEN.get(MACHINE)
    if number is None:
        raise OSError(f"the number of perf_event_open(2) on {MACHINE} is not known here")
    return syscall(
        "perf_event_open",
        number,
        attributes,
        ctypes.c_int(thread),
        ctypes.c_int(-1),  # whatever core it runs on
        ctypes.c_int(-1),  # no group
        ctypes.c_ulong(PERF_FLAG_FD_CLOEXEC),
    )


def _why(error: OSError) -> str:
    said = error.strerror or str(error)
    if error.filename:
        said = f"{error.filename}: {said}"
    if isinstance(error, PermissionError):
        said += " (needs root, or CAP_PERFMON and a readable tracefs)"
    return f"system calls are not counted: {said}"
