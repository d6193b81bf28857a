"""Percentiles, and bootstrap intervals over samples and repeats: what they cover, and when a
difference is one."""

import numpy as np
import pytest

from bench.analysis import statistics
from bench.analysis.statistics import ascending, difference, interval, levels, mean_percentile


def normal(mean, deviation, count, seed):
    return ascending(np.random.default_rng(seed).normal(mean, deviation, count))


def test_percentiles_of_samples_are_samples():
    found = statistics.percentiles(range(1000, 101_000, 50))
    assert (found["p50"], found["p95"], found["p99"]) == (50.95, 95.95, 99.95)


@pytest.mark.parametrize(("name", "least"), [("p99", 1000), ("p99_9", 10_000)])
def test_a_tail_needs_samples(name, least):
    assert statistics.percentiles([1000] * (least - 1))[name] is None
    assert statistics.percentiles([1000] * least)[name] == 1.0
    assert statistics.counted_percentiles({1000: least - 1})[name] is None
    assert statistics.counted_percentiles({1000: least})[name] == 1.0


def test_nothing_has_no_percentiles():
    assert set(statistics.percentiles([]).values()) == {None}
    assert set(statistics.counted_percentiles({}).values()) == {None}
    assert statistics.stated_percentile(np.array([]), 50) is None
    assert statistics.cdf([]) == []


def test_a_clear_difference_is_significant_and_its_interval_holds_the_truth():
    found = difference([normal(80.0, 2.0, 300, 1)], [normal(70.0, 2.0, 300, 2)], 50, 1)
    assert found.significant
    assert found.low < 10 < found.high
    assert found.low <= found.value <= found.high


def test_no_difference_is_seldom_significant():
    pairs = range(40)
    wrong = sum(
        difference([normal(70, 2, 200, i)], [normal(70, 2, 200, 1000 + i)], 50, 1).significant
        for i in pairs
    )
    assert wrong <= 6


def test_the_same_seed_gives_the_same_interval():
    a, b = normal(80.0, 0.9, 5000, 1), normal(80.1, 0.9, 5000, 2)
    assert difference([a], [b], 50, 7) == difference([a], [b], 50, 7)
    low, high = interval([a], 50, 7)
    assert low < mean_percentile([a], 50) < high


@pytest.mark.parametrize("count", [1, 5, 11, 1000, 20_000])
def test_cdf_rises_to_one_and_reaches_into_the_tail(count):
    points = statistics.cdf(list(range(1, count + 1)))
    assert len(points) <= statistics.CDF_POINTS + 1
    assert points == sorted(points)
    assert points[-1] == [count / 1000, 1.0]
    if count >= 20_000:
        assert sum(share > 0.99 for _, share in points) > 10


# Over repeats -----------------------------------------------------------------------------------


def repeats(rng, count, size, centre=100.0, between=0.0, within=1.0):
    return [
        ascending(rng.normal(centre + rng.normal(0, between), within, size)) for _ in range(count)
    ]


def test_a_percentile_is_the_mean_of_those_of_the_repeats():
    assert mean_percentile([ascending([3, 1, 2]), ascending([10, 20, 30])], 50) == 11.0
    assert mean_percentile([ascending([1, 2, 3, 4])], 95) == 4.0
    assert mean_percentile([ascending([]), ascending([5])], 50) == 5.0
    assert mean_percentile([ascending([])], 50) is None
    assert mean_percentile([], 50) is None


def test_without_samples_there_is_no_interval():
    assert interval([ascending([])], 50, 1) is None
    assert difference([ascending([1])], [], 50, 1) is None


def test_the_same_samples_give_the_same_interval():
    values = repeats(np.random.default_rng(1), 3, 50)
    assert interval(values, 50, 7) == interval(values, 50, 7)
    assert interval(values, 50, 7) != interval(values, 50, 8)


def test_one_repeat_redraws_its_samples_like_a_bootstrap_by_hand():
    rng = np.random.default_rng(2)
    values = ascending(rng.exponential(10, 200))
    low, high = interval([values], 50, 1)
    drawn = values[rng.integers(0, 200, (4000, 200))]
    by_hand = np.sort(np.sort(drawn, axis=1)[:, 99])
    assert (low, high) == pytest.approx((by_hand[99], by_hand[3899]), rel=0.05)


def test_what_differs_between_repeats_is_in_the_interval():
    quiet = repeats(np.random.default_rng(3), 5, 400)
    moody = repeats(np.random.default_rng(3), 5, 400, between=10.0)
    widths = [high - low for low, high in (interval(each, 50, 1) for each in (quiet, moody))]
    assert widths[1] > 10 * widths[0]


def test_intervals_of_many_repeats_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(4)
    covered = 0
    for seed in range(200):
        low, high = interval(repeats(rng, 12, 30, between=2.0), 50, seed)
        covered += low <= 100.0 <= high
    # A percentile bootstrap of twelve covers somewhat less than 95 %.
    assert 170 <= covered <= 197


def test_a_difference_is_significant_when_its_interval_excludes_zero():
    rng = np.random.default_rng(5)
    a, b = repeats(rng, 3, 300), repeats(rng, 3, 300, centre=102.0)
    found = difference(b, a, 50, 1)
    assert found.value == pytest.approx(2.0, abs=0.4)
    assert found.low < found.value < found.high
    assert found.significant
    same = difference(a, repeats(rng, 3, 300), 50, 1)
    assert not same.significant
    assert same.low < 0 < same.high


def test_an_interval_says_what_it_is_over():
    assert levels(1) == "the samples of one repeat"
    assert levels(5) == "5 repeats and the samples within each"
