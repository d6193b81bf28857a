"""What always holds of Unanimous, as code: every function raises AssertionError."""

from operator import ge
from typing import Any

from unanimous import Decide, Progress

U1 = "U1: deps never name an own slot at or above the instance"
U2 = "U2: what is decided stays, with its deps, until it is executed everywhere"
U3 = "U3: after a restart a replica still keeps what it said"
U4 = "U4: who decides an instance decides the same deps"

Snapshot = dict[tuple[int, int], tuple[Any, ...]]
"""Of each decided instance its deps."""


def snapshot(replica: Any) -> Snapshot:
    """What the next step must respect."""
    return {
        (column, slot): known.deps
        for column, instances in enumerate(replica.instances)
        for slot, known in instances.items()
        if known.decided
    }


def check(replica: Any) -> None:
    """One replica as it is."""
    for column, instances in enumerate(replica.instances):
        for slot, known in instances.items():
            assert known.deps[column] < slot, f"{U1}: slot {slot} of column {column}"


def check_step(before: Snapshot, replica: Any) -> Snapshot:
    """One replica after a step; returns what the next one must respect."""
    check(replica)
    after = snapshot(replica)
    for (column, slot), deps in before.items():
        if slot > replica.floor[column]:
            assert after.get((column, slot)) == deps, f"{U2}: slot {slot} of column {column}"
    return after


def check_remembered(replica: Any, message: Any) -> None:
    """A replica restored from its disk, and something that it once said."""
    if isinstance(message, Progress):
        return
    known = replica.instances[message.replica].get(message.slot)
    assert known is not None, f"{U3}: {message}"
    if isinstance(message, Decide):
        assert known.decided, f"{U3}: {message}"
        assert known.deps == message.deps, f"{U3}: {message}"
    else:
        assert all(map(ge, known.deps, message.deps)), f"{U3}: {message}"


def check_cluster(replicas: list[Any]) -> None:
    """All replicas that run."""
    found: Snapshot = {}
    for replica in replicas:
        for key, deps in snapshot(replica).items():
            assert found.setdefault(key, deps) == deps, f"{U4}: slot {key[1]} of column {key[0]}"
