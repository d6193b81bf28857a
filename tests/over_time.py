"""A load over time: throughput and latency of each region, in bins.

A command counts for throughput when it is answered, and for latency when it was asked: a fault
shows as a gap in the one and as a peak in the other from the moment it begins.

Rules of this file: samples in, numbers out; times are seconds from the start of what is measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.load.samples import Sample
from epaxos.percentile import median


@dataclass(frozen=True)
class Line:
    """One region over time; all lists have one entry per bin."""

    at_s: list[float]
    """The middle of the bin."""
    answers_per_s: list[float]
    median_ms: list[float | None]
    """Answer latency; None: nothing that was asked then was ever answered."""
    max_ms: list[float | None]


def binned(
    samples: Sequence[Sample], regions: int, width_s: float, warmup_s: float, duration_s: float
) -> list[Line]:
    """The lines of so many regions, in bins of `width_s` from 0 to `duration_s`; the last bin may
    be narrower. `samples` are those of a load with that warm-up."""
    edges = np.append(np.arange(0, duration_s - width_s / 1000, width_s), duration_s)
    table = np.array([(s.region, s.start_us, s.answer_us) for s in samples], dtype=np.float64)
    table = table.reshape(-1, 3)
    asked_s = table[:, 1] / 1e6 - warmup_s
    answered_s = asked_s + table[:, 2] / 1e6
    bins = np.searchsorted(edges, asked_s, side="right") - 1
    lines = []
    for region in range(regions):
        mine = table[:, 0] == region
        counts, _ = np.histogram(answered_s[mine], edges)
        latencies = [table[mine & (bins == i), 2] / 1000 for i in range(len(edges) - 1)]
        lines.append(
            Line(
                at_s=np.round((edges[:-1] + edges[1:]) / 2, 3).tolist(),
                answers_per_s=(counts / np.diff(edges)).tolist(),
                median_ms=[median(each.tolist()) for each in latencies],
                max_ms=[float(each.max()) if len(each) else None for each in latencies],
            )
        )
    return lines
