"""Messages and records of EPaxos*.

    command leader A              B (fast quorum)        C, D, E
    PreAccept ───────────────────▶ ● ───────────────────▶ ●            ● = synced before the answer
        ◀──────────── PreAcceptOk
    all equal to the initial deps: ● Commit ────────────▶               fast path, one round trip
    otherwise:
    ● Accept ────────────────────▶ ●                                    slow path, one more
        ◀────────────── AcceptOk
    Commit ──────────────────────▶

    recoverer B                   C                      D, E
    ● Recover ───────────────────▶ ● ───────────────────▶ ●
        ◀───────────── RecoverOk
    Validate ────────────────────▶ ●                     (only when the payload may have been fast)
        ◀──────────── ValidateOk
    Waiting ─────────────────────▶                       (only while objections are undecided)
    ● Accept … Commit                                    (with the payload or with Nop)

Source: EPaxos* (OPODIS'25), Figures 3 and 5, as read in its TLA+ model; hardening and rules R1-R17
as in docs/protocol.md. Ids travel as two fields, `replica` (the column) and `slot`. A payload of
None is Nop, except where a field says that it means unknown.
"""

from collections.abc import Callable
from typing import Annotated, Any, Protocol, TypeAlias

import msgspec
from msgspec import Meta

from epaxos.core.command import Payload
from epaxos.core.replica import Message
from epaxos.core.types import (
    REPLICAS_MAX,
    SLOTS_PER_MESSAGE_MAX,
    Ballot,
    Deps,
    ReplicaId,
    Slot,
    Stamp,
)

SLOTS_LIVE_MAX = 1 << 32
"""No column has so many slots above the floor: its command leader holds them all, and each takes
hundreds of bytes. Everybody has executed what is below the floor, so no slot is further above all
that a replica knows, however long it was cut off."""

Slots: TypeAlias = Annotated[list[Slot], Meta(max_length=SLOTS_PER_MESSAGE_MAX)]
"""Some slots of one column."""


class PreAccept(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Command leader → all, phase 1. Its ballot is always b0."""

    replica: ReplicaId
    """Column of the instance: its command leader, who must also be the sender."""
    slot: Slot
    """Slot of the instance."""
    payload: Payload
    """The batch; never Nop."""
    deps: Deps
    """The initial deps: everything that interferes with the batch at its command leader."""


class PreAcceptOk(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Acceptor → command leader: pre-accepted, and durable."""

    replica: ReplicaId
    """Column of the instance."""
    slot: Slot
    """Slot of the instance."""
    deps: Deps
    """The initial deps together with all that interferes here; a superset of the initial deps."""


class Accept(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """Owner of the ballot → all, phase 2."""

    replica: ReplicaId
    """Column of the instance."""
    slot: Slot
    """Slot of the instance."""
    ballot: Ballot
    """0 from the command leader's slow path, otherwise the recoverer's."""
    payload: Payload | None
    """What to accept; None is Nop."""
    deps: Deps
    """What to accept; empty (all 0) with Nop."""


class AcceptShort(msgspec.Struct, frozen=True, array_like=True, tag=16, gc=False):
    """Command leader → all, phase 2 in b0, without the payload that its PreAccept carried.

    A replica that lacks the payload ignores it; asked again, it gets an Accept."""

    replica: ReplicaId
    """Column of the instance: its command leader, who must also be the sender."""
    slot: Slot
    """Slot of the instance."""
    deps: Deps
    """What to accept with the initial payload."""


class AcceptOk(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """Acceptor → owner of the ballot: accepted, and durable."""

    replica: ReplicaId
    """Column of the instance."""
    slot: Slot
    """Slot of the instance."""
    ballot: Ballot
    """The ballot accepted; counted only if it is the owner's current one (H13)."""


class Commit(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """Anyone who knows → anyone who may not: the instance is decided. Always accepted (H1)."""

    replica: ReplicaId
    """Column of the instance."""
    slot: Slot
    """Slot of the instance."""
    payload: Payload | None
    """The decided batch; None is Nop."""
    deps: Deps
    """The decided deps."""


class CommitShort(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """Commit without the payload, to those that were sent it before.

    Says: the instance's real payload is decided with these deps. At a replica that lacks the
    payload it is a hint to fetch, never a change of state."""

    replica: ReplicaId
    """Column of the instance."""
    slot: Slot
    """Slot of the instance."""
    deps: Deps
    """The decided deps."""


class Recover(msgspec.Struct, frozen=True, array_like=True, tag=7, gc=False):
    """Recoverer → all: promise this ballot for these slots of one column, and say your votes."""

    replica: ReplicaId
    """The column."""
    slots: Slots
    """Which of its slots, ascending."""
    ballot: Ballot
    """The sender's, above all its promises for these slots."""


class Vote(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One instance in a RecoverOk: the vote, and the initial deps of the introduction (R1)."""

    slot: Slot
    """Slot of the instance."""
    phase: Annotated[int, Meta(ge=0, le=3)]
    """`Phase` of the vote."""
    voted: Ballot
    """Ballot in which the payload and deps were voted for."""
    payload: Payload | None
    """In phase Initial unknown, or the payload a Validate left; otherwise the vote (None is
    Nop)."""
    deps: Deps
    """The vote's deps."""
    initial_deps: Deps | None
    """The introduction's deps; None is unknown."""


class RecoverOk(msgspec.Struct, frozen=True, array_like=True, tag=8, gc=False):
    """Acceptor → recoverer: promised, and durable."""

    replica: ReplicaId
    """The column."""
    ballot: Ballot
    """The ballot promised."""
    votes: Annotated[list[Vote], Meta(max_length=SLOTS_PER_MESSAGE_MAX)]
    """One per slot promised. Slots in phase Committed promise nothing but are listed too. Large
    payloads make several answers out of one."""


class Validate(msgspec.Struct, frozen=True, array_like=True, tag=9, gc=False):
    """Recoverer → its quorum: would these initial deps have left out anything you know?"""

    replica: ReplicaId
    """Column of the instance."""
    slot: Slot
    """Slot of the instance."""
    ballot: Ballot
    """The recoverer's ballot."""
    payload: Payload
    """The batch that may have been committed on the fast path."""
    deps: Deps
    """Its initial deps."""


class Objection(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An interfering id that is neither in the deps validated nor, as known there, ordered
    after."""

    replica: ReplicaId
    """Column of the objecting id."""
    slot: Slot
    """Slot of the objecting id."""
    committed: bool
    """Whether it is committed where it was found."""


class ValidateOk(msgspec.Struct, frozen=True, array_like=True, tag=10, gc=False):
    """Acceptor → recoverer: the introduction is stored, durable, and this objects to it."""

    replica: ReplicaId
    """Column of the instance."""
    slot: Slot
    """Slot of the instance."""
    ballot: Ballot
    """The recoverer's ballot."""
    objections: list[Objection]
    """Empty: nothing known here speaks against committing the initial deps."""


class Waiting(msgspec.Struct, frozen=True, array_like=True, tag=11, gc=False):
    """Recoverer → all: this recovery waits for others (H5: to itself too, and kept until
    commit)."""

    replica: ReplicaId
    """Column of the instance."""
    slot: Slot
    """Slot of the instance."""
    matching: Annotated[int, Meta(ge=0, le=REPLICAS_MAX)]
    """k: how many of its quorum pre-accepted exactly the initial deps."""


class Nack(msgspec.Struct, frozen=True, array_like=True, tag=12, gc=False):
    """Acceptor → sender of a lower ballot: what was promised here (H4)."""

    replica: ReplicaId
    """The column."""
    slots: Slots
    """The slots refused."""
    promised: Ballot
    """The highest ballot promised for any of them."""


class CommitReq(msgspec.Struct, frozen=True, array_like=True, tag=13, gc=False):
    """Anyone → who may know: which of these slots are committed? Imports only Committed."""

    replica: ReplicaId
    """The column."""
    slots: Slots
    """Ascending. Answered by Commit for each slot committed there and above its floor."""


class InProgress(msgspec.Struct, frozen=True, array_like=True, tag=14, gc=False):
    """Answer to CommitReq: there is a live attempt here for these, so ask again later (R13)."""

    replica: ReplicaId
    """The column."""
    slots: Slots
    """The slots under way."""


class Progress(msgspec.Struct, frozen=True, array_like=True, tag=15, gc=False):
    """Everyone → all, at least every 1.25 RTT_max: the heartbeat, and the only bearer of
    vectors."""

    executed: Deps
    """Executed without gaps and durable at the sender."""
    committed: Deps
    """Committed without gaps at the sender, as of its last sync."""
    stable: Deps
    """Minimum of all members' executed, as the sender knows them (R15)."""
    echo: tuple[Stamp, ...]
    """Per member: the `stamp` of the last Progress heard from it, 0 for none. Says what it has
    handled; with `held` it measures round trips."""
    stamp: Stamp
    """The sender's clock in µs; meaningful only to the sender."""
    held: tuple[Stamp, ...]
    """Per member: how long, in µs, that Progress had been here."""


class PreAccepted(msgspec.Struct, frozen=True, array_like=True, tag=16, gc=False):
    """Record: the introduction and the ballot-0 vote. At its command leader also the allocation of
    the slot (R2)."""

    replica: ReplicaId
    """Column of the instance."""
    slot: Slot
    """Slot of the instance."""
    payload: Payload
    """The batch."""
    initial_deps: Deps
    """As its command leader proposed them."""
    deps: Deps
    """As voted here."""


class Promised(msgspec.Struct, frozen=True, array_like=True, tag=17, gc=False):
    """Record: a ballot joined for some slots of one column."""

    replica: ReplicaId
    """The column."""
    slots: list[Slot]
    """Which slots."""
    ballot: Ballot
    """The promise."""


class Accepted(msgspec.Struct, frozen=True, array_like=True, tag=18, gc=False):
    """Record: a vote in phase 2. Says nothing of the introduction (R1)."""

    replica: ReplicaId
    """Column of the instance."""
    slot: Slot
    """Slot of the instance."""
    ballot: Ballot
    """Promised and voted."""
    payload: Payload | None
    """The vote; None is Nop."""
    deps: Deps
    """The vote's deps."""


class AcceptedShort(msgspec.Struct, frozen=True, array_like=True, tag=19, gc=False):
    """Record: Accepted with the payload that the instance's PreAccepted record holds."""

    replica: ReplicaId
    """Column of the instance."""
    slot: Slot
    """Slot of the instance."""
    ballot: Ballot
    """Promised and voted."""
    deps: Deps
    """The vote's deps."""


class Introduced(msgspec.Struct, frozen=True, array_like=True, tag=20, gc=False):
    """Record: what a Validate taught (R1: payload and introduction, never phase or deps)."""

    replica: ReplicaId
    """Column of the instance."""
    slot: Slot
    """Slot of the instance."""
    payload: Payload
    """The batch."""
    initial_deps: Deps
    """As its command leader proposed them."""


class Committed(msgspec.Struct, frozen=True, array_like=True, tag=21, gc=False):
    """Record at the command leader after the fast path (2.6), otherwise a note: decided."""

    replica: ReplicaId
    """Column of the instance."""
    slot: Slot
    """Slot of the instance."""
    payload: Payload | None
    """Decided; None is Nop."""
    deps: Deps
    """Decided."""


class CommittedShort(msgspec.Struct, frozen=True, array_like=True, tag=22, gc=False):
    """Committed with the payload that an earlier record of this log holds."""

    replica: ReplicaId
    """Column of the instance."""
    slot: Slot
    """Slot of the instance."""
    deps: Deps
    """Decided."""


class Forgotten(msgspec.Struct, frozen=True, array_like=True, tag=23, gc=False):
    """Note: what need not be remembered any more (R15). Restore forgets by it while it reads.

    One lost in a torn tail costs memory only: an older floor is one that everybody knows too."""

    stable: Deps
    """Minimum of all members' executed; where later initial deps start."""
    floor: Deps
    """Minimum of all members' stable, never above `stable`."""


MESSAGES = (
    PreAccept,
    PreAcceptOk,
    Accept,
    AcceptShort,
    AcceptOk,
    Commit,
    CommitShort,
    Recover,
    RecoverOk,
    Validate,
    ValidateOk,
    Waiting,
    Nack,
    CommitReq,
    InProgress,
    Progress,
)
"""The closed union of messages."""

RECORDS = (
    PreAccepted,
    Promised,
    Accepted,
    AcceptedShort,
    Introduced,
    Committed,
    CommittedShort,
    Forgotten,
)
"""The closed union of records."""


def fits(message: Message, n: int, top: Slot) -> bool:
    """Whether its columns and vectors are those of a cluster of n, and no slot that it makes known
    is above `top`; only a broken peer differs. Other ranges are those of the types."""
    return _FITS[type(message)](message, n, top)


class _OfColumn(Protocol):
    @property
    def replica(self) -> ReplicaId: ...


class _OfSlot(_OfColumn, Protocol):
    @property
    def slot(self) -> Slot: ...


class _WithDeps(_OfSlot, Protocol):
    @property
    def deps(self) -> Deps: ...


def _column_fits(message: _OfColumn, n: int, top: Slot) -> bool:
    """Of a message that is looked up and makes nothing known."""
    return message.replica < n


def _slot_fits(message: _OfSlot, n: int, top: Slot) -> bool:
    return message.replica < n and message.slot <= top


def _deps_fit(message: _WithDeps, n: int, top: Slot) -> bool:
    deps = message.deps
    return message.replica < n and message.slot <= top and len(deps) == n and max(deps) <= top


def _slots_fit(message: Recover, n: int, top: Slot) -> bool:
    return message.replica < n and max(message.slots, default=0) <= top


def _votes_fit(message: RecoverOk, n: int, top: Slot) -> bool:
    return message.replica < n and all(_vote_fits(vote, n, top) for vote in message.votes)


def _vote_fits(vote: Vote, n: int, top: Slot) -> bool:
    """In phase Initial (0) there are no deps; only a pre-accepted vote (1) is never Nop."""
    if vote.phase == 1 and vote.payload is None:
        return False
    if vote.initial_deps is not None and len(vote.initial_deps) != n:
        return False
    if vote.phase == 0 and not vote.deps:
        return True
    return len(vote.deps) == n and max(vote.deps) <= top


def _objections_fit(message: ValidateOk, n: int, top: Slot) -> bool:
    objections = message.objections
    return message.replica < n and all(each.replica < n and each.slot <= top for each in objections)


def _progress_fits(message: Progress, n: int, top: Slot) -> bool:
    vectors = (message.executed, message.committed, message.stable)
    return len(message.echo) == len(message.held) == n and all(
        len(vector) == n and max(vector) <= top for vector in vectors
    )


_FITS_BY_FIELD: dict[str, Callable[[Any, int, Slot], bool]] = {
    "deps": _deps_fit,
    "slot": _slot_fits,
    "replica": _column_fits,
}
"""A message is judged by the first of these fields that it has."""

_FITS: dict[type[Message], Callable[[Any, int, Slot], bool]] = {
    **{
        kind: fits
        for field, fits in reversed(_FITS_BY_FIELD.items())
        for kind in MESSAGES
        if field in kind.__struct_fields__
    },
    Recover: _slots_fit,
    RecoverOk: _votes_fit,
    ValidateOk: _objections_fit,
    Progress: _progress_fits,
}
"""What must fit in a message, by its class."""
