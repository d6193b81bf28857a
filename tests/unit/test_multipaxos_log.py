"""The slot log."""

import pytest

from epaxos.protocols.multipaxos import log as log_module
from epaxos.protocols.multipaxos.log import SlotLog
from epaxos.protocols.multipaxos.messages import Vote
from tests.unit.multipaxos_builders import B1A as B1
from tests.unit.multipaxos_builders import B2B, payload_of

X, Y, Z = (payload_of(0, number) for number in (1, 2, 3))


def filled(*payloads, ballot=B1):
    log = SlotLog()
    for slot, payload in enumerate(payloads, 1):
        log.vote(slot, ballot, payload, 1)
    return log


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
    entry = log.vote(1, B2B, Y, 0)
    assert entry.payload == X
    assert entry.ballot == B2B


def test_learn_of_another_value_is_not_a_vote():
    log = filled(X)
    entry = log.learn(1, Y)
    assert (entry.payload, entry.ballot) == (Y, 0)


def test_learn_of_the_value_voted_for_keeps_the_vote():
    log = filled(X)
    assert log.learn(1, X).ballot == B1


def test_live_bytes_return_to_zero_when_all_is_forgotten():
    log = filled(X, Y, None)
    log.vote(2, B2B, X, 0)
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


def test_votes_stop_when_they_hold_just_as_much_as_a_message_may(monkeypatch):
    log = filled(X, Y, Z)
    monkeypatch.setattr(log_module, "CHUNK_BYTES", len(X.encoded))
    found, until = log.votes(1)
    assert ([vote.slot for vote in found], until) == ([1], 1)


def test_votes_that_end_with_the_last_slot_are_all(monkeypatch):
    log = filled(X)
    monkeypatch.setattr(log_module, "CHUNK_BYTES", 1)
    found, until = log.votes(1)
    assert ([vote.slot for vote in found], until) == ([1], 0)


def test_values_stop_when_they_hold_just_as_much_as_a_message_may(monkeypatch):
    log = filled(X, Y, Z)
    for slot in (1, 2, 3):
        log.choose(slot, log.entries[slot])
    monkeypatch.setattr(log_module, "CHUNK_BYTES", len(X.encoded))
    assert log.values(1, 3) == [X]


def test_nothing_is_voted_for_below_the_floor_nor_in_a_lower_ballot():
    log = filled(X, Y, ballot=B2B)
    with pytest.raises(AssertionError, match="MP9"):
        log.vote(2, B1, Z, 0)
    log.choose(1, log.entries[1])
    log.forget(1)
    with pytest.raises(AssertionError, match="forgotten"):
        log.vote(1, B2B, X, 0)


def test_only_what_is_chosen_is_forgotten_and_chosen_once():
    log = filled(X, Y)
    log.choose(1, log.entries[1])
    with pytest.raises(AssertionError, match="chosen again"):
        log.choose(1, log.entries[1])
    with pytest.raises(AssertionError, match="MP2"):
        log.forget(2)
