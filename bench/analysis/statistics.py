"""Percentiles, and when a difference is one.

A difference of medians is significant when its 95 % bootstrap interval excludes 0: both samples are
drawn again, with replacement, many times, and the middle 95 % of the differences of their medians
are the interval.

Rules of this file: seeded, so that the same samples give the same sentence; milliseconds; a p99 is
stated only from SAMPLES_FOR_P99 samples.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

SAMPLES_FOR_P99: Final = 1000
RESAMPLES: Final = 1000
_US_MAX: Final = 600_000_000
_BOOTSTRAP_VALUES_MAX: Final = 2000
"""Larger samples are thinned by rank for the bootstrap; their medians hardly move any more, and the
interval only gets wider."""
CDF_POINTS: Final = 120


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


def difference(a_us: Sequence[int], b_us: Sequence[int], seed: int) -> dict[str, Any] | None:
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
    drawn = ordered[rng.integers(0, count, (RESAMPLES, count))]
    medians: NDArray[np.float64] = np.median(drawn, axis=1)
    return medians
