"""What a load is made of: what is asked for, the samples that come back, what became of the rest.

Rules of this file: data only. Real clients (client.py) and virtual ones fill it, analysis reads it.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from epaxos.core.command import Operation
from epaxos.core.types import Micros, replica_name
from epaxos.percentile import count_percentiles
from epaxos.workload import Workload, parse_workload

OPEN: Final = "open"
CLOSED: Final = "closed"


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
    history: str = ""
    """The file in which calls are kept, with values that are all unlike; empty: none is kept."""
    initial: str = ""
    """What that file says of the time before (`bench.history.calls`)."""

    @classmethod
    def of(
        cls, demand: Demand, targets: list[Target], history: str = "", initial: str = ""
    ) -> "Spec":
        """The same demand, at these replicas."""
        asked = msgspec.structs.asdict(demand)
        return cls(targets=targets, history=history, initial=initial, **asked)


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
    operation: int = Operation.PUT
    """`Operation` of the command: reads do not conflict with reads."""

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
    """A small distribution, in µs; None without samples."""

    count: int = 0
    p50_us: int | None = None
    p99_us: int | None = None
    max_us: int | None = None


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the load process found."""

    loop: str = OPEN
    """`open` or `closed`: whether latencies count from intended starts or from actual sends."""
    samples: list[Sample]
    fates: list[Fates]
    """Per target."""
    hop_us: list[int]
    """Per target: median round trip of a greeting, the client's own hop."""
    unreachable: list[str]
    """Per target: why it could not be reached at first; empty: it could."""
    disconnects: list[int]
    """Per target: how many times its connection was lost."""
    start_error: Spread
    """How late commands were sent, against their intended start."""
    loop_lag: Spread
    """How late this process's event loop was."""
    cpu_share: float
    """CPU time over wall time, of one core."""
    wall_s: float


def spread(counts: Mapping[int, int]) -> Spread:
    """The summary of counts per bucket of µs."""
    return Spread(sum(counts.values()), *count_percentiles(counts, (50, 99, 100)))
