"""The EPaxos* replica at its bounds: what may be told before its record is on disk."""

import random

from epaxos.core.command import Batch, Payload
from epaxos.core.replica import Setup
from epaxos.protocols.epaxos.messages import Commit
from epaxos.protocols.epaxos.replica import EPaxosReplica

ZERO = (0,) * 5


def test_a_commit_is_advertised_only_after_the_take_that_holds_its_record():
    made = EPaxosReplica(Setup(1, 5, (40_000, 0, 40_000, 40_000, 40_000), random.Random(1)))
    made.wake(0)
    made.out.take()
    payload = Payload.of(Batch(0, 1, b"\1", [b"x"], [b"v"]))
    made.receive(0, Commit(0, 1, payload, ZERO), 10)
    made.executed(ZERO, 10)
    assert made.columns.progress(10).committed == ZERO
    made.out.take()
    made.executed(ZERO, 20)
    assert made.columns.progress(20).committed == (1, 0, 0, 0, 0)
