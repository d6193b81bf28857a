"""The Multi-Paxos replica at its bounds: what is told when, and of which slots."""

import random

import pytest

import epaxos.protocols.multipaxos.replica as module
from epaxos.core.errors import Definite
from epaxos.core.replica import Setup
from epaxos.core.types import InstanceId, make_ballot
from epaxos.protocols.multipaxos.log import SLOTS_AHEAD_MAX
from epaxos.protocols.multipaxos.messages import (
    Accept,
    AcceptOk,
    CommitIndex,
    Fetch,
    Heartbeat,
    ProbeOk,
    Promise,
    TakeOver,
)
from epaxos.protocols.multipaxos.replica import (
    PROGRESS_DELAY_US,
    PROGRESS_SLOTS,
    MultiPaxosReplica,
)
from tests.multipaxos_world import payload_of

A, B, C = range(3)
B1A, B2A, B2C = make_ballot(1, A), make_ballot(2, A), make_ballot(2, C)
X, Y = payload_of(A, 1), payload_of(A, 2)


def started(me=A, n=3):
    rtts = tuple(0 if q == me else 400_000 for q in range(n))
    made = MultiPaxosReplica(Setup(me, n, rtts, random.Random(1), None))
    made.wake(1)
    made.out.take()
    return made


def leading():
    """A of three, elected with B's promise."""
    made = started()
    made._start_probe(10)
    made.receive(B, ProbeOk(10, 0), 20)
    made.receive(B, Promise(made.promised, 1, 0, 0, []), 30)
    made.out.take()
    return made


def sent(made, *kinds):
    return [each for each in made.out.take().messages if isinstance(each[1], kinds)]


def told(made):
    return [m.executed[0] for _, m in made.out.take().messages if isinstance(m, Heartbeat)]


def test_what_was_executed_is_told_after_a_short_while():
    made = started()
    made.executed((1,), 100)
    assert told(made) == []
    assert made.deadline() == 100 + PROGRESS_DELAY_US
    made.wake(100 + PROGRESS_DELAY_US)
    assert told(made) == [1]


def test_so_many_executed_slots_are_told_at_once():
    made = started()
    made.executed((PROGRESS_SLOTS - 1,), 100)
    assert told(made) == []
    made.executed((PROGRESS_SLOTS,), 100)
    assert told(made) == [PROGRESS_SLOTS]


def test_nothing_new_is_not_told():
    made = started()
    made.executed((1,), 100)
    made.wake(100 + PROGRESS_DELAY_US)
    told(made)
    made.executed((1,), 200 + PROGRESS_DELAY_US)
    assert "changed" not in made._timers


def test_who_is_alone_tells_nobody():
    made = started(n=1)
    assert made.deadline() is None
    for number in range(1, PROGRESS_SLOTS + 1):
        made.propose(payload_of(A, number), 50)
    made.out.take()
    made.executed((PROGRESS_SLOTS,), 100)
    assert made.out.take().messages == []
    assert "changed" not in made._timers


def test_leadership_is_the_ballot_of_whom_one_follows():
    made = started(B)
    assert made.leadership == 0
    made.receive(A, Accept(B1A, 1, X, 0), 10)
    assert made.leadership == B1A
    assert leading().leadership == B1A


def test_a_successor_may_have_been_silent_for_just_so_long():
    for late in (0, 1):
        made = leading()
        made.members.heard[C] = 40
        now = 40 + made.patience.us + late
        if late:
            with pytest.raises(Definite, match="not been heard of lately"):
                made.transfer(C, now)
        else:
            made.transfer(C, now)
            assert sent(made, TakeOver) == [(C, TakeOver(B1A))]


def test_a_slot_is_described_with_its_leader():
    made = started(B)
    made.receive(A, Accept(B1A, 1, X, 0), 10)
    assert made.describe(InstanceId(0, 1))["leader"] == "A"
    made.receive(C, Heartbeat(B2C, False, 0, (0,), (0,), (0, 0, 0), 1), 20)
    made._start_probe(30)
    assert made.describe(InstanceId(0, 1))["leader"] is None


def test_the_last_forgotten_slot_is_not_voted_for():
    made = started(B)
    made.receive(A, Accept(B1A, 1, X, 0), 10)
    made.receive(A, CommitIndex(B1A, 1), 20)
    made.executed((1,), 30)
    for member in (A, C):
        made.receive(member, Heartbeat(B1A, member == A, 1, (1,), (1,), (0, 0, 0), 1), 40)
    assert made.floor == (1,)
    made.out.take()
    made.receive(A, Accept(B1A, 1, X, 1), 50)
    assert made.statistics()["ignored_forgotten"] == 1
    assert not sent(made, AcceptOk)


def test_a_proposal_as_far_ahead_as_may_be_is_voted_for_and_one_further_is_not():
    made = started(B)
    made.receive(A, Accept(B1A, SLOTS_AHEAD_MAX + 1, X, 0), 10)
    assert made.statistics()["ignored_far"] == 1
    assert not sent(made, AcceptOk)
    made.receive(A, Accept(B1A, SLOTS_AHEAD_MAX, X, 0), 20)
    assert made.statistics()["ignored_far"] == 1
    assert sent(made, AcceptOk)


def test_the_commit_index_of_a_ballot_never_goes_back_and_a_new_ballot_brings_its_own():
    made = started(B)
    for slot in (1, 2):
        made.receive(A, Accept(B1A, slot, X, 0), 10)
    made.receive(A, CommitIndex(B1A, 2), 20)
    made.receive(A, CommitIndex(B1A, 1), 30)
    assert made._told == (B1A, 2)
    made.receive(A, Accept(B2A, 3, Y, 1), 40)
    assert made._told == (B2A, 1)


def test_what_ones_own_votes_give_is_not_fetched():
    made = started(B)
    made.receive(A, Accept(B1A, 1, X, 0), 10)
    made.receive(A, CommitIndex(B1A, 1), 20)
    assert made.log.chosen == 1
    assert not sent(made, Fetch)


def test_what_was_voted_for_and_is_not_covered_by_the_commit_index_is_fetched_too():
    made = started(B)
    made.receive(A, Accept(B1A, 2, X, 1), 10)
    sent(made)
    made._timers.cancel("fetch")
    made._catch_up(C, 5, 20)
    assert sent(made, Fetch) == [(C, Fetch(1, 5))]


def test_who_is_not_answered_waits_longer_and_who_is_answered_does_not():
    made = leading()
    for payload in (X, Y):
        made.propose(payload, 40)
    made._resend_due(100)
    assert made.stage.attempts == 1
    made._resend_due(200)
    assert made.stage.attempts == 2
    made.receive(B, AcceptOk(B1A, 1, 1), 300)
    made._resend_due(400)
    assert made.stage.attempts == 0


def test_a_repetition_stops_when_it_holds_just_as_much_as_a_message_may(monkeypatch):
    made = leading()
    for payload in (X, Y):
        made.propose(payload, 40)
    made.out.take()
    made._resend_due(100)
    sent(made)
    monkeypatch.setattr(module, "CHUNK_BYTES", 2 * len(X.encoded))
    made._resend_due(200)
    assert [(member, m.slot) for member, m in sent(made, Accept)] == [(B, 1), (C, 1)]


def test_a_leader_with_nothing_open_repeats_nothing():
    made = leading()
    made.propose(X, 40)
    assert "resend" in made._timers
    made.receive(B, AcceptOk(B1A, 1, 1), 50)
    made.out.take()
    for key in made._timers.due(10_000_000):
        if key == "resend":
            made._resend_due(10_000_000)
    assert "resend" not in made._timers


def test_a_fetch_that_was_answered_otherwise_is_not_repeated():
    made = started(B)
    made.receive(A, Accept(B1A, 1, X, 0), 10)
    made.receive(A, CommitIndex(B1A, 1), 20)
    made.out.take()
    assert made.log.chosen == made._wanted == 1
    made._fetch_due(30)
    assert not sent(made, Fetch)


def test_who_is_not_answered_asks_only_those_who_know_more():
    made = started(A, 5)
    made.members.chosen = [0, 7, 0, 0, 7]
    made._catch_up(B, 7, 10)
    assert [target for target, _ in sent(made, Fetch)] == [B]
    made._fetch_due(1_000_000)
    assert [target for target, _ in sent(made, Fetch)] == [4]


def test_without_a_leader_one_learns_from_anybody_and_with_one_from_it_alone():
    behind = Heartbeat(B1A, False, 3, (0,), (0,), (0, 0, 0), 1)
    made = started(B)
    made.receive(C, behind, 10)
    assert sent(made, Fetch) == [(C, Fetch(1, 3))]
    made = started(B)
    made.receive(A, Accept(B1A, 1, X, 0), 10)
    made.receive(C, behind, 20)
    assert not sent(made, Fetch)


def test_a_leader_that_was_alone_for_just_so_long_steps_down():
    for late in (-1, 0):
        made = leading()
        made.members.heard = [None, 29, None]
        made._check_due(30 + made.patience.us + late)
        assert (made.leader is None) == (late == 0)


def test_a_transfer_is_given_up_after_just_so_long():
    for late in (-1, 0):
        made = leading()
        made.members.heard[C] = 40
        made.transfer(C, 40)
        sent(made)
        made._transfer_due(40 + made.patience.us + late)
        assert len(sent(made, TakeOver)) == (late < 0)


def test_of_two_that_know_as_much_the_first_is_asked():
    made = started(A)
    made._catch_up(B, 7, 10)
    made._catch_up(C, 7, 20)
    made._fetches = 0
    made.out.take()
    made._fetch(30)
    assert [target for target, _ in sent(made, Fetch)] == [B]
