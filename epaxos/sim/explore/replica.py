"""One replica of a small world as a table of local states, filled in by running the very code.

An `ExploredProcess` is a real `Node` over its disk, driven by inputs while time stands still. A
`StateTable` remembers every local state it was ever in under a small number, and what each input
did there; the code runs only the first time, on a node rebuilt by replaying the inputs that lead to
the state. So nothing is ever copied, and a state is exactly what the code makes of its inputs.

A step is one input and one take: append, sync if it must be, release. A crash falls between steps;
any first part of what was not synced may survive it. The process starts again at once: one that
stays down is one that takes no further steps.

Rules of this file: what left a replica in any life is part of its state, so that nothing said is
ever forgotten by merging states.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from epaxos.codec import Codec, encode
from epaxos.core.command import Operation
from epaxos.core.replica import EVERYONE, Decided, Message, Setup
from epaxos.core.types import InstanceId, ReplicaId, replica_name
from epaxos.node.requests import Limits, Request
from epaxos.node.sampling import Samples
from epaxos.registry import ProtocolSpec
from epaxos.sim.check.checkers import ASSERTION, INVARIANT, RAISES, REMEMBERED, Violation
from epaxos.sim.check.protocol_invariants import invariants_of
from epaxos.sim.disk import Disk
from epaxos.sim.explore.digest import digest
from epaxos.sim.explore.protocols import MessageFilter, message_filter, takeovers
from epaxos.sim.incarnation import Incarnation, NodeFactory, Seen
from epaxos.sim.schedule.words import show

RTT_US = 40_000
"""Equal for all, so that a command leader never waits for a nearer answer (H7)."""


class Kind(IntEnum):
    """What an input is."""

    PROPOSE = 0
    DELIVER = 1
    TAKE_OVER = 2
    ASK_AGAIN = 3
    RESTART = 4


class Input(NamedTuple):
    """What happens to a replica in one step."""

    kind: Kind
    number: int = 0
    """PROPOSE: which batch. DELIVER: the source. RESTART: how many unsynced records survive."""
    body: bytes = b""
    """DELIVER: the message, encoded."""
    instance: InstanceId | None = None
    """TAKE_OVER in EPaxos: which instance."""


class ClientBatch(NamedTuple):
    """What a client asks for: one batch that writes some keys."""

    replica: ReplicaId
    """Where."""
    keys: tuple[str, ...] = ("x",)


@dataclass(frozen=True)
class SmallWorld:
    """What can happen."""

    spec: ProtocolSpec
    """The protocol; a broken replica class can be planted here."""
    replicas: int = 3
    batches: tuple[ClientBatch, ...] = (ClientBatch(0), ClientBatch(1))
    crashes: int = 0
    """How many times a replica crashes and starts again. Crashes for good need no count: a replica
    that is down is one to which nothing more is delivered, and every state is checked."""
    crashing: tuple[ReplicaId, ...] | None = None
    """Which replicas; None: any."""
    recoveries: int = 0
    """How many times an instance is taken over (EPaxos), or a campaign begins (Multi-Paxos)."""
    recovering: tuple[ReplicaId, ...] | None = None
    """By which replicas; None: any."""
    repeats: int = 0
    """How many times a replica asks again what was not answered."""
    duplicates: bool = False
    """Whether a message may arrive any number of times; otherwise once, or never."""
    fallen: tuple[ReplicaId, ...] = ()
    """Command leaders that crash for good before anything of another instance reaches them: they
    propose, and hear answers to that at most."""


_RANDOM = random.Random(0)
"""Jitter moves deadlines only, and none ever comes."""
_LIMITS = Limits(gate=False)
_SAMPLES = Samples(lambda: 0)
"""Nothing is sampled."""


class ExploredProcess:
    """A replica's process, all its lives long."""

    def __init__(self, world: SmallWorld, me: ReplicaId, factory: NodeFactory) -> None:
        self.world = world
        self.me = me
        self.disk = Disk(me)
        self.life: Incarnation
        self.decided: dict[tuple[ReplicaId, int, bytes], Decided] = {}
        """Every decision ever released, by id and content."""
        self.executed: list[list[Decided]] = []
        """What each life executed, in its order, Nops left out."""
        self.said: list[Message] = []
        self.proposed: list[int] = []
        """Which batches were."""
        self._factory = factory
        self._start()

    def _start(self) -> list[tuple[ReplicaId, Message]]:
        """A life begins over what the disk kept."""
        world, me = self.world, self.me
        rtts = tuple(0 if other == me else RTT_US for other in range(world.replicas))
        setup = Setup(me, world.replicas, rtts, _RANDOM)
        disk = self.disk
        self.life = Incarnation(self._factory, setup, disk.boot, _LIMITS, disk, _SAMPLES)
        self.executed.append([])
        self.life.restore(disk.durable)
        self._observe(self.life.seen())
        self.life.node.wake(0)
        return self._take()

    def apply(self, step: Input) -> list[tuple[ReplicaId, Message]]:
        """Take one step; returns what leaves, by target."""
        node = self.life.node
        if step.kind is Kind.DELIVER:
            node.receive(step.number, self._factory.codec.decode_message(step.body), 0)
        elif step.kind is Kind.PROPOSE:
            self.proposed.append(step.number)
            keys = [key.encode() for key in self.world.batches[step.number].keys]
            puts = bytes([Operation.PUT] * len(keys))
            values = [argument_of(step.number, index) for index in range(len(keys))]
            node.request([Request(step.number, puts, keys, values, 0)], 0)
        elif step.kind is Kind.TAKE_OVER:
            replica: Any = node.replica
            if step.instance is None:
                replica._campaign(0, None)  # an election without its patience, which needs a clock
            else:
                replica.start_recover([step.instance], 0)
        elif step.kind is Kind.ASK_AGAIN:
            asking: Any = node.replica
            asking._ask_again(range(self.world.replicas), 0)  # as the end of a wait, without it
            node.wake(0)
        else:
            self.disk.keep(step.number)
            self.disk.start()
            return self._start()
        return self._take()

    def _take(self) -> list[tuple[ReplicaId, Message]]:
        """Append, sync if it must be, release."""
        life = self.life
        ready = life.take(0)
        life.append(ready.log)
        if ready.must_sync:
            life.sync()
        self._observe(life.release(ready, 0))
        self.said += [message for _, message in ready.messages]
        return [
            (member, message)
            for target, message in ready.messages
            if self.world.spec.has_leader or type(message).__name__ != "Progress"
            for member in (range(self.world.replicas) if target == EVERYONE else (target,))
            if member != self.me
        ]

    def _observe(self, seen: Seen) -> None:
        for each in seen.decided:
            content = b"" if each.payload is None else each.payload.encoded
            self.decided[each.replica, each.slot, content + repr(each.deps).encode()] = each
        self.executed[-1] += [each for each in seen.executed if each.payload is not None]

    def observed(self) -> "Observed":
        """What this replica released."""
        orders = sorted({tuple(life) for life in self.executed}, key=len, reverse=True)
        longest: list[tuple[Decided, ...]] = []
        for order in orders:
            if order and not any(other[: len(order)] == order for other in longest):
                longest.append(order)
        return Observed(tuple(self.decided[key] for key in sorted(self.decided)), tuple(longest))


class Observed(NamedTuple):
    """What has left a replica: part of its state for ever."""

    decided: tuple[Decided, ...]
    executed: tuple[tuple[Decided, ...], ...]
    """Per life; orders that begin others are left out."""


def argument_of(batch: int, index: int) -> bytes:
    """What the batch writes to its key of that index; unique in a world."""
    return b"%d.%d" % (batch, index)


class Effect(NamedTuple):
    """What an input does in a local state."""

    step: Input
    after: int
    """The local state."""
    sends: tuple[tuple[ReplicaId, int], ...]
    """Target, and the bits of the messages to it in the numbering of its inbox."""


class LocalState(NamedTuple):
    """One local state."""

    inputs: tuple[Input, ...]
    """What leads to it: its shortest known history."""
    observed: int
    """The number of what was released."""
    spontaneous: tuple[Input, ...]
    """What can happen without a message."""
    crashes: bool
    """Whether this replica may still crash: then its disk is part of the state."""
    ballots: bool
    """Whether it may still take something over."""
    filter: MessageFilter


class StateTable:
    """The table of one replica's local states."""

    def __init__(self, world: SmallWorld, me: ReplicaId, inboxes: Sequence["Inbox"]) -> None:
        self.world = world
        self.me = me
        self.locals: list[LocalState] = []
        self.observations: list[Observed] = []
        self.runs = 0
        """How often code ran: once per input and local state."""
        self._inboxes = inboxes
        self._factory = NodeFactory(world.spec)
        self._invariants = invariants_of(world.spec)
        self._numbers: dict[tuple[bytes, bool, bool], int] = {}
        self._observed: dict[bytes, int] = {}
        self._effects: dict[tuple[int, Input], Effect] = {}
        self._disks: dict[tuple[int | bytes, ...], tuple[bytes, Any]] = {}
        self._disk_of: dict[bytes, tuple[bytes, Any]] = {}
        self._relaxed: dict[tuple[int, bool, bool], int] = {}

    def first(self, prelude: Iterable[Input]) -> int:
        """The local state after some first inputs."""
        world = self.world
        inputs = tuple(prelude)
        crashes = world.crashes > 0 and (world.crashing is None or self.me in world.crashing)
        ballots = world.recoveries > 0 and (world.recovering is None or self.me in world.recovering)
        return self._number(self._run(inputs), inputs, crashes, ballots)

    def effect(self, local: int, step: Input) -> Effect:
        """What an input does in a local state. Raises Violation."""
        found = self._effects.get((local, step))
        if found is None:
            found = self._effects[local, step] = self._effect(local, step)
        return found

    def relax(self, local: int, crashes: bool, ballots: bool) -> int:
        """The same state where no more of the crashes or takeovers are left in the world."""
        here = self.locals[local]
        crashes, ballots = crashes and here.crashes, ballots and here.ballots
        if (crashes, ballots) == (here.crashes, here.ballots):
            return local
        key = (local, crashes, ballots)
        found = self._relaxed.get(key)
        if found is None:
            process = self._run(here.inputs)
            found = self._relaxed[key] = self._number(process, here.inputs, crashes, ballots)
        return found

    def observed_digests(self) -> list[bytes]:
        """What was released, by number, in words that other searches share."""
        return list(self._observed)

    def _run(self, inputs: tuple[Input, ...]) -> ExploredProcess:
        process = ExploredProcess(self.world, self.me, self._factory)
        for step in inputs:
            process.apply(step)
        return process

    def _effect(self, local: int, step: Input) -> Effect:
        self.runs += 1
        here = self.locals[local]
        process = self._run(here.inputs)
        sent = self.checked(process, step)
        after = self._number(process, (*here.inputs, step), here.crashes, here.ballots)
        bits: dict[ReplicaId, int] = {}
        for target, message in sent:
            bit = self._inboxes[target].bit(self.me, encode(message), message)
            if bit:
                bits[target] = bits.get(target, 0) | bit
        return Effect(step, after, tuple((target, bits[target]) for target in sorted(bits)))

    def checked(self, process: ExploredProcess, step: Input) -> list[tuple[ReplicaId, Message]]:
        """Take the step, and hold the protocol's own invariants against it."""
        invariants = self._invariants
        before = None
        try:
            if step.kind is Kind.RESTART:
                self._check_remembered(process)
            else:
                before = invariants.snapshot(process.life.node.replica)
            sent = process.apply(step)
        except Violation:
            raise
        except AssertionError as error:
            raise Violation(ASSERTION, f"{replica_name(self.me)}: {error}") from None
        except Exception as error:
            raise Violation(RAISES, f"{replica_name(self.me)}: {error!r}") from error
        try:
            if before is None:
                invariants.check(process.life.node.replica)
            else:
                invariants.check_step(before, process.life.node.replica)
        except AssertionError as error:
            raise Violation(INVARIANT, f"{replica_name(self.me)}: {error}") from None
        return sent

    def _check_remembered(self, process: ExploredProcess) -> None:
        restored = process.life.restored().replica
        try:
            for message in process.said:
                self._invariants.check_remembered(restored, message)
        except AssertionError as error:
            raise Violation(REMEMBERED, f"{replica_name(self.me)}: {error}") from None

    def _number(
        self, process: ExploredProcess, inputs: tuple[Input, ...], crashes: bool, ballots: bool
    ) -> int:
        world = self.world
        observed = process.observed()
        seen = digest(observed)
        what = self._observed.setdefault(seen, len(self.observations))
        if what == len(self.observations):
            self.observations.append(observed)
        node = process.life.node
        kept, disk = self._disk(process) if crashes else (b"", None)
        # What the node will advertise as executed at its next take goes into vectors that EPaxos
        # tells in Progress only.
        vectors = (node._log_synced, node._executed_noted, node._executed_durable)
        told = vectors if world.spec.has_leader else ()
        batches = sum(batch.replica == self.me for batch in world.batches)
        number = (
            node._number if len(process.proposed) < batches else 0
        )  # of batches made from now on
        parts = (node.replica, node.executor, process.proposed, number, told, seen, kept)
        state = digest(*parts, ballots=ballots)
        number = self._numbers.setdefault((state, crashes, ballots), len(self.locals))
        if number == len(self.locals):
            spontaneous = tuple(self._spontaneous(process, crashes, ballots))
            heard = message_filter(node.replica, disk, ballots, world.spec.has_leader)
            self.locals.append(LocalState(inputs, what, spontaneous, crashes, ballots, heard))
        return number

    def _disk(self, process: ExploredProcess) -> tuple[bytes, Any]:
        """What a crash would leave, as a digest and as a replica over it."""
        key: tuple[int | bytes, ...] = (process.disk.boot, *process.disk.durable)
        found = self._disks.get(key)
        if found is None:
            node = process.life.restored()
            found = digest(process.disk.boot, node.replica, node.executor), node.replica
            found = self._disks[key] = self._disk_of.setdefault(found[0], found)
        return digest(found[0], process.disk.tail), found[1]

    def _spontaneous(
        self, process: ExploredProcess, crashes: bool, ballots: bool
    ) -> Iterable[Input]:
        world = self.world
        for number, batch in enumerate(world.batches):
            if batch.replica == self.me and number not in process.proposed:
                yield Input(Kind.PROPOSE, number)
                break
        if ballots:
            for instance in takeovers(process.life.node.replica, world.spec.has_leader):
                yield Input(Kind.TAKE_OVER, instance=instance)
        if world.repeats and not world.spec.has_leader:
            yield Input(Kind.ASK_AGAIN)
        if crashes:
            for kept in range(len(process.disk.tail) + 1):
                yield Input(Kind.RESTART, kept)


class Inbox:
    """The messages to one replica, numbered in the order in which they were first sent."""

    def __init__(self, target: ReplicaId, world: SmallWorld) -> None:
        self.inputs: list[Input] = []
        self.messages: list[Message] = []
        self._target = target
        self._fallen = target in world.fallen
        self._bits: dict[tuple[ReplicaId, bytes], int] = {}

    def bit_of(self, step: Input) -> int:
        """The bit of a delivery."""
        return self._bits[step.number, step.body]

    def bit(self, source: ReplicaId, body: bytes, message: Message) -> int:
        """The bit that stands for a message; 0 for one that is never heard."""
        if self._fallen and getattr(message, "replica", self._target) != self._target:
            return 0
        found = self._bits.get((source, body))
        if found is None:
            found = self._bits[source, body] = 1 << len(self.inputs)
            self.inputs.append(Input(Kind.DELIVER, source, body))
            self.messages.append(message)
        return found


def describe(step: Input, me: ReplicaId, world: SmallWorld, codec: Codec) -> str:
    """A step as a person would say it."""
    name = replica_name(me)
    if step.kind is Kind.DELIVER:
        message = show(codec.decode_message(step.body))
        return f"{name} receives from {replica_name(step.number)}: {message}"
    if step.kind is Kind.PROPOSE:
        return f"{name} proposes a batch on {', '.join(world.batches[step.number].keys)}"
    if step.kind is Kind.TAKE_OVER:
        return f"{name} takes {step.instance} over" if step.instance else f"{name} campaigns"
    if step.kind is Kind.ASK_AGAIN:
        return f"{name} asks again what was not answered"
    kept = f"; {step.number} unsynced records survive" if step.number else ""
    return f"{name} crashes and starts again from its disk{kept}"
