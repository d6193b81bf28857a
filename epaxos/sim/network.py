"""The simulated network: delays, loss, copies, cuts, and the order of deliveries.

Beside random delay there are orders that six messages in a particular order are likelier to meet:
link priorities that change a few times (PCT: Burckhardt et al., ASPLOS 2010), the newest first, and
one replica starved.

Rules of this file: it delays, loses and repeats; it never changes a message. All randomness is the
world's.
"""

import random
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from epaxos.codec import encode
from epaxos.core.lineage import Life
from epaxos.core.replica import EVERYONE, Message
from epaxos.core.types import Micros, ReplicaId
from epaxos.sim.check.protocol_invariants import ProtocolWatch
from epaxos.sim.options import RunOptions
from epaxos.sim.schedule.schedule import label_of
from epaxos.sim.schedule.words import Story
from epaxos.sim.situations import Meter

LATE_COPY_US = 3_000_000
"""How late the latest copies of a duplicated message are."""
KEPT = 200
"""So many past messages are kept for replays."""
WINDOW_US = 30_000
"""Newest first: messages that arrive within so long are turned round."""
SLOWEST_US = 5_000_000
"""No delay is longer."""
STARVED = 25
"""Starvation: how many times longer the messages of one replica take."""


class Parcel(NamedTuple):
    """A message on its way."""

    source: ReplicaId
    target: ReplicaId
    body: bytes
    boot: int
    """The boot of the process that sent it."""
    order: int
    """Which message of the whole network it is."""
    label: str = ""
    """What it says, when the run is recorded."""
    nth: int = 0
    """Which one of that label on the link."""


class Host(Protocol):
    """The world in which a network stands."""

    options: RunOptions
    random: random.Random
    now: Micros
    story: Story
    watch: ProtocolWatch
    meter: Meter
    counts: dict[str, int]
    remembered: list[Life]

    def at(self, when: Micros, action: Callable[..., object], *arguments: Any) -> None: ...
    def at_once(self, when: Micros, action: Callable[..., object], *arguments: Any) -> None: ...

    def deliver(self, parcel: Parcel) -> None:
        """A message reaches its process, if there is one."""
        ...

    def is_in_core(self, member: ReplicaId) -> bool:
        """Whether a member was not left out when the core healed."""
        ...


class Network:
    """All links of a world."""

    def __init__(self, world: Host) -> None:
        options = world.options
        self._world = world
        self._delays = options.delays_us
        self._jitter = options.jitter_us
        self._members = range(options.replicas)
        self.cut: dict[tuple[ReplicaId, ReplicaId], int] = {}
        """Ordered pairs between which nothing passes, and how many cuts say so."""
        self.loss = options.faults.loss
        self.duplication = options.faults.duplication
        self.fifo = not options.faults.reorder
        self.order = options.order
        self.slow: dict[ReplicaId, int] = {}
        """Replicas whose links are so many times slower now."""
        self.starved: ReplicaId = 0
        self.factors: dict[tuple[ReplicaId, ReplicaId], float] = {}
        """PCT: how much faster or slower than its delay each link is now."""
        self._sent = 0
        self._delivered: dict[tuple[ReplicaId, ReplicaId], int] = {}
        """Per link the latest message that has arrived, in order of sending."""
        self._last_arrival: dict[tuple[ReplicaId, ReplicaId], Micros] = {}
        self._numbers: dict[tuple[ReplicaId, ReplicaId, str], int] = {}
        self.past: list[Parcel] = []
        """Some messages of the past, kept if the run replays any."""
        self._keeps = options.faults.replays > 0

    def calm(self) -> None:
        """Nothing is lost, copied, cut or slowed any more."""
        self.cut.clear()
        self.slow.clear()
        self._last_arrival.clear()
        self.loss = self.duplication = 0.0
        self.order = "delay"

    def sever(self, pairs: list[tuple[ReplicaId, ReplicaId]]) -> None:
        """Let nothing pass between these ordered pairs."""
        for pair in pairs:
            self.cut[pair] = self.cut.get(pair, 0) + 1

    def mend(self, pairs: list[tuple[ReplicaId, ReplicaId]]) -> None:
        """Take one cut back."""
        for pair in pairs:
            count = self.cut.get(pair, 0) - 1
            if count > 0:
                self.cut[pair] = count
            else:
                self.cut.pop(pair, None)

    def send(self, source: ReplicaId, target: ReplicaId, message: Message) -> None:
        """Carry a message to one member, or to all others."""
        world = self._world
        if world.story.on:
            world.story.sent(world.now, source, target, message)
        body = encode(message)
        world.meter.sent(source, message)
        world.watch.said(source, message)
        if target != EVERYONE:
            self._carry(source, target, body, message)
            return
        for member in self._members:
            if member != source:
                self._carry(source, member, body, message)

    def send_some(self, source: ReplicaId, messages: list[tuple[ReplicaId, Message]]) -> int:
        """The sender dies amid its sends: a broadcast may have reached some links and not the
        others. Returns how many single messages left."""
        singles = [
            (member, message)
            for target, message in messages
            for member in (self._others(source) if target == EVERYONE else [target])
        ]
        count = self._world.random.randint(0, len(singles))
        for target, message in singles[:count]:
            self.send(source, target, message)
        return count

    def _others(self, me: ReplicaId) -> list[ReplicaId]:
        return [member for member in self._members if member != me]

    def _carry(self, source: ReplicaId, target: ReplicaId, body: bytes, message: Message) -> None:
        assert source != target, "a replica never sends to itself"
        world = self._world
        counts = world.counts
        counts["messages"] += 1
        counts["bytes"] += len(body)
        rng = world.random
        lost = (self.cut and (source, target) in self.cut) or (
            self.loss and rng.random() < self.loss
        )
        if lost and not world.story.on:
            counts["lost"] += 1
            return
        self._sent += 1
        parcel = Parcel(source, target, body, world.remembered[source].boot, self._sent)
        if world.story.on:
            parcel = self._label(parcel, message)
            if lost:
                counts["lost"] += 1
                return
        self._arrive(parcel, self._delay(source, target))
        if self._keeps and len(self.past) < KEPT:
            self.past.append(parcel)
        if self.duplication and rng.random() < self.duplication:
            counts["duplicated"] += 1
            late = rng.randint(0, LATE_COPY_US) if rng.random() < 0.25 else 0
            world.at(world.now + self._delay(source, target) + late, self._deliver, parcel)

    def _label(self, parcel: Parcel, message: Message) -> Parcel:
        label = label_of(message)
        key = (parcel.source, parcel.target, label)
        nth = self._numbers.get(key, 0)
        self._numbers[key] = nth + 1
        return parcel._replace(label=label, nth=nth)

    def _delay(self, source: ReplicaId, target: ReplicaId) -> Micros:
        delay = self._delays[source][target]
        if self._jitter:
            delay += int(self._world.random.random() * self._jitter)
        if self.order == "priorities":
            delay = int(delay * self.factors.get((source, target), 1.0))
        elif self.order == "starve" and self.starved in (source, target):
            delay *= STARVED
        if self.slow:
            delay *= self.slow.get(source, 1) * self.slow.get(target, 1)
        return min(delay, SLOWEST_US)

    def _arrive(self, parcel: Parcel, delay: Micros) -> None:
        world = self._world
        when = world.now + delay
        if self.order == "newest":
            window = when // WINDOW_US * WINDOW_US + WINDOW_US
            world.at_once(window, self._deliver, parcel)
            return
        if self.fifo:
            link = (parcel.source, parcel.target)
            when = max(when, self._last_arrival.get(link, 0))
            self._last_arrival[link] = when
        world.at(when, self._deliver, parcel)

    def _deliver(self, parcel: Parcel) -> None:
        world = self._world
        if parcel.boot < world.remembered[parcel.source].boot:
            world.counts["late_after_restart"] += 1
        link = (parcel.source, parcel.target)
        if parcel.order < self._delivered.get(link, 0):
            world.counts["overtaken"] += 1
        else:
            self._delivered[link] = parcel.order
        world.deliver(parcel)

    def replay(self) -> None:
        """Deliver some message of the past once more."""
        world = self._world
        if self.past:
            world.counts["replayed"] += 1
            parcel = self.past[world.random.randrange(len(self.past))]
            if world.is_in_core(parcel.source) and world.is_in_core(parcel.target):
                self._deliver(parcel)
