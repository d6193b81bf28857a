"""Quorum sizes for every n, and why they suffice."""

from itertools import combinations

import pytest

from epaxos.core.errors import ConfigError
from epaxos.core.quorum import Tally, quorums

TABLE = {  # n: f, e, fast, slow
    1: (0, 0, 1, 1),
    2: (0, 0, 2, 2),
    3: (1, 1, 2, 2),
    4: (1, 1, 3, 3),
    5: (2, 2, 3, 3),
    6: (2, 2, 4, 4),
    7: (3, 2, 5, 4),
    8: (3, 3, 5, 5),
    9: (4, 3, 6, 5),
}


@pytest.mark.parametrize("n", TABLE)
def test_sizes(n):
    assert quorums(n) == (n, *TABLE[n])


@pytest.mark.parametrize("n", TABLE)
def test_condition_of_the_proof(n):
    _, f, e, fast, slow = quorums(n)
    assert e <= f
    assert n >= max(2 * e + f - 1, 2 * f + 1)
    assert (fast, slow) == (n - e, n - f)


@pytest.mark.parametrize("n", TABLE)
def test_no_larger_e_would_do(n):
    _, f, e, _, _ = quorums(n)
    assert e == f or n < max(2 * (e + 1) + f - 1, 2 * f + 1)


@pytest.mark.parametrize("n", TABLE)
def test_any_two_slow_quorums_meet(n):
    _, _, _, _, slow = quorums(n)
    members = range(n)
    assert all(
        set(a) & set(b) for a in combinations(members, slow) for b in combinations(members, slow)
    )


@pytest.mark.parametrize("n", range(1, 8))
def test_recovery_sees_enough_of_every_fast_quorum(n):
    # Rule 4 of recovery: a fast quorum leaves at least |Q| - e of its members in every recovery
    # quorum Q; and with the command leader outside Q, so do the members without the leader.
    _, _, e, fast, slow = quorums(n)
    members = range(n)
    for chosen in combinations(members, fast):
        for asked in combinations(members, slow):
            assert len(set(chosen) & set(asked)) >= slow - e


@pytest.mark.parametrize("n", range(1, 8))
def test_two_interfering_fast_quorums_share_a_replica(n):
    # Both commit fast only if one of them saw the other: some replica pre-accepted both.
    _, _, _, fast, _ = quorums(n)
    members = range(n)
    assert all(
        set(a) & set(b) for a in combinations(members, fast) for b in combinations(members, fast)
    )


@pytest.mark.parametrize("n", [-1, 0, 10])
def test_other_sizes_are_refused(n):
    with pytest.raises(ConfigError, match=f"1 to 9 replicas, not {n}"):
        quorums(n)


def test_tally_counts_replicas_not_messages():
    tally = Tally(2)
    assert tally.count == 1
    assert tally.add(0)
    assert not tally.add(0)
    assert not tally.add(2)
    assert tally.count == 2
    assert [member in tally for member in range(4)] == [True, False, True, False]
