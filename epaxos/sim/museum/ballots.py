"""Bugs about promises and votes: which ballot a replica has joined, and in which one it voted."""

from collections.abc import Sequence
from typing import Any

from epaxos.core.command import Payload
from epaxos.core.types import Ballot, Deps, Micros, ReplicaId, Slot
from epaxos.protocols.epaxos import recovery
from epaxos.protocols.epaxos.conflicts import ConflictIndex
from epaxos.protocols.epaxos.instance import Instance, Phase
from epaxos.protocols.epaxos.messages import PreAccept, Recover, Vote
from epaxos.protocols.epaxos.recovery import Decision
from epaxos.protocols.epaxos.replica import EPaxosReplica
from epaxos.sim.check.checkers import AGREEMENT, VISIBILITY
from epaxos.sim.museum.exhibit import (
    Directed,
    Exhibit,
    in_place_of,
    in_replica,
)
from epaxos.sim.schedule.recipes import exchange
from epaxos.sim.schedule.stage import Stage


def _nop_at_b_only(stage: Stage) -> None:
    """B has proposed a batch that nobody hears of. A's batch learns of it at B, so A starts the
    slow path and only A itself accepts. B recovers A.1 with C and accepts Nop, unheard."""
    stage.put("B", "x")
    stage.drop_all()
    stage.put("A", "x")
    exchange(stage, "A>B", "PreAccept")
    stage.drop_all()
    stage.recover("B", "A.1")
    exchange(stage, "B>C", "Recover")
    stage.drop_all()


def _a_recovers_its_own(stage: Stage) -> None:
    """A takes A.1 over with C in a ballot above B's, and proposes what it had accepted."""
    stage.recover("A", "A.1")
    stage.drop_all()
    stage.recover("A", "A.1")
    exchange(stage, "A>C", "Recover")


def _a_decides_above_b(stage: Stage) -> None:
    """B has accepted Nop for A.1, alone. A takes it over with C in a higher ballot and decides its
    batch; then B promises itself a still higher ballot, unheard."""
    _nop_at_b_only(stage)
    _a_recovers_its_own(stage)
    exchange(stage, "A>C", "Accept")
    stage.drop_all()
    stage.recover("B", "A.1")
    stage.drop_all()


def _b_and_c_recover_after_a_decided(stage: Stage) -> None:
    """A has decided its batch above B's ballot. Then C recovers A.1 with B."""
    _a_decides_above_b(stage)
    stage.recover("C", "A.1")
    exchange(stage, "C>B", "Recover")
    exchange(stage, "C>B", "Accept")


class _OneBallot(EPaxosReplica):
    def _start_recover(self, replica: ReplicaId, slots: Sequence[Slot], now: Micros) -> None:
        super()._start_recover(replica, slots, now)
        for slot in slots:
            known = self.columns.get(replica, slot)
            if known is not None and known.phase == Phase.ACCEPTED:
                known.voted = known.promised

    def _on_recover(self, source: ReplicaId, m: Recover, now: Micros) -> None:
        for slot in m.slots:
            known = self.columns.get(m.replica, slot)
            if known is not None and known.phase == Phase.ACCEPTED:
                known.voted = max(known.voted, m.ballot)
        super()._on_recover(source, m, now)


def _b_recovers_after_a_decided(stage: Stage) -> None:
    """A has decided its batch above B's ballot. Then B recovers A.1 with C."""
    _a_decides_above_b(stage)
    stage.recover("B", "A.1")
    exchange(stage, "B>C", "Recover")
    exchange(stage, "B>C", "Accept")


def _first_vote(
    decide: Any, owner: ReplicaId, votes: dict[ReplicaId, Vote], e: int, n: int
) -> Decision:
    accepted = [vote for vote in votes.values() if vote.phase == Phase.ACCEPTED]
    found: Decision = decide(owner, votes, e, n)
    if found.rule == "2":
        return found._replace(payload=accepted[0].payload, deps=accepted[0].deps)
    return found


def _accept_meets_a_promise(stage: Stage) -> None:
    """A's Accept is on its way to C when B takes A.1 over with C."""
    _nop_at_b_only(stage)
    _a_recovers_its_own(stage)
    stage.recover("B", "A.1")
    exchange(stage, "B>C", "Recover")
    stage.deliver("A>C", "Accept")
    stage.deliver("C>A", "AcceptOk|Nack")
    stage.drop("A>")
    exchange(stage, "B>C", "Accept")


class _AcceptsBelowItsPromise(EPaxosReplica):
    def _accept(
        self,
        source: ReplicaId,
        instance: Instance,
        ballot: Ballot,
        payload: Payload | None,
        deps: Deps,
    ) -> None:
        if instance.phase != Phase.COMMITTED and instance.voted <= ballot < instance.promised:
            instance.promised = ballot
        super()._accept(source, instance, ballot, payload, deps)


def _preaccept_meets_a_promise(stage: Stage) -> None:
    """A's PreAccept is on its way to B when C, which has heard of A.1 only by name, takes it over
    with B: neither knows the batch, so it becomes Nop."""
    stage.put("A", "x")
    stage.drop("A>C", "PreAccept")
    stage.recover("C", "A.1")
    stage.drop("C>A")
    exchange(stage, "C>B", "Recover")
    stage.drop("C>A")
    stage.deliver("A>B", "PreAccept")
    stage.deliver("B>A")
    stage.drop("A>")
    exchange(stage, "C>B", "Accept")


class _PreAcceptsAfterItsPromise(EPaxosReplica):
    def _on_preaccept(self, source: ReplicaId, m: PreAccept, now: Micros) -> None:
        known = self.columns.get(m.replica, m.slot)
        if known is None or known.phase != Phase.INITIAL:
            super()._on_preaccept(source, m, now)
            return
        promised, known.promised = known.promised, 0
        super()._on_preaccept(source, m, now)
        known.promised = promised


def _batch_after_an_accepted_nop(stage: Stage) -> None:
    """A has taken A.1 over and proposes its batch again; before C hears of it, B, which has
    accepted Nop for A.1, proposes another batch on the same key to C."""
    _nop_at_b_only(stage)
    _a_recovers_its_own(stage)
    stage.put("B", "x")
    exchange(stage, "B>C", "PreAccept", "B.2")
    exchange(stage, "A>C", "Accept", "A.1")


class _DropsNopsFromTheIndex(EPaxosReplica):
    def _vote_accepted(
        self, instance: Instance, ballot: Ballot, payload: Payload | None, deps: Deps
    ) -> None:
        super()._vote_accepted(instance, ballot, payload, deps)
        if payload is None:
            self.index = ConflictIndex(self.n)
            for column, instances in enumerate(self.columns.instances):
                for number, known in instances.items():
                    if known.payload is not None:
                        self.index.add(column, number, known.payload.footprint)


EXHIBITS = (
    Exhibit(
        name="one-ballot",
        title="One ballot per instance where two are needed",
        source="Sutra 2019, on the TLA+ model and the Go code of EPaxos; protocol.md 2.1",
        story="A replica keeps one number for two facts: the highest ballot it has promised, and "
        "the ballot in which it voted for what it stores. Promising a new ballot makes its old "
        "vote look new. A later recovery compares the two votes it sees, believes the old one, "
        "and undoes what was decided in between. The error stood for six years in a published "
        "specification and in its implementation before anybody saw it.",
        plant=in_replica(_OneBallot),
        properties=(AGREEMENT,),
        search=Directed(3, _b_and_c_recover_after_a_decided),
    ),
    Exhibit(
        name="first-vote",
        title="Recovery takes an accepted vote, but not the one in the highest ballot",
        source="Paxos Made Simple, section 2.2; swiftpaxos issue 3 (the vote's ballot is lost "
        "when it is stored); protocol.md 1.6, rule 2",
        story="Of the votes that a recovery hears, only the one in the highest ballot can have "
        "been decided. A replica that takes the first one it holds, its own, proposes again what "
        "a later ballot had already replaced. The instance then has two values.",
        plant=in_place_of(recovery, "decide", _first_vote),
        properties=(AGREEMENT,),
        search=Directed(3, _b_recovers_after_a_decided),
    ),
    Exhibit(
        name="accept-below-the-promise",
        title="An Accept is compared with the ballot voted in, not with the one promised",
        source="`>=` where `>` belongs, in a check of ballots; protocol.md 1.5",
        story="An acceptor promised a ballot and has not voted in it yet. An Accept of a lower "
        "ballot arrives, is above the last vote, and is taken. The recoverer that was promised "
        "does not know: it goes on with a value of its own, and both are decided.",
        plant=in_replica(_AcceptsBelowItsPromise),
        properties=(AGREEMENT,),
        search=Directed(3, _accept_meets_a_promise),
    ),
    Exhibit(
        name="preaccept-after-the-promise",
        title="A replica pre-accepts in ballot 0 what it has promised to a recoverer",
        source="protocol.md 1.5 and H14",
        story="A recoverer asked about an instance before its PreAccept had arrived, was told "
        "that nothing is known, and makes it Nop. Then the PreAccept comes. Who forgets to "
        "compare it with the promise completes a fast quorum, and the command leader decides its "
        "batch.",
        plant=in_replica(_PreAcceptsAfterItsPromise),
        properties=(AGREEMENT,),
        search=Directed(3, _preaccept_meets_a_promise),
    ),
    Exhibit(
        name="nop-leaves-the-index",
        title="An instance leaves the conflict index when a replica accepts Nop for it",
        source="protocol.md 2.4",
        story="A replica that accepts Nop in place of a batch stops naming the instance in the "
        "deps of later batches. But a Nop that was only accepted may lose to the batch itself. "
        "Then two interfering batches are decided and neither knows of the other: some replicas "
        "run them in one order, some in the other. An instance stays in the index under the batch "
        "that was proposed, whatever became of it.",
        plant=in_replica(_DropsNopsFromTheIndex),
        properties=(VISIBILITY,),
        search=Directed(3, _batch_after_an_accepted_nop),
    ),
)
