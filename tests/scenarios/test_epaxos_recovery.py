"""Schedules about recovery (protocol reference 2.2, 2.3, 2.5, 2.7 and R1), five replicas A to E."""

from epaxos.sim.schedule.recipes import ask, validate
from epaxos.sim.schedule.stage import directed
from tests.scenarios.exhibits import happened, played, rules, values

NOP = (None, (0,) * 5)
X = (["x"], (0,) * 5)


def test_2_2_two_orphans_do_not_wait_for_each_other():
    world = played("deferred-for-ever")
    assert values(world, *"BCD") == {"A.1": NOP, "E.1": NOP}
    assert rules(world, "B") == rules(world, "D") == {"4": 1, "V3": 1}


def test_2_2_who_waits_goes_on_when_the_objection_is_settled():
    """A's batch is pre-accepted at A, B, C, E's at E and D. B finds two matching votes and waits; D
    finds one and gives E's batch up; then B goes on with A's real payload (W2)."""
    world = directed(5)
    world.put("A", "x")
    world.put("E", "x")
    world.deliver("A>B", "PreAccept")
    world.deliver("A>C", "PreAccept")
    world.deliver("E>D", "PreAccept")
    world.crash("A", "E")
    world.drop_all()
    ask(world, "B", "A.1", "C", "D")
    validate(world, "B", "A.1", "C", "D")
    assert rules(world, "B") == {"4": 1, "V4": 1}
    world.drop_all()
    ask(world, "D", "E.1", "B", "C")
    world.deliver_all("BCD")
    assert values(world, *"BCD") == {"A.1": X, "E.1": NOP}
    assert rules(world, "B") == {"4": 1, "V4": 1, "W2": 1}
    world.check()


def test_2_3_recovery_validates_before_it_proposes_initial_deps():
    world = played("no-validation")
    assert values(world, "C") == {"C.1": X}
    assert values(world, *"BDE") == {"A.1": NOP}
    assert rules(world, "B") == {"4": 1, "V3": 1}


def test_2_3_a_validate_stores_what_it_asks_about():
    world = played("forgetful-validate")
    assert values(world, "B") == {"A.1": X}
    assert values(world, *"CDE") == {"C.1": (["x"], (1, 0, 0, 0, 0))}
    assert rules(world, "B") == {"4": 1, "V1": 1}


def test_2_5_a_late_validate_changes_nothing():
    world = played("late-validate")
    assert happened(world, "decides A.1 by recovery (Nop)", "Validate A.1", "takes over A.1")
    assert values(world, *"BDE") == {"A.1": NOP}
    assert values(world, "C") == {"A.1": NOP, "C.1": X}
    assert rules(world, "D") == {"2": 1}


def test_2_7_an_accept_never_writes_the_introduction():
    world = played("introduced-by-accept")
    assert values(world, *"ABCE") == {"A.1": X}
    assert rules(world, "B") == {"4": 1, "V1": 1}


def test_r1_a_validate_is_no_vote():
    world = played("forged-vote")
    assert values(world, "A") == {"A.1": X}
    assert values(world, *"BCD") == {"A.1": X, "E.1": NOP}
    assert rules(world, "C") == {"4": 1, "V3": 1}


def test_r1_an_accept_keeps_the_introduction():
    world = played("erased-introduction")
    assert values(world, "C") == {"C.1": (["x", "y"], (0, 0, 0, 0, 1))}
    assert values(world, *"BDE") == {"A.1": NOP}
    assert rules(world, "B") == {"4": 1, "V3": 1}
