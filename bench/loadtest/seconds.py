"""A load second by second: what was answered in each region, and how fast.

`seconds.csv` in a run's results holds every second of the load, with its warm-ups, by when answers
came: `at_s` (from the first answer or failure of the run), `region`, `answers`, `failed`, `p50_ms`,
`p95_ms`. A region has no line for a second in which nothing came back.

Rules of this file: nothing is kept of a second that is written; the file grows by a line per region
and second.
"""

import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Final, NamedTuple

from bench.analysis.statistics import ms_of
from bench.loadtest.counts import SecondCounts
from epaxos.percentile import count_percentiles

SECONDS: Final = "seconds.csv"
SETTLED_S: Final = 5
"""So long after a second its counts have come from all processes."""


class Second(NamedTuple):
    """One region in one second."""

    at_s: int
    region: str
    answers: int
    failed: int
    p50_ms: float | None
    p95_ms: float | None


class SecondsFile:
    """Writes seconds down when they are over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._first: int | None = None

    def due(
        self, counts: dict[tuple[int, str], SecondCounts], until: int | None = None
    ) -> list[Second]:
        """Take the seconds before `until` (None: all) out of the counts, in order."""
        taken = sorted(key for key in counts if until is None or key[0] < until)
        if taken and self._first is None:
            self._first = taken[0][0]
        return [self._second(at, region, counts.pop((at, region))) for at, region in taken]

    def _second(self, at: int, region: str, counts: SecondCounts) -> Second:
        p50, p95 = map(ms_of, count_percentiles(counts.answer, (50, 95)))
        answers = sum(counts.answer.values())
        return Second(at - (self._first or 0), region, answers, counts.failed, p50, p95)

    def write(self, seconds: Sequence[Second], *, anew: bool = False) -> None:
        """Append them; `anew`: a run begins. Raises OSError."""
        text = StringIO()
        writer = csv.writer(text)
        if anew:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            writer.writerow(Second._fields)
        writer.writerows(seconds)
        with self._path.open("w" if anew else "a", encoding="utf-8", newline="") as file:
            file.write(text.getvalue())


def read_seconds(path: Path) -> list[Second]:
    """What was written; nothing where there is no such file. Raises OSError."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Second(
                int(row["at_s"]),
                row["region"],
                int(row["answers"]),
                int(row["failed"]),
                float(row["p50_ms"]) if row["p50_ms"] else None,
                float(row["p95_ms"]) if row["p95_ms"] else None,
            )
            for row in csv.DictReader(file)
        ]
