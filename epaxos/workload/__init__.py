"""Workloads: what clients ask for and when, exactly defined and seeded (docs/workloads.md)."""

from epaxos.workload.base import (
    OWN_KEY,
    Asker,
    Client,
    Command,
    Normal,
    Uniform,
    Workload,
    bounded,
)
from epaxos.workload.kinds import Conflict, Hot, Local, Zipf
from epaxos.workload.text import parse_workload, workload_names

__all__ = [
    "OWN_KEY",
    "Asker",
    "Client",
    "Command",
    "Conflict",
    "Hot",
    "Local",
    "Normal",
    "Uniform",
    "Workload",
    "Zipf",
    "bounded",
    "parse_workload",
    "workload_names",
]
