"""The slot log, the run set, and what is known of the members."""

import random

import pytest

from epaxos.core.types import make_ballot
from epaxos.protocols.leader_based.members import Members
from epaxos.protocols.leader_based.runs import Runs
from epaxos.protocols.leader_based.tick import TickOutbox
from epaxos.protocols.multipaxos import log as log_module
from epaxos.protocols.multipaxos.log import SlotLog
from epaxos.protocols.multipaxos.messages import Chosen, Promise, Vote
from epaxos.protocols.multipaxos.stages import Leading, Preparing
from tests.multipaxos_world import payload_of

B1 = make_ballot(1, 0)
B2 = make_ballot(2, 1)
X = payload_of(0, 1)
Y = payload_of(1, 1)


def filled(*payloads, ballot=B1):
    log = SlotLog()
    for slot, payload in enumerate(payloads, 1):
        log.vote(slot, ballot, payload, 1)
    return log


def test_runs_agree_with_a_set():
    chance = random.Random(5)
    runs, numbers = Runs(), set()
    for _ in range(3000):
        number = chance.randrange(400)
        assert runs.add(number) == (number not in numbers)
        numbers.add(number)
    assert runs._firsts == [0]
    assert runs._lasts == [399]


def test_runs_in_order_take_one_run():
    runs = Runs()
    assert all(runs.add(number) for number in range(1 << 40, (1 << 40) + 1000))
    assert len(runs._firsts) == 1
    assert not runs.add((1 << 40) + 500)


def test_choose_moves_over_what_was_chosen_out_of_order():
    log = filled(X, Y, None, X)
    for slot in (3, 2):
        log.choose(slot, log.entries[slot])
        assert log.chosen == 0
    log.choose(1, log.entries[1])
    assert log.chosen == 3


def test_vote_never_changes_a_chosen_value():
    log = filled(X)
    log.choose(1, log.entries[1])
    entry = log.vote(1, B2, Y, 0)
    assert entry.payload == X
    assert entry.ballot == B2


def test_learn_of_another_value_is_not_a_vote():
    log = filled(X)
    entry = log.learn(1, Y)
    assert (entry.payload, entry.ballot) == (Y, 0)


def test_learn_of_the_value_voted_for_keeps_the_vote():
    log = filled(X)
    assert log.learn(1, X).ballot == B1


def test_live_bytes_return_to_zero_when_all_is_forgotten():
    log = filled(X, Y, None)
    log.vote(2, B2, X, 0)
    log.learn(4, payload_of(2, 1, "x" * 1000))
    assert log.live_bytes > 1000
    for slot in range(1, 5):
        log.choose(slot, log.entries[slot])
    log.forget(4)
    assert log.live_bytes == 0
    assert log.entries == {}


def test_votes_leave_out_what_is_chosen_without_a_gap():
    log = filled(X, Y, None, X)
    for slot in (1, 3):
        log.choose(slot, log.entries[slot])
    assert log.votes(1) == ([Vote(2, B1, Y), Vote(3, B1, None), Vote(4, B1, X)], 0)
    assert log.votes(4) == ([Vote(4, B1, X)], 0)
    assert log.votes(9) == ([], 0)


@pytest.mark.parametrize(("name", "limit"), [("CHUNK_SLOTS", 2), ("CHUNK_BYTES", 20)])
def test_votes_and_values_come_in_chunks(monkeypatch, name, limit):
    monkeypatch.setattr(log_module, name, limit)
    log = filled(X, Y, X, Y, X)
    first, seen = 1, []
    while first:
        votes, until = log.votes(first)
        assert 1 <= len(votes) <= 2
        seen += [vote.slot for vote in votes]
        first = until and until + 1
    assert seen == [1, 2, 3, 4, 5]
    for slot in range(1, 6):
        log.choose(slot, log.entries[slot])
    assert 1 <= len(log.values(1, 5)) <= 2
    assert log.values(6, 9) == []


def test_what_is_put_off_to_the_end_of_a_tick_is_in_its_ready():
    def end_tick():
        out.note(Chosen(3))

    out = TickOutbox(end_tick)
    assert out.take().log == [Chosen(3)]


def test_round_trip_leaves_out_the_time_the_stamp_was_held():
    members = Members(0, (0, 200_000))
    members.heard[1] = 1_030_000
    held = 1_000_000 + 25_000
    members.measure(1, 7, held, 1_080_000)
    assert members.rtt_max == 55_000
    assert members.echo(1_090_000) == (0, 7 + 10_000)


def test_rtt_max_is_at_least_forty_milliseconds():
    members = Members(0, (0, 200_000))
    members.heard[1] = 1_000
    members.measure(1, 7, 900, 1_000)
    assert members.rtt_max == 40_000


def test_floor_is_what_everybody_knows_that_everybody_executed():
    members = Members(0, (0, 1, 1))
    members.executed[0] = 9
    members.advance(1, 8, 5, 0)
    members.advance(2, 7, 6, 0)
    assert members.renew_floor() == 5
    assert members.stable[0] == 7
    members.advance(1, 1, 1, 0)
    assert members.renew_floor() == 5


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
