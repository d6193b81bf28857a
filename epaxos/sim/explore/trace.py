"""A path through a small world: walked again on real nodes, shortened, told.

Rules of this file: a path is valid only if every message it delivers was sent before on it.
"""

from collections.abc import Iterator, Sequence

from epaxos.codec import Codec, encode
from epaxos.core.command import interferes
from epaxos.core.types import InstanceId, ReplicaId
from epaxos.sim.check.checkers import ONCE, ORDER, DecisionChecker, Violation
from epaxos.sim.explore.replica import (
    ExploredProcess,
    Input,
    Kind,
    Observed,
    SmallWorld,
    StateTable,
    describe,
)
from epaxos.sim.incarnation import NodeFactory

Path = list[tuple[ReplicaId, Input]]
"""Who takes which step."""


def prelude(world: SmallWorld) -> list[list[Input]]:
    """Per replica what happens before the search begins: where there is a leader, A becomes it and
    everybody hears of it."""
    firsts: list[list[Input]] = [[] for _ in range(world.replicas)]
    if not world.spec.has_leader:
        return firsts
    factory = NodeFactory(world.spec)
    processes = [ExploredProcess(world, me, factory) for me in range(world.replicas)]
    todo: Path = [(0, Input(Kind.TAKE_OVER))]
    while todo:
        me, step = todo.pop(0)
        firsts[me].append(step)
        for target, message in processes[me].apply(step):
            todo.append((target, Input(Kind.DELIVER, me, encode(message))))
    return firsts


def check(observed: Sequence[Observed]) -> None:
    """What must hold of all that was ever released, by replica. Raises Violation."""
    decisions = DecisionChecker(len(observed))
    first: dict[frozenset[tuple[ReplicaId, int]], tuple[ReplicaId, int]] = {}
    places: dict[bytes, tuple[ReplicaId, int]] = {}
    for me, seen in enumerate(observed):
        for decided in seen.decided:
            decisions.decided(me, decided)
        for life in seen.executed:
            for position, later in enumerate(life):
                assert later.payload is not None, "Nops are left out"
                here = (later.replica, later.slot)
                if places.setdefault(later.payload.encoded, here) != here or any(
                    earlier.payload == later.payload for earlier in life[:position]
                ):
                    raise Violation(ONCE, f"{later.payload} in {InstanceId(*here)} and elsewhere")
                for earlier in life[:position]:
                    assert earlier.payload is not None, "Nops are left out"
                    if not interferes(earlier.payload.footprint, later.payload.footprint):
                        continue
                    there = (earlier.replica, earlier.slot)
                    if first.setdefault(frozenset((here, there)), there) != there:
                        names = f"{InstanceId(*there)} and {InstanceId(*here)}"
                        raise Violation(ORDER, f"{names} in both orders")


def walk(world: SmallWorld, path: Path) -> Violation | None:
    """Take the steps of a path on fresh nodes; what does not hold at its end or before.

    Raises LookupError if it delivers what was not sent."""
    members = [StateTable(world, me, ()) for me in range(world.replicas)]
    factory = NodeFactory(world.spec)
    processes = []
    for me, firsts in enumerate(prelude(world)):
        process = ExploredProcess(world, me, factory)
        for step in firsts:
            process.apply(step)
        processes.append(process)
    sent: dict[tuple[ReplicaId, ReplicaId, bytes], int] = {}
    for me, step in path:
        if step.kind is Kind.DELIVER:
            key = (step.number, me, step.body)
            if not sent.get(key):
                raise LookupError(f"{key} was not sent")
            if not world.duplicates:
                sent[key] = 0
        elif step.kind is Kind.RESTART and step.number > len(processes[me].disk.tail):
            raise LookupError("fewer records are at risk")
        try:
            for target, message in members[me].checked(processes[me], step):
                sent[me, target, encode(message)] = 1
            check([process.observed() for process in processes])
        except Violation as violation:
            return violation
    return None


def shorten(world: SmallWorld, path: Path, violation: Violation) -> tuple[Path, Violation]:
    """The path without the steps that the same property is violated without, and what it then
    says."""
    position = len(path) - 1
    while position >= 0:
        shorter = path[:position] + path[position + 1 :]
        try:
            found = walk(world, shorter)
        except LookupError:
            found = None
        if found is not None and found.property == violation.property:
            path, violation = shorter, found
            position = min(position, len(path))
        position -= 1
    return path, violation


def tell(world: SmallWorld, path: Path) -> Iterator[str]:
    """The steps as sentences."""
    codec = Codec(world.spec)
    for me, step in path:
        yield describe(step, me, world, codec)
