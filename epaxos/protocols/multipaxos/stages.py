"""The stages of becoming and being the leader: small classes, each with its own tally only.

A follower has no stage. `Probing`, shared with other protocols, asks whether a campaign would be
welcome, `Preparing` collects promises and decides what to propose in every open slot, `Leading`
holds what only a leader has.
Rules of this file: no messages leave, nothing is durable; the handlers are in replica.py.
Source: docs/protocol.md 5.1 (election, gap filling); Paxos Made Simple, section 2.2: of the votes
of a majority the one with the highest ballot is proposed.
"""

from epaxos.core.command import Payload
from epaxos.core.quorum import Tally
from epaxos.core.types import Ballot, Micros, ReplicaId, Slot
from epaxos.protocols.leader_based.patience import CheckQuorum
from epaxos.protocols.leader_based.runs import Runs
from epaxos.protocols.leader_based.transfer import Transfer
from epaxos.protocols.multipaxos.log import SlotLog
from epaxos.protocols.multipaxos.messages import Promise


class Preparing:
    """A candidate: phase 1 for all slots at once."""

    __slots__ = (
        "_best",
        "_position",
        "attempts",
        "ballot",
        "chosen",
        "chosen_at",
        "done",
        "predecessor",
    )

    def __init__(
        self, ballot: Ballot, first: Slot, me: ReplicaId, n: int, predecessor: ReplicaId | None
    ) -> None:
        self.ballot = ballot
        """Ours, promised by ourselves."""
        self._position = [first] * n
        """Per member: from which slot on its votes are still unknown."""
        self._best: dict[Slot, tuple[Ballot, Payload | None]] = {}
        """The vote with the highest ballot heard, per slot."""
        self.done = Tally(me)
        """Whose promise is complete."""
        self.chosen: Slot = 0
        """The highest chosen index in any promise: below it votes are not listed, so we catch up
        with it before we lead."""
        self.chosen_at = me
        """Who said so."""
        self.predecessor = predecessor
        """The leader that hands over to us: its promise is waited for, within reason, because it
        names every proposal it made."""
        self.attempts = 0
        """How often Prepare was repeated."""

    def position(self, member: ReplicaId) -> Slot:
        """From which slot on to ask a member."""
        return self._position[member]

    def absorb(self, source: ReplicaId, m: Promise) -> bool:
        """Take in one chunk of a promise; False if it is a duplicate."""
        assert m.ballot == self.ballot, "promises of other ballots do not count"
        if source in self.done or m.first != self._position[source]:
            return False
        if m.chosen > self.chosen:
            self.chosen = m.chosen
            self.chosen_at = source
        for vote in m.votes:
            best = self._best.get(vote.slot)
            if best is None or vote.ballot > best[0]:
                self._best[vote.slot] = (vote.ballot, vote.payload)
        if m.until:
            self._position[source] = m.until + 1
        else:
            self.done.add(source)
        return True

    def complete(self, majority: int, chosen: Slot) -> bool:
        """Whether we may lead, having `chosen` slots ourselves."""
        return (
            self.done.count >= majority
            and chosen >= self.chosen
            and (self.predecessor is None or self.predecessor in self.done)
        )

    def proposals(self, log: SlotLog) -> list[tuple[Slot, Payload | None]]:
        """What to propose in every open slot: the vote with the highest ballot, ours included, and
        a no-op where nobody of the majority voted (gap filling)."""
        last = max(max(self._best, default=0), log.last)
        proposals = []
        for slot in range(log.chosen + 1, last + 1):
            entry = log.entries.get(slot)
            if entry is not None and entry.chosen:
                continue
            ballot, payload = self._best.get(slot, (-1, None))
            if entry is not None and entry.ballot > ballot:
                payload = entry.payload
            proposals.append((slot, payload))
        return proposals


class Leading:
    """What only a leader has."""

    __slots__ = (
        "_seen",
        "attempts",
        "ballot",
        "check",
        "marker",
        "next",
        "resent_at",
        "told",
        "transfer",
    )

    def __init__(self, ballot: Ballot, next_slot: Slot, now: Micros) -> None:
        self.ballot = ballot
        """By which we lead."""
        self.next: Slot = next_slot
        """The slot of the next proposal. Only grows, so no slot is used twice."""
        self.told: Slot = 0
        """The commit index as last broadcast."""
        self.marker: Slot = next_slot
        """Slots below it were proposed at least one retransmission wait ago when that ends."""
        self.resent_at: Slot = 0
        """The commit index when Accepts were last sent again."""
        self.attempts = 0
        """How often they were sent again since it moved."""
        self.check = CheckQuorum(now)
        """Whether a majority is still there."""
        self.transfer: Transfer | None = None
        """To whom leadership is being handed over."""
        self._seen: dict[ReplicaId, Runs] = {}

    def first_sight(self, origin: ReplicaId, number: int) -> bool:
        """Whether a forwarded batch has not been seen in this leadership; it has from now on."""
        runs = self._seen.get(origin)
        if runs is None:
            runs = self._seen[origin] = Runs()
        return runs.add(number)
