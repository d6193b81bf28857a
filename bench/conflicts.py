"""Which conflicts really happened, and whether they explain the slow paths.

Two commands on one shared key meet when one is proposed while the other, from another region, may
be unknown somewhere: from its start until its Commit has reached everybody. A slow path is
explained
when a command of its instance met one. A command on a key of its own never meets anything; its
instance may still carry one on a shared key.

Rules of this file: samples only; it does not know the protocols. Reads count like writes, so an
explanation is necessary, not sufficient.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from bench.load import Sample
from bench.workload import OWN_KEY
from epaxos.core.replica import Path
from epaxos.core.types import Micros


class Realised(NamedTuple):
    """Counts of measured commands."""

    commands: int
    shared: int
    """On shared keys."""
    met: int
    """On shared keys, and another region's command on the same key was under way."""
    slow: int
    """Decided by the slow path or by recovery."""
    unexplained: int
    """Slow, and no command of the instance met another."""


def realised(samples: Sequence[Sample], spread_us: Micros) -> Realised:
    """Count what met what. `samples` are all, also those of the warm-up; `spread_us` is how long a
    Commit travels at most."""
    meeting = _meeting(samples, spread_us)
    explained = {(s.replica, s.slot) for s, met in zip(samples, meeting) if met}
    slow = [s for s in samples if s.measured and s.path in (Path.SLOW, Path.RECOVERED)]
    return Realised(
        commands=sum(s.measured for s in samples),
        shared=sum(s.measured and s.shared != OWN_KEY for s in samples),
        met=sum(s.measured and met for s, met in zip(samples, meeting)),
        slow=len(slow),
        unexplained=sum((s.replica, s.slot) not in explained for s in slow),
    )


def _meeting(samples: Sequence[Sample], spread_us: Micros) -> list[bool]:
    """For each sample, whether another region's command on its key was under way."""
    found = [False] * len(samples)
    by_key: dict[int, list[int]] = {}
    for i, sample in enumerate(samples):
        if sample.shared != OWN_KEY:
            by_key.setdefault(sample.shared, []).append(i)
    for indices in by_key.values():
        indices.sort(key=lambda i: samples[i].start_us)
        starts = [samples[i].start_us for i in indices]
        longest = max(samples[i].answer_us for i in indices) + spread_us
        for i in indices:
            mine = samples[i]
            end = mine.start_us + mine.answer_us
            for j in indices[bisect_left(starts, mine.start_us - longest) :]:
                other = samples[j]
                if other.start_us > end:
                    break
                ends = other.start_us + other.answer_us + spread_us
                if other.region != mine.region and ends >= mine.start_us:
                    found[i] = True
                    break
    return found
