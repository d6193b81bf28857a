"""Where a leader is best and worst placed, by the mean latency of all regions."""

from topology.predict import predict_leader
from topology.regions import Topology


def mean_latency_ms(topology: Topology, leader: int) -> float:
    """Mean over the regions of the latency with that leader."""
    found = predict_leader(topology, leader)
    return sum(each.fast_ms for each in found) / len(found)


def best_leader(topology: Topology) -> int:
    """The region whose leader gives the smallest mean."""
    return min(range(topology.n), key=lambda region: mean_latency_ms(topology, region))


def worst_leader(topology: Topology) -> int:
    """The region whose leader gives the largest mean."""
    return max(range(topology.n), key=lambda region: mean_latency_ms(topology, region))
