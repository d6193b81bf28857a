"""Schedules about promises, votes and durability (protocol reference 2.1, 2.4, 2.6, 2.12, 2.13).

Each story runs on the real replica and must hold, and on a replica broken as the story's bug was,
where it must not.
"""

import pytest

from epaxos.core.replica import Outbox, Path
from epaxos.protocols.epaxos import recovery
from epaxos.protocols.epaxos.conflicts import ConflictIndex
from epaxos.protocols.epaxos.instance import Phase
from epaxos.protocols.epaxos.messages import PreAccepted
from epaxos.protocols.epaxos.replica import EPaxosReplica
from epaxos.sim.check.checkers import AGREEMENT, VISIBILITY, Violation
from tests.scenarios.cluster import Broken, cluster


def nop_at_b_only(replica):
    """n = 3. B has proposed Z (lost). A's batch learns of Z at B, so A starts the slow path and
    only A itself accepts. B recovers A.1 with C and accepts Nop, which nobody else hears of."""
    world = cluster(3, replica)
    world.put("B", "x")
    world.drop_all()
    world.put("A", "x")
    world.deliver("A>B", "PreAccept")
    world.deliver("B>A", "PreAcceptOk")
    assert world.replica("A").columns.get(0, 1).phase == Phase.ACCEPTED
    world.drop_all()
    world.recover("B", "A.1")
    world.deliver("B>C", "Recover")
    world.deliver("C>B", "RecoverOk")
    assert world.replica("B").columns.get(0, 1).payload is None
    world.drop_all()
    return world


def one_ballot(replica):
    """A recovers its own instance with C and decides (x, {Z}). B promises itself a higher ballot,
    unheard. C recovers with B: B's vote for Nop is old, C's vote is newer."""
    world = nop_at_b_only(replica)
    world.recover("A", "A.1")
    world.drop_all()
    world.recover("A", "A.1")
    world.deliver("A>C", "Recover")
    world.deliver("C>A", "RecoverOk")
    world.deliver("A>C", "Accept")
    world.deliver("C>A", "AcceptOk")
    assert world.value("A", "A.1") == (["x"], (0, 1, 0))
    world.drop_all()
    world.recover("B", "A.1")
    world.drop_all()
    world.recover("C", "A.1")
    world.deliver("C>B", "Recover")
    world.deliver("B>C", "RecoverOk")
    world.deliver("C>B", "Accept")
    world.deliver("B>C", "AcceptOk")
    return world


class OneBallot(EPaxosReplica):
    """A promise overwrites the ballot of the stored vote."""

    def _start_recover(self, replica, slots, now):
        super()._start_recover(replica, slots, now)
        for slot in slots:
            known = self.columns.get(replica, slot)
            if known.phase == Phase.ACCEPTED:
                known.voted = known.promised

    def _on_recover(self, source, m, now):
        for slot in m.slots:
            known = self.columns.get(m.replica, slot)
            if known is not None and known.phase == Phase.ACCEPTED:
                known.voted = max(known.voted, m.ballot)
        super()._on_recover(source, m, now)


def test_2_1_votes_and_promises_are_two_ballots():
    world = one_ballot(EPaxosReplica)
    world.check()
    assert world.value("C", "A.1") == (["x"], (0, 1, 0))


def test_2_1_one_ballot_is_caught():
    with pytest.raises(Violation, match=AGREEMENT):
        one_ballot(OneBallot).check()


def nop_in_the_index(replica):
    """Nop for A.1 is accepted at B only. A recovers to (x, {Z}), accepted at A only so far. B
    proposes another batch on x, which C pre-accepts before A's Accept reaches it."""
    world = nop_at_b_only(replica)
    world.recover("A", "A.1")
    world.drop_all()
    world.recover("A", "A.1")
    world.deliver("A>C", "Recover")
    world.deliver("C>A", "RecoverOk")
    world.put("B", "x")
    world.deliver("B>C", "PreAccept", "B.2")
    world.deliver("C>B", "PreAcceptOk", "B.2")
    assert world.value("B", "B.2") is not None
    world.deliver("A>C", "Accept", "A.1")
    world.deliver("C>A", "AcceptOk", "A.1")
    assert world.value("A", "A.1") is not None
    return world


class DropsNopFromIndex(EPaxosReplica):
    """An id leaves the conflict index when its vote becomes Nop."""

    def _vote_accepted(self, instance, ballot, payload, deps):
        super()._vote_accepted(instance, ballot, payload, deps)
        if payload is None:
            self.index = ConflictIndex(self.n)
            for column, instances in enumerate(self.columns.instances):
                for number, known in instances.items():
                    if known.payload is not None:
                        self.index.add(column, number, known.payload.footprint)


def test_2_4_an_accepted_nop_stays_in_the_conflict_index():
    nop_in_the_index(EPaxosReplica).check()


def test_2_4_an_index_that_drops_nops_is_caught():
    with pytest.raises(Violation, match=VISIBILITY):
        nop_in_the_index(DropsNopFromIndex).check()


def lost_fast_commit(replica):
    """n = 3. A decides on the fast path with B, tells its client, and crashes before any Commit
    leaves. It restarts from its disk. B recovers A.1 together with A."""
    world = cluster(3, replica, about=AGREEMENT)
    world.put("A", "x")
    world.deliver("A>B", "PreAccept")
    world.deliver("B>A", "PreAcceptOk")
    assert world.value("A", "A.1") == (["x"], (0, 0, 0))
    assert world.answers("A")
    world.drop_all()
    world.crash("A")
    world.restart("A")
    world.drop_all()
    world.recover("B", "A.1")
    world.deliver("B>A", "Recover")
    world.deliver("A>B", "RecoverOk")
    world.deliver_all("AB")
    assert world.value("B", "A.1") is not None
    return world


class NotesItsFastCommit(EPaxosReplica):
    """The fast commit is not synced before it is said."""

    def _commit(self, instance, payload, deps, path, now):
        path = Path.SLOW if path is Path.FAST else path
        super()._commit(instance, payload, deps, path, now)


def test_2_6_a_fast_commit_is_durable_before_anyone_hears_of_it():
    lost_fast_commit(EPaxosReplica).check()


def test_2_6_a_fast_commit_that_is_only_noted_is_caught():
    with pytest.raises(Violation, match=AGREEMENT):
        lost_fast_commit(NotesItsFastCommit).check()


def amnesiac_acceptor(replica):
    """n = 3. A decides with B's answer; B crashes and comes back from its disk. C asks B about an
    interfering batch."""
    world = cluster(3, replica, about=VISIBILITY)
    world.put("A", "x")
    world.deliver("A>B", "PreAccept")
    world.crash("B")
    world.restart("B")
    world.deliver("B>A", "PreAcceptOk")
    assert world.value("A", "A.1") is not None
    world.drop_all()
    world.put("C", "x")
    world.deliver("C>B", "PreAccept")
    world.deliver("B>C", "PreAcceptOk")
    world.drop("C>A", "PreAccept")
    world.deliver_all("BC")
    return world


class AnswersBeforeItSyncs(EPaxosReplica):
    """A pre-accept is noted, not recorded: the answer leaves before the vote is durable."""

    def __init__(self, setup):
        super().__init__(setup)
        self.out = NotesPreAccepts()


class NotesPreAccepts(Outbox):
    def record(self, record):
        if isinstance(record, PreAccepted):
            self.note(record)
        else:
            super().record(record)


def test_2_6_an_acceptor_syncs_before_it_answers():
    world = amnesiac_acceptor(EPaxosReplica)
    world.check()
    assert world.value("C", "C.1") == (["x"], (1, 0, 0))


def test_2_6_an_acceptor_that_answers_first_is_caught():
    with pytest.raises(Violation, match=VISIBILITY):
        amnesiac_acceptor(AnswersBeforeItSyncs).check()


def differing_votes(world):
    """n = 5. B and C have batches of their own that nobody knows. A's batch is pre-accepted at B
    with B's in its deps and at C with C's; A dies. D recovers with B and C."""
    world.put("B", "x")
    world.put("C", "x")
    world.drop_all()
    world.put("A", "x")
    world.deliver("A>B", "PreAccept")
    world.deliver("A>C", "PreAccept")
    world.drop_all()
    world.crash("A")
    world.recover("D", "A.1")
    world.deliver("D>B", "Recover")
    world.deliver("D>C", "Recover")
    world.deliver("B>D", "RecoverOk")
    world.deliver("C>D", "RecoverOk")
    world.deliver_all("BCD")
    keys, deps = world.value("D", "A.1")
    allowed = [(None, (0,) * 5), (["x"], (0,) * 5), (["x"], (0, 1, 1, 0, 0))]
    if (keys, deps) not in allowed:
        raise Broken(f"recovery proposed {keys} {deps}")


def test_2_12_recovery_proposes_initial_deps_an_accepted_value_or_nop():
    differing_votes(cluster(5))


def test_2_12_a_recovery_that_takes_any_deps_is_caught(monkeypatch):
    decide = recovery.decide

    def takes_any(owner, votes, e, n):
        for vote in votes.values():
            if vote.phase == Phase.PREACCEPTED:
                return recovery.Decision(recovery.Action.ACCEPT, "5", vote.payload, vote.deps)
        return decide(owner, votes, e, n)

    monkeypatch.setattr(recovery, "decide", takes_any)
    with pytest.raises(Broken, match="recovery proposed"):
        differing_votes(cluster(5))


def two_candidates(replica):
    """n = 3. A's batch meets B's at B and C's at C; A dies; B and C recover it."""
    world = cluster(3, replica)
    world.put("B", "x")
    world.put("C", "x")
    world.drop_all()
    world.put("A", "x")
    world.deliver("A>B", "PreAccept")
    world.deliver("A>C", "PreAccept")
    world.deliver("B>A", "PreAcceptOk")
    world.crash("A")
    world.drop_all()
    world.recover("B", "A.1")
    world.deliver("B>C", "Recover")
    world.deliver("C>B", "RecoverOk")
    world.deliver_all("BC")
    return world


class FirstAnswerIsEnough(EPaxosReplica):
    """With three replicas the first answer decides, whatever it says."""

    def _on_preaccept_ok(self, source, m, now):
        known = self.columns.get(m.replica, m.slot)
        if known is not None and known.phase == Phase.PREACCEPTED:
            known.deps = m.deps
            known.attempt.same = self.sizes.fast - 1
        super()._on_preaccept_ok(source, m, now)


def test_2_13_three_replicas_need_two_rounds_under_conflict():
    world = two_candidates(EPaxosReplica)
    world.check()
    assert world.value("A", "A.1") is None
    assert world.value("B", "A.1") is not None


def test_2_13_committing_on_any_first_answer_is_caught():
    with pytest.raises(Violation, match=AGREEMENT):
        two_candidates(FirstAnswerIsEnough).check()
