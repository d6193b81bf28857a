"""How one replica probes, campaigns, promises and steps down, also at the bounds: exactly a
majority, exactly the same ballot, exactly the last slot."""

import pytest

from epaxos.core.errors import Definite
from epaxos.core.quorum import quorums
from epaxos.core.replica import EVERYONE
from epaxos.core.types import make_ballot
from epaxos.protocols.leader_based.probe import Probing
from epaxos.protocols.multipaxos.log import SLOTS_AHEAD_MAX
from epaxos.protocols.multipaxos.messages import (
    Accept,
    AcceptOk,
    Fetch,
    Heartbeat,
    Nack,
    Prepare,
    Probe,
    ProbeOk,
    Promise,
    Promised,
    TakeOver,
    Vote,
    Voted,
)
from epaxos.protocols.multipaxos.stages import Leading, Preparing
from tests.unit.multipaxos_builders import (
    B1A,
    B1C,
    B2A,
    B2B,
    SECOND,
    A,
    B,
    C,
    D,
    campaigning,
    later,
    leading,
    payload_of,
    probing,
    replica,
    sent,
    started,
)

X = payload_of(A, 1)


@pytest.mark.parametrize("n", range(1, 10))
def test_majority_is_more_than_half(n):
    assert quorums(n).slow == n // 2 + 1
    assert replica(0, n).majority == n // 2 + 1


def test_a_follower_that_hears_no_leader_probes_after_one_to_two_patiences():
    made = started(B)
    ((now, target, probe), *_) = later(made, 3 * SECOND, Probe)
    assert SECOND <= now - 1 <= 2 * SECOND
    assert (target, probe) == (EVERYONE, Probe(now))


def test_a_candidate_records_its_ballot_before_it_asks():
    made = probing()
    assert sent(made, Probe) == [(EVERYONE, Probe(10))]
    made.receive(B, ProbeOk(10, make_ballot(4, B)), 20)
    ready = made.out.take()
    ballot = make_ballot(5, A)
    assert ready.log == [Promised(ballot)]
    assert ready.must_sync
    assert ready.messages == [(EVERYONE, Prepare(ballot, 1))]


def test_a_prober_campaigns_with_exactly_a_majority():
    made = probing(5)
    made.receive(B, ProbeOk(10, 0), 20)
    assert isinstance(made.stage, Probing)
    assert not sent(made, Prepare)
    made.receive(C, ProbeOk(10, 0), 20)
    assert isinstance(made.stage, Preparing)
    assert sent(made, Prepare)


def test_who_is_alone_asks_nobody():
    made = replica(A, 1)
    made.wake(1)
    assert isinstance(made.stage, Leading)
    assert made.out.take().messages == []
    assert made.deadline() is None


def test_a_promise_is_recorded_before_it_is_said():
    made = started(B)
    made.receive(A, Prepare(B1A, 1), 10)
    ready = made.out.take()
    assert ready.log == [Promised(B1A)]
    assert ready.must_sync
    assert ready.messages == [(A, Promise(B1A, 1, 0, 0, []))]
    made.receive(A, Prepare(B1A, 1), 20)
    assert made.out.take().log == []


def test_what_was_promised_is_not_promised_again():
    made = started(B)
    made.receive(A, Prepare(B1A, 1), 10)
    assert made.out.take().log == [Promised(B1A)]
    made.receive(A, Accept(B1A, 1, X, 0), 20)
    assert made.out.take().log == [Voted(B1A, 1, X)]
    assert made.leader == A


def test_a_leader_in_a_higher_ballot_of_its_own_is_promised_before_it_is_believed():
    made = started(B, 5)
    made.receive(A, Accept(B1A, 1, X, 0), 10)
    made.out.take()
    made.receive(A, Accept(B2A, 2, X, 0), 20)
    assert made.promised == B2A
    assert made.out.take().log == [Promised(B2A), Voted(B2A, 2, X)]
    made.receive(A, Accept(B1A, 3, X, 0), 30)
    assert sent(made, Nack, AcceptOk) == [(A, Nack(B2A))]


def test_a_lower_ballot_is_refused_and_a_refused_leader_steps_down():
    made = started(B)
    made.receive(C, Prepare(B1C, 1), 10)
    made.out.take()
    for message in (Prepare(B1A, 1), Accept(B1A, 1, X, 0)):
        made.receive(A, message, 20)
        ready = made.out.take()
        assert ready.messages == [(A, Nack(B1C))]
        assert ready.log == []
    leader = leading()
    leader.receive(B, Nack(B1C), 40)
    assert leader.leader is None
    with pytest.raises(Definite, match="no leader"):
        leader.propose(X, 50)


def test_a_refusal_that_says_nothing_new_is_stale():
    made = campaigning(5)
    made.receive(B, Nack(B2B), 30)
    assert made.stage is None
    made.receive(C, Nack(B2B), 40)
    assert made.statistics()["ignored_stale_nack"] == 1


def test_a_vote_as_far_ahead_as_may_be_is_counted_and_one_further_is_not():
    made = campaigning(5)
    ballot = made.promised
    made.receive(B, Promise(ballot, 1, 0, 0, [Vote(SLOTS_AHEAD_MAX + 1, B1A, X)]), 30)
    assert made.statistics()["ignored_far"] == 1
    made.receive(B, Promise(ballot, 1, 0, 0, [Vote(SLOTS_AHEAD_MAX, B1A, X)]), 30)
    assert made.statistics()["ignored_far"] == 1
    assert B in made.stage.done


def test_a_candidate_catches_up_when_exactly_a_majority_has_promised():
    made = campaigning(5)
    made.receive(B, Promise(made.promised, 1, 0, 7, []), 30)
    assert not sent(made, Fetch)
    made.receive(C, Promise(made.promised, 1, 0, 0, []), 30)
    assert isinstance(made.stage, Preparing)
    assert sent(made, Fetch) == [(B, Fetch(1, 7))]


def test_a_candidate_that_only_waits_for_its_predecessor_fetches_nothing():
    made = started(B, 5)
    made.receive(A, Heartbeat(B1A, True, 0, (0,), (0,), (0,) * 5, 1), 10)
    made.receive(A, TakeOver(B1A), 20)
    made.out.take()
    for member in (C, D):
        made.receive(member, Promise(made.promised, 1, 0, 0, []), 30)
    assert isinstance(made.stage, Preparing)
    assert not sent(made, Fetch)
    assert not later(made, 200_000, Fetch)


def test_a_probe_is_not_answered_while_a_leader_is_heard():
    made = started(B)
    made.receive(A, Accept(B1A, 1, X, 0), 10)
    made.out.take()
    made.receive(C, Probe(7), 20)
    assert made.out.take().messages == []
    made.receive(A, Probe(8), 30)
    assert made.out.take().messages == [(A, ProbeOk(8, B1A))]
    made.receive(C, Probe(9), 9 + made.patience.us)
    assert made.out.take().messages == []
    made.receive(C, Probe(9), 10 + made.patience.us)
    assert made.out.take().messages == [(C, ProbeOk(9, B1A))]


@pytest.mark.parametrize("made", [leading(), campaigning()], ids=["leader", "candidate"])
def test_a_probe_is_not_answered_by_leader_and_candidate(made):
    made.receive(B, Probe(7), 40)
    assert made.out.take().messages == []


def test_a_leader_that_leads_no_longer_is_believed():
    made = started(B)
    made.receive(A, Accept(B1A, 1, X, 0), 10)
    assert made.unready() is None
    made.receive(A, Heartbeat(B1A, False, 0, (0,), (0,), (0, 0, 0), 1), 20)
    assert made.leader is None
    assert made.unready() == "no leader is known"


def test_a_restarted_leader_follows_until_it_is_elected_again():
    made = started(A, leader=A, records=[Promised(B1A), Voted(B1A, 1, X)])
    assert made.leader is None
    assert made.stage is None
    with pytest.raises(Definite):
        made.propose(X, 10)
    now, _, probe = later(made, 3 * SECOND, Probe)[-1]
    made.receive(B, ProbeOk(probe.number, 0), now)
    assert made.promised == B2A


def test_a_leader_that_hears_of_a_higher_promise_steps_down():
    made = leading()
    made.receive(C, Heartbeat(B1A, False, 0, (0,), (0,), (0, 0, 0), 1), 40)
    assert made.leader == A
    made.receive(C, Heartbeat(B1C, False, 0, (0,), (0,), (0, 0, 0), 2), 50)
    assert made.leader is None
    assert made.promised == B1A, "it joins the ballot of nobody that leads"


def test_a_leader_that_hears_nobody_steps_down():
    made = leading()
    patience = made.patience.us
    later(made, 30 + patience)
    assert made.leader == A
    later(made, 30 + patience * 3 // 2)
    assert made.leader is None
    assert made.statistics()["step_downs"] == 1
