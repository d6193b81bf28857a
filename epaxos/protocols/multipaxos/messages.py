"""Messages and records of Multi-Paxos.

    follower C                    A, B, D, E
    Probe ───────────────────────▶                       would you promise? (changes nothing there)
        ◀───────────────── ProbeOk                       silence from whoever hears a live leader
    ● Prepare ───────────────────▶ ●                     phase 1, for all slots from `first` on
        ◀───────────────── Promise                       in chunks: the rest is asked for by Prepare
    Fetch ───────────────────────▶                       (only who knows fewer chosen slots)
        ◀─────────────────── Learn

    follower B                    leader C               A, D, E
    Forward ─────────────────────▶                       once, never again
        ◀──────────────── Returned                       only from who led by that ballot before
                                   ● Accept ────────────▶ ●            ● = synced before the answer
                                       ◀──────── AcceptOk
                                   CommitIndex ─────────▶               or on the next Accept

Source: Paxos Made Simple and its production shape, docs/protocol.md 5.1; durability, times and
forgetting as in 1.12 and 1.14. One ballot covers the whole log. A payload of None is a no-op.
"""

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from epaxos.core.command import Payload
from epaxos.core.types import SLOTS_PER_MESSAGE_MAX, Ballot, Deps, Slot, Stamp

Payloads: TypeAlias = Annotated[list[Payload | None], Meta(max_length=SLOTS_PER_MESSAGE_MAX)]
"""The values of a run of slots; None is a no-op."""


class Probe(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Follower that misses its leader → all: would you promise me a ballot?"""

    number: int
    """Which probe of the sender; comes back in the answer."""


class ProbeOk(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Answer of a member that hears no live leader either, or only the prober."""

    number: int
    """From the Probe."""
    promised: Ballot
    """The highest ballot promised here; the campaign chooses one above."""


class Prepare(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """Candidate → all, phase 1: promise this ballot for the whole log, and say your votes."""

    ballot: Ballot
    """The candidate's, durably promised by itself."""
    first: Slot
    """The votes asked for begin here: the first slot that the candidate does not know chosen, or
    where the previous chunk ended."""


class Vote(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One slot in a Promise."""

    slot: Slot
    """Which slot."""
    ballot: Ballot
    """The ballot voted in."""
    payload: Payload | None
    """The value voted for; None is a no-op."""


class Promise(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """Acceptor → candidate: promised, and durable."""

    ballot: Ballot
    """The ballot promised."""
    first: Slot
    """From the Prepare."""
    until: Slot
    """Votes are complete for slots first .. until; 0: for all slots from `first` on."""
    chosen: Slot
    """Every slot up to here is known chosen at the sender; for those it lists no votes."""
    votes: Annotated[list[Vote], Meta(max_length=SLOTS_PER_MESSAGE_MAX)]
    """The sender's votes in that range, ascending."""


class Accept(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """Leader → all, phase 2."""

    ballot: Ballot
    """The leader's."""
    slot: Slot
    """Which slot."""
    payload: Payload | None
    """What to vote for; None is a no-op."""
    commit: Slot
    """The leader's commit index, as in CommitIndex."""


class AcceptOk(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """Acceptor → leader: voted for a run of slots, and durable."""

    ballot: Ballot
    """The ballot voted in; counted only if the leader still leads by it."""
    first: Slot
    """First slot of the run."""
    last: Slot
    """Last slot of the run."""


class CommitIndex(msgspec.Struct, frozen=True, array_like=True, tag=7, gc=False):
    """Leader → all, once per tick in which it moved and no Accept carried it."""

    ballot: Ballot
    """The leader's. Says nothing of the value where a follower voted in another ballot."""
    commit: Slot
    """Every slot up to here is chosen."""


class Nack(msgspec.Struct, frozen=True, array_like=True, tag=8, gc=False):
    """Acceptor → sender of a lower ballot."""

    promised: Ballot
    """The highest ballot promised here."""


class Fetch(msgspec.Struct, frozen=True, array_like=True, tag=9, gc=False):
    """Who lacks chosen slots → who knows them. One is outstanding at a time."""

    first: Slot
    """First slot wanted."""
    last: Slot
    """Last slot wanted; the answer may end earlier."""


class Learn(msgspec.Struct, frozen=True, array_like=True, tag=10, gc=False):
    """Answer to Fetch: a run of chosen slots, bounded in bytes, never empty."""

    first: Slot
    """First slot of the run."""
    payloads: Payloads
    """The chosen values in order of slot; None is a no-op."""


class Forward(msgspec.Struct, frozen=True, array_like=True, tag=11, gc=False):
    """Follower → leader: propose this batch of mine. Sent once; only its slot
    answers."""

    ballot: Ballot
    """By which the follower believes the target to lead; refused if it leads by another."""
    payload: Payload
    """The batch; the sender is its origin."""


class Returned(msgspec.Struct, frozen=True, array_like=True, tag=14, gc=False):
    """Former leader → follower: I led by this ballot, lead by it no longer, and never proposed that
    batch of yours."""

    ballot: Ballot
    """From the Forward."""
    number: int
    """The batch's."""


class TakeOver(msgspec.Struct, frozen=True, array_like=True, tag=12, gc=False):
    """Leader → its successor: campaign now, and wait for my promise too, so that it brings every
    proposal of mine."""

    ballot: Ballot
    """The leader's; the successor must follow it."""


class Heartbeat(msgspec.Struct, frozen=True, array_like=True, tag=13, gc=False):
    """Everyone → all, at least every 1.25 RTT_max; the only bearer of vectors."""

    ballot: Ballot
    """The highest ballot promised at the sender."""
    leads: bool
    """Whether the sender leads by that ballot."""
    commit: Slot
    """Every slot up to here is known chosen at the sender."""
    executed: Deps
    """Executed without gaps and durable at the sender (one column)."""
    stable: Deps
    """Minimum of all members' executed, as the sender knows them (one column)."""
    echo: tuple[Stamp, ...]
    """Per member: the `stamp` of the last Heartbeat heard from it, moved forward by the time it was
    held here; 0 for none. Measures round trips."""
    stamp: Stamp
    """The sender's clock in µs; meaningful only to the sender."""


class Promised(msgspec.Struct, frozen=True, array_like=True, tag=16, gc=False):
    """Record: a ballot joined, before it is promised or campaigned with."""

    ballot: Ballot
    """The promise."""


class Voted(msgspec.Struct, frozen=True, array_like=True, tag=17, gc=False):
    """Record: a vote in phase 2; at the leader also the allocation of the slot."""

    ballot: Ballot
    """Promised and voted."""
    slot: Slot
    """Which slot."""
    payload: Payload | None
    """The vote; None is a no-op."""


class Learned(msgspec.Struct, frozen=True, array_like=True, tag=18, gc=False):
    """Note: a run of slots that somebody else knew to be chosen. Not a vote."""

    first: Slot
    """First slot of the run."""
    payloads: list[Payload | None]
    """The chosen values in order of slot; None is a no-op."""


class Chosen(msgspec.Struct, frozen=True, array_like=True, tag=19, gc=False):
    """Note: every slot up to here is chosen, with the value that this log last gave it."""

    up_to: Slot
    """The commit index as known here."""


class Forgotten(msgspec.Struct, frozen=True, array_like=True, tag=20, gc=False):
    """Note: every member has executed every slot up to here. Restore forgets by it."""

    floor: Slot
    """At most the commit index noted before."""


MESSAGES = (
    Probe,
    ProbeOk,
    Prepare,
    Promise,
    Accept,
    AcceptOk,
    CommitIndex,
    Nack,
    Fetch,
    Learn,
    Forward,
    TakeOver,
    Heartbeat,
    Returned,
)
"""The closed union of messages."""

RECORDS = (Promised, Voted, Learned, Chosen, Forgotten)
"""The closed union of records."""
