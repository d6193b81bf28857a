"""The slot log and what is known of the members, at their bounds."""

import pytest

from epaxos.core.types import make_ballot
from epaxos.protocols.leader_based.members import RTT_FLOOR_US, SUSPECT_RTTS, Members
from epaxos.protocols.multipaxos import log as log_module
from epaxos.protocols.multipaxos.log import SlotLog
from tests.multipaxos_world import payload_of

B1 = make_ballot(1, 0)
X, Y, Z = (payload_of(0, number) for number in (1, 2, 3))
RTT = 100_000


def filled(*payloads):
    log = SlotLog()
    for slot, payload in enumerate(payloads, 1):
        log.vote(slot, B1, payload, 1)
    return log


def members():
    return Members(0, (0, RTT, RTT))


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


def test_no_echo_measures_nothing():
    made = members()
    made.measure(1, 1, 0, 10 * RTT)
    assert made._rtt == [0, RTT, RTT]


def test_an_echo_from_the_future_measures_nothing():
    made = members()
    made.measure(1, 1, 10 * RTT + 1, 10 * RTT)
    assert made._rtt == [0, RTT, RTT]


def test_an_echo_of_this_very_moment_is_a_round_trip_of_no_time():
    made = members()
    made.measure(1, 1, 10 * RTT, 10 * RTT)
    assert made._rtt == [0, 0, RTT]


@pytest.mark.parametrize(("since", "heard"), [(500, 2), (501, 1)])
def test_who_was_heard_at_that_very_moment_was_heard_since(since, heard):
    made = members()
    made.heard[1] = 500
    assert made.heard_since(since) == heard


@pytest.mark.parametrize("silent_for", [SUSPECT_RTTS * 10 * RTT - 1, SUSPECT_RTTS * 10 * RTT])
def test_who_is_silent_for_just_so_long_counts_no_more_for_the_longest_round_trip(silent_for):
    made = Members(0, (0, RTT, 10 * RTT))
    now = 1 << 40
    made.heard[1] = now
    made.heard[2] = now - silent_for
    made.measure(1, 1, now - RTT, now)
    assert made.rtt_max == (10 * RTT if silent_for < SUSPECT_RTTS * 10 * RTT else RTT)
    assert made.rtt_max >= RTT_FLOOR_US
