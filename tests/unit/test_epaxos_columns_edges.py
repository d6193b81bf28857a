"""Columns at their bounds: when Progress is due, what measures a round trip, a member alone."""

import random

from epaxos.core.command import Batch, Payload
from epaxos.core.replica import Setup
from epaxos.protocols.epaxos.columns import PROGRESS_INSTANCES, Columns
from epaxos.protocols.epaxos.messages import Progress
from epaxos.protocols.epaxos.replica import EPaxosReplica

A, B = range(2)
ZERO = (0,) * 5
RTT = 40_000


def columns():
    made = Columns(A, 5, (0, RTT, RTT, RTT, RTT), random.Random(1))
    made.start(0)
    made.progress(0)
    return made


def test_so_many_executed_instances_are_told_at_once_and_fewer_a_little_later():
    for count, soon in ((PROGRESS_INSTANCES, True), (PROGRESS_INSTANCES - 1, False)):
        made = columns()
        made.executed_here((count, 0, 0, 0, 0), (count, 0, 0, 0, 0), 1000)
        assert (made.progress_at == 1000) == soon


def test_a_round_trip_of_no_time_measures_nothing():
    made = columns()
    made.on_progress(B, Progress(ZERO, ZERO, ZERO, (1000, 0, 0, 0, 0), 1), 1000)
    assert made.rtt_us[B] == RTT


def test_a_member_alone_moves_its_own_floor():
    made = EPaxosReplica(Setup(A, 1, (0,), random.Random(1)))
    made.wake(0)
    made.propose(Payload.of(Batch(A, 1, b"\1", [b"x"], [b"v"])), 0)
    made.executed((1,), 10)
    assert made.floor == (1,)
    assert made.columns.get(A, 1) is None
