"""Ratios and intervals: what must hold for any data."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest._statistics import ENOUGH_FOR_BOOTSTRAP, Ratio, compare, coverage, typical_noise

positive = st.floats(1e-3, 1e9)
series = st.lists(positive, min_size=1, max_size=12)
pairs = st.lists(st.tuples(positive, positive), min_size=1, max_size=12)
noises = st.floats(0, 0.5)


@given(series)
def test_identical_series_have_a_ratio_of_one_and_no_difference(values: list[float]) -> None:
    found = compare(values, values)
    assert (found.median, found.low, found.high) == (1.0, 1.0, 1.0)
    assert not found.shown


@given(series, st.floats(0.01, 100))
def test_a_series_scaled_by_k_has_a_ratio_of_k(values: list[float], k: float) -> None:
    found = compare([value * k for value in values], values)
    assert found.median == pytest.approx(k)
    assert found.low == pytest.approx(k)
    assert found.high == pytest.approx(k)


@given(pairs, noises)
def test_the_interval_holds_the_median(both: list[tuple[float, float]], noise: float) -> None:
    found = compare([one for one, _ in both], [other for _, other in both], noise)
    assert found.low <= found.median <= found.high
    assert found.rounds == len(both)


@settings(max_examples=50)
@given(pairs, st.randoms(use_true_random=False))
def test_the_order_of_rounds_does_not_matter(
    both: list[tuple[float, float]], chance: random.Random
) -> None:
    mixed = list(both)
    chance.shuffle(mixed)
    assert compare(*zip(*both, strict=True)) == compare(*zip(*mixed, strict=True))


@given(st.lists(st.tuples(positive, positive), min_size=2, max_size=5))
def test_few_rounds_span_all_their_ratios(both: list[tuple[float, float]]) -> None:
    ratios = [one / other for one, other in both]
    found = compare(*zip(*both, strict=True))
    assert (found.low, found.high) == (min(ratios), max(ratios))


@given(pairs, noises)
def test_noise_never_narrows_an_interval(both: list[tuple[float, float]], noise: float) -> None:
    one, other = zip(*both, strict=True)
    quiet, noisy = compare(one, other), compare(one, other, noise)
    assert noisy.low <= quiet.low
    assert noisy.high >= quiet.high
    assert noisy.high >= noisy.median * math.exp(2.5 * noise / math.sqrt(len(both))) * 0.999


def test_a_difference_that_noise_explains_is_not_shown() -> None:
    values, baseline = [1.03, 1.02, 1.04], [1.0, 1.0, 1.0]
    assert compare(values, baseline).shown
    assert not compare(values, baseline, noise=0.05).shown


def test_one_round_shows_nothing() -> None:
    found = compare([2.0], [1.0], 0.0)
    assert not found.shown
    assert found.smallest is None


def test_the_smallest_difference_is_the_far_end_of_the_interval() -> None:
    assert Ratio(1.0, 0.96, 1.02, 5).smallest == pytest.approx(1 / 0.96 - 1)
    assert Ratio(1.0, 0.99, 1.05, 5).smallest == pytest.approx(0.05)


def test_the_bootstrap_covers_the_true_median_about_as_often_as_it_says() -> None:
    chance = np.random.default_rng(1)
    hits = 0
    for _ in range(100):
        sample = np.exp(chance.normal(math.log(1.1), 0.05, 15))
        found = compare(sample.tolist(), [1.0] * 15)
        hits += found.low <= 1.1 <= found.high
    assert 85 <= hits <= 100


def test_coverage_of_a_range() -> None:
    assert coverage(3) == 0.75
    assert coverage(5) == 0.9375
    assert coverage(ENOUGH_FOR_BOOTSTRAP) == 0.95


def test_the_range_of_three_covers_as_often_as_it_says() -> None:
    chance = np.random.default_rng(2)
    hits = 0
    for _ in range(2000):
        found = compare(np.exp(chance.normal(0, 0.1, 3)).tolist(), [1.0] * 3)
        hits += found.low <= 1.0 <= found.high
    assert hits / 2000 == pytest.approx(coverage(3), abs=0.03)


def test_typical_noise_finds_the_spread_and_ignores_one_wild_row() -> None:
    chance = np.random.default_rng(3)
    rows = [np.exp(chance.normal(0, 0.02, 5)).tolist() for _ in range(40)]
    assert typical_noise(rows) == pytest.approx(0.02, rel=0.25)
    wild = np.exp(chance.normal(0, 2.0, 5)).tolist()
    assert typical_noise([*rows, wild]) == pytest.approx(0.02, rel=0.25)
    assert typical_noise([[1.0], [1.1]]) == 0.0
    assert typical_noise([]) == 0.0
