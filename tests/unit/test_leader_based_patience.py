"""Election time-outs, and a leader's check of its quorum."""

import random

import pytest

from epaxos.protocols.leader_based.members import Members
from epaxos.protocols.leader_based.patience import CheckQuorum, Patience

SECOND = 1_000_000


def patience(*rtts):
    return Patience((0, *rtts), random.Random(1))


@pytest.mark.parametrize(("rtt", "us"), [(10, SECOND), (40_000, SECOND), (300_000, 3 * SECOND)])
def test_patience_is_ten_round_trips_and_at_least_a_second(rtt, us):
    assert patience(5, rtt).us == us


def test_time_outs_are_drawn_between_one_and_two_patiences():
    made = patience(40_000)
    drawn = [made.draw(7) - 7 for _ in range(500)]
    assert SECOND <= min(drawn) < SECOND * 21 // 20
    assert SECOND * 39 // 20 < max(drawn) <= 2 * SECOND


def test_a_silence_begins_when_the_leader_was_heard():
    made = patience(40_000)
    made.draw(0)
    assert made.ends_at() is None
    made.heard_at = 500
    assert made.ends_at() == 500 + made.timeout


@pytest.mark.parametrize(("now", "is_heard"), [(499 + SECOND, True), (500 + SECOND, False)])
def test_a_leader_is_heard_for_just_one_patience(now, is_heard):
    made = patience(40_000)
    assert not made.is_heard(now)
    made.heard_at = 500
    assert made.is_heard(now) == is_heard


@pytest.mark.parametrize(
    ("heard_at", "now", "is_lost"),
    [
        (29, 29 + SECOND, False),
        (29, 30 + SECOND, True),
        (30, 30 + SECOND, False),
        (None, 30 + SECOND, True),
    ],
)
def test_a_majority_is_lost_when_it_was_not_heard_for_just_so_long(heard_at, now, is_lost):
    members, check = Members(0, (0, 1, 1)), CheckQuorum(30)
    members.heard[1] = heard_at
    assert check.is_lost(members, 2, SECOND, now) == is_lost


def test_who_did_not_look_for_longer_was_stopped_itself_and_counts_anew():
    members, check = Members(0, (0, 1, 1)), CheckQuorum(30)
    assert not check.is_lost(members, 2, SECOND, 31 + SECOND)
    assert not check.is_lost(members, 2, SECOND, 30 + 2 * SECOND)
    assert check.is_lost(members, 2, SECOND, 31 + 2 * SECOND)
