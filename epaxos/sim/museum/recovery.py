"""Bugs of taking over another's instance: what a recoverer asks, believes and waits for."""

from collections.abc import Mapping
from typing import Any

from epaxos.core.command import Payload
from epaxos.core.types import Ballot, Deps, Micros, ReplicaId
from epaxos.protocols.epaxos import recovery
from epaxos.protocols.epaxos.instance import Instance, Phase, Recovering
from epaxos.protocols.epaxos.messages import Commit, CommitReq, RecoverOk, Validate, Vote
from epaxos.protocols.epaxos.recovery import Action, Decision
from epaxos.protocols.epaxos.replica import EPaxosReplica
from epaxos.sim.check.checkers import AGREEMENT, EXECUTES, VISIBILITY
from epaxos.sim.museum.exhibit import Directed, Exhibit, in_place_of, in_replica, must_be_decided
from epaxos.sim.schedule.recipes import ROLES, ask, exchange, preaccept, unseen_commit, validate
from epaxos.sim.schedule.stage import Stage

# What it believes --------------------------------------------------------------------------------


def _other_deps_at_the_recoverer(stage: Stage) -> None:
    """D has heard of E's batch. A decides with B and C; D pre-accepts A's batch with E's in its
    deps. A and E die, and D recovers A.1 with B and C."""
    stage.put("E", "x")
    stage.deliver("E>D", "PreAccept")
    stage.drop_all()
    stage.put("A", "x")
    preaccept(stage, "A", "A.1", "B", "C")
    stage.deliver("A>D", "PreAccept")
    stage.crash("A", "E")
    stage.drop_all()
    ask(stage, "D", "A.1", "B", "C")
    stage.deliver_all("BCD")


def _takes_any_deps(
    decide: Any, owner: ReplicaId, votes: Mapping[ReplicaId, Vote], e: int, n: int
) -> Decision:
    found: Decision = decide(owner, votes, e, n)
    for vote in votes.values():
        if found.rule in ("4", "5") and vote.phase == Phase.PREACCEPTED:
            return Decision(Action.ACCEPT, "5", vote.payload, vote.deps)
    return found


def _its_leader_was_asked(stage: Stage) -> None:
    """A decides with B and C, and dies. E's batch is pre-accepted at E and D. D recovers it with E
    and B; then B recovers A.1 with C and D."""
    stage.put("A", "x")
    preaccept(stage, "A", "A.1", "B", "C")
    stage.crash("A")
    stage.drop_all()
    stage.put("E", "x")
    stage.deliver("E>D", "PreAccept")
    stage.drop_all()
    ask(stage, "D", "E.1", "E", "B")
    stage.deliver_all("BDE")
    ask(stage, "B", "A.1", "C", "D")
    stage.deliver_all("BCD")


def _forgets_the_leader(
    decide: Any, owner: ReplicaId, votes: Mapping[ReplicaId, Vote], e: int, n: int
) -> Decision:
    found: Decision = decide(-1, votes, e, n)
    return found


def _it_was_decided(stage: Stage) -> None:
    """A decides with B; nobody hears of it. C recovers A.1 with A, and B's answer comes first."""
    stage.put("A", "x")
    stage.drop("A>C")
    preaccept(stage, "A", "A.1", "B")
    stage.drop_all()
    stage.recover("C", "A.1")
    exchange(stage, "C>A", "Recover")
    stage.drop("C>A")
    stage.deliver_all("BC")


class _IgnoresCommits(EPaxosReplica):
    def _on_recover_ok(self, source: ReplicaId, m: RecoverOk, now: Micros) -> None:
        votes = [
            Vote(vote.slot, Phase.INITIAL, 0, None, (), None)
            if vote.phase == Phase.COMMITTED
            else vote
            for vote in m.votes
        ]
        super()._on_recover_ok(source, RecoverOk(m.replica, m.ballot, votes), now)


def _asked_before_it_was_told(stage: Stage) -> None:
    """B has a batch of its own that nobody knows. C pre-accepts A's batch; B does with its own in
    the deps. C hears of no decision and asks. A decides with C and dies; B hears the question."""
    stage.put("B", "x")
    stage.drop_all()
    stage.put("A", "x")
    stage.deliver("A>C", "PreAccept")
    stage.deliver("A>B", "PreAccept")
    stage.run(ASK_US, lost=("B>", "A> PreAccept"), held=("C> CommitReq", "C> PreAcceptOk"))
    stage.deliver("C>A", "PreAcceptOk")
    stage.crash("A")
    stage.deliver_all("BC")


ASK_US: Micros = 200_000
"""After so long a hole is asked about; its leader is not suspected yet."""


class _HandsOutVotes(EPaxosReplica):
    def _on_commit_req(self, source: ReplicaId, m: CommitReq, now: Micros) -> None:
        for slot in m.slots:
            known = self.columns.get(m.replica, slot)
            if known is not None and known.phase == Phase.PREACCEPTED:
                self.out.send(source, Commit(m.replica, slot, known.payload, known.deps))
        super()._on_commit_req(source, m, now)


def _decided_behind_its_back(stage: Stage) -> None:
    """A's batch meets one of B at B, so A starts the slow path; its Accepts are lost. C takes A.1
    over with B, and they decide Nop; A does not hear of it, and goes on asking."""
    stage.put("B", "x")
    stage.drop_all()
    stage.put("A", "x")
    preaccept(stage, "A", "A.1", "B")
    stage.drop_all()
    ask(stage, "C", "A.1", "B")
    stage.drop(">A")
    exchange(stage, "C>B", "Accept")
    stage.deliver("C>B", "Commit")
    stage.drop_all()
    for _ in range(3):
        stage.wait("A", 2_000_000)
        stage.deliver_all()
    must_be_decided(stage, "A", "A.1")


class _SilentOnceCommitted(EPaxosReplica):
    def _accept(
        self,
        source: ReplicaId,
        instance: Instance,
        ballot: Ballot,
        payload: Payload | None,
        deps: Deps,
    ) -> None:
        if instance.phase != Phase.COMMITTED:
            super()._accept(source, instance, ballot, payload, deps)


# Validate ----------------------------------------------------------------------------------------


def _unseen_commit(stage: Stage) -> None:
    """A's batch is known at B only; A dies. C decides an interfering batch with D and E, and dies.
    B recovers A.1 with D and E."""
    unseen_commit(stage, ROLES)
    stage.deliver_all("BDE")


class _SkipsValidation(EPaxosReplica):
    def _start_validate(
        self, recovering: Recovering, payload: Payload, deps: Deps, matching: int, now: Micros
    ) -> None:
        self._start_accept(recovering.instance, recovering.ballot, payload, deps, now)


def _late_competitor(stage: Stage) -> None:
    """A's batch is known at B only; A dies. B recovers it: D and E have nothing against it. Before
    B's Accept arrives, C proposes an interfering batch to D and E."""
    stage.put("A", "x")
    stage.deliver("A>B", "PreAccept")
    stage.crash("A")
    stage.drop_all()
    ask(stage, "B", "A.1", "D", "E")
    validate(stage, "B", "A.1", "D", "E")
    stage.put("C", "x")
    preaccept(stage, "C", "C.1", "D", "E")
    for member in "DE":
        stage.deliver(f"B>{member}", "Accept", "A.1")
        stage.deliver(f"{member}>B", "AcceptOk", "A.1")
    stage.deliver_all("CDE")


class _ValidatesWithoutStoring(EPaxosReplica):
    def _introduce(self, instance: Instance, payload: Payload, deps: Deps) -> None:
        pass


def _overtaken_validate(stage: Stage) -> None:
    """B recovers A.1 with D and E, who object with C's commit: A.1 becomes Nop. A copy of the
    Validate reaches D after that; then D, who saw only the Accept, recovers A.1 with C and E."""
    stage.put("A", "x")
    stage.deliver("A>B", "PreAccept")
    stage.crash("A")
    stage.put("C", "x")
    preaccept(stage, "C", "C.1", "D", "E")
    stage.drop_all()
    ask(stage, "B", "A.1", "D", "E")
    stage.deliver("B>D", "Validate", keep=True)
    stage.deliver("D>B", "ValidateOk")
    exchange(stage, "B>E", "Validate")
    for member in "DE":
        stage.deliver(f"B>{member}", "Accept")
        stage.deliver(f"{member}>B", "AcceptOk")
    stage.drop("B>", "Commit")
    stage.deliver("B>D", "Validate")
    stage.crash("B")
    stage.drop_all()
    ask(stage, "D", "A.1", "C", "E")
    stage.deliver_all("CDE")


class _ValidatesInAnyPhase(EPaxosReplica):
    def _on_validate(self, source: ReplicaId, m: Validate, now: Micros) -> None:
        known = self.columns.get(m.replica, m.slot)
        if known is not None and known.phase == Phase.ACCEPTED:
            known.payload = m.payload
        super()._on_validate(source, m, now)


# The introduction --------------------------------------------------------------------------------


def _introduction_from_an_accept(stage: Stage) -> None:
    """A decides on x with B and D, and dies. D's batch on x and y is slow because C has one on y;
    only E accepts it, without ever having seen its PreAccept. D dies. B recovers A.1 with C and
    E."""
    stage.put("A", "x")
    preaccept(stage, "A", "A.1", "B", "D")
    stage.crash("A")
    stage.put("C", "y")
    stage.drop_all()
    stage.put("D", "x", "y")
    preaccept(stage, "D", "D.1", "C", "B")
    stage.drop_all()
    stage.wait("D", 2_000_000)
    stage.deliver("D>E", "Accept", "D.1")
    stage.crash("D")
    stage.drop_all()
    ask(stage, "B", "A.1", "C", "E")
    stage.deliver_all("BCE")


class _IntroducesFromAccept(EPaxosReplica):
    def _vote_accepted(
        self, instance: Instance, ballot: Ballot, payload: Payload | None, deps: Deps
    ) -> None:
        super()._vote_accepted(instance, ballot, payload, deps)
        if instance.initial_deps is None:
            instance.initial_payload = payload
            instance.initial_deps = (0,) * self.n


def _forged_vote(stage: Stage) -> None:
    """A decides with B and C and dies. E's batch is known at D only; E dies. D validates E.1 at B
    and C and hears nothing. C recovers E.1 with B and D; then B recovers A.1 with C and D."""
    stage.put("A", "x")
    preaccept(stage, "A", "A.1", "B", "C")
    stage.crash("A")
    stage.put("E", "x")
    stage.deliver("E>D", "PreAccept", "E.1")
    stage.crash("E")
    stage.drop_all()
    ask(stage, "D", "E.1", "B", "C")
    stage.deliver("D>B", "Validate")
    stage.deliver("D>C", "Validate")
    stage.drop_all()
    ask(stage, "C", "E.1", "B", "D")
    validate(stage, "C", "E.1", "B", "D")
    stage.deliver_all("BCD")
    ask(stage, "B", "A.1", "C", "D")
    stage.deliver_all("BCD")


class _ValidateVotes(EPaxosReplica):
    def _introduce(self, instance: Instance, payload: Payload, deps: Deps) -> None:
        super()._introduce(instance, payload, deps)
        if instance.phase == Phase.INITIAL:
            instance.phase = Phase.PREACCEPTED
            instance.deps = deps


def _erased_introduction(stage: Stage) -> None:
    """A's batch on x is known at B only. C's batch on x and y is slow because E has one on y; D and
    E accept it and C decides; A and C die. B recovers A.1 with D and E."""
    stage.put("E", "y")
    stage.drop_all()
    stage.put("A", "x")
    stage.deliver("A>B", "PreAccept")
    stage.drop_all()
    stage.put("C", "x", "y")
    preaccept(stage, "C", "C.1", "D", "E")
    for member in "DE":
        stage.deliver(f"C>{member}", "Accept|AcceptShort")
        stage.deliver(f"{member}>C", "AcceptOk")
    stage.crash("A", "C")
    stage.drop_all()
    ask(stage, "B", "A.1", "D", "E")
    stage.deliver_all("BDE")


class _AcceptErases(EPaxosReplica):
    def _vote_accepted(
        self, instance: Instance, ballot: Ballot, payload: Payload | None, deps: Deps
    ) -> None:
        super()._vote_accepted(instance, ballot, payload, deps)
        instance.initial_payload = instance.initial_deps = None


EXHIBITS = (
    Exhibit(
        name="any-deps",
        title="Recovery goes on with the deps of any replica that pre-accepted",
        source="efficient/epaxos issue 29; protocol.md 2.12",
        story="Each replica pre-accepts a batch with the deps that it knows, so they differ. A "
        "recovery may propose exactly the deps that the command leader proposed first, deps that "
        "were accepted, or Nop. The Go code kept the recoverer's own; they can be more or fewer "
        "than what the dead leader had decided.",
        plant=in_place_of(recovery, "decide", _takes_any_deps),
        properties=(AGREEMENT,),
        search=Directed(5, _other_deps_at_the_recoverer),
    ),
    Exhibit(
        name="leader-in-the-quorum",
        title="Recovery overlooks that the command leader itself has answered",
        source="protocol.md 1.6, rule 3, and 1.7, W3",
        story="A command leader that answers a Recover has not decided and never will in ballot "
        "0, so its instance can become Nop at once. Who validates it instead counts the leader "
        "among the replicas that pre-accepted, and announces one vote too many. Another recovery "
        "believes that number, and gives up a batch whose client has its answer.",
        plant=in_place_of(recovery, "decide", _forgets_the_leader),
        properties=(AGREEMENT,),
        search=Directed(5, _its_leader_was_asked),
    ),
    Exhibit(
        name="nop-over-a-commit",
        title="Recovery proposes Nop although a replica answered that it has the decision",
        source="protocol.md 1.6, rule 1, and H12",
        story="One answer that says committed ends a recovery, whatever the others say. A "
        "recoverer that counts it as an answer like any other finds nobody who knows the batch, "
        "and has Nop accepted by those who never heard of it.",
        plant=in_replica(_IgnoresCommits),
        properties=(AGREEMENT,),
        search=Directed(3, _it_was_decided),
    ),
    Exhibit(
        name="no-validation",
        title="Recovery proposes the initial deps without asking what speaks against them",
        source="protocol.md 2.3",
        story="One replica knows a batch of a dead leader, with the deps that it was proposed "
        "with. It may have been decided on the fast path, so the recovery proposes it again as it "
        "was. But it may also not have been, and meanwhile another batch was decided without it. "
        "Then neither names the other, and replicas run them in different orders.",
        plant=in_replica(_SkipsValidation),
        properties=(VISIBILITY,),
        search=Directed(5, _unseen_commit),
    ),
    Exhibit(
        name="forgetful-validate",
        title="A Validate asks, and leaves no trace where it asked",
        source="protocol.md 2.3, variant",
        story="A recoverer asks a quorum what speaks against a batch, and nobody objects. Before "
        "the batch is accepted, another one comes by. A replica that did not keep what it was "
        "asked about answers that nothing interferes, and both are decided blind to each other.",
        plant=in_replica(_ValidatesWithoutStoring),
        properties=(VISIBILITY,),
        search=Directed(5, _late_competitor),
    ),
    Exhibit(
        name="late-validate",
        title="A repeated Validate changes what was accepted in the meantime",
        source="protocol.md 2.5; an open question in a Verus port of EPaxos*",
        story="A question is asked again, its first copy was answered, and the recovery went on "
        "and decided Nop. The second copy arrives at a replica that has accepted the Nop and "
        "writes the batch over it. The next recovery finds the batch, accepted in the highest "
        "ballot. In the published model nothing is ever sent twice, so it cannot happen there.",
        plant=in_replica(_ValidatesInAnyPhase),
        properties=(AGREEMENT,),
        search=Directed(5, _overtaken_validate),
    ),
    Exhibit(
        name="introduced-by-accept",
        title="An Accept fills in what the command leader is supposed to have proposed first",
        source="protocol.md 2.7",
        story="A replica that hears of a batch only by its Accept does not know the deps that the "
        "command leader started with. Writing something there looks harmless. Asked later what "
        "speaks against another batch, it objects in the name of a proposal that never was, and a "
        "batch whose client has its answer becomes Nop.",
        plant=in_replica(_IntroducesFromAccept),
        properties=(AGREEMENT,),
        search=Directed(5, _introduction_from_an_accept),
    ),
    Exhibit(
        name="forged-vote",
        title="A Validate turns the instance into a pre-accepted one",
        source="protocol.md 1.14, R1",
        story="To be asked about a batch is not to vote for it. If it is stored like a vote, the "
        "next recovery counts it, believes that the batch may have been decided on the fast path, "
        "and says so to others. One of those then gives up a batch that really was.",
        plant=in_replica(_ValidateVotes),
        properties=(AGREEMENT,),
        search=Directed(5, _forged_vote),
    ),
    Exhibit(
        name="erased-introduction",
        title="An Accept erases what the command leader proposed first",
        source="protocol.md 1.14, R1",
        story="Until an instance is committed, only its first proposal can object to another one. "
        "A replica that forgets it when it accepts has nothing to object with. A recovery asks "
        "it, hears nothing, and decides a batch beside one that was decided already.",
        plant=in_replica(_AcceptErases),
        properties=(VISIBILITY,),
        search=Directed(5, _erased_introduction),
    ),
    Exhibit(
        name="hands-out-votes",
        title="Who is asked for a decision answers with what it has voted for",
        source="a comment in Cassandra's EPaxos prototype; protocol.md 1.14",
        story="A replica misses a decision and asks the others for it. One of them has the batch, "
        "pre-accepted, with deps as it knew them, and sends that. The asker takes it for the "
        "decision, which was made elsewhere, with other deps.",
        plant=in_replica(_HandsOutVotes),
        properties=(AGREEMENT,),
        search=Directed(3, _asked_before_it_was_told),
    ),
    Exhibit(
        name="silent-once-committed",
        title="A replica that knows the decision does not answer an Accept",
        source="the TLA+ model of EPaxos* before its commit 2cb2efd; protocol.md 1.5 and H2",
        story="Somebody else recovered the instance, and it is decided. The command leader was not "
        "reached and repeats its own Accept for ever. To refuse that is right, to say nothing is "
        "not: with an attempt under way it does not ask what became of the instance.",
        plant=in_replica(_SilentOnceCommitted),
        properties=(EXECUTES,),
        search=Directed(3, _decided_behind_its_back),
    ),
)
