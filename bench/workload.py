"""The workloads (`epaxos.workload`), by the name under which load generators draw from them.

Rules of this file: names only.
"""

from epaxos.workload import OWN_KEY, Asker, Command, Conflict, Workload, parse_workload

__all__ = ["OWN_KEY", "Asker", "Command", "Conflict", "Workload", "parse_workload"]
