"""Conflicts that happened, from samples."""

import pytest

from bench.conflicts import Realised, realised
from bench.load import Sample
from epaxos.core.replica import Path


def sample(region, start_us, shared=-1, path=Path.FAST, slot=1, measured=True):
    return Sample(region, start_us, 90_000, 100_000, int(path), region, slot, shared, measured)


def test_two_regions_on_one_key_at_once_meet():
    found = realised([sample(0, 0, 0), sample(1, 50_000, 0, Path.SLOW)], 0)
    assert found == Realised(commands=2, shared=2, met=2, slow=1, unexplained=0)


@pytest.mark.parametrize(
    "other",
    [
        sample(1, 200_000, 0, Path.SLOW),  # later than the first one's end
        sample(0, 50_000, 0, Path.SLOW, slot=2),  # of the same region
        sample(1, 50_000, 1, Path.SLOW),  # on another key
        sample(1, 50_000, -1, Path.SLOW),  # on a key of its own
    ],
)
def test_what_does_not_meet_explains_nothing(other):
    found = realised([sample(0, 0, 0), other], 0)
    assert (found.met, found.slow, found.unexplained) == (0, 1, 1)


def test_a_commit_that_still_travels_meets():
    found = realised([sample(0, 0, 0), sample(1, 200_000, 0, Path.SLOW)], 150_000)
    assert (found.met, found.unexplained) == (1, 0)


def test_the_whole_instance_is_explained_by_one_of_its_commands():
    samples = [sample(0, 0, 0), sample(1, 10_000, 0, Path.SLOW), sample(1, 9000, -1, Path.SLOW)]
    found = realised(samples, 0)
    assert (found.slow, found.unexplained) == (2, 0)


def test_the_warm_up_explains_and_is_not_counted():
    found = realised([sample(0, 0, 0, measured=False), sample(1, 10_000, 0, Path.SLOW)], 0)
    assert found == Realised(commands=1, shared=1, met=1, slow=1, unexplained=0)
