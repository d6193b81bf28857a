"""Builders of the Multi-Paxos unit tests: payloads, a replica in each role, what it sends."""

import random

from epaxos.core.command import Batch, Operation, Payload
from epaxos.core.replica import Setup
from epaxos.core.types import make_ballot
from epaxos.protocols.multipaxos.messages import ProbeOk, Promise
from epaxos.protocols.multipaxos.replica import MultiPaxosReplica

SECOND = 1_000_000
A, B, C, D, E = range(5)
B1A, B1B, B1C = (make_ballot(1, member) for member in (A, B, C))
B2A, B2B, B2C = (make_ballot(2, member) for member in (A, B, C))


def payload_of(origin, number, text=""):
    key = f"{origin}:{number}{text}".encode()
    return Payload.of(Batch(origin, number, bytes([Operation.PUT]), [key], [b"v"]))


def replica(me=A, n=3, leader=None, records=(), rtt=40_000):
    """A replica before its first wake."""
    rtts = tuple(0 if other == me else rtt for other in range(n))
    made = MultiPaxosReplica(Setup(me, n, rtts, random.Random(1), leader))
    for record in records:
        made.restore(record)
    made.out.take()
    return made


def started(me=A, n=3, leader=None, records=(), rtt=40_000):
    """A follower without a leader."""
    made = replica(me, n, leader, records, rtt)
    made.wake(1)
    made.out.take()
    return made


def probing(n=3, rtt=40_000):
    """A, the designated leader, which has asked at 10 whether it may campaign."""
    made = replica(A, n, A, rtt=rtt)
    made.wake(10)
    return made


def campaigning(n=3, rtt=40_000):
    """A with the consent of just a majority: at 20 it asked for promises."""
    made = probing(n, rtt)
    for member in range(1, n // 2 + 1):
        made.receive(member, ProbeOk(10, 0), 20)
    made.out.take()
    return made


def leading(n=3, rtt=40_000):
    """A, elected at 30 with the promises of just a majority."""
    made = campaigning(n, rtt)
    for member in range(1, n // 2 + 1):
        made.receive(member, Promise(made.promised, 1, 0, 0, []), 30)
    made.out.take()
    return made


def sent(made, *kinds):
    """(target, message) of the messages of these kinds that leave now."""
    return [each for each in made.out.take().messages if isinstance(each[1], kinds)]


def later(made, until, *kinds):
    """(time, target, message) of what a replica sends by itself, waking at each deadline."""
    found = []
    while (now := made.deadline()) is not None and now <= until:
        made.wake(now)
        found += [(now, *each) for each in sent(made, *kinds)]
    return found


def counts(made):
    return {name: count for name, count in made.statistics().items() if count}
