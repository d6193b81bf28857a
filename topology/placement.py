"""Where a leader is best and worst placed, by the mean latency of all regions; and which replica
is nearest to clients that have none in their region."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from topology.predict import predict_leader
from topology.regions import Region, Topology


@dataclass(frozen=True)
class Home:
    """Where the clients of a region send their commands."""

    region: Region
    """Of the clients."""
    replica: int
    """Index of the region of their replica."""
    there_us: int
    """Mean delay from the clients to the replica; 0 in its own region."""
    back_us: int
    """Mean delay from the replica to the clients."""
    notes: tuple[str, ...] = ()
    """What must be said of these delays: that they are guessed or inferred."""

    @property
    def hop_ms(self) -> float:
        """Round trip between clients and replica."""
        return (self.there_us + self.back_us) / 1000


def own_homes(topology: Topology) -> tuple[Home, ...]:
    """The clients of every region beside the replica there."""
    return tuple(Home(region, i, 0, 0) for i, region in enumerate(topology.regions))


def nearest_home(sites: Topology, region: int, replicas: Collection[int]) -> Home:
    """The clients of one of the `sites` beside the nearest of those that have a replica."""
    near = min(replicas, key=lambda each: (each != region, sites.rtt_ms(region, each), each))
    there_us, back_us = sites.mean_one_way_us(region, near), sites.mean_one_way_us(near, region)
    a, b = sites.regions[region].name, sites.regions[near].name
    notes = [note for note in sites.notes if note.startswith((f"{a}-{b} ", f"{b}-{a} "))]
    return Home(sites.regions[region], near, there_us, back_us, tuple(notes))


def mean_latency_ms(
    topology: Topology,
    leader: int,
    alive: Collection[int] | None = None,
    asked: Sequence[int] | None = None,
) -> float:
    """Mean with that leader over the living regions, or over the replicas that are `asked`, one for
    each region with clients."""
    found = {each.region: each.fast_ms for each in predict_leader(topology, leader, alive)}
    replicas = list(found) if asked is None else asked
    return sum(found[replica] for replica in replicas) / len(replicas)


def best_leader(
    topology: Topology, alive: Collection[int] | None = None, asked: Sequence[int] | None = None
) -> int:
    """The living region whose leader gives the smallest mean."""
    members = range(topology.n) if alive is None else sorted(alive)
    return min(members, key=lambda region: mean_latency_ms(topology, region, alive, asked))


def worst_leader(
    topology: Topology, alive: Collection[int] | None = None, asked: Sequence[int] | None = None
) -> int:
    """The living region whose leader gives the largest mean."""
    members = range(topology.n) if alive is None else sorted(alive)
    return max(members, key=lambda region: mean_latency_ms(topology, region, alive, asked))
