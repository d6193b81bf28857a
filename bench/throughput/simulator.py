"""How fast the simulator is: schedules per minute, virtual time per time, histories judged.

Three figures, each in the processor time of this one process, so that a neighbour on the machine
cannot lend or take speed except through caches and clocks:

- random fault schedules per minute and core: every kind of fault, every observer;
- virtual seconds per second: a healthy cluster under an open-loop load, every observer but the
  protocol's own invariants; commands that come alone, ten and a hundred to a request;
- seconds to judge a long history key by key, by the search alone.

Rules of this file: what is measured is what `epaxos sim run` runs, built the same way, in a process
whose collector is set as that of its workers (`epaxos.sim.soak.collect_rarely`, called by the
verb); a schedule that violates something is counted, never hidden.
"""

import gc
import random
import time
from dataclasses import dataclass
from typing import Final

import topology
from epaxos.core.command import Operation
from epaxos.core.errors import ConfigError
from epaxos.core.types import ReplicaId
from epaxos.sim.check.checkers import Violation
from epaxos.sim.check.linearizability import Op, Verdict, check_all, step, together
from epaxos.sim.clients import Clients, Commands
from epaxos.sim.open_loop import healthy, run_open_loop
from epaxos.sim.options import draw
from epaxos.sim.run import simulate
from epaxos.sim.world import World

REPLICAS: Final = 5
COMMANDS: Final = 60
"""Per schedule."""
SITES: Final = "aws-5-2020"
SCHEDULES_PER_MINUTE: Final = 600
"""Target, per core; 1,500 is hoped for."""
VIRTUAL_PER_REAL: Final = 10
"""Target, at `PER_SECOND` commands."""
PER_SECOND: Final = 1_000
"""Commands of the whole healthy cluster."""
HISTORY_S: Final = 10
"""Target for `HISTORY_OPS` over `HISTORY_KEYS`."""
HISTORY_OPS: Final = 100_000
HISTORY_KEYS: Final = 100
PER_REQUEST: Final = (1, 10, 100)
"""Commands of one request, in one load after the other."""
_LOAD_KEYS: Final = 1_000
_CLIENTS_PER_KEY: Final = 4
_LOST: Final = 0.02
"""Share of operations whose outcome the client does not learn."""


@dataclass(frozen=True)
class Schedules:
    """Random fault schedules, one after another."""

    protocol: str
    count: int
    violations: int
    commands: int
    """Answered in all."""
    cpu_s: float

    @property
    def per_minute(self) -> float:
        return 60 * self.count / self.cpu_s


@dataclass(frozen=True)
class Virtual:
    """A healthy cluster under load."""

    protocol: str
    sites: str
    per_second: float
    per_request: int
    """Commands that arrive together; each request is a batch of its own."""
    virtual_s: float
    sent: int
    answered: int
    """By the end of the load."""
    cpu_s: float

    @property
    def ratio(self) -> float:
        """Virtual seconds per second of one core."""
        return self.virtual_s / self.cpu_s


@dataclass(frozen=True)
class Judged:
    """A history given to the referee."""

    operations: int
    keys: int
    verdict: Verdict
    cpu_s: float


@dataclass(frozen=True)
class Speed:
    """All of them."""

    schedules: Schedules
    loads: tuple[Virtual, ...]
    """One per number of `PER_REQUEST`, in its order."""
    judged: Judged

    def rows(self) -> list[tuple[str, str, str]]:
        """Name, figure and target of each, for people."""
        schedules, judged = self.schedules, self.judged
        bad = f", {schedules.violations} VIOLATED" if schedules.violations else ""
        return [
            (
                f"fault schedules per minute and core ({schedules.protocol}, {REPLICAS} replicas, "
                f"{COMMANDS} commands, {schedules.count:,} schedules{bad})",
                f"{schedules.per_minute:,.0f}",
                f"≥ {SCHEDULES_PER_MINUTE:,}",
            ),
            *(
                (
                    f"virtual s per s ({virtual.protocol}, {virtual.sites}, "
                    f"{virtual.per_second:,g} commands/s, {virtual.per_request} per request, "
                    f"{virtual.answered:,} of {virtual.sent:,} answered)",
                    f"{virtual.ratio:,.1f}",
                    f"≥ {VIRTUAL_PER_REAL}",
                )
                for virtual in self.loads
            ),
            (
                f"seconds to judge {judged.operations:,} operations over {judged.keys:,} keys "
                f"({judged.verdict.value})",
                f"{judged.cpu_s:,.1f}",
                f"≤ {HISTORY_S}",
            ),
        ]


def measure(
    protocol: str = "epaxos",
    schedules: int = 200,
    virtual_s: float = 10,
    operations: int = HISTORY_OPS,
    keys: int = HISTORY_KEYS,
    first_seed: int = 1,
) -> Speed:
    """All figures, one after another."""
    return Speed(
        measure_schedules(protocol, schedules, first_seed),
        tuple(
            measure_virtual(protocol, virtual_s, first_seed, PER_SECOND, per_request)
            for per_request in PER_REQUEST
        ),
        measure_judging(operations, keys, first_seed),
    )


def measure_schedules(protocol: str, count: int, first_seed: int = 1) -> Schedules:
    """Run the schedules of so many seeds."""
    _at_least_one("schedules", count)
    violations = answered = 0
    start = time.process_time()
    for seed in range(first_seed, first_seed + count):
        try:
            answered += simulate(draw(seed, protocol, (REPLICAS,), COMMANDS)).answered
        except Violation:
            violations += 1
    return Schedules(protocol, count, violations, answered, _since(start))


def measure_virtual(
    protocol: str,
    virtual_s: float,
    seed: int = 1,
    per_second: float = PER_SECOND,
    per_request: int = 1,
) -> Virtual:
    """Every region writes at random keys at an equal share of the rate, for so long."""
    sites = topology.find(SITES, REPLICAS)
    active = round(virtual_s * 1e6)
    _at_least_one("virtual microseconds", active)
    options = healthy(sites, active, seed=seed, protocol=protocol, keys=_LOAD_KEYS)
    rng = random.Random(f"speed {seed}")

    def request(member: ReplicaId, number: int) -> Commands:
        return [
            (
                Operation.PUT,
                b"k%d" % rng.randrange(_LOAD_KEYS),
                b"%d.%d.%d" % (member, number, index),
            )
            for index in range(per_request)
        ]

    gc.collect()  # What earlier measurements left behind is not this one's to look through.
    start = time.process_time()
    world = World(options)
    clients = Clients(world, _LOAD_KEYS, options.patience_us)
    run_open_loop(world, clients, rng, per_second / per_request / sites.n, request)
    calls = clients.calls
    answered = sum(call.returned is not None for call in calls)
    return Virtual(
        protocol,
        sites.name,
        per_second,
        per_request,
        virtual_s,
        len(calls),
        answered,
        _since(start),
    )


def measure_judging(operations: int, keys: int, seed: int = 1) -> Judged:
    """Judge true histories, so that the referee has to find an order for each key."""
    _at_least_one("keys", keys)
    rng = random.Random(f"histories {seed}")
    histories = {
        b"k%d" % key: make_history(rng, operations // keys + (key < operations % keys))
        for key in range(keys)
    }
    start = time.process_time()
    verdict = together(check_all(histories).values())
    return Judged(operations, keys, verdict, _since(start))


def make_history(
    rng: random.Random, operations: int, clients: int = _CLIENTS_PER_KEY, lost: float = _LOST
) -> list[Op]:
    """What clients saw that kept one key busy, each with one operation open at a time. Each took
    effect at one moment between call and return, half of the lost ones never."""
    free = [0] * clients
    intervals: list[tuple[float, int, int]] = []
    for _ in range(operations):
        client = free.index(min(free))
        called = free[client] + rng.randrange(3)
        returned = called + rng.randrange(1, 40)
        free[client] = returned + 1
        intervals.append((rng.uniform(called, returned), called, returned))
    intervals.sort()
    state: bytes | None = None
    ops: list[Op] = []
    for number, (_, called, returned) in enumerate(intervals):
        kind = rng.choices(("get", "put", "delete", "cas"), (8, 8, 1, 3))[0]
        value = b"%d" % number if kind in ("put", "cas") else None
        expect = rng.choice((state, b"%d" % number)) if kind == "cas" else None
        op = Op(kind, value, expect, called, None, None)
        is_lost = rng.random() < lost
        if not is_lost or rng.random() < 0.5:
            result, state = step(state, op)
            op = op if is_lost else op._replace(returned=returned, result=result)
        ops.append(op)
    return ops


def _at_least_one(what: str, number: int) -> None:
    if number < 1:
        raise ConfigError(f"{number} {what}: at least one is needed")


def _since(start: float) -> float:
    """Never zero: a figure may be divided by it."""
    return max(time.process_time() - start, 1e-9)
