"""Schedules that end while a recovery waits for others (EPaxos* l.69-80, rules W1 to W4), five
replicas A to E.

Each story runs on the real replica and must hold, and on a replica broken as the story's bug was,
where it must not.
"""

import pytest

from epaxos.protocols.epaxos import recovery
from epaxos.protocols.epaxos.instance import Waiting
from epaxos.protocols.epaxos.replica import EPaxosReplica
from epaxos.sim.check.checkers import VISIBILITY, Violation
from tests.scenarios.cluster import Broken, cluster
from tests.scenarios.test_epaxos_recovery import ask, validate

SETTLE = recovery.settle


def must_be_decided(world, who, *instances):
    for instance in instances:
        if world.value(who, instance) is None:
            raise Broken(f"liveness: {instance} at {who}")


def is_waiting(world, who, instance):
    column, slot = ord(instance[0]) - 65, int(instance[2:])
    return isinstance(world.replica(who).columns.get(column, slot).attempt, Waiting)


def one_takes_both(replica):
    """A's batch is pre-accepted at A, B, C, E's at E and D; A and E die. B takes both over: it
    waits with A's until E's is settled, and it is B itself that settles E's."""
    world = cluster(5, replica)
    world.put("A", "x")
    world.put("E", "x")
    world.deliver("A>B", "PreAccept")
    world.deliver("A>C", "PreAccept")
    world.deliver("E>D", "PreAccept")
    world.crash("A", "E")
    world.drop_all()
    ask(world, "B", "A.1", "C", "D")
    validate(world, "B", "A.1", "C", "D")
    assert is_waiting(world, "B", "A.1")
    world.drop_all()
    ask(world, "B", "E.1", "C", "D")
    world.deliver_all("BCD")
    must_be_decided(world, "B", "E.1", "A.1")
    return world


class WaitsToBeTold(EPaxosReplica):
    """A waiting recovery looks again at what others decided, not at what is decided here."""

    def _commit(self, instance, payload, deps, path, now):
        waiting, self._waiting = self._waiting, {}
        super()._commit(instance, payload, deps, path, now)
        self._waiting = waiting


def test_w2_what_is_decided_here_settles_what_waits_here():
    world = one_takes_both(EPaxosReplica)
    world.check()
    assert world.value("B", "E.1") == (None, (0,) * 5)
    assert world.value("B", "A.1") == (["x"], (0,) * 5)
    assert world.replica("B").statistics()["recover_rule_W2"] == 1


def test_w2_a_recovery_that_overlooks_its_own_replicas_decisions_is_caught():
    with pytest.raises(Broken, match=r"liveness: A\.1"):
        one_takes_both(WaitsToBeTold)


def refuted():
    """A's batch is known at A and B; A dies. D's batch has reached C and E, and their equal answers
    are on their way to D. B recovers A.1 with C and D: both object with D.1, which is not
    decided, and D is in the quorum, so B waits. Then D decides D.1 on the fast path."""
    world = cluster(5)
    world.put("A", "x")
    world.deliver("A>B", "PreAccept")
    world.crash("A")
    world.drop_all()
    world.put("D", "x")
    world.deliver("D>C", "PreAccept")
    world.deliver("D>E", "PreAccept")
    world.drop("D>B", "PreAccept")
    ask(world, "B", "A.1", "C", "D")
    validate(world, "B", "A.1", "C", "D")
    assert is_waiting(world, "B", "A.1")
    world.drop(None, "Recover|Waiting")
    world.deliver("C>D", "PreAcceptOk")
    world.deliver("E>D", "PreAcceptOk")
    assert world.value("D", "D.1") == (["x"], (0,) * 5)
    world.deliver_all("BCDE")
    must_be_decided(world, "B", "D.1", "A.1")
    return world


def test_w1_an_objection_that_is_decided_refutes():
    world = refuted()
    world.check()
    assert world.value("B", "A.1") == (None, (0,) * 5)
    assert world.replica("B").statistics()["recover_rule_W1"] == 1


def test_w1_an_objection_that_counts_as_settled_once_decided_is_caught(monkeypatch):
    def any_decision_settles(objectors, *rest):
        settled = [each._replace(settled=each.settled or each.refutes) for each in objectors]
        return SETTLE([each._replace(refutes=False) for each in settled], *rest)

    monkeypatch.setattr(recovery, "settle", any_decision_settles)
    with pytest.raises(Violation, match=VISIBILITY):
        refuted().check()


def both_wait():
    """A's batch is known at A and B; A dies. D's is pre-accepted at C and E, whose answers are
    lost. C recovers D.1 with E and B: two matching votes, B objects with A.1, C waits. B recovers
    A.1 with C and D: one matching vote, both object with D.1, and D.1's leader is in the quorum, so
    B waits too. D dies; each hears that the other waits."""
    world = cluster(5)
    world.put("A", "x")
    world.deliver("A>B", "PreAccept")
    world.crash("A")
    world.drop_all()
    world.put("D", "x")
    world.deliver("D>C", "PreAccept")
    world.deliver("D>E", "PreAccept")
    world.drop_all()
    ask(world, "C", "D.1", "E", "B")
    validate(world, "C", "D.1", "E", "B")
    assert is_waiting(world, "C", "D.1")
    waits = [item for item in world.flight if world.matches(item, "C>B", "Waiting", "D.1")]
    world.drop_all()
    ask(world, "B", "A.1", "C", "D")
    validate(world, "B", "A.1", "C", "D")
    assert is_waiting(world, "B", "A.1")
    world.crash("D")
    world.drop("B>E", "Recover")
    world.flight += waits
    world.deliver_all("BCE")
    must_be_decided(world, "B", "A.1", "D.1")
    return world


def test_w3_of_two_recoveries_that_wait_for_each_other_one_gives_way():
    world = both_wait()
    world.check()
    assert world.value("B", "A.1") == (None, (0,) * 5)
    assert world.value("B", "D.1") == (["x"], (0,) * 5)
    assert world.replica("B").statistics()["recover_rule_W3"] == 1


def test_w3_without_it_both_wait(monkeypatch):
    def without_w3(objectors, *rest):
        return SETTLE([each._replace(waits_with=0) for each in objectors], *rest)

    monkeypatch.setattr(recovery, "settle", without_w3)
    with pytest.raises(Broken, match="liveness"):
        both_wait()


def leader_heard_late():
    """A's batch is pre-accepted at A, B, C; E's at E and D. B recovers A.1 with C and D and waits
    for E.1, of which nobody says anything. Then A answers the Recover after all."""
    world = cluster(5)
    world.put("A", "x")
    world.put("E", "x")
    world.deliver("A>B", "PreAccept")
    world.deliver("A>C", "PreAccept")
    world.deliver("E>D", "PreAccept")
    world.drop_all()
    world.crash("E")
    ask(world, "B", "A.1", "C", "D")
    validate(world, "B", "A.1", "C", "D")
    assert is_waiting(world, "B", "A.1")
    world.drop(None, "Waiting")
    world.deliver_all("ABCD")
    must_be_decided(world, "B", "A.1")
    return world


def test_w4_the_command_leaders_late_answer_ends_the_waiting():
    world = leader_heard_late()
    world.check()
    assert world.value("B", "A.1") == (None, (0,) * 5)
    assert world.replica("B").statistics()["recover_rule_W4"] == 1


def test_w4_without_it_the_recovery_waits(monkeypatch):
    monkeypatch.setattr(
        recovery, "settle", lambda objectors, late, *rest: SETTLE(objectors, {}, *rest)
    )
    with pytest.raises(Broken, match="liveness"):
        leader_heard_late()
