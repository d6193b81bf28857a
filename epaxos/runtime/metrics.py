"""Numbers about the running process, kept cheap and turned into text only when somebody asks.

`Distribution` is a histogram of three digits. Everything else is plain integers in the objects
that count; `status.py` shows them, at /metrics and in /v1/status.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

from hdrh.histogram import HdrHistogram

from epaxos.percentile import (
    Counts,
    bucket,
    bucket_end,
    bucket_index,
    count_percentile,
    count_percentiles,
)

_US_MAX: Final = 120_000_000
_SUMMARIZED: Final = (50, 90, 99, 100)


class Distribution:
    """Durations in microseconds, up to two minutes.

    Counts by itself, since a record in hdrh takes 4 µs and several are made per message."""

    __slots__ = ("_counts", "count", "total")

    def __init__(self) -> None:
        self._counts: Counts = defaultdict(int)
        self.count = 0
        """How many were recorded."""
        self.total = 0
        """Sum of all recorded, in µs."""

    def record(self, micros: int, count: int = 1) -> None:
        """Add a duration that `count` things shared."""
        self.total += micros * count
        self.count += count
        self._counts[bucket(min(max(micros, 1), _US_MAX))] += count

    def percentile(self, percent: float) -> int | None:
        """In µs, as epaxos.percentile defines it; None where nothing was recorded."""
        return count_percentile(self._counts, percent)

    def summary(self) -> dict[str, int | None]:
        """Count and percentiles for /v1/status, in µs; None where nothing was recorded."""
        found = count_percentiles(self._counts, _SUMMARIZED)
        names = ("p50_us", "p90_us", "p99_us", "max_us")
        return {"count": self.count, **dict(zip(names, found))}

    def encoded(self) -> str:
        """Everything that was recorded, in the form that HDR histograms are passed around in: V2,
        compressed, base64."""
        histogram = HdrHistogram(1, _US_MAX, 3)
        # At once, because a record per bucket takes milliseconds, and the loop waits.
        counts = [0] * (bucket_index(_US_MAX) + 1)
        for us, count in self._counts.items():
            counts[bucket_index(us)] = count
        histogram.counts[: len(counts)] = counts
        if self.count:
            lowest, highest = bucket_index(min(self._counts)), bucket_index(max(self._counts))
            histogram.set_internal_tacking_values(lowest, highest, self.count)
        text: bytes = histogram.encode()
        return text.decode("ascii")

    def buckets(self, bounds_us: Sequence[int]) -> list[tuple[str, float]]:
        """Cumulative counts as Prometheus wants them: (upper bound in seconds, count). A bucket
        that reaches over a bound is not below it."""
        lower = sorted(self._counts)
        ends = [bucket_end(us) for us in lower]
        sums = [0, *accumulate(self._counts[us] for us in lower)]
        shown = [
            (str(bound / 1e6), float(sums[bisect_left(ends, bound + 1)])) for bound in bounds_us
        ]
        return [*shown, ("+Inf", float(self.count))]


def milliseconds(micros: int) -> float:
    """For documents that people read."""
    return round(micros / 1000, 3)


Document = dict[str, Any]
"""Values that JSON can say."""
