"""The comparison: the same work through each protocol, over the same emulated regions.

One cluster per protocol and leader; in it one trial per workload, in sequence: the conflict rates
of the EPaxos paper, or one of another kind. All trials have the same seed, hence the same commands
at the same intended starts.

In virtual time simulated.py collects the same.

Rules of this file: it runs and collects. Figures are made in summary.py, judged in verdict.py and
written in save.py.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from bench.clusters.counters import CLUSTER_S, Measured, sampled_batches
from bench.progress import ProgressClock, ProgressReport, Watch, ignore
from bench.trials.trial import Trial, local_cluster, measure_trial
from epaxos.core.errors import ConfigError
from epaxos.registry import find_protocol
from epaxos.workload import Conflict


@dataclass(frozen=True)
class ComparisonOptions:
    """What is swept, and the trial that all of it is done with. Raises ConfigError."""

    trial: Trial
    """Everything that does not differ; its protocol, leader and workload are replaced."""
    protocols: tuple[str, ...] = ("epaxos", "multipaxos")
    leaders: tuple[str, ...] = ("best", "worst")
    """As in a trial; ignored by protocols without a leader."""
    conflicts: tuple[float, ...] = (0.0, 2.0, 100.0)
    """Percent: one trial each."""
    value_size: int = 16
    """This and the next two: of the conflict rates; a workload says its own."""
    put_share: float = 1.0
    shared_keys: int = 1
    workload: str = ""
    """Instead of the conflict rates: one trial of this."""

    def __post_init__(self) -> None:
        names = [find_protocol(protocol).name for protocol in self.protocols]
        if not self.protocols or not (self.conflicts or self.workload):
            raise ConfigError("nothing to compare: name a protocol and a conflict rate or workload")
        for each in (names, self.conflicts):
            if len(set(each)) != len(each):
                raise ConfigError(f"{', '.join(map(str, each))}: one of them is named twice")
        if self.trial.clients or self.trial.faults:
            raise ConfigError("a comparison offers an open loop, and nothing fails in it")
        _ = self.clusters

    @cached_property
    def workloads(self) -> tuple[str, ...]:
        """What is asked for, trial by trial. Raises ConfigError."""
        if self.workload:
            return (self.workload,)
        return tuple(
            str(
                Conflict(
                    conflict,
                    pool=self.shared_keys,
                    puts=self.put_share,
                    value_size=self.value_size,
                )
            )
            for conflict in self.conflicts
        )

    @cached_property
    def clusters(self) -> "tuple[ComparedCluster, ...]":
        """The clusters, in order. A leader that is best and worst at once is run once."""
        found: dict[str, ComparedCluster] = {}
        for protocol in self.protocols:
            leaders = self.leaders if find_protocol(protocol).has_leader else ("",)
            if not leaders:
                raise ConfigError(f"{protocol} needs a leader: best, worst or a region")
            for leader in leaders:
                cluster = self._cluster(protocol, leader)
                found.setdefault(cluster.name, cluster)
        return tuple(found.values())

    def _cluster(self, protocol: str, leader: str) -> "ComparedCluster":
        trials = tuple(
            replace(
                self.trial,
                protocol=protocol,
                leader=leader or self.trial.leader,
                workload=workload,
            )
            for workload in self.workloads
        )
        return ComparedCluster(trials, leader)

    @property
    def estimate_s(self) -> float:
        return sum(cluster.estimate_s for cluster in self.clusters)


@dataclass(frozen=True)
class ComparedCluster:
    """Trials that run in one cluster, one after another."""

    trials: tuple[Trial, ...]
    """They differ in their workload only."""
    placement: str
    """What was asked for as a leader: best, worst, or a region; empty without one."""

    @property
    def name(self) -> str:
        """Unique in a comparison, like `multipaxos-CA`."""
        leader, name = self._leader, find_protocol(self.protocol).name
        return name if leader is None else f"{name}-{leader}"

    @property
    def label(self) -> str:
        """Short name for people, like `MP @CA`."""
        leader, spec = self._leader, find_protocol(self.protocol)
        short = spec.short or spec.title
        return short if leader is None else f"{short} @{leader}"

    @property
    def protocol(self) -> str:
        """As it was asked for."""
        return self.trials[0].protocol

    @property
    def leader(self) -> int | None:
        """Index of the leader's region; None for protocols without."""
        return self.trials[0].leader_index

    @property
    def _leader(self) -> str | None:
        return None if self.leader is None else self.trials[0].sites.regions[self.leader].name

    @property
    def estimate_s(self) -> float:
        first, *others = self.trials
        return first.estimate_s + sum(trial.load_s for trial in others)


@dataclass(frozen=True)
class ComparedTrial:
    """What a trial gave in its cluster; regions are those of `Trial.homes`."""

    cluster: ComparedCluster
    trial: Trial
    measured: Measured
    deaths: dict[int, str] = field(default_factory=dict)
    """Replicas that ended though none was to, and their last words."""


def compare(
    options: ComparisonOptions, directory: Path, watch: Watch[ProgressReport] = ignore
) -> list[ComparedTrial]:
    """Run everything; clusters keep their files in `directory`. Raises EpaxosError; whatever
    happens, no process is left."""
    clock = ProgressClock(options.estimate_s, watch)
    found: list[ComparedTrial] = []
    for each in options.clusters:
        left, place = each.trials, directory / each.name
        while left:
            done = _measure(each, left, place, clock)
            found += done
            left, place = left[len(done) :], directory / f"{each.name}-{len(found)}"
    return found


def _measure(
    compared: ComparedCluster, trials: tuple[Trial, ...], place: Path, clock: ProgressClock
) -> list[ComparedTrial]:
    """Trials in one cluster. The first that loses a replica is the last: it goes on to its end
    without, but the next must not begin so."""
    what, found = compared.label, []
    with local_cluster(trials[0], place) as cluster:
        n = cluster.topology.n
        starting = f"starting {n} replicas"
        clock.tell(what, starting)
        cluster.start(lambda count: clock.tell(what, starting, count / n, CLUSTER_S))
        clock.ended(what, CLUSTER_S)
        for trial in trials:
            tell = partial(_tell, clock, what, trial)
            measurement = measure_trial(trial, cluster, place, tell)
            sampled = sampled_batches(cluster, trial.demand)
            measured = replace(measurement.measured, sampled=sampled)
            found.append(ComparedTrial(compared, trial, measured, measurement.deaths))
            clock.ended(what, trial.load_s)
            if measurement.deaths:
                break
    return found


def _tell(clock: ProgressClock, what: str, trial: Trial, share: float) -> None:
    clock.tell(what, trial.drawn.title, share, trial.load_s)
