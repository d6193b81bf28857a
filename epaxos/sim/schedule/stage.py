"""A stage: a schedule driven by hand, one step per call.

    world = directed(5)
    world.put("A", "x")
    world.deliver("A>B", "PreAccept A.1")
    world.crash("A")
    world.recover("B", "A.1")
    world.check()

Nothing is delivered and no time passes unless the story says so. Each call appends the event it
performs to `events`, so every story is a schedule that can be shown, cut down and written out.

Rules of this file: replicas are named by their letters; a method that names something that does not
exist raises LookupError, on a lenient stage it does nothing.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from epaxos.core.command import Footprint, Operation
from epaxos.core.replica import Replica, Setup
from epaxos.core.types import (
    Deps,
    InstanceId,
    Micros,
    ReplicaId,
    Slot,
    ballot_name,
    parse_instance,
    replica_name,
)
from epaxos.execution.interface import Executor
from epaxos.node.node import Node
from epaxos.node.requests import Refusal, Reply
from epaxos.registry import ProtocolSpec, find_protocol
from epaxos.sim.check.checkers import Violation
from epaxos.sim.schedule.chart import draw
from epaxos.sim.schedule.player import Player, Sent
from epaxos.sim.schedule.schedule import (
    HEARTBEATS,
    Arrival,
    Commands,
    Crash,
    HandOver,
    Input,
    Schedule,
    Start,
    Step,
    TakeOver,
)
from epaxos.sim.schedule.simplify import PATIENCE_US, RTT_US, plain_rtts

MESSAGES_MAX = 10_000
"""So many deliveries and `deliver_all` gives up."""

Id = tuple[ReplicaId, Slot]


class Stage(Player):
    """A Player driven step by step; messages wait in `flight` until delivered or dropped,
    heartbeats apart: of these `deliver` takes the latest."""

    def __init__(
        self,
        head: Schedule,
        spec: ProtocolSpec | None = None,
        node: type[Node] = Node,
        *,
        only: str | None = None,
        deep: bool = True,
        lenient: bool = False,
    ) -> None:
        super().__init__(head, spec, node, only=only, deep=deep)
        self.now: Micros = 0
        """The clock of all processes, as far as the story moves it."""
        self.flight: list[Sent] = []
        self._departures: deque[tuple[Micros, Sent]] = deque()
        """All that was sent, with the time, as far as `run` has not come to it."""
        self._beats: dict[tuple[ReplicaId, ReplicaId], Sent] = {}
        """The latest heartbeat of each link."""
        self._lenient = lenient
        self._requests = 0
        self._values = 0

    def on_sent(self, sent: Sent) -> None:
        """What is sent waits in flight."""
        self._departures.append((self.now, sent))
        if type(sent.message).__name__ in HEARTBEATS:
            self._beats[sent.source, sent.target] = sent
        else:
            self.flight.append(sent)

    # Processes ---------------------------------------------------------------------------------

    def start(self, name: str, seed: int | None = None) -> None:
        """Start a process from what its disk kept, and give it its first wake."""
        member = number(name)
        self.perform(Start(member, self.now, member if seed is None else seed))
        self.step(name, wake=True)

    def restart(self, name: str) -> None:
        """The same for a process that crashed."""
        self.start(name)

    def crash(self, *names: str, kept: int = 0) -> None:
        """Processes end at once; of what was not synced so many records survive."""
        for name in names:
            self.perform(Crash(number(name), self.now, kept=kept))

    def node(self, name: str) -> Node:
        """A living process's node. Raises LookupError."""
        node = self.actors[number(name)].node
        if node is None:
            raise LookupError(f"{name} is down")
        return node

    def replica(self, name: str) -> Replica:
        """A living process's replica. Raises LookupError."""
        return self.node(name).replica

    # Steps -------------------------------------------------------------------------------------

    def step(
        self,
        name: str,
        *inputs: Input,
        wake: bool = False,
        at: Micros | None = None,
        released_at: Micros | None = None,
        crash: Crash | None = None,
    ) -> None:
        """One step with any inputs; every other method is made of these."""
        self.now = self.now if at is None else at
        self.perform(Step(number(name), self.now, inputs, wake, released_at, crash))

    def put(
        self, name: str, *keys: str, value: bytes | None = None, patience_us: Micros = PATIENCE_US
    ) -> InstanceId | None:
        """A client at `name` writes these keys in one batch; see `request`. Without a value every
        key gets one of its own: no two writes of a story write the same."""
        commands = []
        for key in keys:
            token = self._token() if value is None else value
            commands.append((Operation.PUT, key.encode(), token))
        return self.request(name, commands, patience_us)

    def get(self, name: str, *keys: str) -> InstanceId | None:
        """A client at `name` reads these keys in one batch; see `request`."""
        return self.request(name, [(Operation.GET, key.encode(), b"") for key in keys])

    def request(
        self,
        name: str,
        commands: Sequence[tuple[int, bytes, bytes]],
        patience_us: Micros = PATIENCE_US,
        crash: Crash | None = None,
    ) -> InstanceId | None:
        """A client at `name` sends (operation, key, argument) commands in one request. Returns the
        instance that carries them, if it is known at once."""
        self.step(name, self.commands(commands, patience_us), crash=crash)
        node = self.actors[number(name)].node
        if node is None:
            return None
        deps = node.replica.dependencies(Footprint([key for _, key, _ in commands], ()))
        return InstanceId(number(name), deps[number(name)]) if deps else None

    def commands(
        self, commands: Sequence[tuple[int, bytes, bytes]], patience_us: Micros = PATIENCE_US
    ) -> Commands:
        """A request as an input of `step`."""
        self._requests += 1
        codes = bytes(code for code, _, _ in commands)
        keys = tuple(key for _, key, _ in commands)
        arguments = tuple(argument for _, _, argument in commands)
        return Commands(self._requests, codes, keys, arguments, patience_us)

    def recover(self, name: str, *instances: str | Id, crash: Crash | None = None) -> None:
        """`name` takes instances over (leaderless protocols)."""
        self.step(name, TakeOver(tuple(map(as_id, instances))), crash=crash)

    def wait(self, name: str, micros: Micros) -> None:
        """Time passes, and `name` looks at its deadlines."""
        self.step(name, wake=True, at=self.now + micros)

    def wake(self, name: str) -> None:
        """Time passes until the next deadline of `name`, which looks at it."""
        if self._lenient and self.actors[number(name)].node is None:
            return
        deadline = self.node(name).deadline()
        if deadline is not None:
            self.step(name, wake=True, at=max(self.now, deadline))

    def run(
        self,
        micros: Micros,
        *,
        lost: Sequence[str] = (),
        held: Sequence[str] = (),
        until: Callable[[], bool] | None = None,
    ) -> None:
        """Time passes for everybody: deadlines are met, and each message arrives half a round trip
        after it left. `lost` and `held` say which do not arrive in that time, each by way and kind
        ("A>", "A>B Accept", "> Forward|Returned"); what is held stays in flight until it is
        delivered by hand. Ends early where `until` holds; if it never does: LookupError."""
        end = self.now + micros
        while until is None or not until():
            sent = self._departures[0][1] if self._departures else None
            at = None if sent is None else self._departures[0][0] + self.head.rtt_us[0][-1] // 2
            who = None
            for actor in self.actors:
                due = None if actor.node is None else actor.node.deadline()
                if due is not None and (at is None or due < at):
                    at, who = due, actor
            if at is None or at > end:
                self.now = end
                if until is None:
                    return
                raise LookupError(f"not reached within {micros} us")
            self.now = max(self.now, at)
            if who is not None:
                self.step(replica_name(who.me), wake=True)
            elif sent is not None:
                self._departures.popleft()
                self._arrive(sent, lost, held)

    def _arrive(self, sent: Sent, lost: Sequence[str], held: Sequence[str]) -> None:
        is_beat = type(sent.message).__name__ in HEARTBEATS
        if not is_beat and not any(sent is each for each in self.flight):
            return  # It was delivered or dropped by hand.
        if any(self.matches(sent, *words.split(" ", 1)) for words in held):
            return
        if not is_beat:
            self.flight = [each for each in self.flight if each is not sent]
        if not any(self.matches(sent, *words.split(" ", 1)) for words in lost):
            self._hand_over(sent)

    def hand_over(self, name: str, target: str) -> None:
        """`name` is asked to hand leadership to `target` (leader protocols)."""
        self.step(name, HandOver(number(target)))

    # Network -----------------------------------------------------------------------------------

    def deliver(
        self,
        way: str | None = None,
        kind: str | None = None,
        instance: str | Id | None = None,
        *,
        nth: int | None = None,
        keep: bool = False,
        wake: bool = False,
        crash: Crash | None = None,
    ) -> None:
        """Deliver the first message in flight that `matches`; with `keep` a copy of it. With `nth`,
        the so-and-so-manieth of the label `kind` that was ever sent that way, counted from 0."""
        if nth is None:
            sent = self._first(way, kind, instance)
        else:
            sent = self._sent_as(way or "", kind or "", nth)
        if sent is None:
            if self._lenient:
                return
            raise LookupError(f"no {kind} {way} {instance} in flight: {self._shown()}")
        if not keep and sent in self.flight:
            self.flight.remove(sent)
        self._hand_over(sent, wake, crash)

    def arrival(self, way: str, label: str, nth: int = 0) -> Arrival:
        """A delivery as an input of `step`: the `nth` message of that label on the link "A>B"."""
        source, target = map(number, way.split(">"))
        self.flight = [
            sent
            for sent in self.flight
            if (sent.source, sent.target, sent.label, sent.nth) != (source, target, label, nth)
        ]
        return Arrival(source, label, nth)

    def drop(
        self,
        way: str | None = None,
        kind: str | None = None,
        instance: str | Id | None = None,
    ) -> None:
        """Lose all messages in flight that match."""
        self.flight = [s for s in self.flight if not self.matches(s, way, kind, instance)]

    def drop_all(self) -> None:
        """Lose everything in flight."""
        self.flight = []

    def deliver_all(self, among: str | None = None) -> None:
        """Deliver everything in the order of sending until nothing is in flight; with `among`, what
        is not between these replicas is lost."""
        for _ in range(MESSAGES_MAX):
            if not self.flight:
                return
            sent = self.flight.pop(0)
            ends = {replica_name(sent.source), replica_name(sent.target)}
            if among is None or ends <= set(among):
                self._hand_over(sent)
        raise LookupError("messages never end")

    def matches(
        self,
        sent: Sent,
        way: str | None = None,
        kind: str | None = None,
        instance: str | Id | None = None,
    ) -> bool:
        """Whether a message goes that way ("A>B", ">B", "A>") and is of that kind ("PreAccept",
        "Accept|AcceptShort"), instance and ballot ("Recover A.1 b1@B", "Accept 7")."""
        if way is not None:
            here, there = way.split(">")
            if (here and number(here) != sent.source) or (there and number(there) != sent.target):
                return False
        if kind == sent.label and instance is None:
            return True
        kinds, _, rest = (kind or "").partition(" ")
        if kinds and type(sent.message).__name__ not in kinds.split("|"):
            return False
        words = rest.split()
        if instance is not None:
            words.append(instance if isinstance(instance, str) else str(InstanceId(*instance)))
        return all(word in _names(sent) for word in words)

    def _first(self, way: str | None, kind: str | None, instance: str | Id | None) -> Sent | None:
        wants_beat = kind is not None and kind.startswith(HEARTBEATS)
        beats: Sequence[Sent] = list(self._beats.values()) if wants_beat else ()
        found = [s for s in (*beats, *self.flight) if self.matches(s, way, kind, instance)]
        exact = (sent for sent in found if sent.label == kind)
        return next(exact, found[0] if found else None)

    def _sent_as(self, way: str, label: str, nth: int) -> Sent | None:
        source, target = map(number, way.split(">"))
        those = self.sent.get((source, target), {}).get(label, ())
        return those[nth] if nth < len(those) else None

    def _hand_over(self, sent: Sent, wake: bool = False, crash: Crash | None = None) -> None:
        arrival = Arrival(sent.source, sent.label, sent.nth)
        self.perform(Step(sent.target, self.now, (arrival,), wake, crash=crash))

    def _shown(self) -> str:
        return "; ".join(
            f"{replica_name(sent.source)}>{replica_name(sent.target)} {sent.label}"
            for sent in self.flight
        )

    def _token(self) -> bytes:
        self._values += 1
        return b"%d" % self._values

    # What is seen ------------------------------------------------------------------------------

    def value(self, who: str, instance: str | Id) -> tuple[list[str] | None, Deps] | None:
        """(keys, deps) that `who` decided: keys is None for Nop; None if nothing is decided."""
        found = self.actors[number(who)].decided.get(as_id(instance))
        if found is None:
            return None
        payload, deps = found
        keys = None if payload is None else sorted({key.decode() for key in payload.batch.keys})
        return keys, deps

    def executed(self, who: str) -> list[Id]:
        """What `who` has executed in this life, in its order, without Nops."""
        return self.actors[number(who)].executed

    def answers(self, who: str) -> list[Reply | Refusal]:
        """What clients at `who` were told."""
        return self.actors[number(who)].answers

    def chart(self, violation: Violation | None = None) -> str:
        """What was played, as a message sequence chart."""
        return draw(self, violation)

    def check(self) -> None:
        """Look at what clients saw and at the cluster as it stands. Raises Violation.

        Everything else was looked at in each step."""
        self.finish()


def head_of(
    n: int,
    protocol: str = "epaxos",
    *,
    rtt_us: Micros = RTT_US,
    leader: ReplicaId = 0,
    gate: bool = False,
    memory: bool = False,
    tunables: tuple[tuple[str, float], ...] = (),
) -> Schedule:
    """A schedule without events, of a cluster in which all round trips are alike."""
    rtts = plain_rtts(n, rtt_us)
    return Schedule(protocol, n, rtts, leader, gate, memory, (), tunables=tunables)


def directed(
    n: int,
    protocol: str = "epaxos",
    *,
    spec: ProtocolSpec | None = None,
    replica: Callable[[Setup], Replica] | None = None,
    executor: Callable[[int], Executor] | None = None,
    node: type[Node] = Node,
    only: str | None = None,
    deep: bool = True,
    lenient: bool = False,
    leader: ReplicaId = 0,
    gate: bool = False,
    memory: bool = False,
    tunables: tuple[tuple[str, float], ...] = (),
) -> Stage:
    """A stage on which n replicas have just started; a replica, executor or node with a planted bug
    may take the real one's place."""
    spec = spec or find_protocol(protocol)
    spec = replace(spec, replica=replica or spec.replica, executor=executor or spec.executor)
    head = head_of(n, spec.name, leader=leader, gate=gate, memory=memory, tunables=tunables)
    stage = Stage(head, spec, node, only=only, deep=deep, lenient=lenient)
    for member in range(n):
        stage.start(replica_name(member))
    return stage


def number(name: str) -> ReplicaId:
    """The replica called A, B, C, ..."""
    return ord(name) - ord("A")


def as_id(instance: str | Id) -> InstanceId:
    """`A.7`, or an id as it is."""
    return parse_instance(instance) if isinstance(instance, str) else InstanceId(*instance)


def _names(sent: Sent) -> set[str]:
    """All words by which a message may be asked for: instances or slots, and its ballot."""
    message = sent.message
    column = getattr(message, "replica", None)
    slots = [slot for slot in (getattr(message, "slot", None),) if slot is not None]
    slots += getattr(message, "slots", ())
    slots += [vote.slot for vote in getattr(message, "votes", ())]
    found = {str(slot) if column is None else str(InstanceId(column, slot)) for slot in slots}
    ballot = getattr(message, "ballot", None)
    if ballot is None:
        ballot = getattr(message, "promised", None)
    return found if ballot is None else found | {ballot_name(ballot)}
