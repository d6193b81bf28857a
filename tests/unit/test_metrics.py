"""Distributions: their buckets are those of hdrh, and are shown as Prometheus wants them."""

import random

import pytest
from hdrh.histogram import HdrHistogram

from epaxos.runtime.metrics import Distribution

BOUNDS_US = ([1, 2, 127, 128, 255, 256, 257, 300], [50, 71, 1000, 60_000_000])


def cumulated(values, bounds_us):
    """The same, from the buckets of the histogram one by one: a bucket that reaches over a bound is
    not below it."""
    items = [
        (item.value_iterated_to, item.count_added_in_this_iter_step)
        for item in HdrHistogram.decode(values.encoded()).get_recorded_iterator()
    ]
    shown = [
        (str(bound / 1e6), float(sum(count for us, count in items if us <= bound)))
        for bound in bounds_us
    ]
    return [*shown, ("+Inf", float(sum(count for _, count in items)))]


@pytest.mark.parametrize("bounds_us", BOUNDS_US)
@pytest.mark.parametrize("count", [0, 1, 300])
def test_buckets_cumulate_what_was_recorded(count, bounds_us):
    values, rng = Distribution(), random.Random(count)
    for _ in range(count):
        values.record(int(rng.lognormvariate(6, 3)), rng.randint(1, 3))
    values.record(bounds_us[0])
    values.record(bounds_us[-1])
    assert values.buckets(bounds_us) == cumulated(values, bounds_us)


@pytest.mark.parametrize("seed", range(20))
def test_a_distribution_says_what_hdrh_says(seed):
    values, other, rng = Distribution(), HdrHistogram(1, 120_000_000, 3), random.Random(seed)
    for _ in range(rng.choice([1, 2, 99, 100, 101, 5_000])):
        micros, count = int(rng.lognormvariate(6, 4)), rng.randint(1, 3)
        values.record(micros, count)
        other.record_value(min(max(micros, 1), 120_000_000), count)
    assert values.count == other.get_total_count()
    assert values.percentile(100) == pytest.approx(other.get_max_value(), rel=1e-3)
    assert values.encoded() == other.encode().decode("ascii")


def test_every_duration_is_in_the_bucket_of_hdrh():
    ends = {1 << bit for bit in range(27)} | {3 << bit for bit in range(25)} | {120_000_000}
    for micros in sorted(near for end in ends for near in (end - 1, end, end + 1) if near > 0):
        values, other = Distribution(), HdrHistogram(1, 120_000_000, 3)
        values.record(micros)
        other.record_value(min(micros, 120_000_000))
        assert values.encoded() == other.encode().decode("ascii"), micros


def test_nothing_is_nothing():
    assert Distribution().summary() == {
        "count": 0,
        "p50_us": None,
        "p90_us": None,
        "p99_us": None,
        "max_us": None,
    }
