"""Multi-Paxos inside whole nodes: clients at every member are answered from the slots."""

import random

import pytest

from epaxos.core.errors import Ambiguous
from epaxos.node.requests import AskTransfer, QuestionReply, Refusal, Reply
from epaxos.sim.schedule.stage import directed
from tests.scenarios.leaders import (
    RTT,
    SECOND,
    elected,
    heal_and_finish,
    living,
    names,
    settled,
)


def alike(world):
    return len({world.node(name).store.digest() for name in living(world)}) == 1


def answers(world, name):
    return [type(answer) for answer in world.answers(name)]


def test_clients_at_every_member_are_answered_in_time():
    world = elected()
    for name in "ABC":
        world.put(name, "x", f"y{name}")
    world.run(2 * RTT)
    assert [answers(world, name) for name in "ABC"] == [[Reply]] * 3
    world.run(SECOND)
    assert alike(world)
    assert len(world.node("A").store) == 4


def test_one_node_alone_answers_in_its_first_take():
    world = directed(1, "multipaxos")
    world.put("A", "x")
    assert answers(world, "A") == [Reply]


def test_without_a_leader_the_answer_is_definite():
    world = directed(3, "multipaxos")
    world.put("B", "x")
    assert [answer.code for answer in world.answers("B")] == ["not-proposed"]


def test_a_forward_whose_leader_dies_is_ambiguous_and_others_go_on():
    world = elected()
    world.put("B", "x", patience_us=SECOND)
    world.crash("A")
    world.run(4 * SECOND)
    (refusal,) = world.answers("B")
    assert type(refusal) is Refusal
    assert isinstance(refusal.error, Ambiguous)
    for name in "BC":
        world.put(name, f"y{name}")
    world.run(SECOND)
    assert answers(world, "B") == [Refusal, Reply]
    assert answers(world, "C") == [Reply]
    world.restart("A")
    world.run(SECOND)
    assert alike(world)


def test_a_forward_is_answered_soon_after_its_leader_has_a_successor():
    """A patient client does not wait out its patience: what the dead leader had proposed is decided
    by its successor, the rest never."""
    world = elected()
    world.put("B", "x", patience_us=60 * SECOND)
    world.crash("A")
    world.run(8 * SECOND)
    assert world.replica("B").leader is not None
    (refusal,) = world.answers("B")
    assert isinstance(refusal.error, Ambiguous)


def test_a_forward_that_the_successor_decides_is_answered():
    world = elected()
    world.put("B", "x", patience_us=60 * SECOND)
    world.run(RTT * 3 // 4)  # the leader's Accept is on its way
    world.crash("A")
    world.run(8 * SECOND)
    assert answers(world, "B") == [Reply]


@pytest.mark.parametrize("seed", range(10))
def test_every_answered_write_survives_crashes_of_minorities(seed):
    world, chance = elected(5), random.Random(seed)
    for number in range(1, 151):
        alive = living(world)
        dead = [name for name in names(world) if name not in alive]
        world.put(chance.choice(alive), f"k{number}", patience_us=2 * SECOND)
        if len(dead) < 2 and chance.random() < 0.1:
            world.crash(chance.choice(alive))
        elif dead and chance.random() < 0.1:
            world.restart(dead[0])
        world.run(chance.choice((1000, 30_000, 300_000)))
    told = [answer for name in names(world) for answer in world.answers(name)]
    assert len({answer.waiter for answer in told}) == len(told), "each is told once"
    answered = [each.waiter for each in told if type(each) is Reply]
    assert len(answered) > 30
    heal_and_finish(world)
    assert alike(world)
    before = len(world.answers("B"))
    for number in answered:
        world.get("B", f"k{number}")
    world.run(SECOND)
    read = world.answers("B")[before:]
    assert [answer.results.values for answer in read] == [[b"%d" % each] for each in answered]


def test_leadership_moves_when_a_node_is_asked():
    world = elected()
    node = world.node("A")
    node.ask("move", AskTransfer(2), world.now)
    (told,) = (each for each in node.take(world.now).replies if each.waiter == "move")
    assert type(told) is QuestionReply
    assert told.error is None
    world.hand_over("A", "C")
    world.run(SECOND)
    assert settled(world)()
    assert [world.replica(name).leader for name in "ABC"] == [2, 2, 2]
