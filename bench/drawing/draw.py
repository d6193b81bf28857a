"""The panels that several figures share: bars per region, tails, lines over a parameter.

Rules of this file: it draws what it is given and computes nothing; milliseconds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from bench.analysis.statistics import MARKED, Ms
from bench.drawing.style import INK, Look
from epaxos.percentile import rank

Point = tuple[float | None, float | None]
"""A median and a 99th percentile in ms; None: not known."""

_GROUP: Final = 0.82
"""Share of its place that a group of bars takes."""
_TAIL_POINTS: Final = 200


@dataclass(frozen=True)
class Bars:
    """One bar per region."""

    label: str
    look: Look
    points: Mapping[str, Point]
    """Ours, by region."""
    published: Mapping[str, Point] = field(default_factory=dict)
    """The paper's, by region."""
    implied: Mapping[str, Point] = field(default_factory=dict)
    """Ours under the round trips that the paper's medians imply, by region."""


def bars_by_region(axes: Axes, regions: Sequence[str], series: Sequence[Bars]) -> None:
    """Bars of medians with whiskers to the 99th percentile; diamonds and triangles are published
    ones."""
    width = _GROUP / len(series)
    for number, each in enumerate(series):
        places = [at - _GROUP / 2 + width * (number + 0.5) for at in range(len(regions))]
        for at, (place, region) in enumerate(zip(places, regions)):
            median, tail = each.points.get(region, (None, None))
            if median is not None:
                label = each.label if at == 0 else None
                axes.bar(place, median, width, label=label, **each.look.filled)
            if median is not None and tail is not None:
                axes.plot((place, place), (median, tail), color=INK, linewidth=0.7)
                axes.plot(place, tail, marker="_", color=INK, markersize=3.5)
            implied, _ = each.implied.get(region, (None, None))
            if implied is not None:
                ends = (place - width / 2, place + width / 2)
                axes.plot(ends, (implied, implied), color=INK, linewidth=1.6, zorder=4)
            known, known_tail = each.published.get(region, (None, None))
            if known is not None:
                axes.plot(place, known, **_PUBLISHED, marker="D", markersize=3.2)
            if known_tail is not None:
                axes.plot(place, known_tail, **_PUBLISHED, marker="^", markersize=3.4)
    axes.set_xticks(range(len(regions)), regions)
    axes.tick_params(axis="x", length=0)
    axes.margins(x=0.01)
    axes.set_ylim(bottom=0)


_PUBLISHED: Final[dict[str, Any]] = {
    "color": INK,
    "markerfacecolor": "white",
    "markeredgewidth": 0.8,
    "linestyle": "none",
    "zorder": 5,
}


def published_handles(*, implied: bool) -> list[Line2D]:
    """For a legend: the marks of what the paper says, and of what its medians imply."""
    look = dict(_PUBLISHED)
    found = [
        Line2D([], [], marker="D", markersize=3.2, label="paper: median", **look),
        Line2D([], [], marker="^", markersize=3.4, label="paper: 99th percentile", **look),
    ]
    if implied:
        label = "ours, RTTs that its medians imply"
        found.append(Line2D([], [], color=INK, linewidth=1.6, label=label))
    return found


def tail(axes: Axes, values: Ms, look: Look, label: str | None, *, least: float = 1e-4) -> None:
    """The share of commands that took longer than so many ms, on a logarithmic scale."""
    if not len(values):
        return
    ordered = np.sort(values)
    count = len(ordered)
    shares = np.geomspace(1, max(least, 1 / count), _TAIL_POINTS)
    plotted = look.plotted | {"marker": None}
    longer_ms = [ordered[rank(100 * (1 - float(share)), count) - 1] for share in shares]
    axes.plot(longer_ms, shares, label=label, **plotted)
    mark_tail(axes, ordered, look, 3.2)


def mark_tail(axes: Axes, ordered: Ms, look: Look, size: float | None = None) -> None:
    """Marks at the percentiles of ascending samples, where any sample lies above."""
    for percent in MARKED:
        share = 1 - percent / 100
        if share * len(ordered) >= 1:
            found = ordered[rank(percent, len(ordered)) - 1]
            axes.plot(found, share, marker=look.marker, color=look.colour, markersize=size)


def tail_axes(axes: Axes, *, least: float = 1e-3) -> None:
    """Scales and ticks of a tail."""
    axes.set_yscale("log")
    axes.set_ylim(least, 1)
    ticks = [share for share in (1, 0.1, 0.01, 0.001, 0.0001) if share >= least]
    axes.set_yticks(ticks, [f"{share * 100:g} %" for share in ticks])
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", which="minor", length=0)


def plain_log(axes: Axes, which: str, ticks: Sequence[float]) -> None:
    """A logarithmic axis, `x` or `y`, that says 10 and not 10¹."""
    getattr(axes, f"set_{which}scale")("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_ticks(ticks)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis=which, which="minor", length=0)  # type: ignore[arg-type]  # x or y


def gaps(values: Iterable[float | None]) -> list[float]:
    """For matplotlib: what is not known is a gap."""
    return [float("nan") if value is None else value for value in values]


def thousands(axes: Axes) -> None:
    """Counts on the y axis with separators."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
