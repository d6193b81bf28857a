"""The clients of all regions, in one process of its own: open loop over the binary client port.

One connection per region, to the replica there. A command's intended start is what the arrival
process said; its latency counts from then, however late this process was. What begins in the
warm-up or in the cool-down is sent, and cut from the figures.

    commit latency = answer latency - (execute_us - commit_us)

where the two are what the replica measured of the command. `python -m bench.load SPEC RESULT` reads
a `Spec` and writes a `LoadResult`, both JSON.

Rules of this file: it only measures; what the figures mean stands in statistics.py and verdict.py.
It measures itself too: how late it sent, how late its loop was, how much CPU it took.
"""

import asyncio
import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast

import msgspec
from hdrh.histogram import HdrHistogram

from bench.spawn import spawn
from bench.workload import Command, Workload, parse_workload
from epaxos.codec import (
    PROTOCOL_VERSION,
    ClientAnswer,
    ClientHello,
    ClientRefusal,
    ClientRequest,
    ServerHello,
    decode_client,
    encode_frame,
)
from epaxos.core.errors import CodecError, EpaxosError
from epaxos.core.types import Micros, replica_name
from epaxos.runtime.alarm import LATENESS_US, Alarm, clock
from epaxos.runtime.framing import FrameBuffer

HOP_PROBES: Final = 20
"""Greetings per replica, for the median of a client's hop."""
LAG_PERIOD_US: Final = 20_000
OPEN: Final = "open"
CLOSED: Final = "closed"
UNREACHABLE: Final = "unreachable"
"""Why a command surely did not happen: there was no connection to send it on."""
CONNECTION_LOST: Final = "connection-lost"
"""Why a command may have happened: its connection ended before the answer."""
STAGGER_US: Final = 100_000
"""Closed loop: the clients of a region begin one after the other within so long."""
PAUSE_US: Final = 100_000
"""Closed loop: from a failure until that client's next command."""
_LEAD_US: Final = 100_000
"""From the decision to begin until the first moment of the arrival process."""
_GRACE_S: Final = 2.0
"""How long after the last patience an answer may still come."""
_ANSWER_BYTES_MAX: Final = 32 * 1024 * 1024


class Target(msgspec.Struct, frozen=True):
    """Where the clients of one region send."""

    region: str
    port: int
    """Client port of its replica, on 127.0.0.1."""


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What the clients of every region ask for, and how long."""

    workload: str
    """As `parse_workload` reads it: it is written down for the load process."""
    seed: int = 1
    rate: float
    """Open loop: commands per second and region."""
    clients: int = 0
    """Closed loop: clients per region, each with one command outstanding; 0: open loop."""
    warmup_s: float
    duration_s: float
    """What is measured, between warm-up and cool-down."""
    cooldown_s: float
    patience_us: Micros
    """How long a client waits for an answer."""

    def drawn(self, regions: Sequence[str]) -> Workload:
        """The workload, of clients in these regions. Raises ConfigError."""
        return parse_workload(self.workload, self.seed, regions)

    @property
    def length_s(self) -> float:
        """From the start of the load until no command is sent any more."""
        return self.warmup_s + self.duration_s + self.cooldown_s

    @property
    def first_us(self) -> Micros:
        """When what is measured begins, from the start of the load."""
        return round(self.warmup_s * 1e6)

    def measured(self, start: Micros) -> bool:
        """Whether a command that starts then counts."""
        return self.first_us <= start < self.first_us + round(self.duration_s * 1e6)


class Spec(Demand, frozen=True, kw_only=True):
    """What the load process is told."""

    targets: list[Target]

    @classmethod
    def of(cls, demand: Demand, targets: list[Target]) -> "Spec":
        """The same demand, at these replicas."""
        return cls(targets=targets, **msgspec.structs.asdict(demand))


class Sample(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One answered command."""

    region: int
    """Index of its target."""
    start_us: Micros
    """Intended start, from the start of the load."""
    commit_us: Micros
    """Commit latency."""
    answer_us: Micros
    """Answer latency."""
    path: int
    """`Path` by which its instance was decided."""
    replica: int
    """Column of its instance (0 in slot protocols)."""
    slot: int
    """Slot of its instance."""
    shared: int
    """Which of the shared keys it was on; -1: a key of its own."""
    measured: bool
    """False in warm-up and cool-down."""

    @property
    def instance(self) -> str:
        """Like `A.7`."""
        return f"{replica_name(self.replica)}.{self.slot}"


class Fates(msgspec.Struct):
    """What became of the commands of one region whose start was measured."""

    sent: int = 0
    answered: int = 0
    refused: int = 0
    """Surely not executed."""
    ambiguous: int = 0
    """May have been executed."""
    lost: int = 0
    """No answer at all."""
    codes: dict[str, int] = {}
    """Of the refused and the ambiguous."""

    def fail(self, code: str, definite: bool) -> None:
        """One command has failed."""
        self.codes[code] = self.codes.get(code, 0) + 1
        self.refused += definite
        self.ambiguous += not definite


class Spread(msgspec.Struct, frozen=True):
    """A small distribution, in µs."""

    count: int
    p50_us: int
    p99_us: int
    max_us: int


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the load process found."""

    loop: str = OPEN
    """`open` or `closed`: whether latencies count from intended starts or from actual sends."""
    samples: list[Sample]
    fates: list[Fates]
    """Per target."""
    hop_us: list[int]
    """Per target: median round trip of a greeting, the client's own hop."""
    start_error: Spread
    """How late commands were sent, against their intended start."""
    loop_lag: Spread
    """How late this process's event loop was."""
    cpu_share: float
    """CPU time over wall time, of one core."""
    wall_s: float


def spread(values: HdrHistogram) -> Spread:
    """The summary of a histogram of µs."""
    if not values.total_count:
        return Spread(0, 0, 0, 0)
    p50, p99 = (int(values.get_value_at_percentile(p)) for p in (50, 99))
    return Spread(int(values.total_count), p50, p99, int(values.get_max_value()))


class Connection(asyncio.BufferedProtocol):
    """One client connection; hands each answer on as it comes."""

    def __init__(self, on_frame: Any) -> None:
        self.greeted: asyncio.Future[ServerHello] = asyncio.get_running_loop().create_future()
        self.wire: asyncio.Transport | None = None
        self._buffer = FrameBuffer(_ANSWER_BYTES_MAX)
        self._on_frame = on_frame

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.wire = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer.space()

    def buffer_updated(self, nbytes: int) -> None:
        for body in self._buffer.cut(nbytes):
            frame = decode_client(body)
            if not isinstance(frame, ServerHello):
                self._on_frame(frame)
            elif not self.greeted.done():
                self.greeted.set_result(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self.wire = None
        if not self.greeted.done():
            self.greeted.set_exception(CodecError("the replica closed the connection"))


async def connect(
    port: int,
    on_frame: Any = lambda frame: None,
    make: Callable[[Any], Connection] = Connection,
) -> tuple[Connection, Micros]:
    """A greeted connection, and how long the greeting took."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: make(on_frame), "127.0.0.1", port)
    assert connection.wire is not None
    before = clock()
    connection.wire.write(encode_frame(ClientHello(PROTOCOL_VERSION, "")))
    await connection.greeted
    return connection, clock() - before


async def measure_hop(port: int) -> Micros:
    """Median round trip of a greeting: what lies between client and replica."""
    times = []
    for _ in range(HOP_PROBES):
        connection, took = await connect(port)
        assert connection.wire is not None
        connection.wire.abort()
        times.append(took)
        await asyncio.sleep(0.002)
    return round(statistics.median(times))


class _Region:
    """The clients of one region."""

    def __init__(self, load: "_Load", index: int, target: Target) -> None:
        spec = load.spec
        length = spec.warmup_s + spec.duration_s + spec.cooldown_s
        self.load = load
        self.index = index
        self.starts = load.workload.arrivals(target.region, spec.rate, length).tolist()
        self.fates = Fates()
        self.connection: Connection | None = None
        self.next = 0
        """Number of the next command on this connection."""
        self.open: dict[int, Command] = {}
        self._commands: Iterator[Command] = load.workload.commands(target.region, 0, self.starts)

    def send(self, start: Micros) -> None:
        """One command whose intended start has come."""
        command = next(self._commands)
        number = self.next
        self.next += 1
        self.open[number] = command
        if self.measured(start):
            self.fates.sent += 1
        wire = self.connection.wire if self.connection else None
        if wire is not None:
            wire.write(
                encode_frame(
                    ClientRequest(
                        number,
                        self.load.spec.patience_us,
                        bytes((command.operation,)),
                        [command.key],
                        [command.argument],
                    )
                )
            )

    def measured(self, start: Micros) -> bool:
        """Whether a command counts."""
        return self.load.first <= start < self.load.last

    def on_frame(self, frame: ClientAnswer | ClientRefusal) -> None:
        """An answer or a refusal."""
        now = clock() - self.load.zero
        if isinstance(frame, ClientAnswer):
            self._answered(frame, now)
            return
        for number in range(frame.first, frame.first + frame.count):
            del self.open[number]
            if not self.measured(self.starts[number]):
                continue
            self.fates.codes[frame.code] = self.fates.codes.get(frame.code, 0) + 1
            if frame.definite:
                self.fates.refused += 1
            else:
                self.fates.ambiguous += 1

    def _answered(self, frame: ClientAnswer, now: Micros) -> None:
        results = frame.results
        waited = frame.execute_us - frame.commit_us
        for number in range(frame.first, frame.first + results.count):
            command = self.open.pop(number)
            start = self.starts[number]
            measured = self.measured(start)
            self.fates.answered += measured
            self.load.samples.append(
                Sample(
                    self.index,
                    start,
                    now - start - waited,
                    now - start,
                    frame.path,
                    results.replica,
                    results.slot,
                    command.shared,
                    measured,
                )
            )


class _Load:
    """All regions, and the alarm that stands for the next intended start."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.zero: Micros = 0
        self.first = round(spec.warmup_s * 1e6)
        self.last = self.first + round(spec.duration_s * 1e6)
        self.samples: list[Sample] = []
        self.workload = spec.drawn([target.region for target in spec.targets])
        self.regions = [_Region(self, i, target) for i, target in enumerate(spec.targets)]
        # All arrivals in one order: an alarm and an index are all the schedule there is.
        self._plan = sorted((at, r.index) for r in self.regions for at in r.starts)
        self._at = 0
        self._errors = HdrHistogram(1, 60_000_000, 3)
        self._lags = HdrHistogram(1, 60_000_000, 3)
        loop = asyncio.get_running_loop()
        self._alarm = Alarm(loop, self._send_due)
        self._lag_alarm = Alarm(loop, self._measure_lag)
        self._lag_due: Micros = 0
        self._sent_all: asyncio.Future[None] = loop.create_future()

    async def run(self) -> LoadResult:
        """Connect, load, wait for the last answers."""
        hops = [await measure_hop(target.port) for target in self.spec.targets]
        for region, target in zip(self.regions, self.spec.targets):
            region.connection, _ = await connect(target.port, region.on_frame)
        gc.collect()
        gc.freeze()
        before, wall = time.process_time(), time.monotonic()
        self.zero = clock() + _LEAD_US
        self._lag_due = self.zero
        self._lag_alarm.set(self._lag_due)
        self._arm()
        await self._sent_all
        await self._drain()
        wall_s = time.monotonic() - wall
        cpu_share = (time.process_time() - before) / wall_s
        self._alarm.close()
        self._lag_alarm.close()
        for region in self.regions:
            region.fates.lost = sum(region.measured(region.starts[n]) for n in region.open)
            if region.connection and region.connection.wire:
                region.connection.wire.abort()
        return LoadResult(
            samples=self.samples,
            fates=[region.fates for region in self.regions],
            hop_us=hops,
            start_error=spread(self._errors),
            loop_lag=spread(self._lags),
            cpu_share=cpu_share,
            wall_s=wall_s,
        )

    async def _drain(self) -> None:
        limit = clock() + self.spec.patience_us + round(_GRACE_S * 1e6)
        # Polled, so that nothing on the way of an answer has to look for the end.
        while clock() < limit and self._waiting():  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    def _waiting(self) -> bool:
        return any(r.open and r.connection and r.connection.wire for r in self.regions)

    def _send_due(self) -> None:
        plan, at = self._plan, self._at
        now = clock() - self.zero
        while at < len(plan) and plan[at][0] <= now + LATENESS_US:
            start, index = plan[at]
            self.regions[index].send(start)
            at += 1
            self._errors.record_value(max(1, clock() - self.zero - start))
        self._at = at
        self._arm()

    def _arm(self) -> None:
        if self._at < len(self._plan):
            self._alarm.set(self.zero + self._plan[self._at][0])
        elif not self._sent_all.done():
            self._sent_all.set_result(None)

    def _measure_lag(self) -> None:
        now = clock()
        self._lags.record_value(max(1, now - self._lag_due))
        self._lag_due = now + LAG_PERIOD_US
        self._lag_alarm.set(self._lag_due)


async def run_load(spec: Spec) -> LoadResult:
    """Drive the load in the present event loop."""
    return await _Load(spec).run()


class LoadProcess:
    """The load in a process of its own; `with` ends it whatever happens."""

    def __init__(self, spec: Spec, directory: Path) -> None:
        self._result = directory / "load-result.json"
        path = directory / "load.json"
        path.write_bytes(msgspec.json.encode(spec))
        self._result.unlink(missing_ok=True)
        self._process = spawn(
            [sys.executable, "-m", "bench.load", str(path), str(self._result)],
            stderr=subprocess.PIPE,
        )

    def done(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def result(self) -> LoadResult:
        """Wait for the end. Raises EpaxosError with what it said if it failed."""
        _, said = self._process.communicate()
        if self._process.returncode:
            lines = said.decode(errors="replace").strip().splitlines() or ["it said nothing"]
            raise EpaxosError(f"the load process failed: {lines[-1]}")
        return msgspec.json.decode(self._result.read_bytes(), type=LoadResult)

    def __enter__(self) -> "LoadProcess":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        with suppress(ValueError):  # its pipe was read to the end already
            self._process.communicate()


def main() -> None:
    """Entry point of the load process."""
    import uvloop

    spec = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Spec)
    result = uvloop.run(run_load(spec))
    Path(sys.argv[2]).write_bytes(msgspec.json.encode(result))


if __name__ == "__main__":
    main()
