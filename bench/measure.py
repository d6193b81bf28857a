"""What one load costs a cluster: counters before and after it, and how its replicas kept up.

A comparison measures several loads in one cluster, a trial one. What a load costs is what the
replicas counted between its start and its end.

Rules of this file: it runs and collects; figures are made elsewhere.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from bench.cluster import Cluster
from bench.load import Demand, LoadProcess, LoadResult, Spec, Target
from epaxos.core.errors import ConfigError

COOLDOWN_S: Final = 0.3
SYNC_MS: Final = 0.2
"""How long a sync takes in virtual time, where nothing else is said."""
SETTLE_S: Final = 0.2
"""From the last answer until the counters are read: Commits are still under way."""
LOAD_EXTRA_S: Final = 1.8
"""What a load takes beside its length, for the estimate."""
CLUSTER_S: Final = 4.0
"""What starting and stopping a cluster takes, for the estimate."""
_POLL_S: Final = 0.1

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
    for name in names:
        low, high = RANGES[name]
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
    """How replicas and machine kept up: the worst of all replicas."""

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


def measure(
    cluster: Cluster, demand: Demand, place: Path, poll: Callable[[], None] = lambda: None
) -> Measured:
    """Load a running cluster from a process of its own, which keeps its files in `place`; `poll` is
    called now and then meanwhile. Raises EpaxosError; whatever happens, that process is gone."""
    before = cluster.status()
    begun, busy = time.monotonic(), _busy_s()
    targets = [
        Target(region.name, ports.client)
        for region, ports in zip(cluster.topology.regions, cluster.ports)
    ]
    with LoadProcess(Spec.of(demand, targets), place) as load:
        while not load.done():
            time.sleep(_POLL_S)
            poll()
        result = load.result()
    time.sleep(SETTLE_S)
    after = cluster.status()
    wall_s = time.monotonic() - begun
    busy_after = _busy_s()
    busy_s = None if busy is None or busy_after is None else busy_after - busy
    errors = [status["link_error"]["p99_us"] for status in after if status["link_error"]]
    return Measured(
        result,
        tuple(status["log"]["sync"]["p50_us"] for status in after),
        _costs(before, after),
        Machine(
            loop_lag_p99_us=max(status["process"]["loop_lag"]["p99_us"] for status in after),
            link_error_p99_us=max(errors, default=None),
            dropped=_grown(before, after, _dropped),
            wall_s=wall_s,
            busy_s=busy_s,
        ),
    )


_Status = dict[str, Any]
"""What `/v1/status` says of a replica."""
_Number = TypeVar("_Number", int, float)


def _grown(
    before: list[_Status], after: list[_Status], count: Callable[[_Status], _Number]
) -> _Number:
    """By how much a counter grew, over all replicas."""
    return sum(map(count, after)) - sum(map(count, before))


def _costs(before: list[_Status], after: list[_Status]) -> Costs:
    def cpu_s(status: _Status) -> float:
        return float(status["process"]["cpu_s"])

    return Costs(
        commands=_grown(before, after, lambda status: int(status["commands"])),
        messages=_grown(before, after, _sent_messages),
        octets=_grown(before, after, _sent_bytes),
        syncs=_grown(before, after, lambda status: int(status["log"]["syncs"])),
        cpu_s=_grown(before, after, cpu_s),
    )


def _sent_messages(status: _Status) -> int:
    return sum(int(kind["count"]) for kind in status["messages"]["sent"].values())


def _sent_bytes(status: _Status) -> int:
    return sum(int(peer["sent_bytes"]) for peer in status["peers"])


def _dropped(status: _Status) -> int:
    return sum(int(peer["dropped"]) for peer in status["peers"])


def _busy_s() -> float | None:
    """CPU time of everything on this machine since it was started."""
    try:
        line = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
        user, nice, system, _, _, irq, softirq = map(int, line.split()[1:8])
    except (OSError, ValueError):
        return None
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
