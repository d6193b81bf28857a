"""Bugs of a recovery that meets another one: whom it believes, and for what it waits."""

from collections.abc import Mapping, Sequence
from typing import Any

from epaxos.core.command import Payload
from epaxos.core.replica import Path
from epaxos.core.types import Deps, Micros, ReplicaId, Slot
from epaxos.protocols.epaxos import recovery
from epaxos.protocols.epaxos.columns import Columns
from epaxos.protocols.epaxos.instance import Instance
from epaxos.protocols.epaxos.messages import Vote
from epaxos.protocols.epaxos.recovery import Action, Decision, Objector
from epaxos.protocols.epaxos.replica import EPaxosReplica
from epaxos.sim.check.checkers import EXECUTES, VISIBILITY
from epaxos.sim.museum.exhibit import (
    Directed,
    Exhibit,
    in_place_of,
    in_replica,
    must_be_decided,
)
from epaxos.sim.schedule.recipes import ROLES, ask, left_beside_another, starts_to_wait, validate
from epaxos.sim.schedule.stage import Stage

RUN_US: Micros = 5_000_000
"""Much longer than the code as it is takes."""


def _two_orphans(stage: Stage) -> None:
    """A's batch is known at B only, E's at D only; A and E die. B and D recover one each, both with
    the quorum B, C, D, and each objects to the other."""
    stage.put("A", "x")
    stage.put("E", "x")
    stage.deliver("A>B", "PreAccept")
    stage.deliver("E>D", "PreAccept")
    stage.crash("A", "E")
    stage.drop_all()
    ask(stage, "B", "A.1", "C", "D")
    ask(stage, "D", "E.1", "B", "C")
    stage.deliver_all("BCD")
    must_be_decided(stage, "B", "A.1", "E.1")


def _without_v3(
    judge: Any,
    objections: Mapping[tuple[ReplicaId, Slot], bool],
    quorum: Sequence[ReplicaId],
    matching: int,
    payload: Payload,
    deps: Deps,
    e: int,
) -> Decision:
    found: Decision = judge(objections, quorum, matching, payload, deps, e)
    if found.rule == "V3":
        return Decision(Action.WAIT, "V4", payload, deps, matching)
    return found


def _one_takes_both(stage: Stage) -> None:
    """A's batch is pre-accepted at A, B, C, E's at E and D; A and E die. B takes both over: it
    waits with A's until E's is settled, and it is B itself that settles E's."""
    stage.put("A", "x")
    stage.put("E", "x")
    stage.deliver("A>B", "PreAccept")
    stage.deliver("A>C", "PreAccept")
    stage.deliver("E>D", "PreAccept")
    stage.crash("A", "E")
    stage.drop_all()
    ask(stage, "B", "A.1", "C", "D")
    validate(stage, "B", "A.1", "C", "D")
    stage.drop_all()
    ask(stage, "B", "E.1", "C", "D")
    stage.deliver_all("BCD")
    must_be_decided(stage, "B", "E.1", "A.1")


class _WaitsToBeTold(EPaxosReplica):
    def _commit(
        self, instance: Instance, payload: Payload | None, deps: Deps, path: Path, now: Micros
    ) -> None:
        waiting, self._waiting = self._waiting, {}
        super()._commit(instance, payload, deps, path, now)
        self._waiting = waiting


def _refuted(stage: Stage) -> None:
    """A's batch is known at A and B; A dies. D's batch has reached C and E, and their equal answers
    are on their way to D. B recovers A.1 with C and D: both object with D.1, which is not decided,
    and D is in the quorum, so B waits. Then D decides D.1 on the fast path."""
    starts_to_wait(stage, ROLES)
    stage.drop(None, "Recover|Waiting")
    stage.deliver("C>D", "PreAcceptOk")
    stage.deliver("E>D", "PreAcceptOk")
    stage.deliver_all("BCDE")
    must_be_decided(stage, "B", "D.1", "A.1")


def _any_decision_settles(settle: Any, objectors: Sequence[Objector], *rest: Any) -> Decision:
    found: Decision = settle(
        [each._replace(settled=each.settled or each.refutes, refutes=False) for each in objectors],
        *rest,
    )
    return found


def _both_wait(stage: Stage) -> None:
    """A's batch is known at A and B; A dies. D's is pre-accepted at C and E, whose answers are
    lost. C recovers D.1 with E and B: two matching votes, B objects with A.1, C waits. B recovers
    A.1 with C and D: one matching vote, both object with D.1, and D.1's leader is in the quorum, so
    B waits too. D dies; each hears that the other waits."""
    left_beside_another(stage, ROLES)
    stage.drop("C>D", "PreAcceptOk")
    stage.drop("E>D", "PreAcceptOk")
    stage.drop("D>")
    ask(stage, "C", "D.1", "E", "B")
    validate(stage, "C", "D.1", "E", "B")
    stage.drop("C>A")
    stage.drop("C>D")
    stage.drop("C>E")
    ask(stage, "B", "A.1", "C", "D")
    validate(stage, "B", "A.1", "C", "D")
    stage.crash("D")
    stage.drop("B>E", "Recover")
    stage.deliver_all("BCE")
    must_be_decided(stage, "B", "A.1", "D.1")


def _without_w3(settle: Any, objectors: Sequence[Objector], *rest: Any) -> Decision:
    found: Decision = settle([each._replace(waits_with=0) for each in objectors], *rest)
    return found


def _leader_heard_late(stage: Stage) -> None:
    """A's batch is pre-accepted at A, B, C; E's at E and D. B recovers A.1 with C and D and waits
    for E.1, of which nobody says anything. Then A answers the Recover after all."""
    stage.put("A", "x")
    stage.put("E", "x")
    stage.deliver("A>B", "PreAccept")
    stage.deliver("A>C", "PreAccept")
    stage.deliver("E>D", "PreAccept")
    stage.drop_all()
    stage.crash("E")
    ask(stage, "B", "A.1", "C", "D")
    validate(stage, "B", "A.1", "C", "D")
    stage.drop(None, "Waiting")
    stage.deliver_all("ABCD")
    must_be_decided(stage, "B", "A.1")


def _without_w4(
    settle: Any, objectors: Sequence[Objector], late: Mapping[ReplicaId, Vote], *rest: Any
) -> Decision:
    found: Decision = settle(objectors, {}, *rest)
    return found


def _beyond_the_horizon(stage: Stage) -> None:
    """A.1 writes x and B.1 writes y; C and D know both. A.2 writes y and B.2 writes x; E knows both
    and nothing else of A and B, which die. E objects to A.1 with B.2 and to B.1 with A.2. With one
    slot per question, C's recovery of A.1 waits for a slot that B's column does not come to before
    B.1 is decided, and that of B.1 likewise."""
    stage.put("A", "x")
    stage.put("B", "y")
    for way in ("A>C", "A>D", "B>C", "B>D"):
        stage.deliver(way, "PreAccept")
    stage.drop_all()
    stage.put("A", "y")
    stage.put("B", "x")
    stage.deliver("A>E", "PreAccept", "A.2")
    stage.deliver("B>E", "PreAccept", "B.2")
    stage.crash("A", "B")
    stage.drop_all()
    stage.run(RUN_US)
    for instance in ("A.1", "A.2", "B.1", "B.2"):
        must_be_decided(stage, "C", instance)


def _leaves_what_is_far(
    waits_for: Any, columns: Columns, replica: ReplicaId, slot: Slot, now: Micros
) -> None:
    pass


EXHIBITS = (
    Exhibit(
        name="deferred-for-ever",
        title="Two recoveries that object to each other both wait",
        source="the deadlock of TryPreAccept in EPaxos 2013; protocol.md 2.2 and 1.6, rule V3",
        story="Two command leaders died, and each one's batch stands in the way of the other's. "
        "The original recovery lets each defer to the other; the Go code tries to notice the "
        "cycle and does not. Both keys are blocked for good, and with them everything that comes "
        "later. EPaxos* finds, by counting, that at least one cannot have been decided.",
        plant=in_place_of(recovery, "judge", _without_v3),
        properties=(EXECUTES,),
        search=Directed(5, _two_orphans),
    ),
    Exhibit(
        name="both-wait",
        title="A waiting recovery does not hear that the other one waits too",
        source="protocol.md 1.6, rule W3, and 2.2",
        story="Where the first count cannot tell, a recovery says how many votes it has found, "
        "and waits. If another one waits with enough votes, this one cannot have been decided and "
        "gives way. Without that rule both wait until somebody else acts, and nobody does.",
        plant=in_place_of(recovery, "settle", _without_w3),
        properties=(EXECUTES,),
        search=Directed(5, _both_wait),
    ),
    Exhibit(
        name="settled-by-any-decision",
        title="An objection counts as settled once it is decided, whatever it says",
        source="protocol.md 1.6, rule W1",
        story="A recovery waits until the batch that stands in its way is decided. If that was "
        "decided without this one in its deps, this one was not fast and must become Nop. A "
        "recoverer that only looks whether it is decided proposes its batch, and the two are "
        "blind to each other.",
        plant=in_place_of(recovery, "settle", _any_decision_settles),
        properties=(VISIBILITY,),
        search=Directed(5, _refuted),
    ),
    Exhibit(
        name="deaf-while-waiting",
        title="A waiting recovery listens to nobody outside its quorum",
        source="protocol.md 1.6, rule W4",
        story="A recovery waits for an instance that nobody will ever settle. Then the command "
        "leader of its own instance, thought dead, answers. That answer alone allows Nop. Who has "
        "stopped listening waits on.",
        plant=in_place_of(recovery, "settle", _without_w4),
        properties=(EXECUTES,),
        search=Directed(5, _leader_heard_late),
    ),
    Exhibit(
        name="waits-to-be-told",
        title="A waiting recovery overlooks what its own replica decides",
        source="this project, fixed in d81dc58",
        story="One replica took two instances over, and one waited for the other. It looked again "
        "whenever a Commit arrived from elsewhere; but the other was decided by the very same "
        "replica, which sends no Commit to itself. The wait ended only when its patience did.",
        plant=in_replica(_WaitsToBeTold),
        properties=(EXECUTES,),
        search=Directed(5, _one_takes_both),
    ),
    Exhibit(
        name="beyond-the-horizon",
        title="Recovery does not look beyond its horizon, whatever it waits for",
        source="this project; protocol.md 4.2 and 1.15",
        story="A column is recovered from its oldest slots on, so many at a time. A recovery waits "
        "for an instance of another column that lies beyond that, and the oldest slot there waits "
        "for one of this column that lies beyond, too. Each recovery is right to wait, and neither "
        "column ever comes to the slot that the other one needs.",
        plant=in_place_of(Columns, "waits_for", _leaves_what_is_far),
        properties=(EXECUTES,),
        search=Directed(5, _beyond_the_horizon, tunables=(("epaxos.SLOTS_PER_QUESTION", 1),)),
    ),
)
