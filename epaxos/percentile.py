"""The percentile: one definition, for replicas, clients, simulator, tables, reports and drawings.

The p-th percentile of n samples is the smallest sample that at least p % of the samples do not
exceed: the one of rank ceil(p n / 100) in ascending order (nearest rank). It is always a sample,
never a value between two; no samples have none.

Where times are too many to keep, they are counted per bucket: one per µs below 2,048, 1,024 per
power of two above (three digits, the buckets of an HDR histogram). A percentile of such counts is
the midpoint of the bucket that holds the sample of that rank, so it lies within ERROR_MAX of that
sample, and within 1 µs of it below 4,096 µs.

Rules of this file: nothing else in the project computes a percentile or a median; a rank is found
with whole numbers, so that 99 % of 1,000 samples are 990 of them on every machine.
"""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from typing import Final, Protocol, TypeVar

_DIGIT_BITS: Final = 11
"""2,048 values have a bucket each; above, half as many buckets per power of two."""
ERROR_MAX: Final = 1 / (1 << _DIGIT_BITS)
"""Largest relative distance of a bucket's midpoint from a time in the bucket: 0.049 %."""

Counts = dict[int, int]
"""Lower end of a bucket in µs -> how many samples it holds."""
_Sample = TypeVar("_Sample")
_Held = TypeVar("_Held", covariant=True)


class Ascending(Protocol[_Held]):
    """Samples in ascending order: a list, a tuple, an array."""

    def __len__(self) -> int: ...

    def __getitem__(self, at: int, /) -> _Held: ...


def rank(percent: float, count: int) -> int:
    """The place of a percentile among `count` samples in ascending order, from 1 to `count`."""
    part = _part(percent)
    return min(max(-(-part.numerator * count // part.denominator), 1), count)


@lru_cache(maxsize=1024)
def _part(percent: float) -> Fraction:
    """The decimal that was written: 99.9 is 999 of 1,000, which no float is."""
    return Fraction(str(percent)) / 100


def percentile(ascending: Ascending[_Sample], percent: float) -> _Sample | None:
    """A percentile of samples in ascending order; None for no samples."""
    if not len(ascending):
        return None
    return ascending[rank(percent, len(ascending)) - 1]


def median(samples: Sequence[_Sample]) -> _Sample | None:
    """The 50th percentile of samples in any order; None for no samples."""
    return percentile(sorted(samples), 50)  # type: ignore[type-var] # samples of one kind compare


# Counts per bucket -------------------------------------------------------------------------------


def bucket(us: int) -> int:
    """The lower end of the bucket of a time."""
    shift = us.bit_length() - _DIGIT_BITS
    return us >> shift << shift if shift > 0 else us


def midpoint(us: int) -> int:
    """The time that stands for the bucket with this lower end."""
    shift = us.bit_length() - _DIGIT_BITS
    return us + (1 << shift >> 1) if shift > 0 else us


def bucket_end(us: int) -> int:
    """The longest time in the bucket with this lower end."""
    shift = us.bit_length() - _DIGIT_BITS
    return us + (1 << shift) - 1 if shift > 0 else us


def bucket_index(us: int) -> int:
    """The number of the bucket of a time, from 0: its place in the counts of an HDR histogram of
    three digits that begins at 1 µs."""
    shift = us.bit_length() - _DIGIT_BITS
    return us if shift <= 0 else (shift << _DIGIT_BITS - 1) + (us >> shift)


def count_percentile(counts: Mapping[int, int], percent: float) -> int | None:
    """In µs; None for no counts."""
    return count_percentiles(counts, (percent,))[0]


def count_percentiles(counts: Mapping[int, int], percents: Sequence[float]) -> list[int | None]:
    """Several of them, ascending, in µs."""
    found: list[int | None] = [midpoint(us) for us in weighted(counts, percents)]
    return found or [None] * len(percents)


def weighted(counts: Mapping[_Sample, int], percents: Sequence[float]) -> Iterator[_Sample]:
    """Percentiles, ascending, of samples that each occur so many times; none for no samples."""
    values = sorted(counts)  # type: ignore[type-var] # samples of one kind compare
    sums = list(accumulate(counts[value] for value in values))
    at = 0
    for percent in percents if sums and sums[-1] else ():
        wanted = rank(percent, sums[-1])
        while sums[at] < wanted:
            at += 1
        yield values[at]
