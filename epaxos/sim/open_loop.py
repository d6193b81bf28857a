"""Open loop without faults: every region of a healthy cluster sends at Poisson moments."""

import random
from collections.abc import Callable
from typing import Any

from epaxos.core.command import Operation
from epaxos.core.types import Micros, ReplicaId
from epaxos.sim.clients import Clients, Commands
from epaxos.sim.options import Faults, RunOptions, delays_of
from epaxos.sim.world import World
from topology import Topology


def healthy(sites: Topology, active_us: Micros, **changes: Any) -> RunOptions:
    """A run of so long in which nothing fails and no client gives up."""
    return RunOptions(
        replicas=sites.n,
        delays_us=delays_of(sites),
        jitter_us=500,
        faults=Faults(sync_us=(100, 500)),
        active_us=active_us,
        patience_us=10 * active_us,
        deep=False,
        **changes,
    )


def run_open_loop(
    world: World,
    clients: Clients,
    rng: random.Random,
    per_second: float,
    request: Callable[[ReplicaId, int], Commands],
) -> None:
    """Start all members and let each get so many requests per second until the load ends; the
    requests of a member are numbered from 1."""
    active_us = world.options.active_us
    for member in range(world.options.replicas):
        world.start(member)
        at, number = 0.0, 0
        while (at := at + rng.expovariate(per_second / 1e6)) < active_us:
            number += 1
            world.at(round(at), clients.submit, member, request(member, number))
    world.run(active_us)


def write_hot_key(member: ReplicaId, number: int) -> Commands:
    """A write of the one key, with a value of its own."""
    return [(Operation.PUT, b"hot", b"%d.%d" % (member, number))]
