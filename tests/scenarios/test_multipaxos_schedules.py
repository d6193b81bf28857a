"""Slots: what is lost, repeated or late, and what a crash at any moment may take away.

Each schedule that a broken replica would get wrong is shown to catch one, here or in the museum."""

from collections import Counter

import pytest

from epaxos.node.requests import Reply
from epaxos.protocols.multipaxos.messages import (
    Fetch,
    Forward,
    Heartbeat,
    Learn,
    Returned,
    Voted,
)
from epaxos.protocols.multipaxos.replica import MultiPaxosReplica
from epaxos.protocols.multipaxos.stages import Leading
from epaxos.registry import find_protocol
from epaxos.sim.check.checkers import INVARIANT, ONCE, Violation
from epaxos.sim.museum import find
from epaxos.sim.museum.exhibit import Swarm, in_replica
from epaxos.sim.run import CleanRun
from epaxos.sim.schedule.schedule import Crash
from epaxos.sim.schedule.stage import directed
from epaxos.sim.soak import Profile, run_seed
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
    posts,
    sent,
    settled,
    written,
)


class CountsMessages(MultiPaxosReplica):
    """Broken: every acknowledgement is another vote."""

    def _on_accept_ok(self, source, m, now):
        super()._on_accept_ok(source, m, now)
        for slot in range(m.first, m.last + 1):
            entry = self.log.entries.get(slot)
            if isinstance(self.stage, Leading) and entry is not None and not entry.chosen:
                heard = self.__dict__.setdefault("heard", {})
                heard[slot] = heard.get(slot, 1) + 1
                if heard[slot] >= self.majority:
                    self._choose(slot, entry)


class TakesForwardsOfAnyBallot(MultiPaxosReplica):
    """Broken: a leader takes what was forwarded to an earlier leadership."""

    def _on_forward(self, source, m, now):
        if isinstance(self.stage, Leading):
            super()._on_forward(source, Forward(self.stage.ballot, m.payload), now)


class ReturnsEveryForward(MultiPaxosReplica):
    """Broken: a former leader says of every batch that it did not propose it."""

    def _on_forward(self, source, m, now):
        if self.former is not None:
            self.former._seen.clear()
        super()._on_forward(source, m, now)


class ForgetsVotes(MultiPaxosReplica):
    """Broken: acknowledges before the vote is durable."""

    def restore(self, record):
        if not isinstance(record, Voted):
            super().restore(record)


def put_all(world, name, *wanted):
    for key in wanted:
        world.put(name, key)
    return wanted


def numbered(number):
    return [f"k{each}" for each in range(number)]


# Without faults ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(1, 10))
def test_every_member_executes_what_any_member_proposes(n):
    world = elected(n, leader=n // 2)
    for name in "ABCDEFGHI"[:n]:
        world.put(name, name)
    world.run(3 * RTT)
    assert everywhere(world, *"ABCDEFGHI"[:n])


def test_a_batch_of_the_leader_is_chosen_after_one_round_trip_and_told_at_once():
    world = elected(5)
    world.run(SECOND)
    world.put("A", "x")
    start = world.now
    world.run(SECOND, until=lambda: not nowhere(world, "x"))
    assert world.now - start == RTT
    assert keys(world, "A") == ["x"]
    world.run(SECOND, until=lambda: everywhere(world, "x"))
    assert world.now - start == RTT * 3 // 2


def test_the_origin_of_a_forwarded_batch_executes_it_after_two_round_trips():
    world = elected(5)
    world.run(SECOND)
    world.put("C", "x")
    start = world.now
    world.run(SECOND, until=lambda: everywhere(world, "x"))
    assert world.now - start == 2 * RTT


def test_a_slot_costs_one_accept_one_answer_and_one_commit_index_per_follower():
    world = elected(5)
    world.run(SECOND)
    before = posts(world)
    world.put("A", "x")
    world.run(SECOND)
    cost = posts(world) - before
    assert cost.pop("Heartbeat") > 0
    assert cost == Counter({"Accept": 4, "AcceptOk": 4, "CommitIndex": 4})


# Votes and the commit index ----------------------------------------------------------------------


def test_a_commit_index_says_nothing_of_votes_in_other_ballots():
    world = directed(3, "multipaxos")
    find("index-over-any-vote").search.play(world)
    assert world.executed("A") == []
    world.run(2 * SECOND)
    assert [written(world, name, 1) for name in "ABC"] == [[b"2"]] * 3
    assert count(world, "learned", "A") == 1


def test_lost_accepts_are_sent_again():
    world = elected(5)
    wanted = put_all(world, "A", *numbered(5))
    world.run(50 * MS, lost=["> Accept"])
    world.run(300 * MS)
    assert everywhere(world, *wanted)
    assert count(world, "retransmissions") == 5 * 4


def test_accepts_are_not_sent_again_to_who_answered():
    world = elected(5)
    world.put("A", "x")
    world.run(SECOND, lost=["A>C Accept", "A>D Accept", "A>E Accept"])
    times = [len(world.sent[0, member]["Accept 1 b1@A"]) for member in (1, 2, 3, 4)]
    assert times[0] == 1
    assert min(times[1:]) > 1


def test_accepts_are_not_sent_again_once_chosen():
    world = elected()
    world.put("A", "x")
    world.run(2 * SECOND, lost=["A>C Accept"])
    assert count(world, "retransmissions") == 0
    assert everywhere(world, "x")
    assert count(world, "learned", "C") == 1


def test_repetitions_become_rarer_while_nothing_is_chosen():
    world = elected()
    world.put("A", "x")
    world.run(10 * SECOND, lost=["> Accept"])
    assert 2 * 5 < count(world, "retransmissions") < 2 * 12


@pytest.mark.parametrize("kind", ["AcceptOk", "CommitIndex"])
def test_lost_acknowledgements_and_commit_indexes_are_made_good(kind):
    world = elected()
    world.put("A", "x")
    world.run(50 * MS, lost=[f"> {kind}"])
    world.run(SECOND)
    assert everywhere(world, "x")


def repeated_acknowledgements(replica):
    """Five members, of which the leader reaches one; its acknowledgement comes often."""
    world = elected(5, replica=replica)
    world.put("A", "x")
    world.deliver("A>B", "Accept")
    for _ in range(4):
        world.deliver("B>A", "AcceptOk", keep=True)
    return world


def test_one_member_counts_once():
    world = repeated_acknowledgements(MultiPaxosReplica)
    world.run(500 * MS, lost=["A>C", "A>D", "A>E"])
    assert nowhere(world, "x")


def test_who_counts_messages_is_caught():
    with pytest.raises(Violation, match="MP5") as caught:
        repeated_acknowledgements(CountsMessages)
    assert caught.value.property == INVARIANT


# Catching up -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Fetch", "Learn"])
def test_a_lost_fetch_or_learn_is_asked_for_again_elsewhere(kind):
    world = elected(5)
    wanted = put_all(world, "A", *numbered(20))
    world.run(500 * MS, lost=cut("ABCD", "E"))
    world.run(SECOND, lost=[f"A> {kind}", f">A {kind}"])
    assert everywhere(world, *wanted)
    assert count(world, "fetches", "E") >= 2


def test_a_long_absence_is_made_good_by_bounded_ranges_one_at_a_time():
    with tuned((("multipaxos.CHUNK_SLOTS", 100),)):
        world = elected(deep=False)
        wanted = numbered(1250)
        for first in range(0, 1250, 50):
            put_all(world, "A", *wanted[first : first + 50])
            world.run(5 * MS, lost=cut("AB", "C"))
        world.run(100 * MS, lost=cut("AB", "C"))
        chosen = world.replica("A").log.chosen
        assert chosen == 1250
        world.run(2 * SECOND)
    assert keys(world, "C") == keys(world, "A")
    outstanding, most = 0, 0
    for _, message in sent(world, Fetch | Learn):
        outstanding += 1 if isinstance(message, Fetch) else -1
        most = max(most, outstanding)
    assert most == 1
    assert max(asked.last - asked.first for _, asked in sent(world, Fetch)) < 100
    answers = [len(message.payloads) for _, message in sent(world, Learn)]
    assert sum(answers) == chosen
    assert max(answers) == 100


def test_who_cannot_reach_the_leader_learns_from_others():
    world = elected()
    world.put("A", "a")
    world.put("B", "b")
    world.run(10 * SECOND, lost=cut("A", "C"))
    assert leaders(world) == ["A"]
    assert everywhere(world, "a", "b")


# Forwarding --------------------------------------------------------------------------------------


def test_a_duplicated_forward_is_proposed_once():
    world = elected()
    wanted = put_all(world, "B", *numbered(5))
    for each in list(world.flight):
        world.deliver("B>A", each.label, nth=each.nth, keep=True)
    world.run(SECOND)
    assert everywhere(world, *wanted)
    assert count(world, "ignored_repeated", "A") == 5
    assert world.replica("A").log.chosen == 5


def test_a_forward_is_sent_once_even_if_it_is_lost():
    world = elected()
    world.put("B", "x")
    world.run(10 * SECOND, lost=["> Forward"])
    assert nowhere(world, "x")
    assert len(sent(world, Forward)) == 1


def hand_over(world, source, target):
    world.hand_over(source, target)
    world.run(SECOND, until=leading(world, target))
    world.run(SECOND)


def forward_meets_a_later_leadership(replica):
    """A copy of B's forward arrives when A leads again, by another ballot."""
    world = elected(replica=replica)
    world.put("B", "x")
    world.deliver("B>A", "Forward", keep=True)
    world.run(SECOND, held=["> Forward"])
    hand_over(world, "A", "C")
    hand_over(world, "C", "A")
    world.deliver("B>A", "Forward")
    world.run(SECOND)
    return world


def test_a_forward_to_an_earlier_leadership_is_dropped():
    assert everywhere(forward_meets_a_later_leadership(MultiPaxosReplica), "x")


def test_who_takes_forwards_of_any_ballot_is_caught():
    with pytest.raises(Violation) as caught:
        forward_meets_a_later_leadership(TakesForwardsOfAnyBallot)
    assert caught.value.property == ONCE


def test_a_forward_that_a_hand_over_overtakes_is_returned_and_proposed_anew():
    world = elected()
    world.put("B", "x")
    world.run(SECOND, held=["> Forward"])
    world.hand_over("A", "C")
    world.run(SECOND, held=["> Forward"], until=leading(world, "C"))
    world.run(RTT)
    assert nowhere(world, "x")
    world.deliver("B>A", "Forward")
    world.run(SECOND)
    assert everywhere(world, "x")
    first, again = (message.payload.batch.number for _, message in sent(world, Forward))
    (slot,) = world.executed("B")
    assert world.actors[1].decided[slot][0].batch.number == again != first
    assert count(world, "returned", "B") == 1
    assert [type(answer) for answer in world.answers("B")] == [Reply]


def copy_meets_the_former_leader(replica):
    """A proposes B's batch, which C hears of and B does not, and hands over to C. A copy of the
    forward arrives at A before B has caught up."""
    world = elected(replica=replica)
    world.put("B", "x")
    world.deliver("B>A", "Forward", keep=True)
    world.run(300 * MS, lost=["A>B", "> Fetch"], held=["> Forward"])
    world.hand_over("A", "C")
    world.run(SECOND, lost=["> Fetch"], held=["> Forward"], until=leading(world, "C"))
    world.run(2 * RTT, lost=["> Fetch"], held=["> Forward"])
    assert world.replica("B").leader == 2
    assert keys(world, "C") == ["x"]
    assert keys(world, "B") == []
    world.deliver("B>A", "Forward")
    world.run(SECOND)
    return world


def test_a_forward_that_the_former_leader_proposed_is_not_returned():
    world = copy_meets_the_former_leader(MultiPaxosReplica)
    assert everywhere(world, "x")
    assert sent(world, Returned) == []
    assert [type(answer) for answer in world.answers("B")] == [Reply]


def test_who_returns_what_it_proposed_is_caught():
    """The commands of that batch are executed, and proposed again."""
    with pytest.raises(Violation) as caught:
        copy_meets_the_former_leader(ReturnsEveryForward)
    assert caught.value.property == ONCE


def test_a_returned_batch_waits_for_the_next_leader():
    """A says that it leads no longer before B hears that C does."""
    world = elected()
    world.put("B", "x")
    world.hand_over("A", "C")
    quiet = {"lost": ["C>B"], "held": ["> Forward"]}
    world.run(SECOND, **quiet, until=leading(world, "C"))
    world.deliver("B>A", "Forward")
    world.run(2 * RTT, **quiet)
    assert count(world, "returned", "B") == 1
    assert len(sent(world, Forward)) == 1
    world.run(2 * SECOND)
    assert len(sent(world, Forward)) == 2
    assert everywhere(world, "x")


def test_who_led_in_an_earlier_life_returns_nothing():
    """It may have proposed the batch, and has forgotten."""
    world = elected()
    world.put("B", "x")
    world.crash("A")
    world.restart("A")
    world.run(20 * SECOND, held=["> Forward"], until=settled(world))
    world.deliver("B>A", "Forward")
    world.run(SECOND)
    assert sent(world, Returned) == []
    assert nowhere(world, "x")


# Forgetting --------------------------------------------------------------------------------------


def test_what_is_executed_everywhere_is_forgotten():
    world = elected()
    for number in range(40):
        for name in "ABC":
            world.put(name, f"{name}{number}")
        world.run(10 * MS)
    world.run(SECOND)
    for name in "ABC":
        replica = world.replica(name)
        assert replica.floor == (120,)
        assert replica.live_bytes == 0
        assert replica.slowest_member() is None


def test_a_dead_member_holds_the_floor_and_is_named():
    world = elected()
    world.crash("C")
    wanted = put_all(world, "A", *numbered(40))
    world.run(SECOND)
    chief = world.replica("A")
    assert chief.floor == (0,)
    assert chief.slowest_member() == 2
    assert chief.live_bytes > 40 * 600
    world.restart("C")
    world.run(2 * SECOND)
    assert everywhere(world, *wanted)
    assert chief.floor == (40,)
    assert chief.slowest_member() is None


def test_what_was_executed_is_told_every_thirty_two_slots_and_soon_after_the_last():
    world = elected()
    world.run(SECOND)
    before = len(sent(world, Heartbeat))
    for key in numbered(100):
        world.put("A", key)
        world.run(MS)
    world.run(300 * MS)
    told = sent(world, Heartbeat)[before:]
    values = sorted({message.executed[0] for name, message in told if name == "A"})
    assert values[-1] == 100
    assert len(values) <= 10


# Crashes -----------------------------------------------------------------------------------------


def three_puts():
    world = elected()
    for name in "ABC":
        world.put(name, name)
    return world


def deliveries():
    """How many messages it takes until nothing is in flight."""
    world, number = three_puts(), 0
    while world.flight:
        world.deliver()
        number += 1
    return number


@pytest.mark.parametrize("victim", ["A", "B"])
@pytest.mark.parametrize("kept", [0, 1, 99])
def test_a_crash_between_any_two_steps_loses_nothing_that_was_said(victim, kept):
    for moment in range(deliveries() + 1):
        world = three_puts()
        for _ in range(moment):
            world.deliver()
        world.crash(victim, kept=kept)
        world.run(moment * 20 * MS)
        world.restart(victim)
        heal_and_finish(world)


@pytest.mark.parametrize(
    "point",
    [
        {"appended": False},
        {"kept": 0},
        {"kept": 1},
        {"kept": 99},
        {"sent": 0},
        {"sent": 1},
    ],
    ids=str,
)
def test_a_crash_inside_any_step_loses_nothing_that_was_said(point):
    """Before append, between append and sync, between sync and the first message, between two
    messages."""
    for moment in range(deliveries()):
        world = three_puts()
        for _ in range(moment):
            world.deliver()
        target = world.flight[0].target
        world.deliver(crash=Crash(target, world.now, **point))
        world.run(30 * MS)
        world.restart("ABC"[target])
        heal_and_finish(world)


def test_the_whole_cluster_restarts():
    world = elected(5)
    for name in "ABCDE":
        world.put(name, name)
    world.run(SECOND)
    for _ in range(3):
        world.crash(*"ABCDE")
        for name in "ABCDE":
            world.restart(name)
        world.run(10 * SECOND, until=settled(world))
    assert everywhere(world, *"ABCDE")
    heal_and_finish(world)


# At random ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", range(8))
def test_random_runs_agree_and_end_in_peace(block):
    for seed in range(block * 30, block * 30 + 30):
        assert isinstance(run_seed(Profile("multipaxos"), seed), CleanRun), seed


@pytest.mark.parametrize("kind", [CountsMessages, ForgetsVotes])
def test_random_runs_catch_what_is_broken(kind):
    swarm = Swarm((3, 5), faults={"crashes": 6, "loss": 0.1, "duplication": 0.3})
    with in_replica(kind)(find_protocol("multipaxos")) as planted:
        assert any(swarm.trial(planted, seed) for seed in range(40))


def test_the_same_seed_is_the_same_run():
    one, other = (run_seed(Profile("multipaxos"), 11) for _ in range(2))
    assert one == other
