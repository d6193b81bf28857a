"""The deterministic world: one heap of events, one virtual clock, one seeded random.

The very nodes of the runtime, driven by the same five lines: feed inputs, take, append, sync if it
must be, send and reply. While a sync runs, inputs pile up. A crash may fall before the append,
between append and sync, after the sync, or amid the sends; the disk keeps its durable prefix and
perhaps some of the rest. Every message and record passes through the codec.

Rules of this file: a run is a pure function of its options; same options, same trace. Owns no
clock, no socket, no thread.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import Any
from zlib import crc32

from epaxos.codec import Codec, encode
from epaxos.core.replica import EVERYONE, Decided, Executed, Message, Record, Setup
from epaxos.core.types import InstanceId, Micros, ReplicaId, Slot, replica_name
from epaxos.exchange import Limits, NodeReady, Refusal, Reply, Request
from epaxos.execution.ordering import Executor
from epaxos.node import Node
from epaxos.registry import ProtocolSpec, find_protocol
from epaxos.sim.chart import Story, show
from epaxos.sim.checkers import DecisionChecker, ExecutionChecker
from epaxos.sim.options import Options
from epaxos.sim.watch import ProtocolWatch

Action = Callable[[], object]

LATE_COPY_US = 3_000_000
"""How late the latest copies of a duplicated message are."""


class CrashPoint(Enum):
    """Where in a step a crash falls."""

    BEFORE_APPEND = "before the append"
    BEFORE_SYNC = "between append and sync"
    BEFORE_SEND = "after the sync, before any send"
    AMID_SENDS = "amid the sends"


class Watched:
    """An executor that tells the checkers what was decided and executed."""

    def __init__(self, inner: Executor) -> None:
        self._inner = inner
        self.executed: list[Slot] = inner.executed
        self.decided: list[Decided] = []
        """Decided since the last release."""
        self.done: list[Decided] = []
        """Executed since the last release."""

    def commit(self, decided: Decided) -> None:
        self.decided.append(decided)
        self._inner.commit(decided)

    def ready(self) -> list[list[Decided]]:
        found = self._inner.ready()
        for component in found:
            self.done += component
        return found

    def replay(self, ids: list[InstanceId]) -> list[Decided]:
        found = self._inner.replay(ids)
        self.done += found
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Disk:
    """A log with a durable prefix."""

    def __init__(self) -> None:
        self.durable: list[bytes] = []
        self.tail: list[bytes] = []

    def crash(self, rng: random.Random) -> None:
        """Keep the durable prefix and, now and then, some of the rest."""
        kept = rng.randint(0, len(self.tail)) if rng.random() < 0.3 else 0
        self.durable += self.tail[:kept]
        self.tail = []


class Process:
    """One replica's process: at most one node at a time, over one disk."""

    def __init__(self, me: ReplicaId) -> None:
        self.me = me
        self.disk = Disk()
        self.boot = 0
        self.node: Node | None = None
        self.watched: Watched
        self.inbox: list[tuple[ReplicaId, bytes] | Request] = []
        self.ticking = False
        """Whether a tick is scheduled."""
        self.syncing = False
        self.paused_until: Micros = 0
        self.armed: Micros | None = None
        self.doom: CrashPoint | None = None
        """Where the next step crashes."""
        self.dead = False
        """Never to start again."""


class World:
    """A cluster, its network and its disks. Clients and faults are added from outside."""

    def __init__(
        self, options: Options, spec: ProtocolSpec | None = None, node: type[Node] = Node
    ) -> None:
        self.options = options
        self._node = node
        self.random = random.Random(options.seed)
        self.now: Micros = 0
        self.trace = 0
        """Running checksum of everything that happened."""
        self.story = Story(options.story)
        self.spec = spec or find_protocol(options.protocol)
        self.codec = Codec(self.spec)
        self.decisions = DecisionChecker(options.replicas)
        self.executions = ExecutionChecker()
        self.watch = ProtocolWatch(self.spec, options)
        self.cut: set[tuple[ReplicaId, ReplicaId]] = set()
        """Ordered pairs between which nothing passes."""
        self.loss = options.faults.loss
        self.duplication = options.faults.duplication
        self.on_reply: Callable[[Reply | Refusal], None] = lambda reply: None
        self.on_crash: Callable[[ReplicaId], None] = lambda member: None
        self.counts: dict[str, int] = dict.fromkeys(
            ("events", "messages", "lost", "crashes", "syncs", "requests"), 0
        )
        self._events: list[tuple[Micros, int, Action]] = []
        self._order = 0
        self._last_arrival: dict[tuple[ReplicaId, ReplicaId], Micros] = {}
        self.processes = [Process(me) for me in range(options.replicas)]

    # Events ------------------------------------------------------------------------------------

    def at(self, when: Micros, action: Action) -> None:
        """Do something at a time."""
        self._order += 1
        heapq.heappush(self._events, (when, self._order, action))

    def run(self, until: Micros, done: Callable[[], bool] | None = None) -> bool:
        """Let time pass until `until`, or until `done` says so; whether it did."""
        events = self._events
        while events and events[0][0] <= until:
            self.now, _, action = heapq.heappop(events)
            self.counts["events"] += 1
            action()
            if done is not None and done():
                return True
        self.now = max(self.now, until)
        return done is not None and done()

    def mark(self, *what: object) -> None:
        """Make something part of the trace."""
        self.trace = crc32(repr((self.now, *what)).encode(), self.trace)

    # Processes ---------------------------------------------------------------------------------

    def start(self, member: ReplicaId) -> None:
        """Start a process from its disk."""
        process = self.processes[member]
        if process.dead or process.node is not None:
            return
        process.boot += 1
        process.node = self.build(process)
        process.inbox, process.syncing, process.armed, process.doom = [], False, None, None
        self.mark("start", member)
        self.story.add(self.now, f"{replica_name(member)} starts (boot {process.boot})")
        self._replay(process, process.node)
        self._schedule(process)

    def build(self, process: Process) -> Node:
        """A new node over the process's disk, nothing replayed yet."""
        options = self.options
        delays = options.delays_us
        rtts = tuple(
            0 if other == process.me else delays[process.me][other] + delays[other][process.me]
            for other in range(options.replicas)
        )

        def executor(n: int) -> Executor:
            process.watched = Watched(self.spec.executor(n))
            return process.watched

        setup = Setup(
            process.me, options.replicas, rtts, random.Random(self.random.getrandbits(64)), 0
        )
        spec = replace(self.spec, executor=executor)
        return self._node(spec, setup, process.boot, Limits(gate=options.gate))

    def _replay(self, process: Process, node: Node) -> None:
        self.executions.start(process.me)
        for body in process.disk.durable:
            node.restore(self.codec.decode_record(body))
        for decided in process.watched.decided:
            self.decisions.decided(process.me, decided)
        for decided in process.watched.done:
            self.executions.executed(process.me, decided)
        process.watched.decided.clear()
        process.watched.done.clear()
        self.watch.start(process.me, node)

    def crash(self, member: ReplicaId, where: str = "now") -> None:
        """End a process at once."""
        process = self.processes[member]
        if process.node is None:
            return
        self.counts["crashes"] += 1
        self.mark("crash", member)
        lost = len(process.disk.tail)
        process.node = None
        process.inbox = []
        self.story.add(
            self.now, f"{replica_name(member)} crashes {where}, {lost} unsynced records at risk"
        )
        # What was said must be in the durable prefix alone: a tail that survives is luck.
        if self.options.memory:
            process.dead = True
        else:
            self.watch.remembered(member, self._restored(process))
            process.disk.crash(self.random)
        self.on_crash(member)

    def _restored(self, process: Process) -> Node:
        """What the process would know if it started now."""
        keep = process.watched
        rng, self.random = self.random, random.Random(0)
        node = self.build(process)
        self.random = rng
        for body in process.disk.durable:
            node.restore(self.codec.decode_record(body))
        process.watched = keep
        return node

    def request(self, member: ReplicaId, request: Request) -> bool:
        """A client's commands reach a replica; False: nobody is there."""
        process = self.processes[member]
        if process.node is None:
            return False
        self.counts["requests"] += 1
        self.mark("request", member, request.operations, request.keys, request.arguments)
        self.executions.sent.update(request.arguments)
        process.inbox.append(request)
        self._schedule(process)
        return True

    def _schedule(self, process: Process) -> None:
        if not process.ticking and not process.syncing and process.node is not None:
            process.ticking = True
            self.at(max(self.now, process.paused_until), lambda: self._tick(process))

    def _tick(self, process: Process) -> None:
        process.ticking = False
        node = process.node
        if node is None or process.syncing:
            return
        if process.paused_until > self.now:
            self._schedule(process)
            return
        inbox, process.inbox = process.inbox, []
        for item in inbox:
            if isinstance(item, Request):
                node.request([item], self.now)
            else:
                source, body = item
                message = self.codec.decode_message(body)
                self.story.arrived(self.now, source, process.me, message)
                node.receive(source, message, self.now)
        deadline = node.deadline()
        if deadline is not None and deadline <= self.now:
            node.wake(self.now)
        ready = node.take(self.now)
        self.watch.stepped(process.me, node)
        if self.options.memory:
            for record in ready.log:
                self._durable(process, record)
            self._release(process, node, ready)
            return
        if self._dooms(process, CrashPoint.BEFORE_APPEND):
            return
        for record in ready.log:
            process.disk.tail.append(encode(record))
            if self.story.on:
                self.story.add(self.now, f"{replica_name(process.me)}      log {show(record)}")
        if not ready.must_sync:
            self._release(process, node, ready)
            return
        if self._dooms(process, CrashPoint.BEFORE_SYNC):
            return
        process.syncing = True
        low, high = self.options.faults.sync_us
        boot = process.boot
        self.at(
            self.now + self.random.randint(low, high),
            lambda: self._synced(process, boot, node, ready),
        )

    def _synced(self, process: Process, boot: int, node: Node, ready: NodeReady) -> None:
        if process.node is not node or process.boot != boot:
            return
        process.syncing = False
        self.counts["syncs"] += 1
        disk = process.disk
        for body in disk.tail:
            self._durable(process, self.codec.decode_record(body))
        disk.durable += disk.tail
        disk.tail = []
        if not self._dooms(process, CrashPoint.BEFORE_SEND):
            self._release(process, node, ready)

    def _durable(self, process: Process, record: Record) -> None:
        if isinstance(record, Executed):
            ids = list(zip(record.replicas, record.slots))
            self.decisions.executed_durably(process.me, ids)

    def _release(self, process: Process, node: Node, ready: NodeReady) -> None:
        """Everything of this Ready may leave now."""
        for flight in ready.flights:
            flight.committed_at = self.now
        watched = process.watched
        for decided in watched.decided:
            self.mark("decided", process.me, decided.replica, decided.slot, decided.deps)
            self.decisions.decided(process.me, decided)
        for decided in watched.done:
            self.executions.executed(process.me, decided)
        watched.decided.clear()
        watched.done.clear()
        if process.doom is CrashPoint.AMID_SENDS and ready.messages:
            self._send_some(process, ready.messages)
            return
        for target, message in ready.messages:
            self._send(process.me, target, message)
        for reply in ready.replies:
            if isinstance(reply, Reply | Refusal):
                self.on_reply(reply)
        if process.inbox:
            self._schedule(process)
        self._arm(process, node)

    def _send_some(self, process: Process, messages: list[tuple[ReplicaId, Message]]) -> None:
        """Crash amid the sends: a broadcast may have reached some links and not the others."""
        singles = [
            (member, message)
            for target, message in messages
            for member in (self._others(process.me) if target == EVERYONE else [target])
        ]
        for target, message in singles[: self.random.randint(0, len(singles))]:
            self._send(process.me, target, message)
        self._dooms(process, CrashPoint.AMID_SENDS)

    def _others(self, me: ReplicaId) -> list[ReplicaId]:
        return [member for member in range(self.options.replicas) if member != me]

    def _dooms(self, process: Process, point: CrashPoint) -> bool:
        if process.doom is not point:
            return False
        process.doom = None
        self.crash(process.me, point.value)
        return True

    def _arm(self, process: Process, node: Node) -> None:
        deadline = node.deadline()
        if deadline is None or (process.armed is not None and process.armed <= deadline):
            return
        deadline = max(deadline, self.now)
        process.armed = deadline

        def ring() -> None:
            if process.node is node:
                if process.armed == deadline:
                    process.armed = None
                self._schedule(process)

        self.at(deadline, ring)

    # Network -----------------------------------------------------------------------------------

    def _send(self, source: ReplicaId, target: ReplicaId, message: Message) -> None:
        self.story.sent(self.now, source, target, message)
        body = encode(message)
        self.watch.said(source, message)
        for member in self._others(source) if target == EVERYONE else [target]:
            self._carry(source, member, body)

    def _carry(self, source: ReplicaId, target: ReplicaId, body: bytes) -> None:
        assert source != target, "a replica never sends to itself"
        self.counts["messages"] += 1
        rng = self.random
        if (source, target) in self.cut or rng.random() < self.loss:
            self.counts["lost"] += 1
            return
        self._deliver_at(source, target, body, self._arrival(source, target))
        if rng.random() < self.duplication:
            late = rng.randint(0, LATE_COPY_US) if rng.random() < 0.25 else 0
            self._deliver_at(source, target, body, self._arrival(source, target) + late)

    def _arrival(self, source: ReplicaId, target: ReplicaId) -> Micros:
        options = self.options
        when = (
            self.now + options.delays_us[source][target] + self.random.randint(0, options.jitter_us)
        )
        if not options.faults.reorder:
            link = (source, target)
            when = max(when, self._last_arrival.get(link, 0))
            self._last_arrival[link] = when
        return when

    def _deliver_at(self, source: ReplicaId, target: ReplicaId, body: bytes, when: Micros) -> None:
        process = self.processes[target]

        def deliver() -> None:
            if process.node is not None:
                self.mark("deliver", source, target, body)
                process.inbox.append((source, body))
                self._schedule(process)

        self.at(when, deliver)

    # What the whole world can be asked ---------------------------------------------------------

    def living(self) -> list[Process]:
        """Processes that run."""
        return [process for process in self.processes if process.node is not None]
