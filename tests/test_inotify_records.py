"""The records that inotify writes, as bytes: read back whole, or refused.  No kernel is asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pollers.inotify import (
    HEADER,
    IN_CREATE,
    Event,
    decode,
    split,
)


def test_the_header_is_the_kernels() -> None:
    assert HEADER.size == 16


@given(
    st.lists(
        st.tuples(
            st.integers(-1, 2**31 - 1),
            st.integers(0, 2**32 - 1),
            st.integers(0, 2**32 - 1),
            st.binary(max_size=255).filter(lambda name: b"\0" not in name),
        ),
        max_size=10,
    ),
    st.sampled_from([1, 4, 16, 32]),
)
def test_records_give_back_what_was_packed(
    events: list[tuple[int, int, int, bytes]], unit: int
) -> None:
    """Whatever the padding: the kernel's is to the header's size, and with one NUL at least."""
    buffer = b""
    for wd, mask, cookie, name in events:
        padded = name + b"\0" * (unit - len(name) % unit) if name else b""
        buffer += HEADER.pack(wd, mask, cookie, len(padded)) + padded
    records = split(buffer)
    assert b"".join(records) == buffer
    assert [decode(record) for record in records] == [Event(*event) for event in events]


@given(st.binary(max_size=200))
def test_split_takes_anything(buffer: bytes) -> None:
    """Either all of it is events, or it says that it is not."""
    try:
        events = [decode(record) for record in split(buffer)]
    except ValueError:
        return
    assert len(events) * HEADER.size + sum(len(name) for *_, name in events) <= len(buffer)


@pytest.mark.parametrize("cut", [1, 15, 16, 20, 31])
def test_split_refuses_what_is_cut_off(cut: int) -> None:
    with pytest.raises(ValueError, match="inotify event"):
        split((HEADER.pack(1, IN_CREATE, 0, 16) + b"name".ljust(16, b"\0"))[:cut])
