"""Builders that unit tests share: payloads, one EPaxos* replica, what it sent."""

import random

from epaxos.core.command import Batch, Payload
from epaxos.core.replica import Decided, Path, Setup
from epaxos.core.types import InstanceId
from epaxos.protocols.epaxos.messages import Progress
from epaxos.protocols.epaxos.replica import EPaxosReplica

RTT = 40_000
RESEND = 92_000
"""After so long a question is asked again."""


def payload(number=1, *keys, origin=0, size=1):
    """Puts of `size` bytes to `x`, or to these keys."""
    keys = keys or (b"x",)
    values = [b"v" * size] * len(keys)
    return Payload.of(Batch(origin, number, b"\1" * len(keys), list(keys), values))


def write(replica, slot, deps, *keys, nop=False):
    """A decided batch of puts, as an executor is given it."""
    value = None if nop else payload(slot, *keys, origin=replica)
    return Decided(replica, slot, deps, value, Path.LEARNED)


def unstarted(me=0, n=5, rtts=None):
    """A replica that has not been woken; every round trip is 40 ms unless `rtts` says it."""
    rtts = rtts or tuple(0 if other == me else RTT for other in range(n))
    return EPaxosReplica(Setup(me, n, rtts, random.Random(1)))


def replica(me=0, n=5, rtts=None):
    """A replica after its first wake; what that sent is taken away."""
    made = unstarted(me, n, rtts)
    made.wake(0)
    made.out.take()
    return made


def hear(made, now, *members):
    """A heartbeat of these members arrives, that says nothing new but that all was handled which
    left here a round trip ago."""
    nothing = (0,) * made.n
    for member in members:
        echo = (max(0, now - made.columns.rtt_us[member]),) * made.n
        made.receive(member, Progress(nothing, nothing, nothing, echo, now, nothing), now)


def known(made, replica=0, slot=1):
    """What a person is shown of an instance: (phase, what is under way)."""
    shown = made.describe(InstanceId(replica, slot))
    return shown["phase"], shown["attempt"]


def sent(made, *kinds):
    """(target, message) of the messages of these kinds that leave now; without kinds, of all but
    heartbeats."""
    return [
        (target, message)
        for target, message in made.out.take().messages
        if (isinstance(message, kinds) if kinds else not isinstance(message, Progress))
    ]


def run(made, start, stop, kinds, alive=()):
    """[(time, target, message)] of some kinds, waking the replica as its deadline says while some
    members stay alive."""
    found = []
    now = start
    while now <= stop:
        hear(made, now, *alive)
        made.wake(now)
        found += [(now, target, message) for target, message in sent(made, *kinds)]
        now = max(now + 1000, min(made.deadline(), now + 20_000))
    return found
