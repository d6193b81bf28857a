"""Progress of work that takes long: what runs, how much of it is done, how long the rest may take.

Comparisons, sweeps, the benchmark and load tests report it alike; what shows a report needs to know
nothing else of them.

Rules of this file: it counts and estimates; showing is the command line's business.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Final, TypeAlias, TypeVar

_JUDGED_FROM: Final = 0.05
"""From this share on, the estimate follows the pace so far."""


@dataclass(frozen=True, kw_only=True)
class ProgressReport:
    """State of work that takes long. Work that has more to report extends it."""

    what: str = ""
    """Part that runs, like `MP @CA`; empty where there is only one."""
    activity: str
    """Like `2 % conflicts` or `starting 5 replicas`."""
    share: float = 0.0
    """Done of this activity, 0 to 1."""
    total: float
    """Done of the whole, 0 to 1."""
    left_s: float
    """Estimate."""


_Report = TypeVar("_Report", bound=ProgressReport)
Watch: TypeAlias = Callable[[_Report], None]
"""Receives each report as it is made. Called in any thread, but never twice at a time."""


def ignore(report: ProgressReport) -> None:
    """The `Watch` of work that nobody looks at."""


class ProgressClock:
    """Reports from parts of the whole and the time that each is expected to take.

    The expectation holds until enough is done to judge it by; then the pace so far does, taken from
    the first report on: until then processes are started, which happens once. Several parts may
    run at a time, each with one activity; `at_once` of them make the whole so much shorter."""

    def __init__(self, expected_s: float, watch: Watch[ProgressReport], at_once: int = 1) -> None:
        self._watch = watch
        self._expected_pace = 1 / at_once
        """Seconds per second of what was expected."""
        self._whole_s = max(expected_s, 1e-9)
        self._ended_s = 0.0
        """Of what was expected, the activities that have ended."""
        self._running: dict[str, float] = {}
        """Part -> the same of its present activity."""
        self._begun: float | None = None
        """When the pace began to be taken; None: with the next report."""
        self._begun_s = 0.0
        """Done when the pace began to be taken."""
        self._lock = Lock()

    def tell(self, what: str, activity: str, share: float = 0.0, expected_s: float = 0.0) -> None:
        """Report that `share` of an activity is done, which takes `expected_s` in all."""
        with self._lock:
            share = min(share, 1.0)
            self._running[what] = share * expected_s
            total, left_s = self._estimate()
            self._watch(
                ProgressReport(
                    what=what, activity=activity, share=share, total=total, left_s=left_s
                )
            )

    def ended(self, what: str, expected_s: float) -> None:
        """Count an activity as done. It is not reported before the next one."""
        with self._lock:
            self._running.pop(what, None)
            self._ended_s += expected_s

    def take_pace_anew(self) -> None:
        """Forget the pace: other machinery takes over."""
        with self._lock:
            self._begun, self._begun_s = None, self._done_s

    @property
    def _done_s(self) -> float:
        return self._ended_s + sum(self._running.values())

    def _estimate(self) -> tuple[float, float]:
        """Share of the whole that is done, and seconds that are left."""
        done_s = min(self._done_s, self._whole_s)
        paced_s = done_s - self._begun_s
        if self._begun is None:
            self._begun = time.monotonic()
        spent_s = time.monotonic() - self._begun
        is_judged = paced_s > _JUDGED_FROM * self._whole_s and spent_s > 0
        pace = spent_s / paced_s if is_judged else self._expected_pace
        return done_s / self._whole_s, (self._whole_s - done_s) * pace
