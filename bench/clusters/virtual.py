"""A cluster and its clients in virtual time: the same replicas' code, no machine in between.

Links take what the topology says, if wanted with its jitter; every sync takes `sync_ms`; computing
takes nothing. Clients send the commands of a workload at their intended starts (open loop) or as
soon as the last answer is there (closed loop). They may live in regions without a replica: then
they ask the nearest, and their round trip to it, which never varies, is part of their latency.

Rules of this file: the same settings give the same samples. The simulator's observers are left
out: whether a protocol is safe is asked elsewhere.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any, Final, cast

from bench.analysis.stages import PER_SECOND, answered
from bench.clusters.counters import COOLDOWN_S, SETTLE_S, Costs, Measured
from bench.history.calls import HistoryWriter, UnlikeValues
from bench.load.client import CONNECTION_LOST, PAUSE_US, STAGGER_US, UNREACHABLE
from bench.load.samples import CLOSED, OPEN, Demand, Fates, LoadResult, Sample, Spread
from epaxos.codec import FRAME_HEADER
from epaxos.core.errors import Definite, EpaxosError
from epaxos.core.replica import Message
from epaxos.core.types import Micros, ReplicaId
from epaxos.node.requests import Limits, Refusal, Reply, Request
from epaxos.node.sampling import SAMPLES_KEPT, document
from epaxos.runtime.transport import encode_stamp
from epaxos.sim.check.checkers import DecisionChecker, ExecutionChecker
from epaxos.sim.check.protocol_invariants import ProtocolWatch
from epaxos.sim.network import Network, Parcel
from epaxos.sim.options import Faults, RunOptions, delays_of
from epaxos.sim.world import World
from epaxos.workload import Asker, Command
from topology import Home, Topology

_LEAD_US: Final = 100_000
"""From the moment all replicas are ready until the start of the load."""
_READY_WITHIN_US: Final = 60_000_000
_GRACE_US: Final = 2_000_000
"""How long after the last patience an answer may still come."""
_SLICES: Final = 40
"""How often in a load somebody is told how far it is."""
_STAMP_BYTES: Final = len(encode_stamp(0))
"""What real replicas send with each write over an emulated link."""
_NONE: Final = Spread()


class VirtualCluster:
    """A world without observers, whose links are those of a topology."""

    def __init__(
        self,
        topology: Topology,
        *,
        protocol: str,
        leader: ReplicaId | None,
        durability: str,
        sync_ms: float,
        jitter: bool,
        gate: bool,
        seed: int,
        batch_commands: int = Limits.batch_commands,
    ) -> None:
        memory = durability == "memory"
        self.topology = topology
        self.sync_us: Micros = 0 if memory else round(sync_ms * 1000)
        self.world = World(
            RunOptions(
                seed=seed,
                protocol=protocol,
                replicas=topology.n,
                delays_us=delays_of(topology),
                jitter_us=0,
                faults=Faults(sync_us=(self.sync_us, self.sync_us)),
                memory=memory,
                gate=gate,
                leader=leader or 0,
                limits=(("batch_commands", batch_commands), ("sampled_per_s", PER_SECOND)),
                deep=False,
            )
        )
        self.world.decisions = cast("DecisionChecker", _NullChecker())
        self.world.executions = cast("ExecutionChecker", _NullChecker())
        self.world.watch = cast("ProtocolWatch", _NullChecker())
        self.loads = 0
        """Those that were offered, this one included."""
        self.numbers = count(1)
        """Of the commands of all loads: some may be answered in a later one."""
        self.links = _Links(self.world, topology, jitter)
        self.world.network = self.links

    def start(self) -> None:
        """Start all replicas and wait until they would decide a command. Raises EpaxosError."""
        world = self.world
        for member in range(world.options.replicas):
            world.start(member)
        if not world.run(world.now + _READY_WITHIN_US, self._ready):
            raise EpaxosError(f"the replicas are not ready after {_READY_WITHIN_US / 1e6:g} s")

    def _ready(self) -> bool:
        nodes = [process.node for process in self.world.living()]
        return all(node is not None and node.unready() is None for node in nodes)

    def costs(self, commands: int) -> Costs:
        """What was counted since the world began."""
        counts = self.world.counts
        octets = counts["bytes"] + self.links.framing_bytes
        return Costs(commands, counts["messages"], octets, counts["syncs"], None)


class _NullChecker:
    """Checker that accepts everything, in place of an observer."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *told: object) -> None:
        pass


class _Links(Network):
    """Each link with its own jitter and loss, and with the bytes that real links add. Like there,
    a slow link takes longer by a factor of its own, and a cut also loses what is on its way."""

    def __init__(self, world: World, topology: Topology, varies: bool) -> None:
        super().__init__(world)
        self.framing_bytes = 0
        self.slowness: dict[ReplicaId, float] = {}
        """By what factor all links of a replica take longer now."""
        self._clock = world
        self._topology = topology
        self._varies = varies
        self._written: dict[tuple[ReplicaId, ReplicaId], Micros] = {}
        """When something left on a link last: what leaves together shares a stamp."""

    def _carry(self, source: ReplicaId, target: ReplicaId, body: bytes, message: Message) -> None:
        self.framing_bytes += FRAME_HEADER.size
        now = self._clock.now
        if self._written.get((source, target)) != now:
            self._written[source, target] = now
            self.framing_bytes += _STAMP_BYTES
        self.loss = self._topology.loss(source, target)
        super()._carry(source, target, body, message)

    def _delay(self, source: ReplicaId, target: ReplicaId) -> Micros:
        if self._varies:
            delay = self._topology.one_way_us(source, target)
            extra = self._topology.jitter(source, target).sample(self._clock.random)
        else:
            delay, extra = self._delays[source][target], 0
        if self.slowness:
            factor = self.slowness.get(source, 1.0) * self.slowness.get(target, 1.0)
            delay = round(delay * factor)
        return delay + extra

    def _deliver(self, parcel: Parcel) -> None:
        if self.cut and (parcel.source, parcel.target) in self.cut:
            self._clock.counts["lost"] += 1
            return
        super()._deliver(parcel)


class VirtualLoad:
    """All clients. The load starts a moment after this was made; what its commands meet until then
    may still be planned."""

    def __init__(
        self,
        cluster: VirtualCluster,
        homes: Sequence[Home],
        demand: Demand,
        history: HistoryWriter | None = None,
    ) -> None:
        self.world = world = cluster.world
        self.history = history
        """Keeps the calls as the clients see them, with values that are all unlike."""
        cluster.loads += 1
        self.label = cluster.loads
        self.demand = demand
        self.zero: Micros = world.now + _LEAD_US
        """The start of the load, by the world's clock."""
        self.length_us = _LEAD_US + round(demand.length_s * 1e6)
        """From now until the last command was sent."""
        self.samples: list[Sample] = []
        self.answered = 0
        """Commands, those of the warm-up included."""
        self.open: dict[int, tuple[_VirtualRegion, Asker, Micros, Command]] = {}
        """What waits for an answer, by number: who asked, start, command."""
        self._numbers = cluster.numbers
        self.workload = demand.drawn([home.region.name for home in homes])
        self._regions = [_VirtualRegion(self, index, home) for index, home in enumerate(homes)]
        world.on_reply = self._on_reply
        world.on_crash = self._on_crash
        for region in self._regions:
            region.begin()

    def ask(self, region: "_VirtualRegion", asker: Asker, start: Micros, command: Command) -> None:
        """A command reaches the replica."""
        number = next(self._numbers)
        self.open[number] = (region, asker, start, command)
        request = Request(
            number,
            bytes((command.operation,)),
            [command.key],
            [command.argument],
            self.world.now + self.demand.patience_us,
        )
        if not self.world.request(region.home.replica, request):
            del self.open[number]
            region.failed(asker, start, command, UNREACHABLE, definite=True)

    def _on_reply(self, reply: Reply | Refusal) -> None:
        found = self.open.pop(int(str(reply.waiter)), None)
        if found is None:
            return
        region, asker, start, command = found
        if isinstance(reply, Refusal):
            definite = isinstance(reply.error, Definite)
            region.failed(asker, start, command, reply.code, definite=definite)
            return
        self.answered += 1
        measured = self.demand.measured(start)
        region.fates.answered += measured
        now, results, flight = self.world.now, reply.results, reply.flight
        answer_us = now - self.zero - start + region.home.back_us
        waited_us = now - (flight.committed_at or now)
        if self.history is not None:
            end = now + region.home.back_us
            self.history.answered(*region.said(asker, start, command), end, results)
        self.samples.append(
            Sample(
                region.index,
                start,
                answer_us - waited_us,
                answer_us,
                flight.path,
                results.replica,
                results.slot,
                command.shared,
                measured,
                command.operation,
            )
        )
        if self.demand.clients:
            asker.heard(command, results, 0)
        region.settled(asker, 0)

    def _on_crash(self, member: ReplicaId) -> None:
        """Whoever waits for this replica will not hear from it."""
        for region in self._regions:
            region.disconnects += region.home.replica == member
        waiting = [n for n, (region, *_) in self.open.items() if region.home.replica == member]
        for number in waiting:
            region, asker, start, command = self.open.pop(number)
            region.failed(asker, start, command, CONNECTION_LOST, definite=False)

    def result(self) -> LoadResult:
        """Wait for the last answers."""
        begun = self.world.now
        limit = begun + self.demand.patience_us + _GRACE_US
        self.world.run(limit, lambda: not self.open)
        for region, asker, start, command in self.open.values():
            region.fates.lost += self.demand.measured(start)
            region.keep_failed(asker, start, command, definite=False)
        return LoadResult(
            loop=CLOSED if self.demand.clients else OPEN,
            samples=self.samples,
            fates=[region.fates for region in self._regions],
            hop_us=[home.there_us + home.back_us for home in (r.home for r in self._regions)],
            unreachable=[""] * len(self._regions),
            disconnects=[region.disconnects for region in self._regions],
            start_error=_NONE,
            loop_lag=_NONE,
            cpu_share=0.0,
            wall_s=(self.world.now - self.zero) / 1e6,
        )


class _VirtualRegion:
    """The clients of one region."""

    def __init__(self, load: VirtualLoad, index: int, home: Home) -> None:
        self.index = index
        self.home = home
        self.fates = Fates()
        self.disconnects = 0
        self._load = load
        self._starts: Iterator[Micros] = iter(())
        self._unlike = UnlikeValues(load.label, index)
        self._names: dict[Asker, str] = {}

    def begin(self) -> None:
        """Plan the first commands."""
        load, demand, name = self._load, self._load.demand, self.home.region.name
        if demand.clients:
            now = iter(lambda: load.world.now - load.zero, None)
            for client in range(demand.clients):
                asker = self._named(Asker(load.workload.commands(name, client, now)))
                when = load.zero + STAGGER_US * client // demand.clients
                load.world.at(when, self._leave, asker)
            return
        starts = load.workload.arrivals(name, demand.rate, demand.length_s).tolist()
        self._starts = iter(starts)
        self._schedule(self._named(Asker(load.workload.commands(name, starts=starts))))

    def _named(self, asker: Asker) -> Asker:
        self._names[asker] = f"{self.home.region.name}.{len(self._names)}"
        return asker

    def _next(self, asker: Asker) -> Command:
        command = asker.next()
        if self._load.history is None:
            return command
        argument = self._unlike.argument(command.operation, command.argument)
        return command._replace(argument=argument)

    def said(
        self, asker: Asker, start: Micros, command: Command
    ) -> tuple[str, int, bytes, bytes, Micros]:
        """For a history: who asked what, and when."""
        called = self._load.zero + start
        return self._names[asker], command.operation, command.key, command.argument, called

    def keep_failed(self, asker: Asker, start: Micros, command: Command, *, definite: bool) -> None:
        """For a history: a command without an answer."""
        if self._load.history is not None:
            self._load.history.failed(*self.said(asker, start, command), definite=definite)

    def _schedule(self, asker: Asker) -> None:
        """Open loop: let the next command leave at its intended start."""
        start = next(self._starts, None)
        if start is not None:
            when = self._load.zero + start + self.home.there_us
            self._load.world.at(when, self._arrive, start, asker)

    def _arrive(self, start: Micros, asker: Asker) -> None:
        """The command that was to start then reaches the replica."""
        self._schedule(asker)
        self.fates.sent += self._load.demand.measured(start)
        self._load.ask(self, asker, start, self._next(asker))

    def _leave(self, asker: Asker) -> None:
        """Closed loop: a client that waits for nothing sends its next command."""
        load = self._load
        start = load.world.now - load.zero
        if start >= load.demand.length_s * 1e6:
            return
        self.fates.sent += load.demand.measured(start)
        when = load.world.now + self.home.there_us
        load.world.at(when, load.ask, self, asker, start, self._next(asker))

    def failed(
        self, asker: Asker, start: Micros, command: Command, code: str, *, definite: bool
    ) -> None:
        """A command that started then was refused, or nobody knows its fate."""
        self.keep_failed(asker, start, command, definite=definite)
        if self._load.demand.measured(start):
            self.fates.fail(code, definite)
        self.settled(asker, PAUSE_US)

    def settled(self, asker: Asker, pause_us: Micros) -> None:
        """A client waits for nothing any more, and in a closed loop goes on after a pause."""
        if self._load.demand.clients:
            world = self._load.world
            world.at(world.now + self.home.back_us + pause_us, self._leave, asker)


def measure_virtual(
    cluster: VirtualCluster, load: VirtualLoad, watch: Callable[[float], None]
) -> Measured:
    """Let a load run to its end; `watch` hears which share of it is done."""
    world = cluster.world
    before, begun = cluster.costs(0), world.now
    for part in range(_SLICES):
        watch(part / _SLICES)
        world.run(begun + load.length_us * (part + 1) // _SLICES)
    result = load.result()
    world.run(world.now + round(SETTLE_S * 1e6))
    after = cluster.costs(load.answered)
    window_s = load.demand.duration_s + COOLDOWN_S + SETTLE_S
    watch(1.0)
    return Measured(
        result,
        (cluster.sync_us,) * cluster.topology.n,
        Costs(
            commands=after.commands,
            messages=after.messages - before.messages,
            octets=after.octets - before.octets,
            syncs=after.syncs - before.syncs,
            cpu_s=None,
        ),
        None,
        tuple(
            answered((document(each, process.clock.local(world.now)) for each in kept), window_s)
            for process, kept in zip(
                world.processes, (each.latest(SAMPLES_KEPT) for each in world.samples)
            )
        ),
    )
