"""What a file load asks for: sizes, shares, contents, which is next, and how a file gets cold."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest._pagecache import PAGE, evict, resident, why_never_cold
from loadtest._shelf import PROBE, ColdShelf, HotShelf
from loadtest._site import COLD_BYTES, LARGEST, SPARE, Site, parse_mix, parse_size, turns

sizes = st.integers(1, 1 << 20)


@given(st.dictionaries(sizes, st.floats(0.01, 1000), min_size=1, max_size=6))
def test_a_mix_is_read_as_it_is_written(mix: dict[int, float]) -> None:
    found = parse_mix(" , ".join(f"{size}:{weight!r}" for size, weight in mix.items()))
    assert {one.size: one.weight for one in found} == mix


@given(st.text(max_size=12))
def test_what_is_no_mix_is_refused_in_one_line(text: str) -> None:
    try:
        found = parse_mix(text)
    except ValueError as error:
        said = str(error)
    else:
        said = ""
        assert all(0 < one.size <= LARGEST and one.weight >= 0 for one in found)
    assert "\n" not in said


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("511", 511), ("16k", 16384), (" 4M ", 4 << 20)]
)
def test_sizes_have_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "k",
        "0",
        "0k",
        "-1",
        "1.5k",
        "4g",
        "1k:",
        "1k:0,2k:0",
        "1k:nan",
        "1k:-1",
        "1k,1k:2",
        "1025m",
    ],
)
def test_bad_mixes(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|weight|twice"):
        parse_mix(text)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=5), st.integers(0, 9))
def test_every_size_has_its_share_of_the_turns(weights: list[int], seed: int) -> None:
    mix = parse_mix(",".join(f"{n + 1}:{weight}" for n, weight in enumerate(weights)))
    order = turns(mix, seed)
    counts = Counter(order)
    for kind, weight in enumerate(weights):
        assert counts[kind] >= 1
        assert abs(counts[kind] / len(order) - weight / sum(weights)) < 0.01
    assert order == turns(mix, seed)


def test_a_size_without_weight_is_there_and_never_in_turn() -> None:
    site = Site(parse_mix("10:5,20:0"))
    assert [len(kind) for kind in site.kinds] == [64, 1]
    assert set(turns(site.mix, 1)) == {0}
    shelf = HotShelf(site, seed=1)
    assert {shelf.take().size for _ in range(100)} == {10}
    assert site.largest.size == 20


def test_files_differ_and_every_process_knows_what_they_hold(tmp_path: Path) -> None:
    site, again = (Site(parse_mix("100:3,70k:1")) for _ in range(2))
    site.write(tmp_path)
    contents = set()
    for file, same in zip(site.files, again.files, strict=True):
        content = (tmp_path / file.path).read_bytes()
        assert content == again.expected(same)
        assert len(content) == file.size
        assert site.holds(file, content)
        assert not site.holds(file, content[:-1])
        assert not site.holds(file, content[:-1] + bytes([content[-1] ^ 1]))
        contents.add(content)
    assert len(contents) == len(site.files)
    other = Site(parse_mix("70k"))  # the same bytes in another mix: a root can be used again
    assert other.expected(other.files[3]) == site.expected(site.kinds[1][3])


def test_a_root_is_completed_and_what_is_there_is_left(tmp_path: Path) -> None:
    site = Site(parse_mix("100"))
    site.write(tmp_path)
    first, second, *_ = (tmp_path / file.path for file in site.files)
    first.write_bytes(b"short")
    before = second.stat().st_mtime_ns
    site.write(tmp_path)
    assert first.read_bytes() == site.expected(site.files[0])
    assert second.stat().st_mtime_ns == before


def test_a_cold_root_that_would_be_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="use fewer connections or smaller files"):
        Site(parse_mix("4m"), "cold", active=COLD_BYTES >> 22)
    assert Site(parse_mix("4m"), "hot", active=10_000).bytes < COLD_BYTES


def test_a_hot_shelf_goes_round_all_files() -> None:
    site = Site(parse_mix("10:3,20:1"))
    shelf = HotShelf(site, seed=1)
    taken = Counter(shelf.take() for _ in range(8000))
    assert set(taken) == set(site.files)
    assert sum(taken[file] for file in site.kinds[0]) == pytest.approx(6000, rel=0.05)


# -- cold


@pytest.fixture
def disk() -> Iterator[Path]:
    """A directory whose files can leave the page cache."""
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as place:
        if why := why_never_cold(Path(place)):
            pytest.skip(why)
        yield Path(place)


def test_an_evicted_file_is_not_resident_until_it_is_read(disk: Path) -> None:
    size = 5 * PAGE + 1
    path = disk / "file"
    path.write_bytes(os.urandom(size))
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        assert resident(fd, size) == 6
        evict(fd)
        assert resident(fd, size) == 0
        assert resident(fd, size) == 0  # looking does not read it
        os.pread(fd, 1, 0)
        assert resident(fd, size) > 0
    finally:
        os.close(fd)


def test_a_memory_filesystem_is_told_from_a_disk() -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir() or not os.access(shm, os.W_OK):
        pytest.skip("no memory filesystem at /dev/shm")
    assert "never cold" in why_never_cold(shm)


def test_a_directory_that_is_not_there_is_a_reason_too(tmp_path: Path) -> None:
    assert "cannot be evicted" in why_never_cold(tmp_path / "none")


def test_a_cold_shelf_lends_each_file_to_one_and_evicts_it_first(disk: Path) -> None:
    active = 3 * PROBE
    site = Site(parse_mix("100:5,9000:1"), "cold", active)
    site.write(disk)
    shelf = ColdShelf(site, 1, disk)
    try:
        assert shelf.give is not None
        lent = [shelf.take() for _ in range(active)]
        assert len(set(lent)) == active
        assert site.largest not in lent
        first = lent[0]
        assert (disk / first.path).read_bytes() == site.expected(first)
        shelf.give(first)
        seen = []
        while first not in seen:  # it comes back last
            seen.append(shelf.take())
            shelf.give(seen[-1])
        with open(disk / first.path, "rb") as file:
            assert resident(file.fileno(), first.size) == 0
        assert shelf.probed >= active // PROBE
        assert shelf.cold == shelf.probed
    finally:
        shelf.close()


def test_a_cold_shelf_has_a_file_for_every_active_connection() -> None:
    for mix in ("10", "10:1,20:1", "10:98,20:1,30:1", "10:1,20:1,30:1,40:1,50:1"):
        for active in (1, 2, 17, 500):
            site = Site(parse_mix(mix), "cold", active)
            assert len(site.files) >= active + SPARE
