"""One simulated run from start to verdict: a safety phase in which anything fails, then a liveness
phase in which everything known must be executed everywhere.

Rules of this file: a run either returns an `Outcome` or raises `Violation`.
"""

import random
from dataclasses import dataclass, replace
from typing import cast

from epaxos.core.replica import LeaderReplica
from epaxos.node import Node
from epaxos.registry import ProtocolSpec
from epaxos.sim.checkers import (
    CONVERGES,
    EXECUTES,
    LINEARIZABLE,
    Violation,
)
from epaxos.sim.clients import Clients
from epaxos.sim.faults import plan_faults
from epaxos.sim.linearizability import Verdict, check, explains
from epaxos.sim.options import Options
from epaxos.sim.world import World


@dataclass(frozen=True)
class Outcome:
    """What a clean run did."""

    trace: int
    """Checksum of everything that happened."""
    answered: int
    """Commands answered."""
    virtual_us: int
    """Virtual time until everything was executed everywhere."""
    counts: dict[str, int]
    """Counters of world and replicas, added up."""


@dataclass(frozen=True)
class Failure:
    """A sentence that did not hold."""

    options: Options
    sentence: str
    detail: str
    story: str


def simulate(options: Options, spec: ProtocolSpec | None = None) -> Outcome:
    """Run once. Raises Violation; AssertionError from a replica is a violation too."""
    return _run(World(options, spec))


def tell(options: Options, spec: ProtocolSpec | None = None) -> Outcome | Failure:
    """Run once; if it fails run again with the story on, which changes nothing else."""
    try:
        return simulate(options, spec)
    except (Violation, AssertionError):
        world = World(replace(options, story=True), spec)
        try:
            _run(world)
        except Violation as violation:
            return Failure(options, violation.sentence, violation.detail, world.story.text())
        except AssertionError as error:
            sentence = "a replica's own assertion holds"
            return Failure(options, sentence, str(error), world.story.text())
        raise AssertionError(f"seed {options.seed} failed once and passed again") from None


def _run(world: World) -> Outcome:
    options = world.options
    rng = random.Random(f"plan {options.seed}")
    clients = Clients(world, options.keys, options.patience_us)
    for member in range(options.replicas):
        world.start(member)
    clients.plan(options.commands, options.active_us, rng)
    plan_faults(world, rng)
    world.run(options.active_us)
    _let_settle(world, clients)
    _check_history(world, clients)
    return Outcome(
        world.trace,
        sum(call.returned is not None for call in clients.calls),
        world.now,
        _counts(world),
    )


def _let_settle(world: World, clients: Clients) -> None:
    """Two waves: what is left over, then a probe of every key through every living replica."""
    options = world.options
    end = options.active_us + options.settle_us
    if not world.run(end, lambda: _settled(world, clients)):
        raise Violation(EXECUTES, _what_is_stuck(world, clients))
    before = len(clients.calls)
    for process in world.living():
        clients.probe(process.me)
    if not world.run(world.now + options.settle_us, lambda: _settled(world, clients)):
        raise Violation(EXECUTES, _what_is_stuck(world, clients))
    unanswered = [call for call in clients.calls[before:] if call.returned is None]
    if unanswered:
        raise Violation(EXECUTES, f"{len(unanswered)} probes after healing were not answered")
    digests = {
        process.me: process.node.store.digest() for process in world.living() if process.node
    }
    if len(set(digests.values())) > 1:
        raise Violation(CONVERGES, f"digests {digests}")


def _settled(world: World, clients: Clients) -> bool:
    """Whether nothing is left to be done among the living. Looked at after every event."""
    vectors = None
    for process in world.living():
        node = process.node
        assert node is not None
        if process.inbox or process.syncing or node.executor.pending():
            return False
        if node.replica.unready() is not None or not _is_led(world, node):
            return False
        executed = (tuple(node.executor.executed), _known(node.replica))
        if vectors is None:
            vectors = executed
        elif executed != vectors:
            return False
    if vectors is not None and vectors[1] is not None and vectors[0] != vectors[1]:
        return False
    return not clients.unsettled()


def _is_led(world: World, node: Node) -> bool:
    """Whether the leader, where the protocol has one, is among the living."""
    if not world.spec.has_leader:
        return True
    leader = cast("LeaderReplica", node.replica).leader
    return leader is not None and world.processes[leader].node is not None


def _known(replica: object) -> tuple[int, ...] | None:
    """The highest slots a leaderless replica has heard of; None where there is no such thing."""
    columns = getattr(replica, "columns", None)
    return None if columns is None else tuple(columns.known)


def _what_is_stuck(world: World, clients: Clients) -> str:
    states = []
    for process in world.living():
        assert process.node is not None
        states.append(
            f"{process.node.executor.executed} known {_known(process.node.replica)} "
            f"pending {len(process.node.executor.pending())}"
        )
    return f"{clients.unsettled()} requests open; executed {'; '.join(states)}"


def _check_history(world: World, clients: Clients) -> None:
    """Linearizability, key by key. The order in which some replica executed is tried first: if it
    explains all answers it is a proof; if not, the search decides."""
    witness = max(world.living(), key=lambda process: len(world.executions.places(process.me)))
    places = world.executions.places(witness.me)
    for key, ops in sorted(clients.history().items()):
        order = clients.in_order(key, places)
        if order is not None and explains(order):
            continue
        verdict = check(ops)
        if verdict is not Verdict.OK:
            raise Violation(LINEARIZABLE, f"key {key!r}: {verdict.value}; {len(ops)} operations")


def _counts(world: World) -> dict[str, int]:
    total = dict(world.counts)
    for process in world.living():
        assert process.node is not None
        for name, value in process.node.statistics().items():
            if name.endswith("_max"):
                total[name] = max(total.get(name, 0), value)
            else:
                total[name] = total.get(name, 0) + value
    return total
