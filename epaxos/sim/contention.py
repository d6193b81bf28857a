"""What the rule for contended keys does: every region writes one key, with the rule and without.

Open loop, Poisson arrivals, no faults. With the rule (R12) every command is answered within a few
round trips; without it the oldest unanswered command ages as long as the load lasts, because each
command acquires a dependency on a newer one before it is decided.
"""

import random
from dataclasses import dataclass

import topology
from epaxos.core.types import Micros
from epaxos.percentile import percentile
from epaxos.sim.clients import Clients
from epaxos.sim.open_loop import healthy, run_open_loop, write_hot_key
from epaxos.sim.world import World


@dataclass(frozen=True)
class Contention:
    """What a run with one hot key showed."""

    rtt_max_us: Micros
    """Largest round trip of the topology."""
    sent: int
    answered: int
    """By the end of the load."""
    p50_us: Micros | None
    p99_us: Micros | None
    """Of the answers; of those without one, their age at the end of the load counts. None: nothing
    was sent."""
    oldest_us: Micros
    """Age of the oldest command without an answer when the load ends, 0 if there is none."""


def contend(
    sites: topology.Topology, gate: bool, per_second: float, seconds: float, seed: int = 1
) -> Contention:
    """Every region sends `per_second` writes of one key for so long."""
    active = round(seconds * 1e6)
    options = healthy(sites, active, seed=seed, keys=1, gate=gate)
    world = World(options)
    clients = Clients(world, options.keys, options.patience_us)
    rng = random.Random(f"contention {seed}")
    run_open_loop(world, clients, rng, per_second, write_hot_key)
    ages = [
        (active if call.returned is None else call.returned) - call.called for call in clients.calls
    ]
    waiting = [active - call.called for call in clients.calls if call.returned is None]
    ages.sort()
    return Contention(
        sites.longest_rtt_us,
        len(ages),
        len(ages) - len(waiting),
        percentile(ages, 50),
        percentile(ages, 99),
        max(waiting, default=0),
    )
