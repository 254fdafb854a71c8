"""Many reads as arrays: byte-exact, each once, whatever ends them."""

from __future__ import annotations

import errno
import os
import select
import time
from pathlib import Path

import numpy as np
import pytest
from diskreads import GIB, KIB, MIB, opened, rings
from hypothesis import given, settings
from hypothesis import strategies as st

from pollers.aio.bulk import Batch, BulkReader
from pollers.aio.context import Context
from pollers.aio.disk import DirectFile, open_direct
from pollers.statx import Alignment


def gather(reader: BulkReader, batch: Batch, into: dict[int, bytes | int]) -> None:
    for index, slot, head, result in zip(*(column.tolist() for column in batch[:4]), strict=True):
        assert index not in into, "told twice"
        row = reader.rows[slot]
        into[index] = bytes(row[head : head + result]) if result >= 0 else result


def _tell_on(reader: BulkReader, told: list[int]) -> None:
    while reader.left:
        told += reader.step().results.tolist()


def _step_on(reader: BulkReader) -> None:
    while reader.left:
        reader.step()


def read_all(
    reader: BulkReader, file: DirectFile, offsets: list[int], count: int
) -> list[bytes | int]:
    results: dict[int, bytes | int] = {}
    for batch in reader.read_many(file, offsets, count):
        gather(reader, batch, results)
    return [results.pop(index) for index in range(len(offsets))]


@pytest.mark.parametrize("depth", [1, 2, 7, 64])
@pytest.mark.parametrize("count", [1, 512, 4096, 10_000])
def test_what_pread_reads_is_read(
    file: DirectFile, content: bytes, depth: int, count: int
) -> None:
    chance = np.random.default_rng(depth)
    aligned = (chance.integers(0, MIB // 4096 + 3, 300) * 4096).tolist()
    anywhere = chance.integers(0, MIB + 9000, 300).tolist()
    with BulkReader(depth, 10_000) as reader:
        for offsets in (aligned, anywhere, []):
            expected = [content[offset : offset + count] for offset in offsets]
            assert read_all(reader, file, offsets, count) == expected
        assert (reader.counters.reads, reader.counters.errors) == (600, 0)
        assert reader.counters.bytes > 0
        assert reader.counters.voluntary_switches is None


@settings(max_examples=50, deadline=None)
@given(
    offsets=st.lists(st.integers(0, MIB + 5000), max_size=100),
    count=st.integers(1, 9000),
    depth=st.sampled_from([1, 3, 40]),
)
def test_any_offsets_and_any_count(
    plain: Path, content: bytes, offsets: list[int], count: int, depth: int
) -> None:
    file = opened(plain)
    with BulkReader(depth, 9000, timed=True) as reader:
        expected = [content[offset : offset + count] for offset in offsets]
        assert read_all(reader, file, offsets, count) == expected
    file.close()


@pytest.mark.parametrize("depth", [1, 8])
def test_depth_reads_are_under_way_while_the_caller_looks(file: DirectFile, depth: int) -> None:
    with BulkReader(depth, 4096) as reader:
        for batch in reader.read_many(file, np.zeros(100, np.int64)):
            assert reader._flight.in_flight <= depth
            assert len(batch.slots) <= depth
            left = 100 - 1 - int(batch.indices.max())
            if left > 2 * depth:
                assert reader._flight.in_flight == depth


def test_rows_are_read_only_and_stay_until_the_next_step(file: DirectFile, content: bytes) -> None:
    with BulkReader(4, 4096) as reader:
        assert reader.rows.shape[0] == 8
        assert not reader.rows.flags.writeable
        for batch in reader.read_many(file, np.arange(200) * 4096):
            select.select([], [], [], 0.001)  # reads go on meanwhile, into other rows
            for index, slot in zip(batch.indices.tolist(), batch.slots.tolist(), strict=True):
                expected = content[index * 4096 :][:4096]
                assert bytes(reader.rows[slot][: len(expected)]) == expected


def test_a_loop_drives_it_by_its_eventfd(file: DirectFile, content: bytes) -> None:
    offsets = list(range(0, MIB, 5000))
    results: dict[int, bytes | int] = {}
    with BulkReader(16, 5000, timed=True) as reader:
        poll = select.poll()
        poll.register(reader.fileno(), select.POLLIN)
        reader.begin(file, offsets, 5000)
        while True:
            while len((batch := reader.step(0)).slots):
                gather(reader, batch, results)
                assert len(batch.seconds) == len(batch.slots)
                assert (batch.seconds > 0).all()
            if not reader.left:
                break
            assert poll.poll(30_000)
    assert results == {i: content[at : at + 5000] for i, at in enumerate(offsets)}


def test_a_wait_ends_in_time(file: DirectFile) -> None:
    with BulkReader(2, 4096) as reader:
        assert len(reader.step(0).slots) == 0  # nothing was asked for
        assert len(reader.step().slots) == 0
        reader.begin(file, [0, 4096])
        seen = 0
        while reader.left:
            seen += len(reader.step(0.05).slots)
        assert seen == 2


def test_stopping_early_leaves_the_reader_usable(file: DirectFile, content: bytes) -> None:
    with BulkReader(32, 4096) as reader:
        for _ in range(20):
            for _batch in reader.read_many(file, np.arange(256) * 4096):
                break
            assert reader.left == 0
            offsets = list(range(1000, 300_000, 7000))
            expected = [content[offset : offset + 4096] for offset in offsets]
            assert read_all(reader, file, offsets, 4096) == expected
        reader.begin(file, [0] * 100)
        with pytest.raises(ValueError, match="100 reads are not done"):
            reader.begin(file, [0])
        reader.step()
        reader.give_up()
        assert read_all(reader, file, [5], 10) == [content[5:15]]


def test_errors_are_results_and_disturb_nobody(plain: Path, content: bytes) -> None:
    """The kernel refuses some at submission (EBADF) and fails others later (EINVAL)."""
    file = opened(plain)
    offsets = [0, 4096, (1 << 62), 8192]
    with BulkReader(4, 4096) as reader:
        got = read_all(reader, file, offsets, 4096)
        assert got[:2] == [content[:4096], content[4096:8192]]
        assert got[3] == content[8192:12288]
        assert got[2] in (b"", -errno.EINVAL, -errno.EFBIG)
        behind_its_back = opened(plain)
        os.close(behind_its_back.fd)
        assert read_all(reader, behind_its_back, [0] * 9, 1) == [-errno.EBADF] * 9
        directory = DirectFile(os.open(plain.parent, os.O_RDONLY), Alignment(512, 512))
        assert read_all(reader, directory, [0] * 9, 1) == [-errno.EINVAL] * 9
        os.close(directory.fd)
        assert reader.counters.errors >= 18
        assert read_all(reader, file, [77], 1) == [content[77:78]]
    file.close()


def test_a_file_that_is_closed_meanwhile_is_said(plain: Path) -> None:
    file = opened(plain)
    with BulkReader(2, 4096) as reader:
        reader.begin(file, [0] * 10)
        reader.step()
        file.close()
        with pytest.raises(OSError, match="closed before all of it was asked for"):
            _step_on(reader)
        reader.give_up()
        with pytest.raises(OSError, match="closed before"):
            reader.begin(file, [0])


def test_a_file_that_is_closed_costs_no_row_and_no_read(plain: Path, content: bytes) -> None:
    """What was under way is told before the error, and its rows are used again."""
    with BulkReader(2, 4096) as reader:
        for _ in range(3):
            file = opened(plain)
            reader.begin(file, [0] * 10)
            told = reader.step().results.tolist()
            file.close()
            with pytest.raises(OSError, match="closed before"):
                _tell_on(reader, told)
            assert set(told) == {4096}
            assert len(told) >= 2
            reader.give_up()
            while reader._flight.in_flight:
                reader.step()
            assert len(reader._flight.prepared.idle) == 4


def test_the_kernel_has_no_room_for_all(file: DirectFile, content: bytes) -> None:
    with BulkReader(2000, 512) as reader:
        reader._context.close()
        reader._context = reader._flight.context = Context(1)
        offsets = [key * 512 for key in range(2040)] * 2
        expected = [content[offset : offset + 512] for offset in offsets]
        assert read_all(reader, file, offsets, 512) == expected


@pytest.mark.parametrize("mapped", [True, False])
def test_with_and_without_the_ring(file: DirectFile, content: bytes, mapped: bool) -> None:
    with BulkReader(16, 4096) as reader:
        reader._context.close()
        reader._context = reader._flight.context = Context(16, mapped=mapped)
        offsets = list(range(0, MIB, 4096))
        expected = [content[offset : offset + 4096] for offset in offsets]
        assert read_all(reader, file, offsets, 4096) == expected
        assert reader.counters.getevents > 0 or mapped


@pytest.mark.parametrize("depth", [1, 16])
def test_it_may_look_at_the_ring_before_it_sleeps(
    file: DirectFile, content: bytes, depth: int
) -> None:
    offsets = list(range(0, MIB, 4096))
    try:
        reader = BulkReader(depth, 4096, spin=10.0)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        pytest.skip(str(error))
    with reader:
        expected = [content[offset : offset + 4096] for offset in offsets]
        assert read_all(reader, file, offsets, 4096) == expected
        assert (reader.counters.getevents, reader.counters.taken) == (0, len(offsets))


def test_looking_ends_in_time(file: DirectFile) -> None:
    """It gives up after `spin`, and `timeout` is no longer for it."""
    with BulkReader(1, 4096) as reader:
        ring = reader._context.ring
        if ring is None:
            pytest.skip(reader._context.unmapped)
        begin = time.monotonic()
        ring.watch(0.02)
        assert 0.02 <= time.monotonic() - begin < 5


def test_a_hole_and_far_offsets(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "sparse", os.O_RDWR | os.O_CREAT)
    os.truncate(fd, 5 * GIB)
    os.pwrite(fd, b"far", 4 * GIB + 5)
    file = open_direct(fd)
    with BulkReader(8, 64 * KIB) as reader:
        assert read_all(reader, file, [4 * GIB + 4, GIB, 5 * GIB - 1], 5) == [
            b"\0far\0",
            bytes(5),
            b"\0",
        ]
    file.close()
    os.close(fd)


def test_what_cannot_be_asked_for(file: DirectFile) -> None:
    for bad in ({"depth": 0}, {"count": 0}, {"alignment": 768}):
        with pytest.raises(ValueError, match="must be"):
            BulkReader(**bad)
    with BulkReader(2, 4096) as reader:
        for offsets, count in (([-1], 1), ([(1 << 63) - 1], 1), ([0], 0), ([0], 4097)):
            with pytest.raises(ValueError, match="must be from"):
                reader.begin(file, offsets, count)
        with pytest.raises(ValueError, match="alignment of 8192"):
            reader.begin(DirectFile(file.fd, Alignment(512, 8192)), [0])
        reader.begin(file, [0] * 9)
        reader.step()
        with pytest.raises(ValueError, match="before the first step"):
            reader.fileno()


def test_closing_waits_for_the_disk_and_leaves_the_rows(file: DirectFile, content: bytes) -> None:
    before = rings()
    reader = BulkReader(32, 4096)
    reader.begin(file, np.arange(32) * 4096)
    batch = reader.step()
    slot, index = int(batch.slots[0]), int(batch.indices[0])
    reader.close()
    reader.close()
    assert rings() == before
    assert bytes(reader.rows[slot][:4096]) == content[index * 4096 :][:4096]
    for use in (reader.step, reader.fileno, lambda: reader.begin(file, [0])):
        with pytest.raises(ValueError, match="closed bulk reader"):
            use()


def test_a_forked_child_is_told(file: DirectFile, content: bytes) -> None:
    with BulkReader(4, 4096) as reader:
        reader.begin(file, [0, 4096, 8192, 12288])
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                reader.step()
            except OSError as error:
                code = 0 if "forked from" in str(error) else 2
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        results: dict[int, bytes | int] = {}
        while reader.left:
            gather(reader, reader.step(), results)
    assert results == {key: content[key * 4096 :][:4096] for key in range(4)}


def test_switches_are_counted_on_request(file: DirectFile) -> None:
    with BulkReader(2, 4096, count_switches=True) as reader:
        read_all(reader, file, [0] * 20, 4096)
        assert reader.counters.voluntary_switches is not None
        assert reader.counters.submit_seconds >= reader.counters.longest_submit > 0
