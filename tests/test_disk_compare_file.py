"""The file that the disk workload reads: every block known, on a device, and gone afterwards."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from diskfile import MIB, SEED, require_disk

from loadtest import _disk_file
from loadtest._asked import BadInput
from loadtest._disk_file import BLOCK, MARK, DataFile, content, digest


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("disk")
    require_disk(made)
    return made


@pytest.fixture
def file(place: Path) -> Iterator[DataFile]:
    with DataFile(place, 3 * MIB, SEED) as made:
        yield made


def test_every_block_begins_with_its_number_and_the_rest_is_different(file: DataFile) -> None:
    whole = np.frombuffer(file.path.read_bytes(), np.uint64).reshape(-1, BLOCK // 8)
    assert len(whole) == 3 * MIB // BLOCK
    assert np.array_equal(whole[:, 0] - np.uint64(MARK), np.arange(len(whole), dtype=np.uint64))
    rest = whole[:, 1:].ravel()
    assert len(np.unique(rest)) > 0.999 * len(rest)
    assert len(zlib.compress(whole.tobytes(), 1)) > 0.99 * whole.nbytes


def test_it_is_really_written(file: DataFile) -> None:
    assert os.fstat(file.fd).st_blocks * 512 >= file.size
    assert os.lseek(file.fd, 0, os.SEEK_HOLE) == file.size


def test_any_block_can_be_computed_again(file: DataFile) -> None:
    whole = file.path.read_bytes()
    assert content(SEED, 2) == whole[2 * MIB :]
    assert content(SEED + 1, 2) != whole[2 * MIB :]
    for offset, count in ((0, BLOCK), (MIB + 7 * BLOCK, BLOCK), (2 * MIB + 131072, 131072)):
        assert digest(SEED, offset, count) == zlib.crc32(whole[offset : offset + count])


def test_it_can_be_evicted_from_the_page_cache(file: DataFile) -> None:
    file.path.read_bytes()
    assert file.cool() == 0


def test_it_has_no_name_and_its_bytes_are_given_back(place: Path) -> None:
    with DataFile(place, MIB, SEED) as file:
        assert list(place.iterdir()) == []
        path = file.path
        assert path.stat().st_size == MIB
    assert not path.exists()


def test_it_keeps_a_name_where_that_was_asked_for(place: Path) -> None:
    with DataFile(place, MIB, SEED, keep=True) as file:
        assert file.kept is not None
    assert file.kept.stat().st_size == MIB
    file.remove()
    assert list(place.iterdir()) == []


def test_interrupted_while_it_is_written_it_leaves_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(fd: int, data: bytes) -> None:
        os.write(fd, data)
        raise KeyboardInterrupt

    monkeypatch.setattr(_disk_file, "_write", interrupt)
    for keep in (False, True):
        with pytest.raises(KeyboardInterrupt):
            DataFile(place, 2 * MIB, SEED, keep)
        assert list(place.iterdir()) == []


def test_a_disk_that_fills_up_is_said_and_nothing_is_left(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr(_disk_file, "_new", lambda *_: os.dup(full.fileno()))
        with pytest.raises(BadInput, match=r"1 MiB cannot be written: No space left.*smaller"):
            DataFile(place, MIB, SEED)


def test_what_does_not_fit_is_refused_before_a_byte_is_written(place: Path) -> None:
    with pytest.raises(BadInput, match=r"MiB free, and \d+ MiB and 256 to spare are needed"):
        DataFile(place, 1 << 50, SEED)
    assert list(place.iterdir()) == []


def test_a_directory_that_is_none_is_refused(place: Path) -> None:
    with pytest.raises(BadInput, match="is no directory: make it, or name another"):
        DataFile(place / "nosuch", MIB, SEED)


def test_a_memory_filesystem_is_refused() -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir() or not os.access(memory, os.W_OK):
        pytest.skip("this system has no /dev/shm")
    with pytest.raises(BadInput, match=r"no device would be measured: .*--path"):
        DataFile(memory, MIB, SEED)
