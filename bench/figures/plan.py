"""What a figure of a paper is: a question, the trials that answer it, and how they are drawn.

Each module of bench/figures/studies offers one `STUDY`; its trials are named without repeats; a
`Scale` says how long each runs and how often, with which seeds. `StudyResults` gives them back
pooled.

Rules of this file: nothing runs here, nothing is drawn here; milliseconds.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bench.analysis.conflicts import realised
from bench.analysis.statistics import Ms
from bench.clusters.counters import check_bounds
from bench.load.samples import Sample
from bench.trials.cells import worst
from bench.trials.trial import Outcome, Trial
from epaxos.core.quorum import quorums
from epaxos.core.replica import Path
from topology import find


@dataclass(frozen=True)
class Scale:
    """How large an evaluation is. Raises ConfigError."""

    repeats: int = 3
    """Per simulated trial, each with a seed of its own."""
    real_repeats: int = 1
    """The same for real processes."""
    simulated_s: float = 18.0
    """Measured per simulated trial and repeat, where it is not on a timeline."""
    real_s: float = 2.0
    """The same for real processes."""
    seed: int = 1
    """Of the first repeat."""

    def __post_init__(self) -> None:
        check_bounds(self, repeats=(1, 100), real_repeats=(1, 100))
        check_bounds(self, simulated_s=(0.5, 3600.0), real_s=(0.5, 3600.0))

    def repeated(self, trial: Trial) -> list[Trial]:
        """All repeats of a trial."""
        return [replace(trial, seed=self.seed + each) for each in range(self.repeats_of(trial))]

    def repeats_of(self, trial: Trial) -> int:
        """How often it is run."""
        return self.repeats if trial.simulated else self.real_repeats


REDUCED: Final = Scale()
FULL: Final = Scale(repeats=5, real_repeats=5, simulated_s=60.0, real_s=10.0)
"""The paper's size: five repeats of a minute."""


@dataclass(frozen=True)
class Picture:
    """One drawn figure with its caption."""

    name: str
    """Of its files."""
    title: str
    figure: Figure
    caption: str
    """What is seen and what differs from the paper, in sentences; the conditions follow."""
    conditions: str
    rows: list[dict[str, Any]]
    """The figures behind it, a flat record each."""


@dataclass(frozen=True)
class Study:
    """One question of a paper's evaluation."""

    name: str
    """Like `what-does-a-site-see`: its module with hyphens."""
    question: str
    source: str
    """Paper and figure."""
    trials: Callable[[Scale], list[Trial]]
    """Without repeats."""
    draw: "Callable[[StudyResults], list[Picture]]"


class PooledTrials:
    """All repeats of one trial."""

    def __init__(self, trial: Trial, outcomes: Sequence[Outcome]) -> None:
        self.trial = trial
        self.outcomes = outcomes
        self.regions = outcomes[0].regions

    @cached_property
    def samples(self) -> list[Sample]:
        """What was measured."""
        loads = (outcome.load for outcome in self.outcomes)
        return [s for load in loads for s in load.samples if s.measured]

    @cached_property
    def _table(self) -> NDArray[np.int64]:
        rows = [(s.region, s.commit_us, s.answer_us) for s in self.samples]
        return np.array(rows, dtype=np.int64).reshape(-1, 3)

    def commit_ms(self, region: str | None = None) -> Ms:
        """Commit latencies, of one region or of all."""
        return self._column(1, region)

    def answer_ms(self, region: str | None = None) -> Ms:
        """Execution latencies: when the client had its answer."""
        return self._column(2, region)

    def _column(self, column: int, region: str | None) -> Ms:
        rows = self._table
        if region is not None:
            rows = rows[rows[:, 0] == self.regions.index(region)]
        return rows[:, column] / 1000

    @property
    def throughput(self) -> float:
        """Answered commands per second, of all regions, mean of the repeats."""
        return len(self.samples) / (self.trial.duration_s * len(self.outcomes))

    @property
    def answered_share(self) -> float:
        """Of the commands that were sent in the measured time."""
        fates = [fate for outcome in self.outcomes for fate in outcome.load.fates]
        sent = sum(fate.sent for fate in fates)
        return sum(fate.answered for fate in fates) / sent if sent else 0.0

    @property
    def fast_share(self) -> float:
        """Of the commands, those that the fast path decided."""
        paths = Counter(sample.path for sample in self.samples)
        return paths[Path.FAST] / max(1, len(self.samples))

    @property
    def conflict_share(self) -> float:
        """Of the commands, those that met another on their key that was still under way."""
        spread_us = self.trial.sites.longest_one_way_us
        found = [realised(outcome.load.samples, spread_us) for outcome in self.outcomes]
        return sum(each.met for each in found) / max(1, sum(each.commands for each in found))


class StudyResults:
    """The outcomes of a study's trials."""

    def __init__(self, scale: Scale, outcomes: Mapping[Trial, Outcome]) -> None:
        self.scale = scale
        self._outcomes = outcomes

    def __getitem__(self, trial: Trial) -> PooledTrials:
        return PooledTrials(trial, [self._outcomes[each] for each in self.scale.repeated(trial)])


def validity(trials: Iterable[Trial], results: StudyResults) -> tuple[str, list[str]]:
    """The worst of all trials, and why."""
    outcomes = list(chain.from_iterable(results[trial].outcomes for trial in trials))
    reasons = dict.fromkeys(reason for outcome in outcomes for reason in outcome.reasons)
    return worst([outcome.validity for outcome in outcomes]), list(reasons)


def conditions(trials: Sequence[Trial], scale: Scale, latency: str = "") -> str:
    """What every figure has to say of itself: matrix, quorums, durability, loop, repeats, seeds,
    which latency, and in which world."""

    def each(said: Callable[[Trial], str]) -> str:
        return _listed(list(dict.fromkeys(said(trial) for trial in trials)))

    def repeats(trial: Trial) -> str:
        count = scale.repeats_of(trial)
        last = scale.seed + count - 1
        seeds = f"seed {scale.seed}" if count == 1 else f"seeds {scale.seed} to {last}"
        times = "one repeat" if count == 1 else f"{count} repeats"
        return f"{times} of {trial.duration_s:g} s, {seeds}"

    parts = [
        f"matrix {each(lambda trial: trial.topology.partition(':')[0])}",
        each(_quorums),
        each(_durability),
        each(_loop),
        each(repeats),
        latency,
        each(_world),
    ]
    return " · ".join(filter(None, parts))


def _listed(values: list[str]) -> str:
    """`a`, `a and b`, and of many the first and the last: what was swept is in the figure."""
    return " and ".join(values) if len(values) <= 2 else f"{values[0]} … {values[-1]}"


def _quorums(trial: Trial) -> str:
    sizes = quorums(find(trial.topology, trial.replicas).n)
    return f"n = {sizes.n} (fast quorum {sizes.fast}, slow {sizes.slow})"


def _durability(trial: Trial) -> str:
    if trial.durability == "memory" or not trial.simulated:
        return trial.durability
    return f"{trial.durability}, a sync takes {trial.sync_ms:g} ms"


def _loop(trial: Trial) -> str:
    if trial.rate:
        return f"open loop (Poisson), {trial.rate:g}/s per region"
    clients = "client" if trial.clients == 1 else "clients"
    return f"closed loop, {trial.clients} {clients} per region"


def _world(trial: Trial) -> str:
    if not trial.simulated:
        return "real processes on one machine"
    return f"simulated (virtual time, {'with' if trial.jitter else 'no'} jitter)"
