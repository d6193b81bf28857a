"""The Multi-Paxos replica at its bounds: what is told when, and of which slots."""

import random

from epaxos.core.replica import Setup
from epaxos.protocols.multipaxos.messages import Progress
from epaxos.protocols.multipaxos.replica import (
    PROGRESS_DELAY_US,
    PROGRESS_SLOTS,
    MultiPaxosReplica,
)
from tests.multipaxos_world import payload_of

A, B, C = range(3)


def started(me=A, n=3):
    rtts = tuple(0 if q == me else 400_000 for q in range(n))
    made = MultiPaxosReplica(Setup(me, n, rtts, random.Random(1), None))
    made.wake(1)
    made.out.take()
    return made


def told(made):
    return [m.executed[0] for _, m in made.out.take().messages if isinstance(m, Progress)]


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
    for number in range(1, PROGRESS_SLOTS + 1):
        made.propose(payload_of(A, number), 50)
    made.out.take()
    made.executed((PROGRESS_SLOTS,), 100)
    assert made.out.take().messages == []
    assert "changed" not in made._timers
