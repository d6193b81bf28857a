"""Plays a schedule over real nodes, event by event, under the eyes of all observers.

No network and no randomness: a message waits until an event delivers it. Every message passes
through the codec; a disk keeps what was synced, and of the rest what a crash says. What was
played stands in `events`, without the inputs that could not be given: played again strictly, it
does the same.

Rules of this file: observers see what left a process, as in the world; a violation is raised from
the event that shows it, and that event is the last in `events`.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, cast

from epaxos.codec import encode
from epaxos.core.command import Payload
from epaxos.core.replica import EVERYONE, Message, Setup
from epaxos.core.types import Deps, Micros, ReplicaId, Slot
from epaxos.node.node import Node
from epaxos.node.requests import AskTransfer, Limits, NodeReady, Refusal, Reply, Request
from epaxos.node.sampling import Samples
from epaxos.registry import ProtocolSpec, find_protocol
from epaxos.sim.check.checkers import (
    INVARIANT,
    REMEMBERED,
    DecisionChecker,
    ExecutionChecker,
    Violation,
    broken_by,
)
from epaxos.sim.check.protocol_invariants import ProtocolWatch
from epaxos.sim.disk import Disk
from epaxos.sim.incarnation import Incarnation, NodeFactory, Seen
from epaxos.sim.schedule.history import History
from epaxos.sim.schedule.schedule import (
    Arrival,
    Commands,
    Crash,
    Event,
    Input,
    Schedule,
    Start,
    Step,
    TakeOver,
    label_of,
)
from epaxos.sim.tunables import lasting, packers_of, tuned


class Sent(NamedTuple):
    """One message on its way to one process."""

    source: ReplicaId
    target: ReplicaId
    label: str
    nth: int
    """Which one of that label on the link."""
    message: Message
    body: bytes
    number: int
    """The event that sent it."""


class Happening(NamedTuple):
    """Something that a chart can show."""

    number: int
    """In which event, counted from 1; 0 for the first start of all processes."""
    member: ReplicaId
    kind: str
    """`starts`, `steps`, `request`, `arrives`, `wakes`, `takes over`, `hands over`, `record`,
    `synced`, `decides`, `executes`, `sends`, `answers` or `crashes`."""
    thing: Any = None
    other: ReplicaId = EVERYONE
    """Who sent it, or to whom it goes."""


class Actor:
    """One process: at most one life at a time, over one disk."""

    def __init__(self, me: ReplicaId) -> None:
        self.me = me
        self.disk = Disk(me)
        self.clock: Micros = 0
        self.life: Incarnation | None = None
        self.woken = False
        """Whether this life had its first wake."""
        self.decided: dict[tuple[ReplicaId, Slot], tuple[Payload | None, Deps]] = {}
        """What it released as decided, in all lives."""
        self.executed: list[tuple[ReplicaId, Slot]] = []
        """What this life executed, in its order, without Nops."""
        self.answers: list[Reply | Refusal] = []
        self.samples = Samples(lambda: self.clock)
        """Its latest sampled batches."""

    @property
    def node(self) -> Node | None:
        """The node of its present life."""
        return None if self.life is None else self.life.node


class Player:
    """Nodes, disks and observers, moved by events alone.

    `only`: the one property that matters; what else is violated is not looked at. `deep`: whether
    the protocol's own invariants are checked. `loose`: a delivery whose message does not exist
    takes another of the same kind and instance, with 2 of the same kind (for shrinking: numbers and
    ballots shift when steps are taken out). `tight`: clocks move no further than deadlines need."""

    def __init__(
        self,
        head: Schedule,
        spec: ProtocolSpec | None = None,
        node: type[Node] = Node,
        *,
        only: str | None = None,
        deep: bool = True,
        loose: int = 0,
        tight: bool = False,
    ) -> None:
        self.head = head._replace(events=())
        self.n = head.replicas
        self.spec = spec or find_protocol(head.protocol)
        self._factory = NodeFactory(self.spec, node)
        self.only = only
        self.events: list[Event] = []
        self.happenings: list[Happening] = []
        self.number = 0
        """How many events were played that a chart counts: first starts, and the first wakes of
        processes, go without a number."""
        self.numbers: list[int] = []
        """The number of each of `events`."""
        self.actors = [Actor(me) for me in range(self.n)]
        self.sent: dict[tuple[ReplicaId, ReplicaId], dict[str, list[Sent]]] = {}
        self.decisions = DecisionChecker(self.n)
        self.executions = ExecutionChecker()
        self.history = History()
        self.crashed = False
        """Whether any process ever did."""
        deep = deep and only in (None, INVARIANT)
        self.watch = ProtocolWatch(self.spec, deep)
        self._remembers = only in (None, REMEMBERED)
        self._node = node
        self._loose = loose
        self._tight = tight
        self._used: set[tuple[ReplicaId, ReplicaId, str, int]] = set()
        """Messages that were delivered."""

    # Events ------------------------------------------------------------------------------------

    def schedule(self) -> Schedule:
        """All that was played."""
        return self.head._replace(events=tuple(self.events))

    def play(self, events: Iterable[Event]) -> None:
        """Play these events, then look at what clients saw. Raises Violation."""
        for event in events:
            self.perform(event)
        self.finish()

    def perform(self, event: Event) -> None:
        """Play one event; one that cannot happen is left out. Raises Violation."""
        actor = self.actors[event.member]
        if isinstance(event, Start):
            if actor.life is None and not (self.head.memory and actor.disk.boot):
                self._guard(lambda: self._start(actor, event), self._is_calm(event))
        elif actor.life is None:
            return
        elif isinstance(event, Crash):
            self._guard(lambda: self._crash(actor, event), self._is_calm(event))
        else:
            self._guard(lambda: self._step(actor, event), self._is_calm(event))

    def finish(self) -> None:
        """What clients were told, and the cluster as it stands. Raises Violation."""
        self._look(self.history.check_fates, self.executions)
        if self._node.state_machine.is_key_value:
            self._look(self.history.check_answers)
        nodes = [actor.node for actor in self.actors if actor.node is not None]
        calm = not self.crashed and len(nodes) == self.n
        if self.only == INVARIANT or (self.only is None and calm):
            self._look(self.watch.together, nodes)

    def _is_calm(self, event: Event) -> bool:
        """Whether the bounds of the nodes, and `UNTIL_HEALED`, are the defaults again by then."""
        calm_at = self.head.calm_at
        return bool(calm_at) and event.at >= calm_at[event.member]

    def _guard(self, act: Callable[[], None], calm: bool) -> None:
        """Whatever a node raises is a finding."""
        try:
            head = self.head
            constants = (*packers_of(head.limits), *head.tunables)
            with tuned(lasting(head.tunables) if calm else constants):
                act()
        except Violation:
            raise
        except Exception as error:
            raise broken_by(error) from error

    def _look(self, look: Callable[..., None], *things: object) -> None:
        """Let an observer look; what it finds counts if it is what matters."""
        try:
            look(*things)
        except Violation as violation:
            if self.only is None or violation.property == self.only:
                raise

    def _record(self, event: Event, counts: bool = True) -> None:
        """What is going to happen."""
        self.number += counts
        self.events.append(event)
        self.numbers.append(self.number)

    def _tell(
        self, member: ReplicaId, kind: str, thing: object = None, other: ReplicaId = EVERYONE
    ) -> None:
        self.happenings.append(Happening(self.number, member, kind, thing, other))

    # Processes ---------------------------------------------------------------------------------

    def _start(self, actor: Actor, event: Start) -> None:
        actor.clock = actor.clock if self._tight else max(actor.clock, event.at)
        actor.disk.start()
        self._record(event._replace(at=actor.clock), actor.disk.boot > 1)
        actor.woken = False
        actor.executed = []
        self._tell(actor.me, "starts", actor.disk.boot)
        life = actor.life = self._incarnate(actor, event.seed)
        self.executions.start(actor.me)
        life.restore(actor.disk.durable)
        self._observe(actor, life.seen())
        self.watch.start(actor.me, life.node)

    def _incarnate(self, actor: Actor, seed: int) -> Incarnation:
        """A new life over the process's disk, nothing replayed yet."""
        head = self.head
        rtts, chance = head.rtt_us[actor.me], random.Random(seed)
        return Incarnation(
            self._factory,
            Setup(actor.me, self.n, rtts, chance, head.leader),
            actor.disk.boot,
            Limits(gate=head.gate, **dict(head.limits)),
            None if head.memory else actor.disk,
            actor.samples,
            self.decisions.executed_durably,
        )

    def _crash(self, actor: Actor, event: Crash) -> None:
        actor.clock = actor.clock if self._tight else max(actor.clock, event.at)
        kept = min(event.kept, len(actor.disk.tail))
        self._record(event._replace(at=actor.clock, kept=kept))
        self._end(actor, event)

    def _end(self, actor: Actor, event: Crash) -> None:
        """The process ends."""
        self._tell(actor.me, "crashes", event)
        self.crashed = True
        life, actor.life = actor.life, None
        assert life is not None, "only what runs crashes"
        if self.head.memory:
            return
        if self._remembers:
            self._look(life.check_remembered, self.watch)
        actor.disk.keep(event.kept)

    # Steps -------------------------------------------------------------------------------------

    def _step(self, actor: Actor, event: Step) -> None:
        life = actor.life
        assert life is not None, "only living processes take steps"
        node = life.node
        if self._is_calm(event):
            node.limits = Limits(gate=self.head.gate)
        inputs = self._resolve(actor, event.inputs)
        wake, now = self._time_of(actor, node, event)
        released_at = now if event.released_at is None or self._tight else event.released_at
        actor.clock, ends_at = now, max(now, released_at)
        played = event._replace(
            at=now,
            inputs=tuple(each for each, _ in inputs),
            wake=wake,
            released_at=None if ends_at == now else ends_at,
            crash=event.crash and event.crash._replace(at=ends_at),
        )
        self._record(played, actor.woken or bool(inputs))
        self._tell(actor.me, "steps")
        for given, sent in inputs:
            self._give(actor, node, given, sent, now)
        deadline = node.deadline()
        if not actor.woken or (event.wake and deadline is not None and deadline <= now):
            if actor.woken:
                self._tell(actor.me, "wakes", now)
            node.wake(now)
            actor.woken = True
        else:
            self.events[-1] = played._replace(wake=False)
        ready = life.take(now)
        self._look(self.watch.stepped, actor.me, node)
        actor.clock = ends_at
        self._persist(actor, life, ready, event.crash)

    def _time_of(self, actor: Actor, node: Node, event: Step) -> tuple[bool, Micros]:
        """Whether the step may wake its node, and the process's clock. Played tightly the clock
        moves only for the sake of a wake, and just as far as it needs."""
        at = max(actor.clock, event.at)
        if not self._tight or not actor.woken:
            return event.wake, at if not self._tight else actor.clock
        deadline = node.deadline()
        if not event.wake or deadline is None or deadline > at:
            return False, actor.clock
        return True, max(actor.clock, deadline)

    def _give(self, actor: Actor, node: Node, given: Input, sent: Sent | None, now: Micros) -> None:
        if isinstance(given, Arrival):
            assert sent is not None, "every delivery was resolved"
            message = self._factory.codec.decode_message(sent.body)
            self._tell(actor.me, "arrives", sent, sent.source)
            node.receive(sent.source, message, now)
        elif isinstance(given, Commands):
            self._tell(actor.me, "request", given)
            self.executions.requested(actor.me, given.arguments)
            self.history.called(actor.me, given, self.number)
            columns = list(given.keys), list(given.arguments)
            deadline = now + given.patience_us
            node.request([Request(given.number, given.operations, *columns, deadline)], now)
        elif isinstance(given, TakeOver):
            self._tell(actor.me, "takes over", given)
            cast("Any", node.replica).start_recover(given.instances, now)
        else:
            self._tell(actor.me, "hands over", given)
            node.ask("hand over", AskTransfer(given.target), now)

    def _persist(
        self, actor: Actor, life: Incarnation, ready: NodeReady, crash: Crash | None
    ) -> None:
        """Append, sync and release, or crash on the way."""
        if crash is not None and not crash.appended:
            self._end(actor, crash)
            return
        for record in ready.log:
            self._tell(actor.me, "record", record)
        life.append(ready.log)
        if crash is not None and crash.sent is None:
            self._end(actor, crash)
            return
        if ready.must_sync:
            if not self.head.memory:
                self._tell(actor.me, "synced")
            life.sync()
        self._release(actor, life, ready, crash)

    def _release(
        self, actor: Actor, life: Incarnation, ready: NodeReady, crash: Crash | None
    ) -> None:
        """Everything of this Ready may leave now, or its first single messages; then reply."""
        self._observe(actor, life.release(ready, actor.clock))
        left = None if crash is None else crash.sent
        for target, message in ready.messages:
            targets = range(self.n) if target == EVERYONE else (target,)
            reached = [member for member in targets if member != actor.me][:left]
            if left is not None:
                left -= len(reached)
            if reached:
                self._send(actor.me, target, reached, message)
        if crash is not None:
            self._end(actor, crash)
            return
        for reply in ready.replies:
            if isinstance(reply, Reply | Refusal):
                self._tell(actor.me, "answers", reply)
                actor.answers.append(reply)
                self.history.answered(reply, self.number)
        life.answered(ready)

    def _observe(self, actor: Actor, seen: Seen) -> None:
        for decided in seen.decided:
            self._tell(actor.me, "decides", decided)
            actor.decided[decided.replica, decided.slot] = (decided.payload, decided.deps)
            self.executions.decided(actor.me, decided)
            self._look(self.decisions.decided, actor.me, decided)
        for component in seen.components:
            self._look(self.executions.component, actor.me, component)
        for decided in seen.executed:
            self._tell(actor.me, "executes", decided)
            if decided.payload is not None:
                actor.executed.append((decided.replica, decided.slot))
            self._look(self.executions.executed, actor.me, decided)

    # Messages ----------------------------------------------------------------------------------

    def _send(
        self, source: ReplicaId, target: ReplicaId, reached: Sequence[ReplicaId], message: Message
    ) -> None:
        body, label = encode(message), label_of(message)
        if self._remembers:
            self.watch.said(source, message)
        self._tell(source, "sends", message, target)
        for member in reached:
            those = self.sent.setdefault((source, member), {}).setdefault(label, [])
            sent = Sent(source, member, label, len(those), message, body, self.number)
            those.append(sent)
            self.on_sent(sent)

    def on_sent(self, sent: Sent) -> None:
        """A message has left; for those that look on."""

    def _resolve(self, actor: Actor, inputs: Iterable[Input]) -> list[tuple[Input, Sent | None]]:
        """The inputs that can be given, deliveries with their messages."""
        found: list[tuple[Input, Sent | None]] = []
        for each in inputs:
            if not isinstance(each, Arrival):
                found.append((each, None))
                continue
            sent = self._find(each, actor.me)
            if sent is not None:
                self._used.add((sent.source, sent.target, sent.label, sent.nth))
                found.append((Arrival(sent.source, sent.label, sent.nth), sent))
        return found

    def _find(self, arrival: Arrival, target: ReplicaId) -> Sent | None:
        link = self.sent.get((arrival.source, target), {})
        those = link.get(arrival.label, ())
        if arrival.nth < len(those):
            return those[arrival.nth]
        if not self._loose:
            return None
        if those:
            return those[-1]
        found = self._unused(arrival.source, target, _about(arrival.label))
        if found is None and self._loose > 1:
            found = self._unused(arrival.source, target, arrival.label.partition(" ")[0])
        return found

    def _unused(self, source: ReplicaId, target: ReplicaId, about: str) -> Sent | None:
        """The first message of a link that begins so and was not delivered yet."""
        found = [
            sent
            for label, group in self.sent.get((source, target), {}).items()
            if f"{label} ".startswith(f"{about} ")
            for sent in group
            if (source, target, label, sent.nth) not in self._used
        ]
        return min(found, key=lambda sent: sent.number, default=None)


def _about(label: str) -> str:
    """A label without its ballot."""
    head, _, last = label.rpartition(" ")
    return head if "@" in last else label
