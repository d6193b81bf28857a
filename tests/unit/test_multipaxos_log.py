"""The slot log."""

import pytest

from epaxos.codec import encode_frame
from epaxos.core.command import VALUE_BYTES_MAX
from epaxos.protocols.multipaxos import log as log_module
from epaxos.protocols.multipaxos.log import SlotLog, encoded_size
from epaxos.protocols.multipaxos.messages import Learn, Promise, Vote
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


@pytest.mark.parametrize(("name", "limit"), [("CHUNK_SLOTS", 2), ("CHUNK_BYTES", 90)])
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


@pytest.mark.parametrize(("less", "count"), [(0, 2), (1, 1)])
def test_votes_and_values_stop_before_they_hold_more_than_a_message_may(monkeypatch, less, count):
    log = filled(X, Y, Z)
    monkeypatch.setattr(log_module, "CHUNK_BYTES", encoded_size(X) + encoded_size(Y) - less)
    found, until = log.votes(1)
    assert ([vote.slot for vote in found], until) == ([1, 2][:count], count)
    for slot in (1, 2, 3):
        log.choose(slot, log.entries[slot])
    assert log.values(1, 3) == [X, Y][:count]


def test_the_largest_payload_behind_a_small_one_has_a_message_of_its_own():
    small, whole = payload_of(0, 1, "x" * 900_000), payload_of(0, 2, "x" * VALUE_BYTES_MAX)
    log = filled(small, whole, X)
    votes = []
    first = 1
    while first:
        found, until = log.votes(first)
        assert encode_frame(Promise(B1, first, until, 0, found))
        votes.append([vote.slot for vote in found])
        first = until and until + 1
    assert votes == [[1], [2], [3]]
    for slot in (1, 2, 3):
        log.choose(slot, log.entries[slot])
        assert len(log.values(slot, 3)) == 1
        assert encode_frame(Learn(slot, log.values(slot, 3)))


def test_votes_that_end_with_the_last_slot_are_all(monkeypatch):
    log = filled(X)
    monkeypatch.setattr(log_module, "CHUNK_BYTES", 1)
    found, until = log.votes(1)
    assert ([vote.slot for vote in found], until) == ([1], 0)


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
