"""Which conflicts really happened, and whether they explain the slow paths.

Two commands on one key, at least one of them a write, meet when one is proposed while the other,
from another region, may be unknown somewhere: from its start until its Commit has reached
everybody. A batch meets another when one of its commands does. A slow path is explained when its
batch met one. A command on a key of its own never meets anything; its batch may still carry one on
a shared key.

Rules of this file: samples only; it does not know the protocols. An explanation is necessary, not
sufficient.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from bench.load.samples import Sample
from epaxos.core.command import Operation
from epaxos.core.replica import Path
from epaxos.core.types import Micros
from epaxos.workload import OWN_KEY


class Realised(NamedTuple):
    """Counts of measured commands, and of the batches that carried them."""

    commands: int
    shared: int
    """On shared keys."""
    met: int
    """On shared keys, and another region's interfering command was under way."""
    batches: int
    """Instances (of a slot protocol: slots) with a measured command."""
    batches_met: int
    """Of these: at least one of their commands met another."""
    slow: int
    """Decided by the slow path or by recovery."""
    unexplained: int
    """Slow, and no command of the instance met another."""


def realised(samples: Sequence[Sample], spread_us: Micros) -> Realised:
    """Count what met what. `samples` are all, also those of the warm-up; `spread_us` is how long a
    Commit travels at most."""
    meeting = _meeting(samples, spread_us)
    met = {(s.replica, s.slot) for s, has_met in zip(samples, meeting) if has_met}
    batches = {(s.replica, s.slot) for s in samples if s.measured}
    slow = [s for s in samples if s.measured and s.path in (Path.SLOW, Path.RECOVERED)]
    return Realised(
        commands=sum(s.measured for s in samples),
        shared=sum(s.measured and s.shared != OWN_KEY for s in samples),
        met=sum(s.measured and has_met for s, has_met in zip(samples, meeting)),
        batches=len(batches),
        batches_met=len(batches & met),
        slow=len(slow),
        unexplained=sum((s.replica, s.slot) not in met for s in slow),
    )


def _meeting(samples: Sequence[Sample], spread_us: Micros) -> list[bool]:
    """For each sample, whether another region's interfering command on its key was under way."""
    found = [False] * len(samples)
    by_key: dict[int, list[int]] = {}
    for i, sample in enumerate(samples):
        if sample.shared != OWN_KEY:
            by_key.setdefault(sample.shared, []).append(i)
    for indices in by_key.values():
        indices.sort(key=lambda i: samples[i].start_us)
        # The one that started before and is known everywhere last; the one that starts next.
        last, following = _Extremes(max), _Extremes(min)
        for i in indices:
            mine = samples[i]
            end = last.of_others(mine)
            found[i] = end is not None and end >= mine.start_us
            last.add(mine, mine.start_us + mine.answer_us + spread_us)
        for i in reversed(indices):
            mine = samples[i]
            start = following.of_others(mine)
            found[i] |= start is not None and start <= mine.start_us + mine.answer_us
            following.add(mine, mine.start_us)
    return found


class _Extremes:
    """Per region the extreme moment of its writes, and of all its commands, on one key."""

    def __init__(self, extreme: Callable[[Micros, Micros], Micros]) -> None:
        self._extreme = extreme
        self._writes: dict[int, Micros] = {}
        self._all: dict[int, Micros] = {}

    def add(self, sample: Sample, moment: Micros) -> None:
        tables = (self._all,) if sample.operation == Operation.GET else (self._all, self._writes)
        for table in tables:
            table[sample.region] = self._extreme(table.get(sample.region, moment), moment)

    def of_others(self, sample: Sample) -> Micros | None:
        """The extreme of what other regions' commands interfere with a sample; None: nothing."""
        found = None
        table = self._writes if sample.operation == Operation.GET else self._all
        for region, moment in table.items():
            if region != sample.region:
                found = moment if found is None else self._extreme(found, moment)
        return found
