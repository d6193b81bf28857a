"""Runs that begin with a schedule which random search does not reach, and go on at random.

Rules W1 and W3 of recovery need six messages in one order and two crashes between them. Each prefix
here is one of the schedules of the protocol reference (sections 1.6 and 2) with its roles drawn by
the seed; what follows is random deliveries, losses, copies, crashes of the spare minority, new
commands and take-overs, and then everything is delivered and must be executed by all who live.

Rules of this file: five replicas; the roles a to e of a prefix are replicas drawn by the seed.
"""

import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from zlib import crc32

from epaxos.core.quorum import quorums
from epaxos.core.types import InstanceId, replica_name
from epaxos.node.node import Node
from epaxos.registry import ProtocolSpec
from epaxos.sim.check.checkers import EXECUTES, Violation
from epaxos.sim.options import RunOptions
from epaxos.sim.run import CleanRun, Failure
from epaxos.sim.schedule.recipes import (
    Roles,
    both_wait,
    leader_heard_late,
    objection_commits,
    unseen_commit,
    waits_in_vain,
)
from epaxos.sim.schedule.stage import Stage, directed
from epaxos.sim.situations import SITUATIONS

ROUNDS = 400
"""Rounds of deliveries and wakes at the end, within which everything must be executed."""
WAITS_SHARE = 0.1
"""So many of the runs begin with `waits_in_vain`, drawn by a random of its own: the other prefixes
belong to the seeds they always belonged to."""
STEPS = 60
"""How many random steps follow the prefix at most."""


PREFIXES: tuple[Callable[[Stage, Roles], None], ...] = (
    objection_commits,
    both_wait,
    leader_heard_late,
    unseen_commit,
)


def run_directed(
    seed: int, spec: ProtocolSpec | None = None, node: type[Node] = Node
) -> CleanRun | Failure:
    """The directed run of a seed."""
    rng = random.Random(f"directed {seed}")
    roles = tuple(rng.sample("ABCDE", 5))
    prefix = PREFIXES[rng.randrange(len(PREFIXES))]
    if random.Random(f"vain {seed}").random() < WAITS_SHARE:
        prefix = waits_in_vain
    world = directed(5, spec=spec, node=node)
    try:
        # Code that does not send what the prefix expects is not what the prefix is about; what it
        # does instead is looked at all the same.
        with suppress(LookupError):
            prefix(world, roles)
        _wander(world, rng)
        _settle(world)
        world.check()
    except Violation as violation:
        return Failure(
            RunOptions(seed=seed, replicas=5),
            violation.property,
            violation.detail,
            world.chart(violation),
            world.schedule(),
            directed=True,
        )
    return _outcome(world)


def _wander(world: Stage, rng: random.Random) -> None:
    for _ in range(rng.randint(0, STEPS)):
        living = [a.me for a in world.actors if a.node is not None]
        name = replica_name(rng.choice(living))
        roll = rng.random()
        if roll < 0.7 and world.flight:
            sent = rng.choice(world.flight)
            way = f"{replica_name(sent.source)}>{replica_name(sent.target)}"
            if rng.random() < 0.12:
                world.flight.remove(sent)
            else:
                kind = type(sent.message).__name__
                world.deliver(way, kind, keep=rng.random() < 0.15)
        elif roll < 0.8:
            world.put(name, *rng.sample(("x", "y"), rng.randint(1, 2)))
        elif roll < 0.86:
            world.wait(name, rng.randint(1_000, 300_000))
        elif roll < 0.92:
            _take_over(world, name, rng)
        elif roll < 0.96 and len(living) > quorums(world.n).slow:
            world.crash(name)
        else:
            dead = [a.me for a in world.actors if a.node is None]
            if dead:
                world.restart(replica_name(rng.choice(dead)))


def _take_over(world: Stage, name: str, rng: random.Random) -> None:
    columns: Any = world.replica(name)
    open_ids = [
        InstanceId(column, slot)
        for column in range(world.n)
        for slot in range(columns.columns.committed[column] + 1, columns.columns.known[column] + 1)
    ]
    if open_ids:
        world.recover(name, rng.choice(open_ids))


def _settle(world: Stage) -> None:
    """Everything is delivered, deadlines are kept, until all who live have executed the same."""
    for _ in range(ROUNDS):
        try:
            world.deliver_all()
        except LookupError as error:
            raise Violation(EXECUTES, str(error)) from None
        _beat(world)
        if _is_settled(world):
            return
        for actor in world.actors:
            if actor.node is not None:
                world.wait(replica_name(actor.me), 20_000)
    raise Violation(EXECUTES, f"after {ROUNDS} rounds not everything known is executed")


def _beat(world: Stage) -> None:
    """The latest heartbeat of every living replica reaches every other."""
    living = [replica_name(a.me) for a in world.actors if a.node is not None]
    for source in living:
        for target in living:
            if source != target:
                with suppress(LookupError):
                    world.deliver(f"{source}>{target}", "Progress")


def _is_settled(world: Stage) -> bool:
    seen = set()
    for actor in world.actors:
        if actor.node is None:
            continue
        replica: Any = actor.node.replica
        executed = tuple(actor.node.executor.executed)
        if actor.node.executor.pending() or executed != tuple(replica.columns.known):
            return False
        seen.add(executed)
    return len(seen) == 1


def _outcome(world: Stage) -> CleanRun:
    counts: Counter[str] = Counter()
    for actor in world.actors:
        if actor.node is not None:
            counts.update(actor.node.statistics())
    situations = {
        each.name: counts[each.counter] for each in SITUATIONS if each.protocol == "epaxos"
    }
    trace = crc32(repr((world.schedule().events, world.decisions.decided_ids())).encode())
    return CleanRun(world.n, trace, 0, world.now, dict(counts), situations)


__all__ = ["PREFIXES", "run_directed"]
