"""What goes wrong, and when: planned from the seed before the run starts.

Rules of this file: at most a minority of replicas is ever dead for good; everything else heals when
the active phase ends. In memory mode nobody comes back, so only `dead` counts.
"""

import random
from functools import partial

from epaxos.core.types import Micros, ReplicaId, replica_name
from epaxos.sim.world import CrashPoint, World


def plan_faults(world: World, rng: random.Random) -> None:
    """Put the run's faults on the world's clock."""
    options = world.options
    faults = options.faults
    members = range(options.replicas)

    def moment() -> Micros:
        return rng.randrange(options.active_us)

    for _ in range(faults.partitions):
        start = moment()
        end = min(options.active_us, start + rng.randint(50_000, 1_000_000))
        cut = _draw_cut(rng, options.replicas)
        world.at(start, partial(_cut, world, cut))
        world.at(end, partial(_mend, world, cut))
    for _ in range(0 if options.memory else faults.crashes):
        member = rng.choice(members)
        point = rng.choice((None, *CrashPoint))
        start = moment()
        world.at(start, partial(_crash, world, member, point))
        world.at(start + rng.randint(10_000, 1_500_000), partial(world.start, member))
    for member in rng.sample(members, faults.dead):
        world.at(moment(), partial(_kill, world, member))
    for _ in range(faults.pauses):
        member = rng.choice(members)
        length = rng.randint(50_000, 1_500_000)
        world.at(moment(), partial(_pause, world, member, length))
    world.at(options.active_us, partial(heal, world))


def heal(world: World) -> None:
    """Nothing fails any more; who is not dead for good starts again."""
    world.story.add(world.now, "the world heals")
    world.mark("heal")
    world.cut.clear()
    world.loss = world.duplication = 0.0
    for process in world.processes:
        process.paused_until = min(process.paused_until, world.now)
        process.doom = None
        world.start(process.me)


def _draw_cut(rng: random.Random, n: int) -> list[tuple[ReplicaId, ReplicaId]]:
    """Ordered pairs: one isolated, two halves, or some links in one direction."""
    kind = rng.choice(("isolate", "halves", "one-way"))
    members = list(range(n))
    if kind == "isolate":
        side = {rng.choice(members)}
    elif kind == "halves":
        side = set(rng.sample(members, n // 2))
    else:
        return [(a, b) for a in members for b in members if a != b and rng.random() < 0.3]
    return [(a, b) for a in members for b in members if (a in side) != (b in side)]


def _cut(world: World, pairs: list[tuple[ReplicaId, ReplicaId]]) -> None:
    names = " ".join(replica_name(a) + replica_name(b) for a, b in pairs)
    world.story.add(world.now, f"links cut: {names}")
    world.mark("cut", pairs)
    world.cut.update(pairs)


def _mend(world: World, pairs: list[tuple[ReplicaId, ReplicaId]]) -> None:
    world.mark("mend", pairs)
    world.cut.difference_update(pairs)


def _crash(world: World, member: ReplicaId, point: CrashPoint | None) -> None:
    if point is None:
        world.crash(member)
    else:
        world.processes[member].doom = point


def _kill(world: World, member: ReplicaId) -> None:
    world.crash(member, "for good")
    world.processes[member].dead = True


def _pause(world: World, member: ReplicaId, length: Micros) -> None:
    process = world.processes[member]
    world.story.add(world.now, f"{replica_name(member)} stands still for {length / 1000:.0f} ms")
    process.paused_until = max(process.paused_until, world.now + length)
