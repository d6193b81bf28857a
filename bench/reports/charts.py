"""The pictures of a comparison: map, bars, tails, from commit to answer.

Rules of this file: every number shown stands in summary.json; nothing is computed here but places.
A picture is empty where there is nothing to show.
"""

from collections.abc import Callable
from math import log10
from typing import Any, Final

from markupsafe import Markup

from bench.analysis.units import ms, percent
from bench.reports.svg import (
    Content,
    colour,
    element,
    hinted,
    join,
    line,
    mark,
    pattern,
    picture,
    text,
    ticks,
)
from bench.reports.worldmap import WIDTH, Point, project, way_path, world

Document = dict[str, Any]
Place = Callable[[float], float]
"""From ms to where they are in a picture."""

LEFT: Final = 120
_BAR, _GAP, _RIGHT = 15, 12, 150
_TAILS: Final = (0.5, 0.1, 0.01, 0.001)
_MARKED: Final = (0.5, 0.1, 0.01)
_PANELS_WIDE: Final = 3
_WAITED_MS: Final = 1.0
"""Less between commit and answer is not drawn."""


def labels(summary: Document) -> dict[str, tuple[int, str]]:
    """Run -> its number as a series, and its label."""
    return {run["run"]: (at, run["label"]) for at, run in enumerate(summary["runs"])}


def titles(summary: Document) -> dict[str, str]:
    """Region -> its name for people."""
    return {each["name"]: each["title"] for each in summary["setup"]["topology"]["regions"]}


def home(cell: Document) -> str:
    """The region of the replica that a cell's clients ask."""
    name: str = cell["replica" if "replica" in cell else "region"]
    return name


def where(cell: Document, names: dict[str, str]) -> str:
    """The region of a cell's clients, and that of their replica if it is another one."""
    region, asked = cell["region"], home(cell)
    return names[region] if asked == region else f"{names[region]} → {names[asked]}"


# Map -------------------------------------------------------------------------------------------


def draw_map(summary: Document) -> Markup:
    """The regions on a map, a layer per run and workload, of which the first is shown."""
    places = {
        region["name"]: region
        for region in summary["setup"]["topology"]["regions"]
        if region.get("lat") is not None and region.get("lon") is not None
    }
    if not places:
        return Markup("")
    layers: list[Markup] = []
    for at, phase in enumerate(summary["phases"]):
        for number, run in enumerate(summary["runs"]):
            sites = [
                _site(cell, run["leader"], places, number)
                for cell in phase["cells"]
                if cell["run"] == run["run"]
            ]
            hidden = " dead" if layers else ""
            names = {"data_run": number, "data_workload": at}
            layers.append(element("g", *sites, class_=f"layer{hidden}", **names))
    return world([(each["lon"], each["lat"]) for each in places.values()], layers)


def _site(cell: Document, leader: str | None, places: Document, number: int) -> Content:
    here = places.get(cell["region"])
    if here is None:
        return ""
    x, y = project(here["lon"], here["lat"])
    crowded = any(
        abs(x - other_x) < 150 and 0 < y - other_y < 40
        for other_x, other_y in (project(each["lon"], each["lat"]) for each in places.values())
    )
    at_edge = x > WIDTH - 150
    size = 8.5 if leader == cell["region"] else 6
    median = element("tspan", ms(cell["answer"]["p50"]), font_weight=700)
    return element(
        "g",
        element("title", _hint(cell, leader, places)),
        *_ways(cell, leader, places, number),
        mark(number, x, y, size),
        text(
            x - 9 if at_edge else x + 10,
            y + (19 if crowded else -8),
            join([f"{here['title']} ", median]),
            anchor="end" if at_edge else None,
        ),
        class_="site",
    )


def _ways(cell: Document, leader: str | None, places: Document, number: int) -> list[Markup]:
    """To those whom a cell's commands wait for."""
    share = cell.get("fast_share")
    width = 2.2 if share is None else 0.8 + 2 * share
    asked = cell["optimum"]["quorum"] if leader in (None, home(cell)) else [leader]
    if home(cell) != cell["region"]:
        asked = [home(cell)]
    here = _point(places[cell["region"]])
    return [
        element(
            "path",
            class_="way",
            stroke=colour(number),
            stroke_width=width,
            d=way_path(here, _point(places[other])),
        )
        for other in asked
        if other in places and other != cell["region"]
    ]


def _hint(cell: Document, leader: str | None, places: Document) -> str:
    share, quorum = cell.get("fast_share"), cell["optimum"]["quorum"]
    names = {name: place["title"] for name, place in places.items()}
    steps = dict.fromkeys([home(cell), leader or home(cell)])
    through = "".join(
        f" through {names.get(each, each)}" for each in steps if each != cell["region"]
    )
    fast = "" if share is None else f", {percent(share)} fast path"
    hint = (
        f"{names[cell['region']]}{through}: answer p50 {ms(cell['answer']['p50'])} ms, optimum "
        f"{ms(cell['optimum']['fast_ms'])} ms{fast}"
    )
    return (
        f"{hint}; quorum {', '.join(names.get(each, each) for each in quorum)}" if quorum else hint
    )


def _point(place: Document) -> Point:
    return place["lon"], place["lat"]


# Bars ------------------------------------------------------------------------------------------


def scale(longest: float, right: float) -> Place:
    """Bars from LEFT on; `right` is what stays free behind one of `longest` ms."""
    return lambda value: LEFT + value / longest * (WIDTH - LEFT - right)


def axis(longest: float, x: Place, height: float) -> Markup:
    """Lines and numbers of an axis in ms, below bars that are `height` high."""
    return join(
        piece
        for value in ticks(longest)
        for piece in (
            line(x(value), 0, x(value), height, class_="axis"),
            text(x(value), height + 14, f"{value:g}", class_="soft", anchor="middle"),
        )
    )


def draw_bars(summary: Document, phase: Document) -> Markup:
    """Median answer per region and run, whisker to p95, ticks at the predictions."""
    runs = labels(summary)
    cells = [cell for cell in phase["cells"] if cell["answer"]["p50"] is not None]
    if not cells:
        return Markup("")
    longest: float = max(cell["answer"]["p95"] or cell["answer"]["p50"] for cell in cells)
    longest = max(longest, *(cell["optimum"]["fast_ms"] or 0.0 for cell in cells)) * 1.04
    x = scale(longest, _RIGHT)
    parts, y = list[Markup](), 8.0
    for region, title in titles(summary).items():
        mine = [cell for cell in cells if cell["region"] == region]
        if not mine:
            continue
        parts.append(text(LEFT - 8, y + 12, title, anchor="end"))
        for cell in mine:
            parts.append(_bar(cell, runs[cell["run"]], x, y))
            y += _BAR + 3
        y += _GAP
    return picture(WIDTH, y + 22, "Median answers", axis(longest, x, y), *parts)


def _bar(cell: Document, run: tuple[int, str], x: Place, y: float) -> Markup:
    number, label = run
    p50, p95 = cell["answer"]["p50"], cell["answer"]["p95"] or cell["answer"]["p50"]
    fast = "" if cell.get("fast_share") is None else f" · {percent(cell['fast_share'])} fast"
    best, slow = cell["optimum"]["fast_ms"], cell["optimum"]["slow_ms"]
    found = []
    if best is not None:
        found.append(_tick(x(best), y, "tick"))
    after = x(p95) + 8
    if slow is not None and slow > best + 0.01 and x(slow) < WIDTH - _RIGHT:
        found.append(_tick(x(slow), y, "tick slow"))
        if after - 6 < x(slow) < after + 140:
            after = x(slow) + 8
    wide = max(1.0, x(p50) - LEFT)
    middle = y + _BAR / 2
    return hinted(
        f"{label}: p50 {ms(p50)}, p95 {ms(p95)}, optimum {ms(best)} ms",
        element("rect", x=LEFT, y=y, height=_BAR, rx=2, width=wide, fill=pattern(number)),
        line(x(p50), middle, x(p95), middle, stroke=colour(number), stroke_width=2),
        *found,
        text(after, y + 12, f"{ms(p50)} {label}{fast}", class_="soft"),
    )


def _tick(x: float, y: float, look: str) -> Markup:
    return line(x, y - 2, x, y + _BAR + 2, class_=look)


# Tails -----------------------------------------------------------------------------------------


def draw_tails(summary: Document, phase: Document) -> Markup:
    """Per region: share of answers that took longer, on a logarithmic scale."""
    panels: list[Markup] = []
    for region, title in titles(summary).items():
        cells = [c for c in phase["cells"] if c["region"] == region and c["answer_cdf"]]
        if cells:
            longest = max(point[0] for cell in cells for point in cell["answer_cdf"]) * 1.05
            row, column = divmod(len(panels), _PANELS_WIDE)
            panel = _Panel(column * 320.0, row * 232.0, longest)
            panels.append(panel.draw(title, cells, labels(summary)))
    rows = -(-len(panels) // _PANELS_WIDE)
    return picture(WIDTH, rows * 232, "Tails of the latencies", *panels)


class _Panel:
    """One region's tails: x in ms, y the share of commands that took longer, down to 0.1 %."""

    _WIDE, _HIGH, _PAD = 300.0, 170.0, 44.0

    def __init__(self, left: float, top: float, longest: float) -> None:
        self._left = left
        self._top = top
        self._longest = longest

    def x(self, value: float) -> float:
        return self._left + self._PAD + value / self._longest * (self._WIDE - self._PAD)

    def y(self, beyond: float) -> float:
        down = min(1.0, max(0.0, -log10(max(beyond, 1e-3)) / 3))
        return self._top + 20 + down * self._HIGH

    def draw(self, title: str, cells: list[Document], runs: dict[str, tuple[int, str]]) -> Markup:
        right, bottom = self._left + self._WIDE, self.y(1e-3)
        grid = (
            piece
            for tail in _TAILS
            for piece in (
                line(self.x(0), self.y(tail), right, self.y(tail), class_="axis"),
                text(
                    self.x(0) - 4,
                    self.y(tail) + 4,
                    f"{tail * 100:g} %",
                    class_="soft",
                    anchor="end",
                ),
            )
        )
        scale = (
            text(self.x(value), bottom + 16, f"{value:g}", class_="soft", anchor="middle")
            for value in ticks(self._longest)
        )
        curves = (
            self._curve(cell[f"{kind}_cdf"], runs[cell["run"]][0], dashed=kind == "commit")
            for cell in cells
            for kind in ("commit", "answer")
        )
        heading = text(self.x(0), self._top + 12, title, font_weight=600)
        return join([heading, *grid, *scale, *curves])

    def _curve(self, points: list[list[float]], number: int, *, dashed: bool) -> Markup:
        shown, marks, before = list[str](), list[Markup](), 1.0
        for value, share in points:
            x, beyond = self.x(value), 1 - share
            shown += [f"{x:.1f},{self.y(before):.1f}", f"{x:.1f},{self.y(beyond):.1f}"]
            for tail in _MARKED:
                if not dashed and round(beyond, 6) <= tail < before:
                    marks.append(mark(number, x, self.y(tail), 3.6))
            before = beyond
        curve = element(
            "polyline",
            fill="none",
            stroke=colour(number),
            stroke_width=1.8,
            stroke_dasharray="2 3" if dashed else None,
            points=" ".join(shown),
        )
        return join([curve, *marks])


# From commit to answer -------------------------------------------------------------------------


def longest_wait_ms(phase: Document) -> float:
    """Between commit and answer, at p50 or p95, of all runs and regions."""
    return max((_waited_ms(cell) for cell in _answered(phase)), default=0.0)


def draw_waiting(summary: Document, phase: Document) -> Markup:
    """Commit against execution, for the runs where it makes a difference."""
    runs, names, cells = labels(summary), titles(summary), _answered(phase)
    waiting = {cell["run"] for cell in cells if _waited_ms(cell) > _WAITED_MS}
    shown = [cell for cell in cells if cell["run"] in waiting]
    if not shown:
        return Markup("")
    longest: float = max(cell["answer"]["p95"] for cell in shown) * 1.04
    x = scale(longest, _RIGHT)
    parts, y, before = list[Markup](), 14.0, ""
    for cell in shown:
        name = names[cell["region"]] if cell["region"] != before else ""
        before = cell["region"]
        parts.append(text(LEFT - 8, y + 4, name, anchor="end"))
        parts.append(_wait(cell, runs[cell["run"]], x, y))
        y += 26
    return picture(WIDTH, y, "From commit to answer", *parts)


def _wait(cell: Document, run: tuple[int, str], x: Place, y: float) -> Markup:
    number, label = run
    commit, answer = cell["commit"], cell["answer"]
    paint, dashes = colour(number), "2 3"
    (begin, end), low = (x(each["p50"]) for each in (commit, answer)), y + 8
    tail = [x(each["p95"]) for each in (commit, answer)]
    said = f"{label}: {ms(commit['p50'])} → {ms(answer['p50'])}"
    return join(
        [
            line(begin, y, end, y, stroke=paint, stroke_width=5),
            line(
                tail[0], low, tail[1], low, stroke=paint, stroke_width=1.5, stroke_dasharray=dashes
            ),
            element("circle", class_="commit", cx=begin, cy=y, r=4.5, stroke=paint),
            mark(number, end, y, 5.5),
            text(max(end, tail[1]) + 10, y + 4, said, class_="soft"),
        ]
    )


def _answered(phase: Document) -> list[Document]:
    return [cell for cell in phase["cells"] if cell["answer"]["p50"] is not None]


def _waited_ms(cell: Document) -> float:
    gaps = [cell["answer"][key] - cell["commit"][key] for key in ("p50", "p95")]
    return float(max(gaps))
