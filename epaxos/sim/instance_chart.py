"""One instance through all replicas: who logged, sent, heard, decided, executed what, and when.

    A Virginia · B California · C Oregon
          ms   A B C
         0.0   ■ │ │   Virginia logs PreAccepted A.7 ...
         0.4   ▶ │ │   Virginia ──▶ all  PreAccept A.7 ...
        30.6   │ ◀ │   California ◀── Virginia  PreAccept A.7 ...

Times are relative to the first thing that its proposer logged or sent. They come from each
replica's own monotonic clock, which is one for all processes of a machine and no longer comparable
across machines. What a step received, logged and decided stands at the step's beginning; what it
sent and answered at the moment when it left, after the sync.

Rules of this file: recognises what concerns an instance by the names of fields, which mean the
same in every protocol; no protocol logic.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from epaxos.core.command import Batch, Operation, Payload
from epaxos.core.replica import EVERYONE, Executed, Message, Path, Record
from epaxos.core.types import InstanceId, Micros, ReplicaId, replica_name
from epaxos.execution.interface import Executor
from epaxos.node.requests import NodeReady, Reply
from epaxos.sim.incarnation import Seen
from epaxos.sim.schedule.words import show
from epaxos.trace import TraceStep

MARKS: Final = {
    "takes": "○",
    "logs": "■",
    "sends": "▶",
    "hears": "◀",
    "decides": "✓",
    "learns": "✓",
    "waits": "…",
    "executes": "★",
    "answers": "◆",
}
"""What a replica does, and its mark in the chart."""
PATHS: Final = {
    Path.FAST: "fast path",
    Path.SLOW: "slow path",
    Path.RECOVERED: "recovered",
    Path.LEARNED: "learned",
    Path.LEADER: "by the leader",
}
COMMANDS_SHOWN: Final = 3


class Event(NamedTuple):
    """Something that a replica did with the instance."""

    at: Micros
    replica: ReplicaId
    kind: str
    """A key of MARKS."""
    text: str
    other: ReplicaId | None = None
    """Whom it sent to (perhaps EVERYONE), or heard from."""


class Observer:
    """Collects the events of one instance over the replays of all replicas."""

    def __init__(self, instance: InstanceId) -> None:
        self.instance = instance
        self.events: list[Event] = []
        self.batch: Batch | None = None
        """What it carries, as soon as anything showed it."""
        self.path: Path | None = None
        """How it was decided, by whoever decided it."""
        self.slots: dict[ReplicaId, int] = {}
        """The highest slot decided per column: what else could have been asked for."""
        self._forwards: dict[tuple[ReplicaId, int], list[Event]] = {}
        """Batches on their way to a leader, by origin and number: their instance is not known."""
        self._covered: set[tuple[ReplicaId, str, ReplicaId | None]] = set()
        """Which prefixes that reach it were shown."""
        self._pending: dict[ReplicaId, InstanceId | None] = {}
        """Where it is decided and not executed, and what it waits for there."""
        self._arrived: set[tuple[ReplicaId, Micros]] = set()

    # What the replay tells ---------------------------------------------------------------------

    def arrived(self, me: ReplicaId, source: ReplicaId, message: Message, now: Micros) -> None:
        self._note(now, me, "hears", message, source)

    def step(
        self, me: ReplicaId, step: TraceStep, ready: NodeReady, seen: Seen, executor: Executor
    ) -> None:
        now = step.now
        done = now + (step.took_us or 0)
        for record in ready.log:
            if not isinstance(record, Executed):
                self._note(now, me, "logs", record, None)
        self._decided(me, now, seen, executor)
        left = now + (step.sent_us or 0)
        for target, message in ready.messages:
            self._note(left, me, "sends", message, target)
        for reply in ready.replies:
            if isinstance(reply, Reply):
                self._answered(me, done, reply)

    def finish(self) -> list[Event]:
        """All events, in order of time."""
        if self.batch is not None:
            self.events += self._forwards.get((self.batch.origin, self.batch.number), [])
        self._forwards.clear()
        self.events.sort(key=lambda event: (event.at, event.kind != "takes"))
        return self.events

    def _note(
        self,
        at: Micros,
        me: ReplicaId,
        kind: str,
        thing: Message | Record,
        other: ReplicaId | None,
    ) -> None:
        name = type(thing).__name__
        if name == "Forward":
            batch = msgspec.structs.asdict(thing)["payload"].batch
            event = Event(at, me, kind, show(thing), other)
            self._forwards.setdefault((batch.origin, batch.number), []).append(event)
        elif reaches(thing, self.instance):
            if (me, f"{kind} {name}", other) not in self._covered:
                self._covered.add((me, f"{kind} {name}", other))
                self.events.append(Event(at, me, kind, show(thing), other))
        elif concerns(thing, self.instance):
            self._learn(thing)
            self.events.append(Event(at, me, kind, show(thing), other))

    def _learn(self, thing: Message | Record) -> None:
        payload = getattr(thing, "payload", None)
        if self.batch is None and isinstance(payload, Payload):
            self.batch = payload.batch

    def _decided(self, me: ReplicaId, now: Micros, seen: Seen, executor: Executor) -> None:
        wanted = self.instance
        blocker = self._pending.get(me)
        for decided in seen.decided:
            replica, slot, deps, payload, path = decided
            self.slots[replica] = max(slot, self.slots.get(replica, 0))
            if (replica, slot) == wanted:
                self._pending[me] = None
                if payload is not None:
                    self.batch = payload.batch
                if path is not Path.LEARNED or self.path is None:
                    self.path = path
                after = f", after {format_deps(deps)}" if deps else ""
                what = ", as Nop" if payload is None else after
                self.events.append(_decision(now, me, f"{wanted}{what}", path))
            elif (replica, slot) == blocker:
                self.events.append(_decision(now, me, f"{blocker}: {wanted} waits for it", path))
        for decided in seen.executed:
            if decided[:2] == wanted:
                self._pending.pop(me, None)
                self.events.append(Event(now, me, "executes", str(wanted)))
        if me in self._pending:
            missing = executor.blocked().get(wanted)
            if missing is not None and missing != self._pending[me]:
                self._pending[me] = missing
                text = f"with {wanted} for {missing}, which is not decided here"
                self.events.append(Event(now, me, "waits", text))

    def _answered(self, me: ReplicaId, at: Micros, reply: Reply) -> None:
        results = reply.results
        if (results.replica, results.slot) != self.instance:
            return
        if (me, reply.arrived) not in self._arrived:
            self._arrived.add((me, reply.arrived))
            self.events.append(Event(reply.arrived, me, "takes", "commands from a client"))
        waited = f"{(at - reply.arrived) / 1000:.1f} ms after it came"
        what = "1 command" if results.count == 1 else f"{results.count:,} commands"
        self.events.append(Event(at, me, "answers", f"{what}, {waited}"))


def _decision(at: Micros, me: ReplicaId, what: str, path: Path) -> Event:
    if path in (Path.LEARNED, Path.LEADER):  # a leader's followers decide by it too
        return Event(at, me, "learns", what)
    return Event(at, me, "decides", f"{what} ({PATHS[path]})")


def concerns(thing: Message | Record, instance: InstanceId) -> bool:
    """Whether a message or record names this very instance."""
    column, slot = instance
    for objection in getattr(thing, "objections", ()):
        if (objection.replica, objection.slot) == instance:
            return True
    if getattr(thing, "replica", 0) != column:
        return False
    return slot in _slots(thing)


def _slots(thing: Message | Record) -> Iterable[int]:
    fields = msgspec.structs.asdict(thing)
    if "slot" in fields:
        return (fields["slot"],)
    if "slots" in fields:
        named: Iterable[int] = fields["slots"]
        return named
    if "votes" in fields:
        return [vote.slot for vote in fields["votes"]]
    if "payloads" in fields:
        return range(fields["first"], fields["first"] + len(fields["payloads"]))
    if "first" in fields and "last" in fields:
        return range(fields["first"], fields["last"] + 1)
    return ()


def reaches(thing: Message | Record, instance: InstanceId) -> bool:
    """Whether it says of a whole prefix of slots, this one among them, that it is chosen."""
    if type(thing).__name__ not in ("CommitIndex", "Chosen"):
        return False
    fields = msgspec.structs.asdict(thing)
    return instance.replica == 0 and instance.slot <= fields.get("commit", fields.get("up_to", 0))


def format_deps(deps: tuple[int, ...]) -> str:
    """`A.6 B.3`: the prefixes that are not empty."""
    named = [str(InstanceId(replica, slot)) for replica, slot in enumerate(deps) if slot]
    return " ".join(named) or "nothing"


def describe_batch(batch: Batch | None) -> str:
    """`PUT greeting, GET x`, or what is known instead."""
    if batch is None:
        return "no commands known"
    words = [
        f"{Operation(code).name} {key.decode('utf-8', 'backslashreplace')}"
        for code, key in zip(batch.operations[:COMMANDS_SHOWN], batch.keys)
    ]
    if len(batch.keys) > COMMANDS_SHOWN:
        words.append(f"… {len(batch.keys):,} commands")
    return ", ".join(words)


def proposal(events: list[Event]) -> Event | None:
    """The moment from which times count: the first thing logged or sent, or else heard of it."""
    made = [event for event in events if event.kind in ("logs", "sends")]
    return min(made or events, key=lambda event: event.at, default=None)


def chart(events: list[Event], regions: list[str]) -> Iterator[str]:
    """The lines of the chart. `regions`: name per member."""
    yield " · ".join(f"{replica_name(i)} {name}" for i, name in enumerate(regions))
    letters = " ".join(replica_name(i) for i in range(len(regions)))
    yield f"{'ms':>10}   {letters}"
    first = proposal(events)
    zero = 0 if first is None else first.at
    for event, others in _joined(events):
        lanes = ["│"] * len(regions)
        lanes[event.replica] = MARKS[event.kind]
        what = _sentence(event, others, regions)
        yield f"{(event.at - zero) / 1000:>10,.1f}   {' '.join(lanes)}   {what}"


def _joined(events: list[Event]) -> Iterator[tuple[Event, list[ReplicaId]]]:
    """Neighbours that differ only in whom they were sent to become one."""
    index = 0
    while index < len(events):
        event = events[index]
        others = [] if event.other is None else [event.other]
        index += 1
        while (
            event.kind == "sends"
            and index < len(events)
            and events[index]._replace(other=None) == event._replace(other=None)
        ):
            other = events[index].other
            others += [] if other is None else [other]
            index += 1
        yield event, others


def _sentence(event: Event, others: list[ReplicaId], regions: list[str]) -> str:
    name = regions[event.replica]
    to = "all" if EVERYONE in others else ", ".join(regions[each] for each in others)
    if event.kind == "sends":
        return f"{name} ──▶ {to}  {event.text}"
    if event.kind == "hears":
        return f"{name} ◀── {to}  {event.text}"
    return f"{name} {event.kind} {event.text}"
