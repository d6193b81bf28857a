"""Elections at their bounds: exactly a majority, exactly the same ballot, exactly the last slot."""

import random

from epaxos.core.replica import Setup
from epaxos.core.types import make_ballot
from epaxos.protocols.leader_based.members import WAIT_CAP_FLOOR_US, WAIT_CAP_RTTS
from epaxos.protocols.leader_based.probe import Probing
from epaxos.protocols.multipaxos.log import SLOTS_AHEAD_MAX
from epaxos.protocols.multipaxos.messages import (
    Accept,
    AcceptOk,
    Fetch,
    Heartbeat,
    Nack,
    Prepare,
    ProbeOk,
    Promise,
    Promised,
    TakeOver,
    Vote,
    Voted,
)
from epaxos.protocols.multipaxos.replica import MultiPaxosReplica
from epaxos.protocols.multipaxos.stages import Leading, Preparing
from tests.multipaxos_world import payload_of

A, B, C, D, E = range(5)
B1A, B2A, B2B = make_ballot(1, A), make_ballot(2, A), make_ballot(2, B)
X = payload_of(A, 1)


def started(me=A, n=5, rtt=40_000):
    rtts = tuple(0 if q == me else rtt for q in range(n))
    made = MultiPaxosReplica(Setup(me, n, rtts, random.Random(1), None))
    made.wake(1)
    made.out.take()
    return made


def candidate():
    """A of five, that asks for promises."""
    made = started()
    made._start_probe(10)
    for member in (B, C):
        made.receive(member, ProbeOk(10, 0), 20)
    made.out.take()
    return made


def sent(made, *kinds):
    return [each for each in made.out.take().messages if isinstance(each[1], kinds)]


def test_a_prober_campaigns_with_exactly_a_majority():
    made = started()
    made._start_probe(10)
    made.receive(B, ProbeOk(10, 0), 20)
    assert isinstance(made.stage, Probing)
    assert not sent(made, Prepare)
    made.receive(C, ProbeOk(10, 0), 20)
    assert isinstance(made.stage, Preparing)
    assert sent(made, Prepare)


def test_who_is_alone_asks_nobody():
    made = MultiPaxosReplica(Setup(A, 1, (0,), random.Random(1), None))
    made.wake(1)
    assert isinstance(made.stage, Leading)
    assert made.out.take().messages == []
    assert made.deadline() is None


def test_a_vote_as_far_ahead_as_may_be_is_counted_and_one_further_is_not():
    made = candidate()
    ballot = made.promised
    made.receive(B, Promise(ballot, 1, 0, 0, [Vote(SLOTS_AHEAD_MAX + 1, B1A, X)]), 30)
    assert made.statistics()["ignored_far"] == 1
    made.receive(B, Promise(ballot, 1, 0, 0, [Vote(SLOTS_AHEAD_MAX, B1A, X)]), 30)
    assert made.statistics()["ignored_far"] == 1
    assert B in made.stage.done


def test_a_candidate_catches_up_when_exactly_a_majority_has_promised():
    made = candidate()
    made.receive(B, Promise(made.promised, 1, 0, 7, []), 30)
    assert not sent(made, Fetch)
    made.receive(C, Promise(made.promised, 1, 0, 0, []), 30)
    assert isinstance(made.stage, Preparing)
    assert sent(made, Fetch) == [(B, Fetch(1, 7))]


def test_a_candidate_that_only_waits_for_its_predecessor_fetches_nothing():
    made = started(B)
    made.receive(A, Heartbeat(B1A, True, 0, (0,), (0,), (0,) * 5, 1), 10)
    made.receive(A, TakeOver(B1A), 20)
    made.out.take()
    for member in (C, D):
        made.receive(member, Promise(made.promised, 1, 0, 0, []), 30)
    assert isinstance(made.stage, Preparing)
    assert not sent(made, Fetch)
    assert "fetch" not in made._timers


def test_a_leader_in_a_higher_ballot_of_its_own_is_promised_before_it_is_believed():
    made = started(B)
    made.receive(A, Accept(B1A, 1, X, 0), 10)
    made.out.take()
    made.receive(A, Accept(B2A, 2, X, 0), 20)
    assert made.promised == B2A
    assert made.out.take().log == [Promised(B2A), Voted(B2A, 2, X)]
    made.receive(A, Accept(B1A, 3, X, 0), 30)
    assert sent(made, Nack, AcceptOk) == [(A, Nack(B2A))]


def test_what_was_promised_is_not_promised_again():
    made = started(B)
    made.receive(A, Prepare(B1A, 1), 10)
    assert made.out.take().log == [Promised(B1A)]
    made.receive(A, Accept(B1A, 1, X, 0), 20)
    assert made.out.take().log == [Voted(B1A, 1, X)]
    assert made.leader == A


def test_a_refusal_that_says_nothing_new_is_stale():
    made = candidate()
    made.receive(B, Nack(B2B), 30)
    assert made.stage is None
    made.receive(C, Nack(B2B), 40)
    assert made.statistics()["ignored_stale_nack"] == 1


def test_waits_double_up_to_the_larger_of_two_caps():
    for rtt in (40_000, 400_000):
        made = started(rtt=rtt)
        assert made.members.wait(0) == rtt * 23 // 10
        assert made.members.wait(1) == 2 * made.members.wait(0)
        assert made.members.wait(16) == max(WAIT_CAP_RTTS * rtt, WAIT_CAP_FLOOR_US)
    assert WAIT_CAP_RTTS * 40_000 < WAIT_CAP_FLOOR_US < WAIT_CAP_RTTS * 400_000
