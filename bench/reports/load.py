"""The report of a load, from `load.json` and `seconds.csv` alone.

Top: validity, criteria and reasons. Then answers per region as bars, the share before the commit
and the wait for execution apart; with several steps latency over the load; tables of everything.

Rules of this file: every number shown stands in load.json or, over time, in seconds.csv; nothing
is computed here but places.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from bench.analysis.statistics import PERCENTS, WHY_NONE, field_of
from bench.analysis.units import ms, percent
from bench.loadtest.seconds import SECONDS, Second, read_seconds
from bench.loadtest.summary import broken
from bench.reports.histories import histories
from bench.reports.page import render_page, write_html
from bench.reports.seconds import draw_key, draw_seconds
from bench.reports.svg import colour, element, join, picture, text

Document = dict[str, Any]
Rows = tuple[list[str], list[list[str]]]
"""A table: headings, and what stands below them."""

_LEFT, _WIDTH, _BAR, _GAP = 130, 900, 16, 14
_HEIGHT: Final = 260
_NAMES: Final = ("p50", "p95", "p99")
_FIELDS: Final = tuple(map(field_of, PERCENTS))
_LABEL: Final = 54
"""Room of a figure beside its bar."""
_DASHES: Final = (None, "6 3", "2 3")


def write_page(directory: Path, document: Document) -> Path:
    """Write `report.html` into a results directory; returns its path."""
    return write_html(directory, render(document, read_seconds(directory / SECONDS)))


def render(document: Document, seconds: Sequence[Second] = ()) -> str:
    """The whole page."""
    regions = [row["region"] for row in document["steps"][0]["regions"]]
    setup, steps = document["setup"], document["steps"]
    rows = [row for step in steps for row in step["regions"]]
    longest = max(row["answer"][name] or 0.0 for row in rows for name in _NAMES)
    return render_page(
        "load.html.j2",
        title=setup["title"],
        heading="Load, region by region",
        setup=setup["title"],
        document=document,
        evidence=_evidence(document),
        criteria=_criteria(document),
        curves=_curves(steps),
        over_time=draw_seconds(seconds, regions),
        keys=[(draw_key(at), region) for at, region in enumerate(regions)],
        unit=_unit(document),
        steps=[(step, _bars(step, longest), _table(step)) for step in steps],
        operations=_operations(document),
        why_none=WHY_NONE,
        histories=histories(
            [("all clients", document["history"])] if "history" in document else []
        ),
        generators=_generators(document),
        replicas=_replicas(document),
        configured={
            name.replace("_", " "): value
            for name, value in setup.items()
            if name != "title" and value not in (None, [], "")
        },
    )


def _criteria(document: Document) -> list[str]:
    missed = broken(document)
    if document["criteria"] and not missed:
        return ["All criteria are met."]
    found = [f"Not met: {each}." for each in missed]
    if len(document["steps"]) > 1 and document["sustained"] is not None:
        found.append(f"All criteria are met up to {document['sustained']:g} {_unit(document)}.")
    return found


def _unit(document: Document) -> str:
    loop = document["setup"]["loop"]
    return "commands/s per region" if loop == "open" else "users per region"


def _evidence(document: Document) -> str:
    late = max((each["lateness_max_ms"] or 0.0 for each in document["generators"]), default=0.0)
    starts = [each["start_error_p99_ms"] for each in document["generators"]]
    starts = [each for each in starts if each is not None]
    sent = sum(step["total"]["sent"] for step in document["steps"])
    failed = sum(step["total"]["failed"] for step in document["steps"])
    said = f"{sent:,} commands, {failed:,} failed · generators late by {late:.1f} ms at most"
    return f"{said} · starts {max(starts):.2f} ms late at the p99" if starts else said


# Pictures --------------------------------------------------------------------------------------


def _bars(step: Document, longest: float) -> Markup:
    """A bar per region to the answer's median, its wait after commit apart; ticks at p95 and
    p99. All steps have one scale. Empty without answers."""
    rows = [row for row in step["regions"] if row["answer"]["p50"] is not None]
    if not rows:
        return Markup("")
    pieces = [_bar(row, 8 + i * (_BAR + _GAP), longest or 1.0) for i, row in enumerate(rows)]
    return picture(_WIDTH, 8 + len(rows) * (_BAR + _GAP), "Answers per region", *pieces)


def _bar(row: Document, y: float, longest: float) -> Markup:
    def x(value: float) -> float:
        return _LEFT + value / longest * (_WIDTH - _LEFT - 110)

    def area(value: float, name: str, series: int) -> Markup:
        hint = element("title", f"{name} p50 {value:.1f} ms")
        wide = x(value) - _LEFT
        return element("rect", hint, x=_LEFT, y=y, width=wide, height=_BAR, fill=colour(series))

    answer, commit = row["answer"], row["commit"]["p50"]
    p50 = answer["p50"]
    pieces = [
        text(_LEFT - 8, y + 12, row["region"], anchor="end"),
        area(p50, "answer", 1),
        area(p50 if commit is None else min(commit, p50), "commit", 0),
    ]
    last, what, label = p50, "", x(p50) + 6
    for name, look in (("p95", "tick"), ("p99", "tick slow")):
        if answer[name] is not None:
            last, what = answer[name], name
            hint = element("title", f"{name} {last:.1f} ms")
            ends = {"x1": x(last), "x2": x(last), "y1": y - 2, "y2": y + _BAR + 2}
            pieces.append(element("line", hint, class_=look, **ends))
            if x(last) < label + _LABEL:
                label = x(last) + 8  # no tick strikes the figure through
    pieces.append(text(label, y + 12, ms(p50)))
    if x(last) > label + _LABEL:
        pieces.append(text(x(last) + 8, y + 12, f"{what} {ms(last)}", class_="soft"))
    return join(pieces)


def _curves(steps: list[Document]) -> Markup:
    """Latency over the load, all regions together; empty with less than two steps."""
    steps = [step for step in steps if step["total"]["answer"]["p50"] is not None]
    if len(steps) < 2:
        return Markup("")
    high = max(step["total"]["answer"][name] or 0.0 for step in steps for name in _NAMES)
    rows = [row for step in steps for row in step["regions"]]
    high = max([high, *(row["answer"]["p50"] or 0.0 for row in rows)])
    most = max(step["total"]["rate"] for step in steps) or 1.0
    bottom, right = _HEIGHT - 40, _WIDTH - 150

    def place(step: Document, name: str) -> tuple[float, float]:
        rate, value = step["total"]["rate"], step["total"]["answer"][name]
        return 60 + rate / most * (_WIDTH - 220), bottom - value / high * (_HEIGHT - 70)

    pieces = [
        element("path", class_="axis", d=f"M60,20 V{bottom} H{right}", fill="none"),
        text(52, 26, f"{high:,.0f} ms", anchor="end"),
        text(right, _HEIGHT - 20, f"{most:,.0f} good answers/s, all regions", anchor="end"),
    ]
    for series, name in enumerate(_NAMES):
        known = [step for step in steps if step["total"]["answer"][name] is not None]
        if known:
            pieces.append(_curve(series, name, [place(step, name) for step in known]))
    return picture(_WIDTH, _HEIGHT, "Latency over load", *pieces)


def _curve(series: int, name: str, points: list[tuple[float, float]]) -> Markup:
    paint, (end_x, end_y) = colour(series), points[-1]
    curve = element(
        "polyline",
        points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points),
        fill="none",
        stroke=paint,
        stroke_width=2,
        stroke_dasharray=_DASHES[series],
    )
    marks = [element("circle", cx=x, cy=y, r=3.5, fill=paint) for x, y in points]
    return join([curve, *marks, text(end_x + 8, end_y + 4, name)])


# Tables ----------------------------------------------------------------------------------------


def _table(step: Document) -> Rows:
    heads = ["region", "sent", "good", "failed", "answers/s"]
    heads += [f"{kind} p{each:g}" for kind in ("answer", "commit") for each in PERCENTS]
    heads += ["wait p95", "fast path", "shared keys"]
    rows = []
    for row in [*step["regions"], {"region": "all"} | step["total"]]:
        cells = [row["region"], f"{row['sent']:,}", f"{row['answered']:,}", f"{row['failed']:,}"]
        cells.append(ms(row["rate"]))
        cells += [ms(row[kind][name]) for kind in ("answer", "commit") for name in _FIELDS]
        cells += [ms(row["wait"]["p95"]), percent(row["fast_share"]), percent(row["shared_share"])]
        rows.append(cells)
    return heads, rows


def _operations(document: Document) -> Rows:
    heads = ["step", "region", "operation", "good", "failed", *(f"answer p{p:g}" for p in PERCENTS)]
    wanted = {step["step"]: f"{step['wanted']:g}" for step in document["steps"]}
    return heads, [
        [wanted.get(each["step"], ""), each["region"], each["operation"]]
        + [f"{each['answered']:,}", f"{each['failed']:,}"]
        + [ms(each["answer"][name]) for name in _FIELDS]
        for each in document["operations"]
    ]


def _generators(document: Document) -> Rows:
    heads = ["generator", "greenlet late p99", "at most", "starts late p99", "at most", "CPU"]
    late = ("lateness_p99_ms", "lateness_max_ms", "start_error_p99_ms", "start_error_max_ms")
    return heads, [
        [each["process"], *(ms(each[name]) for name in late), f"{each['cpu_share'] * 100:.1f} %"]
        for each in document["generators"]
    ]


def _replicas(document: Document) -> Rows | None:
    """None where the cluster is not ours."""
    if not document.get("replicas"):
        return None
    heads = ["replica", "loop lag p99", "link error p99", "sync p50", "CPU s"]
    names = ("loop_lag_p99_ms", "link_error_p99_ms", "sync_p50_ms")
    return heads, [
        [each["region"], *(ms(each[name]) for name in names), f"{each['cpu_s']:.1f}"]
        for each in document["replicas"]
    ]
