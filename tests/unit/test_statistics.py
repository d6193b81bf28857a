"""Percentiles from HDR histograms, and bootstrap intervals that say when a difference is one."""

import numpy as np
import pytest

from bench.analysis import statistics


def normal(mean_us, deviation_us, count, seed):
    return np.random.default_rng(seed).normal(mean_us, deviation_us, count).astype(int).tolist()


def test_percentiles_have_three_digits():
    found = statistics.percentiles(range(1000, 101_000, 50))
    assert found["p50"] == pytest.approx(51.0, rel=1e-3)
    assert found["p95"] == pytest.approx(96.0, rel=1e-3)
    assert found["p99"] == pytest.approx(100.0, rel=1e-3)


def test_p99_needs_a_thousand_samples():
    assert statistics.percentiles([1000] * 999)["p99"] is None
    assert statistics.percentiles([1000] * 1000)["p99"] == pytest.approx(1, rel=1e-3)


def test_nothing_has_no_percentiles():
    assert set(statistics.percentiles([]).values()) == {None}
    assert statistics.median_interval([], 1) is None
    assert statistics.median_difference([], [1], 1) is None
    assert statistics.cdf([]) == []


def test_a_clear_difference_is_significant_and_its_interval_holds_the_truth():
    found = statistics.median_difference(
        normal(80_000, 2000, 300, 1), normal(70_000, 2000, 300, 2), 1
    )
    assert found["significant"]
    assert found["low_ms"] < 10 < found["high_ms"]
    assert found["low_ms"] <= found["median_ms"] <= found["high_ms"]


def test_no_difference_is_seldom_significant():
    pairs = range(40)
    wrong = sum(
        statistics.median_difference(normal(7e4, 2e3, 200, i), normal(7e4, 2e3, 200, 1000 + i), 1)[
            "significant"
        ]
        for i in pairs
    )
    assert wrong <= 6


def test_the_same_seed_gives_the_same_interval():
    a, b = normal(80_000, 900, 5000, 1), normal(80_100, 900, 5000, 2)
    assert statistics.median_difference(a, b, 7) == statistics.median_difference(a, b, 7)
    low, high = statistics.median_interval(a, 7)
    assert low < np.median(a) / 1000 < high


@pytest.mark.parametrize("count", [1, 5, 11, 1000, 20_000])
def test_cdf_rises_to_one_and_reaches_into_the_tail(count):
    points = statistics.cdf(list(range(1, count + 1)))
    assert len(points) <= statistics.CDF_POINTS + 1
    assert points == sorted(points)
    assert points[-1] == [count / 1000, 1.0]
    if count >= 20_000:
        assert sum(share > 0.99 for _, share in points) > 10
