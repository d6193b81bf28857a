"""The stages of a candidate and of a leader: what phase 1 proposes, what a leader has seen."""

from epaxos.core.types import make_ballot
from epaxos.protocols.multipaxos.log import SlotLog
from epaxos.protocols.multipaxos.messages import Promise, Vote
from epaxos.protocols.multipaxos.stages import Leading, Preparing
from tests.unit.multipaxos_builders import B1A, A, B, C, payload_of
from tests.unit.multipaxos_builders import B1A as B1
from tests.unit.multipaxos_builders import B2B as B2

X, Y = payload_of(0, 1), payload_of(1, 1)


def filled(payload, ballot=B1):
    log = SlotLog()
    log.vote(1, ballot, payload, 1)
    return log


def test_proposals_take_the_highest_ballot_and_fill_gaps():
    log = filled(X)
    attempt = Preparing(make_ballot(3, 2), 1, 2, 3, None)
    votes = [Vote(1, B2, Y), Vote(3, B1, X), Vote(4, B1, None)]
    assert attempt.absorb(0, Promise(attempt.ballot, 1, 0, 0, votes))
    assert attempt.absorb(1, Promise(attempt.ballot, 1, 0, 0, [Vote(3, B2, Y)]))
    assert attempt.proposals(log) == [(1, Y), (2, None), (3, Y), (4, None)]


def test_proposals_prefer_the_own_vote_where_its_ballot_is_higher():
    log = filled(X, ballot=B2)
    attempt = Preparing(make_ballot(3, 2), 1, 2, 3, None)
    attempt.absorb(0, Promise(attempt.ballot, 1, 0, 0, [Vote(1, B1, Y)]))
    assert attempt.proposals(log) == [(1, X)]


def test_a_promise_counts_once_and_only_when_complete():
    attempt = Preparing(B2, 1, 1, 3, None)
    chunk = Promise(B2, 1, 4, 0, [])
    assert attempt.absorb(0, chunk)
    assert not attempt.absorb(0, chunk)
    assert not attempt.complete(2, 0)
    assert attempt.position(0) == 5
    assert attempt.absorb(0, Promise(B2, 5, 0, 6, []))
    assert not attempt.absorb(0, Promise(B2, 5, 0, 6, []))
    assert not attempt.complete(2, 5)
    assert attempt.complete(2, 6)


def test_a_successor_waits_for_the_promise_of_its_predecessor():
    attempt = Preparing(B2, 1, 1, 3, 2)
    attempt.absorb(0, Promise(B2, 1, 0, 0, []))
    assert not attempt.complete(2, 0)
    attempt.absorb(2, Promise(B2, 1, 0, 0, []))
    assert attempt.complete(2, 0)


def test_a_forwarded_batch_is_seen_once_per_origin():
    leading = Leading(B1, 1, 0)
    assert leading.first_sight(1, 7)
    assert leading.first_sight(2, 7)
    assert not leading.first_sight(1, 7)


def test_of_two_promises_that_know_as_much_the_first_is_caught_up_with():
    stage = Preparing(B1A, 1, A, 3, None)
    assert stage.absorb(B, Promise(B1A, 1, 0, 7, []))
    assert stage.absorb(C, Promise(B1A, 1, 0, 7, []))
    assert (stage.chosen, stage.chosen_at) == (7, B)
