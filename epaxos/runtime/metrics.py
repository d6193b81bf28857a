"""Numbers about the running process, kept cheap and turned into text only when somebody asks.

`Distribution` is a histogram with a relative error below 1 %. Everything else is plain integers in
the objects that count; `http.py` shows them at /metrics, `server.py` in /v1/status.
"""

from collections.abc import Sequence
from typing import Any, Final

from hdrh.histogram import HdrHistogram

_US_MAX: Final = 120_000_000


class Distribution:
    """Durations in microseconds, up to two minutes."""

    __slots__ = ("_histogram", "total")

    def __init__(self) -> None:
        self._histogram = HdrHistogram(1, _US_MAX, 2)
        self.total = 0
        """Sum of all recorded, in µs."""

    def record(self, micros: int, count: int = 1) -> None:
        """Add a duration that `count` things shared."""
        self.total += micros * count
        self._histogram.record_value(min(max(micros, 1), _US_MAX), count)

    @property
    def count(self) -> int:
        """How many were recorded."""
        return int(self._histogram.total_count)

    def percentile(self, percent: float) -> int:
        """In µs; 0 where nothing was recorded."""
        return int(self._histogram.get_value_at_percentile(percent)) if self.count else 0

    def summary(self) -> dict[str, int]:
        """Count and percentiles for /v1/status, in µs."""
        return {
            "count": self.count,
            "p50_us": self.percentile(50),
            "p90_us": self.percentile(90),
            "p99_us": self.percentile(99),
            "max_us": int(self._histogram.get_max_value()) if self.count else 0,
        }

    def encoded(self) -> str:
        """Everything that was recorded, in the form that HDR histograms are passed around in: V2,
        compressed, base64."""
        text: bytes = self._histogram.encode()
        return text.decode("ascii")

    def buckets(self, bounds_us: Sequence[int]) -> list[tuple[str, float]]:
        """Cumulative counts as Prometheus wants them: (upper bound in seconds, count)."""
        # Slices of the counts, because hdrh's iterators take milliseconds, and the loop waits.
        counts, index_of = self._histogram.counts, self._histogram.get_counts_array_index
        shown: list[tuple[str, float]] = []
        running = start = 0
        for bound in bounds_us:
            end = index_of(bound + 1)
            running += sum(counts[start:end])
            start = end
            shown.append((str(bound / 1e6), float(running)))
        shown.append(("+Inf", float(self.count)))
        return shown


def milliseconds(micros: int) -> float:
    """For documents that people read."""
    return round(micros / 1000, 3)


Document = dict[str, Any]
"""Values that JSON can say."""
