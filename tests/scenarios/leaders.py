"""Steps of stories about a cluster with a leader: who leads, who has what, links that are cut."""

from collections import Counter

from epaxos.core.types import replica_name
from epaxos.sim.schedule.simplify import RTT_US
from epaxos.sim.schedule.stage import Stage, directed, head_of

MS = 1_000
SECOND = 1_000_000
RTT = RTT_US


def unled(n, seed=0):
    """A cluster without a designated leader."""
    return started(Stage(head_of(n, "multipaxos")._replace(leader=None)), seed)


def started(world, seed=0):
    for name in names(world):
        world.start(name, seed * world.n + ord(name))
    return world


def elected(n=3, leader=0, replica=None, deep=True):
    """A cluster whose designated leader leads, and everybody knows."""
    world = directed(n, "multipaxos", leader=leader, replica=replica, deep=deep)
    world.run(SECOND, until=settled(world))
    return world


def names(world):
    return [replica_name(member) for member in range(world.n)]


def living(world):
    return [replica_name(actor.me) for actor in world.actors if actor.node is not None]


def leaders(world):
    """Those that lead as far as they know themselves."""
    return [name for name in living(world) if world.replica(name).leader == ord(name) - ord("A")]


def leading(world, *among):
    """A condition: one of these leads, or anybody."""
    return lambda: bool(set(leaders(world)) & set(among or names(world)))


def settled(world):
    """A condition: one leads, and all that live follow it."""

    def is_settled():
        found = leaders(world)
        followed = {world.replica(name).leader for name in living(world)}
        return len(found) == 1 and followed == {ord(found[0]) - ord("A")}

    return is_settled


def keys(world, name):
    """The keys written, in the order in which `name` executed them in this life."""
    return [key for slot in world.executed(name) for key in world.value(name, slot)[0]]


def written(world, name, slot):
    """The values that a slot writes as `name` decided it; None: a no-op."""
    payload, _ = world.actors[ord(name) - ord("A")].decided[0, slot]
    return payload and payload.batch.arguments


def everywhere(world, *wanted):
    """Whether all that live have executed these keys, each once."""
    return all(keys(world, name).count(key) == 1 for name in living(world) for key in wanted)


def nowhere(world, key):
    return not any(key in keys(world, name) for name in living(world))


def count(world, name, at=None):
    """A counter of all replicas that live, or of one."""
    return sum(world.replica(each).statistics()[name] for each in at or living(world))


def cut(*sides):
    """The ways between groups of replicas, for `run`."""
    return [f"{a}>{b}" for one in sides for two in sides if one != two for a in one for b in two]


def sent(world, kind):
    """The messages of a kind that were ever sent, broadcasts once, in their order."""
    return [
        (replica_name(each.member), each.thing)
        for each in world.happenings
        if each.kind == "sends" and isinstance(each.thing, kind)
    ]


def posts(world):
    """How many messages of each kind were sent, a broadcast as many times as it has targets."""
    return Counter(
        type(each.message).__name__
        for link in world.sent.values()
        for those in link.values()
        for each in those
    )


def heal_and_finish(world):
    """Every member lives, every link works: what is new executes everywhere, in one order."""
    for name in names(world):
        if name not in living(world):
            world.restart(name)
    world.run(60 * SECOND, until=settled(world))
    for name in names(world):
        world.put(name, f"last-{name}")
    world.run(30 * SECOND, until=lambda: everywhere(world, *(f"last-{n}" for n in names(world))))
    world.run(SECOND)
    assert len({tuple(keys(world, name)) for name in names(world)}) == 1
    floors = {world.replica(name).floor for name in names(world)}
    assert floors == {(world.replica("A").log.chosen,)}, f"everything is forgotten: {floors}"
    world.check()
