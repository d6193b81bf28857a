"""Schedules about recovery (protocol reference 2.2, 2.3, 2.5, 2.7 and R1), five replicas A to E.

Each story runs on the real replica and must hold, and on a replica broken as the story's bug was,
where it must not.
"""

import pytest

from epaxos.protocols.epaxos import recovery
from epaxos.protocols.epaxos.instance import Phase, Waiting
from epaxos.protocols.epaxos.replica import EPaxosReplica
from epaxos.sim.check.checkers import AGREEMENT, VISIBILITY, Violation
from tests.scenarios.cluster import cluster


def ask(world, recoverer, instance, *members):
    """`recoverer` takes an instance over and hears these members, in this order."""
    world.recover(recoverer, instance)
    for member in members:
        world.deliver(f"{recoverer}>{member}", "Recover", instance)
        world.deliver(f"{member}>{recoverer}", "RecoverOk", instance)
    world.drop(None, "Recover", instance)


def validate(world, recoverer, instance, *members):
    for member in members:
        world.deliver(f"{recoverer}>{member}", "Validate", instance)
        world.deliver(f"{member}>{recoverer}", "ValidateOk", instance)


def two_orphans():
    """A's batch is known at B only, E's at D only; A and E die. B and D recover one each, both with
    the quorum B, C, D, and each objects to the other."""
    world = cluster(5)
    world.put("A", "x")
    world.put("E", "x")
    world.deliver("A>B", "PreAccept")
    world.deliver("E>D", "PreAccept")
    world.crash("A", "E")
    world.drop_all()
    ask(world, "B", "A.1", "C", "D")
    ask(world, "D", "E.1", "B", "C")
    world.deliver_all("BCD")
    return world


def test_2_2_two_orphans_do_not_wait_for_each_other():
    world = two_orphans()
    for member in "BCD":
        assert world.value(member, "A.1") == (None, (0,) * 5)
        assert world.value(member, "E.1") == (None, (0,) * 5)


def without_v3(objections, quorum, matching, payload, deps, e):
    decision = JUDGE(objections, quorum, matching, payload, deps, e)
    if decision.rule == "V3":
        return recovery.Decision(recovery.Action.WAIT, "V4", payload, deps, matching)
    return decision


JUDGE = recovery.judge


def test_2_2_without_rule_v3_both_recoveries_wait_for_ever(monkeypatch):
    monkeypatch.setattr(recovery, "judge", without_v3)
    world = two_orphans()
    assert world.value("B", "A.1") is None
    assert world.value("D", "E.1") is None
    assert isinstance(world.replica("B").columns.get(0, 1).attempt, Waiting)
    assert isinstance(world.replica("D").columns.get(4, 1).attempt, Waiting)


def test_2_2_who_waits_goes_on_when_the_objection_is_settled():
    """A's batch is pre-accepted at A, B, C, E's at E and D. B finds two matching votes and waits; D
    finds one and gives E's batch up; then B goes on with A's real payload (W2)."""
    world = cluster(5)
    world.put("A", "x")
    world.put("E", "x")
    world.deliver("A>B", "PreAccept")
    world.deliver("A>C", "PreAccept")
    world.deliver("E>D", "PreAccept")
    world.crash("A", "E")
    world.drop_all()
    ask(world, "B", "A.1", "C", "D")
    validate(world, "B", "A.1", "C", "D")
    assert isinstance(world.replica("B").columns.get(0, 1).attempt, Waiting)
    world.drop_all()
    ask(world, "D", "E.1", "B", "C")
    world.deliver_all("BCD")
    assert world.value("D", "E.1") == (None, (0,) * 5)
    assert world.value("B", "A.1") == (["x"], (0,) * 5)
    world.check()


def unseen_commit(replica):
    """A's batch is known at B only; A dies. C commits an interfering batch with D and E on the fast
    path, and dies. B recovers A.1 with D and E."""
    world = cluster(5, replica)
    world.put("A", "x")
    world.deliver("A>B", "PreAccept")
    world.crash("A")
    world.put("C", "x")
    for member in "DE":
        world.deliver(f"C>{member}", "PreAccept")
        world.deliver(f"{member}>C", "PreAcceptOk")
    assert world.value("C", "C.1") == (["x"], (0,) * 5)
    world.crash("C")
    world.drop_all()
    ask(world, "B", "A.1", "D", "E")
    world.deliver_all("BDE")
    return world


class SkipsValidation(EPaxosReplica):
    """What may have been fast is proposed again without asking what speaks against it."""

    def _start_validate(self, recovering, payload, deps, matching, now):
        self._start_accept(recovering.instance, recovering.ballot, payload, deps, now)


def test_2_3_recovery_validates_before_it_proposes_initial_deps():
    world = unseen_commit(EPaxosReplica)
    world.check()
    assert world.value("B", "A.1") == (None, (0,) * 5)


def test_2_3_recovery_without_validation_is_caught():
    with pytest.raises(Violation, match=VISIBILITY):
        unseen_commit(SkipsValidation).check()


def late_competitor(replica):
    """A's batch is known at B only; A dies. B recovers it: D and E have nothing against it. Before
    B's Accept arrives, C proposes an interfering batch to D and E."""
    world = cluster(5, replica)
    world.put("A", "x")
    world.deliver("A>B", "PreAccept")
    world.crash("A")
    world.drop_all()
    ask(world, "B", "A.1", "D", "E")
    validate(world, "B", "A.1", "D", "E")
    world.put("C", "x")
    for member in "DE":
        world.deliver(f"C>{member}", "PreAccept")
        world.deliver(f"{member}>C", "PreAcceptOk")
    world.deliver_all("BDE")
    world.deliver_all("CDE")
    assert world.value("B", "A.1") == (["x"], (0,) * 5)
    return world


class ValidatesWithoutStoring(EPaxosReplica):
    """A Validate leaves no trace at the acceptor."""

    def _introduce(self, instance, payload, deps):
        pass


def test_2_3_a_validate_stores_what_it_asks_about():
    world = late_competitor(EPaxosReplica)
    world.check()


def test_2_3_a_validate_that_stores_nothing_is_caught():
    with pytest.raises(Violation, match=VISIBILITY):
        late_competitor(ValidatesWithoutStoring).check()


def overtaken_validate(replica):
    """B recovers A.1 with D and E, who object with C's commit: A.1 becomes Nop. A copy of the
    Validate reaches D after that; then D, who saw only the Accept, recovers A.1 with C and E."""
    world = cluster(5, replica)
    world.put("A", "x")
    world.deliver("A>B", "PreAccept")
    world.crash("A")
    world.put("C", "x")
    for member in "DE":
        world.deliver(f"C>{member}", "PreAccept")
        world.deliver(f"{member}>C", "PreAcceptOk")
    world.drop_all()
    ask(world, "B", "A.1", "D", "E")
    world.deliver("B>D", "Validate", keep=True)
    world.deliver("D>B", "ValidateOk")
    world.deliver("B>E", "Validate")
    world.deliver("E>B", "ValidateOk")
    for member in "DE":
        world.deliver(f"B>{member}", "Accept")
        world.deliver(f"{member}>B", "AcceptOk")
    assert world.value("B", "A.1") == (None, (0,) * 5)
    world.drop("B>", "Commit")
    world.deliver("B>D", "Validate")
    world.crash("B")
    world.drop_all()
    ask(world, "D", "A.1", "C", "E")
    world.deliver_all("CDE")
    return world


class ValidatesAnyPhase(EPaxosReplica):
    """A Validate rewrites the payload of an instance that is accepted already."""

    def _on_validate(self, source, m, now):
        known = self.columns.get(m.replica, m.slot)
        if known is not None and known.phase == Phase.ACCEPTED:
            known.payload = m.payload
        super()._on_validate(source, m, now)


def test_2_5_a_late_validate_changes_nothing():
    world = overtaken_validate(EPaxosReplica)
    world.check()
    assert world.value("D", "A.1") == (None, (0,) * 5)


def test_2_5_a_late_validate_that_rewrites_is_caught():
    with pytest.raises(Violation, match=AGREEMENT):
        overtaken_validate(ValidatesAnyPhase).check()


def introduction_from_accept(replica):
    """A decides on x with B and D, and dies. D's batch on x and y is slow because C has one on y;
    only E accepts it, without ever having seen its PreAccept. D dies. B recovers A.1 with C and
    E."""
    world = cluster(5, replica)
    world.put("A", "x")
    for member in "BD":
        world.deliver(f"A>{member}", "PreAccept")
        world.deliver(f"{member}>A", "PreAcceptOk")
    assert world.value("A", "A.1") == (["x"], (0,) * 5)
    world.crash("A")
    world.put("C", "y")
    world.drop_all()
    world.put("D", "x", "y")
    for member in "CB":
        world.deliver(f"D>{member}", "PreAccept")
        world.deliver(f"{member}>D", "PreAcceptOk")
    world.drop_all()
    world.wait("D", 1_000_000)
    world.deliver("D>E", "Accept", "D.1")
    world.crash("D")
    world.drop_all()
    ask(world, "B", "A.1", "C", "E")
    world.deliver_all("BCE")
    return world


class IntroducesFromAccept(EPaxosReplica):
    """An Accept fills an unknown introduction."""

    def _vote_accepted(self, instance, ballot, payload, deps):
        super()._vote_accepted(instance, ballot, payload, deps)
        if instance.initial_deps is None:
            instance.initial_payload = payload
            instance.initial_deps = (0,) * self.n


def test_2_7_an_accept_never_writes_the_introduction():
    world = introduction_from_accept(EPaxosReplica)
    world.check()
    assert world.value("B", "A.1") == (["x"], (0,) * 5)


def test_2_7_an_introduction_from_accept_is_caught():
    with pytest.raises(Violation, match=AGREEMENT):
        introduction_from_accept(IntroducesFromAccept).check()


def forged_vote(replica):
    """A decides with B and C and dies. E's batch is known at D only; E dies. D validates E.1 at B
    and C and hears nothing. C recovers E.1 with B and D; then B recovers A.1 with C and D."""
    world = cluster(5, replica)
    world.put("A", "x")
    for member in "BC":
        world.deliver(f"A>{member}", "PreAccept")
        world.deliver(f"{member}>A", "PreAcceptOk")
    assert world.value("A", "A.1") == (["x"], (0,) * 5)
    world.crash("A")
    world.put("E", "x")
    world.deliver("E>D", "PreAccept", "E.1")
    world.crash("E")
    world.drop_all()
    ask(world, "D", "E.1", "B", "C")
    world.deliver("D>B", "Validate")
    world.deliver("D>C", "Validate")
    world.drop_all()
    ask(world, "C", "E.1", "B", "D")
    validate(world, "C", "E.1", "B", "D")
    world.deliver_all("BCD")
    ask(world, "B", "A.1", "C", "D")
    world.deliver_all("BCD")
    return world


class ValidateVotes(EPaxosReplica):
    """A Validate turns the instance into a pre-accepted one."""

    def _introduce(self, instance, payload, deps):
        super()._introduce(instance, payload, deps)
        if instance.phase == Phase.INITIAL:
            instance.phase = Phase.PREACCEPTED
            instance.deps = deps


def test_r1_a_validate_is_no_vote():
    world = forged_vote(EPaxosReplica)
    world.check()
    assert world.value("C", "E.1") == (None, (0,) * 5)
    assert world.value("B", "A.1") == (["x"], (0,) * 5)


def test_r1_a_forged_vote_is_caught():
    with pytest.raises(Violation, match=AGREEMENT):
        forged_vote(ValidateVotes).check()


def erased_introduction(replica):
    """A's batch on x is known at B only. C's batch on x and y is slow because E has one on y; D and
    E accept it and C decides; A and C die. B recovers A.1 with D and E."""
    world = cluster(5, replica)
    world.put("E", "y")
    world.drop_all()
    world.put("A", "x")
    world.deliver("A>B", "PreAccept")
    world.drop_all()
    world.put("C", "x", "y")
    for member in "DE":
        world.deliver(f"C>{member}", "PreAccept")
        world.deliver(f"{member}>C", "PreAcceptOk")
    for member in "DE":
        world.deliver(f"C>{member}", "Accept|AcceptShort")
        world.deliver(f"{member}>C", "AcceptOk")
    assert world.value("C", "C.1") == (["x", "y"], (0, 0, 0, 0, 1))
    world.crash("A", "C")
    world.drop_all()
    ask(world, "B", "A.1", "D", "E")
    world.deliver_all("BDE")
    return world


class AcceptErases(EPaxosReplica):
    """An Accept erases the introduction."""

    def _vote_accepted(self, instance, ballot, payload, deps):
        super()._vote_accepted(instance, ballot, payload, deps)
        instance.initial_payload = instance.initial_deps = None


def test_r1_an_accept_keeps_the_introduction():
    world = erased_introduction(EPaxosReplica)
    world.check()
    assert world.value("B", "A.1") == (None, (0,) * 5)


def test_r1_an_erased_introduction_is_caught():
    with pytest.raises(Violation, match=VISIBILITY):
        erased_introduction(AcceptErases).check()
