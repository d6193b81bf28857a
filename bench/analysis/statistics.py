"""What is stated of samples: their percentiles, and when a difference of two is one.

What a percentile is stands in epaxos.percentile; here are those that are stated, of samples and
over repeats, and how far they may be off. A p99 is stated only from 1,000 samples, a p99.9 from
10,000: ten samples lie above it then.

Over repeats a figure is a percentile of each repeat, averaged over the repeats. To know how far it
may be off, everything is drawn again, with replacement, at both levels: as many repeats as there
are, and within each drawn repeat as many samples as it has; of what was drawn the same percentile
is taken. The middle 95 % of the figures so found are the interval, from their 2.5th percentile to
their 97.5th. With one repeat only its samples are drawn again: what another run would give is then
not in the interval, and `levels` says so. A percentile of a redrawn sample need not be drawn sample
by sample: its rank in the original is that of an order statistic of uniform numbers, which is Beta
distributed. A difference is significant when its interval excludes 0.

Rules of this file: seeded, so that the same samples give the same sentence; the unit is in each
name, or any in and the same out.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from epaxos.percentile import Counts, count_percentiles, midpoint, percentile, rank

SAMPLES_FOR: Final = {99: 1000, 99.9: 10_000}
"""Percentile -> samples from which on it is stated; the others from one."""
PERCENTS: Final = (50, 95, 99, 99.9)
"""What tables and documents state."""
WHY_NONE: Final = "–: too few answers; " + ", ".join(
    f"a p{percent:g} needs {count:,}" for percent, count in SAMPLES_FOR.items()
)
"""Below a table in which a percentile is missing."""
MARKED: Final = (50, 90, 99, 99.9)
"""Percentiles that tails mark."""
CDF_POINTS: Final = 120
RESAMPLES: Final = 2000
_LOW, _HIGH = 2.5, 97.5
"""Percentiles between which the middle 95 % of redrawn figures lie."""

Ms = NDArray[np.float64]
Values = NDArray[np.float64]
"""Samples of one repeat, ascending."""


def is_stated(percent: float, samples: int) -> bool:
    """Whether there are samples enough."""
    return samples >= SAMPLES_FOR.get(percent, 1)


def field_of(percent: float) -> str:
    """Its name in documents, which is one in programs too: `p50`, `p99_9`."""
    return f"p{percent:g}".replace(".", "_")


def ascending(values: Sequence[float] | NDArray[Any]) -> Values:
    """Samples as the functions of this file take them."""
    return np.sort(np.asarray(values, dtype=np.float64))


def percentiles(values_us: Sequence[int]) -> dict[str, float | None]:
    """`p50`, `p95`, `p99`, `p99_9` (None for too few samples), `mean`, `max`, in ms; all None for
    no samples."""
    if not len(values_us):
        return dict.fromkeys((*map(field_of, PERCENTS), "mean", "max"))
    found = sorted(values_us)
    return {
        **stated({percent: percentile(found, percent) for percent in PERCENTS}, len(found)),
        "mean": ms_of(sum(found) / len(found)),
        "max": ms_of(found[-1]),
    }


def counted_percentiles(counts: Counts) -> dict[str, float | None]:
    """The same of counts per bucket."""
    samples = sum(counts.values())
    total_us = sum(midpoint(us) * count for us, count in counts.items())
    return {
        **stated(dict(zip(PERCENTS, count_percentiles(counts, PERCENTS))), samples),
        "mean": ms_of(total_us / samples if samples else None),
        "max": ms_of(count_percentiles(counts, (100,))[0]),
    }


def stated(percentiles_us: Mapping[float, int | None], samples: int) -> dict[str, float | None]:
    """Percentiles in ms by their names; None where there are too few samples."""
    return {
        field_of(percent): ms_of(us) if is_stated(percent, samples) else None
        for percent, us in percentiles_us.items()
    }


def ms_of(us: float | None) -> float | None:
    """Milliseconds, to the µs."""
    return None if us is None else round(us / 1000, 3)


def stated_percentile(values: Ms, percent: float) -> float | None:
    """Of samples in any order, in their unit; None for too few."""
    if not is_stated(percent, len(values)):
        return None
    return float(np.sort(values)[rank(percent, len(values)) - 1])


def cdf(values_us: Sequence[int]) -> list[list[float]]:
    """Points `[ms, share of samples at most that]`, denser towards the tail: what a logarithmic
    tail needs. At most CDF_POINTS + 1 of them."""
    count = len(values_us)
    if not count:
        return []
    ordered = np.sort(np.asarray(values_us, dtype=np.float64)) / 1000
    body = np.linspace(0, 0.9, CDF_POINTS // 2 - len(MARKED), endpoint=False)
    tail = 1 - np.geomspace(0.1, 1 / count, CDF_POINTS // 2) if count > 10 else np.array([0.9])
    marked = [rank(percent, count) for percent in MARKED]
    places = np.clip(np.ceil(np.append(body, tail) * count).astype(int), 1, count)
    ranks = np.unique(np.append(places, marked))
    points = [[round(float(ordered[at - 1]), 3), round(at / count, 6)] for at in ranks]
    if points[-1][1] < 1:
        points.append([round(float(ordered[-1]), 3), 1.0])
    return points


def merged_counts(many: Iterable[Counts]) -> Counts:
    """The sum of some counts."""
    found: Counts = defaultdict(int)
    for counts in many:
        for us, count in counts.items():
            found[us] += count
    return found


# Over repeats ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """How much larger a figure of `a` is than that of `b`."""

    value: float
    low: float
    high: float

    @property
    def significant(self) -> bool:
        """Whether the 95 % interval excludes 0."""
        return not self.low <= 0 <= self.high


def mean_percentile(repeats: Sequence[Values], percent: float) -> float | None:
    """Mean over the repeats of the percentile of each; None where no repeat has samples."""
    found = [percentile(values, percent) for values in repeats]
    known = [float(value) for value in found if value is not None]
    return sum(known) / len(known) if known else None


def interval(repeats: Sequence[Values], percent: float, seed: int) -> tuple[float, float] | None:
    """95 % interval of `mean_percentile`; None where no repeat has samples."""
    drawn = _draw(repeats, percent, np.random.default_rng([seed, 1]))
    return None if drawn is None else _middle(drawn)


def difference(
    a: Sequence[Values], b: Sequence[Values], percent: float, seed: int
) -> Difference | None:
    """`mean_percentile` of `a` less that of `b`; None where one of them has no samples."""
    rng = np.random.default_rng([seed, 2])
    ours, theirs = _draw(a, percent, rng), _draw(b, percent, rng)
    at_a, at_b = mean_percentile(a, percent), mean_percentile(b, percent)
    if ours is None or theirs is None or at_a is None or at_b is None:
        return None
    return Difference(at_a - at_b, *_middle(ours - theirs))


def levels(repeats: int) -> str:
    """What an interval is over, for people."""
    if repeats == 1:
        return "the samples of one repeat"
    return f"{repeats} repeats and the samples within each"


def _middle(drawn: Values) -> tuple[float, float]:
    """The ends of the middle 95 % of redrawn figures."""
    found = np.sort(drawn)
    return float(found[rank(_LOW, len(found)) - 1]), float(found[rank(_HIGH, len(found)) - 1])


def _draw(
    repeats: Sequence[Values], percent: float, rng: np.random.Generator
) -> NDArray[np.float64] | None:
    """RESAMPLES figures of redrawn repeats."""
    kept = [values for values in repeats if len(values)]
    if not kept:
        return None
    within = np.empty((len(kept), len(kept), RESAMPLES))
    for i, values in enumerate(kept):
        count = len(values)
        at = rank(percent, count)
        # One of its redrawn percentiles for each place at which the repeat may be drawn.
        places = rng.beta(at, count + 1 - at, (len(kept), RESAMPLES))
        within[i] = values[np.minimum((places * count).astype(int), count - 1)]
    if len(kept) == 1:
        only: NDArray[np.float64] = within[0, 0]
        return only
    chosen = rng.integers(0, len(kept), (len(kept), RESAMPLES))
    place, resample = np.indices(chosen.shape)
    mean: NDArray[np.float64] = within[chosen, place, resample].mean(axis=0)
    return mean
