"""A plan cut into parts and chunks (servers.file.parts) is the plan, however it is cut."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.file.cache import OpenFile
from servers.file.parts import chunks, parts
from servers.file.plan import Part, Plan
from servers.file.root import Identity
from servers.file.transfers.base import Truncated

SIZE = 5000
CONTENT = os.urandom(SIZE)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenFile]:
    path = tmp_path_factory.mktemp("parts") / "file"
    path.write_bytes(CONTENT)
    yield from opened(path)


def opened(path: Path) -> Iterator[OpenFile]:
    fd = os.open(path, os.O_RDONLY)
    file = OpenFile(b"file", fd, Identity.of(os.fstat(fd)), False)
    yield file
    file.leave()


@st.composite
def ranges(draw: st.DrawFn) -> tuple[int, int]:
    offset = draw(st.integers(0, SIZE))
    return offset, draw(st.integers(0, SIZE - offset))


bodies = st.binary(max_size=50)
rests = st.lists(st.one_of(bodies, ranges()), max_size=5)


def content(part: Part) -> bytes:
    return part if isinstance(part, bytes) else CONTENT[part[0] : sum(part)]


def plan_of(file: OpenFile, body: bytes, first: tuple[int, int], rest: list[Part]) -> Plan:
    offset, count = first
    fields = [("Server", "none")]
    return Plan(200, fields, b"", body=body, file=file, offset=offset, count=count, rest=rest)


@given(body=bodies, first=ranges(), rest=rests, most=st.integers(1, 3 * SIZE))
def test_chunks_are_full_and_the_plan(
    file: OpenFile, body: bytes, first: tuple[int, int], rest: list[Part], most: int
) -> None:
    plan = plan_of(file, body, first, rest)
    found = list(chunks(plan, most))
    assert b"".join(found) == plan.head + b"".join(map(content, [first, *rest]))
    assert all(len(chunk) == most for chunk in found[:-1])
    assert 0 < len(found[-1]) <= most


@given(body=bodies, first=ranges(), rest=rests, data=st.data())
def test_parts_are_what_has_not_gone(
    file: OpenFile, body: bytes, first: tuple[int, int], rest: list[Part], data: st.DataObject
) -> None:
    plan = plan_of(file, body, first, rest)
    gone = data.draw(st.integers(0, len(plan.head) + plan.count))
    found = parts(plan, gone)
    whole = plan.head + b"".join(map(content, [first, *rest]))
    assert b"".join(map(content, found)) == whole[gone:]
    assert all(map(content, found))


@pytest.mark.parametrize("left", [0, 1, 1000, 4999])
def test_a_file_that_shrank_ends_in_truncated_behind_all_that_it_has(
    tmp_path: Path, left: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    for file in opened(path):
        plan = plan_of(file, b"", (0, SIZE), [b"behind"])
        os.truncate(path, left)
        cut = chunks(plan, 1500)
        received = b""
        with pytest.raises(Truncated):  # noqa: PT012 - what came before it counts
            for chunk in cut:
                received += chunk
        assert received == plan.head + CONTENT[:left]
