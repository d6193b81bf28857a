"""Regions, delays, placement, and what physics allows. Stands alone: imports nothing of ours."""

from topology.placement import best_leader, worst_leader
from topology.predict import Prediction, predict_epaxos, predict_leader
from topology.regions import Region, Topology, TopologyError
from topology.sources import DEFAULT, find, names

__all__ = [
    "DEFAULT",
    "Prediction",
    "Region",
    "Topology",
    "TopologyError",
    "best_leader",
    "find",
    "names",
    "predict_epaxos",
    "predict_leader",
    "worst_leader",
]
