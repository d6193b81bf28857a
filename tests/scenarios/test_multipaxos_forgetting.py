"""Forgetting across a restart: what the log says is forgotten is what this member has executed."""

from epaxos.protocols.multipaxos import replica as multipaxos
from tests.scenarios.leaders import SECOND, elected, everywhere, heal_and_finish


def test_who_restarts_has_executed_at_least_what_it_forgot(monkeypatch):
    """Right after a restart, before anything else arrives: MP2 is checked after every step, and
    what is advertised does not fall behind what was advertised in the life before."""
    monkeypatch.setattr(multipaxos, "NOTED_SLOTS", 1)
    world = elected()
    for number in range(5):
        world.put("A", f"x{number}")
    world.run(SECOND, until=lambda: everywhere(world, *(f"x{number}" for number in range(5))))
    world.run(SECOND)
    (floor,) = world.replica("B").floor
    assert floor >= 5
    world.put("A", "y")
    world.run(SECOND, until=lambda: everywhere(world, "y"))
    world.crash("B")
    world.restart("B")
    restarted = world.replica("B")
    assert restarted.floor == (floor,)
    assert restarted.members.executed[1] >= floor
    assert restarted.members.stable[1] >= floor
    world.run(SECOND)
    heal_and_finish(world)
