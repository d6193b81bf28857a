"""Bootstrap intervals over repeats, and over the samples within each.

A figure of a cell is a quantile of each repeat, averaged over the repeats. To know how far it may
be off, everything is drawn again, with replacement, at both levels: as many repeats as there are,
and within each drawn repeat as many samples as it has. The middle 95 % of the figures so found are
the interval. With one repeat only its samples are drawn again: what another run would give is then
not in the interval, and `levels` says so.

A quantile of a redrawn sample need not be drawn sample by sample: its rank in the original is that
of an order statistic of uniform numbers, which is Beta distributed.

Rules of this file: seeded, so that the same samples give the same interval; any unit in, the same
unit out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

RESAMPLES: Final = 2000
_MIDDLE: Final = (2.5, 97.5)

Values = NDArray[np.float64]
"""Samples of one repeat, ascending."""


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
