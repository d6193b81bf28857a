"""Distributions as Prometheus wants them."""

import random

import pytest

from epaxos.runtime.metrics import Distribution

BOUNDS_US = ([1, 2, 127, 128, 255, 256, 257, 300], [50, 71, 1000, 60_000_000])


def cumulated(values, bounds_us):
    """The same, from the buckets of the histogram one by one: a bucket that reaches over a bound is
    not below it."""
    items = [
        (item.value_iterated_to, item.count_added_in_this_iter_step)
        for item in values._histogram.get_recorded_iterator()
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
