"""The figures of an experiment: a cell is one configuration in one region, over all its repeats.

A configuration is a trial without its seed. What is stated of a cell is a mean over its repeats:
its p50 is the mean of the medians of each repeat. Intervals are those of analysis.statistics.

Rules of this file: milliseconds, names of regions; the same trials give the same figures. A p99 or
p99.9 is stated only where all repeats of a cell together have samples enough.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.analysis.statistics import (
    PERCENTS,
    Values,
    ascending,
    field_of,
    interval,
    is_stated,
    levels,
    mean_percentile,
)
from bench.trials.store import StoredTrial
from bench.trials.trial import Trial
from epaxos.core.errors import ConfigError
from epaxos.core.replica import Path
from epaxos.registry import find_protocol

LATENCIES: Final = ("commit", "answer")
_KEYS: Final = tuple(field.name for field in fields(Trial) if field.name != "seed")


@dataclass(frozen=True)
class Repeat:
    """A finished trial, its samples as columns: only what was measured."""

    stored: StoredTrial

    @cached_property
    def columns(self) -> dict[str, NDArray[np.int64]]:
        """`region`, `start_us` (from the start of what is measured), `commit_us`, `answer_us`,
        `path`."""
        measured = [s for s in self.stored.outcome.load.samples if s.measured]
        rows = np.array(
            [(s.region, s.start_us, s.commit_us, s.answer_us, s.path) for s in measured],
            dtype=np.int64,
        ).reshape(-1, 5)
        rows[:, 1] -= round(self.stored.trial["warmup_s"] * 1e6)
        return dict(zip(("region", "start_us", "commit_us", "answer_us", "path"), rows.T))

    def latencies_ms(self, latency: str, region: int) -> Values:
        """Ascending."""
        columns = self.columns
        return ascending(columns[f"{latency}_us"][columns["region"] == region] / 1000)


@dataclass(frozen=True, eq=False)
class Configuration:
    """All repeats of a trial."""

    settings: dict[str, Any]
    """The fields of the trial but its seed."""
    repeats: list[Repeat]

    @property
    def first(self) -> StoredTrial:
        """What all repeats share can be read off the first."""
        return self.repeats[0].stored

    @property
    def label(self) -> str:
        """The protocol, with its leader, as in `Multi-Paxos @CA`."""
        name = self.settings["protocol"]
        try:
            title = find_protocol(name).title
        except ConfigError:
            title = name  # one from outside that is not installed here
        return title if self.first.leader is None else f"{title} @{self.first.leader}"

    def cells(self) -> "Iterator[Cell]":
        """One per region with clients."""
        for index, region in enumerate(self.first.outcome.regions):
            yield Cell(self, index, region)


@dataclass(frozen=True, eq=False)
class Cell:
    """One configuration in one region."""

    configuration: Configuration
    index: int
    region: str

    @property
    def title(self) -> str:
        return self.configuration.first.titles.get(self.region, self.region)

    @cached_property
    def _latencies(self) -> dict[str, list[Values]]:
        repeats = self.configuration.repeats
        return {
            each: [repeat.latencies_ms(each, self.index) for repeat in repeats]
            for each in LATENCIES
        }

    def values(self, latency: str) -> list[Values]:
        """`commit` or `answer` latencies in ms, per repeat."""
        return self._latencies[latency]

    @property
    def samples(self) -> int:
        """Of all repeats."""
        return sum(map(len, self.values("answer")))

    def percentile(self, latency: str, percent: float) -> float | None:
        """Mean over the repeats; None for too few samples."""
        if not is_stated(percent, self.samples):
            return None
        found = mean_percentile(self.values(latency), percent)
        return None if found is None else round(found, 3)

    def record(self, seed: int) -> dict[str, Any]:
        """Everything that is stated of it, flat."""
        trials = [repeat.stored for repeat in self.configuration.repeats]
        found: dict[str, Any] = flat(self.configuration.settings)
        found |= {
            "label": self.configuration.label,
            "leader_region": trials[0].leader,
            "region": self.region,
            "region_title": self.title,
            "repeats": len(trials),
            "samples": self.samples,
            "optimum_ms": _mean([stored.optimum[self.index].fast_ms for stored in trials]),
            "slow_optimum_ms": _mean([stored.optimum[self.index].slow_ms for stored in trials]),
        }
        for latency in LATENCIES:
            for percent in PERCENTS:
                found[f"{latency}_{field_of(percent)}_ms"] = self.percentile(latency, percent)
            low, high = interval(self.values(latency), 50, seed) or (None, None)
            found[f"{latency}_p50_low_ms"] = None if low is None else round(low, 3)
            found[f"{latency}_p50_high_ms"] = None if high is None else round(high, 3)
        return found | self._counts(trials) | _costs(trials)

    def _counts(self, trials: Sequence[StoredTrial]) -> dict[str, Any]:
        paths: Counter[int] = Counter()
        for repeat in self.configuration.repeats:
            columns = repeat.columns
            paths.update(columns["path"][columns["region"] == self.index].tolist())
        fates = [stored.outcome.load.fates[self.index] for stored in trials]
        answered = sum(fate.answered for fate in fates)
        length_s = self.configuration.settings["duration_s"] * len(trials)
        leaderless = trials[0].leader is None
        return {
            "fast_share": round(paths[Path.FAST] / paths.total(), 4)
            if leaderless and paths
            else None,
            "throughput": round(answered / length_s, 3),
            "sent": sum(fate.sent for fate in fates),
            "answered": answered,
            "refused": sum(fate.refused for fate in fates),
            "ambiguous": sum(fate.ambiguous for fate in fates),
            "lost": sum(fate.lost for fate in fates),
            "interval_over": levels(len(trials)),
            "validity": worst([stored.outcome.validity for stored in trials]),
        }


def gather(trials: Sequence[StoredTrial]) -> list[Configuration]:
    """The configurations of these trials, in the order in which they first appear."""
    found: dict[tuple[Any, ...], list[Repeat]] = {}
    for stored in trials:
        found.setdefault(values_of(stored.trial), []).append(Repeat(stored))
    return [Configuration(dict(zip(_KEYS, key)), repeats) for key, repeats in found.items()]


def values_of(trial: dict[str, Any]) -> tuple[Any, ...]:
    """What a configuration is told by; read from a file or not."""
    return tuple(tuple(v) if isinstance(v, list) else v for v in (trial[key] for key in _KEYS))


def swept_keys(configurations: Sequence[Configuration]) -> list[str]:
    """The keys in which they differ, in the order of Trial."""
    return [key for key in _KEYS if len({each.settings[key] for each in configurations}) > 1]


def flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Lists as one text, which data frames can hold."""
    return {
        key: " ".join(value) if isinstance(value, tuple) else value
        for key, value in settings.items()
    }


def worst(validities: Sequence[str]) -> str:
    """INVALID before SUSPECT before VALID."""
    return next((each for each in ("INVALID", "SUSPECT") if each in validities), "VALID")


def _costs(trials: Sequence[StoredTrial]) -> dict[str, Any]:
    """Per command, of the whole cluster."""
    costs = [stored.outcome.costs for stored in trials]
    commands = sum(cost.commands for cost in costs)
    cpu_s = [cost.cpu_s for cost in costs if cost.cpu_s is not None]

    def per(total: float, digits: int) -> float | None:
        return round(total / commands, digits) if commands else None

    return {
        "messages": per(sum(cost.messages for cost in costs), 2),
        "bytes": per(sum(cost.octets for cost in costs), 1),
        "syncs": per(sum(cost.syncs for cost in costs), 2),
        "cpu_ms": per(sum(cpu_s) * 1000, 3) if cpu_s else None,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 3) if known else None
