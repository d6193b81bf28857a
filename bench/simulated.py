"""The comparison in virtual time: the same replicas' code and the same work, no machine in between.

One world (`epaxos.sim.world`) per protocol and leader; in it one phase per conflict rate, as in
compare.py. Links take what the topology says, if wanted with its jitter; every sync takes
`Options.sync_ms`; computing takes nothing.
Clients send the commands of workload.py at their intended starts, and may live in regions without a
replica: then they ask the nearest, and their round trip to it, which never varies, is part of their
latency.

Rules of this file: it runs and collects, like compare.py. The same options give the same samples,
however many processes share the work. The simulator's observers are left out: whether a protocol is
safe is asked elsewhere.
"""

import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import count
from queue import SimpleQueue
from threading import Lock
from typing import Any, Final, cast

from bench.compare import COOLDOWN_S, SETTLE_S, Costs, Options, Phase, Progress, Run, Watch
from bench.load import Fates, LoadResult, Sample, Spread
from bench.spawn import spawn
from bench.workload import Command
from epaxos.codec import FRAME_HEADER
from epaxos.core.errors import Definite, EpaxosError
from epaxos.core.replica import Message
from epaxos.core.types import Micros, ReplicaId
from epaxos.exchange import Refusal, Reply, Request
from epaxos.runtime.transport import encode_stamp
from epaxos.sim.checkers import DecisionChecker, ExecutionChecker
from epaxos.sim.network import Network
from epaxos.sim.options import Faults, delays_of
from epaxos.sim.options import Options as WorldOptions
from epaxos.sim.watch import ProtocolWatch
from epaxos.sim.world import World
from topology import Home

_LEAD_US: Final = 100_000
"""From the moment all replicas are ready until the first moment of the arrival process."""
_READY_WITHIN_US: Final = 60_000_000
_GRACE_US: Final = 2_000_000
"""How long after the last patience an answer may still come."""
_SLICES: Final = 40
"""How often in a phase somebody is told how far it is."""
_STAMP_BYTES: Final = len(encode_stamp(0))
"""What real replicas send with each write over an emulated link."""
_NONE: Final = Spread(0, 0, 0, 0)

Tell = Callable[[float, float], None]
"""Where a run stands: the conflict rate, and how much of its phase is done."""


def compare(
    options: Options, watch: Watch = lambda progress: None, workers: int = 1
) -> list[Phase]:
    """Run everything, in so many processes. Raises EpaxosError; whatever happens, none is left."""
    runs = options.runs()
    clock = _Clock(options, runs, watch)
    workers = min(workers, len(runs))
    if workers < 2:
        return [phase for run in runs for phase in _run(options, run, partial(clock.tell, run))]
    phases: list[Phase] = []
    with _Workers(options, workers, clock) as ask, ThreadPoolExecutor(workers) as threads:
        try:
            for found in threads.map(ask, runs):
                phases += found
        except BaseException:
            ask.stop()  # else the threads would wait for them
            raise
    return phases


class _Clock:
    """Tells how far all is, and estimates from what it took so far."""

    def __init__(self, options: Options, runs: list[Run], watch: Watch) -> None:
        self._conflicts = options.conflicts
        self._done = dict.fromkeys((run.name for run in runs), 0.0)
        """Share of each run."""
        self._watch = watch
        self._begun = time.monotonic()
        self._lock = Lock()

    def tell(self, run: Run, conflict: float, share: float) -> None:
        """`share` of a phase is done, and the phases before it."""
        with self._lock:
            done, count = self._done, len(self._conflicts)
            done[run.name] = (self._conflicts.index(conflict) + share) / count
            total = sum(done.values()) / len(done)
            spent_s = time.monotonic() - self._begun
            left_s = spent_s * (1 - total) / max(total, 0.01)
            self._watch(Progress(run, f"{conflict:g} % conflicts", share, total, left_s))


def _run(options: Options, run: Run, tell: Tell) -> list[Phase]:
    cluster = _Cluster(options, run)
    tell(options.conflicts[0], 0.0)
    cluster.start()
    return [_phase(options, run, conflict, cluster, tell) for conflict in options.conflicts]


def _phase(options: Options, run: Run, conflict: float, cluster: "_Cluster", tell: Tell) -> Phase:
    world = cluster.world
    load = _Load(options, conflict, cluster)
    before, begun = cluster.costs(0), world.now
    for part in range(_SLICES):
        tell(conflict, part / _SLICES)
        world.run(begun + load.length_us * (part + 1) // _SLICES)
    result = load.result()
    world.run(world.now + round(SETTLE_S * 1e6))
    after = cluster.costs(load.answered)
    tell(conflict, 1.0)
    return Phase(
        run,
        conflict,
        result,
        (cluster.sync_us,) * options.topology.n,
        Costs(
            commands=after.commands,
            messages=after.messages - before.messages,
            octets=after.octets - before.octets,
            syncs=after.syncs - before.syncs,
            cpu_s=None,
        ),
        None,
    )


# Several processes -----------------------------------------------------------------------------

_Said = tuple[float, float] | list[Phase] | EpaxosError
"""What a worker says of a run: where it stands, and in the end what it gave."""


class _Workers:
    """Processes of this module, each of which works on one run at a time."""

    def __init__(self, options: Options, count: int, clock: _Clock) -> None:
        self._options = options
        self._count = count
        self._clock = clock
        self._all: list[subprocess.Popen[bytes]] = []
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()

    def __call__(self, run: Run) -> list[Phase]:
        """Have an idle one do it. Raises EpaxosError."""
        worker = self._idle.get()
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            pickle.dump((self._options, run), worker.stdin)
            worker.stdin.flush()
            said: _Said = pickle.load(worker.stdout)
            while isinstance(said, tuple):
                self._clock.tell(run, *said)
                said = pickle.load(worker.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            raise EpaxosError("a process of the simulation ended before its answer") from None
        finally:
            self._idle.put(worker)
        if isinstance(said, EpaxosError):
            raise said
        return said

    def stop(self) -> None:
        """End them at once."""
        for worker in self._all:
            worker.kill()

    def __enter__(self) -> "_Workers":
        command = [sys.executable, "-m", "bench.simulated"]
        try:
            for _ in range(self._count):
                worker = spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                self._all.append(worker)
                self._idle.put(worker)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for worker in self._all:
            with suppress(OSError):  # what it did not read any more
                worker.communicate()


def main() -> None:
    """What a worker does: a pickled run in, what is said of it out, until there are no more."""

    def say(said: _Said) -> None:
        pickle.dump(said, sys.stdout.buffer)
        sys.stdout.buffer.flush()

    while True:
        try:
            options, run = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            say(_run(options, run, lambda conflict, share: say((conflict, share))))
        except EpaxosError as error:
            say(error)


# The cluster -----------------------------------------------------------------------------------


class _Cluster:
    """A world without observers, whose links are those of a topology."""

    def __init__(self, options: Options, run: Run) -> None:
        memory = options.durability == "memory"
        self.sync_us: Micros = 0 if memory else round(options.sync_ms * 1000)
        self.world = World(
            WorldOptions(
                seed=options.seed,
                protocol=run.protocol,
                replicas=options.topology.n,
                delays_us=delays_of(options.topology),
                jitter_us=0,
                faults=Faults(sync_us=(self.sync_us, self.sync_us)),
                memory=memory,
                gate=options.gate,
                leader=run.leader or 0,
                deep=False,
            )
        )
        self.world.decisions = cast("DecisionChecker", _Blind())
        self.world.executions = cast("ExecutionChecker", _Blind())
        self.world.watch = cast("ProtocolWatch", _Blind())
        self.numbers = count(1)
        """Of the commands of all phases: some may be answered in a later one."""
        self.links = _Links(self.world, options)
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


class _Blind:
    """In place of an observer: whatever it is told, it looks at nothing."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *told: object) -> None:
        pass


class _Links(Network):
    """Each link with its own jitter and loss, and with the bytes that real links add."""

    def __init__(self, world: World, options: Options) -> None:
        super().__init__(world)
        self.framing_bytes = 0
        self._clock = world
        self._topology = options.topology
        self._varies = options.jitter
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
        if not self._varies:
            return super()._delay(source, target)
        jitter_us = self._topology.jitter(source, target).sample(self._clock.random)
        return self._topology.one_way_us(source, target) + jitter_us


# The clients -----------------------------------------------------------------------------------


class _Load:
    """All clients of a phase."""

    def __init__(self, options: Options, conflict: float, cluster: _Cluster) -> None:
        length_s = options.warmup_s + options.duration_s + COOLDOWN_S
        self.world = world = cluster.world
        self.zero: Micros = world.now + _LEAD_US
        self.first = round(options.warmup_s * 1e6)
        self.last = self.first + round(options.duration_s * 1e6)
        self.length_us = _LEAD_US + round(length_s * 1e6)
        """From now until the last command was sent."""
        self.patience_us = round(options.patience_s * 1e6)
        self.samples: list[Sample] = []
        self.answered = 0
        """Commands, those of the warm-up included."""
        self.open: dict[int, tuple[_Region, Micros, Command]] = {}
        """What waits for an answer, by number: who asked, intended start, command."""
        self._numbers = cluster.numbers
        workload = options.workload(conflict)
        self._regions = [
            _Region(
                self,
                index,
                home,
                workload.arrivals(home.region.name, options.rate, length_s).tolist(),
                workload.commands(home.region.name),
            )
            for index, home in enumerate(options.homes)
        ]
        world.on_reply = self._on_reply
        for region in self._regions:
            region.schedule()

    def ask(self, region: "_Region", start: Micros, command: Command) -> None:
        """A command reaches the replica."""
        number = next(self._numbers)
        self.open[number] = (region, start, command)
        self.world.request(
            region.home.replica,
            Request(
                number,
                bytes((command.operation,)),
                [command.key],
                [command.argument],
                self.world.now + self.patience_us,
            ),
        )

    def measured(self, start: Micros) -> bool:
        """Whether a command counts."""
        return self.first <= start < self.last

    def _on_reply(self, reply: Reply | Refusal) -> None:
        found = self.open.pop(int(str(reply.waiter)), None)
        if found is None:
            return
        region, start, command = found
        fates, measured = region.fates, self.measured(start)
        if isinstance(reply, Refusal):
            if measured:
                fates.codes[reply.code] = fates.codes.get(reply.code, 0) + 1
                definite = isinstance(reply.error, Definite)
                fates.refused += definite
                fates.ambiguous += not definite
            return
        self.answered += 1
        fates.answered += measured
        now, results, flight = self.world.now, reply.results, reply.flight
        answer_us = now - self.zero - start + region.home.back_us
        waited_us = now - (flight.committed_at or now)
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
            )
        )

    def result(self) -> LoadResult:
        """Wait for the last answers."""
        begun = self.world.now
        self.world.run(begun + self.patience_us + _GRACE_US, lambda: not self.open)
        for region, start, _ in self.open.values():
            region.fates.lost += self.measured(start)
        return LoadResult(
            samples=self.samples,
            fates=[region.fates for region in self._regions],
            hop_us=[home.there_us + home.back_us for home in (r.home for r in self._regions)],
            start_error=_NONE,
            loop_lag=_NONE,
            cpu_share=0.0,
            wall_s=(self.world.now - self.zero) / 1e6,
        )


class _Region:
    """The clients of one region."""

    def __init__(
        self,
        load: _Load,
        index: int,
        home: Home,
        starts: list[Micros],
        commands: Iterator[Command],
    ) -> None:
        self.index = index
        self.home = home
        self.fates = Fates()
        self._load = load
        self._starts = iter(starts)
        self._commands = commands

    def schedule(self) -> None:
        """Let the next command leave at its intended start."""
        start = next(self._starts, None)
        if start is not None:
            when = self._load.zero + start + self.home.there_us
            self._load.world.at(when, partial(self._arrive, start))

    def _arrive(self, start: Micros) -> None:
        """The command that was to start then reaches the replica."""
        self.schedule()
        self.fates.sent += self._load.measured(start)
        self._load.ask(self, start, next(self._commands))


if __name__ == "__main__":
    main()
