"""Where the time of a command goes: the stages of sampled batches, per run and region, stacked.

Replicas stamp a sample of their batches (`epaxos.node.sampling`) and keep the latest; here they
are read at the end of a load. Medians of stages would not add up to anything, so a bar shows the
typical batch: the mean of each stage over the middle fifth of the samples, by answer. Its stages
add up.

Rules of this file: stages are those of the replica that was asked, by its own clock; ways to it and
a client's own delays are no part of them.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from epaxos.node.sampling import SAMPLES_KEPT, STAGES

PATH: Final = f"/v1/explain?limit={SAMPLES_KEPT}"
"""What a replica is asked at the end of a load."""
PER_SECOND: Final = 100
"""How many batches per second are sampled in virtual time; real replicas: their default."""
MIDDLE: Final = 0.2
"""The share of the samples, around the median answer, of which a typical batch is made."""
Document = dict[str, Any]


class Sampled(NamedTuple):
    """One sampled batch that was answered."""

    answer_ms: float
    stages: dict[str, float]
    """Length of each stage it went through, in ms; together `answer_ms`."""
    closed_by: str | None
    """Letter of the replica whose answer decided it."""


def answered(documents: Iterable[Document], window_s: float) -> tuple[Sampled, ...]:
    """Of what a replica explained, the batches of the last `window_s` that were answered."""
    found = []
    for each in documents:
        if each["answer_ms"] is None or each["age_ms"] > window_s * 1000:
            continue
        closers = [stage["closed_by"] for stage in each["stages"] if stage["closed_by"]]
        found.append(
            Sampled(
                each["answer_ms"],
                {stage["name"]: stage["ms"] for stage in each["stages"]},
                closers[-1] if closers else None,
            )
        )
    return tuple(found)


def typical(samples: Sequence[Sampled]) -> dict[str, float]:
    """The mean length of each stage over the middle of the samples, in ms, in order."""
    ordered = sorted(samples, key=lambda sample: sample.answer_ms)
    count = max(1, round(len(ordered) * MIDDLE))
    first = (len(ordered) - count) // 2
    middle = ordered[first : first + count]
    present = {name for sample in middle for name in sample.stages}
    return {
        name: round(sum(sample.stages.get(name, 0.0) for sample in middle) / len(middle), 3)
        for name in STAGES
        if name in present
    }


def waterfall(run: str, region: str, samples: Sequence[Sampled], regions: list[str]) -> Document:
    """What the report shows of one run and region; `regions` by letter."""
    closers = Counter(sample.closed_by for sample in samples if sample.closed_by)
    return {
        "run": run,
        "region": region,
        "samples": len(samples),
        "stages": typical(samples),
        "closed_by": {
            regions[ord(letter) - ord("A")]: round(times / len(samples), 3)
            for letter, times in closers.most_common()
        },
    }
