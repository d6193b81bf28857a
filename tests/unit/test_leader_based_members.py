"""What is known of the members: round trips, vectors, who was heard, and how long to wait."""

import pytest

from epaxos.protocols.leader_based.members import (
    RTT_FLOOR_US,
    SUSPECT_RTTS,
    WAIT_CAP_FLOOR_US,
    WAIT_CAP_RTTS,
    Members,
)

RTT = 100_000


def pair():
    """Two members, 100 ms apart as they were told."""
    return Members(0, (0, RTT))


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


@pytest.mark.parametrize(
    ("echo", "rtt_max"), [(0, RTT), (10 * RTT + 1, RTT), (10 * RTT, RTT_FLOOR_US)]
)
def test_no_echo_and_one_from_the_future_measure_nothing_and_one_of_now_no_time(echo, rtt_max):
    members = pair()
    members.measure(1, 1, echo, 10 * RTT)
    assert members.rtt_max == rtt_max


def test_a_copy_measures_nothing():
    members = pair()
    members.measure(1, 7, 10 * RTT - 60_000, 10 * RTT)
    members.echo(10 * RTT)
    members.measure(1, 7, 10 * RTT - 60_000, 20 * RTT)
    assert members.rtt_max == 60_000


def test_a_second_echo_measures_nothing_until_we_have_spoken():
    members = pair()
    members.measure(1, 7, 10 * RTT - 60_000, 10 * RTT)
    members.measure(1, 8, 10 * RTT - 60_000, 20 * RTT)
    assert members.rtt_max == 60_000
    members.echo(20 * RTT)
    members.measure(1, 9, 21 * RTT - 140_000, 21 * RTT)
    assert members.rtt_max == (7 * 60_000 + 140_000) // 8


def test_one_sample_counts_for_at_most_twice_what_was_known():
    members = pair()
    members.measure(1, 7, 1, 1 << 40)
    assert members.rtt_max == 2 * RTT + RTT_FLOOR_US


def test_floor_is_what_everybody_knows_that_everybody_executed():
    members = Members(0, (0, 1, 1))
    members.executed[0] = 9
    members.advance(1, 8, 5, 0)
    members.advance(2, 7, 6, 0)
    assert members.renew_floor() == 5
    assert members.stable[0] == 7
    members.advance(1, 1, 1, 0)
    assert members.renew_floor() == 5


def test_the_slowest_has_executed_least_or_knows_least_of_the_others():
    members = Members(0, (0, 1, 1))
    members.executed[0] = members.stable[0] = 9
    members.advance(1, 8, 5, 0)
    members.advance(2, 7, 6, 0)
    assert members.slowest() == 2
    members.advance(2, 8, 6, 0)
    assert members.slowest() == 1


@pytest.mark.parametrize(("since", "heard"), [(500, 2), (501, 1)])
def test_who_was_heard_at_that_very_moment_was_heard_since(since, heard):
    members = Members(0, (0, RTT, RTT))
    members.heard[1] = 500
    assert members.heard_since(since) == heard


@pytest.mark.parametrize("silent_for", [SUSPECT_RTTS * 10 * RTT - 1, SUSPECT_RTTS * 10 * RTT])
def test_who_is_silent_for_just_so_long_counts_no_more_for_the_longest_round_trip(silent_for):
    members = Members(0, (0, RTT, 10 * RTT))
    now = 1 << 40
    members.heard[1] = now
    members.heard[2] = now - silent_for
    members.measure(1, 1, now - RTT, now)
    assert members.rtt_max == (10 * RTT if silent_for < SUSPECT_RTTS * 10 * RTT else RTT)


@pytest.mark.parametrize("rtt", [40_000, 400_000])
def test_waits_double_up_to_the_larger_of_two_caps(rtt):
    members = Members(0, (0, rtt))
    assert members.wait(0) == rtt * 23 // 10
    assert members.wait(1) == 2 * members.wait(0)
    assert members.wait(16) == members.wait(99) == max(WAIT_CAP_RTTS * rtt, WAIT_CAP_FLOOR_US)
    assert WAIT_CAP_RTTS * 40_000 < WAIT_CAP_FLOOR_US < WAIT_CAP_RTTS * 400_000
