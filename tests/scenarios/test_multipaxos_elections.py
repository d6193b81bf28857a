"""Who leads, when, and what an election must carry over."""

import random

import pytest

from epaxos.codec import encode
from epaxos.protocols.multipaxos.messages import Promise, Promised, TakeOver
from epaxos.sim.museum import find
from epaxos.sim.museum.multipaxos import LONG_US, elect
from epaxos.sim.schedule.stage import Stage, directed, head_of
from epaxos.sim.tunables import tuned
from tests.scenarios.leaders import (
    MS,
    RTT,
    SECOND,
    count,
    cut,
    elected,
    everywhere,
    heal_and_finish,
    keys,
    leaders,
    leading,
    nowhere,
    sent,
    settled,
    started,
    unled,
    written,
)


@pytest.mark.parametrize("leader", range(5))
def test_the_designated_leader_leads_in_two_round_trips(leader):
    world = directed(5, "multipaxos", leader=leader)
    world.run(3 * RTT)
    assert settled(world)()
    assert world.replica("A").leader == leader


def without_its_designated_leader():
    """B and C live; A, which shall lead first, was not started."""
    world = Stage(head_of(3, "multipaxos"))
    world.start("B")
    world.start("C")
    return world


def test_the_others_give_a_late_designated_leader_time():
    world = without_its_designated_leader()
    world.run(2 * SECOND)
    assert count(world, "probes") == 0
    world.start("A")
    world.run(SECOND)
    assert leaders(world) == ["A"]


def test_the_others_elect_one_when_the_designated_leader_never_comes():
    world = without_its_designated_leader()
    world.run(10 * SECOND, until=settled(world))


def test_a_designated_leader_that_comes_too_late_does_not_disturb():
    world = without_its_designated_leader()
    world.run(10 * SECOND, until=settled(world))
    chief = leaders(world)
    world.start("A")
    world.run(10 * SECOND)
    assert settled(world)()
    assert leaders(world) == chief
    assert count(world, "elections") == 1


@pytest.mark.parametrize("seed", range(10))
def test_without_a_designated_leader_somebody_leads(seed):
    world = unled(5, seed)
    world.run(4 * SECOND, until=settled(world))


def two_candidates():
    """A and B both probed, C would vote for either: both campaign."""
    world = unled(3)
    for name in "AB":
        world.wait(name, LONG_US)
    for name in "AB":
        world.deliver(f"{name}>C", "Probe")
        world.deliver(f"C>{name}", "ProbeOk")
    assert count(world, "elections") == 2
    return world


def test_two_candidates_end_as_one_leader():
    world = two_candidates()
    world.run(10 * SECOND, until=settled(world))
    heal_and_finish(world)


@pytest.mark.parametrize("way", ["A>B", "B>A", "A>C", "B>C"])
def test_two_candidates_whose_prepares_cross_in_every_order(way):
    world = two_candidates()
    world.run(50 * MS, held=[f"{way} Prepare"])
    world.deliver(way, "Prepare")
    world.run(10 * SECOND, until=settled(world))
    heal_and_finish(world)


def test_a_dead_leader_is_succeeded_within_two_patiences_and_a_few_round_trips():
    for seed in range(10):
        world = started(Stage(head_of(5, "multipaxos")), seed)
        world.run(SECOND, until=settled(world))
        world.put("C", "kept")
        world.run(200 * MS)
        world.crash("A")
        start = world.now
        world.run(10 * SECOND, until=settled(world))
        assert world.now - start <= 2 * world.replica("B").patience.us + 5 * RTT
        world.put("D", "new")
        world.run(SECOND)
        assert everywhere(world, "kept", "new")


def test_a_partitioned_old_leader_decides_nothing_and_steps_down():
    world, split = elected(), cut("A", "BC")
    world.put("A", "lost")
    world.run(10 * SECOND, lost=split, until=leading(world, "B", "C"))
    world.run(RTT, lost=split)
    world.put("B", "b")
    world.put("C", "c")
    world.run(SECOND, lost=split)
    assert "A" not in leaders(world)
    assert count(world, "step_downs", "A") == 1
    told = len(world.answers("A"))
    world.put("A", "late")
    assert [answer.code for answer in world.answers("A")[told:]] == ["not-proposed"]
    assert nowhere(world, "lost")
    world.run(3 * SECOND)
    assert everywhere(world, "b", "c")
    assert world.value("A", (0, 1))[0] in (["b"], ["c"]), "the slot of the old leader's proposal"
    heal_and_finish(world)
    assert everywhere(world, "lost"), "A's node proposed it anew"
    assert keys(world, "B").index("lost") > 1


def test_a_leader_that_is_not_heard_is_succeeded_though_it_hears_all():
    world = elected()
    world.run(10 * SECOND, lost=["A>"], until=leading(world, "B", "C"))
    world.run(SECOND, lost=["A>"])
    assert "A" not in leaders(world)
    heal_and_finish(world)


def test_a_leader_that_hears_nobody_steps_down():
    world = elected(5)
    world.run(2 * SECOND, lost=[">A"], until=lambda: "A" not in leaders(world))
    world.run(10 * SECOND, lost=[">A"], until=leading(world))
    heal_and_finish(world)


def test_a_leader_that_hears_a_majority_stays():
    world = elected(5)
    world.run(10 * SECOND, lost=cut("ABC", "DE"))
    assert leaders(world) == ["A"]
    assert count(world, "step_downs") == 0


def test_a_leader_that_was_stopped_itself_counts_anew():
    world = elected()
    world.wait("A", 30 * SECOND)
    assert leaders(world) == ["A"]


def test_a_member_that_comes_back_does_not_disturb():
    world = elected(5)
    world.run(20 * SECOND, lost=cut("ABCD", "E"))
    assert count(world, "probes", "E") > 3
    world.run(5 * SECOND)
    assert leaders(world) == ["A"]
    assert count(world, "elections") == 1
    assert world.replica("E").leader == 0


def test_a_member_that_promised_too_much_is_taken_in_without_a_long_pause():
    world = elected(5)
    world.crash("E")
    disk = world.actors[4].disk
    disk.append(encode(Promised(16 * 50 + 4)))
    disk.sync()
    world.restart("E")
    start = world.now
    world.run(2 * SECOND, until=lambda: "A" not in leaders(world))
    world.run(10 * SECOND, until=settled(world))
    assert leaders(world) == ["A"]
    assert world.now - start < 12 * RTT
    assert world.replica("A").promised > 16 * 50


def test_a_restarted_leader_is_missed_at_once_not_after_a_patience_of_silence():
    world = elected()
    world.crash("A")
    world.restart("A")
    world.run(100 * MS)
    assert world.replica("B").leader is None
    world.put("B", "refused")
    assert [answer.code for answer in world.answers("B")] == ["not-proposed"]
    heal_and_finish(world)


def test_a_gap_is_filled_with_a_no_op():
    world = elected()
    for key in ("first", "second", "third"):
        world.put("A", key)
    world.run(RTT * 3 // 4, lost=["> Accept 2", "A>C Accept"])
    world.crash("A")
    world.drop("A>")
    world.run(10 * SECOND, until=leading(world, "B", "C"))
    world.run(SECOND)
    assert keys(world, "B") == ["first", "third"]
    assert [world.value("B", (0, slot)) for slot in (1, 2, 3)] == [
        (["first"], ()),
        (None, ()),
        (["third"], ()),
    ]
    assert count(world, "noops") == 1
    world.restart("A")
    heal_and_finish(world)
    assert nowhere(world, "second")


def test_phase_one_proposes_the_vote_with_the_highest_ballot():
    world = directed(3, "multipaxos")
    find("last-vote-heard").search.play(world)
    assert [written(world, name, 1) for name in "ABC"] == [[b"2"]] * 3


def test_a_candidate_behind_a_promise_catches_up_before_it_leads():
    world = elected()
    kept = [f"k{number}" for number in range(50)]
    for key in kept:
        world.put("B", key)
    world.run(500 * MS, lost=cut("AB", "C"))
    world.crash("A")
    elect(world, "C", "B")
    world.run(200 * MS, lost=["> Learn|Fetch"])
    assert leaders(world) == []
    world.run(SECOND, until=leading(world, "C"))
    assert world.replica("C").log.chosen >= 50
    assert count(world, "noops") == 0
    world.run(SECOND)
    assert everywhere(world, *kept)


@pytest.mark.parametrize("loss", [0, 0.3])
def test_a_long_promise_comes_in_chunks(loss):
    chance = random.Random(3)
    with tuned((("multipaxos.CHUNK_SLOTS", 7),)):
        world = elected(5)
        kept = [f"k{number}" for number in range(100)]
        for key in kept:
            world.put("A", key)
        world.run(RTT * 3 // 4, lost=["A>E Accept"])
        world.crash("A")
        world.drop("A>")
        elect(world, "E", "B", "C")
        for _ in range(2_000):
            world.flight = [each for each in world.flight if chance.random() >= loss]
            world.run(10 * MS)
            if settled(world)():
                break
        world.run(5 * SECOND)
        assert everywhere(world, *kept)
        assert max(len(message.votes) for _, message in sent(world, Promise)) == 7
        world.restart("A")
        heal_and_finish(world)


@pytest.mark.parametrize("kind", ["Probe", "Prepare", "Promise"])
def test_a_lost_question_or_promise_is_repeated(kind):
    world = directed(3, "multipaxos")
    world.run(60 * MS, lost=[f"> {kind}"])
    world.run(SECOND, until=settled(world))
    assert leaders(world) == ["A"]


@pytest.mark.parametrize("source", range(3))
def test_leadership_moves_on_request_and_no_proposal_is_lost(source):
    world = elected(3, leader=source)
    targets = [*range(source + 1, 3), *range(source), source]
    for target in "".join("ABC"[each] for each in targets):
        (chief,) = leaders(world)
        batches = []
        for burst in range(8):
            if burst == 4:
                world.hand_over(chief, target)
            for number in range(5 * (chief in leaders(world))):
                batches.append(f"{target}{burst}{number}")
                world.put(chief, batches[-1])
            world.run(RTT // 4)
        world.run(SECOND, until=lambda target=target: leaders(world) == [target])
        assert len(batches) > 20
        world.run(300 * MS)
        assert everywhere(world, *batches)
    assert count(world, "probes") == 1


def test_a_successor_waits_for_the_promise_that_brings_every_proposal():
    """B and C make a majority, but A alone has voted for its last proposal."""
    world = elected()
    world.put("A", "x")
    world.drop("A>")
    world.hand_over("A", "C")
    world.deliver("A>C", "TakeOver")
    world.deliver("C>B", "Prepare")
    world.deliver("B>C", "Promise")
    assert leaders(world) == ["A"]
    world.run(SECOND)
    assert leaders(world) == ["C"]
    assert [world.value(name, (0, 1)) for name in "ABC"] == [(["x"], ())] * 3


def test_a_hand_over_takes_a_few_round_trips():
    world = elected(5)
    world.put("B", "x")
    world.run(SECOND)
    world.hand_over("A", "D")
    start = world.now
    world.run(SECOND, until=leading(world, "D"))
    assert world.now - start <= 2 * RTT + 1


def test_a_successor_that_is_behind_catches_up_first():
    world = elected()
    kept = [f"k{number}" for number in range(50)]
    for key in kept:
        world.put("A", key)
    world.run(900 * MS, lost=cut("AB", "C"))
    world.hand_over("A", "C")
    world.run(SECOND, until=leading(world, "C"))
    world.run(SECOND)
    assert everywhere(world, *kept)


def test_a_hand_over_that_fails_leaves_the_leader_in_its_place():
    world = elected()
    world.hand_over("A", "C")
    world.run(5 * SECOND, lost=["> TakeOver"])
    assert leaders(world) == ["A"]
    asked = len(sent(world, TakeOver))
    world.put("B", "kept")
    world.run(SECOND)
    assert everywhere(world, "kept")
    assert len(sent(world, TakeOver)) == asked, "it asks no more"


def test_a_successor_that_dies_is_not_waited_for():
    world = elected()
    world.hand_over("A", "C")
    world.run(RTT // 2 + 1)
    world.crash("C")
    world.run(10 * SECOND, until=leading(world, "A", "B"))
    world.restart("C")
    heal_and_finish(world)


def test_a_promise_holds_across_a_restart():
    world = directed(3, "multipaxos")
    find("leader-forgets-promise").search.play(world)
    assert written(world, "B", 1) == [b"2"]
    assert world.executed("A") == [], "A decided in a ballot that C gave up"
    heal_and_finish(world)


def test_a_stale_leader_is_told_and_follows():
    world = elected()
    elect(world, "B", "C")
    world.run(RTT, lost=cut("A", "BC"))
    assert leaders(world) == ["A", "B"]
    world.put("A", "stale")
    world.run(2 * RTT)
    assert leaders(world) == ["B"]
    assert count(world, "nacks") > 0
    world.run(SECOND)
    assert world.replica("A").leader == 1
    heal_and_finish(world)
    assert all(world.value(name, (0, 1))[0] != ["stale"] for name in "ABC")
