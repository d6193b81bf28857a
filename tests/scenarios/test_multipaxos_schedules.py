"""Slots: what is lost, repeated or late, and what a crash at any moment may take away.

Each schedule that a broken replica would get wrong is shown to catch one."""

import pytest

from epaxos.protocols.multipaxos import log as log_module
from epaxos.protocols.multipaxos import replica as replica_module
from epaxos.protocols.multipaxos.messages import (
    Accept,
    AcceptOk,
    CommitIndex,
    Fetch,
    Forward,
    Heartbeat,
    Learn,
    Voted,
)
from epaxos.protocols.multipaxos.replica import MultiPaxosReplica
from epaxos.protocols.multipaxos.stages import Leading
from tests.multipaxos_world import MS, SECOND, World, heal_and_finish, random_schedule

A, B, C, D, E = range(5)


class BelievesAnyVote(MultiPaxosReplica):
    """Broken: the commit index makes votes of other ballots chosen."""

    def _choose_voted(self, ballot, commit):
        while self.log.chosen < commit:
            slot = self.log.chosen + 1
            entry = self.log.entries.get(slot)
            if entry is None:
                return
            self._choose(slot, entry)


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


class TakesEveryForward(MultiPaxosReplica):
    """Broken: a forwarded batch is proposed as often as it arrives."""

    def _on_forward(self, source, m, now):
        if isinstance(self.stage, Leading):
            self.stage._seen.clear()
        super()._on_forward(source, m, now)


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


class ForgetsPromises(MultiPaxosReplica):
    """Broken: says a promise that it has not recorded."""

    def _promise(self, ballot):
        self.promised = ballot
        self.leader = None
        self.patience.heard_at = None


class ForgetsVotes(MultiPaxosReplica):
    """Broken: acknowledges before the vote is durable."""

    def restore(self, record):
        if not isinstance(record, Voted):
            super().restore(record)


def test_every_member_executes_what_any_member_proposes():
    for n in range(1, 10):
        world = World(n, leader=n // 2).elect()
        batches = [world.propose(me) for me in range(n)]
        world.run(3 * world.rtt)
        assert all(map(world.is_executed, batches))


def test_a_batch_of_the_leader_is_chosen_after_one_round_trip_and_told_at_once():
    world = World(5).elect()
    world.run(SECOND)
    batch = world.propose(A)
    start = world.now
    world.run_until(lambda: world.is_executed(batch, everywhere=False))
    assert world.now - start == world.rtt
    world.run_until(lambda: world.is_executed(batch))
    assert world.now - start == world.rtt * 3 // 2


def test_the_origin_of_a_forwarded_batch_executes_it_after_two_round_trips():
    world = World(5).elect()
    world.run(SECOND)
    batch = world.propose(C)
    start = world.now
    world.run_until(lambda: world.is_executed(batch))
    assert world.now - start == 2 * world.rtt


def test_a_slot_costs_one_accept_one_answer_and_one_commit_index_per_follower():
    world = World(5).elect()
    world.run(SECOND)
    sent = []
    world.lose = lambda s, t, m: bool(
        sent.append(type(m).__name__) if not isinstance(m, Heartbeat) else None
    )
    world.propose(A)
    world.run(SECOND)
    assert sorted(sent) == ["Accept"] * 4 + ["AcceptOk"] * 4 + ["CommitIndex"] * 4


def commit_index_over_another_ballot(kind):
    """A voted X in b1, alone; B and C chose Y in that slot; B's index reaches A before Y does."""
    world = World(3, kind=kind).elect()
    world.isolate(A)
    stale = world.propose(A)
    world.campaign(B)
    world.run_until(lambda: world.members[B].leads, SECOND)
    kept = world.propose(B)
    world.run(100 * MS)
    world.heal()
    world.run(2 * SECOND)
    assert world.is_executed(kept)
    assert not world.is_executed(stale, everywhere=False)
    assert world.members[A].replica.statistics()["learned"] == 1


def test_a_commit_index_says_nothing_of_votes_in_other_ballots():
    commit_index_over_another_ballot(MultiPaxosReplica)


def test_who_believes_any_vote_is_caught():
    with pytest.raises(AssertionError, match="agreement: slot 1"):
        commit_index_over_another_ballot(BelievesAnyVote)


def test_lost_accepts_are_sent_again():
    world = World(5).elect()
    world.lose = lambda s, t, m: isinstance(m, Accept)
    batches = [world.propose(A) for _ in range(5)]
    world.run(50 * MS)
    world.lose = None
    world.run(300 * MS)
    assert all(map(world.is_executed, batches))
    assert world.count("retransmissions") == 5 * 4


def test_accepts_are_not_sent_again_to_who_answered_nor_once_chosen():
    world = World(3).elect()
    world.lose = lambda s, t, m: isinstance(m, Accept) and t == C
    batch = world.propose(A)
    world.run(2 * SECOND)
    assert world.count("retransmissions") == 0
    assert world.is_executed(batch)
    assert world.members[C].replica.statistics()["learned"] == 1


def test_repetitions_become_rarer_while_nothing_is_chosen():
    world = World(3).elect()
    world.lose = lambda s, t, m: isinstance(m, Accept)
    world.propose(A)
    world.run(10 * SECOND)
    assert 2 * 5 < world.count("retransmissions") < 2 * 12


def test_lost_acknowledgements_and_commit_indexes_are_made_good():
    for kind in (AcceptOk, CommitIndex):
        world = World(3).elect()
        world.lose = lambda s, t, m, kind=kind: isinstance(m, kind)
        batch = world.propose(A)
        world.run(50 * MS)
        world.lose = None
        world.run(SECOND)
        assert world.is_executed(batch)


def test_a_lost_fetch_or_learn_is_asked_for_again_elsewhere():
    for kind in (Fetch, Learn):
        world = World(5).elect()
        world.isolate(E)
        batches = [world.propose(A) for _ in range(20)]
        world.run(500 * MS)
        world.heal()
        world.lose = lambda s, t, m, kind=kind: isinstance(m, kind) and A in (s, t)
        world.run(SECOND)
        assert all(map(world.is_executed, batches))
        assert world.members[E].replica.statistics()["fetches"] >= 2


def duplicated_forward(kind):
    world = World(3, kind=kind).elect()
    world.repeat = lambda s, t, m: isinstance(m, Forward)
    batches = [world.propose(B) for _ in range(5)]
    world.run(SECOND)
    assert all(map(world.is_executed, batches))
    assert world.members[A].replica.log.chosen == 5


def test_a_duplicated_forward_is_proposed_once():
    duplicated_forward(MultiPaxosReplica)


def test_who_takes_every_forward_is_caught():
    with pytest.raises(AssertionError, match="exactly once"):
        duplicated_forward(TakesEveryForward)


def forward_meets_a_later_leadership(kind):
    """A copy of B's forward arrives when A leads again, by another ballot."""
    world = World(3, kind=kind).elect()
    world.repeat = lambda s, t, m: isinstance(m, Forward)
    kept = []
    world.hold = lambda s, t, m: isinstance(m, Forward) and len(kept) % 2 == bool(kept.append(m))
    batch = world.propose(B)
    world.run(SECOND)
    world.repeat = None
    assert len(world.held) == 1
    for target in (C, A):
        world.leading().replica.transfer(target, world.now)
        world.leading().take()
        world.run_until(lambda target=target: world.members[target].leads, SECOND)
    world.run(SECOND)
    world.release()
    world.run(SECOND)
    assert world.is_executed(batch)


def test_a_forward_to_an_earlier_leadership_is_dropped():
    forward_meets_a_later_leadership(MultiPaxosReplica)


def test_who_takes_forwards_of_any_ballot_is_caught():
    with pytest.raises(AssertionError, match="exactly once"):
        forward_meets_a_later_leadership(TakesForwardsOfAnyBallot)


def forward_overtaken_by_a_hand_over(kind, copies=1):
    """B's forward, or a copy of it, arrives at A when A has handed over to C."""
    world = World(3, kind=kind).elect()
    world.repeat = lambda s, t, m: copies > 1 and isinstance(m, Forward)
    kept = []
    world.hold = lambda s, t, m: (
        isinstance(m, Forward) and len(kept) % copies == copies - 1 | bool(kept.append(m))
    )
    batch = world.propose(B)
    world.run(SECOND)
    world.repeat = world.hold = None
    world.members[A].replica.transfer(C, world.now)
    world.members[A].take()
    world.run_until(lambda: world.members[C].leads, SECOND)
    world.run(SECOND)
    world.release()
    world.run(SECOND)
    return world, batch


def test_a_forward_that_a_hand_over_overtakes_is_returned_and_proposed_anew():
    world, batch = forward_overtaken_by_a_hand_over(MultiPaxosReplica)
    assert not world.is_executed(batch, everywhere=False)
    (again,) = world.returned.values()
    assert world.is_executed(again)
    assert world.members[B].replica.statistics()["returned"] == 1


def test_a_forward_that_the_former_leader_proposed_is_not_returned():
    world, batch = forward_overtaken_by_a_hand_over(MultiPaxosReplica, copies=2)
    assert world.is_executed(batch)
    assert not world.returned


def test_who_returns_what_it_proposed_is_caught():
    """The commands of that batch are executed, and proposed again."""
    world, batch = forward_overtaken_by_a_hand_over(ReturnsEveryForward, copies=2)
    assert world.is_executed(batch)
    assert world.is_executed(world.returned[B, batch.batch.number])


def test_a_returned_batch_waits_for_the_next_leader():
    """A says that it leads no longer before B hears that C does."""
    world = World(3).elect()
    replica = world.members[B].replica
    world.hold = lambda s, t, m: isinstance(m, Forward)
    world.propose(B)
    world.hold = None
    world.cuts = {(C, B)}
    world.members[A].replica.transfer(C, world.now)
    world.members[A].take()
    world.run_until(lambda: world.members[C].leads, SECOND)
    world.release()
    world.run(2 * world.rtt)
    assert replica.statistics()["returned"] == 1
    assert not world.returned
    world.heal()
    world.run(2 * SECOND)
    assert all(map(world.is_executed, world.returned.values()))
    assert len(world.returned) == 1


def test_who_led_in_an_earlier_life_returns_nothing():
    """It may have proposed the batch, and has forgotten."""
    world = World(3).elect()
    world.hold = lambda s, t, m: isinstance(m, Forward)
    world.propose(B)
    world.hold = None
    world.members[A].crash(0)
    world.members[A].start()
    world.run_until(world.settled, 20 * SECOND)
    world.release()
    world.run(SECOND)
    assert not world.returned


def test_a_forward_is_sent_once_even_if_it_is_lost():
    world = World(3).elect()
    world.lose = lambda s, t, m: isinstance(m, Forward)
    batch = world.propose(B)
    world.lose = None
    world.run(10 * SECOND)
    assert not world.is_executed(batch, everywhere=False)


def repeated_acknowledgements(kind):
    """Five members, of which the leader reaches one; its acknowledgement comes often."""
    world = World(5, kind=kind).elect()
    world.cuts = {(A, C), (A, D), (A, E)}
    world.repeat = lambda s, t, m: isinstance(m, AcceptOk)
    batch = world.propose(A)
    world.run(500 * MS)
    assert not world.is_executed(batch, everywhere=False)


def test_one_member_counts_once():
    repeated_acknowledgements(MultiPaxosReplica)


def test_who_counts_messages_is_caught():
    with pytest.raises(AssertionError, match="MP5"):
        repeated_acknowledgements(CountsMessages)


def test_a_long_absence_is_made_good_by_bounded_ranges_one_at_a_time(monkeypatch):
    for module in (replica_module, log_module):
        monkeypatch.setattr(module, "CHUNK_SLOTS", 100)
    world = World(3)
    world.check_every = 50
    world.elect()
    world.isolate(C)
    for _ in range(25):
        for _ in range(50):
            world.propose(A)
        world.run(5 * MS)
    world.run(100 * MS)
    asked, answers, outstanding = [], [], []

    def watch(source, target, message):
        if isinstance(message, Fetch):
            asked.append(message)
            outstanding.append(len(asked) - len(answers))
        elif isinstance(message, Learn):
            answers.append(len(message.payloads))
        return False

    world.lose = watch
    chosen = world.members[A].replica.log.chosen
    assert chosen == 1250
    world.cuts.clear()
    world.run(2 * SECOND)
    assert len(world.members[C].history) == chosen
    assert sum(answers) == chosen
    assert max(answers) == 100
    assert max(outstanding) == 1


def test_who_cannot_reach_the_leader_learns_from_others():
    world = World(3).elect()
    world.cut([A], [C])
    batches = [world.propose(me) for me in (A, B)]
    world.run(10 * SECOND)
    assert world.members[A].leads
    assert all(map(world.is_executed, batches))


def test_what_is_executed_everywhere_is_forgotten():
    world = World(3).elect()
    for _ in range(100):
        for me in range(3):
            world.propose(me)
        world.run(10 * MS)
    world.run(SECOND)
    for member in world.members:
        assert member.replica.floor == (300,)
        assert member.replica.live_bytes == 0
        assert member.replica.slowest_member() is None


def test_a_dead_member_holds_the_floor_and_is_named():
    world = World(3).elect()
    world.crash(C)
    batches = [world.propose(A) for _ in range(40)]
    world.run(SECOND)
    chief = world.members[A].replica
    assert chief.floor == (0,)
    assert chief.slowest_member() == C
    assert chief.live_bytes > 40 * 600
    world.restart(C)
    world.run(2 * SECOND)
    assert all(map(world.is_executed, batches))
    assert chief.floor == (40,)
    assert chief.slowest_member() is None


def test_progress_is_told_every_thirty_two_slots_and_soon_after_the_last():
    world = World(3).elect()
    world.run(SECOND)
    told = []
    world.lose = lambda s, t, m: bool(
        told.append((world.now, m.executed[0])) if isinstance(m, Heartbeat) and s == A else None
    )
    for _ in range(100):
        world.propose(A)
        world.run(MS)
    world.run(300 * MS)
    values = sorted({value for _, value in told})
    assert values[-1] == 100
    assert len(values) <= 10


@pytest.mark.parametrize("victim", [A, B])
@pytest.mark.parametrize("tail", [0, 1, 99])
def test_a_crash_between_any_two_steps_loses_nothing_that_was_said(victim, tail):
    for moment in range(0, 60, 2):
        world = World(3, seed=moment).elect()
        for me in range(3):
            world.propose(me)
        for _ in range(moment):
            world.step(world.now + SECOND)
        member = world.members[victim]
        world.crash(victim, min(tail, len(member.disk) - member.durable))
        world.run(moment * 20 * MS)
        world.restart(victim)
        heal_and_finish(world)


@pytest.mark.parametrize("seed", range(25))
def test_crashes_inside_steps_lose_nothing_that_was_said(seed):
    """Between append and sync, between sync and the first message, between two messages."""
    world = World(3, seed=seed).elect()
    world.faults = 0.02
    for _ in range(60):
        for member in world.members:
            if member.alive:
                world.propose(member.me)
            elif world.random.random() < 0.3:
                world.restart(member.me)
        world.run(30 * MS)
    heal_and_finish(world)


def test_the_whole_cluster_restarts():
    world = World(5).elect()
    batches = [world.propose(me) for me in range(5)]
    world.run(SECOND)
    for _ in range(3):
        for me in range(5):
            world.crash(me)
        for me in range(5):
            world.restart(me)
        world.run_until(world.settled, 10 * SECOND)
    assert all(map(world.is_executed, batches))
    heal_and_finish(world)


@pytest.mark.parametrize("block", range(8))
def test_random_schedules_agree_and_end_in_peace(block):
    for seed in range(block * 30, block * 30 + 30):
        random_schedule(seed)


@pytest.mark.parametrize("kind", [TakesEveryForward, CountsMessages, ForgetsPromises, ForgetsVotes])
def test_random_schedules_catch_what_is_broken(kind):
    for seed in range(40):
        try:
            random_schedule(seed, kind)
        except Exception:
            return
    pytest.fail(f"{kind.__name__} was not caught")


def test_the_same_seed_lives_the_same_life():
    lives = [random_schedule(11) for _ in range(2)]
    assert lives[0].order == lives[1].order
    assert lives[0].chosen == lives[1].chosen
    assert lives[0].now == lives[1].now
