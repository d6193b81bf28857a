"""Intervals over repeats and samples: what they cover, and when a difference is one."""

import numpy as np
import pytest

from bench.analysis.statistics import ascending, difference, interval, levels, quantile


def repeats(rng, count, size, centre=100.0, between=0.0, within=1.0):
    return [
        ascending(rng.normal(centre + rng.normal(0, between), within, size)) for _ in range(count)
    ]


def test_a_quantile_is_the_mean_of_those_of_the_repeats():
    assert quantile([ascending([3, 1, 2]), ascending([10, 20, 30])], 0.5) == 11.0
    assert quantile([ascending([1, 2, 3, 4])], 0.95) == 4.0
    assert quantile([ascending([]), ascending([5])], 0.5) == 5.0
    assert quantile([ascending([])], 0.5) is None
    assert quantile([], 0.5) is None


def test_without_samples_there_is_no_interval():
    assert interval([ascending([])], 0.5, 1) is None
    assert difference([ascending([1])], [], 0.5, 1) is None


def test_the_same_samples_give_the_same_interval():
    values = repeats(np.random.default_rng(1), 3, 50)
    assert interval(values, 0.5, 7) == interval(values, 0.5, 7)
    assert interval(values, 0.5, 7) != interval(values, 0.5, 8)


def test_one_repeat_redraws_its_samples_like_a_bootstrap_by_hand():
    rng = np.random.default_rng(2)
    values = ascending(rng.exponential(10, 200))
    low, high = interval([values], 0.5, 1)
    drawn = values[rng.integers(0, 200, (4000, 200))]
    by_hand = np.percentile(np.sort(drawn, axis=1)[:, 99], (2.5, 97.5))
    assert (low, high) == pytest.approx(tuple(by_hand), rel=0.05)


def test_what_differs_between_repeats_is_in_the_interval():
    quiet = repeats(np.random.default_rng(3), 5, 400)
    moody = repeats(np.random.default_rng(3), 5, 400, between=10.0)
    widths = [high - low for low, high in (interval(each, 0.5, 1) for each in (quiet, moody))]
    assert widths[1] > 10 * widths[0]


def test_intervals_of_many_repeats_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(4)
    covered = 0
    for seed in range(200):
        low, high = interval(repeats(rng, 12, 30, between=2.0), 0.5, seed)
        covered += low <= 100.0 <= high
    # A percentile bootstrap of twelve covers somewhat less than 95 %.
    assert 170 <= covered <= 197


def test_a_difference_is_significant_when_its_interval_excludes_zero():
    rng = np.random.default_rng(5)
    a, b = repeats(rng, 3, 300), repeats(rng, 3, 300, centre=102.0)
    found = difference(b, a, 0.5, 1)
    assert found.value == pytest.approx(2.0, abs=0.4)
    assert found.low < found.value < found.high
    assert found.significant
    same = difference(a, repeats(rng, 3, 300), 0.5, 1)
    assert not same.significant
    assert same.low < 0 < same.high


def test_an_interval_says_what_it_is_over():
    assert levels(1) == "the samples of one repeat"
    assert levels(5) == "5 repeats and the samples within each"
