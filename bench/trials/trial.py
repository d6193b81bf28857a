"""A trial: one cluster, one workload, one offered load, and what goes wrong meanwhile.

Sweeps, figures and demos are made of trials. The same trial runs with real replicas as processes
of this machine, or in virtual time.

Rules of this file: a trial is plain values, and everything in it is looked at before anything
starts; the same trial gives the same commands (in virtual time, the same outcome).
"""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import msgspec

from bench.analysis.conflicts import realised
from bench.analysis.validity import Findings
from bench.clusters.counters import (
    CLUSTER_S,
    COOLDOWN_S,
    LOAD_EXTRA_S,
    POLL_S,
    SETTLE_S,
    SYNC_MS,
    Costs,
    LoadMeter,
    Machine,
    Measured,
    Status,
    check_ranges,
    health,
    spec_for,
)
from bench.clusters.faults import Fault, Happened, plan_timeline
from bench.clusters.histories import KeptHistory, judge_real, judge_virtual
from bench.clusters.inject import RealFaults, plan_virtual
from bench.clusters.local import ClusterOptions, LocalCluster, LocalReplica
from bench.clusters.virtual import VirtualCluster, VirtualLoad, measure_virtual
from bench.history.calls import HistoryWriter
from bench.history.judge import HistoryVerdict
from bench.load.client import LoadProcess
from bench.load.samples import Demand, LoadResult
from epaxos.core.errors import ConfigError, EpaxosError
from epaxos.core.types import REPLICAS_MAX
from epaxos.node.requests import Limits
from epaxos.registry import find_protocol
from epaxos.runtime.alarm import clock
from epaxos.workload import Workload
from topology import (
    DEFAULT,
    Home,
    Topology,
    TopologyError,
    best_leader,
    find,
    find_homes,
    own_homes,
    worst_leader,
)

CLIENTS_MAX: Final = 10_000
ONE_ROOM_US: Final = 1_000
"""Up to this round trip, replicas stand in one room."""
_STEP_S: Final = 0.8e-3
"""What a command in virtual time takes with five replicas, for the estimate."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is run. Raises ConfigError that names the setting that is wrong."""

    protocol: str = "epaxos"
    topology: str = DEFAULT
    """A name or a file."""
    replicas: int | None = None
    """Cuts the topology down to so many regions."""
    leader: str = "best"
    """`best`, `worst` (closed form, mean over the regions with clients) or a region; ignored by
    protocols without a leader."""
    workload: str = "conflict:0"
    rate: float = 50.0
    """Open loop: commands per second and region (Poisson); 0: closed loop."""
    clients: int = 0
    """Closed loop: clients per region, each with one command outstanding; 0: open loop."""
    warmup_s: float = 1.5
    duration_s: float = 7.0
    """What is measured."""
    durability: str = "fsync"
    """`fsync` or `memory`."""
    gate: bool = True
    """False: contended keys are not held back (`--unsafe-no-gate`)."""
    batch_commands: int = Limits.batch_commands
    """The most commands in one batch."""
    faults: tuple[str, ...] = ()
    """The timeline, as in faults.py."""
    client_regions: tuple[str, ...] = ()
    """Virtual time: where clients are; empty: in every region of the topology."""
    patience_s: float = 5.0
    """How long a client waits for an answer."""
    check: bool = False
    """Whether the calls are kept, with values that are all unlike, and judged."""
    seed: int = 1
    simulated: bool = False
    """In virtual time instead of with real replicas."""
    sync_ms: float = SYNC_MS
    """Virtual time: how long every sync takes. Real replicas measure theirs."""
    jitter: bool = False
    """Virtual time: whether links vary as the topology says; emulated ones always do."""

    def __post_init__(self) -> None:
        for name in ("faults", "client_regions"):
            # Files have lists where a key of a dict must have tuples.
            object.__setattr__(self, name, tuple(getattr(self, name)))
        find_protocol(self.protocol)
        if self.sites.n > REPLICAS_MAX:
            raise ConfigError(
                f"topology = {self.topology!r} has {self.sites.n} regions; a cluster has at most "
                f"{REPLICAS_MAX}: name fewer, or set replicas to 5"
            )
        self._check_loop()
        check_ranges(self, ("duration_s", "warmup_s", "patience_s", "sync_ms"))
        if self.durability not in ("fsync", "memory"):
            raise ConfigError(f"durability = {self.durability!r}: write fsync or memory")
        if not 1 <= self.batch_commands <= 65_536:
            raise ConfigError(f"batch_commands = {self.batch_commands} must be from 1 to 65536")
        if not self.simulated and (self.client_regions or self.jitter):
            raise ConfigError(
                "client_regions and jitter are for virtual time (real clients are beside their "
                "replica, emulated links always vary): write simulated = true"
            )
        _ = self.leader_index, self.timeline, self.drawn

    def _check_loop(self) -> None:
        if self.clients:
            if self.rate:
                raise ConfigError(
                    f"rate = {self.rate:g} and clients = {self.clients}: write rate = 0 for a "
                    "closed loop, or clients = 0 for an open one"
                )
            if not 1 <= self.clients <= CLIENTS_MAX:
                raise ConfigError(f"clients = {self.clients} must be from 1 to {CLIENTS_MAX}")
        elif not self.rate:
            raise ConfigError("rate = 0 is a closed loop: write clients = 1 or more")
        else:
            check_ranges(self, ("rate",))

    @cached_property
    def sites(self) -> Topology:
        """The topology: one replica in each of its regions."""
        try:
            return find(self.topology, self.replicas)
        except TopologyError as error:
            raise ConfigError(f"topology = {self.topology!r}: {error}") from None

    @cached_property
    def homes(self) -> tuple[Home, ...]:
        """Where clients are, and which replica each asks."""
        if not self.client_regions:
            return own_homes(self.sites)
        try:
            return find_homes(self.topology, self.sites, self.client_regions)
        except TopologyError as error:
            raise ConfigError(f"client_regions: {error}") from None

    @cached_property
    def leader_index(self) -> int | None:
        """Region of the leader; None for protocols without."""
        if not find_protocol(self.protocol).has_leader:
            return None
        asked = [home.replica for home in self.homes]
        if self.leader in ("best", "worst"):
            place = best_leader if self.leader == "best" else worst_leader
            return place(self.sites, asked=asked)
        try:
            return self.sites.index(self.leader)
        except TopologyError as error:
            raise ConfigError(f"leader = {self.leader!r}: {error}, best or worst") from None

    @cached_property
    def demand(self) -> Demand:
        return Demand(
            workload=self.workload,
            seed=self.seed,
            rate=self.rate,
            clients=self.clients,
            warmup_s=self.warmup_s,
            duration_s=self.duration_s,
            cooldown_s=COOLDOWN_S,
            patience_us=round(self.patience_s * 1e6),
        )

    @cached_property
    def drawn(self) -> Workload:
        """The workload, of the clients where they are."""
        return self.demand.drawn([home.region.name for home in self.homes])

    @cached_property
    def timeline(self) -> tuple[Fault, ...]:
        """The faults, in order of time; those of a leader only where there is one."""
        found = plan_timeline(self.faults, self.sites, self.duration_s, self.durability)
        return tuple(
            each for each in found if each.kind != "leader" or self.leader_index is not None
        )

    @property
    def loop(self) -> str:
        """How load is offered, in words."""
        if self.clients:
            return f"closed loop, {self.clients} client{'s'[: self.clients > 1]} per region"
        return f"open loop (Poisson), {self.rate:g} commands/s per region"

    @property
    def saturates(self) -> bool:
        """Whether its clients ask for all that the machine can give: a closed loop in one room,
        where nothing is waited for but processors."""
        return bool(self.clients) and self.sites.longest_rtt_us <= ONE_ROOM_US

    @property
    def load_s(self) -> float:
        """How long it takes in a cluster that runs, for the estimate."""
        if not self.simulated:
            return self.demand.length_s + LOAD_EXTRA_S
        # A client's next command follows its last answer, some tenths of a second later.
        rate = self.rate or 8.0 * self.clients
        return len(self.homes) * self.sites.n * rate * self.demand.length_s * _STEP_S / 5

    @property
    def estimate_s(self) -> float:
        """How long it takes with a cluster of its own."""
        return self.load_s if self.simulated else CLUSTER_S + self.load_s


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a trial gave."""

    load: LoadResult
    regions: list[str]
    """Names of the regions with clients, in the order of `load.fates` and `Sample.region`."""
    sync_us: list[int]
    """Median duration of a sync, per replica."""
    costs: Costs
    machine: Machine | None
    """None: in virtual time no machine has a part."""
    events: list[Happened]
    """What the timeline really did."""
    validity: str
    """VALID, SUSPECT or INVALID."""
    reasons: list[str]
    """Why not VALID."""
    checked: HistoryVerdict | None = None
    """Of all calls; None: no history was kept."""


@dataclass(frozen=True)
class TrialMeasurement:
    """What was found while a trial ran in a cluster."""

    measured: Measured
    events: list[Happened]
    deaths: dict[int, str]
    """Replicas that ended and were not to, and their last words."""


def run_trial(
    trial: Trial, directory: Path, watch: Callable[[float], None] = lambda share: None
) -> Outcome:
    """Run it in a cluster of its own; real replicas keep their files in `directory`. `watch` hears
    which share is done. Raises EpaxosError; whatever happens, no process is left."""
    if trial.simulated:
        return _outcome(trial, measure_trial(trial, virtual_cluster(trial), directory, watch))
    watch(0.0)
    with local_cluster(trial, directory) as cluster:
        start = CLUSTER_S / trial.estimate_s
        cluster.start(lambda count: watch(count / trial.sites.n * start))
        found = measure_trial(
            trial, cluster, directory, lambda share: watch(start + (1 - start) * share)
        )
    watch(1.0)
    return _outcome(trial, found)


def virtual_cluster(trial: Trial) -> VirtualCluster:
    """A cluster for it in virtual time, whose replicas are ready. Raises EpaxosError."""
    cluster = VirtualCluster(
        trial.sites,
        protocol=trial.protocol,
        leader=trial.leader_index,
        durability=trial.durability,
        sync_ms=trial.sync_ms,
        jitter=trial.jitter,
        gate=trial.gate,
        seed=trial.seed,
        batch_commands=trial.batch_commands,
    )
    cluster.start()
    return cluster


def local_cluster(trial: Trial, directory: Path) -> LocalCluster:
    """A cluster for it that keeps its files in `directory`; its replicas are not started."""
    leader = trial.leader_index
    options = ClusterOptions(
        protocol=trial.protocol,
        durability=trial.durability,
        leader="" if leader is None else trial.sites.regions[leader].name,
        seed=trial.seed,
        gate=trial.gate,
        admin=bool(trial.timeline),
        more={"batch_commands": trial.batch_commands},
    )
    return LocalCluster(trial.sites, directory, options)


def measure_trial(
    trial: Trial,
    cluster: VirtualCluster | LocalCluster,
    directory: Path,
    watch: Callable[[float], None],
) -> TrialMeasurement:
    """Run it in a cluster that runs, perhaps after others; the process that loads real replicas
    keeps its files in `directory`. `watch` hears which share is done; what it raises ends the
    trial. Raises EpaxosError."""
    if isinstance(cluster, LocalCluster):
        return _measure_real(trial, cluster, directory, watch)
    if not trial.check:
        return _measure_virtual(trial, cluster, None, watch)
    kept = KeptHistory.next_in(directory)
    with HistoryWriter(kept.path, kept.initial) as history:
        found = _measure_virtual(trial, cluster, history, watch)
    checked = judge_virtual(kept, cluster, lambda share: watch(1.0))
    return replace(found, measured=replace(found.measured, checked=checked))


def _measure_virtual(
    trial: Trial,
    cluster: VirtualCluster,
    history: HistoryWriter | None,
    watch: Callable[[float], None],
) -> TrialMeasurement:
    load = VirtualLoad(cluster, trial.homes, trial.demand, history)
    happened = plan_virtual(cluster, trial.timeline, load.zero + trial.demand.first_us)
    measured = measure_virtual(cluster, load, watch)
    return TrialMeasurement(measured, happened(), {})


def _measure_real(
    trial: Trial, cluster: LocalCluster, directory: Path, watch: Callable[[float], None]
) -> TrialMeasurement:
    faults = RealFaults(cluster, trial.timeline)
    meter = LoadMeter(cluster)
    deaths: dict[int, str] = {}
    begun = time.monotonic()
    kept = KeptHistory.next_in(directory) if trial.check else None
    history = (str(kept.path), kept.initial) if kept else ("", "")
    with LoadProcess(spec_for(cluster, trial.demand, *history), directory) as load:

        def now_s() -> float:
            zero_us = load.zero_us()
            return -math.inf if zero_us is None else (clock() - zero_us) / 1e6 - trial.warmup_s

        while not load.done():
            due_s = faults.poll(now_s)
            for i, process in enumerate(cluster.processes):
                if not process.running and i not in faults.killed:
                    deaths.setdefault(i, process.last_words())
            watch(min(1.0, (time.monotonic() - begun) / trial.load_s))
            meter.look(load, trial.demand)
            time.sleep(POLL_S if due_s is None else min(POLL_S, max(0.0, due_s - now_s())))
        happened = faults.finish(now_s)
        result = load.result()
    time.sleep(SETTLE_S)
    after = [_counters(process) for process in cluster.processes]
    measured = meter.stop(result, after, faults.ended, faults.excused)
    if kept is not None:
        ports = [each.client for each in cluster.ports]
        measured = replace(measured, checked=judge_real(kept, ports, lambda share: watch(1.0)))
    return TrialMeasurement(measured, happened, deaths)


def _counters(process: LocalReplica) -> Status | None:
    try:
        return process.status()
    except EpaxosError:
        return None


def _outcome(trial: Trial, found: TrialMeasurement) -> Outcome:
    findings, measured = _judge(trial, found), found.measured
    return Outcome(
        load=measured.load,
        regions=[home.region.name for home in trial.homes],
        sync_us=list(measured.sync_us),
        costs=measured.costs,
        machine=measured.machine,
        events=found.events,
        validity=findings.validity,
        reasons=findings.reasons,
        checked=measured.checked,
    )


def _judge(trial: Trial, found: TrialMeasurement) -> Findings:
    """What failed because something was made to fail is a finding, not a reason to doubt it."""
    findings = Findings()
    measured, regions = found.measured, trial.sites.regions
    load = measured.load
    if measured.machine is not None:
        look = findings.look_at_throughput if trial.saturates else findings.look_at_health
        look("", health(measured, measured.machine))
    if measured.checked is not None:
        findings.look_at_history("", measured.checked.verdict, measured.checked.sentence())
    for i, last_words in found.deaths.items():
        findings.look_at_death("", regions[i].title, last_words)
    for event in found.events:
        if event.failed:
            findings.add("INVALID", f"{event.kind} of {event.region} failed: {event.failed}")
    harmed = [fault.region for fault in trial.timeline if fault.kind != "leader"]
    counts = Counter(sample.region for sample in load.samples if sample.measured)
    for i, home in enumerate(trial.homes):
        at, replica = f"{home.region.title}: ", regions[home.replica]
        crashes = sum(
            fault.kind == "crash" and fault.region == replica.name for fault in trial.timeline
        )
        if load.unreachable[i]:
            why = load.unreachable[i]
            findings.add("INVALID", f"{at}the replica could not be reached: {why}")
        elif load.disconnects[i] > crashes:
            findings.add("INVALID", f"{at}the connection to the replica was lost")
        if not trial.timeline:
            findings.look_at_fates(at, msgspec.structs.asdict(load.fates[i]))
        if replica.name not in harmed:
            findings.look_at_samples(at, counts[i])
    if trial.leader_index is None and not trial.timeline:
        conflicts = realised(load.samples, trial.sites.longest_one_way_us)
        findings.look_at_slow_paths("", conflicts.unexplained)
    return findings
