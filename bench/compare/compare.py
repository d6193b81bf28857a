"""The comparison: the same work through each protocol, over the same emulated regions.

One cluster per protocol and leader; in it one phase per workload, in sequence: the conflict rates
of the EPaxos paper, or one of another kind. All clusters get the same seed, hence the same commands
at the same intended starts. A phase is measured as measure.py says.

In virtual time simulated.py collects the same.

Rules of this file: it runs and collects. Figures are made in summary.py, judged in verdict.py and
written in record.py.
"""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.clusters.counters import (
    CLUSTER_S,
    COOLDOWN_S,
    LOAD_EXTRA_S,
    SYNC_MS,
    Costs,
    Machine,
    Measured,
    check_ranges,
    measure,
)
from bench.clusters.local import ClusterOptions, LocalCluster
from bench.load.samples import Demand, LoadResult
from bench.progress import ProgressClock, ProgressReport, Watch, ignore
from epaxos.core.errors import ConfigError, EpaxosError
from epaxos.core.types import REPLICAS_MAX
from epaxos.registry import find_protocol
from epaxos.workload import Conflict, Workload, parse_workload
from topology import Home, Topology, best_leader, own_homes, worst_leader


@dataclass(frozen=True)
class Options:
    """What is compared. Raises ConfigError."""

    topology: Topology
    protocols: tuple[str, ...] = ("epaxos", "multipaxos")
    leaders: tuple[str, ...] = ("best", "worst")
    """`best`, `worst` (closed form, mean over the regions with clients) or regions."""
    conflicts: tuple[float, ...] = (0.0, 2.0, 100.0)
    """Percent: one phase each."""
    workload: str = ""
    """Instead of the conflict rates: one phase of this, as `parse_workload` reads it."""
    rate: float = 50.0
    """Commands per second and region."""
    duration_s: float = 7.0
    """Measured per phase."""
    warmup_s: float = 1.5
    durability: str = "fsync"
    seed: int = 1
    gate: bool = True
    value_size: int = 16
    """This and the next two: of the conflict rates; a workload says its own."""
    put_share: float = 1.0
    shared_keys: int = 1
    patience_s: float = 5.0
    simulated: bool = False
    """In virtual time (simulated.py) instead of with real replicas."""
    sync_ms: float = SYNC_MS
    """Virtual time: how long every sync takes. Real replicas measure theirs."""
    jitter: bool = False
    """Virtual time: whether links vary as the topology says; emulated ones always do."""
    clients: tuple[Home, ...] = ()
    """Virtual time: where clients are; empty: in every region of the topology."""

    def __post_init__(self) -> None:
        if self.topology.n > REPLICAS_MAX:
            raise ConfigError(
                f"{self.topology.name} has {self.topology.n} regions; a cluster has at most "
                f"{REPLICAS_MAX}: name fewer, or --replicas 5"
            )
        names = [find_protocol(protocol).name for protocol in self.protocols]
        check_ranges(self)
        if self.durability not in ("fsync", "memory"):
            raise ConfigError(f"durability = {self.durability!r}: write fsync or memory")
        if not self.protocols or not (self.conflicts or self.workload):
            raise ConfigError("nothing to compare: name a protocol and a conflict rate or workload")
        for each in (names, self.conflicts):
            if len(set(each)) != len(each):
                raise ConfigError(f"{', '.join(map(str, each))}: one of them is named twice")
        if not self.simulated and (self.clients or self.jitter):
            raise ConfigError(
                "--clients and --jitter are for virtual time (real clients are beside their "
                "replica, emulated links always vary): add --simulated"
            )
        self.workloads()
        self.runs()

    @property
    def homes(self) -> tuple[Home, ...]:
        """Where the clients are, and which replica each asks."""
        return self.clients or own_homes(self.topology)

    def workloads(self) -> tuple[Workload, ...]:
        """What is asked for, phase by phase. Raises ConfigError."""
        if self.workload:
            regions = [home.region.name for home in self.homes]
            return (parse_workload(self.workload, self.seed, regions),)
        return tuple(
            Conflict(
                conflict,
                pool=self.shared_keys,
                puts=self.put_share,
                value_size=self.value_size,
                seed=self.seed,
            )
            for conflict in self.conflicts
        )

    def demand(self, workload: Workload) -> Demand:
        """A phase of it."""
        return Demand(
            workload=str(workload),
            seed=self.seed,
            rate=self.rate,
            warmup_s=self.warmup_s,
            duration_s=self.duration_s,
            cooldown_s=COOLDOWN_S,
            patience_us=round(self.patience_s * 1e6),
        )

    def runs(self) -> "list[Run]":
        """The clusters, in order. A leader that is best and worst at once is run once."""
        found: list[Run] = []
        for protocol in self.protocols:
            spec = find_protocol(protocol)
            if not spec.has_leader:
                found.append(Run(spec.name, protocol, None, ""))
                continue
            taken = set()
            for placement in self.leaders:
                leader = self._leader(placement)
                if leader not in taken:
                    taken.add(leader)
                    name = self.topology.regions[leader].name
                    found.append(Run(f"{spec.name}-{name}", protocol, leader, placement))
            if not taken:
                raise ConfigError(f"{protocol} needs a leader: best, worst or a region")
        return found

    def _leader(self, placement: str) -> int:
        asked = [home.replica for home in self.homes]
        if placement == "best":
            return best_leader(self.topology, asked=asked)
        if placement == "worst":
            return worst_leader(self.topology, asked=asked)
        return self.topology.index(placement)

    def estimate_s(self) -> float:
        """How long the whole takes."""
        return len(self.runs()) * (CLUSTER_S + len(self.workloads()) * self.phase_s)

    @property
    def phase_s(self) -> float:
        """How long one phase takes."""
        return self.warmup_s + self.duration_s + COOLDOWN_S + LOAD_EXTRA_S


@dataclass(frozen=True)
class Run:
    """One cluster of the comparison."""

    name: str
    """Unique in the comparison, like `multipaxos-CA`."""
    protocol: str
    leader: int | None
    """Index of the leader's region."""
    placement: str
    """What was asked for: best, worst, or a region; empty without a leader."""

    def label(self, topology: Topology) -> str:
        """Short name for people, like `MP @CA`."""
        spec = find_protocol(self.protocol)
        short = spec.short or spec.title
        return short if self.leader is None else f"{short} @{topology.regions[self.leader].name}"


@dataclass(frozen=True)
class Phase:
    """What one workload in one cluster gave; regions are those of `Options.homes`."""

    run: Run
    workload: Workload
    measured: Measured

    @property
    def load(self) -> LoadResult:
        """What the clients found."""
        return self.measured.load

    @property
    def sync_us(self) -> tuple[int, ...]:
        """Median duration of a sync, per replica."""
        return self.measured.sync_us

    @property
    def costs(self) -> Costs:
        """What the replicas did for it."""
        return self.measured.costs

    @property
    def machine(self) -> Machine | None:
        """How all kept up; None in virtual time."""
        return self.measured.machine


def compare(
    options: Options, directory: Path, watch: Watch[ProgressReport] = ignore
) -> list[Phase]:
    """Run everything; clusters keep their files in `directory`. Raises EpaxosError; whatever
    happens, no process is left."""
    phases: list[Phase] = []
    clock = ProgressClock(options.estimate_s(), watch)
    for run in options.runs():
        cluster_options = ClusterOptions(
            protocol=run.protocol,
            durability=options.durability,
            leader="" if run.leader is None else options.topology.regions[run.leader].name,
            seed=options.seed,
            gate=options.gate,
        )
        place = directory / run.name
        with LocalCluster(options.topology, place, cluster_options) as cluster:
            n = options.topology.n
            tell = partial(clock.tell, run.label(options.topology))
            tell(f"starting {n} replicas")
            cluster.start(
                lambda count: tell(f"starting {n} replicas", count / n, CLUSTER_S)  # noqa: B023 - now
            )
            clock.ended(run.label(options.topology), CLUSTER_S)
            phases += [
                _phase(options, run, workload, cluster, place, clock)
                for workload in options.workloads()
            ]
    return phases


def _phase(
    options: Options,
    run: Run,
    workload: Workload,
    cluster: LocalCluster,
    place: Path,
    clock: ProgressClock,
) -> Phase:
    what, activity = run.label(options.topology), workload.title
    clock.tell(what, activity)
    begun = time.monotonic()

    def poll() -> None:
        dead = [p for p in cluster.processes if not p.running]
        if dead:
            raise EpaxosError(f"the replica in {dead[0].region} ended: {dead[0].last_words()}")
        share = (time.monotonic() - begun) / options.phase_s
        clock.tell(what, activity, share, options.phase_s)

    measured = measure(cluster, options.demand(workload), place, poll)
    clock.ended(what, options.phase_s)
    return Phase(run, workload, measured)
