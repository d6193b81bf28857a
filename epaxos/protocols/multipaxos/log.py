"""The log of slots as one member holds it: votes and chosen values.

Rules of this file: no ballots are compared and no message is sent here; whoever calls decides what
may be voted for and what is chosen.
Source: docs/protocol.md 5.1 (log), 1.14 (R15: forgetting).
"""

from collections.abc import Iterator

from epaxos.core.command import Payload
from epaxos.core.stamps import Stamps
from epaxos.core.types import Ballot, Slot
from epaxos.protocols.multipaxos.messages import Vote

CHUNK_BYTES = 1 << 20
"""The slots of a Promise or a Learn take no more, unless it is one slot alone."""

CHUNK_SLOTS = 4096
"""And they are no more than so many."""

SLOT_ENVELOPE_BYTES = 24
"""The most that a slot takes in a message beside its payload: two numbers and two headers."""

ENTRY_BYTES = 600
"""Estimate of what one slot holds in memory beside its payload."""

COMMAND_BYTES = 130
"""Estimate of what a decoded command holds beside its encoded bytes."""

SLOTS_AHEAD_MAX = 1 << 20
"""A vote so far beyond all that we hold would make every pass over the log a pass over nothing; who
is that far behind fetches first."""


class Entry:
    """One slot: the vote, and whether its value is chosen."""

    __slots__ = ("ballot", "chosen", "payload", "stamps", "votes")

    def __init__(self, ballot: Ballot, payload: Payload | None, votes: int) -> None:
        self.ballot = ballot
        """In which the payload was voted for here; 0: it was learned, not voted for."""
        self.payload = payload
        """The vote, or the chosen value. None is a no-op."""
        self.votes = votes
        """At the leader: one bit per member that voted for it in `ballot`."""
        self.chosen = False
        """Invariant: once true, `payload` never changes."""
        self.stamps: Stamps | None = None
        """At the leader: where to write who votes, if somebody wants to know."""


class SlotLog:
    """The slots above the floor."""

    __slots__ = ("chosen", "entries", "floor", "last", "live_bytes")

    def __init__(self) -> None:
        self.entries: dict[Slot, Entry] = {}
        """Invariant: holds every slot in floor+1 .. chosen, all of them chosen."""
        self.chosen: Slot = 0
        """Every slot up to it is chosen. Only grows."""
        self.floor: Slot = 0
        """Slots up to it are forgotten. Only grows."""
        self.last: Slot = 0
        """The highest slot ever held."""
        self.live_bytes = 0
        """Estimate of the memory held."""

    def vote(self, slot: Slot, ballot: Ballot, payload: Payload | None, votes: int) -> Entry:
        """Vote for a value; replaces an earlier vote. A chosen value stays as it is."""
        assert slot > self.floor, "no vote for what is forgotten"
        entry = self.entries.get(slot)
        if entry is None:
            entry = self.entries[slot] = Entry(ballot, payload, votes)
            self.live_bytes += size_of(payload)
            if slot > self.last:
                self.last = slot
            return entry
        assert ballot >= entry.ballot, "a vote is not replaced by one of a lower ballot (MP9)"
        entry.ballot = ballot
        entry.votes = votes
        if not entry.chosen:
            self._replace(entry, payload)
        return entry

    def learn(self, slot: Slot, payload: Payload | None) -> Entry:
        """The value of a slot as somebody knows it to be chosen. The caller chooses it next."""
        entry = self.entries.get(slot)
        if entry is None:
            return self.vote(slot, 0, payload, 0)
        if not entry.chosen and entry.payload != payload:
            entry.ballot = 0
            entry.votes = 0
            self._replace(entry, payload)
        return entry

    def choose(self, slot: Slot, entry: Entry) -> None:
        """Mark a slot chosen, and move `chosen` over all that are now chosen without a gap."""
        assert slot > self.chosen, "what is chosen without a gap is not chosen again"
        entry.chosen = True
        if slot != self.chosen + 1:
            return
        entries = self.entries
        after = entries.get(slot + 1)
        while after is not None and after.chosen:
            slot += 1
            after = entries.get(slot + 1)
        self.chosen = slot

    def votes(self, first: Slot) -> tuple[list[Vote], Slot]:
        """Votes for slots from `first` on that are not known chosen without a gap, and up to which
        slot they are complete (0: all)."""
        votes: list[Vote] = []
        room = CHUNK_BYTES
        for slot in range(max(first, self.chosen + 1), self.last + 1):
            entry = self.entries.get(slot)
            if entry is None:
                continue
            room -= encoded_size(entry.payload)
            if votes and (room < 0 or len(votes) >= CHUNK_SLOTS):
                return votes, votes[-1].slot
            votes.append(Vote(slot, entry.ballot, entry.payload))
        return votes, 0

    def values(self, first: Slot, last: Slot) -> list[Payload | None]:
        """Chosen values from `first` on, as many as one message carries."""
        assert first > self.floor, "what is forgotten cannot be told"
        payloads: list[Payload | None] = []
        room = CHUNK_BYTES
        for slot in range(first, min(last, self.chosen) + 1):
            payload = self.entries[slot].payload
            room -= encoded_size(payload)
            if payloads and (room < 0 or len(payloads) >= CHUNK_SLOTS):
                break
            payloads.append(payload)
        return payloads

    def open(self, last: Slot) -> Iterator[tuple[Slot, Entry]]:
        """The slots up to `last` that hold a value not known chosen, ascending."""
        for slot in range(self.chosen + 1, last + 1):
            entry = self.entries.get(slot)
            if entry is not None and not entry.chosen:
                yield slot, entry

    def forget(self, floor: Slot) -> None:
        """Drop every slot up to `floor`, which is at most `chosen`."""
        assert self.floor <= floor <= self.chosen, "what is not chosen is not forgotten (MP2)"
        for slot in range(self.floor + 1, floor + 1):
            self.live_bytes -= size_of(self.entries.pop(slot).payload)
        self.floor = floor

    def _replace(self, entry: Entry, payload: Payload | None) -> None:
        if payload is not entry.payload:
            self.live_bytes += size_of(payload) - size_of(entry.payload)
            entry.payload = payload


def encoded_size(payload: Payload | None) -> int:
    """The most bytes that a slot with this payload takes in a message."""
    return SLOT_ENVELOPE_BYTES + (0 if payload is None else len(payload.encoded))


def size_of(payload: Payload | None) -> int:
    """Estimate of what a slot with this payload holds in memory."""
    if payload is None:
        return ENTRY_BYTES
    return ENTRY_BYTES + len(payload.encoded) + COMMAND_BYTES * len(payload.batch.operations)
