"""Where a leader is best and worst placed, by the mean latency of all regions."""

from collections.abc import Collection

from topology.predict import predict_leader
from topology.regions import Topology


def mean_latency_ms(topology: Topology, leader: int, alive: Collection[int] | None = None) -> float:
    """Mean over the living regions of the latency with that leader."""
    found = predict_leader(topology, leader, alive)
    return sum(each.fast_ms for each in found) / len(found)


def best_leader(topology: Topology, alive: Collection[int] | None = None) -> int:
    """The living region whose leader gives the smallest mean."""
    members = range(topology.n) if alive is None else sorted(alive)
    return min(members, key=lambda region: mean_latency_ms(topology, region, alive))


def worst_leader(topology: Topology, alive: Collection[int] | None = None) -> int:
    """The living region whose leader gives the largest mean."""
    members = range(topology.n) if alive is None else sorted(alive)
    return max(members, key=lambda region: mean_latency_ms(topology, region, alive))
