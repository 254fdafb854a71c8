"""Faults of the kernel and the disk: nothing is lost, mixed up or hung, and errors are clear."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from diskreads import KIB, MIB, Reads, opened, run
from hosts import HOSTS

from pollers.aio.bulk import BulkReader
from pollers.aio.disk import DiskReader

READER = Path(__file__).with_name("faulty_reads.py")
#: Of each way; see there.
READS = 300
#: ioctl(2): in which block of its disk a block of a file lies.
FIBMAP = 1


def under(path: Path, *faults: str, way: str = "all", mapped: str = "yes") -> dict[str, int]:
    """What the reading process tells, with faults as strace(1)'s `-e inject=` has them."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace, which injects the fault, is not installed: apt-get install strace")
    words = [word for fault in faults for word in ("-e", f"inject={fault}")]
    with tempfile.NamedTemporaryFile("r") as log:
        command = [strace, "-f", "--seccomp-bpf", "-o", log.name, "-e", "trace=/^io_.*", *words]
        ended = subprocess.run(
            [*command, sys.executable, str(READER), str(path), way, mapped],
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )
        traced = log.read()
    if "PTRACE" in ended.stderr:
        pytest.skip(f"strace cannot trace here: {ended.stderr.strip()}")
    assert ended.stderr == ""
    assert "(INJECTED)" in traced
    told: dict[str, int] = json.loads(ended.stdout)
    return told


# -- the kernel


#: strace has one fault for a call: of two, the last one counts.
PASSING = {
    "as usual": ("io_submit:error=EAGAIN:when=1+3", "io_getevents:error=EINTR:when=1+2"),
    "unheard of": ("io_submit:error=EINTR:when=2+5", "io_getevents:error=EAGAIN:when=2+5"),
}


@pytest.mark.parametrize("mapped", ["yes", "no"])
@pytest.mark.parametrize("faults", PASSING.values(), ids=PASSING)
def test_faults_that_pass_lose_no_read_and_mix_up_none(
    plain: Path, faults: tuple[str, ...], mapped: str
) -> None:
    """io_submit knows no EINTR, and io_getevents no EAGAIN: injected, they do no harm either."""
    assert under(plain, *faults, mapped=mapped) == {"right": 5 * READS}


def test_memory_that_stays_short_is_an_error_of_each_read(plain: Path) -> None:
    told = under(plain, "io_submit:error=EAGAIN", way="callbacks")
    assert sum(told.values()) == READS
    assert all("Resource temporarily unavailable" in text for text in told), told
    for way in ("bulk", "one by one"):
        assert under(plain, "io_submit:error=EAGAIN", way=way) == {
            "Resource temporarily unavailable": READS
        }


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ("EPERM", "a seccomp filter blocks it; allow io_setup in the container's profile"),
        ("ENOSYS", "this kernel is built without CONFIG_AIO, or a container's seccomp filter"),
        ("EAGAIN", "fs.aio-max-nr is used up"),
    ],
)
def test_a_refused_io_setup_says_what_to_do(plain: Path, number: str, words: str) -> None:
    (line,) = under(plain, f"io_setup:error={number}", way="asyncio")
    assert words in line
    assert "\n" not in line


@pytest.mark.parametrize("way", ["asyncio", "trio"])
def test_completions_that_cannot_be_had_end_what_is_awaited(plain: Path, way: str) -> None:
    """As under a seccomp filter that forgot io_getevents, where the ring cannot be read."""
    told = under(plain, "io_getevents:error=EPERM", way=way, mapped="no")
    assert told == {"[Errno 1] io_getevents: Operation not permitted": READS}


# -- the file


@pytest.mark.parametrize("name", HOSTS)
def test_a_file_truncated_while_it_is_read(tmp_path: Path, content: bytes, name: str) -> None:
    """What is told is a beginning of what was there; the rest is short, and nothing hangs."""
    path = tmp_path / "file"
    path.write_bytes(content)
    file = opened(path)
    host: Any = HOSTS[name]()

    async def main() -> None:
        async with host.Reader(depth=8, block=64 * KIB) as reader:
            for size in range(MIB, 0, -100_000):

                async def cut(size: int = size) -> None:
                    await host.turn()
                    await host.turn()
                    os.truncate(path, size)

                reads = [
                    lambda at=at: reader.read(file, at, 300_000) for at in range(0, MIB, MIB // 9)
                ]
                parts = await host.gather([*reads, cut])
                for at, part in zip(range(0, MIB, MIB // 9), parts[:-1], strict=True):
                    assert part == content[at : at + len(part)]
                    assert at + len(part) >= min(size, at + 300_000) or at >= size

    host.run(main)
    file.close()


# -- the disk


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> Iterator[tuple[Path, int]]:
    """A file of 8 MiB on a medium that ends within it, and the offset where it does.

    An image of ext4 on a loop device, cut off under what is mounted.  That takes root.
    """
    mount = tmp_path_factory.mktemp("mount")
    image = tmp_path_factory.mktemp("medium") / "image"
    with open(image, "wb") as medium:
        medium.truncate(24 * MIB)
    tool("mkfs.ext4", "-q", "-F", "-b", "4096", str(image))
    tool("mount", "-o", "loop", str(image), str(mount))
    try:
        path = mount / "file"
        path.write_bytes(content[:MIB] * 8)
        os.sync()
        with open(path, "rb") as file:
            blocks = [
                struct.unpack("i", fcntl.ioctl(file, FIBMAP, struct.pack("i", number)))[0]
                for number in range(8 * MIB // 4096)
            ]
    finally:
        tool("umount", str(mount))
    cut = blocks[len(blocks) // 2]
    good = next(number for number, block in enumerate(blocks) if block >= cut)
    tool("mount", "-o", "loop,ro,noload", str(image), str(mount))
    try:
        os.truncate(image, cut * 4096)
        yield path, good * 4096
    finally:
        tool("umount", str(mount))


def tool(*words: str) -> None:
    """Run a tool.  Skips where it is missing or refused, with what it said."""
    if shutil.which(words[0]) is None:
        pytest.skip(f"a broken disk is made with {words[0]}, which is not installed")
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    if ended.returncode:
        pytest.skip(f"{' '.join(words[:3])}: {ended.stderr.strip()}")


def test_an_error_in_mid_file_is_that_read_s_only(
    broken: tuple[Path, int], content: bytes
) -> None:
    path, end = broken
    file = opened(path)
    places = {"before": end - 8192, "across": end - 4096, "beyond": end + 8192, "start": 0}
    reads = Reads()
    with DiskReader(depth=4) as reader:
        for key, at in places.items():
            reader.submit(file, at, 8192, reads.into(key))
        run(reader)
    image = content[:MIB] * 8
    assert reads.results["start"] == image[:8192]
    assert reads.results["before"] == image[end - 8192 : end]
    assert reads.results["beyond"] == errno.EIO
    assert reads.results["across"] in (errno.EIO, image[end - 4096 : end])
    with BulkReader(depth=4) as bulk:
        for batch in bulk.read_many(file, list(places.values()), 4096):
            for index, result in zip(batch.indices.tolist(), batch.results.tolist(), strict=True):
                assert result == (-errno.EIO if index == 2 else 4096)
        assert bulk.counters.errors == 1
    file.close()


@pytest.mark.parametrize("name", HOSTS)
def test_a_long_read_over_a_broken_place_fails_with_it(
    broken: tuple[Path, int], content: bytes, name: str
) -> None:
    path, end = broken
    file = opened(path)
    host: Any = HOSTS[name]()

    async def main() -> None:
        async with host.Reader(depth=4, block=64 * KIB) as reader:
            results = await host.gather(
                [lambda: reader.read(file, 0, 8 * MIB), lambda: reader.read(file, 0, end // 2)]
            )
            assert results[0].errno == errno.EIO
            assert "direct read of" in str(results[0])
            assert results[1] == (content[:MIB] * 8)[: end // 2]

    host.run(main)
    file.close()
