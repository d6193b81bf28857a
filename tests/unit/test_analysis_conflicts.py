"""Conflicts that happened, from samples."""

import random

import pytest

from bench.analysis.conflicts import Realised, _meeting, realised
from bench.load.samples import Sample
from epaxos.core.command import Operation
from epaxos.core.replica import Path
from epaxos.workload import OWN_KEY


def sample(
    region, start_us, shared=-1, path=Path.FAST, slot=1, measured=True, operation=Operation.PUT
):
    times = (start_us, 90_000, 100_000)
    return Sample(region, *times, int(path), region, slot, shared, measured, operation)


def slowly(samples, spread_us):
    """The definition, command by command."""

    def meet(a, b):
        if a.region == b.region or a.shared != b.shared or a.shared == OWN_KEY:
            return False
        if a.operation == b.operation == Operation.GET:
            return False
        known = b.start_us + b.answer_us + spread_us
        return b.start_us <= a.start_us + a.answer_us and known >= a.start_us

    return [any(meet(a, b) for b in samples) for a in samples]


def test_two_regions_on_one_key_at_once_meet():
    found = realised([sample(0, 0, 0), sample(1, 50_000, 0, Path.SLOW)], 0)
    assert found == Realised(
        commands=2, shared=2, met=2, batches=2, batches_met=2, slow=1, unexplained=0
    )


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
    assert found == Realised(
        commands=1, shared=1, met=1, batches=1, batches_met=1, slow=1, unexplained=0
    )


def test_reads_do_not_meet_reads():
    get = Operation.GET
    reads = [sample(0, 0, 0, operation=get), sample(1, 10_000, 0, operation=get)]
    assert realised(reads, 0).met == 0
    mixed = [*reads, sample(2, 20_000, 0)]
    assert realised(mixed, 0).met == 3


def test_a_batch_meets_what_one_of_its_commands_meets():
    batch = [sample(0, 0, 0), sample(0, 1000, -1), sample(0, 2000, 7)]
    found = realised([*batch, sample(1, 5000, 7), sample(1, 6000, -1, slot=2)], 0)
    assert (found.commands, found.met) == (5, 2)
    assert (found.batches, found.batches_met) == (3, 2)


@pytest.mark.parametrize("seed", range(20))
def test_meetings_are_those_of_the_definition(seed):
    rng = random.Random(seed)
    samples = [
        Sample(
            rng.randrange(3),
            rng.randrange(100),
            1,
            rng.randrange(1, 40),
            int(Path.FAST),
            0,
            number,
            rng.choice((-1, 0, 0, 1)),
            True,
            rng.choice((Operation.GET, Operation.PUT)),
        )
        for number in range(60)
    ]
    assert _meeting(samples, 5) == slowly(samples, 5)
