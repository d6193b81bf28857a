"""Verbs that many schedules played by hand share, and the prefixes of the directed seeds.

Rules of this file: every verb moves a `Stage` and nothing else; the roles a to e of a prefix are
any five replicas, and its schedule is one of the protocol reference (sections 1.6 and 2).
"""

from collections.abc import Sequence

from epaxos.sim.schedule.stage import Stage

WAITS = 70
"""For so many tenths of a second a recovery is left alone, until it has waited long enough."""

Roles = Sequence[str]
ROLES: Roles = "ABCDE"


def exchange(world: Stage, way: str, kind: str, instance: str | None = None) -> None:
    """A question of that kind arrives on the way "A>B", and then its answer, an Ok, on "B>A"."""
    world.deliver(way, kind, instance)
    world.deliver(way[::-1], f"{kind}Ok", instance)


def preaccept(world: Stage, leader: str, instance: str, *members: str) -> None:
    """These members pre-accept and their answers arrive, in this order."""
    for member in members:
        exchange(world, f"{leader}>{member}", "PreAccept", instance)


def ask(world: Stage, recoverer: str, instance: str, *members: str) -> None:
    """`recoverer` takes an instance over and hears these members, in this order."""
    world.recover(recoverer, instance)
    for member in members:
        exchange(world, f"{recoverer}>{member}", "Recover", instance)
    world.drop(None, "Recover", instance)


def validate(world: Stage, recoverer: str, instance: str, *members: str) -> None:
    """These members answer the recoverer's Validate, in this order."""
    for member in members:
        exchange(world, f"{recoverer}>{member}", "Validate", instance)


def left_beside_another(world: Stage, roles: Roles) -> None:
    """`a` leaves a batch that only `b` knows; that of `d` has reached `c` and `e`."""
    a, b, c, d, e = roles
    world.put(a, "x")
    world.deliver(f"{a}>{b}", "PreAccept")
    world.crash(a)
    world.drop_all()
    world.put(d, "x")
    world.deliver(f"{d}>{c}", "PreAccept")
    world.deliver(f"{d}>{e}", "PreAccept")


def starts_to_wait(world: Stage, roles: Roles) -> None:
    """V4: the recovery of what `a` left waits for an instance of `d` that is under way."""
    a, b, c, d, _ = roles
    left_beside_another(world, roles)
    world.drop(f"{d}>{b}", "PreAccept")
    ask(world, b, f"{a}.1", c, d)
    validate(world, b, f"{a}.1", c, d)


def objection_commits(world: Stage, roles: Roles) -> None:
    """W1: a recovery waits for an instance that then commits on the fast path without it."""
    _, b, c, d, e = roles
    starts_to_wait(world, roles)
    world.drop(None, "Recover|Waiting")
    world.deliver(f"{c}>{d}", "PreAcceptOk")
    world.deliver(f"{e}>{d}", "PreAcceptOk")
    world.deliver(f"{d}>{b}", "CommitShort", f"{d}.1")
    world.deliver(f"{b}>{d}", "CommitReq", f"{d}.1")
    world.deliver(f"{d}>{b}", "Commit", f"{d}.1")


def waits_in_vain(world: Stage, roles: Roles) -> None:
    """A recovery waits, nobody answers it, and it begins anew in a higher ballot."""
    starts_to_wait(world, roles)
    for _ in range(WAITS):
        world.wait(roles[1], 100_000)
        world.drop_all()


def both_wait(world: Stage, roles: Roles) -> None:
    """W3: two recoveries wait for each other, and one gives way."""
    a, b, c, d, e = roles
    left_beside_another(world, roles)
    world.drop_all()
    ask(world, c, f"{d}.1", e, b)
    validate(world, c, f"{d}.1", e, b)
    waits = [sent for sent in world.flight if world.matches(sent, f"{c}>{b}", "Waiting")]
    world.drop_all()
    ask(world, b, f"{a}.1", c, d)
    validate(world, b, f"{a}.1", c, d)
    world.crash(d)
    world.drop(None, "Recover")
    world.flight += waits
    world.deliver(f"{c}>{b}", "Waiting", f"{d}.1")


def leader_heard_late(world: Stage, roles: Roles) -> None:
    """W4: the command leader answers the Recover while the recovery waits."""
    a, b, c, d, e = roles
    world.put(a, "x")
    world.put(e, "x")
    world.deliver(f"{a}>{b}", "PreAccept")
    world.deliver(f"{a}>{c}", "PreAccept")
    world.deliver(f"{e}>{d}", "PreAccept")
    world.drop_all()
    world.crash(e)
    ask(world, b, f"{a}.1", c, d)
    validate(world, b, f"{a}.1", c, d)
    world.drop(None, "Waiting")
    exchange(world, f"{b}>{a}", "Recover", f"{a}.1")


def unseen_commit(world: Stage, roles: Roles) -> None:
    """V2 and V3: what is recovered meets a fast commit that it has not seen."""
    a, b, c, d, e = roles
    world.put(a, "x")
    world.deliver(f"{a}>{b}", "PreAccept")
    world.crash(a)
    world.put(c, "x")
    for member in (d, e):
        exchange(world, f"{c}>{member}", "PreAccept")
    world.crash(c)
    world.drop_all()
    ask(world, b, f"{a}.1", d, e)
