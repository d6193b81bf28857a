"""One life of a simulated process: a node over its disk, under the law of durability.

    feed inputs
    ready = life.take(now)
    life.append(ready.log); life.sync() if ready.must_sync
    life.release(ready, now), then send ready.messages
    give ready.replies

The world, the player of schedules and the explorer drive nodes through this class alone; when they
take these steps, and where between them a crash falls, is theirs. In memory mode nothing is
written, and what is appended counts as durable.

Rules of this file: no time, no randomness; every record passes through the codec. What a node
decided and executed is seen by others when its Ready is released, never before.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from enum import Enum
from typing import NamedTuple

from epaxos.codec import FRAME_BYTES_MAX, Codec, encode
from epaxos.core.command import PAYLOAD_BYTES_MAX
from epaxos.core.replica import Decided, Executed, Message, Record, Setup
from epaxos.core.types import InstanceId, Micros, ReplicaId, Slot, replica_name
from epaxos.execution.interface import Executor
from epaxos.node.node import Node
from epaxos.node.requests import Limits, NodeReady, commit
from epaxos.node.sampling import Samples
from epaxos.registry import ProtocolSpec
from epaxos.sim.check.checkers import READABLE, Violation
from epaxos.sim.check.protocol_invariants import ProtocolWatch
from epaxos.sim.disk import Disk

SURROUNDINGS_BYTES = 512
"""So much a message or record has beside one payload at most, in a world whose payloads are small.
Lists of slots, ids and objections are no longer than that in a run of a few dozen commands."""


class CrashPoint(Enum):
    """Where in a step a crash falls."""

    BEFORE_APPEND = "before the append"
    BEFORE_SYNC = "between append and sync"
    BEFORE_SEND = "after the sync, before any send"
    AMID_SENDS = "amid the sends"


class DiskFault(Enum):
    """What the disk does to a step; the process ends with it."""

    FULL = "at a disk that is full in the middle of its append"
    SYNC_FAILS = "at a sync that fails"


class Seen(NamedTuple):
    """What a life decided and executed since it was last looked at."""

    decided: list[Decided]
    executed: list[Decided]
    components: list[list[Decided]]
    """The components of `executed` that have more than one member."""


_NOTHING = Seen([], [], [])


class Watched:
    """An executor that remembers what was decided and executed, for the checkers."""

    def __init__(self, inner: Executor) -> None:
        self._inner = inner
        self.executed: list[Slot] = inner.executed
        self.is_executed = inner.is_executed
        self.blocked = inner.blocked
        self.blocked_on = inner.blocked_on
        self.pending = inner.pending
        self.statistics = inner.statistics
        self.held = inner.held
        self._decided: list[Decided] = []
        self._executed: list[Decided] = []
        self._components: list[list[Decided]] = []

    def commit(self, decided: Decided) -> None:
        self._decided.append(decided)
        self._inner.commit(decided)

    def ready(self) -> list[list[Decided]]:
        found = self._inner.ready()
        for component in found:
            self._executed += component
            if len(component) > 1:
                self._components.append(component)
        return found

    def replay(self, ids: list[InstanceId]) -> list[Decided]:
        found = self._inner.replay(ids)
        self._executed += found
        return found

    def seen(self) -> Seen:
        """What happened since it was last asked."""
        if not (self._decided or self._executed):
            return _NOTHING
        found = Seen(self._decided, self._executed, self._components)
        self._decided, self._executed, self._components = [], [], []
        return found


class NodeFactory:
    """Builds the nodes of a cluster, with executors that are watched."""

    def __init__(self, spec: ProtocolSpec, node: type[Node] = Node) -> None:
        self.codec = Codec(spec)
        self._node = node
        self._spec = replace(spec, executor=lambda n: Watched(spec.executor(n)))

    def build(self, setup: Setup, boot: int, limits: Limits) -> tuple[Node, Watched]:
        """A new node that knows nothing yet, and its executor."""
        node = self._node(self._spec, setup, boot, limits)
        assert isinstance(node.executor, Watched), "a node takes the executor of its protocol"
        return node, node.executor


class Incarnation:
    """One life of a process, from its start to its crash. Without a disk (memory mode) nothing is
    written. `durably` is told which ids the durable log says were executed."""

    def __init__(
        self,
        factory: NodeFactory,
        setup: Setup,
        boot: int,
        limits: Limits,
        disk: Disk | None,
        samples: Samples,
        durably: Callable[[ReplicaId, list[tuple[ReplicaId, Slot]]], None] | None = None,
    ) -> None:
        self._factory = factory
        self._setup = setup
        self._boot = boot
        self._limits = limits
        self._disk = disk
        self._samples = samples
        self._durably = durably
        self.node, self._watched = factory.build(setup, boot, limits)
        self._noted: list[Executed] = []
        """What the unsynced tail of the log says was executed."""

    def restore(self, bodies: Iterable[bytes]) -> None:
        """Replay the log, before the first wake."""
        decode, restore = self._factory.codec.decode_record, self.node.restore
        for body in bodies:
            restore(decode(body))

    def seen(self) -> Seen:
        """What was decided and executed since it was last asked."""
        return self._watched.seen()

    def take(self, now: Micros) -> NodeReady:
        """What the node wants done after the inputs of a step."""
        ready = self.node.take(now)
        self._samples.taken(ready.sampled)
        return ready

    def append(self, log: list[Record]) -> None:
        """Write the records of a Ready; nothing of it may leave yet."""
        disk = self._disk
        for record in log:
            if disk is not None:
                body = encode(record)
                self._check_size(record, len(body))
                disk.append(body)
            if isinstance(record, Executed):
                self._noted.append(record)
        if disk is None:
            self._tell_durable()

    def sync(self) -> None:
        """Everything appended is durable from here on."""
        if self._disk is not None:
            self._disk.sync()
            self._tell_durable()

    def _tell_durable(self) -> None:
        if self._durably is not None:
            for record in self._noted:
                self._durably(self._setup.me, list(zip(record.replicas, record.slots)))
        self._noted.clear()

    def release(self, ready: NodeReady, now: Micros) -> Seen:
        """Everything of a Ready may leave now, and others see what it decided and executed."""
        commit(ready.flights, now)
        self._samples.released(ready.sampled)
        if self.node.limits.payload_bytes < PAYLOAD_BYTES_MAX:
            for _, message in ready.messages:
                self._check_size(message, len(encode(message)))
        return self.seen()

    def _check_size(self, value: Message | Record, size: int) -> None:
        """Raises Violation for what nobody would read: a link ends, and no start succeeds."""
        payload_bytes = self.node.limits.payload_bytes
        most = FRAME_BYTES_MAX
        if payload_bytes < PAYLOAD_BYTES_MAX:
            most = payload_bytes + SURROUNDINGS_BYTES
        if size > most:
            name = type(value).__name__
            who = replica_name(self._setup.me)
            raise Violation(READABLE, f"a {name} of {who} has {size} bytes, over {most}")

    def answered(self, ready: NodeReady) -> None:
        """The answers of a Ready were given."""
        self._samples.answered(ready.sampled)

    def restored(self) -> Node:
        """A node over the durable log alone: what the process would know if it started now."""
        assert self._disk is not None, "who writes nothing cannot start again"
        setup = self._setup._replace(random=random.Random(0))
        again = Incarnation(
            self._factory, setup, self._boot, self._limits, self._disk, self._samples
        )
        again.restore(self._disk.certain())
        return again.node

    def check_remembered(self, watch: ProtocolWatch) -> None:
        """At a crash: what was said must be in the durable log alone, a tail that survives is luck.
        Raises Violation."""
        watch.remembered(self._setup.me, self.restored())
