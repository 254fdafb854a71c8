"""The file that is read: really written, each block of it different and known.

What this file is
-----------------
*   Each 4 KiB block begins with its own number (a u64 in the machine's order, plus `MARK`), and
    the rest are random bytes, made 1 MiB at a time from a seed and the number of that MiB.  So a
    reader knows from the first eight bytes whether it has the block that it asked for, and a
    digest of any block can be computed again without keeping the file in memory.  Nothing of it
    compresses, repeats or is a hole: a device cannot answer without having it.
*   It has no name while it is read.  Whoever reads it opens /proc/PID/fd/N of the process that
    wrote it; so the bytes are given back whatever ends that process, SIGKILL included.
*   A name is kept where it was asked for.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zlib
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from loadtest import _pagecache
from loadtest._asked import BadInput

BLOCK: Final = 4096
CHUNK: Final = 1 << 20
PER_CHUNK: Final = CHUNK // BLOCK
#: Added to a block's number, so that no block begins with eight zeros as a hole does.
MARK: Final = 0x504D_0000_0000_0000
#: Bytes that are left free on the filesystem.
SPARE: Final = 256 << 20
NAME: Final = "pollmark-disk.data"


def content(seed: int, chunk: int) -> bytes:
    """The bytes of MiB number `chunk` of a file."""
    made = np.frombuffer(
        bytearray(np.random.Generator(np.random.SFC64([seed, chunk])).bytes(CHUNK)), np.uint64
    ).reshape(PER_CHUNK, -1)
    first = MARK + chunk * PER_CHUNK
    made[:, 0] = np.arange(first, first + PER_CHUNK, dtype=np.uint64)
    return made.tobytes()


def digest(seed: int, offset: int, count: int) -> int:
    """The CRC-32 of `count` bytes at `offset`, which lie within one MiB."""
    chunk, start = divmod(offset, CHUNK)
    return zlib.crc32(content(seed, chunk)[start : start + count])


def marks(blocks: NDArray[np.int64]) -> NDArray[np.uint64]:
    """What the first eight bytes of these blocks say."""
    return blocks.astype(np.uint64) + np.uint64(MARK)


class DataFile:
    """`size` bytes (a multiple of 1 MiB) in `directory`, written by the constructor.

    Raises BadInput where there is no room, and where nothing but memory is behind the directory.
    """

    def __init__(self, directory: Path, size: int, seed: int, keep: bool = False) -> None:
        _check(directory, size)
        self.size, self.seed = size, seed
        #: Where it can be found afterwards; None unless it is kept.
        self.kept: Path | None = directory / NAME if keep else None
        try:
            self.fd = _new(directory, self.kept)
        except OSError as error:
            raise BadInput(
                f"--path {directory}: no file can be made there: {error.strerror}; name another"
            ) from None
        try:
            for chunk in range(size // CHUNK):
                _write(self.fd, content(seed, chunk))
            os.fsync(self.fd)  # dirty pages cannot be evicted
        except BaseException as error:
            self.remove()
            if isinstance(error, OSError):
                raise BadInput(
                    f"--path {directory}: {size >> 20} MiB cannot be written: {error.strerror}; "
                    "name another directory, or a smaller --size"
                ) from None
            raise

    @property
    def path(self) -> Path:
        """Where it can be opened while this process lives."""
        return Path(f"/proc/{os.getpid()}/fd/{self.fd}")

    def cool(self) -> float:
        """Evict it from the page cache; return the part of its pages that stayed, 0 to 1."""
        _pagecache.evict(self.fd)
        pages = self.size // _pagecache.PAGE
        return _pagecache.resident(self.fd, self.size) / pages

    def close(self) -> None:
        """Give the bytes back, unless they have a name.  May be repeated."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def remove(self) -> None:
        """Close it, and take its name away."""
        self.close()
        if self.kept is not None:
            self.kept.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _check(directory: Path, size: int) -> None:
    """Raise BadInput unless so many bytes on a device can be had here."""
    if not directory.is_dir():
        raise BadInput(f"--path {directory} is no directory: make it, or name another")
    if why := _pagecache.why_never_cold(directory, "--path"):
        raise BadInput(f"no device would be measured: {why}")
    free = shutil.disk_usage(directory).free
    if free < size + SPARE:
        raise BadInput(
            f"--path {directory} has {free >> 20} MiB free, and {size >> 20} MiB and "
            f"{SPARE >> 20} to spare are needed: name another directory, or a smaller --size"
        )


def _new(directory: Path, kept: Path | None) -> int:
    """A new file, with a name or without."""
    if kept is not None:
        return os.open(kept, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    fd, name = tempfile.mkstemp(prefix="pollmark-", dir=directory)
    os.unlink(name)
    return fd


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
