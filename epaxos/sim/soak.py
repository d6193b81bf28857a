"""Many seeds: which run belongs to a seed, and what they all add up to.

Every `DIRECTED_EVERY`-th seed of EPaxos is a directed one (`epaxos.sim.directed`), so that every
soak meets the rules of recovery that random search does not reach.

Rules of this file: a seed's run is a function of the profile and the seed alone; a tally is what
any number of processes add up.
"""

import gc
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import topology
from epaxos.core.errors import ConfigError
from epaxos.node.node import Node, node_with
from epaxos.registry import find_protocol, find_state_machine
from epaxos.sim.directed import run_directed
from epaxos.sim.options import WORKLOADS, RunOptions, draw
from epaxos.sim.planted import Planted, planted
from epaxos.sim.run import CleanRun, Failure, tell
from epaxos.sim.situations import SITUATIONS
from epaxos.workload import parse_workload

DIRECTED_EVERY = 25
"""Every so many seeds one is directed."""


@dataclass(frozen=True)
class Profile:
    """What a soak is drawn from. Raises ConfigError."""

    protocol: str = "epaxos"
    replicas: tuple[int, ...] = (3, 4, 5, 7)
    commands: int = 40
    gate: bool = True
    faults: frozenset[str] | None = None
    """Kinds of fault that may happen; None: all."""
    workload: str = "mixed"
    """One of `WORKLOADS`, or as `parse_workload` reads it."""
    topology: str | None = None
    """Fixes replicas and delays; None: drawn."""
    directed: bool = True
    """Whether some seeds are directed."""
    plant: str | None = None
    """A file with a class that takes the place of the real one (`epaxos.sim.planted`)."""
    state_machine: str = ""
    """`package.module:CLASS`; empty: the key-value store."""

    def __post_init__(self) -> None:
        if self.workload not in WORKLOADS:
            try:
                parse_workload(self.workload)
            except ConfigError as error:
                presets = ", ".join(WORKLOADS)
                raise ConfigError(f"{error}; the simulator's own are {presets}") from None
        if not all(1 <= each <= 9 for each in self.replicas):
            raise ConfigError("--replicas takes numbers from 1 to 9, like 3,5,7")
        if self.commands < 1:
            raise ConfigError("--commands must be at least 1")
        self.options(1)
        self.cast()

    def options(self, seed: int) -> RunOptions:
        """The run of a seed that is not directed."""
        sites = None if self.topology is None else topology.find(self.topology)
        drawn = draw(
            seed,
            self.protocol,
            self.replicas,
            self.commands,
            self.gate,
            self.faults,
            sites,
        )
        if self.workload in WORKLOADS:
            return replace(drawn, **dict(WORKLOADS[self.workload]))
        return replace(drawn, workload=self.workload)

    def is_directed(self, seed: int) -> bool:
        """Whether a seed's run is directed."""
        return self._may_direct and seed % DIRECTED_EVERY == 0

    @property
    def _may_direct(self) -> bool:
        """Directed runs have a cluster and faults of their own: only where nothing was chosen."""
        return (
            self.directed
            and self.protocol == "epaxos"
            and 5 in self.replicas
            and self.faults is None
            and self.topology is None
            and self.workload == "mixed"
            and not self.state_machine
        )

    def cast(self) -> Planted:
        """Who plays. Raises ConfigError."""
        if self.plant is None:
            spec, node = find_protocol(self.protocol), Node
        else:
            spec, node = planted(self.protocol, self.plant)
        if self.state_machine:
            node = node_with(find_state_machine(self.state_machine), node)
        return Planted(spec, node)


def run_seed(profile: Profile, seed: int) -> CleanRun | Failure:
    """The run that belongs to a seed."""
    spec, node = profile.cast()
    if profile.is_directed(seed):
        return run_directed(seed, spec, node)
    return tell(profile.options(seed), spec, node)


@dataclass
class SoakTally:
    """What a number of seeds add up to."""

    protocol: str
    clean: int = 0
    directed: int = 0
    answered: int = 0
    virtual_us: int = 0
    by_replicas: Counter[int] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    situations: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def add(self, profile: Profile, seed: int, result: CleanRun | Failure) -> None:
        if isinstance(result, Failure):
            self.failures.append(result)
            return
        directed = profile.is_directed(seed)
        self.clean += 1
        self.directed += directed
        self.by_replicas[result.replicas] += 1
        self.answered += result.answered
        self.virtual_us += result.virtual_us
        self.situations.update(result.situations)
        self._count(result.counts)

    def merge(self, other: "SoakTally") -> None:
        """What another process found."""
        self.clean += other.clean
        self.directed += other.directed
        self.answered += other.answered
        self.virtual_us += other.virtual_us
        self.by_replicas.update(other.by_replicas)
        self.situations.update(other.situations)
        self.failures += other.failures
        self._count(other.counts)

    def _count(self, counts: Mapping[str, int]) -> None:
        """Largest values stay the largest, everything else adds up."""
        for name, value in counts.items():
            if name.endswith("_max"):
                self.counts[name] = max(self.counts[name], value)
            else:
                self.counts[name] += value

    def unmet(self) -> list[str]:
        """Situations of the protocol that no seed met."""
        return [
            each.name
            for each in SITUATIONS
            if each.protocol in (None, self.protocol) and not self.situations[each.name]
        ]


def collect_rarely() -> None:
    """For a process that runs seeds and nothing else: a run makes hardly any cycles, so what was
    imported is never looked at again and the young seldom. Changes the whole process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000)


def run_seeds(profile: Profile, seeds: range, failures_max: int = 1) -> SoakTally:
    """Some seeds, one after the other; after so many failures the rest is left alone."""
    tally = SoakTally(profile.protocol)
    for seed in seeds:
        tally.add(profile, seed, run_seed(profile, seed))
        if len(tally.failures) >= failures_max:
            break
    return tally
