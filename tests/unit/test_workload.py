"""Workloads: everything follows from the seed, and conflicts are where they were asked for."""

from itertools import islice

import numpy as np
import pytest

from bench.workload import OWN_KEY, Workload
from epaxos.core.command import Operation
from epaxos.core.errors import ConfigError


def first(workload, region, count=2000):
    return list(islice(workload.commands(region), count))


def test_commands_follow_from_seed_and_region():
    assert first(Workload(10, seed=3), "VA") == first(Workload(10, seed=3), "VA")
    assert first(Workload(10, seed=3), "VA") != first(Workload(10, seed=4), "VA")
    assert first(Workload(10, seed=3), "VA") != first(Workload(10, seed=3), "CA")


def test_private_keys_are_used_once_by_one_region():
    keys = [c.key for r in ("VA", "CA") for c in first(Workload(20), r) if c.shared == OWN_KEY]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("conflict", "low", "high"), [(0, 0, 0), (20, 320, 480), (100, 2000, 2000)]
)
def test_share_of_commands_on_the_shared_key(conflict, low, high):
    shared = [c for c in first(Workload(conflict), "VA") if c.shared != OWN_KEY]
    assert low <= len(shared) <= high
    assert len({c.key for c in shared}) <= 1


def test_shared_keys_are_the_same_in_all_regions():
    workload = Workload(100, shared_keys=3)
    assert {c.key for c in first(workload, "VA")} == {c.key for c in first(workload, "CA")}
    assert len({c.key for c in first(workload, "VA")}) == 3


def test_puts_carry_values_and_gets_none():
    commands = first(Workload(0, value_size=7, put_share=0.5), "VA")
    assert {len(c.argument) for c in commands if c.operation == Operation.PUT} == {7}
    assert {c.argument for c in commands if c.operation == Operation.GET} == {b""}
    assert 850 < sum(c.operation == Operation.PUT for c in commands) < 1150


def test_arrivals_are_a_poisson_process_of_the_rate():
    starts = Workload(0, seed=5).arrivals("VA", 200, 50)
    assert (np.diff(starts) >= 0).all()
    assert starts[0] >= 0
    assert starts[-1] < 50e6
    assert 9500 < len(starts) < 10500
    gaps = np.diff(starts)
    assert 0.93 < gaps.std() / gaps.mean() < 1.07
    assert (starts == Workload(0, seed=5).arrivals("VA", 200, 50)).all()
    assert len(Workload(0, seed=5).arrivals("CA", 200, 50)) != 0
    assert not np.array_equal(starts, Workload(0, seed=5).arrivals("CA", 200, 50))


@pytest.mark.parametrize(
    "wrong", [{"conflict": 101}, {"conflict": -1}, {"conflict": 0, "put_share": 2}]
)
def test_what_is_out_of_range_is_refused(wrong):
    with pytest.raises(ConfigError, match="must be between"):
        Workload(**wrong)
