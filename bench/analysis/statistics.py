"""Percentiles, and when a difference is one: of samples, of counts per bucket, over repeats.

A difference of medians is significant when its 95 % bootstrap interval excludes 0: both samples are
drawn again, with replacement, many times, and the middle 95 % of the differences of their medians
are the interval.

Over repeats a figure is a quantile of each repeat, averaged over the repeats. To know how far it
may be off, everything is drawn again, with replacement, at both levels: as many repeats as there
are, and within each drawn repeat as many samples as it has. The middle 95 % of the figures so found
are the interval. With one repeat only its samples are drawn again: what another run would give is
then not in the interval, and `levels` says so. A quantile of a redrawn sample need not be drawn
sample by sample: its rank in the original is that of an order statistic of uniform numbers, which
is Beta distributed.

Rules of this file: seeded, so that the same samples give the same sentence; the unit is in each
name, or any in and the same out; a p99 is stated only from SAMPLES_FOR_P99 samples.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

SAMPLES_FOR_P99: Final = 1000
MEDIAN_RESAMPLES: Final = 1000
_US_MAX: Final = 600_000_000
_BOOTSTRAP_VALUES_MAX: Final = 2000
"""Larger samples are thinned by rank for the bootstrap; their medians hardly move any more, and the
interval only gets wider."""
CDF_POINTS: Final = 120
RESAMPLES: Final = 2000
_MIDDLE: Final = (2.5, 97.5)
_DIGIT_BITS: Final = 11
"""2,048 buckets per power of two: three digits."""

Ms = NDArray[np.float64]
Counts = dict[int, int]
"""Lower end of a bucket in µs -> how many."""
Values = NDArray[np.float64]
"""Samples of one repeat, ascending."""


def histogram(values_us: Sequence[int]) -> HdrHistogram:
    """An HDR histogram with three digits, of µs."""
    found = HdrHistogram(1, _US_MAX, 3)
    for value in values_us:
        found.record_value(min(max(int(value), 1), _US_MAX))
    return found


def percentiles(values_us: Sequence[int]) -> dict[str, float | None]:
    """`p50`, `p95`, `p99` (None below SAMPLES_FOR_P99 samples), `mean`, `max`, in ms, from an HDR
    histogram; all None for no samples."""
    if not len(values_us):
        return dict.fromkeys(("p50", "p95", "p99", "mean", "max"))
    found = histogram(values_us)

    def at(percent: float) -> float:
        return round(int(found.get_value_at_percentile(percent)) / 1000, 3)

    return {
        "p50": at(50),
        "p95": at(95),
        "p99": at(99) if len(values_us) >= SAMPLES_FOR_P99 else None,
        "mean": round(sum(values_us) / len(values_us) / 1000, 3),
        "max": round(max(values_us) / 1000, 3),
    }


def percentile(values: Ms, percent: float) -> float | None:
    """Of the samples of pooled repeats, in their unit, between two neighbours where need be. None
    for no values, and for a p99 of too few."""
    if not len(values) or (percent >= 99 and len(values) < SAMPLES_FOR_P99):
        return None
    return float(np.percentile(values, percent))


def cdf(values_us: Sequence[int]) -> list[list[float]]:
    """Points `[ms, share of samples at most that]`, denser towards the tail: what a logarithmic
    tail needs. At most CDF_POINTS + 1 of them."""
    count = len(values_us)
    if not count:
        return []
    ordered = np.sort(np.asarray(values_us, dtype=np.float64)) / 1000
    body = np.linspace(0, 0.9, CDF_POINTS // 2, endpoint=False)
    tail = 1 - np.geomspace(0.1, 1 / count, CDF_POINTS // 2) if count > 10 else np.array([0.9])
    ranks = np.unique(np.clip(np.ceil(np.append(body, tail) * count).astype(int), 1, count))
    points = [[round(float(ordered[rank - 1]), 3), round(rank / count, 6)] for rank in ranks]
    if points[-1][1] < 1:
        points.append([round(float(ordered[-1]), 3), 1.0])
    return points


def median_interval(values_us: Sequence[int], seed: int) -> tuple[float, float] | None:
    """95 % bootstrap interval of the median in ms; None for no samples."""
    if not len(values_us):
        return None
    low, high = np.percentile(_medians(values_us, np.random.default_rng([seed, 1])), (2.5, 97.5))
    return round(float(low) / 1000, 3), round(float(high) / 1000, 3)


def median_difference(a_us: Sequence[int], b_us: Sequence[int], seed: int) -> dict[str, Any] | None:
    """How much larger the median of `a` is than that of `b`: `median_ms`, the 95 % interval
    `low_ms` to `high_ms`, and `significant`. None where one of them has no samples."""
    if not len(a_us) or not len(b_us):
        return None
    rng = np.random.default_rng([seed, 2])
    differences = _medians(a_us, rng) - _medians(b_us, rng)
    low, high = np.percentile(differences, (2.5, 97.5)) / 1000
    return {
        "median_ms": round(float(np.median(a_us) - np.median(b_us)) / 1000, 3),
        "low_ms": round(float(low), 3),
        "high_ms": round(float(high), 3),
        "significant": not low <= 0 <= high,
    }


def _medians(values: Sequence[int], rng: np.random.Generator) -> NDArray[np.float64]:
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    count = len(ordered)
    if count > _BOOTSTRAP_VALUES_MAX:
        ranks = np.linspace(0, count - 1, _BOOTSTRAP_VALUES_MAX).round().astype(int)
        ordered, count = ordered[ranks], _BOOTSTRAP_VALUES_MAX
    drawn = ordered[rng.integers(0, count, (MEDIAN_RESAMPLES, count))]
    medians: NDArray[np.float64] = np.median(drawn, axis=1)
    return medians


# Counts per bucket -------------------------------------------------------------------------------


def bucket(us: int) -> int:
    """The lower end of the bucket of a time."""
    shift = us.bit_length() - _DIGIT_BITS
    return us >> shift << shift if shift > 0 else us


def count_percentile(counts: Counts, percent: float) -> int | None:
    """In µs; None for no counts."""
    return count_percentiles(counts, (percent,))[0]


def count_percentiles(counts: Counts, percents: Sequence[float]) -> list[int | None]:
    """Several of them, ascending, in µs."""
    total, below = sum(counts.values()), 0
    found: list[int | None] = []
    for us in sorted(counts):
        below += counts[us]
        while len(found) < len(percents) and below >= total * percents[len(found)] / 100 - 1e-9:
            found.append(us)
    return found + [None] * (len(percents) - len(found))


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


def ascending(values: Sequence[float] | NDArray[Any]) -> Values:
    """Samples as the functions of this file take them."""
    return np.sort(np.asarray(values, dtype=np.float64))


def quantile(repeats: Sequence[Values], share: float) -> float | None:
    """Mean over the repeats of the smallest sample that at least `share` (0 to 1) of the samples
    do not exceed; None where no repeat has samples."""
    found = [float(values[_rank(share, len(values)) - 1]) for values in repeats if len(values)]
    return sum(found) / len(found) if found else None


def interval(repeats: Sequence[Values], share: float, seed: int) -> tuple[float, float] | None:
    """95 % interval of `quantile`; None where no repeat has samples."""
    drawn = _draw(repeats, share, np.random.default_rng([seed, 1]))
    if drawn is None:
        return None
    low, high = np.percentile(drawn, _MIDDLE)
    return float(low), float(high)


def difference(
    a: Sequence[Values], b: Sequence[Values], share: float, seed: int
) -> Difference | None:
    """`quantile` of `a` less that of `b`; None where one of them has no samples."""
    rng = np.random.default_rng([seed, 2])
    ours, theirs = _draw(a, share, rng), _draw(b, share, rng)
    at_a, at_b = quantile(a, share), quantile(b, share)
    if ours is None or theirs is None or at_a is None or at_b is None:
        return None
    low, high = np.percentile(ours - theirs, _MIDDLE)
    return Difference(at_a - at_b, float(low), float(high))


def levels(repeats: int) -> str:
    """What an interval is over, for people."""
    if repeats == 1:
        return "the samples of one repeat"
    return f"{repeats} repeats and the samples within each"


def _rank(share: float, count: int) -> int:
    return min(max(ceil(share * count), 1), count)


def _draw(
    repeats: Sequence[Values], share: float, rng: np.random.Generator
) -> NDArray[np.float64] | None:
    """RESAMPLES figures of redrawn repeats."""
    kept = [values for values in repeats if len(values)]
    if not kept:
        return None
    within = np.empty((len(kept), len(kept), RESAMPLES))
    for i, values in enumerate(kept):
        count = len(values)
        rank = _rank(share, count)
        # One of its redrawn quantiles for each place at which the repeat may be drawn.
        places = rng.beta(rank, count + 1 - rank, (len(kept), RESAMPLES))
        within[i] = values[np.minimum((places * count).astype(int), count - 1)]
    if len(kept) == 1:
        only: NDArray[np.float64] = within[0, 0]
        return only
    chosen = rng.integers(0, len(kept), (len(kept), RESAMPLES))
    place, resample = np.indices(chosen.shape)
    mean: NDArray[np.float64] = within[chosen, place, resample].mean(axis=0)
    return mean
