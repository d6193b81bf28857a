"""Unanimous, a toy protocol: everybody is asked, and everybody must have answered.

A replica that has a batch writes it down with its dependencies, the latest batches that it knows to
interfere, and asks all others. Each writes it down with the dependencies that it knows itself, and
answers. When all have answered, their union is decided. Of two batches that interfere, one replica
knew the other when it was asked, hence one is in the dependencies of the other.

There are no quorums, no ballots and no recovery: only the replica that made an instance decides it,
and while any replica is missing nobody decides anything.

Rules of this file: what is said was written down before (`out.record`); a message may be lost, come
twice, late or out of order; nothing here raises because of it.
"""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from epaxos.core.command import Footprint, Payload, interferes, show_footprint
from epaxos.core.replica import Leaderless, Message, Outbox, Path, Record, Setup, Tables
from epaxos.core.types import Deps, InstanceId, Micros, ReplicaId, Slot, replica_name
from epaxos.execution.graph_executor import GraphExecutor
from epaxos.registry import ProtocolSpec

HEARTBEAT_US = 100_000
"""How often a replica says what it has executed; that also keeps others from missing it."""
SILENCE_US = 1_000_000
"""Who says nothing for so long, and a round trip, is missing."""


class Ask(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Who made an instance → all: what else do you know that interferes?"""

    replica: ReplicaId
    slot: Slot
    deps: Deps
    payload: Payload


class Agree(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The answer: written down, and these deps are what I know."""

    replica: ReplicaId
    slot: Slot
    deps: Deps


class Decide(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Who made an instance → all: everybody has agreed."""

    replica: ReplicaId
    slot: Slot
    deps: Deps
    payload: Payload


class Progress(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """To all, again and again: what I have executed, and it is on my disk."""

    executed: Deps


class Known(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """To the log: an instance as this replica now knows it."""

    replica: ReplicaId
    slot: Slot
    deps: Deps
    payload: Payload
    decided: bool


@dataclass
class Instance:
    """What a replica knows of one instance."""

    deps: Deps
    payload: Payload
    decided: bool = False
    answers: dict[ReplicaId, Deps] = field(default_factory=dict)
    """Own instances: who has agreed, and with which deps."""
    said_at: Micros = 0
    """Own instances: when all were told last."""


class UnanimousReplica(Leaderless):
    """One member; what its methods owe to whom says `epaxos.core.replica.Replica`."""

    def __init__(self, setup: Setup) -> None:
        self.out = Outbox()
        self.me, self.n, self._rtt_us = setup.me, setup.n, setup.rtt_us
        self.instances: list[dict[Slot, Instance]] = [{} for _ in range(self.n)]
        """Per column, what is above `floor`."""
        self.executed_by: list[Deps] = [(0,) * self.n] * self.n
        """Per replica, what it said that it has executed."""
        self.floor: Deps = (0,) * self.n
        self.live_bytes = 0
        self._next: Slot = 1
        self._heartbeat_at: Micros = 0
        self._heard_at: dict[ReplicaId, Micros] = {}
        self._missing: list[ReplicaId] = [each for each in range(self.n) if each != self.me]
        self._fast = 0

    # What the node asks

    def propose(self, payload: Payload, now: Micros) -> InstanceId:
        slot, deps = self._next, self.dependencies(payload.footprint)
        mine = Instance(deps, payload, said_at=now)
        self._keep(self.me, slot, mine)
        self.out.record(Known(self.me, slot, deps, payload, False))
        self.out.broadcast(Ask(self.me, slot, deps, payload))
        self._decide_if_unanimous(slot, mine, now)
        return InstanceId(self.me, slot)

    def dependencies(self, footprint: Footprint) -> Deps:
        return tuple(
            max((s for s, known in column.items() if _meets(footprint, known)), default=0)
            for column in self.instances
        )

    def executed(self, durable: Deps, now: Micros) -> None:
        self.executed_by[self.me] = durable
        self._forget()

    def receive(self, source: ReplicaId, message: Message, now: Micros) -> None:
        self._heard_at[source] = now
        if isinstance(message, Ask):
            self._on_ask(source, message)
        elif isinstance(message, Agree):
            self._on_agree(source, message, now)
        elif isinstance(message, Decide):
            self._on_decide(message)
        elif isinstance(message, Progress):
            self._on_progress(source, message, now)

    def wake(self, now: Micros) -> None:
        self._missing = [
            each
            for each in range(self.n)
            if each != self.me
            and now - self._heard_at.get(each, -SILENCE_US) > SILENCE_US + self._rtt_us[each]
        ]
        self.out.broadcast(Progress(self.executed_by[self.me]))
        self._heartbeat_at = now + HEARTBEAT_US

    def deadline(self) -> Micros:
        return self._heartbeat_at

    def restore(self, record: Record) -> None:
        assert isinstance(record, Known)
        found = Instance(record.deps, record.payload, record.decided)
        self._keep(record.replica, record.slot, found)
        if record.decided:
            self._commit(record.replica, record.slot, found, Path.LEARNED)

    def unready(self) -> str | None:
        names = ", ".join(map(replica_name, self._missing))
        return f"everybody must answer, and {names} is silent" if names else None

    def slowest_member(self) -> ReplicaId | None:
        if not self.live_bytes:
            return None
        return min(range(self.n), key=lambda each: sum(self.executed_by[each]))

    def describe(self, instance: InstanceId) -> dict[str, Any] | None:
        known = self.instances[instance.replica].get(instance.slot)
        if known is None:
            return None
        return {
            "phase": "committed" if known.decided else "asked",
            "deps": list(known.deps),
            "nop": False,
            **show_footprint(known.payload.footprint),
        }

    def statistics(self) -> dict[str, int]:
        return {"fast": self._fast}

    def held(self) -> Tables:
        return Tables({}, {"instances": sum(map(len, self.instances))})

    # Agreement

    def _on_ask(self, source: ReplicaId, message: Ask) -> None:
        column, slot = message.replica, message.slot
        if slot <= self.floor[column]:
            return  # An old copy: everybody has executed it.
        known = self.instances[column].get(slot)
        if known is None:
            known = Instance(self._answer(message), message.payload)
            self._keep(column, slot, known)
            self.out.record(Known(column, slot, known.deps, known.payload, False))
        self.out.send(source, Agree(column, slot, known.deps))

    def _answer(self, message: Ask) -> Deps:
        """What was asked and what is known here. Its own column its maker knows best."""
        known = self.dependencies(message.payload.footprint)
        deps = list(map(max, message.deps, known))
        deps[message.replica] = message.deps[message.replica]
        return tuple(deps)

    def _on_agree(self, source: ReplicaId, message: Agree, now: Micros) -> None:
        mine = self.instances[self.me].get(message.slot)
        if mine is None or mine.decided:
            return
        mine.answers[source] = message.deps
        self._decide_if_unanimous(message.slot, mine, now)

    def _decide_if_unanimous(self, slot: Slot, mine: Instance, now: Micros) -> None:
        if len(mine.answers) < self.n - 1:
            return
        for deps in mine.answers.values():
            mine.deps = tuple(map(max, mine.deps, deps))
        mine.decided, mine.said_at = True, now
        self._fast += 1
        self.out.record(Known(self.me, slot, mine.deps, mine.payload, True))
        self.out.broadcast(Decide(self.me, slot, mine.deps, mine.payload))
        self._commit(self.me, slot, mine, Path.FAST)

    def _on_decide(self, message: Decide) -> None:
        column, slot = message.replica, message.slot
        known = self.instances[column].get(slot)
        if slot <= self.floor[column] or (known is not None and known.decided):
            return
        found = Instance(message.deps, message.payload, decided=True)
        self._keep(column, slot, found)
        # A note: whoever loses it is told again, by the Progress that lacks it.
        self.out.note(Known(column, slot, found.deps, found.payload, True))
        self._commit(column, slot, found, Path.LEARNED)

    def _commit(self, column: ReplicaId, slot: Slot, found: Instance, path: Path) -> None:
        self.out.commit(column, slot, found.deps, found.payload, path)

    # Messages get lost, and memory is not endless

    def _on_progress(self, source: ReplicaId, message: Progress, now: Micros) -> None:
        told = tuple(map(max, self.executed_by[source], message.executed))
        self.executed_by[source] = told
        self._forget()
        for slot, mine in self.instances[self.me].items():
            if now - mine.said_at < HEARTBEAT_US + self._rtt_us[source]:
                continue  # It may still be under way.
            if mine.decided and slot > told[self.me]:
                self.out.send(source, Decide(self.me, slot, mine.deps, mine.payload))
            elif not mine.decided and source not in mine.answers:
                self.out.send(source, Ask(self.me, slot, mine.deps, mine.payload))

    def _keep(self, column: ReplicaId, slot: Slot, found: Instance) -> None:
        if slot not in self.instances[column]:
            self.live_bytes += len(found.payload.encoded)
        self.instances[column][slot] = found
        if column == self.me:
            self._next = max(self._next, slot + 1)

    def _forget(self) -> None:
        """Drop what everybody has executed, and has it on disk."""
        floor = tuple(map(min, *self.executed_by)) if self.n > 1 else self.executed_by[0]
        if floor == self.floor:
            return
        self.floor = floor
        for column, upto in zip(self.instances, floor):
            for slot in [each for each in column if each <= upto]:
                self.live_bytes -= len(column.pop(slot).payload.encoded)


def _meets(footprint: Footprint, known: Instance) -> bool:
    return interferes(footprint, known.payload.footprint)


SPEC = ProtocolSpec(
    name="unanimous",
    title="Unanimous",
    has_leader=False,
    messages=(Ask, Agree, Decide, Progress),
    records=(Known,),
    replica=UnanimousReplica,
    executor=GraphExecutor,
    invariants="unanimous_invariants",
    survives=lambda n: 0,
)
