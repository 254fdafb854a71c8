"""Reads one after another: byte-exact, in order, whatever ends them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from diskreads import MIB, opened, rings
from hypothesis import given, settings
from hypothesis import strategies as st
from interruptions import Interrupted, interrupted_after

from pollers.aio.bulk import BulkReader
from pollers.aio.context import Context
from pollers.aio.disk import DirectFile
from pollers.statx import Alignment


def read_each(
    reader: BulkReader, file: DirectFile, offsets: list[int], count: int | None = None
) -> list[bytes | int]:
    return [
        answer if isinstance(answer, int) else bytes(answer)
        for answer in reader.read_each(file, offsets, count)
    ]


@pytest.mark.parametrize("depth", [1, 5])
@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("count", [1, 512, 4096, 10_000])
def test_what_pread_reads_is_read_in_order(
    file: DirectFile, content: bytes, depth: int, mapped: bool, count: int
) -> None:
    chance = np.random.default_rng(depth)
    aligned = (chance.integers(0, MIB // 4096 + 3, 100) * 4096).tolist()
    anywhere = chance.integers(0, MIB + 9000, 100).tolist()
    total = 0
    with BulkReader(depth, 10_000) as reader:
        reader._context.close()
        reader._context = reader._flight.context = Context(depth, mapped=mapped)
        for offsets in (aligned, anywhere, []):
            expected = [content[offset : offset + count] for offset in offsets]
            assert read_each(reader, file, offsets, count) == expected
            total += sum(map(len, expected))
        counters = reader.counters
        assert (counters.reads, counters.errors, counters.bytes) == (200, 0, total)
        assert counters.submits == 200
        assert counters.taken + counters.getevents == 200
        assert counters.getevents == 200 or mapped


@settings(max_examples=50, deadline=None)
@given(
    offsets=st.lists(st.integers(0, MIB + 5000), max_size=30),
    count=st.integers(1, 9000),
    stop=st.integers(0, 30),
)
def test_any_offsets_any_count_and_any_end(
    plain: Path, content: bytes, offsets: list[int], count: int, stop: int
) -> None:
    file = opened(plain)
    expected = [content[offset : offset + count] for offset in offsets]
    with BulkReader(1, 9000) as reader:
        reads = reader.read_each(file, offsets, count)
        for wanted, found in zip(expected[:stop], reads, strict=False):
            assert found == wanted
        reads.close()
        assert read_each(reader, file, offsets, count) == expected
    file.close()


def test_one_is_under_way_while_the_caller_looks_at_the_last(
    file: DirectFile, content: bytes
) -> None:
    offsets = np.arange(50) * 4096
    with BulkReader(1, 4096) as reader:
        reads = reader.read_each(file, offsets)
        for index, answer in enumerate(reads):
            assert isinstance(answer, memoryview)
            assert answer.readonly
            assert reader.counters.submits == min(index + 2, 50)
            assert answer == content[index * 4096 :][:4096]


def test_it_and_reading_many_take_turns(file: DirectFile, content: bytes) -> None:
    with BulkReader(8, 4096) as reader:
        for _ in range(5):
            for _batch in reader.read_many(file, np.arange(100) * 4096):
                break  # eight are under way
            assert read_each(reader, file, [5, 8192]) == [content[5:4101], content[8192:12288]]
        reads = reader.read_each(file, [0, 4096])
        next(reads)
        for use in (lambda: reader.begin(file, [0]), lambda: next(reader.read_each(file, [0]))):
            with pytest.raises(ValueError, match=r"read_each\(\) is not done"):
                use()
        assert len(reader.step().slots) == 0
        assert [bytes(answer) for answer in reads if isinstance(answer, memoryview)] == [
            content[4096:8192]
        ]
        reader.begin(file, [0, 4096])
        with pytest.raises(ValueError, match="2 reads are not done"):
            next(reader.read_each(file, [0]))


def test_an_error_is_a_result_and_disturbs_nobody(plain: Path, content: bytes) -> None:
    file = opened(plain)
    with BulkReader(1, 4096) as reader:
        got = read_each(reader, file, [0, 1 << 62, 8192])
        assert (got[0], got[2]) == (content[:4096], content[8192:12288])
        assert got[1] in (b"", -errno.EINVAL, -errno.EFBIG)
        behind_its_back = opened(plain)
        os.close(behind_its_back.fd)
        assert read_each(reader, behind_its_back, [0] * 3) == [-errno.EBADF] * 3
        directory = DirectFile(os.open(plain.parent, os.O_RDONLY), Alignment(512, 512))
        assert read_each(reader, directory, [0] * 3) == [-errno.EINVAL] * 3
        os.close(directory.fd)
        assert reader.counters.errors >= 6
        assert read_each(reader, file, [77], 1) == [content[77:78]]
    file.close()


def test_what_was_not_asked_for_when_the_file_was_closed_fails(
    plain: Path, content: bytes
) -> None:
    file = opened(plain)
    with BulkReader(1, 4096) as reader:
        reads = reader.read_each(file, [0] * 4)
        next(reads)
        file.close()
        assert next(reads) == content[:4096]  # it was under way
        assert list(reads) == [-errno.EBADF] * 2
        with pytest.raises(OSError, match="closed before"):
            next(reader.read_each(file, [0]))


def test_closing_the_reader_ends_it(file: DirectFile, content: bytes) -> None:
    before = rings()
    reader = BulkReader(1, 4096)
    reads = reader.read_each(file, [0, 4096, 8192])
    answer = next(reads)
    reader.close()
    assert rings() == before
    assert answer == content[:4096]
    with pytest.raises(ValueError, match="closed bulk reader"):
        next(reads)
    with pytest.raises(ValueError, match="closed bulk reader"):
        next(reader.read_each(file, [0]))


@pytest.mark.parametrize("mapped", [True, False])
def test_a_forked_child_is_told_and_takes_nothing(
    file: DirectFile, content: bytes, mapped: bool
) -> None:
    with BulkReader(1, 4096) as reader:
        reader._context.close()
        reader._context = reader._flight.context = Context(1, mapped=mapped)
        reads = reader.read_each(file, [0, 4096])
        next(reads)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                next(reads)
            except OSError as error:
                code = 0 if "forked from" in str(error) else 2
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert next(reads) == content[4096:8192]


@pytest.mark.parametrize("mapped", [True, False])
def test_signal_handlers_that_raise_anywhere_hang_and_mix_up_nothing(
    file: DirectFile, content: bytes, mapped: bool
) -> None:
    offsets = list(range(0, MIB, 4096))
    expected = [content[offset : offset + 4096] for offset in offsets[:3]]
    ended = 0
    with BulkReader(1, 4096) as reader:
        reader._context.close()
        reader._context = reader._flight.context = Context(1, mapped=mapped)
        for turn in range(60):
            reads = reader.read_each(file, offsets * 100)
            next(reads)
            try:
                with interrupted_after(0.0005 + turn * 0.00001):
                    for _answer in reads:
                        pass
            except Interrupted:
                ended += 1
            reads.close()
            assert read_each(reader, file, offsets[:3]) == expected
            assert rings() >= 1
    assert ended == 60


def test_it_may_look_at_the_ring_before_it_sleeps(file: DirectFile, content: bytes) -> None:
    offsets = list(range(0, MIB, 4096))
    try:
        reader = BulkReader(1, 4096, spin=10.0)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        pytest.skip(str(error))
    with reader:
        expected = [content[offset : offset + 4096] for offset in offsets]
        assert read_each(reader, file, offsets) == expected
        assert (reader.counters.getevents, reader.counters.taken) == (0, len(offsets))
