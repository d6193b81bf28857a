"""The report of a load: one HTML file, no network, from `load.json` alone.

Top: validity, criteria and reasons. Then answers per region as bars, the share before the commit
and the wait for execution apart; with several steps latency over the load; tables of everything.

Rules of this file: every number shown stands in load.json; nothing is computed here but places.
"""

from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from bench.loadtest.summary import broken

Document = dict[str, Any]

_LEFT, _WIDTH, _BAR, _GAP = 130, 900, 16, 14
_HEIGHT = 260
_NAMES = ("p50", "p95", "p99")


def write_page(directory: Path, document: Document) -> Path:
    """Write `report.html` into a results directory; returns its path."""
    path = directory / "report.html"
    path.write_text(render(document), encoding="utf-8")
    return path


def render(document: Document) -> str:
    """The whole page."""
    style = files("bench").joinpath("report.css").read_text("utf-8")
    title = escape(document["setup"]["title"])
    steps = document["steps"]
    curves = _curves(document) if len(steps) > 1 else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{style}</style></head><body>"
        f"<h1>Load, region by region</h1><p class=setup>{title}</p>{_verdict(document)}{curves}"
        + "".join(_step(document, step) for step in steps)
        + f"{_operations(document)}{_health(document)}{_explanations(document)}</body></html>"
    )


def _verdict(document: Document) -> str:
    missed = broken(document)
    said = "".join(f"<p>Not met: {escape(each)}.</p>" for each in missed)
    if document["criteria"] and not missed:
        said = "<p>All criteria are met.</p>"
    elif len(document["steps"]) > 1 and document["sustained"] is not None:
        said += f"<p>All criteria are met up to {document['sustained']:g} {_unit(document)}.</p>"
    reasons = "".join(f"<li>{escape(each)}</li>" for each in document["reasons"])
    validity = escape(document["validity"])
    return (
        f"<section class=verdict>{said}<p><span class='badge {validity}'>{validity}</span> "
        f"{_evidence(document)}</p>{f'<ul>{reasons}</ul>' if reasons else ''}</section>"
    )


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


def _step(document: Document, step: Document) -> str:
    heading = f"{step['wanted']:g} {_unit(document)}"
    rows = [row for each in document["steps"] for row in each["regions"]]
    longest = max(row["answer"][name] or 0.0 for row in rows for name in _NAMES)
    return f"<h2>{escape(heading)}</h2>{_bars(step, longest)}{_table(step)}"


def _bars(step: Document, longest: float) -> str:
    """A bar per region to the answer's median, its wait after commit apart; ticks at p95 and
    p99. All steps have one scale."""
    rows = [row for row in step["regions"] if row["answer"]["p50"] is not None]
    if not rows:
        return "<p class=note>No good answer at all.</p>"
    shapes = []

    def x(ms: float) -> float:
        return _LEFT + ms / (longest or 1.0) * (_WIDTH - _LEFT - 110)

    for i, row in enumerate(rows):
        y = 8 + i * (_BAR + _GAP)
        answer, commit = row["answer"], row["commit"]["p50"]
        upto = answer["p50"] if commit is None else min(commit, answer["p50"])
        shapes.append(
            f"<text x='{_LEFT - 8}' y='{y + 12}' text-anchor='end'>{escape(row['region'])}</text>"
            f"<rect x='{_LEFT}' y='{y}' width='{x(answer['p50']) - _LEFT:.1f}' height='{_BAR}' "
            f"fill='var(--run1)'><title>answer p50 {answer['p50']:.1f} ms</title></rect>"
            f"<rect x='{_LEFT}' y='{y}' width='{x(upto) - _LEFT:.1f}' height='{_BAR}' "
            f"fill='var(--run0)'><title>commit p50 {upto:.1f} ms</title></rect>"
        )
        last, what = answer["p50"], ""
        for name in ("p95", "p99"):
            if answer[name] is not None:
                last, what = answer[name], name
                shapes.append(
                    f"<line class='tick{' slow' if name == 'p99' else ''}' x1='{x(last):.1f}' "
                    f"x2='{x(last):.1f}' y1='{y - 2}' y2='{y + _BAR + 2}'>"
                    f"<title>{name} {last:.1f} ms</title></line>"
                )
        shapes.append(
            f"<text x='{x(answer['p50']) + 6:.1f}' y='{y + 12}'>{answer['p50']:,.1f}</text>"
        )
        if x(last) > x(answer["p50"]) + 60:
            shapes.append(
                f"<text class=soft x='{x(last) + 8:.1f}' y='{y + 12}'>{what} {last:,.1f}</text>"
            )
    height = 8 + len(rows) * (_BAR + _GAP)
    return (
        f"<figure><svg viewBox='0 0 {_WIDTH} {height}' role=img aria-label='Answers per region'>"
        f"{''.join(shapes)}</svg><figcaption>Median answer from the intended start, ms: until "
        "commit (first colour), then waiting for execution (second). Tick: p95; dashed tick: p99."
        "</figcaption></figure>"
    )


def _curves(document: Document) -> str:
    """Latency over the load, all regions together and each region's median."""
    steps = [step for step in document["steps"] if step["total"]["answer"]["p50"] is not None]
    if len(steps) < 2:
        return ""
    high = max(step["total"]["answer"][n] or 0.0 for step in steps for n in _NAMES)
    rows = [row for step in steps for row in step["regions"]]
    high = max([high, *(row["answer"]["p50"] or 0.0 for row in rows)])
    most = max(step["total"]["rate"] for step in steps) or 1.0

    def point(rate: float, ms: float) -> str:
        x, y = 60 + rate / most * (_WIDTH - 220), _HEIGHT - 40 - ms / high * (_HEIGHT - 70)
        return f"{x:.1f},{y:.1f}"

    shapes = [
        f"<path class=axis d='M60,20 V{_HEIGHT - 40} H{_WIDTH - 150}' fill='none'/>"
        f"<text x='52' y='26' text-anchor='end'>{high:,.0f} ms</text>"
        f"<text x='{_WIDTH - 150}' y='{_HEIGHT - 20}' text-anchor='end'>"
        f"{most:,.0f} good answers/s, all regions</text>"
    ]
    for number, name in enumerate(_NAMES):
        known = [step for step in steps if step["total"]["answer"][name] is not None]
        if not known:
            continue
        points = [point(s["total"]["rate"], s["total"]["answer"][name]) for s in known]
        end_x, end_y = points[-1].split(",")
        dashes = ("", "6 3", "2 3")[number]
        shapes.append(
            f"<polyline points='{' '.join(points)}' fill='none' stroke='var(--run{number})' "
            f"stroke-width='2' stroke-dasharray='{dashes}'/>"
            + "".join(
                f"<circle cx='{p.split(',')[0]}' cy='{p.split(',')[1]}' r='3.5' "
                f"fill='var(--run{number})'/>"
                for p in points
            )
            + f"<text x='{float(end_x) + 8:.1f}' y='{float(end_y) + 4:.1f}'>{name}</text>"
        )
    return (
        f"<h2>Latency over load</h2><figure><svg viewBox='0 0 {_WIDTH} {_HEIGHT}' role=img "
        f"aria-label='Latency over load'>{''.join(shapes)}</svg><figcaption>Answers from the "
        "intended start, all regions together, over the good answers per second of each step. "
        "</figcaption></figure>"
    )


def _table(step: Document) -> str:
    heads = ["region", "sent", "good", "failed", "answers/s"]
    heads += [f"{kind} {name}" for kind in ("answer", "commit") for name in _NAMES]
    heads += ["wait p95", "fast path", "shared keys"]
    rows = []
    for row in [*step["regions"], {"region": "all"} | step["total"]]:
        cells = [row["region"], f"{row['sent']:,}", f"{row['answered']:,}", f"{row['failed']:,}"]
        cells.append(f"{row['rate']:,.1f}")
        cells += [_ms(row[kind][name]) for kind in ("answer", "commit") for name in _NAMES]
        cells += [_ms(row["wait"]["p95"]), _share(row["fast_share"]), _share(row["shared_share"])]
        rows.append(cells)
    failures = "".join(
        f"<li>{escape(row['region'])}: {count:,} × {escape(why)}</li>"
        for row in step["regions"]
        for why, count in row["failures"].items()
    )
    return _rows(heads, rows) + (f"<ul class=note>{failures}</ul>" if failures else "")


def _operations(document: Document) -> str:
    heads = ["step", "region", "operation", "good", "failed", *(f"answer {n}" for n in _NAMES)]
    wanted = {step["step"]: f"{step['wanted']:g}" for step in document["steps"]}
    rows = [
        [wanted.get(each["step"], ""), each["region"], each["operation"]]
        + [f"{each['answered']:,}", f"{each['failed']:,}"]
        + [_ms(each["answer"][name]) for name in _NAMES]
        for each in document["operations"]
    ]
    return f"<h2>Operations</h2>{_rows(heads, rows)}"


def _health(document: Document) -> str:
    heads = ["generator", "greenlet late p99", "at most", "starts late p99", "at most", "CPU"]
    late = ("lateness_p99_ms", "lateness_max_ms", "start_error_p99_ms", "start_error_max_ms")
    rows = [
        [each["process"], *(_ms(each[name]) for name in late), _share(each["cpu_share"])]
        for each in document["generators"]
    ]
    found = f"<h2>How generators and replicas kept up</h2>{_rows(heads, rows)}"
    if document.get("replicas"):
        heads = ["replica", "loop lag p99", "link error p99", "sync p50", "CPU s"]
        names = ("loop_lag_p99_ms", "link_error_p99_ms", "sync_p50_ms")
        rows = [
            [each["region"], *(_ms(each[name]) for name in names), f"{each['cpu_s']:.1f}"]
            for each in document["replicas"]
        ]
        found += _rows(heads, rows)
    return found


def _explanations(document: Document) -> str:
    setup = document["setup"]
    conditions = "".join(
        f"<li>{escape(name.replace('_', ' '))}: {escape(str(value))}</li>"
        for name, value in setup.items()
        if name != "title" and value not in (None, [], "")
    )
    return (
        "<details><summary>How this was measured</summary><p>Latency counts from the intended "
        "start of a command: in an open loop the moment that a Poisson process said, whatever "
        "became of the commands before; in a closed loop the moment of sending. Percentiles are "
        "those of good answers; a p99 needs 1,000 of them. The commit latency of an answer is its "
        "latency less what its replica waited between commit and execution (Server-Timing). "
        "What began in the warm-up of a step is sent and not counted. Histograms of three digits, "
        "merged over all generators, are in the files .hlog (an interval per step) and .hgrm."
        f"</p><ul>{conditions}</ul></details>"
    )


def _rows(heads: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<div class=scroll><table><tr>{head}</tr>{body}</table></div>"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}"


def _share(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.1f}\N{NO-BREAK SPACE}%"
