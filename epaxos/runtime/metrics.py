"""Numbers about the running process, kept cheap and turned into text only when somebody asks.

`Distribution` is a histogram with a relative error below 1 %. Everything else is plain integers in
the objects that count; `status.py` shows them, at /metrics and in /v1/status.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

from hdrh.histogram import HdrHistogram

_US_MAX: Final = 120_000_000
_BITS: Final = 8
"""128 buckets per power of two, and one per µs below 256: those of an HDR histogram of two
digits."""


class Distribution:
    """Durations in microseconds, up to two minutes.

    Counts by itself, since a record in hdrh takes 4 µs and several are made per message."""

    __slots__ = ("_counts", "count", "total")

    def __init__(self) -> None:
        self._counts = [0] * (_index(_US_MAX) + 1)
        self.count = 0
        """How many were recorded."""
        self.total = 0
        """Sum of all recorded, in µs."""

    def record(self, micros: int, count: int = 1) -> None:
        """Add a duration that `count` things shared."""
        self.total += micros * count
        self.count += count
        self._counts[_index(min(max(micros, 1), _US_MAX))] += count

    def percentile(self, percent: float) -> int:
        """In µs, the upper end of a bucket; 0 where nothing was recorded."""
        if not self.count:
            return 0
        wanted = max(1, int(percent / 100 * self.count + 0.5))
        return _upper(bisect_left(list(accumulate(self._counts)), wanted))

    def summary(self) -> dict[str, int]:
        """Count and percentiles for /v1/status, in µs."""
        return {
            "count": self.count,
            "p50_us": self.percentile(50),
            "p90_us": self.percentile(90),
            "p99_us": self.percentile(99),
            "max_us": self.percentile(100),
        }

    def encoded(self) -> str:
        """Everything that was recorded, in the form that HDR histograms are passed around in: V2,
        compressed, base64."""
        histogram = HdrHistogram(1, _US_MAX, 2)
        # At once, because a record per bucket takes milliseconds, and the loop waits.
        histogram.counts[: len(self._counts)] = self._counts
        used = [index for index, count in enumerate(self._counts) if count]
        if used:
            histogram.set_internal_tacking_values(used[0], used[-1], self.count)
        text: bytes = histogram.encode()
        return text.decode("ascii")

    def buckets(self, bounds_us: Sequence[int]) -> list[tuple[str, float]]:
        """Cumulative counts as Prometheus wants them: (upper bound in seconds, count). A bucket
        that reaches over a bound is not below it."""
        shown: list[tuple[str, float]] = []
        running = start = 0
        for bound in bounds_us:
            end = _index(bound + 1)
            running += sum(self._counts[start:end])
            start = end
            shown.append((str(bound / 1e6), float(running)))
        shown.append(("+Inf", float(self.count)))
        return shown


def _index(micros: int) -> int:
    """Of the bucket of a duration."""
    shift = micros.bit_length() - _BITS
    return micros if shift <= 0 else (shift << _BITS - 1) + (micros >> shift)


def _upper(index: int) -> int:
    """The longest duration of a bucket, in µs."""
    shift = max(0, (index >> _BITS - 1) - 1)
    return (index - (shift << _BITS - 1) + 1 << shift) - 1


def milliseconds(micros: int) -> float:
    """For documents that people read."""
    return round(micros / 1000, 3)


Document = dict[str, Any]
"""Values that JSON can say."""
