"""The columns of one replica: the sweep, suspicion, vectors, forgetting, round trips.

Times in µs, RTT_max = 40 ms: ask after 92 ms, T1 = 240 ms, suspect after 400 ms, cap 1.5 s.
"""

import random
from itertools import pairwise

import pytest

from epaxos.protocols.epaxos.columns import PROGRESS_INSTANCES, Columns, Sweep
from epaxos.protocols.epaxos.instance import Accepting, Phase
from epaxos.protocols.epaxos.messages import Progress
from tests.unit.builders import RTT, payload, replica

A, B = range(2)
ASK = 92_000
T1 = 240_000
TURN = 46_000
SUSPECT = 400_000
ZERO = (0,) * 5


class Middle(random.Random):
    """Draws the middle: 1.15 of U(1, 1.3), 1.0 of U(0.5, 1.5)."""

    def uniform(self, low, high):
        return (low + high) / 2


class Lossy(Columns):
    """Of a replica whose questions are all lost, and known to be."""

    def is_lost(self, member, asked_at, now):
        return True


def columns(me=2, n=5, rtt=RTT, kind=Lossy):
    made = kind(me, n, tuple(0 if other == me else rtt for other in range(n)), Middle())
    made.start(0)
    return made


def commit(made, replica, first, last=None):
    for slot in range(first, (last or first) + 1):
        made.obtain(replica, slot).phase = Phase.COMMITTED
    made.advance(replica)


def hear_all(made, now, *silent):
    for member in range(made.n):
        if member != made.me and member not in silent:
            made.heard(member, now)


def sweeps(made, until, step=1000, start=0):
    """[(time, sweep)] of what was wanted, looking every `step`."""
    return [(now, each) for now in range(start, until + 1, step) for each in made.sweep(now)]


def asked(made, replica=0, slot=1):
    """A hole that was just asked about; returns when."""
    made.obtain(replica, slot)
    made.sweep(0)
    assert [each.recover for each in made.sweep(ASK)] == [False]
    return ASK


# The sweep -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("me", "rank"), [(1, 0), (2, 1), (3, 2), (4, 3)])
def test_a_hole_is_asked_about_then_recovered_in_order_of_rank(me, rank):
    made = columns(me)
    made.obtain(0, 1)
    assert sweeps(made, 500_000) == [
        (ASK, Sweep(0, [1], False)),
        (ASK + T1 + rank * TURN, Sweep(0, [1], True)),
    ]


def test_own_gap_is_recovered_without_stagger():
    made = columns(2)
    made.obtain(2, 1)
    assert [at for at, _ in sweeps(made, 500_000)] == [ASK, ASK + T1]


def test_without_holes_nothing_is_wanted():
    made = columns()
    commit(made, 0, 1, 3)
    assert sweeps(made, 600_000) == []


def test_a_slot_that_was_only_named_is_a_hole():
    made = columns()
    made.hear_of((0, 3, 0, 0, 0))
    assert made.known == [0, 3, 0, 0, 0]
    assert sweeps(made, ASK)[-1] == (ASK, Sweep(1, [1, 2, 3], False))


def test_only_what_was_known_when_asked_is_recovered():
    made = columns(1)
    made.obtain(0, 2)
    made.sweep(0)
    assert made.sweep(ASK) == [Sweep(0, [1, 2], False)]
    made.obtain(0, 3)
    assert made.sweep(ASK + T1) == [Sweep(0, [1, 2], True)]


def test_what_is_being_worked_on_here_is_left_out():
    made = columns(1)
    for slot in (1, 2, 3):
        made.obtain(0, slot)
    busy = made.get(0, 2)
    busy.attempt = Accepting(busy, 17, 1)
    made.get(0, 3).phase = Phase.COMMITTED
    assert sweeps(made, ASK)[-1] == (ASK, Sweep(0, [1], False))


def test_recoveries_are_repeated_with_growing_waits_up_to_the_cap():
    made = columns(1)
    made.obtain(0, 1)
    hear = [at for at, each in sweeps(made, 8_000_000) if each.recover]
    waits = [later - earlier for earlier, later in pairwise(hear)]
    assert waits[:5] == [T1, 2 * T1, 4 * T1, 1_500_000, 1_500_000]


def test_far_clusters_have_a_cap_of_their_own():
    made = columns(rtt=200_000)
    assert made.backoff_us(0) == 1_200_000
    assert made.backoff_us(40) == 7_200_000
    assert made.capped(9_000_000) == 7_200_000


def test_who_is_told_that_work_is_under_way_asks_again_with_double_patience():
    made = columns(1)
    at = asked(made)
    made.in_progress(0, [1], at + 40_000)
    first = at + 40_000 + 2 * T1
    assert sweeps(made, first + 2 * T1, start=at) == [
        (first, Sweep(0, [1], False)),
        (first + 2 * T1, Sweep(0, [1], True)),
    ]


def test_patience_is_capped():
    made = columns(1)
    at = asked(made)
    for _ in range(10):
        made.in_progress(0, [1], at)
        at = sweeps(made, at + 1_600_000, start=at)[0][0]
    made.in_progress(0, [1], at)
    assert sweeps(made, at + 1_600_000, start=at)[0] == (at + 1_500_000, Sweep(0, [1], False))


def test_the_next_hole_of_a_column_starts_from_the_beginning():
    made = columns(1)
    made.obtain(0, 2)
    asked(made)
    commit(made, 0, 1)
    made.obtain(0, 3)
    found = sweeps(made, 1_000_000, start=ASK + 1000)
    assert found[0] == (2 * ASK + 1000, Sweep(0, [2, 3], False))


def test_catching_up_goes_on_as_fast_as_it_is_answered():
    made = columns(1)
    made.hear_of((2000, 0, 0, 0, 0))
    made.sweep(0)
    [first] = made.sweep(ASK)
    assert first == Sweep(0, list(range(1, 513)), False)
    commit(made, 0, 1, 512)
    assert made.sweep(ASK + 1) == [Sweep(0, list(range(513, 1025)), False)]
    commit(made, 0, 513, 600)
    [third] = made.sweep(ASK + 2)
    assert (third.slots[0], third.recover) == (601, False)


def test_a_small_answer_does_not_hurry():
    made = columns(1)
    made.hear_of((2000, 0, 0, 0, 0))
    made.sweep(0)
    made.sweep(ASK)
    commit(made, 0, 1, 10)
    assert made.sweep(ASK + 1) == []
    assert made.sweep(ASK + 1 + ASK)[0].slots[0] == 11


# Suspicion -------------------------------------------------------------------------------------


def test_who_is_silent_for_ten_round_trips_is_suspected():
    made = columns()
    hear_all(made, 1)
    assert not made.look_round(SUSPECT + 1)
    assert made.reachable() == 5
    hear_all(made, 2, 0)
    assert made.look_round(SUSPECT + 2)
    assert made.suspects(0)
    assert made.reachable() == 4
    assert not made.look_round(SUSPECT + 2)


@pytest.mark.parametrize(("me", "rank"), [(1, 0), (2, 1), (3, 2), (4, 3)])
def test_a_suspected_leaders_column_is_taken_over_without_asking(me, rank):
    made = columns(me)
    made.obtain(0, 1)
    made.sweep(0)
    hear_all(made, 50_000, 0)
    now = 400_001
    made.look_round(now)
    assert sweeps(made, now + 300_000, start=now)[0] == (
        now + rank * TURN,
        Sweep(0, [1], True),
    )


def test_suspected_members_do_not_take_a_turn():
    made = columns(3)
    made.obtain(0, 1)
    made.sweep(0)
    hear_all(made, 50_000, 0, 1)
    made.look_round(400_001)
    assert sweeps(made, 700_000, start=400_001)[0][0] == 400_001 + TURN


def test_a_hole_found_after_the_suspicion_is_taken_over_at_once_too():
    made = columns(1)
    hear_all(made, 50_000, 0)
    made.look_round(400_001)
    made.hear_of((1, 0, 0, 0, 0))
    assert made.sweep(400_002) == [Sweep(0, [1], True)]


def test_a_suspected_leader_is_not_waited_for_because_somebody_is_at_work():
    made = columns(1)
    made.obtain(0, 1)
    made.sweep(0)
    hear_all(made, 50_000, 0)
    made.look_round(400_001)
    made.in_progress(0, [1], 400_001)
    assert made.sweep(400_001) == [Sweep(0, [1], True)]


def test_a_member_heard_again_is_asked_at_once():
    """A cut-off replica has tried in vain for long; when somebody comes back it starts over."""
    made = columns(1)
    made.obtain(0, 1)
    made.look_round(SUSPECT + 1)
    assert made.reachable() == 1
    tried = [at for at, _ in sweeps(made, 10_000_000, start=SUSPECT + 1)]
    now = tried[-1] + 10_000
    assert made.heard(0, now)
    assert not made.heard(0, now)
    assert made.sweep(now) == [Sweep(0, [1], False)]
    assert [at for at, _ in sweeps(made, now + T1, start=now)] == [now + T1]


def test_another_member_heard_again_makes_the_turns_start_over():
    made = columns(2)
    made.obtain(0, 1)
    made.look_round(SUSPECT + 1)
    tried = [at for at, _ in sweeps(made, 10_000_000, start=SUSPECT + 1)]
    now = tried[-1] + 10_000
    made.heard(3, now)
    assert made.suspects(0)
    again = [at for at, each in sweeps(made, now + 3 * T1, start=now) if each.recover]
    assert again[:2] == [now, now + T1]


def test_who_promised_a_hole_to_another_leaves_it_time():
    made = columns(2)
    at = asked(made)
    mine = at + T1 + TURN
    made.taken_over(0, 1, mine - 10_000)
    assert sweeps(made, mine + 6 * RTT, start=at)[0] == (
        mine - 10_000 + 4 * RTT + TURN,
        Sweep(0, [1], True),
    )


def test_what_another_recovers_is_left_alone_also_when_its_leader_becomes_suspected():
    made = columns(1)
    made.obtain(0, 1)
    made.sweep(0)
    made.taken_over(0, 1, 390_000)
    hear_all(made, 50_000, 0)
    made.look_round(400_001)
    assert sweeps(made, 700_000, start=400_001)[0] == (550_001, Sweep(0, [1], True))


def test_what_another_recovers_may_still_be_asked_about():
    made = columns(1)
    made.obtain(0, 1)
    made.sweep(0)
    made.taken_over(0, 1, ASK - 1)
    assert made.sweep(ASK) == [Sweep(0, [1], False)]


def test_a_promise_never_hastens_and_concerns_the_hole_only():
    made = columns(1)
    at = asked(made)
    made.taken_over(0, 1, at)
    made.taken_over(0, 2, at + T1 - 1)
    made.taken_over(1, 1, at + T1 - 1)
    assert made.sweep(at + T1 - 1) == []
    assert made.sweep(at + T1) == [Sweep(0, [1], True)]


# Progress, stable, floor -----------------------------------------------------------------------


def progress(executed, committed=None, stable=None, echo=None, stamp=1, held=None):
    n = len(executed)
    none = (0,) * n
    return Progress(
        executed, committed or executed, stable or none, echo or none, stamp, held or none
    )


def test_stable_is_what_everybody_has_executed_and_floor_what_everybody_knows_of_it():
    made = columns(0, 3)
    commit(made, 1, 1, 9)
    made.executed_here((0, 9, 0), (0, 9, 0), 1)
    made.on_progress(1, progress((0, 9, 0)), 2)
    assert made.stable == (0, 0, 0)
    made.on_progress(2, progress((0, 5, 0), stable=(0, 4, 0)), 3)
    assert made.stable == (0, 5, 0)
    assert made.floor == (0, 0, 0)
    made.on_progress(1, progress((0, 9, 0), stable=(0, 3, 0)), 4)
    assert made.floor == (0, 3, 0)
    assert sorted(made.instances[1]) == [4, 5, 6, 7, 8, 9]
    assert made.get(1, 3) is None


def test_no_vector_goes_back():
    made = columns(0, 3)
    commit(made, 1, 1, 9)
    made.executed_here((0, 9, 0), (0, 9, 0), 1)
    for member in (1, 2):
        made.on_progress(member, progress((0, 7, 0), stable=(0, 6, 0)), 2)
    before = made.stable, made.floor
    for member in (1, 2):
        made.on_progress(member, progress((0, 2, 0), stable=(0, 1, 0)), 3)
    made.executed_here((0, 0, 0), (0, 0, 0), 4)
    assert (made.stable, made.floor) == before == ((0, 7, 0), (0, 6, 0))


def test_forgetting_gives_the_memory_back():
    made = columns(0, 3)
    for slot in (1, 2):
        made.charge(made.obtain(1, slot), 1000)
    commit(made, 1, 1, 2)
    held = made.live_bytes
    made.executed_here((0, 2, 0), (0, 2, 0), 1)
    for member in (1, 2):
        made.on_progress(member, progress((0, 2, 0), stable=(0, 1, 0)), 2)
    assert made.live_bytes == held // 2
    for member in (1, 2):
        made.on_progress(member, progress((0, 2, 0), stable=(0, 2, 0)), 3)
    assert made.live_bytes == 0
    assert made.committed == made.known == [0, 2, 0]


def test_what_is_forgotten_is_not_begun_anew():
    made = columns(0, 3)
    commit(made, 1, 1, 2)
    made.executed_here((0, 2, 0), (0, 2, 0), 1)
    for member in (1, 2):
        made.on_progress(member, progress((0, 2, 0), stable=(0, 1, 0)), 2)
    with pytest.raises(AssertionError, match="stays forgotten"):
        made.obtain(1, 1)
    assert made.obtain(1, 2).phase == Phase.COMMITTED


def test_committed_vectors_of_others_are_heard_of_and_say_whom_to_ask():
    made = Columns(0, 4, (0, 90_000, 30_000, 60_000), Middle())
    made.start(0)
    assert made._informed(1, 5) is None
    for member in (1, 3):
        made.on_progress(member, progress((0, 0, 0, 0), committed=(0, 7, 0, 0)), 1)
    made.on_progress(2, progress((0, 0, 0, 0), committed=(0, 4, 0, 0)), 1)
    assert made.known == [0, 7, 0, 0]
    assert made._informed(1, 4) == 2
    assert made._informed(1, 5) == 3
    assert made._informed(1, 8) is None


def test_a_suspected_member_is_not_asked():
    made = columns(0, 3)
    made.on_progress(1, progress((0, 3, 0)), 1)
    made.heard(2, 10)
    made.look_round(SUSPECT + 5)
    assert made.suspects(1)
    assert made._informed(1, 1) is None


def test_the_slowest_member_is_who_is_farthest_behind():
    made = columns(0, 3)
    assert made.slowest_member() is None
    made.executed_here((5, 5, 5), (5, 5, 5), 1)
    made.on_progress(1, progress((5, 4, 5)), 2)
    made.on_progress(2, progress((1, 5, 5)), 2)
    assert made.slowest_member() == 2


def test_progress_is_due_after_enough_instances_or_soon_after_the_first():
    made = columns(0, 3)
    made.progress(1000)
    assert made.progress_at == 1000 + 50_000
    made = columns(0, 3, rtt=200_000)
    made.progress(1000)
    assert made.progress_at == 251_000
    made.executed_here((1, 0, 0), (1, 0, 0), 2000)
    assert made.progress_at == 52_000
    made.executed_here((33, 0, 0), (33, 0, 0), 3000)
    assert made.progress_at == 3000
    made.progress(3000)
    made.executed_here((33, 0, 0), (33, 0, 0), 4000)
    assert made.progress_at == 253_000


# Round trips -----------------------------------------------------------------------------------


def test_round_trips_are_measured_without_the_time_the_stamp_was_kept():
    near, far = columns(0, 3), columns(1, 3)
    told = near.progress(1_000_000)
    far.on_progress(0, told, 5_050_000)
    back = far.progress(5_950_000)
    assert (back.echo[0], back.held[0]) == (1_000_000, 900_000)
    near.on_progress(1, back, 2_000_000)
    assert near.rtt_us[1] == RTT + (100_000 - RTT) // 8


def test_measured_round_trips_set_the_pace():
    made = columns(0, 3)
    for now in range(1, 100):
        made.progress(now * 1000)
        heard = progress((0, 0, 0), echo=(now * 1000, 0, 0), stamp=now)
        made.on_progress(1, heard, now * 1000 + 300_000)
    assert 290_000 < made.rtt_max <= 300_000
    assert made.resend_us == int(2.3 * made.rtt_max)


def test_an_echo_from_the_future_measures_nothing():
    made = columns(0, 3)
    made.on_progress(1, progress((0, 0, 0), echo=(9_000_000, 0, 0)), 1000)
    assert made.rtt_us[1] == RTT


def test_a_suspected_member_does_not_slow_the_others():
    made = Columns(0, 3, (0, 50_000, 300_000), Middle())
    made.start(0)
    assert made.rtt_max == 300_000
    made.heard(1, 3_000_000)
    made.look_round(3_000_001)
    assert made.rtt_max == 50_000
    made.heard(2, 3_000_002)
    assert made.rtt_max == 300_000


def test_rtt_max_has_a_floor_of_40_ms():
    assert columns(0, 3, rtt=200).rtt_max == 40_000


def test_a_sample_of_minutes_does_not_become_the_round_trip():
    """A process stood still, or its clock jumped, between a stamp and its echo."""
    columns = Columns(0, 3, (0, 60_000, 80_000), random.Random(1))
    columns.start(0)
    columns.on_progress(1, progress((0,) * 3, echo=(1_000, 0, 0), stamp=5), 60_001_000)
    assert columns.rtt_us[1] < 100_000
    for number in range(60):
        now = 60_001_000 + number * 300_000
        stamp = now - 300_000
        columns.progress(stamp)
        heard = progress((0,) * 3, echo=(stamp, 0, 0), stamp=6 + number)
        columns.on_progress(1, heard, now)
    assert columns.rtt_us[1] > 250_000, "a round trip that has really grown is learnt"


def test_a_heartbeat_that_arrives_again_measures_nothing():
    made = columns(0, 3)
    heard = progress((0, 0, 0), echo=(1_000, 0, 0), stamp=7)
    made.on_progress(1, heard, 41_000)
    before = made.rtt_us[1]
    for later in range(1, 50):
        made.on_progress(1, heard, 41_000 + later * 100_000)
    assert made.rtt_us[1] == before


def test_a_stamp_from_before_a_jump_of_the_clock_counts_once():
    """It is echoed in every Progress of the other until ours, after the jump, arrives there."""
    made = columns(0, 3)
    made.progress(1_000)
    for number in range(100):
        held = number * 50_000
        heard = progress((0, 0, 0), echo=(1_000, 0, 0), stamp=7 + number, held=(held, 0, 0))
        made.on_progress(1, heard, 60_001_000 + held)
    assert made.rtt_us[1] < 2 * RTT


def test_so_many_executed_instances_are_told_at_once_and_fewer_a_little_later():
    for count, soon in ((PROGRESS_INSTANCES, True), (PROGRESS_INSTANCES - 1, False)):
        made = columns(A)
        made.progress(0)
        made.executed_here((count, 0, 0, 0, 0), (count, 0, 0, 0, 0), 1000)
        assert (made.progress_at == 1000) == soon


def test_a_round_trip_of_no_time_measures_nothing():
    made = columns(A)
    made.on_progress(B, progress(ZERO, echo=(1000, 0, 0, 0, 0)), 1000)
    assert made.rtt_us[B] == RTT


def test_a_member_alone_moves_its_own_floor():
    made = replica(A, 1)
    made.propose(payload(), 0)
    made.executed((1,), 10)
    assert made.floor == (1,)
    assert made.columns.get(A, 1) is None


# Beyond the horizon ----------------------------------------------------------------------------


def beyond(monkeypatch, *slots, me=1):
    """One slot per question; A.1 is asked about, and a recovery here waits for these of A."""
    monkeypatch.setattr("epaxos.protocols.epaxos.columns.SLOTS_PER_QUESTION", 1)
    made = columns(me)
    at = asked(made)
    for slot in slots:
        made.hear_of_one(0, slot)
        made.waits_for(0, slot, at)
    return made, at


def test_what_a_recovery_waits_for_is_asked_about_and_then_recovered(monkeypatch):
    made, at = beyond(monkeypatch, 7)
    found = [step for _, step in sweeps(made, at + 2 * T1, start=at) if step.slots == [7]]
    assert found[:2] == [Sweep(0, [7], False), Sweep(0, [7], True)]


def test_what_a_recovery_waited_for_is_let_go_when_all_of_the_column_is_decided(monkeypatch):
    made, at = beyond(monkeypatch, 3)
    assert made.holes() == 2
    for slot in (1, 2, 3):
        made.obtain(0, slot).phase = Phase.COMMITTED
    made.advance(0)
    made.sweep(at)
    assert made.holes() == 0


def test_what_a_suspected_leader_left_is_recovered_without_asking(monkeypatch):
    made, at = beyond(monkeypatch, 7)
    hear_all(made, at, 0)
    made.look_round(at + 400_001)
    found = sweeps(made, at + 2 * T1 + 400_001, start=at + 400_001)
    assert (at + 400_001, Sweep(0, [7], True)) in found
    assert all(step.recover for _, step in found)


def test_slots_beyond_the_horizon_take_turns(monkeypatch):
    made, at = beyond(monkeypatch, 7, 9, 8)
    found = [step.slots for _, step in sweeps(made, at + 20 * T1, start=at) if step.recover]
    assert found.index([7]) < found.index([8]) < found.index([9])


def test_what_is_under_way_beyond_the_horizon_is_not_recovered(monkeypatch):
    made, at = beyond(monkeypatch, 7)
    assert Sweep(0, [7], False) in made.sweep(at)
    made.in_progress(0, [7], at + 1)
    found = [step for _, step in sweeps(made, at + 2 * T1, start=at + 1)]
    assert Sweep(0, [7], True) not in found


def test_what_is_decided_beyond_the_horizon_is_let_go(monkeypatch):
    made, at = beyond(monkeypatch, 7)
    commit(made, 0, 7)
    found = [step for _, step in sweeps(made, at + 4 * T1, start=at)]
    assert all(step.slots == [1] for step in found)


# Lost or late ------------------------------------------------------------------------------------


def patient(me=2, n=5):
    return columns(me, n, kind=Columns)


def handled(made, now, stamp, *members, held=RTT):
    """These members' heartbeats come: the last they have handled is our `stamp`, `held` ago."""
    echo, since = (stamp,) * made.n, (held,) * made.n
    for member in members:
        heard = progress(ZERO[: made.n], echo=echo, stamp=now, held=since)
        made.heard(member, now)
        made.on_progress(member, heard, now)


def test_a_question_is_lost_when_a_later_heartbeat_is_answered():
    made = patient()
    handled(made, 200_000, 100_000, 1)
    assert made.is_lost(1, 99_999, 200_000)
    assert not made.is_lost(1, 100_000, 200_000), "it may have left after that heartbeat"
    assert not made.is_lost(3, 99_999, 200_000), "another member's answer says nothing"


def test_how_long_a_heartbeat_was_held_proves_nothing():
    made = patient()
    handled(made, 900_000, 100_000, 1, held=750_000)
    assert not made.is_lost(1, 100_001, 900_000)


def test_a_question_to_a_suspected_member_counts_as_lost():
    made = patient()
    hear_all(made, SUSPECT, 1)
    made.look_round(SUSPECT + 1)
    assert made.is_lost(1, SUSPECT, SUSPECT + 1)
    assert not made.is_lost(3, SUSPECT, SUSPECT + 1)


def test_who_speaks_but_seems_not_to_hear_is_asked_again_after_all():
    made = patient()
    made.start(50_000)
    assert not made.is_lost(1, 50_000, 50_000 + 1_499_999)
    assert made.is_lost(1, 50_000, 50_000 + 1_500_000)
    far = columns(2, 5, rtt=300_000, kind=Columns)
    assert not far.is_lost(1, 0, 2_999_999)
    assert far.is_lost(1, 0, 3_000_000)


def test_what_an_earlier_life_stamped_is_no_answer():
    made = patient()
    made.start(5_000_000)
    handled(made, 5_100_000, 4_900_000, 1, held=0)
    assert not made.is_lost(1, 5_000_000, 5_100_000)


def test_a_stamp_from_the_future_is_no_answer():
    made = patient()
    handled(made, 200_000, 9_000_000, 1)
    assert not made.is_lost(1, 150_000, 200_000)


def test_a_hole_is_asked_about_when_its_leader_has_answered_what_left_later():
    made = patient(1)
    made.obtain(0, 1)
    assert sweeps(made, 3 * ASK) == []
    handled(made, 3 * ASK, 10_000, 0)
    assert made.sweep(3 * ASK) == [Sweep(0, [1], False)]


def test_a_hole_is_taken_over_when_the_question_about_it_is_lost():
    made = patient(1)
    made.obtain(0, 1)
    made.sweep(0)
    handled(made, ASK, 10_000, 0)
    made.sweep(ASK)
    waited = ASK + 2 * T1
    hear_all(made, waited)
    assert sweeps(made, waited, start=ASK + 1000) == []
    handled(made, waited, ASK, 0)
    assert made.sweep(waited) == [], "that heartbeat may have left before the question"
    handled(made, waited, ASK + 1, 0)
    assert made.sweep(waited) == [Sweep(0, [1], True)]


def test_who_is_asked_is_who_must_have_answered():
    """The nearest member that has the slot, not its leader."""
    made = patient(1)
    made.on_progress(3, progress(ZERO, committed=(1, 0, 0, 0, 0)), 1)
    made.sweep(1)
    handled(made, ASK + 1, 10_000, 0)
    assert made.sweep(ASK + 1) == [Sweep(0, [1], False, 3)]
    later = ASK + 2 * T1
    handled(made, later, ASK + 2, 0)
    assert made.sweep(later) == []
    handled(made, later, ASK + 2, 3)
    assert made.sweep(later) == [Sweep(0, [1], True)]


def test_slots_beyond_the_horizon_are_taken_over_when_the_question_is_lost():
    made = patient(1)
    made.hear_of_one(0, 600)
    made.waits_for(0, 600, 0)
    assert made.sweep(0) == [Sweep(0, [600], False)]
    later = 2 * T1
    hear_all(made, later)
    assert all(not each.recover for each in made.sweep(later))
    handled(made, later, 1, 0)
    assert Sweep(0, [600], True) in made.sweep(later)
