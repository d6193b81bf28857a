"""What the rule for contended keys does: every region writes one key, with the rule and without.

Open loop, Poisson arrivals, no faults. With the rule (R12) every command is answered within a few
round trips; without it the oldest unanswered command ages as long as the load lasts, because each
command acquires a dependency on a newer one before it is decided.
"""

import random
from dataclasses import dataclass
from functools import partial

import topology
from epaxos.core.command import Operation
from epaxos.core.types import Micros
from epaxos.sim.clients import Clients
from epaxos.sim.options import Faults, RunOptions, delays_of
from epaxos.sim.world import World


@dataclass(frozen=True)
class Contention:
    """What a run with one hot key showed."""

    rtt_max_us: Micros
    """Largest round trip of the topology."""
    sent: int
    answered: int
    """By the end of the load."""
    p50_us: Micros
    p99_us: Micros
    """Of the answers; of those without one, their age at the end of the load counts."""
    oldest_us: Micros
    """Age of the oldest command without an answer when the load ends, 0 if there is none."""


def contend(
    sites: topology.Topology, gate: bool, per_second: float, seconds: float, seed: int = 1
) -> Contention:
    """Every region sends `per_second` writes of one key for so long."""
    active = round(seconds * 1e6)
    options = RunOptions(
        seed=seed,
        replicas=sites.n,
        keys=1,
        delays_us=delays_of(sites),
        jitter_us=500,
        faults=Faults(sync_us=(100, 500)),
        active_us=active,
        patience_us=10 * active,
        gate=gate,
        deep=False,
    )
    world = World(options)
    clients = Clients(world, 1, options.patience_us)
    rng = random.Random(f"contention {seed}")
    for member in range(sites.n):
        world.start(member)
        at, number = 0.0, 0
        while (at := at + rng.expovariate(per_second / 1e6)) < active:
            number += 1
            token = b"%d.%d" % (member, number)
            command = [(Operation.PUT, b"hot", token)]
            world.at(round(at), partial(clients.submit, member, command))
    world.run(active)
    ages = [
        (active if call.returned is None else call.returned) - call.called for call in clients.calls
    ]
    waiting = [active - call.called for call in clients.calls if call.returned is None]
    ages.sort()
    rtt = max(sites.rtt_us(i, j) for i in range(sites.n) for j in range(sites.n))
    return Contention(
        rtt,
        len(ages),
        len(ages) - len(waiting),
        ages[len(ages) // 2],
        ages[min(len(ages) - 1, len(ages) * 99 // 100)],
        max(waiting, default=0),
    )
