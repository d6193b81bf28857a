"""Schedules about promises, votes and durability (protocol reference 2.1, 2.4, 2.6, 2.12, 2.13)."""

from epaxos.sim.schedule.recipes import ask
from epaxos.sim.schedule.stage import directed
from tests.scenarios.exhibits import happened, played, rules, values

NOP_OF_3 = (None, (0, 0, 0))
NOP_OF_5 = (None, (0,) * 5)


def test_2_1_votes_and_promises_are_two_ballots():
    world = played("one-ballot")
    assert happened(
        world,
        "logs Accepted A.1 b1@B (Nop)",
        "decides A.1 by recovery (put x 2)",
        "RecoverOk A.1 b3@C [accepted b1@B (Nop)",
    )
    assert values(world, "A", "C") == {"A.1": (["x"], (0, 1, 0))}
    assert rules(world, "C") == {"2": 1}


def test_2_4_an_accepted_nop_stays_in_the_conflict_index():
    world = played("nop-leaves-the-index")
    assert happened(world, "logs Accepted A.1 b1@B (Nop)", "PreAccept B.2 (put x 3) deps 110")
    assert values(world, "A") == {"A.1": (["x"], (0, 1, 0))}
    assert values(world, "B") == {"B.2": (["x"], (1, 1, 0))}


def test_2_6_a_fast_commit_is_durable_before_anyone_hears_of_it():
    world = played("unsynced-fast-commit")
    assert happened(world, "answers put x 1: yes", "crashes", "RecoverOk A.1 b1@B [decided b0")
    assert values(world, "A", "B") == {"A.1": (["x"], (0, 0, 0))}
    assert rules(world, "B") == {"1": 1}


def test_2_6_an_acceptor_syncs_before_it_answers():
    world = played("unsynced-vote")
    assert happened(world, "crashes", "decides A.1 on the fast path", "PreAcceptOk C.1 deps 100")
    assert values(world, "A") == {"A.1": (["x"], (0, 0, 0))}
    assert values(world, "B", "C") == {"C.1": (["x"], (1, 0, 0))}


def test_2_12_initial_deps_of_a_fast_quorum_are_proposed_again():
    """D recovers what A had decided; its own deps name E's batch as well."""
    world = played("any-deps")
    assert happened(
        world, "logs PreAccepted A.1 deps 00001", "Validate A.1 b1@D (put x 2) deps 00000"
    )
    assert values(world, "A") == {"A.1": (["x"], (0,) * 5)}


def test_2_12_deps_that_differ_everywhere_are_given_up():
    """n = 5. B and C have batches of their own that nobody knows. A's batch is pre-accepted at B
    with B's in its deps and at C with C's; A dies. D recovers with B and C."""
    world = directed(5)
    world.put("B", "x")
    world.put("C", "x")
    world.drop_all()
    world.put("A", "x")
    world.deliver("A>B", "PreAccept")
    world.deliver("A>C", "PreAccept")
    world.drop_all()
    world.crash("A")
    ask(world, "D", "A.1", "B", "C")
    world.deliver_all("BCD")
    assert values(world, "B", "C", "D") == {"A.1": NOP_OF_5}
    assert rules(world, "D") == {"5": 1}


def test_2_13_three_replicas_need_two_rounds_under_conflict():
    world = played("first-answer-decides")
    assert values(world, "A") == {}
    assert values(world, "B", "C") == {"A.1": NOP_OF_3}
