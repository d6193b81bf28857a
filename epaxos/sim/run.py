"""One simulated run from start to verdict: a safety phase in which anything fails, then a liveness
phase in which a core heals and everything known must be executed there.

Rules of this file: a run either returns a `CleanRun` or raises `Violation`.
"""

import random
from contextlib import ExitStack
from dataclasses import dataclass, replace

from epaxos.core.types import ReplicaId
from epaxos.node.node import Node
from epaxos.registry import ProtocolSpec
from epaxos.sim.check.checkers import (
    CONVERGES,
    COUNTED,
    EXECUTES,
    LINEARIZABLE,
    RELEASED,
    RESTORES,
    Violation,
    broken_by,
)
from epaxos.sim.check.linearizability import Verdict, check, explains, say_illegal
from epaxos.sim.clients import Clients, in_order
from epaxos.sim.faults import FaultPlan
from epaxos.sim.options import RunOptions
from epaxos.sim.process import Process
from epaxos.sim.schedule.schedule import Schedule
from epaxos.sim.tunables import lasting, packers_of, tuned
from epaxos.sim.world import World

PROBES = 3
"""How often a probe after healing is tried through a replica."""
_COMPARED = (
    *("fast", "slow", "recovered", "nop", "chosen"),
    *("components", "components_2", "components_3_4", "components_5"),
)
"""Counters that an observer can count for itself; each where the protocol has it."""
OPERATIONS_SHOWN = 6
"""How many answers before the one that cannot be explained are shown."""


@dataclass(frozen=True)
class CleanRun:
    """What a clean run did."""

    replicas: int
    trace: int
    """Checksum of everything that happened."""
    answered: int
    """Commands answered."""
    virtual_us: int
    """Virtual time until everything was executed everywhere."""
    counts: dict[str, int]
    """Counters of world, clients and replicas, added up."""
    situations: dict[str, int]
    """How often each situation of `epaxos.sim.situations` was met."""


@dataclass(frozen=True)
class Failure:
    """A property was violated."""

    options: RunOptions
    property: str
    detail: str
    story: str
    schedule: Schedule
    """The run up to the violation, step by step."""
    directed: bool = False
    """Whether it was a directed run (`epaxos.sim.directed`), to which no options belong."""


def simulate(
    options: RunOptions, spec: ProtocolSpec | None = None, node: type[Node] = Node
) -> CleanRun:
    """Run once. Raises Violation, or whatever a node raises.

    `spec` and `node` let a test plant a broken replica, executor or node from outside."""
    return _run(World(options, spec, node))


def tell(
    options: RunOptions, spec: ProtocolSpec | None = None, node: type[Node] = Node
) -> CleanRun | Failure:
    """Run once; if it fails run again with the story on, which changes nothing else."""
    try:
        return simulate(options, spec, node)
    except Exception:
        # Whatever it was is the finding; the second run names it.
        world = World(replace(options, story=True), spec, node)
    try:
        _run(world)
    except Violation as violation:
        found = violation
    except Exception as error:
        found = broken_by(error)
    else:
        raise AssertionError(f"seed {options.seed} failed once and passed again")
    return Failure(options, found.property, found.detail, world.story.text(), _schedule_of(world))


def _schedule_of(world: World) -> Schedule:
    """What was recorded, with the steps under way when the run ended."""
    options = world.options
    pending = [process.step for process in world.processes if process.step is not None]
    return Schedule(
        options.protocol,
        options.replicas,
        tuple(world.told_rtts(member) for member in range(options.replicas)),
        options.leader,
        options.gate,
        options.memory,
        (*world.recorded, *pending),
        options.limits,
        options.tunables,
        world.calm_at,
    )


def _run(world: World) -> CleanRun:
    with tuned(lasting(world.options.tunables)):
        return _run_both_phases(world)


def _run_both_phases(world: World) -> CleanRun:
    options = world.options
    rng = random.Random(f"plan {options.seed}")
    clients = Clients(world, options.keys, options.patience_us)
    with ExitStack() as until_healed:
        until_healed.enter_context(tuned((*packers_of(options.limits), *options.tunables)))
        until_healed.callback(world.meter.healed)
        world.on_heal = until_healed.close
        for member in range(options.replicas):
            world.start(member)
        clients.plan(options.commands, options.active_us, rng)
        FaultPlan(world, rng).plan()
        world.run(options.active_us)
    _let_settle(world, clients)
    _check_history(world, clients)
    _check_counters(world)
    counts = _counts(world, clients)
    return CleanRun(
        options.replicas,
        world.trace,
        sum(call.returned is not None for call in clients.calls),
        world.now,
        counts,
        world.meter.situations(world.spec.name, counts, map(_node, world.living())),
    )


def _let_settle(world: World, clients: Clients) -> None:
    """Two waves: what is left over, then a probe of every key through every replica of the core."""
    options = world.options
    end = options.active_us + options.settle_us
    if not world.run(end, lambda: _settled(world, clients)):
        raise Violation(EXECUTES, _what_is_stuck(world, clients))
    _check_stores(world)
    _probe(world, clients)
    digests = _check_stores(world)
    for process in world.living():
        answered = _node(process).held().until_executed["answered"]
        if answered:
            raise Violation(RELEASED, f"{answered} answered runs at replica {process.me}")
    world.watch.together([_node(process) for process in world.living()])
    if not options.memory:
        for process in world.living():
            _check_log(process, digests[process.me])
    _let_forget(world)


def _let_forget(world: World) -> None:
    """Everybody tells everybody what it has executed. Raises Violation where something is held
    then."""
    if not world.run(world.now + world.options.settle_us, lambda: not _held(world)):
        raise Violation(RELEASED, "; ".join(_held(world)))


def _held(world: World) -> list[str]:
    """What any replica of the core holds too long. Of a member outside it nobody knows what it has
    executed, and who is alone has no heartbeat: the last that it executed goes with its next
    step."""
    whole = len(world.living()) == world.options.replicas > 1
    found = []
    for process in world.living():
        held = _node(process).held()
        tables = held.until_executed | (held.until_forgotten if whole else {})
        left = {name: count for name, count in tables.items() if count}
        if left:
            found.append(f"replica {process.me} holds {left}")
    return found


def _check_stores(world: World) -> dict[ReplicaId, str]:
    """Equal at the whole core: looked at also before probes write every key anew."""
    digests = {process.me: _node(process).store.digest() for process in world.living()}
    if len(set(digests.values())) > 1:
        raise Violation(CONVERGES, f"digests {digests}")
    return digests


def _probe(world: World, clients: Clients) -> None:
    """Every key is written and read through every replica of the core. A probe that meets the end
    of a leadership is of unknown outcome, and is tried again as any client would."""
    wanted = [process.me for process in world.living()]
    end = world.now + world.options.settle_us
    for _ in range(PROBES):
        calls = {member: clients.probe(member) for member in wanted}
        if not world.run(end, lambda: _settled(world, clients)):
            raise Violation(EXECUTES, _what_is_stuck(world, clients))
        wanted = [
            member for member, sent in calls.items() if any(call.returned is None for call in sent)
        ]
        if not wanted:
            return
    raise Violation(EXECUTES, f"after healing {PROBES} probes through {wanted} were not answered")


def _check_log(process: Process, digest: str) -> None:
    """Log replay and memory agree: whoever restarts now has the store that it has."""
    assert process.life is not None, "only asked of the living"
    process.disk.sync()
    again = process.life.restored().store.digest()
    if again != digest:
        raise Violation(RESTORES, f"replica {process.me}: {again} from the log, {digest} in memory")


def _node(process: Process) -> Node:
    assert process.node is not None, "only asked of the living"
    return process.node


def _settled(world: World, clients: Clients) -> bool:
    """Whether nothing is left to be done at the core."""
    vectors = None
    for process in world.living():
        node = _node(process)
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
    """Whether the leader, where the protocol has one, is in the core."""
    if not world.spec.has_leader:
        return True
    leader = node.replica.leader
    return leader is not None and any(process.me == leader for process in world.living())


def _known(replica: object) -> tuple[int, ...] | None:
    """The highest slots a leaderless replica has heard of; None where there is no such thing."""
    columns = getattr(replica, "columns", None)
    return None if columns is None else tuple(columns.known)


def _what_is_stuck(world: World, clients: Clients) -> str:
    states = []
    for process in world.living():
        node = _node(process)
        states.append(
            f"{node.executor.executed} known {_known(node.replica)} "
            f"pending {len(node.executor.pending())}"
        )
    return f"{clients.unsettled()} requests open; executed {'; '.join(states)}"


def _check_history(world: World, clients: Clients) -> None:
    """Linearizability, key by key. The order in which some replica executed is tried first: if it
    explains all answers it is a proof; if not, the search decides. What the answers of a state
    machine from outside should be is not known here."""
    clients.check_fates()
    if not all(_node(process).store.is_key_value for process in world.living()):
        return
    witness = max(world.living(), key=lambda process: len(world.executions.places(process.me)))
    places = world.executions.places(witness.me)
    for key, history in sorted(clients.histories().items()):
        order = in_order(history, places)
        if order is not None and explains(order):
            continue
        ops = [op for _, op in history]
        verdict = check(ops)
        if verdict is not Verdict.OK:
            unknown = verdict is Verdict.UNKNOWN
            why = f"{len(ops)} operations" if unknown else say_illegal(ops, OPERATIONS_SHOWN)
            raise Violation(LINEARIZABLE, f"key {key!r}: {verdict.value}; {why}")


def _check_counters(world: World) -> None:
    """O13: the counters of a life tell what the observers saw of it. Nothing is under way now."""
    for process in world.living():
        told, seen = _node(process).statistics(), world.meter.seen[process.me]
        for name in _COMPARED:
            if name in told and told[name] != seen[name]:
                raise Violation(
                    COUNTED,
                    f"{name} is {told[name]} at replica {process.me}, where {seen[name]} were seen",
                )
        most = seen["requested"] + told["resubmitted"]
        if not seen["answered"] <= told["commands"] <= most:
            raise Violation(
                COUNTED,
                f"commands is {told['commands']} at replica {process.me}, which answered "
                f"{seen['answered']} and was asked {most}",
            )


def _counts(world: World, clients: Clients) -> dict[str, int]:
    total = dict(world.counts)
    present = [p.node.statistics() for p in world.processes if p.node is not None]
    for statistics in (*world.meter.past, *present):
        for name, value in statistics.items():
            if name.endswith("_max"):
                total[name] = max(total.get(name, 0), value)
            else:
                total[name] = total.get(name, 0) + value
    total["definite"] = clients.definite
    total["ambiguous"] = clients.ambiguous
    total["retried"] = clients.retried
    total["vanished"] = clients.vanished
    return total
