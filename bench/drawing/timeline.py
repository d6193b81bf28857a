"""Curves over time, with what went wrong as shades.

Rules of this file: times in seconds from the start of what is measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes

from bench.analysis.statistics import Ms
from bench.clusters.faults import Happened
from bench.drawing import style
from bench.drawing.draw import gaps
from epaxos.percentile import median

_MARKS: Final = 12
"""How many markers a line gets, at most about so many."""


@dataclass(frozen=True)
class Curve:
    """A value per step."""

    at_s: list[float]
    """The middle of each step."""
    values: list[float] | list[float | None]
    """None is a gap."""


def median_per_step(starts: Ms, values: Ms, edges: Ms) -> list[float | None]:
    """The median of the values that begin between each two neighbouring edges; None for none."""
    steps = np.digitize(starts, edges) - 1
    return [median(values[steps == step].tolist()) for step in range(len(edges) - 1)]


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
    axes.plot(curve.at_s, gaps(curve.values), markevery=every, label=label, **look.plotted)
