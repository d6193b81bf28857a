"""A trial over time: what clients were answered in short steps, with what went wrong as shades.

Rules of this file: times in seconds from the start of what is measured; a step without answers is a
gap in medians, and zero in rates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes

from bench.clusters.faults import Happened
from bench.drawing import style
from bench.figures.plan import Ms, Pool

_MARKS: Final = 12
"""How many markers a line gets, at most about so many."""


@dataclass(frozen=True)
class Curve:
    """A value per step."""

    at_s: list[float]
    """The middle of each step."""
    values: list[float]


def answers_per_s(pool: Pool, region: str | None, step_s: float) -> Curve:
    """Answers per second, by when they came."""
    starts, answers = _times(pool, region)
    edges = _edges(pool, step_s)
    counts, _ = np.histogram(starts + answers / 1000, edges)
    return Curve(_middles(edges), (counts / step_s / len(pool.outcomes)).tolist())


def medians(pool: Pool, region: str, step_s: float) -> Curve:
    """Median execution latency in ms, by when it was asked."""
    starts, answers = _times(pool, region)
    edges = _edges(pool, step_s)
    return Curve(_middles(edges), median_per_step(starts, answers, edges))


def median_per_step(starts: Ms, values: Ms, edges: Ms) -> list[float]:
    """The median of the values that begin between each two neighbouring edges; NaN for none."""
    steps = np.digitize(starts, edges) - 1
    return [
        float(np.median(values[steps == step])) if (steps == step).any() else float("nan")
        for step in range(len(edges) - 1)
    ]


def _times(pool: Pool, region: str | None) -> tuple[Ms, Ms]:
    """Starts in s and execution latencies in ms, of one region or of all."""
    number = None if region is None else pool.regions.index(region)
    first_s = pool.trial.warmup_s
    mine = [(s.start_us, s.answer_us) for s in pool.samples if number in (None, s.region)]
    table = np.array(mine, dtype=np.float64).reshape(-1, 2)
    return table[:, 0] / 1e6 - first_s, table[:, 1] / 1000


def _edges(pool: Pool, step_s: float) -> Ms:
    return np.arange(0, pool.trial.duration_s + step_s / 2, step_s, dtype=np.float64)


def _middles(edges: Ms) -> list[float]:
    return [round(float(each), 3) for each in (edges[:-1] + edges[1:]) / 2]


def shade(axes: Axes, events: Sequence[Happened], end_s: float) -> None:
    """What went wrong: a shade while it lasted, a line for a moment."""
    for event in events:
        if event.kind == "leader":
            axes.axvline(event.at_s, color=style.INK, linewidth=0.8, linestyle=(0, (4, 2)))
        else:
            until = end_s if event.until_s is None else event.until_s
            axes.axvspan(event.at_s, until, color=style.FAULT, linewidth=0, zorder=0)


def draw_curve(axes: Axes, curve: Curve, look: style.Look, label: str | None = None) -> None:
    """A line with a marker now and then."""
    every = max(1, len(curve.at_s) // _MARKS)
    axes.plot(curve.at_s, curve.values, markevery=every, label=label, **look.plotted)
