"""The log of slots as one member holds it, and who was heard saying what about it.

`SlotLog` remembers votes and chosen values, `Members` the vectors and round trips of the others,
`Runs` which forwarded batches were seen. Rules of this file: no ballots are compared and no message
is sent here; whoever calls decides what may be voted for and what is chosen.
Source: docs/protocol.md 5.1 (log), 1.14 (R15: forgetting; the times).
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator

from epaxos.core.command import Payload
from epaxos.core.replica import Outbox, Ready
from epaxos.core.stamps import Stamps
from epaxos.core.types import Ballot, Micros, ReplicaId, Slot
from epaxos.protocols.multipaxos.messages import Progress, Vote

CHUNK_BYTES = 1 << 20
"""A Promise or a Learn ends after so many bytes of payload."""

CHUNK_SLOTS = 4096
"""And after so many slots."""

ENTRY_BYTES = 600
"""Estimate of what one slot holds in memory beside its payload."""

COMMAND_BYTES = 130
"""Estimate of what a decoded command holds beside its encoded bytes."""

SLOTS_AHEAD_MAX = 1 << 20
"""A vote so far beyond all that we hold would make every pass over the log a pass over nothing; who
is that far behind fetches first."""

RTT_FLOOR_US = 40_000
"""RTT_max is never taken for less."""

SUSPECT_RTTS = 10
"""A member not heard for so many RTT_max does not count in RTT_max."""


class TickOutbox(Outbox):
    """An outbox that lets its owner say, before it is emptied, what it put off to the tick's end.

    So a tick's acknowledgements leave as runs, and its commit index once."""

    __slots__ = ("_end_tick",)

    def __init__(self, end_tick: Callable[[], None]) -> None:
        super().__init__()
        self._end_tick = end_tick

    def take(self) -> Ready:
        self._end_tick()
        return super().take()


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
        entry = self.entries.get(slot)
        if entry is None:
            entry = self.entries[slot] = Entry(ballot, payload, votes)
            self.live_bytes += size_of(payload)
            if slot > self.last:
                self.last = slot
            return entry
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
        votes = []
        size = 0
        for slot in range(max(first, self.chosen + 1), self.last + 1):
            entry = self.entries.get(slot)
            if entry is None:
                continue
            votes.append(Vote(slot, entry.ballot, entry.payload))
            size += encoded_size(entry.payload)
            if (size >= CHUNK_BYTES or len(votes) >= CHUNK_SLOTS) and slot < self.last:
                return votes, slot
        return votes, 0

    def values(self, first: Slot, last: Slot) -> list[Payload | None]:
        """Chosen values from `first` on, as many as one message carries."""
        payloads: list[Payload | None] = []
        size = 0
        for slot in range(first, min(last, self.chosen) + 1):
            payload = self.entries[slot].payload
            payloads.append(payload)
            size += encoded_size(payload)
            if size >= CHUNK_BYTES or len(payloads) >= CHUNK_SLOTS:
                break
        return payloads

    def open(self, last: Slot) -> Iterator[tuple[Slot, Entry]]:
        """The slots up to `last` that hold a value not known chosen, ascending."""
        for slot in range(self.chosen + 1, last + 1):
            entry = self.entries.get(slot)
            if entry is not None and not entry.chosen:
                yield slot, entry

    def forget(self, floor: Slot) -> None:
        """Drop every slot up to `floor`, which is at most `chosen`."""
        for slot in range(self.floor + 1, floor + 1):
            self.live_bytes -= size_of(self.entries.pop(slot).payload)
        self.floor = floor

    def _replace(self, entry: Entry, payload: Payload | None) -> None:
        if payload is not entry.payload:
            self.live_bytes += size_of(payload) - size_of(entry.payload)
            entry.payload = payload


def encoded_size(payload: Payload | None) -> int:
    """Bytes of a payload in a message."""
    return 1 if payload is None else len(payload.encoded)


def size_of(payload: Payload | None) -> int:
    """Estimate of what a slot with this payload holds in memory."""
    if payload is None:
        return ENTRY_BYTES
    return ENTRY_BYTES + len(payload.encoded) + COMMAND_BYTES * len(payload.batch.operations)


class Runs:
    """A set of numbers that mostly come in order: memory grows with the gaps, not the members."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def add(self, number: int) -> bool:
        """Take in a number; False if it was there."""
        firsts, lasts = self._firsts, self._lasts
        if lasts and number == lasts[-1] + 1:
            lasts[-1] = number
            return True
        at = bisect_right(firsts, number)
        if at and number <= lasts[at - 1]:
            return False
        joins_left = at > 0 and lasts[at - 1] == number - 1
        joins_right = at < len(firsts) and firsts[at] == number + 1
        if joins_left and joins_right:
            lasts[at - 1] = lasts[at]
            del firsts[at], lasts[at]
        elif joins_left:
            lasts[at - 1] = number
        elif joins_right:
            firsts[at] = number
        else:
            firsts.insert(at, number)
            lasts.insert(at, number)
        return True


class Members:
    """What the members said of themselves, and how far away they are."""

    __slots__ = (
        "_me",
        "_measured",
        "_probed",
        "_rtt",
        "_stamp",
        "_stamp_at",
        "chosen",
        "executed",
        "heard",
        "rtt_max",
        "stable",
    )

    def __init__(self, me: ReplicaId, rtt_us: tuple[Micros, ...]) -> None:
        n = len(rtt_us)
        self._me = me
        self._rtt = list(rtt_us)
        self._measured = [False] * n
        self._probed = [True] * n
        """Whether a Progress of ours has left since that member's last echo was measured."""
        self._stamp = [0] * n
        self._stamp_at: list[Micros] = [0] * n
        self.heard: list[Micros | None] = [None] * n
        """When any message of a member last arrived."""
        self.executed: list[Slot] = [0] * n
        """Executed and durable, per member. Only grows."""
        self.stable: list[Slot] = [0] * n
        """The minimum of all executed, as each member advertised it. Only grows."""
        self.chosen: list[Slot] = [0] * n
        """What each member knows chosen without a gap, as it last said."""
        self.rtt_max: Micros = max(RTT_FLOOR_US, *rtt_us)
        """The unit of all waits."""

    def absorb(self, source: ReplicaId, m: Progress, now: Micros) -> None:
        """Take in a Progress."""
        self.executed[source] = max(self.executed[source], m.executed[0])
        self.stable[source] = max(self.stable[source], m.stable[0])
        self.chosen[source] = m.commit
        is_copy = m.stamp == self._stamp[source]
        self._stamp[source] = m.stamp
        self._stamp_at[source] = now
        echo = m.echo[self._me]
        # One sample per stamp of ours: what was stamped before our clock jumped is echoed again and
        # again, until we speak.
        if 0 < echo <= now and not is_copy and self._probed[source]:
            self._probed[source] = False
            # A process that stood still, or whose clock jumped, must not take its round trips for
            # minutes: one sample counts for at most twice what was known.
            measured = min(now - echo, 2 * self._rtt[source] + RTT_FLOOR_US)
            if self._measured[source]:
                measured = (7 * self._rtt[source] + measured) // 8
            self._rtt[source] = measured
            self._measured[source] = True
            self._renew_rtt_max(now)

    def echo(self, now: Micros) -> tuple[int, ...]:
        """The `echo` field of a Progress sent now."""
        self._probed = [True] * len(self._stamp)
        return tuple(stamp and stamp + now - at for stamp, at in zip(self._stamp, self._stamp_at))

    def renew_floor(self) -> Slot:
        """Renew our own stable, and say up to where every member knows that every member has
        executed (R15)."""
        stable = min(self.executed)
        if stable > self.stable[self._me]:
            self.stable[self._me] = stable
        return min(self.stable)

    def heard_since(self, since: Micros) -> int:
        """How many members, ourselves included, were heard at or after `since`."""
        return 1 + sum(at is not None and at >= since for at in self.heard)

    def _renew_rtt_max(self, now: Micros) -> None:
        patience = SUSPECT_RTTS * self.rtt_max
        self.rtt_max = max(
            RTT_FLOOR_US,
            *(rtt for rtt, at in zip(self._rtt, self.heard) if at is None or now - at < patience),
        )
