"""Schedules that end while a recovery waits for others (EPaxos* l.69-80, rules W1 to W4), five
replicas A to E."""

from tests.scenarios.exhibits import played, rules, values

NOP = (None, (0,) * 5)
X = (["x"], (0,) * 5)


def test_w1_an_objection_that_is_decided_refutes():
    world = played("settled-by-any-decision")
    assert values(world, *"BCDE") == {"A.1": NOP, "D.1": X}
    assert rules(world, "B") == {"4": 1, "V4": 1, "W1": 1}
    assert len(world.answers("D")) == 1


def test_w2_what_is_decided_here_settles_what_waits_here():
    world = played("waits-to-be-told")
    assert values(world, *"BCD") == {"A.1": X, "E.1": NOP}
    assert rules(world, "B") == {"4": 2, "V3": 1, "V4": 1, "W2": 1}


def test_w3_of_two_recoveries_that_wait_for_each_other_one_gives_way():
    world = played("both-wait")
    assert values(world, *"BCE") == {"A.1": NOP, "D.1": X}
    assert rules(world, "B") == {"4": 1, "V4": 1, "W3": 1}
    assert rules(world, "C") == {"4": 1, "V4": 1, "W2": 1}


def test_w4_the_command_leaders_late_answer_ends_the_waiting():
    """A submits its batch again, since it became Nop."""
    world = played("deaf-while-waiting")
    assert values(world, *"ABCD") == {"A.1": NOP, "A.2": (["x"], (1, 0, 0, 0, 0))}
    assert rules(world, "B") == {"4": 1, "V4": 1, "W4": 1}


def test_a_recovery_beyond_the_horizon_is_seen_to():
    """E was the only one to know A.2 and B.2: too few for the fast path, so both are Nop, and then
    nothing stands against A.1 and B.1."""
    world = played("beyond-the-horizon")
    assert values(world, *"CDE") == {
        "A.1": (["x"], (0,) * 5),
        "B.1": (["y"], (0,) * 5),
        "A.2": NOP,
        "B.2": NOP,
    }
