"""Counting by numpy gives what HdrHistogram gives, value by value."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from loadtest._histogram import (
    DIGITS,
    HIGHEST,
    LENGTH,
    LOWEST,
    Histogram,
    lowest_values,
    widths,
)

VALUES = st.lists(
    st.one_of(st.integers(1, 5000), st.integers(1, 10**8), st.integers(1, HIGHEST)), max_size=60
)


def filled(values: list[int]) -> Histogram:
    histogram = Histogram()
    histogram.record(values)
    return histogram


def recorded(values: list[int]) -> HdrHistogram:
    hdr = HdrHistogram(LOWEST, HIGHEST, DIGITS)
    for value in values:
        assert hdr.record_value(value)
    return hdr


@given(VALUES)
def test_counts_and_encoding_are_hdrhistograms(values: list[int]) -> None:
    ours, theirs = filled(values), recorded(values)
    assert theirs.counts_len == LENGTH
    assert ours.counts.tolist() == list(theirs.counts)
    assert ours.encode().encode() == theirs.encode()
    assert ours.to_hdr().equals(theirs)


@given(VALUES.filter(bool), st.sampled_from([0.1, 50.0, 90.0, 99.0, 99.9]))
def test_percentiles_are_hdrhistograms_but_not_above_the_maximum(
    values: list[int], percent: float
) -> None:
    expected = min(recorded(values).get_value_at_percentile(percent), max(values))
    assert filled(values).percentile(percent) == expected


def test_bounds_of_buckets_are_hdrhistograms() -> None:
    hdr = HdrHistogram(LOWEST, HIGHEST, DIGITS)
    lowest, width = lowest_values(), widths()
    for index in [*range(0, LENGTH, 97), LENGTH - 1]:
        value = hdr.get_value_from_index(index)
        assert lowest[index] == value
        if index:
            assert lowest[index] + width[index] - 1 == hdr.get_highest_equivalent_value(value)


@given(VALUES, VALUES)
def test_merging_is_recording_both(first: list[int], second: list[int]) -> None:
    merged, both = filled(first), filled(first + second)
    merged.add(filled(second))
    assert merged.counts.tolist() == both.counts.tolist()
    assert (merged.minimum, merged.maximum, merged.sum) == (both.minimum, both.maximum, both.sum)


@given(VALUES)
def test_a_json_line_holds_everything(values: list[int]) -> None:
    sent = filled(values)
    received = Histogram.from_json(json.loads(json.dumps(sent.to_json())))
    assert np.array_equal(received.counts, sent.counts)
    assert received.to_json() == sent.to_json()


def test_what_is_out_of_range_counts_at_the_ends() -> None:
    histogram = filled([0, -3, HIGHEST * 2])
    assert (histogram.total, histogram.minimum, histogram.maximum) == (3, LOWEST, HIGHEST)


def test_the_summary_is_in_microseconds_and_decodes() -> None:
    summary = filled([1_000, 2_000, 3_000, 1_000_000]).summary()
    assert summary["p50"] == pytest.approx(2, rel=0.001)
    assert summary["max"] == 1000
    assert summary["mean"] == pytest.approx(251.5)
    assert summary["histogram_unit"] == "ns"
    assert HdrHistogram.decode(summary["histogram"]).get_total_count() == 4
    assert Histogram().summary()["p99.9"] == 0
