"""The records that fanotify writes, as bytes: read back whole, or refused.  No kernel is asked."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pollers.fanotify import (
    FAN_ATTRIB,
    FAN_RENAME,
    FID,
    INFO,
    INFO_DFID,
    INFO_DFID_NAME,
    INFO_FID,
    INFO_NEW_DFID_NAME,
    INFO_OLD_DFID_NAME,
    METADATA,
    Event,
    Place,
    parse,
)
from pollers.filehandle import MAX_HANDLE, Handle


def test_the_structures_are_the_kernels() -> None:
    assert METADATA.size == 24
    assert INFO.size == 4
    assert FID.size == 16  # fsid 8, handle_bytes 4, handle_type 4; f_handle begins here
    packed = METADATA.pack(1, 3, 0, 24, FAN_RENAME, -1, 7)
    assert packed[4] == 3
    assert struct.unpack_from("=H", packed, 6) == (24,)
    assert struct.unpack_from("=Q", packed, 8) == (FAN_RENAME,)
    assert struct.unpack_from("=ii", packed, 16) == (-1, 7)


handles = st.tuples(
    st.binary(min_size=8, max_size=8),
    st.integers(-(2**31), 2**31 - 1),
    st.binary(max_size=MAX_HANDLE),
).map(Handle._make)
names = st.binary(min_size=1, max_size=255).filter(lambda name: b"\0" not in name)
places = st.tuples(handles, names).map(Place._make)
masks = st.integers(0, 2**64 - 1)
no = st.none()
#: Overflow, an entry's event, and a rename with one or both of its sides.
events = st.one_of(
    st.tuples(masks, no, no, no, no),
    st.tuples(masks, places, no, no, no | handles),
    st.tuples(masks, no, places, places, no | handles),
    st.tuples(masks, no, places, no, handles),
    st.tuples(masks, no, no, places, handles),
).map(Event._make)


def record(kind: int, handle: Handle, name: bytes | None) -> bytes:
    body = FID.pack(handle.fsid, len(handle.data), handle.type) + handle.data
    if name is not None:
        body += name + b"\0"
    body += b"\0" * (-len(body) % 4)  # the kernel's FANOTIFY_EVENT_ALIGN
    return INFO.pack(kind, 0, INFO.size + len(body)) + body


def packed(event: Event, extra: bytes = b"") -> bytes:
    """As fs/notify/fanotify/fanotify_user.c copies it to the user."""
    body = extra
    for kind, place in (
        (INFO_OLD_DFID_NAME, event.old),
        (INFO_NEW_DFID_NAME, event.new),
        (INFO_DFID_NAME, event.place),
    ):
        if place is not None:
            body += record(kind, place.directory, place.name)
    if event.target is not None:
        body += record(INFO_FID, event.target, None)
    return METADATA.pack(METADATA.size + len(body), 3, 0, METADATA.size, event.mask, -1, 0) + body


@settings(max_examples=40)
@given(st.lists(events, max_size=6))
def test_parse_gives_back_what_was_packed(events: list[Event]) -> None:
    assert parse(b"".join(packed(event) for event in events)) == events


@settings(max_examples=40)
@given(events, st.sampled_from([4, 5, 99]), st.binary(max_size=20))
def test_records_of_other_types_are_skipped(event: Event, kind: int, body: bytes) -> None:
    extra = INFO.pack(kind, 0, INFO.size + len(body)) + body
    assert parse(packed(event, extra)) == [event]


@given(handles)
def test_a_handle_without_a_name_is_the_directory_itself(handle: Handle) -> None:
    body = record(INFO_DFID, handle, None)
    head = METADATA.pack(METADATA.size + len(body), 3, 0, METADATA.size, FAN_ATTRIB, -1, 0)
    (event,) = parse(head + body)
    assert event.place is not None
    # Where its bytes are no multiple of four the padding follows.
    assert event.place == Place(handle, b".")


@given(st.binary(max_size=200))
def test_parse_takes_anything(buffer: bytes) -> None:
    """Either all of it is events, or it says that it is not."""
    try:
        parse(buffer)
    except ValueError:
        return


@settings(max_examples=40)
@given(events, st.data())
def test_parse_refuses_what_is_cut_off(event: Event, data: st.DataObject) -> None:
    whole = packed(event)
    cut = data.draw(st.integers(1, len(whole) - 1))
    with pytest.raises(ValueError, match="fanotify"):
        parse(whole[:cut])


@settings(max_examples=40)
@given(events, st.data())
def test_parse_refuses_records_whose_lengths_lie(event: Event, data: st.DataObject) -> None:
    """A length of 0 would go on for ever, and one that is too long reads what is not there."""
    whole = bytearray(packed(event._replace(place=Place(Handle(b"fsfsfsfs", 1, b"1234"), b"n"))))
    length = data.draw(st.integers(0, 3) | st.integers(len(whole), 2**16 - 1))
    struct.pack_into("=H", whole, METADATA.size + 2, length)
    with pytest.raises(ValueError, match="record"):
        parse(bytes(whole))


def test_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="version 4"):
        parse(METADATA.pack(24, 4, 0, 24, 0, -1, 0))
