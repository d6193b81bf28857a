"""The central interface: what a replica is asked, and the box into which it speaks.

A replica never awaits, logs, reads a clock, uses module-level random or touches a file. It is told
what happened, with the time, and puts everything it wants done into its `Outbox`. The node above
empties the box with `take`; the law of durability is kept by whoever drives the node: append `log`,
sync once if `must_sync`, only then let `messages` (and replies) leave.
"""

import heapq
import random
from collections.abc import Hashable
from enum import IntEnum
from typing import Any, NamedTuple, Protocol, TypeAlias

import msgspec

from epaxos.core.command import Footprint, Payload
from epaxos.core.errors import Definite
from epaxos.core.stamps import Stamps
from epaxos.core.types import Deps, InstanceId, Micros, ReplicaId, Slot

Message: TypeAlias = msgspec.Struct
"""From replica to replica. Each protocol's `messages.py` defines the closed union of its own."""

Record: TypeAlias = msgspec.Struct
"""To the log. Each protocol's `messages.py` defines its own; `Executed` below is the node's."""

Target: TypeAlias = int
"""Whom a message is for: a member, or EVERYONE."""

EVERYONE: Target = -1
"""The target of a broadcast: all other members, never the sender."""

RECORD_TAG_PROTOCOL = 16
"""Record tags below this number belong to the node, those from it on to the protocol."""


class Path(IntEnum):
    """How an instance came to be decided, as far as this replica saw."""

    FAST = 0
    """By its command leader after one round trip."""
    SLOW = 1
    """By its command leader after PreAccept and Accept."""
    RECOVERED = 2
    """By a replica that took the instance over."""
    LEARNED = 3
    """Told by a Commit, a catch-up or the own log: this replica did not decide it."""
    LEADER = 4
    """A slot of a leader-based protocol."""


class Executed(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Note: these ids were executed here, in this order (R3).

    One note covers whole components only (R5). Restore applies them in the order of the log."""

    replicas: bytes
    """The column of each id."""
    slots: list[Slot]
    """The slot of each id."""


class Decided(NamedTuple):
    """A decided instance on its way to execution."""

    replica: ReplicaId
    slot: Slot
    deps: Deps
    payload: Payload | None
    """None: decided as Nop."""
    path: Path


class Ready(NamedTuple):
    """Everything a replica wants done, in order."""

    log: list[Record]
    must_sync: bool
    """Whether something in `log` is a record: then nothing may leave before a sync."""
    messages: list[tuple[Target, Message]]
    decided: list[Decided]
    returned: list[int]
    """Numbers of own batches whose id was not known: they were not and will not be proposed."""
    distrusted: list[ReplicaId]
    """Members that sent what no correct one sends: their links should be closed."""


class Outbox:
    """All that a core can do to the world. Order of calls is order of events."""

    __slots__ = (
        "_decided",
        "_distrusted",
        "_log",
        "_messages",
        "_must_sync",
        "_returned",
        "taken",
    )

    def __init__(self) -> None:
        self.taken = 0
        """How often the box was emptied."""
        self._log: list[Record] = []
        self._must_sync = False
        self._messages: list[tuple[Target, Message]] = []
        self._decided: list[Decided] = []
        self._returned: list[int] = []
        self._distrusted: list[ReplicaId] = []

    def record(self, record: Record) -> None:
        """Append to the log; nothing of this Ready leaves before it is durable."""
        self._log.append(record)
        self._must_sync = True

    def note(self, record: Record) -> None:
        """Append to the log; durable with whatever sync comes next (R10)."""
        self._log.append(record)

    def send(self, target: ReplicaId, message: Message) -> None:
        """To one other member."""
        self._messages.append((target, message))

    def broadcast(self, message: Message) -> None:
        """To all other members."""
        self._messages.append((EVERYONE, message))

    def commit(
        self, replica: ReplicaId, slot: Slot, deps: Deps, payload: Payload | None, path: Path
    ) -> None:
        """Hand a decided instance to execution; once per instance and process life."""
        self._decided.append(Decided(replica, slot, deps, payload, path))

    def give_back(self, number: int) -> None:
        """An own batch, by its number, was not and will not be proposed: the node may propose its
        commands anew."""
        self._returned.append(number)

    def distrust(self, source: ReplicaId) -> None:
        """A member sent what is out of range, and was ignored: only a broken one does."""
        self._distrusted.append(source)

    def take(self) -> Ready:
        """Everything since the last take; empties the box."""
        self.taken += 1
        ready = Ready(
            self._log,
            self._must_sync,
            self._messages,
            self._decided,
            self._returned,
            self._distrusted,
        )
        self._log, self._must_sync, self._messages, self._decided = [], False, [], []
        if ready.returned:
            self._returned = []
        if ready.distrusted:
            self._distrusted = []
        return ready


class Timers:
    """Keyed deadlines, of which only the earliest matters to the outside."""

    __slots__ = ("_at", "_heap", "_order")

    def __init__(self) -> None:
        self._at: dict[Hashable, tuple[Micros, int]] = {}
        self._heap: list[tuple[Micros, int, Hashable]] = []
        self._order = 0

    def set(self, key: Hashable, at: Micros) -> None:
        """Arm or move the deadline of `key`."""
        self._order += 1
        self._at[key] = (at, self._order)
        heapq.heappush(self._heap, (at, self._order, key))

    def cancel(self, key: Hashable) -> None:
        """Forget the deadline of `key`, if it has one."""
        self._at.pop(key, None)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._at

    def __len__(self) -> int:
        return len(self._at)

    def next(self) -> Micros | None:
        """The earliest deadline, or None."""
        heap = self._heap
        while heap:
            at, order, key = heap[0]
            if self._at.get(key) == (at, order):
                return at
            heapq.heappop(heap)
        return None

    def due(self, now: Micros) -> list[Hashable]:
        """Remove and return, earliest first, the keys whose deadline is at or before `now`."""
        keys = []
        while (at := self.next()) is not None and at <= now:
            key = heapq.heappop(self._heap)[2]
            del self._at[key]
            keys.append(key)
        return keys


class Tables(NamedTuple):
    """How much each table holds that commands fill, by the table's name; for tests."""

    until_executed: dict[str, int]
    """Nothing once all is decided and executed here."""
    until_forgotten: dict[str, int]
    """Nothing once everybody knows of everybody that it has executed all."""


class Setup(NamedTuple):
    """What a replica is told at construction."""

    me: ReplicaId
    n: int
    """How many members the cluster has; their ids are 0 .. n-1."""
    rtt_us: tuple[Micros, ...]
    """Expected round trip from here to each member, 0 to itself; measured values replace them."""
    random: random.Random
    """For jitter only; seeded by the world."""
    leader: ReplicaId | None = None
    """Leader protocols: who campaigns at once at the first start; None: whoever times out first."""


class Replica(Protocol):
    """One member of a protocol, without I/O. Messages and records are those of its protocol."""

    out: Outbox
    """Everything the replica wants done."""

    @property
    def floor(self) -> Deps:
        """What may be forgotten (R15): every member knows that every member executed it. Only
        grows."""
        ...

    @property
    def live_bytes(self) -> int:
        """Estimate of the memory held by instances above `floor`, payloads included."""
        ...

    def propose(self, payload: Payload, now: Micros) -> InstanceId | None:
        """Start agreement on a batch made here.

        Returns the id under which it will be decided, or None where that is not known yet (leader
        protocols): then the node recognises the batch by its origin and number when it is decided.
        Raises Definite when nothing can be proposed now (for example no known leader)."""
        ...

    def dependencies(self, footprint: Footprint) -> Deps:
        """The latest id per column that interferes with `footprint`, 0 for none: the contention
        question (R12). Pure. Slot protocols answer the empty tuple: nothing is ever contended."""
        ...

    def executed(self, durable: Deps, now: Micros) -> None:
        """From the node: executed here without gaps and on disk; may be advertised from now on.

        Called at a take, before the box is emptied, when the Ready before it was synced (in memory
        mode: whenever the vector moved)."""
        ...

    def receive(self, source: ReplicaId, message: Message, now: Micros) -> None:
        """A message from another member. Stale and duplicate ones are ignored by name; of what is
        out of range, `out.distrust` says who sent it."""
        ...

    def wake(self, now: Micros) -> None:
        """Some deadline <= now has passed. The first wake is the start: restore is over."""
        ...

    def deadline(self) -> Micros | None:
        """When to be woken next; 0 for a new replica."""
        ...

    def restore(self, record: Record) -> None:
        """Replay one record of the own log, before the first wake. May call `out.commit`, nothing
        else."""
        ...

    def unready(self) -> str | None:
        """Why a command proposed now would probably not be decided, in a sentence; None if fine."""
        ...

    def slowest_member(self) -> ReplicaId | None:
        """The member that holds `floor` back the most, if something is held back."""
        ...

    def describe(self, instance: InstanceId) -> dict[str, Any] | None:
        """One instance as this replica knows it, in values that JSON can say; None if unknown."""
        ...

    def statistics(self) -> dict[str, int]:
        """Counters since the process started; the keys are stable names, like `fast`."""
        ...

    def held(self) -> Tables:
        """How much its tables hold."""
        ...

    # `Leaderless` has these four for protocols without a leader.

    @property
    def leader(self) -> ReplicaId | None:
        """Whom this replica believes to lead; None: nobody, or nobody is known."""
        ...

    @property
    def leadership(self) -> int:
        """Which leadership this replica follows, as a number that no two share; 0: none."""
        ...

    def transfer(self, target: ReplicaId, now: Micros) -> None:
        """Ask that `target` become the leader. Raises Definite where that cannot be tried now."""
        ...

    def observe(self, instance: InstanceId, stamps: Stamps) -> None:
        """Write into `stamps`, from here on, who answers about an instance just proposed here."""
        ...


class Leaderless:
    """The part of `Replica` in which replicas of protocols without a leader do not differ."""

    leader: ReplicaId | None = None
    leadership: int = 0

    def transfer(self, target: ReplicaId, now: Micros) -> None:
        """Raises Definite: there is nobody from whom leadership could go to `target`."""
        raise Definite("this protocol has no leader to move")

    def observe(self, instance: InstanceId, stamps: Stamps) -> None:
        """Nothing is written: samples then tell nothing of who answered."""
