"""What one load costs a cluster: counters before and after it, and how its replicas kept up.

A comparison measures several loads in one cluster, a trial one. What a load costs is what the
replicas counted between its start and its end.

Rules of this file: it runs and collects; figures are made elsewhere.
"""

import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from hdrh.histogram import HdrHistogram

from bench.analysis.stages import PATH, Sampled, answered
from bench.clusters.local import LocalCluster
from bench.history.judge import HistoryVerdict
from bench.load.client import LoadProcess
from bench.load.samples import Demand, LoadResult, Spec, Target
from epaxos.core.errors import ConfigError
from epaxos.percentile import Counts, bucket, count_percentile
from epaxos.runtime.alarm import clock

COOLDOWN_S: Final = 0.3
SYNC_MS: Final = 0.2
"""How long a sync takes in virtual time, where nothing else is said."""
SETTLE_S: Final = 0.2
"""From the last answer until the counters are read: Commits are still under way."""
LOAD_EXTRA_S: Final = 1.8
"""What a load takes beside its length, for the estimate."""
CLUSTER_S: Final = 4.0
"""What starting and stopping a cluster takes, for the estimate."""
POLL_S: Final = 0.1
"""How often somebody looks whether all is well."""

RANGES: Final = {
    "rate": (0.1, 20_000.0),
    "duration_s": (0.5, 3600.0),
    "warmup_s": (0.0, 600.0),
    "patience_s": (0.1, 3600.0),
    "sync_ms": (0.0, 1000.0),
}
"""Lowest and highest value of settings."""


def check_ranges(settings: object, names: tuple[str, ...] = tuple(RANGES)) -> None:
    """Raises ConfigError that names the first of these settings that is out of its range."""
    check_bounds(settings, **{name: RANGES[name] for name in names})


def check_bounds(settings: object, **bounds: tuple[float, float]) -> None:
    """Raises ConfigError that names the first setting that is below or above its bounds."""
    for name, (low, high) in bounds.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            raise ConfigError(f"{name} = {value:g} must be between {low:g} and {high:g}")


@dataclass(frozen=True)
class Costs:
    """What all replicas together did, from the start of a load to its end."""

    commands: int
    """Answered."""
    messages: int
    """Sent."""
    octets: int
    """Sent."""
    syncs: int
    cpu_s: float | None
    """None: in virtual time nothing takes any."""


@dataclass(frozen=True)
class Machine:
    """How replicas and machine kept up while it was measured: the worst of all replicas."""

    loop_lag_p99_us: int
    link_error_p99_us: int | None
    dropped: int
    """Messages that links gave up."""
    wall_s: float
    """Between start and end."""
    busy_s: float | None
    """CPU time that all programs of this machine took meanwhile; None: not known."""


@dataclass(frozen=True)
class Measured:
    """What one load in one cluster gave."""

    load: LoadResult
    sync_us: tuple[int, ...]
    """Median duration of a sync, per replica."""
    costs: Costs
    machine: Machine | None
    """None: in virtual time no machine has a part."""
    sampled: tuple[tuple[Sampled, ...], ...] = ()
    """Per replica, the batches of the measured time whose stages it kept; empty: not asked."""
    checked: HistoryVerdict | None = None
    """Of all calls of the load; None: no history was kept."""


Status = dict[str, Any]
"""What `/v1/status` says of a replica."""
_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class Late:
    """How late a replica was in a stretch of time, at the p99."""

    loop_us: int
    link_us: int | None
    """None: its links are not emulated, or carried nothing."""


class Lateness:
    """How late replicas are, from now or the last `begin` on. Their own start, and that of whoever
    loads them, would otherwise be a hundredth of all moments."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self.begun = False
        self._before = cluster.histograms()

    def begin(self) -> None:
        """What was until now does not count."""
        self.begun = True
        self._before = self._cluster.histograms()

    def end(self) -> list[Late | None]:
        """Per replica; None of those that do not answer."""
        return [
            None if after is None else _late(before, after)
            for before, after in zip(self._before, self._cluster.histograms())
        ]


def _late(before: Status | None, after: Status) -> Late:
    if before is None or before["boot"] != after["boot"]:
        before = {}
    loop, link = (
        _grown(_counts_of(before.get(name)), _counts_of(after[name]))
        for name in ("loop_lag", "link_error")
    )
    return Late(count_percentile(loop, 99) or 0, count_percentile(link, 99))


def _grown(before: Counts, after: Counts) -> Counts:
    """What was recorded between two states of a histogram."""
    found = {us: count - before.get(us, 0) for us, count in after.items()}
    return {us: count for us, count in found.items() if count > 0}


def _counts_of(text: str | None) -> Counts:
    if text is None:
        return {}
    return {
        bucket(item.value_iterated_to): item.count_added_in_this_iter_step
        for item in HdrHistogram.decode(text).get_recorded_iterator()
    }


class LoadMeter:
    """The counters of a cluster before a load. Raises EpaxosError where a replica does not
    answer."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._before = cluster.status()
        self.lateness = Lateness(cluster)
        self._begun, self._busy_s = time.monotonic(), _busy_s()

    def look(self, load: LoadProcess, demand: Demand) -> None:
        """While a load runs: is its measured part reached?"""
        zero_us = load.zero_us()
        if self.lateness.begun or zero_us is None:
            return
        if clock() - zero_us >= demand.first_us:
            self.lateness.begin()

    def stop(
        self,
        load: LoadResult,
        after: Sequence[Status | None],
        ended: Sequence[Status] = (),
        excused: Collection[int] = (),
    ) -> Measured:
        """What the load cost. `after` is None for replicas that do not answer any more; `ended` are
        the last counters of processes that were killed meanwhile; how late `excused` replicas
        were, which were paused or started again, says nothing of the machine."""
        wall_s = time.monotonic() - self._begun
        busy_s = _busy_s()
        if busy_s is not None and self._busy_s is not None:
            busy_s -= self._busy_s
        later = [*ended, *(status for status in after if status is not None)]
        counts = _Growth(self._before, later)
        lasts = list({status["replica"]: status for status in (*self._before, *later)}.values())
        late = {i: each for i, each in enumerate(self.lateness.end()) if each is not None}
        watched = [each for i, each in late.items() if i not in excused] or list(late.values())
        errors = [each.link_us for each in watched if each.link_us is not None]
        return Measured(
            load,
            tuple(last["log"]["sync"]["p50_us"] or 0 for last in lasts),
            Costs(
                commands=counts.of(lambda status: int(status["commands"])),
                messages=counts.of(_sent_messages),
                octets=counts.of(_sent_bytes),
                syncs=counts.of(lambda status: int(status["log"]["syncs"])),
                cpu_s=counts.of(lambda status: float(status["process"]["cpu_s"])),
            ),
            Machine(
                loop_lag_p99_us=max((each.loop_us for each in watched), default=0),
                link_error_p99_us=max(errors, default=None),
                dropped=counts.of(_dropped),
                wall_s=wall_s,
                busy_s=busy_s,
            ),
        )


class _Growth:
    """By how much counters grew, over all lives of all replicas: they begin anew in each."""

    def __init__(self, before: Sequence[Status], later: Sequence[Status]) -> None:
        ends = {_life(status): status for status in later}
        self._ends = list(ends.values())
        self._starts = [status for status in before if _life(status) in ends]

    def of(self, count: Callable[[Status], _Number]) -> _Number:
        """Of one counter."""
        return sum(map(count, self._ends)) - sum(map(count, self._starts))


def _life(status: Status) -> tuple[str, int]:
    return status["replica"], status["boot"]


def health(found: Measured, machine: Machine) -> dict[str, Any]:
    """How well machine and clients kept up, in ms and shares of CPU."""
    load, error_us = found.load, machine.link_error_p99_us
    ours_s = (found.costs.cpu_s or 0.0) + load.cpu_share * load.wall_s
    available_s = machine.wall_s * (os.cpu_count() or 1)
    others_s = None if machine.busy_s is None else max(0.0, machine.busy_s - ours_s)
    return {
        "loop_lag_p99_ms": machine.loop_lag_p99_us / 1000,
        "link_error_p99_ms": _ms(error_us),
        "client_lag_p99_ms": _ms(load.loop_lag.p99_us),
        "start_error_p99_ms": _ms(load.start_error.p99_us),
        "client_cpu": round(load.cpu_share, 4),
        "machine_cpu": round(ours_s / available_s, 4),
        "others_cpu": None if others_s is None else round(others_s / available_s, 4),
        "sync_p50_ms": max(found.sync_us) / 1000,
        "dropped_messages": machine.dropped,
    }


def _ms(us: int | None) -> float | None:
    return None if us is None else us / 1000


def sampled_batches(cluster: LocalCluster, demand: Demand) -> tuple[tuple[Sampled, ...], ...]:
    """Per replica, the batches whose stages it kept from the measured time of a load that has just
    ended; none of one that ended. Raises EpaxosError."""
    window_s = demand.duration_s + COOLDOWN_S + SETTLE_S
    explained = [
        process.ask(PATH)["samples"] if process.running else [] for process in cluster.processes
    ]
    return tuple(answered(each, window_s) for each in explained)


def spec_for(cluster: LocalCluster, demand: Demand, history: str = "", initial: str = "") -> Spec:
    """A demand, at the replicas of a cluster, perhaps with a history."""
    regions = cluster.topology.regions
    targets = [Target(region.name, each.client) for region, each in zip(regions, cluster.ports)]
    return Spec.of(demand, targets, history, initial)


def _sent_messages(status: Status) -> int:
    return sum(int(kind["count"]) for kind in status["messages"]["sent"].values())


def _sent_bytes(status: Status) -> int:
    return sum(int(peer["sent_bytes"]) for peer in status["peers"])


def _dropped(status: Status) -> int:
    return sum(int(peer["dropped"]) for peer in status["peers"])


def _busy_s() -> float | None:
    """CPU time of everything on this machine since it was started."""
    try:
        line = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
        user, nice, system, _, _, irq, softirq = map(int, line.split()[1:8])
    except (OSError, ValueError):
        return None
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
