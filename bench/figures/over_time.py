"""The pooled repeats of a trial over time: answers per second and medians in short steps.

Rules of this file: times in seconds from the start of what is measured; a step without answers is a
gap in medians, and zero in rates.
"""

import numpy as np

from bench.analysis.statistics import Ms
from bench.drawing.timeline import Curve, median_per_step
from bench.figures.plan import PooledTrials


def answers_per_s(pool: PooledTrials, region: str | None, step_s: float) -> Curve:
    """Answers per second, by when they came."""
    starts, answers = _times(pool, region)
    edges = _edges(pool, step_s)
    counts, _ = np.histogram(starts + answers / 1000, edges)
    return Curve(_middles(edges), (counts / step_s / len(pool.outcomes)).tolist())


def medians(pool: PooledTrials, region: str, step_s: float) -> Curve:
    """Median execution latency in ms, by when it was asked."""
    starts, answers = _times(pool, region)
    edges = _edges(pool, step_s)
    return Curve(_middles(edges), median_per_step(starts, answers, edges))


def _times(pool: PooledTrials, region: str | None) -> tuple[Ms, Ms]:
    """Starts in s and execution latencies in ms, of one region or of all."""
    number = None if region is None else pool.regions.index(region)
    first_s = pool.trial.warmup_s
    mine = [(s.start_us, s.answer_us) for s in pool.samples if number in (None, s.region)]
    table = np.array(mine, dtype=np.float64).reshape(-1, 2)
    return table[:, 0] / 1e6 - first_s, table[:, 1] / 1000


def _edges(pool: PooledTrials, step_s: float) -> Ms:
    return np.arange(0, pool.trial.duration_s + step_s / 2, step_s, dtype=np.float64)


def _middles(edges: Ms) -> list[float]:
    return [round(float(each), 3) for each in (edges[:-1] + edges[1:]) / 2]
