"""What statx(2) says of direct I/O on a file, and that the kernel holds to it."""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from pollers import statx
from pollers.statx import Alignment, alignment_in, direct_io_alignment

if not hasattr(os, "O_DIRECT") or not Path("/proc/self/fd").exists():
    pytest.skip("statx(2) is Linux's", allow_module_level=True)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "file"
    path.write_bytes(bytes(8192))
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def answer(mask: int, memory: int, offset: int) -> bytes:
    """A struct statx."""
    buffer = bytearray(statx.SIZE)
    struct.pack_into("=I", buffer, 0x00, mask)
    struct.pack_into("=II", buffer, 0x98, memory, offset)
    return bytes(buffer)


def test_constants_are_the_headers() -> None:
    assert (statx.AT_EMPTY_PATH, statx.STATX_DIOALIGN, statx.SIZE) == (0x1000, 0x2000, 256)
    assert (statx.STX_MASK, statx.STX_DIO_MEM_ALIGN) == (0x00, 0x98)
    number = 332 if statx.MACHINE == "x86_64" else 291
    assert number == statx.NR_STATX


def test_the_call_fills_the_layout_that_is_read(file: int) -> None:
    """The neighbours that Python can check: stx_ino at 0x20, stx_size at 0x28."""
    basic = 0x7FF
    raw = statx._statx(file, basic)
    (mask,) = struct.unpack_from("=I", raw, statx.STX_MASK)
    assert mask & basic == basic
    known = os.fstat(file)
    assert struct.unpack_from("=QQ", raw, 0x20) == (known.st_ino, known.st_size)


def test_the_alignment_is_two_powers_of_two(file: int) -> None:
    for value in direct_io_alignment(file):
        assert value > 0
        assert value & (value - 1) == 0


def test_an_o_path_descriptor_will_do(file: int, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_PATH)
    try:
        assert direct_io_alignment(fd) == direct_io_alignment(file)
    finally:
        os.close(fd)


@pytest.mark.parametrize("wrong", ["offset", "length"])
def test_the_kernel_refuses_less(file: int, tmp_path: Path, wrong: str) -> None:
    """And takes what was promised, so that the refusal has no other cause.

    Not so for memory: what is less aligned than promised may be taken, depending on the device.
    """
    try:
        direct = os.open(tmp_path / "file", os.O_RDONLY | os.O_DIRECT)
    except OSError as error:
        pytest.skip(f"no O_DIRECT on {tmp_path}: {error}")
    try:
        if not struct.unpack_from("=I", statx._statx(direct, 0x2000))[0] & 0x2000:
            pytest.skip(f"the filesystem of {tmp_path} does not tell its alignment")
        unit = direct_io_alignment(direct).offset
        if unit == 1:
            pytest.skip(f"any {wrong} will do on {tmp_path}")
        offset, length = {"offset": (unit // 2, unit), "length": (unit, unit // 2)}[wrong]
        with mmap.mmap(-1, unit) as memory, memoryview(memory) as view:
            assert os.preadv(direct, [view], unit) == unit
            with view[:length] as bad, pytest.raises(OSError, match="Invalid") as refused:
                os.preadv(direct, [bad], offset)
        assert refused.value.errno == errno.EINVAL
    finally:
        os.close(direct)


def test_what_the_kernel_tells_is_taken() -> None:
    assert alignment_in(answer(0x2000, 4, 512)) == Alignment(memory=4, offset=512)


def test_a_page_is_assumed_where_it_does_not_tell() -> None:
    """Linux before 6.1, whatever bytes stand in the fields."""
    assert alignment_in(answer(0x07FF, 0, 0)) == Alignment(4096, 4096)
    assert alignment_in(answer(0x07FF, 7, 7)) == Alignment(4096, 4096)


@pytest.mark.parametrize("zeros", [(0, 0), (0, 512), (4, 0)])
def test_zeros_mean_no_direct_io(zeros: tuple[int, int]) -> None:
    with pytest.raises(OSError, match="no direct I/O on this file") as refused:
        alignment_in(answer(0x2000, *zeros))
    assert refused.value.errno == errno.EOPNOTSUPP


def test_a_closed_descriptor_is_an_error_of_statx(file: int) -> None:
    gone = os.dup(file)
    os.close(gone)
    with pytest.raises(OSError, match="statx") as refused:
        direct_io_alignment(gone)
    assert refused.value.errno == errno.EBADF
