"""Whether direct reads in a directory are asynchronous: found out by doing some.

Facts
-----
*   Nothing tells beforehand.  A filesystem may take O_DIRECT and io_submit(2) and read through the
    page cache all the same; then io_submit sleeps until the disk has answered, and an event loop
    with it.  Voluntary context switches around it show that (pollers.aio.counters).
*   tmpfs takes O_DIRECT since Linux 6.6 and is as fast as memory, being memory.
*   A read of what is in the page cache blocks nobody: what is read must be cold.  Data that was
    just written is in memory until it is on the disk and posix_fadvise(DONTNEED) drops it.

What does this mean for us?
---------------------------
*   A file of 4 MiB is written there, without a name if possible, is synced, dropped from memory
    and read directly, 256 times 4 KiB, 16 at a time.  That takes some 50 ms on a disk.
*   The verdict is about that directory's filesystem now, with its mount options; a file of
    another kind in it (compressed, encrypted, on an overlay's lower layer) may differ.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from pollers.aio.bulk import BulkReader
from pollers.aio.direct import ALIGNMENT, DirectFile, open_direct

#: What is written, and how it is read.
SIZE: Final = 4 << 20
COUNT: Final = 4096
READS: Final = 256
DEPTH: Final = 16
#: Voluntary switches a read from which on reads are not asynchronous.
BLOCKING: Final = 0.1
#: Filesystems that are memory.
MEMORY: Final = frozenset({"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"})

_ELSEWHERE: Final = "read there in threads (pread), or put the files on ext4 or xfs"

#: Verdicts, and what to do about each.
REMEDIES: Final = {
    "asynchronous": "",
    "blocks": f"an event loop would stall with each read: {_ELSEWHERE}",
    "no O_DIRECT": _ELSEWHERE,
    "no device": "what is read there is memory; to measure a disk, name a directory on one",
    "unknown": "name a directory that can be written to, on a system with Linux AIO",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """What some direct reads cost, each."""

    #: Voluntary context switches inside of io_submit(2), and the time there in microseconds.
    switches: float
    submit_us: float


@dataclass(frozen=True, slots=True)
class PathReport:
    """How direct reads in a directory go."""

    path: str
    #: The type of the filesystem and what is mounted, "" where that is not known.
    filesystem: str
    device: str
    #: A key of REMEDIES.
    verdict: str
    #: The verdict in words, with its figure or its reason.
    summary: str
    remedy: str
    #: None where nothing was read.
    switches: float | None = None
    submit_us: float | None = None

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def probe_path(path: str | os.PathLike[str]) -> PathReport:
    """How direct reads go in the directory `path`.  Raises OSError where that is no directory."""
    directory = os.fspath(path)
    if not os.path.isdir(directory):
        number = errno.ENOTDIR if os.path.exists(directory) else errno.ENOENT
        raise OSError(number, f"{directory}: {os.strerror(number)}")
    filesystem, device = mounted(directory)

    def report(verdict: str, summary: str, measured: Measured | None = None) -> PathReport:
        return PathReport(
            directory,
            filesystem,
            device,
            verdict,
            summary,
            REMEDIES[verdict],
            measured.switches if measured else None,
            measured.submit_us if measured else None,
        )

    if filesystem in MEMORY:
        return report("no device", f"no device behind it ({filesystem})")
    try:
        with tempfile.TemporaryFile(dir=directory, prefix="pollmark-", buffering=0) as file:
            _fill(file.fileno())
            try:
                direct = open_direct(file.fileno())
            except OSError as error:
                return report("no O_DIRECT", f"no O_DIRECT: {_reason(error)}")
            try:
                measured = measure(direct)
            finally:
                direct.close()
    except OSError as error:
        return report("unknown", f"not known: {_reason(error)}")
    if measured.switches >= BLOCKING:
        blocks = f"blocks ({measured.switches:.1f} switches an operation)"
        return report("blocks", blocks, measured)
    return report("asynchronous", "asynchronous", measured)


def measure(file: DirectFile) -> Measured:
    """Read a cold file of SIZE bytes at READS places.  Raises OSError for what a read got."""
    offsets = np.arange(READS) * (SIZE // READS)
    np.random.default_rng(0).shuffle(offsets)  # no pattern that a read-ahead would see
    most = max(ALIGNMENT, *file.alignment)
    with BulkReader(DEPTH, COUNT, alignment=most, count_switches=True) as reader:
        for batch in reader.read_many(file, offsets):
            worst = int(batch.results.min())
            if worst < 0:
                raise OSError(-worst, f"a direct read there failed: {os.strerror(-worst)}")
        counters = reader.counters
        switches = (counters.voluntary_switches or 0) / READS
        return Measured(switches, counters.submit_seconds / READS * 1e6)


def mounted(path: str, mountinfo: str | None = None) -> tuple[str, str]:
    """The filesystem's type and what is mounted where `path` is; ("", "") where /proc is not.

    `mountinfo` is the content of /proc/self/mountinfo, proc_pid_mountinfo(5).
    """
    if mountinfo is None:
        try:
            mountinfo = Path("/proc/self/mountinfo").read_text()
        except FileNotFoundError:
            return "", ""
    found, best = ("", ""), -1
    real = os.path.realpath(path)
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        point = _unescape(before.split(" ")[4])
        below = point == "/" or real == point or real.startswith(point + "/")
        if below and len(point) >= best:  # the later of two on one point is the one on top
            best = len(point)
            kind, source, *_ = after.split(" ")
            found = kind, _unescape(source)
    return found


def _unescape(field: str) -> str:
    """Space, tab, newline and backslash are octal there."""
    for character in " \t\n\\":
        field = field.replace(f"\\{ord(character):03o}", character)
    return field


def _fill(fd: int) -> None:
    """Write SIZE bytes that cannot be compressed, have them on the disk and not in memory."""
    content = memoryview(np.random.default_rng(0).bytes(SIZE))
    while content:
        content = content[os.write(fd, content) :]
    os.fsync(fd)
    if sys.platform == "linux":
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
