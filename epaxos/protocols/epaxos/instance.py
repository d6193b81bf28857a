"""One instance as one replica knows it, and what its owner of a ballot is doing about it.

An instance holds two independent facts (R1). The *vote*: phase, promised, voted, payload, deps. The
*introduction*: payload and deps as the command leader first proposed them, or unknown. Only
PreAccept and Validate write the introduction; Accept and Commit never write and never erase it.

Rules of this file: data and its counting only. Who may write what stands in the handlers.
"""

from enum import IntEnum

from epaxos.core.command import Payload
from epaxos.core.quorum import Tally
from epaxos.core.stamps import Stamps
from epaxos.core.types import Ballot, Deps, InstanceId, Micros, ReplicaId, Slot
from epaxos.protocols.epaxos.messages import Vote

INSTANCE_BYTES = 600
"""Estimate of what an instance without payload costs in memory."""

COMMAND_BYTES = 130
"""Estimate of what a decoded command costs beside its encoded bytes."""


class Phase(IntEnum):
    """The status of the vote; it only grows."""

    INITIAL = 0
    """Nothing voted; perhaps promised, perhaps introduced by a Validate."""
    PREACCEPTED = 1
    """Voted in ballot 0, phase 1. Only PreAccept brings an instance here."""
    ACCEPTED = 2
    """Voted in phase 2 of ballot `voted`."""
    COMMITTED = 3
    """Decided; payload and deps never change again."""


INITIAL, PREACCEPTED, ACCEPTED, COMMITTED = Phase
"""By themselves too: handlers compare with them all the time, and a look into an Enum costs five
times as much as the comparison."""


class Instance:
    """One cell of the two-dimensional space."""

    __slots__ = (
        "attempt",
        "cost",
        "deps",
        "initial_deps",
        "initial_payload",
        "payload",
        "phase",
        "promised",
        "proposed_at",
        "replica",
        "slot",
        "voted",
    )

    def __init__(self, replica: ReplicaId, slot: Slot) -> None:
        self.replica = replica
        """Its column: the command leader. With `slot` the id; both never change."""
        self.slot = slot
        self.phase: int = INITIAL
        self.promised: Ballot = 0
        """Highest ballot joined. Invariant: voted <= promised until committed."""
        self.voted: Ballot = 0
        """Ballot of the stored payload and deps."""
        self.payload: Payload | None = None
        """The vote's. In phase Initial None is unknown, from Accepted on None is Nop."""
        self.deps: Deps = ()
        """The vote's; empty in phase Initial."""
        self.initial_payload: Payload | None = None
        """The introduction's; None is unknown."""
        self.initial_deps: Deps | None = None
        """The introduction's; None is unknown. Invariant: never changes once known."""
        self.attempt: Attempt | None = None
        """What this replica, as owner of a ballot, is doing about it; None: nothing."""
        self.proposed_at: Micros | None = None
        """When this replica, as command leader, asked all others; None: not in this life. Stays
        when the attempt ends: answers that come later still say how long they took."""
        self.cost = INSTANCE_BYTES
        """What it adds to `live_bytes`; more than INSTANCE_BYTES once its real payload is known and
        in the conflict index."""

    @property
    def id(self) -> InstanceId:
        """Its id as one value."""
        return InstanceId(self.replica, self.slot)

    @property
    def is_nop(self) -> bool:
        """Whether the vote is for Nop; below Accepted a payload of None is unknown instead."""
        return self.payload is None and self.phase >= ACCEPTED

    @property
    def real_payload(self) -> Payload | None:
        """The batch that the command leader proposed under this id, if known here.

        It is unique; whether the id is decided as Nop is a separate fact."""
        return self.initial_payload if self.payload is None else self.payload

    def vote(self) -> Vote:
        """What a RecoverOk says of it."""
        return Vote(self.slot, self.phase, self.voted, self.payload, self.deps, self.initial_deps)


class Attempt:
    """What the owner of a ballot is doing for one instance; one class per stage."""

    __slots__ = ("asked_at", "ballot", "instance", "resends", "stamps")

    def __init__(self, instance: Instance, ballot: Ballot) -> None:
        self.instance = instance
        self.ballot = ballot
        """The ballot it runs in. A promise above it ends the attempt silently."""
        self.asked_at: Micros = 0
        """When its question was asked last."""
        self.resends = 0
        """How often its question was asked again."""
        self.stamps: Stamps | None = None
        """Where to write who answers, if somebody wants to know."""

    @property
    def replica(self) -> ReplicaId:
        """The column of its instance."""
        return self.instance.replica

    @property
    def slot(self) -> Slot:
        """The slot of its instance."""
        return self.instance.slot

    @property
    def live(self) -> bool:
        """Whether it is still what this replica does about the instance."""
        return self.instance.attempt is self


class PreAccepting(Attempt):
    """The command leader waits for PreAcceptOks; ballot 0."""

    __slots__ = ("replied", "round_us", "same", "stood_us", "union", "wait_until")

    def __init__(self, instance: Instance, deps: Deps) -> None:
        super().__init__(instance, 0)
        self.replied = Tally(instance.replica)
        """Who has answered, itself included."""
        self.same = 1
        """How many answers equal the initial deps, its own included."""
        self.union = deps
        """Element-wise maximum of all answers: the slow path's deps."""
        self.round_us: Micros = 0
        """How long the answers of a slow quorum took; 0: they are not in yet."""
        self.wait_until: Micros = 0
        """Until when the fast path is waited for; 0: nothing is waited for."""
        self.stood_us: Micros = 0
        """What the end of that wait was noticed too late by, and as much again, T1 at most: this
        replica stood still, and whom it waits for may have done so until now. Counts once."""

    @property
    def proposed_at(self) -> Micros:
        """When all others were asked."""
        at = self.instance.proposed_at
        assert at is not None, "who waits for answers has asked"
        return at


class Accepting(Attempt):
    """The owner of a ballot waits for AcceptOks."""

    __slots__ = ("replied",)

    def __init__(self, instance: Instance, ballot: Ballot, me: ReplicaId) -> None:
        super().__init__(instance, ballot)
        self.replied = Tally(me)
        """Who has accepted in this ballot, itself included."""
        if instance.attempt is not None:
            self.stamps = instance.attempt.stamps


class Recovering(Attempt):
    """The recoverer waits for RecoverOks of a slow quorum."""

    __slots__ = ("votes",)

    def __init__(self, instance: Instance, ballot: Ballot, me: ReplicaId) -> None:
        super().__init__(instance, ballot)
        self.votes: dict[ReplicaId, Vote] = {me: instance.vote()}
        """The first answer of each replica (H16)."""


class Validating(Attempt):
    """The recoverer waits for ValidateOks of its whole quorum."""

    __slots__ = ("deps", "late", "matching", "objections", "payload", "quorum", "replied")

    def __init__(
        self, recovering: Recovering, payload: Payload, deps: Deps, matching: int, me: ReplicaId
    ) -> None:
        super().__init__(recovering.instance, recovering.ballot)
        assert me in recovering.votes, "the recoverer is in its own quorum"
        self.quorum = tuple(recovering.votes)
        """Q: who answered the Recover, itself included."""
        self.payload = payload
        self.deps = deps
        """The initial deps under validation."""
        self.matching = matching
        """k: how many of Q pre-accepted exactly the initial deps."""
        self.replied = Tally(me)
        self.objections: dict[tuple[ReplicaId, Slot], bool] = {}
        """I: objecting id -> whether some member of Q knows it as committed."""
        self.late: dict[ReplicaId, Vote] = {}
        """Answers to the Recover from outside Q, for W4."""


class Waiting(Attempt):
    """The recoverer waits until the objections are settled."""

    __slots__ = ("deps", "late", "matching", "objections", "payload", "quorum")

    def __init__(self, validating: Validating) -> None:
        super().__init__(validating.instance, validating.ballot)
        self.quorum = validating.quorum
        self.payload = validating.payload
        self.deps = validating.deps
        self.matching = validating.matching
        self.objections = validating.objections
        self.late = validating.late
