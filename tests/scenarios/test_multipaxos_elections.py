"""Who leads, when, and what an election must carry over."""

import pytest

from epaxos.codec import encode
from epaxos.core.errors import Definite
from epaxos.core.types import ballot_replica
from epaxos.protocols.multipaxos import log as log_module
from epaxos.protocols.multipaxos.messages import (
    Accept,
    Fetch,
    Heartbeat,
    Learn,
    Prepare,
    Probe,
    Promise,
    Promised,
    TakeOver,
)
from epaxos.protocols.multipaxos.replica import MultiPaxosReplica
from tests.multipaxos_world import MS, SECOND, World, heal_and_finish

A, B, C, D, E = range(5)


def only(kind, source=None, target=None):
    """A predicate on messages: of this class, between these members."""

    def matches(s, t, message):
        return (
            isinstance(message, kind)
            and (source is None or s == source)
            and (target is None or t == target)
        )

    return matches


@pytest.mark.parametrize("leader", range(5))
def test_the_designated_leader_leads_in_two_round_trips(leader):
    world = World(5, leader=leader).start()
    world.run(2 * world.rtt + world.rtt)
    assert world.settled()
    assert world.leading().me == leader


def test_the_others_give_a_late_designated_leader_time():
    world = World(3, leader=A)
    world.members[B].start()
    world.members[C].start()
    world.run(2 * SECOND)
    assert world.count("probes") == 0
    world.members[A].start()
    world.run(1 * SECOND)
    assert world.leading().me == A


def test_the_others_elect_one_when_the_designated_leader_never_comes():
    world = World(3, leader=A)
    world.members[B].start()
    world.members[C].start()
    world.run_until(world.settled, 10 * SECOND)


def test_a_designated_leader_that_comes_too_late_does_not_disturb():
    world = World(3, leader=A)
    world.members[B].start()
    world.members[C].start()
    world.run_until(world.settled, 10 * SECOND)
    chief = world.leading()
    world.members[A].start()
    world.run(10 * SECOND)
    assert world.settled()
    assert world.leading() is chief
    assert world.count("elections") == 1


@pytest.mark.parametrize("seed", range(10))
def test_without_a_designated_leader_somebody_leads(seed):
    world = World(5, seed=seed, leader=None).elect()
    assert world.now < 4 * SECOND


def test_two_candidates_end_as_one_leader():
    world = World(3, leader=None).start()
    for me in (A, B):
        world.campaign(me)
    world.run_until(world.settled, 10 * SECOND)
    heal_and_finish(world)


def test_two_candidates_whose_prepares_cross_in_every_order():
    for hold in range(4):
        world = World(3, seed=hold, leader=None).start()
        world.hold = only(Prepare, (A, B, A, B)[hold], (B, A, C, C)[hold])
        for me in (A, B):
            world.campaign(me)
        world.run(100 * MS)
        world.release()
        world.run_until(world.settled, 10 * SECOND)
        heal_and_finish(world)


def test_a_dead_leader_is_succeeded_within_two_patiences_and_a_few_round_trips():
    for seed in range(10):
        world = World(5, seed=seed).elect()
        kept = world.propose(C)
        world.run(200 * MS)
        world.crash(A)
        start = world.now
        world.run_until(world.settled, 10 * SECOND)
        patience = world.members[B].replica.patience.us
        assert world.now - start <= 2 * patience + 5 * world.rtt
        new = world.propose(D)
        world.run(SECOND)
        assert world.is_executed(kept)
        assert world.is_executed(new)


def test_a_partitioned_old_leader_decides_nothing_and_steps_down():
    world = World(3).elect()
    world.isolate(A)
    lost = world.propose(A)
    world.run_until(lambda: world.members[B].leads or world.members[C].leads)
    world.run(world.rtt)
    kept = [world.propose(me) for me in (B, C)]
    world.run(SECOND)
    assert not world.members[A].leads
    assert world.members[A].replica.statistics()["step_downs"] == 1
    with pytest.raises(Definite):
        world.members[A].propose()
    assert not world.is_executed(lost, everywhere=False)
    world.heal()
    world.run(3 * SECOND)
    assert all(map(world.is_executed, kept))
    assert not world.is_executed(lost, everywhere=False)
    heal_and_finish(world)


def test_a_leader_that_is_not_heard_is_succeeded_though_it_hears_all():
    world = World(3).elect()
    world.cuts = {(A, B), (A, C)}
    world.run_until(lambda: world.members[B].leads or world.members[C].leads)
    world.run(SECOND)
    assert not world.members[A].leads
    heal_and_finish(world)


def test_a_leader_that_hears_nobody_steps_down():
    world = World(5).elect()
    world.cuts = {(q, A) for q in range(1, 5)}
    world.run_until(lambda: not world.members[A].leads, 2 * SECOND)
    world.run_until(lambda: world.leading() is not None)
    heal_and_finish(world)


def test_a_leader_that_hears_a_majority_stays():
    world = World(5).elect()
    world.isolate(D, E)
    world.run(10 * SECOND)
    assert world.members[A].leads
    assert world.count("step_downs") == 0


def test_a_leader_that_was_stopped_itself_counts_anew():
    world = World(3).elect()
    chief = world.members[A].replica
    chief.wake(world.now + 30 * SECOND)
    assert world.members[A].leads


def test_a_member_that_comes_back_does_not_disturb():
    world = World(5).elect()
    world.isolate(E)
    world.run(20 * SECOND)
    assert world.members[E].replica.statistics()["probes"] > 3
    world.heal()
    world.run(5 * SECOND)
    assert world.members[A].leads
    assert world.count("elections") == 1
    assert world.members[E].replica.leader == A


def test_a_member_that_promised_too_much_is_taken_in_without_a_long_pause():
    world = World(5).elect()
    world.crash(E)
    world.members[E].disk.append(encode(Promised(16 * 50 + E)))
    world.members[E].durable = len(world.members[E].disk)
    world.restart(E)
    start = world.now
    world.run_until(lambda: not world.members[A].leads, 2 * SECOND)
    world.run_until(world.settled, 10 * SECOND)
    assert world.members[A].leads
    assert world.now - start < 12 * world.rtt
    assert world.members[A].replica.promised > 16 * 50


def test_a_restarted_leader_is_missed_at_once_not_after_a_patience_of_silence():
    world = World(3).elect()
    world.crash(A)
    world.restart(A)
    world.run(100 * MS)
    assert world.members[B].replica.leader is None
    with pytest.raises(Definite):
        world.members[B].propose()
    heal_and_finish(world)


def test_a_gap_is_filled_with_a_no_op():
    world = World(3).elect()
    lost_slot = []

    def lose(source, target, message):
        if isinstance(message, Accept) and message.slot == 2:
            lost_slot.append(message)
            return True
        return isinstance(message, Accept) and target == C

    world.lose = lose
    first, second, third = (world.propose(A) for _ in range(3))
    world.run(world.rtt * 3 // 4)
    assert lost_slot
    world.crash(A)
    world.lose = None
    world.run_until(lambda: world.leading() is not None)
    world.run(SECOND)
    history = world.members[B].names()
    name = [(p.batch.origin, p.batch.number) for p in (first, second, third)]
    assert history == [name[0], None, name[2]]
    assert world.count("noops") == 1
    world.restart(A)
    heal_and_finish(world)
    assert not world.is_executed(second, everywhere=False)


def test_phase_one_proposes_the_vote_with_the_highest_ballot():
    """X is voted for by A alone in b1; B chooses Y in b2 with C; C then leads with A's promise."""
    world = World(3).elect()
    world.isolate(A)
    stale = world.propose(A)
    world.run_until(lambda: world.members[B].leads or world.members[C].leads)
    chief = world.leading().me
    other = B + C - chief
    world.lose = only((Accept, Heartbeat), other, chief)
    kept = world.propose(chief)
    world.run(200 * MS)
    world.crash(chief)
    world.heal()
    world.run_until(lambda: world.leading() is not None)
    world.run(SECOND)
    assert world.is_executed(kept)
    assert not world.is_executed(stale, everywhere=False)
    world.restart(chief)
    heal_and_finish(world)


def test_a_candidate_behind_a_promise_catches_up_before_it_leads():
    world = World(3).elect()
    world.isolate(C)
    kept = [world.propose(B) for _ in range(50)]
    world.run(500 * MS)
    world.heal()
    world.crash(A)
    replica = world.members[C].replica
    world.cuts = {(A, C)}
    world.lose = only((Learn, Fetch))
    world.campaign(C)
    world.run(200 * MS)
    assert not world.members[C].leads
    assert replica.stage is not None
    world.lose = None
    world.run_until(lambda: world.members[C].leads, SECOND)
    assert replica.log.chosen >= 50
    assert replica.statistics()["noops"] == 0
    world.run(SECOND)
    assert all(map(world.is_executed, kept))


@pytest.mark.parametrize("loss", [0, 0.3])
def test_a_long_promise_comes_in_chunks(monkeypatch, loss):
    monkeypatch.setattr(log_module, "CHUNK_SLOTS", 7)
    world = World(5, seed=3).elect()
    world.lose = only(Accept, A, E)
    kept = [world.propose(A) for _ in range(100)]
    world.run(world.rtt * 3 // 4)
    world.crash(A)
    world.lose = None
    world.loss = loss
    chunks = []

    def watch(source, target, message):
        if isinstance(message, Promise):
            chunks.append(len(message.votes))
        return False

    world.lose = watch
    world.campaign(E)
    world.run_until(lambda: world.leading() is not None, 20 * SECOND)
    world.loss = 0
    world.run(5 * SECOND)
    assert all(map(world.is_executed, kept))
    assert max(chunks) == 7
    world.restart(A)
    heal_and_finish(world)


def test_a_lost_prepare_promise_and_probe_are_repeated():
    for kind in (Probe, Prepare, Promise):
        world = World(3)
        world.lose = only(kind)
        world.start()
        world.run(60 * MS)
        world.lose = None
        world.run_until(world.settled, SECOND)
        assert world.leading().me == A


@pytest.mark.parametrize("source", range(3))
def test_leadership_moves_on_request_and_no_proposal_is_lost(source):
    world = World(3, leader=source).elect()
    for target in [*range(source + 1, 3), *range(source), source]:
        if target == world.leading().me:
            continue
        chief = world.leading()
        batches = []
        for burst in range(8):
            if burst == 4:
                chief.replica.transfer(target, world.now)
                chief.take()
            if chief.leads:
                batches += [world.propose(chief.me) for _ in range(5)]
            world.run(world.rtt // 4)
        world.run_until(lambda target=target: world.leaders() == [target], SECOND)
        assert len(batches) > 20
        world.run(300 * MS)
        assert all(map(world.is_executed, batches))
    assert world.count("probes") == 1


def test_a_hand_over_takes_a_few_round_trips():
    world = World(5).elect()
    world.propose(B)
    world.run(SECOND)
    world.members[A].replica.transfer(D, world.now)
    world.members[A].take()
    start = world.now
    world.run_until(lambda: world.members[D].leads, SECOND)
    assert world.now - start <= 2 * world.rtt + 1


def test_a_successor_that_is_behind_catches_up_first():
    world = World(3).elect()
    world.isolate(C)
    kept = [world.propose(A) for _ in range(50)]
    world.run(900 * MS)
    world.members[A].replica.transfer(C, world.now)
    world.members[A].take()
    world.heal()
    world.run_until(lambda: world.members[C].leads, SECOND)
    world.run(SECOND)
    assert all(map(world.is_executed, kept))


def test_a_hand_over_that_fails_leaves_the_leader_in_its_place():
    world = World(3).elect()
    world.lose = only(TakeOver)
    world.members[A].replica.transfer(C, world.now)
    world.members[A].take()
    world.run(5 * SECOND)
    assert world.members[A].leads
    assert world.members[A].replica.stage.transfer is None
    kept = world.propose(B)
    world.run(SECOND)
    assert world.is_executed(kept)


def test_a_successor_that_dies_is_not_waited_for():
    world = World(3).elect()
    world.members[A].replica.transfer(C, world.now)
    world.members[A].take()
    world.run(world.rtt // 2 + 1)
    world.crash(C)
    world.run_until(lambda: world.leading() is not None)
    world.restart(C)
    heal_and_finish(world)


class ForgetsPromises(MultiPaxosReplica):
    """Broken: says a promise that it has not recorded."""

    def _promise(self, ballot):
        self.promised = ballot
        self.leader = None
        self.patience.heard_at = None


def promise_across_a_restart(kind):
    """C promises B, restarts, and then gets the Accept that A sent before."""
    world = World(3, kind=kind).elect()
    world.hold = only(Accept, A)
    stale = world.propose(A)
    world.isolate(A)
    world.campaign(B)
    world.run_until(lambda: world.members[B].leads, SECOND)
    assert ballot_replica(world.members[C].replica.promised) == B
    world.isolate(B)
    world.crash(C)
    world.restart(C)
    world.heal()
    world.cuts = {(B, A), (A, B), (B, C), (C, B)}
    world.release()
    world.run(100 * MS)
    assert not world.is_executed(stale, everywhere=False), "A decided in a ballot that C gave up"
    world.heal()
    heal_and_finish(world)


def test_a_promise_holds_across_a_restart():
    promise_across_a_restart(MultiPaxosReplica)


def test_a_promise_that_is_not_durable_is_caught():
    with pytest.raises(AssertionError, match=r"MP15|gave up|MP1"):
        promise_across_a_restart(ForgetsPromises)


def test_a_stale_leader_is_told_and_follows():
    world = World(3).elect()
    world.isolate(A)
    world.campaign(B)
    world.run_until(lambda: world.members[B].leads, SECOND)
    world.heal()
    assert world.members[A].leads
    stale = world.propose(A)
    world.run(2 * world.rtt)
    assert not world.members[A].leads
    assert world.count("nacks") > 0
    world.run(SECOND)
    assert world.members[A].replica.leader == B
    heal_and_finish(world)
    assert not world.is_executed(stale, everywhere=False)
