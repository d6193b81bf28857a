"""The clients of all regions, in one process of its own, over the binary client port.

One connection per region, to the replica there. In an open loop a command's intended start is what
the arrival process said; its latency counts from then, however late this process was. In a closed
loop each client sends its next command as soon as the last one is answered, and latency counts from
that send: whoever is slow is asked less. What begins in the warm-up or in the cool-down is sent,
and cut from the figures.

    commit latency = answer latency - (execute_us - commit_us)

where the two are what the replica measured of the command. `python -m bench.load.client SPEC
RESULT` reads a `Spec` and writes a `LoadResult`, both JSON; on stdout it says when the load starts.

Rules of this file: it only measures; what the figures mean stands in analysis and compare.verdict.
It measures itself too: how late it sent, how late its loop was, how much CPU it took.
"""

import asyncio
import gc
import select
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from bench.history.calls import HistoryWriter, UnlikeValues, new_label
from bench.load.connection import Connection, connect, measure_hop
from bench.load.samples import CLOSED, OPEN, Fates, LoadResult, Sample, Spec, Target, spread
from bench.spawn import spawn
from epaxos.codec import ClientAnswer, ClientRefusal, ClientRequest, encode_frame
from epaxos.core.errors import CodecError, EpaxosError
from epaxos.core.types import Micros
from epaxos.percentile import Counts, bucket
from epaxos.runtime.alarm import LATENESS_US, Alarm, clock
from epaxos.workload import Asker, Command

LAG_PERIOD_US: Final = 20_000
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
_RECONNECT_S: Final = 0.05
"""Between two attempts to reach a replica."""


class _RegionClients:
    """The clients of one region, over one connection. One that ends is made again as soon as the
    replica is there; what waited on it may have happened, what comes meanwhile did not."""

    def __init__(self, load: "_Load", index: int, target: Target) -> None:
        spec = load.spec
        self.load = load
        self.index = index
        self.port = target.port
        self.starts: list[Micros] = []
        """Open loop: intended starts."""
        self.fates = Fates()
        self.hop_us: Micros = 0
        self.unreachable = ""
        self.disconnects = 0
        self.open: dict[int, tuple[Micros, Command, Asker, Micros]] = {}
        """What waits for an answer on this connection, by number: start, command, whose, and for a
        history the moment at which it was called."""
        self._unlike = UnlikeValues(load.label, index)
        self._next = 0
        """Number of the next command on this connection."""
        self._connection: Connection | None = None
        self._reconnecting: asyncio.Task[None] | None = None
        name, workload, starts = target.region, load.workload, iter(load.now, None)
        if not spec.clients:
            self.starts = workload.arrivals(name, spec.rate, spec.length_s).tolist()
            starts = iter(self.starts)
        self.askers = [
            Asker(workload.commands(name, number, starts)) for number in range(spec.clients or 1)
        ]
        """Closed loop: the clients; open loop: one for all."""
        self._names = {asker: f"{name}.{number}" for number, asker in enumerate(self.askers)}

    async def connect(self) -> None:
        """Measure the hop and connect; where nobody is, keep trying."""
        try:
            self.hop_us = await measure_hop(self.port)
            await self._connect()
        except (OSError, CodecError) as error:
            self.unreachable = str(error)
            self._reconnecting = asyncio.create_task(self._reconnect())

    def close(self) -> None:
        if self._reconnecting is not None:
            self._reconnecting.cancel()
        if self._connection is not None:
            self._connection.close()

    async def _connect(self) -> None:
        make = partial(Connection, on_lost=self._lost)
        self._connection, _ = await connect(self.port, self._on_frame, make)
        self._next = 0

    def _lost(self) -> None:
        if self.load.ended:
            return
        self._connection = None
        self.disconnects += 1
        self._reconnecting = asyncio.create_task(self._reconnect())
        waiting = list(self.open.values())
        self.open.clear()
        for start, command, asker, called in waiting:
            self._failed(start, command, asker, called, CONNECTION_LOST, definite=False)

    async def _reconnect(self) -> None:
        while self._connection is None:
            await asyncio.sleep(_RECONNECT_S)
            with suppress(OSError, CodecError):
                await self._connect()

    def send(self, start: Micros, asker: Asker) -> None:
        """One command whose start has come."""
        spec = self.load.spec
        command = asker.next()
        called = 0
        if self.load.history is not None:
            argument = self._unlike.argument(command.operation, command.argument)
            command, called = command._replace(argument=argument), clock()
        self.fates.sent += spec.measured(start)
        wire = self._connection.wire if self._connection else None
        if wire is None:
            self._failed(start, command, asker, called, UNREACHABLE, definite=True)
            return
        number = self._next
        self._next += 1
        self.open[number] = (start, command, asker, called)
        operation = bytes((command.operation,))
        wire.write(
            encode_frame(
                ClientRequest(
                    number, spec.patience_us, operation, [command.key], [command.argument]
                )
            )
        )

    def leave(self, asker: Asker) -> None:
        """Closed loop: a client that waits for nothing sends its next command."""
        now = self.load.now()
        if now < self.load.spec.length_s * 1e6:
            self.send(now, asker)

    def _settled(self, asker: Asker, pause_us: Micros = 0) -> None:
        """A client waits for nothing any more, and in a closed loop goes on after a pause."""
        if not self.load.spec.clients:
            return
        if pause_us:
            asyncio.get_running_loop().call_later(pause_us / 1e6, self.leave, asker)
        else:
            self.leave(asker)

    def _failed(
        self,
        start: Micros,
        command: Command,
        asker: Asker,
        called: Micros,
        code: str,
        *,
        definite: bool,
    ) -> None:
        if self.load.spec.measured(start):
            self.fates.fail(code, definite)
        self._keep_failed(command, asker, called, definite=definite)
        self._settled(asker, PAUSE_US)

    def _keep_failed(
        self, command: Command, asker: Asker, called: Micros, *, definite: bool
    ) -> None:
        history, name = self.load.history, self._names[asker]
        if history is not None:
            operation, key, argument = command.operation, command.key, command.argument
            history.failed(name, operation, key, argument, called, definite=definite)

    def end(self) -> None:
        """Nobody waits any more: what has no answer may have happened, or may still."""
        for start, command, asker, called in self.open.values():
            self.fates.lost += self.load.spec.measured(start)
            self._keep_failed(command, asker, called, definite=False)
        self.close()

    def _on_frame(self, frame: ClientAnswer | ClientRefusal) -> None:
        if isinstance(frame, ClientAnswer):
            self._answered(frame, self.load.now())
            return
        for number in range(frame.first, frame.first + frame.count):
            start, command, asker, called = self.open.pop(number)
            self._failed(start, command, asker, called, frame.code, definite=frame.definite)

    def _answered(self, frame: ClientAnswer, now: Micros) -> None:
        results, history = frame.results, self.load.history
        waited = frame.execute_us - frame.commit_us
        for index, number in enumerate(range(frame.first, frame.first + results.count)):
            start, command, asker, called = self.open.pop(number)
            if history is not None:
                name, operation = self._names[asker], command.operation
                key, argument, at = command.key, command.argument, self.load.zero + now
                history.answered(name, operation, key, argument, called, at, results, index)
            measured = self.load.spec.measured(start)
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
                    command.operation,
                )
            )
            if self.load.spec.clients:
                asker.heard(command, results, index)
            self._settled(asker)


class _Load:
    """All regions, and in an open loop the alarm that stands for the next intended start."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.zero: Micros = 0
        self.ended = False
        self.history = HistoryWriter(Path(spec.history), spec.initial) if spec.history else None
        self.label = new_label()
        self.workload = spec.drawn([target.region for target in spec.targets])
        self.samples: list[Sample] = []
        self.regions = [_RegionClients(self, i, target) for i, target in enumerate(spec.targets)]
        # All arrivals in one order: an alarm and an index are all the schedule there is.
        self._plan = sorted((at, r.index) for r in self.regions for at in r.starts)
        self._at = 0
        self._errors: Counts = defaultdict(int)
        self._lags: Counts = defaultdict(int)
        loop = asyncio.get_running_loop()
        self._alarm = Alarm(loop, self._send_due)
        self._lag_alarm = Alarm(loop, self._measure_lag)
        self._lag_due: Micros = 0
        self._sent_all: asyncio.Future[None] = loop.create_future()

    def now(self) -> Micros:
        """Since the start of the load."""
        return clock() - self.zero

    async def run(self, on_begin: Callable[[Micros], None]) -> LoadResult:
        """Connect, load, wait for the last answers."""
        for region in self.regions:
            await region.connect()
        gc.collect()
        gc.freeze()
        before, wall = time.process_time(), time.monotonic()
        self.zero = clock() + _LEAD_US
        on_begin(self.zero)
        self._lag_due = self.zero
        self._lag_alarm.set(self._lag_due)
        if self.spec.clients:
            await self._run_closed()
        else:
            self._arm()
            await self._sent_all
        await self._drain()
        wall_s = time.monotonic() - wall
        cpu_share = (time.process_time() - before) / wall_s
        self.ended = True
        self._alarm.close()
        self._lag_alarm.close()
        for region in self.regions:
            region.end()
        if self.history is not None:
            self.history.close()
        return LoadResult(
            loop=CLOSED if self.spec.clients else OPEN,
            samples=self.samples,
            fates=[region.fates for region in self.regions],
            hop_us=[region.hop_us for region in self.regions],
            unreachable=[region.unreachable for region in self.regions],
            disconnects=[region.disconnects for region in self.regions],
            start_error=spread(self._errors),
            loop_lag=spread(self._lags),
            cpu_share=cpu_share,
            wall_s=wall_s,
        )

    async def _run_closed(self) -> None:
        """Let all clients begin, and wait until none sends any more."""
        loop, count = asyncio.get_running_loop(), self.spec.clients
        for region in self.regions:
            for client, asker in enumerate(region.askers):
                begin_us = _LEAD_US + STAGGER_US * client // count
                loop.call_later(begin_us / 1e6, region.leave, asker)
        await asyncio.sleep(_LEAD_US / 1e6 + self.spec.length_s)

    async def _drain(self) -> None:
        limit = clock() + self.spec.patience_us + round(_GRACE_S * 1e6)
        # Polled, so that nothing on the way of an answer has to look for the end.
        while clock() < limit and any(region.open for region in self.regions):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    def _send_due(self) -> None:
        plan, at = self._plan, self._at
        now = self.now()
        while at < len(plan) and plan[at][0] <= now + LATENESS_US:
            start, index = plan[at]
            region = self.regions[index]
            region.send(start, region.askers[0])
            at += 1
            self._errors[bucket(max(0, self.now() - start))] += 1
        self._at = at
        self._arm()

    def _arm(self) -> None:
        if self._at < len(self._plan):
            self._alarm.set(self.zero + self._plan[self._at][0])
        elif not self._sent_all.done():
            self._sent_all.set_result(None)

    def _measure_lag(self) -> None:
        now = clock()
        self._lags[bucket(max(0, now - self._lag_due))] += 1
        self._lag_due = now + LAG_PERIOD_US
        self._lag_alarm.set(self._lag_due)


async def run_load(
    spec: Spec, on_begin: Callable[[Micros], None] = lambda zero_us: None
) -> LoadResult:
    """Drive the load in the present event loop. `on_begin` hears when it starts, by the machine's
    monotonic clock."""
    return await _Load(spec).run(on_begin)


class LoadProcess:
    """The load in a process of its own; `with` ends it whatever happens."""

    def __init__(self, spec: Spec, directory: Path) -> None:
        self._result = directory / "load-result.json"
        path = directory / "load.json"
        path.write_bytes(msgspec.json.encode(spec))
        self._result.unlink(missing_ok=True)
        self._process = spawn(
            [sys.executable, "-m", "bench.load.client", str(path), str(self._result)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._zero_us: Micros | None = None

    def done(self) -> bool:
        return self._process.poll() is not None

    def zero_us(self) -> Micros | None:
        """When the load starts, by the machine's monotonic clock; None: it does not say yet."""
        assert self._process.stdout is not None
        if self._zero_us is None and select.select([self._process.stdout], [], [], 0)[0]:
            said = self._process.stdout.readline()
            self._zero_us = int(said) if said else None
        return self._zero_us

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
    result = uvloop.run(run_load(spec, partial(print, flush=True)))
    Path(sys.argv[2]).write_bytes(msgspec.json.encode(result))


if __name__ == "__main__":
    main()
