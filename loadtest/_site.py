"""The document root of a file load: which files there are, what is in them, how often each is due.

What this file is
-----------------
Every file is a slice of one block of random bytes, which a constant seeds.  So any process knows
what each file must hold, by its number, without a file being read or a second copy being kept; and
two files of the same size are different everywhere, so that the wrong one is seen.

A root for a *hot* load has few files of each size, which fit into the page cache together.  For a
*cold* one it has more files than connections are active, since a file is evicted before it is
asked for again and must not be under way to somebody else meanwhile.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

SEED: Final = 20_170_612
#: Where files may begin in the block, and how far neighbours are apart (coprime to it).
SPREAD: Final = 1 << 20
STRIDE: Final = 4099
LARGEST: Final = 256 << 20
#: Files of one size in a hot root, and the bytes that they may have together.
HOT_FILES: Final = 64
HOT_BYTES: Final = 16 << 20
LEAST_FILES: Final = 4
#: Files of each size in a cold root beyond the active connections, so that a file rests before it
#: is evicted; and the bytes that the root may have.
SPARE: Final = 32
COLD_BYTES: Final = 2 << 30
#: Length of the sequence in which sizes take turns.
TURNS: Final = 4096
UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20}
CACHES: Final = ("hot", "cold")
#: No read returns that many bytes, not even at the end of file.
UNKNOWN: Final = -1


@dataclass(frozen=True, slots=True)
class Size:
    """One part of a mix: files of so many bytes, this share of the requests."""

    label: str
    size: int
    weight: float


@dataclass(slots=True, eq=False)
class File:
    """One file of the root."""

    path: str
    #: Which of the mix's sizes it has.
    kind: int
    size: int
    #: Where its bytes begin in the block.
    offset: int
    request: bytes = b""
    #: Bytes of a whole response, head and body; UNKNOWN until one was seen.
    whole: int = UNKNOWN
    #: Where the times of its responses are gathered: one list for all of its size.
    latencies: list[int] = field(default_factory=list)


def parse_size(text: str) -> int:
    """Bytes of "511", "16k" or "4m".  Raises ValueError with one line."""
    stated = text.strip().lower()
    number, unit = (stated[:-1], stated[-1:]) if stated[-1:] in UNITS else (stated, "")
    if not (number.isascii() and number.isdecimal() and int(number)):
        raise ValueError(f"{text!r} is no size: give bytes, or 16k, or 4m")
    if int(number) * UNITS[unit] > LARGEST:
        raise ValueError(f"{text!r} is more than the largest size, {LARGEST >> 20}m")
    return int(number) * UNITS[unit]


def parse_mix(text: str) -> tuple[Size, ...]:
    """The sizes of "1k:70,16k:20,4m:1", or of "16k" alone.  Raises ValueError with one line.

    A size with the weight 0 is never in turn: it is there for slow readers, if it is the largest.
    """
    found: dict[str, Size] = {}
    for part in text.split(","):
        label, colon, weight = part.strip().lower().partition(":")
        size = parse_size(label)
        try:
            share = float(weight) if colon else 1.0
        except ValueError:
            share = -1.0
        if not 0 <= share < float("inf"):
            raise ValueError(f"{part.strip()!r}: a weight is a number, 0 or more, as in 16k:20")
        if label in found:
            raise ValueError(f"{label!r} stands twice in {text!r}")
        found[label] = Size(label, size, share)
    if not any(one.weight for one in found.values()):
        raise ValueError(f"{text!r} gives no size a weight above 0")
    return tuple(found.values())


def turns(mix: Sequence[Size], seed: int) -> list[int]:
    """Sizes of `mix` in a random order, as often as their weights say, and once where above 0."""
    whole = sum(one.weight for one in mix)
    order = [
        kind
        for kind, one in enumerate(mix)
        for _ in range(max(1, round(TURNS * one.weight / whole)) if one.weight else 0)
    ]
    random.Random(seed).shuffle(order)
    return order


def _counts(mix: Sequence[Size], cache: str, active: int) -> list[int]:
    """How many files of each size."""
    whole = sum(one.weight for one in mix)

    def count(one: Size) -> int:
        if not one.weight:
            return 1
        if cache == "hot":
            return max(LEAST_FILES, min(HOT_FILES, HOT_BYTES // one.size))
        # Twice its share, as sizes do not come evenly; together there are always enough.
        return min(active, int(2 * active * one.weight / whole) + 1) + SPARE

    return [count(one) for one in mix]


class Site:
    """The files of a mix and what is in them."""

    def __init__(self, mix: Sequence[Size], cache: str = "hot", active: int = 1) -> None:
        """`active` is how many connections ask at once.  Raises ValueError where that is too much
        for a cold root."""
        self.mix = tuple(mix)
        self.cache = cache
        counts = _counts(mix, cache, active)
        #: Bytes of all files.
        self.bytes = sum(one.size * count for one, count in zip(mix, counts, strict=True))
        if cache == "cold" and self.bytes > COLD_BYTES:
            raise ValueError(
                f"a cold root for {active:,} active connections needs {sum(counts):,} files of "
                f"{self.bytes >> 20:,} MiB together, and may have {COLD_BYTES >> 20:,} MiB: use "
                "fewer connections or smaller files"
            )
        block = max(one.size for one in mix) + SPREAD
        self.content = random.Random(SEED).randbytes(-(-block // 4) * 4)
        #: The files of each size.
        self.kinds: list[list[File]] = []
        for kind, (one, count) in enumerate(zip(mix, counts, strict=True)):
            latencies: list[int] = []
            self.kinds.append(
                [
                    File(
                        f"{one.label}/{number:04d}.bin",
                        kind,
                        one.size,
                        (number * STRIDE + one.size) % SPREAD,
                        latencies=latencies,
                    )
                    for number in range(count)
                ]
            )

    @property
    def files(self) -> list[File]:
        return [file for kind in self.kinds for file in kind]

    @property
    def largest(self) -> File:
        """The last of the largest files, which slow readers ask for."""
        return max(self.kinds, key=lambda files: files[0].size)[-1]

    def expected(self, file: File) -> memoryview:
        """What `file` holds."""
        return memoryview(self.content)[file.offset : file.offset + file.size]

    def holds(self, file: File, body: bytes) -> bool:
        """Whether `body` is what `file` holds.

        By memcmp: comparing with a memoryview goes byte by byte.
        """
        return len(body) == file.size and self.content.startswith(body, file.offset)

    def requests(self, host: str) -> None:
        """Set every file's request, to the server at `host` (host:port)."""
        for file in self.files:
            file.request = f"GET /{file.path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()

    def write(self, root: Path) -> None:
        """Write the files that `root` lacks; a cold root's down to the device.  Raises OSError.

        One that has its size already is left: who loads it compares its bytes anyway.
        """
        for one in self.mix:
            (root / one.label).mkdir(parents=True, exist_ok=True)
        for file in self.files:
            path = root / file.path
            if not path.exists() or path.stat().st_size != file.size:
                path.write_bytes(self.expected(file))
            if self.cache == "cold":  # only what is on the device can leave the cache
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
