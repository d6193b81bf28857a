"""Which modules are damaged, and who has to notice: the cheapest and sharpest tests first."""

from typing import NamedTuple

_CORE = ("tests/unit/test_core_types.py", "tests/unit/test_core_quorum.py")
_EPAXOS = (
    "tests/unit/test_epaxos_recovery.py",
    "tests/unit/test_epaxos_replica.py",
    "tests/unit/test_epaxos_agreement.py",
    "tests/unit/test_epaxos_columns.py",
    "tests/scenarios/test_epaxos_ballots.py",
    "tests/scenarios/test_epaxos_recovery.py",
    "tests/scenarios/test_epaxos_waiting.py",
    "tests/scenarios/test_epaxos_execution.py",
    "tests/unit/test_node_sampling.py",
)
_REPLICA = (
    "tests/unit/test_epaxos_replica.py",
    "tests/unit/test_epaxos_agreement.py",
    "tests/unit/test_node.py",
)
_MULTIPAXOS = (
    "tests/unit/test_multipaxos_log.py",
    "tests/unit/test_multipaxos_stages.py",
    "tests/unit/test_multipaxos_election.py",
    "tests/unit/test_multipaxos_replica.py",
    "tests/scenarios/test_multipaxos_elections.py",
    "tests/scenarios/test_multipaxos_schedules.py",
    "tests/scenarios/test_multipaxos_node.py",
    "tests/unit/test_node_sampling.py",
)
_EXECUTION = (
    "tests/unit/test_node.py",
    "tests/scenarios/test_epaxos_execution.py",
    "tests/property/test_executor.py",
    "tests/unit/test_node_sampling.py",
)


class Target(NamedTuple):
    """A module, and what is run against each of its mutants until something fails."""

    module: str
    tests: tuple[str, ...]
    """Files, in this order; those that do not exist are left out."""
    protocols: tuple[str, ...]
    """Whose simulated runs come last."""

    @property
    def own(self) -> str:
        """The file of tests that is named after this module."""
        words = "_".join(self.module.removesuffix(".py").split("/")[1:])
        return f"tests/unit/test_{words.removeprefix('protocols_')}.py"

    def files(self) -> tuple[str, ...]:
        """Its own tests and the others, each once."""
        return tuple(dict.fromkeys((self.own, *self.tests)))


TARGETS = (
    Target("epaxos/protocols/epaxos/recovery.py", _EPAXOS, ("epaxos",)),
    Target("epaxos/core/quorum.py", (*_CORE, *_EPAXOS), ("epaxos", "multipaxos")),
    Target("epaxos/core/types.py", (*_CORE, *_EPAXOS, *_MULTIPAXOS), ("epaxos", "multipaxos")),
    Target("epaxos/protocols/epaxos/conflicts.py", _EPAXOS, ("epaxos",)),
    Target("epaxos/protocols/epaxos/state.py", _EPAXOS, ("epaxos",)),
    Target("epaxos/protocols/epaxos/agreement.py", (*_REPLICA, *_EPAXOS), ("epaxos",)),
    Target("epaxos/protocols/epaxos/replica.py", (*_REPLICA, *_EPAXOS), ("epaxos",)),
    Target(
        "epaxos/protocols/epaxos/columns.py",
        ("tests/unit/test_epaxos_agreement.py", *_EPAXOS),
        ("epaxos",),
    ),
    Target("epaxos/execution/graph_executor.py", _EXECUTION, ("epaxos",)),
    Target("epaxos/execution/graph.py", _EXECUTION, ("epaxos",)),
    Target(
        "epaxos/execution/slot_executor.py",
        ("tests/unit/test_node.py", *_MULTIPAXOS),
        ("multipaxos",),
    ),
    Target("epaxos/protocols/leader_based/members.py", _MULTIPAXOS[2:], ("multipaxos",)),
    Target("epaxos/protocols/leader_based/patience.py", _MULTIPAXOS[2:], ("multipaxos",)),
    Target("epaxos/protocols/leader_based/runs.py", _MULTIPAXOS[1:], ("multipaxos",)),
    Target("epaxos/protocols/multipaxos/log.py", _MULTIPAXOS, ("multipaxos",)),
    Target("epaxos/protocols/multipaxos/stages.py", _MULTIPAXOS[1:], ("multipaxos",)),
    Target("epaxos/protocols/multipaxos/election.py", _MULTIPAXOS[2:], ("multipaxos",)),
    Target("epaxos/protocols/multipaxos/replica.py", _MULTIPAXOS[3:], ("multipaxos",)),
    Target(
        "epaxos/runtime/wal.py",
        ("tests/runtime/test_wal.py", "tests/runtime/test_driver.py"),
        (),
    ),
)


def target_of(name: str) -> Target:
    """The target whose path ends with `name`. Raises KeyError."""
    found = [target for target in TARGETS if f"/{target.module}".endswith(f"/{name}")]
    if len(found) != 1:
        raise KeyError(f"{name!r} names {len(found)} of the modules")
    return found[0]
