"""Regions, delays, placement, and what physics allows. Stands alone: imports nothing of ours."""

from topology.custom import read_toml
from topology.export import to_csv, to_netem, to_toml
from topology.imported import source_files
from topology.placement import Home, best_leader, own_homes, worst_leader
from topology.predict import Prediction, predict_epaxos, predict_leader
from topology.regions import Region, Topology, TopologyError
from topology.sources import DEFAULT, cloud_regions, clouds, find, find_homes, names

__all__ = [
    "DEFAULT",
    "Home",
    "Prediction",
    "Region",
    "Topology",
    "TopologyError",
    "best_leader",
    "cloud_regions",
    "clouds",
    "find",
    "find_homes",
    "names",
    "own_homes",
    "predict_epaxos",
    "predict_leader",
    "read_toml",
    "source_files",
    "to_csv",
    "to_netem",
    "to_toml",
    "worst_leader",
]
