"""A load over time: answers per second, p50 and p95 of each region, from `seconds.csv`.

Three panels one below the other, a line per region; a region that answers nothing has a gap in its
latencies and zero answers. Labels stand beside the panels, where no line goes.

The first and the last second, which are no whole ones, are left out.

Rules of this file: places alone; of seconds that share a point the mean of the answers, the median
of the p50 and the largest p95 are drawn.
"""

from collections.abc import Callable, Sequence
from itertools import groupby
from math import ceil, log10
from typing import Final, NamedTuple

from markupsafe import Markup

from bench.loadtest.seconds import Second
from bench.reports.svg import colour, element, join, line, picture, text, ticks
from epaxos.percentile import median

_WIDTH, _LEFT, _RIGHT = 900.0, 74.0, 20.0
_HIGH, _TOP, _PANEL_GAP = 130.0, 26.0, 56.0
_POINTS_MAX: Final = 400
_COLOURS: Final = 5
_DASHES: Final = (None, "5 3", "2 3")
"""Of the first five regions, the next five, and the others."""
_LABEL_PX: Final = 18.0
"""So far apart labels of a scale stand at least."""


class _Point(NamedTuple):
    at_s: float
    answers_per_s: float
    p50_ms: float | None
    p95_ms: float | None


def draw_seconds(seconds: Sequence[Second], regions: Sequence[str]) -> Markup:
    """The panels; empty with less than two whole seconds."""
    last_s = max((each.at_s for each in seconds), default=0)
    seconds = [each for each in seconds if 0 < each.at_s < last_s]
    end_s = last_s
    if end_s < 3:
        return Markup("")
    width_s = ceil(end_s / _POINTS_MAX)
    curves = {region: _points(seconds, region, width_s, end_s) for region in regions}
    panels: list[tuple[str, Callable[[_Point], float | None], bool]] = [
        ("answers/s", lambda point: point.answers_per_s, False),
        ("p50, ms", lambda point: point.p50_ms, True),
        ("p95, ms", lambda point: point.p95_ms, True),
    ]
    pieces = [
        _panel(title, _TOP + at * (_HIGH + _PANEL_GAP), curves, value, end_s, log=log)
        for at, (title, value, log) in enumerate(panels)
    ]
    bottom = _TOP + len(panels) * (_HIGH + _PANEL_GAP)
    return picture(_WIDTH, bottom, "Answers over time", *pieces)


def draw_key(region: int) -> Markup:
    """The look of a region's line, small enough for a line of text."""
    piece = line(0, 7, 30, 7, **_look(region))
    return element("svg", piece, class_="key", viewBox="0 0 40 14")


def _look(region: int) -> dict[str, str | float | None]:
    dashes = _DASHES[min(region // _COLOURS, len(_DASHES) - 1)]
    return {"stroke": colour(region % _COLOURS), "stroke_width": 1.8, "stroke_dasharray": dashes}


def _points(seconds: Sequence[Second], region: str, width_s: int, end_s: int) -> list[_Point]:
    found: dict[int, list[Second]] = {at: [] for at in range(1 // width_s, ceil(end_s / width_s))}
    for each in seconds:
        if each.region == region:
            found[each.at_s // width_s].append(each)
    return [
        _Point(
            (at + 0.5) * width_s,
            sum(each.answers for each in some) / width_s,
            median([each.p50_ms for each in some if each.p50_ms is not None]),
            max((each.p95_ms for each in some if each.p95_ms is not None), default=None),
        )
        for at, some in found.items()
    ]


def _panel(
    title: str,
    top: float,
    curves: dict[str, list[_Point]],
    value: Callable[[_Point], float | None],
    end_s: float,
    *,
    log: bool,
) -> Markup:
    """One figure over time, all regions."""
    known = [v for points in curves.values() for p in points if (v := value(p)) is not None]
    lowest, highest = _ends(known, log=log)
    bottom, right = top + _HIGH, _WIDTH - _RIGHT

    def x(at_s: float) -> float:
        return _LEFT + at_s / end_s * (right - _LEFT)

    def y(v: float) -> float:
        if log:
            return bottom - _HIGH * log10(max(v, lowest) / lowest) / log10(highest / lowest)
        return bottom - _HIGH * v / highest

    pieces: list[Markup] = [text(_LEFT, top - 9, title, class_="soft", font_weight=600)]
    for tick in _spread_out(_log_ticks(lowest, highest) if log else ticks(highest), y):
        pieces.append(line(_LEFT, y(tick), right, y(tick), class_="axis"))
        pieces.append(text(_LEFT - 8, y(tick) + 4, f"{tick:,g}", class_="soft", anchor="end"))
    shown_s = ticks(end_s)
    for tick in shown_s:
        label = f"{tick:,g} s" if tick == shown_s[-1] else f"{tick:,g}"
        ending = "end" if x(tick) > right - 20 else "middle"
        pieces.append(text(x(tick), bottom + 18, label, class_="soft", anchor=ending))
    for region, points in enumerate(curves.values()):
        pieces += _curve(points, value, x, y, region)
    return join(pieces)


def _curve(
    points: Sequence[_Point],
    value: Callable[[_Point], float | None],
    x: Callable[[float], float],
    y: Callable[[float], float],
    region: int,
) -> list[Markup]:
    """A line for every stretch without a gap; a point that stands alone is a dot."""
    pieces = []
    for is_gap, stretch in groupby(points, key=lambda point: value(point) is None):
        if is_gap:
            continue
        places = [(x(point.at_s), y(value(point) or 0.0)) for point in stretch]
        if len(places) == 1:
            ((at_x, at_y),) = places
            pieces.append(element("circle", cx=at_x, cy=at_y, r=2, fill=colour(region % _COLOURS)))
            continue
        corners = " ".join(f"{at_x:.1f},{at_y:.1f}" for at_x, at_y in places)
        pieces.append(element("polyline", points=corners, fill="none", **_look(region)))
    return pieces


def _ends(values: Sequence[float], *, log: bool) -> tuple[float, float]:
    """Of a scale; a logarithmic one holds at least a factor of two."""
    highest = max(values, default=0.0) or 1.0
    if not log:
        return 0.0, highest * 1.05
    lowest = max(min(values, default=1.0) * 0.9, 0.01)
    return lowest, max(highest * 1.1, lowest * 2)


def _log_ticks(lowest: float, highest: float) -> list[float]:
    found = [step * 10.0**power for power in range(-3, 8) for step in (1, 1.5, 2, 3, 5, 7)]
    return [tick for tick in found if lowest <= tick <= highest]


def _spread_out(values: Sequence[float], y: Callable[[float], float]) -> list[float]:
    """Those of them whose labels do not touch: ascending, from the lowest."""
    kept: list[float] = []
    for each in values:
        if not kept or y(kept[-1]) - y(each) >= _LABEL_PX:
            kept.append(each)
    return kept
