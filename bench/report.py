"""The report of a comparison: one HTML file, no network, from the summary alone.

Top: the verdict and a world map. Then per conflict rate bars with the predicted tick, tails on a
logarithmic scale, commit against execution, and a table of everything. One colour per run
everywhere; a pattern beside each colour.

Rules of this file: every number shown stands in summary.json; nothing is computed here but places.
"""

import json
from html import escape
from importlib.resources import files
from math import log10
from pathlib import Path
from typing import Any

from bench.worldmap import HEIGHT, WIDTH, land_path, project, way_path

Document = dict[str, Any]

_PATTERNS = ("", "M0,4 l4,-4", "M0,0 l4,4", "M0,2 h4", "M2,0 v4")
_BAR, _GAP, _LEFT, _RIGHT = 15, 12, 120, 130
_TAILS = (0.5, 0.1, 0.01, 0.001)


def write_report(directory: Path, summary: Document) -> Path:
    """Write `report.html` into a results directory; returns its path."""
    path = directory / "report.html"
    path.write_text(render(summary), encoding="utf-8")
    return path


def render(summary: Document) -> str:
    """The whole page."""
    style = files("bench").joinpath("report.css").read_text("utf-8")
    phases = "".join(_phase(summary, phase) for phase in summary["phases"])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(summary['title'])}</title><style>{style}</style></head><body>"
        f"<h1>Who is fast where, and why</h1><p class=setup>{escape(summary['title'])}</p>"
        f"{_verdict(summary['verdict'])}{_legend(summary)}{_map(summary)}{phases}"
        f"{_costs(summary)}{_explanations(summary)}<script>{_SCRIPT}</script></body></html>"
    )


def _verdict(verdict: Document) -> str:
    sentences = "".join(f"<p>{escape(each)}</p>" for each in verdict["sentences"])
    reasons = "".join(f"<p>{escape(each)}</p>" for each in verdict["reasons"])
    validity = escape(verdict["validity"])
    return (
        f"<section class=verdict>{sentences}<p><span class='badge {validity}'>{validity}</span> "
        f"{escape(verdict['evidence'])}</p>{reasons}</section>"
    )


def _runs(summary: Document) -> dict[str, tuple[int, str]]:
    """Run -> (number, label)."""
    return {run["run"]: (at, run["label"]) for at, run in enumerate(summary["runs"])}


def _patterns(runs: dict[str, tuple[int, str]]) -> str:
    found = []
    for number, _ in runs.values():
        stroke = _PATTERNS[number % len(_PATTERNS)]
        lines = f"<path d='{stroke}' stroke='var(--paper)' stroke-width='1'/>" if stroke else ""
        found.append(
            f"<pattern id='p{number}' width='4' height='4' patternUnits='userSpaceOnUse'>"
            f"<rect width='4' height='4' fill='var(--run{number})'/>{lines}</pattern>"
        )
    return f"<defs>{''.join(found)}</defs>"


def _legend(summary: Document) -> str:
    runs = _runs(summary)
    keys = "".join(
        f"<svg class=key style='min-width:0' viewBox='0 0 22 12'>{_patterns(runs)}"
        f"<rect width='22' height='12' fill='url(#p{number})'/></svg>{escape(label)}"
        for number, label in runs.values()
    )
    return f"<p class=note>{keys}</p>"


# Map -------------------------------------------------------------------------------------------


def _map(summary: Document) -> str:
    places = {
        region["name"]: region
        for region in summary["setup"]["topology"]["regions"]
        if region.get("lat") is not None and region.get("lon") is not None
    }
    if not places:
        return ""
    layers: list[str] = []
    choices: list[str] = []
    runs = _runs(summary)
    for phase in summary["phases"]:
        for run, (number, label) in runs.items():
            name = f"{run}-{phase['conflict']:g}"
            cells = [cell for cell in phase["cells"] if cell["run"] == run]
            hidden = "" if not layers else " dead"
            layers.append(
                f"<g class='layer{hidden}' id='layer-{escape(name)}'>"
                f"{''.join(_map_cell(cell, places, number) for cell in cells)}</g>"
            )
            checked = " checked" if len(layers) == 1 else ""
            choices.append(
                f"<label><input type=radio name=layer value='{escape(name)}'{checked}> "
                f"{escape(label)}, {phase['conflict']:g} % conflicts</label>"
            )
    return (
        "<figure>"
        f"<p class=choose>{''.join(choices)}</p>"
        f"<svg viewBox='0 0 {WIDTH:g} {HEIGHT:g}' role=img aria-label='World map of the regions'>"
        f"<path class=land d='{land_path()}'/>{''.join(layers)}</svg>"
        "<figcaption>Numbers: median answer in ms. Lines: the quorum that answers a region's "
        "commands; their width is the share of fast paths. Hover for more.</figcaption></figure>"
    )


def _map_cell(cell: Document, places: Document, number: int) -> str:
    here = places.get(cell["region"])
    if here is None:
        return ""
    share = cell.get("fast_share")
    width = 1.2 + 4 * (1.0 if share is None else share)
    quorum = cell["optimum"]["quorum"]
    ways = "".join(
        f"<path class=way stroke='var(--run{number})' stroke-width='{width / 2:.1f}' "
        f"d='{way_path(_point(here), _point(places[other]))}'/>"
        for other in quorum
        if other in places and other != cell["region"]
    )
    x, y = project(here["lon"], here["lat"])
    crowded = any(
        abs(x - other_x) < 150 and 0 < y - other_y < 40
        for other_x, other_y in (project(each["lon"], each["lat"]) for each in places.values())
    )
    answer = cell["answer"]["p50"]
    fast = "" if share is None else f", {share:.0%} fast path"
    hint = (
        f"{here['title']}: answer p50 {_ms(answer)} ms, optimum "
        f"{_ms(cell['optimum']['fast_ms'])} ms{fast}; quorum {', '.join(quorum)}"
    )
    return (
        f"<g><title>{escape(hint)}</title>{ways}"
        f"<circle class=dot cx='{x:.1f}' cy='{y:.1f}' r='6' fill='var(--run{number})'/>"
        f"<text x='{x + 9:.1f}' y='{y + (18 if crowded else -7):.1f}'>{escape(here['title'])} "
        f"<tspan font-weight='700'>{_ms(answer)}</tspan></text></g>"
    )


def _point(place: Document) -> tuple[float, float]:
    return place["lon"], place["lat"]


# Bars and tails --------------------------------------------------------------------------------


def _phase(summary: Document, phase: Document) -> str:
    conflict = f"{phase['conflict']:g} % conflicts"
    return (
        f"<section><h2>{conflict}</h2>{_bars(summary, phase)}{_tails(summary, phase)}"
        f"{_table(summary, phase)}</section>"
    )


def _titles(summary: Document) -> dict[str, str]:
    return {each["name"]: each["title"] for each in summary["setup"]["topology"]["regions"]}


def _bars(summary: Document, phase: Document) -> str:
    """Median answer per region and run, whisker to p95, tick at the prediction."""
    runs, titles = _runs(summary), _titles(summary)
    cells = [cell for cell in phase["cells"] if cell["answer"]["p50"] is not None]
    if not cells:
        return "<p>No command was answered.</p>"
    longest: float = max(cell["answer"]["p95"] or cell["answer"]["p50"] for cell in cells)
    longest = max(longest, *(cell["optimum"]["fast_ms"] for cell in cells)) * 1.04
    wide = WIDTH - _LEFT - _RIGHT

    def x(value: float) -> float:
        return _LEFT + value / longest * wide

    parts, y = [_patterns(runs)], 8.0
    for region, title in titles.items():
        mine = [cell for cell in cells if cell["region"] == region]
        parts.append(f"<text x='{_LEFT - 8}' y='{y + 12}' text-anchor='end'>{escape(title)}</text>")
        for cell in mine:
            parts.append(_bar(cell, runs[cell["run"]], x, y))
            y += _BAR + 3
        y += _GAP
    step = _step(longest)
    axis = "".join(
        f"<line class=axis x1='{x(v):.1f}' x2='{x(v):.1f}' y1='0' y2='{y:.0f}'/>"
        f"<text class=soft x='{x(v):.1f}' y='{y + 14:.0f}' text-anchor='middle'>{v:g}</text>"
        for v in _range(step, longest)
    )
    return (
        f"<figure><svg viewBox='0 0 {WIDTH:g} {y + 22:.0f}' role=img "
        f"aria-label='Median answers'>{axis}{''.join(parts)}</svg><figcaption>Answer latency in "
        "ms from the intended start: bar p50, whisker to p95. Solid tick: closed-form optimum "
        "(fast path). Dashed tick: EPaxos with its second round trip. "
        f"{_conditions(summary)}</figcaption></figure>"
    )


def _bar(cell: Document, run: tuple[int, str], x: Any, y: float) -> str:
    number, label = run
    p50, p95 = cell["answer"]["p50"], cell["answer"]["p95"] or cell["answer"]["p50"]
    optimum = cell["optimum"]
    fast = "" if cell.get("fast_share") is None else f" · {cell['fast_share']:.0%} fast"
    ticks = f"<line class=tick x1='{x(optimum['fast_ms']):.1f}' x2='{x(optimum['fast_ms']):.1f}' "
    ticks += f"y1='{y - 2}' y2='{y + _BAR + 2}'/>"
    slow = optimum["slow_ms"]
    if slow is not None and slow > optimum["fast_ms"] + 0.01 and x(slow) < WIDTH - _RIGHT:
        ticks += f"<line class='tick slow' x1='{x(slow):.1f}' "
        ticks += f"x2='{x(slow):.1f}' y1='{y - 2}' y2='{y + _BAR + 2}'/>"
    hint = f"{label}: p50 {_ms(p50)}, p95 {_ms(p95)}, optimum {_ms(optimum['fast_ms'])} ms"
    return (
        f"<g><title>{escape(hint)}</title><rect x='{_LEFT}' y='{y}' height='{_BAR}' rx='2' "
        f"width='{max(1.0, x(p50) - _LEFT):.1f}' fill='url(#p{number})'/>"
        f"<line x1='{x(p50):.1f}' x2='{x(p95):.1f}' y1='{y + _BAR / 2}' y2='{y + _BAR / 2}' "
        f"stroke='var(--run{number})' stroke-width='2'/>{ticks}"
        f"<text class=soft x='{x(p95) + 8:.1f}' y='{y + 12}'>{_ms(p50)}{fast}</text></g>"
    )


def _tails(summary: Document, phase: Document) -> str:
    """Per region: share of answers that took longer, on a logarithmic scale."""
    runs, titles = _runs(summary), _titles(summary)
    size, high, pad = 300.0, 170.0, 38.0
    panels = []
    for at, (region, title) in enumerate(titles.items()):
        cells = [c for c in phase["cells"] if c["region"] == region and c["answer_cdf"]]
        if not cells:
            continue
        longest = max(point[0] for cell in cells for point in cell["answer_cdf"]) * 1.05
        left, top = at % 3 * (size + 20), at // 3 * (high + 62)

        def place(
            ms: float, beyond: float, left: float = left, top: float = top, longest: float = longest
        ) -> str:
            height = min(1.0, max(0.0, -log10(max(beyond, 1e-3)) / 3))
            return f"{left + pad + ms / longest * (size - pad):.1f},{top + 20 + height * high:.1f}"

        grid = "".join(
            f"<line class=axis x1='{place(0, tail).split(',')[0]}' x2='{left + size}' "
            f"y1='{place(0, tail).split(',')[1]}' y2='{place(0, tail).split(',')[1]}'/>"
            f"<text class=soft x='{left + pad - 4}' text-anchor='end' "
            f"y='{float(place(0, tail).split(',')[1]) + 4:.1f}'>{tail * 100:g} %</text>"
            for tail in _TAILS
        )
        marks = "".join(
            f"<text class=soft x='{place(v, 1e-3).split(',')[0]}' y='{top + high + 36}' "
            f"text-anchor='middle'>{v:g}</text>"
            for v in _range(_step(longest), longest)
        )
        curves = "".join(
            _curve(cell["answer_cdf"], place, runs[cell["run"]][0], "")
            + _curve(cell["commit_cdf"], place, runs[cell["run"]][0], "2 3")
            for cell in cells
        )
        panels.append(
            f"<text x='{left + pad}' y='{top + 12}' font-weight='600'>{escape(title)}</text>"
            f"{grid}{marks}{curves}"
        )
    rows = (len(titles) + 2) // 3
    return (
        "<h3>Who waits how long</h3>"
        f"<figure><svg viewBox='0 0 {WIDTH:g} {rows * (high + 62):.0f}' role=img "
        f"aria-label='Tails of the latencies'>{''.join(panels)}</svg><figcaption>Share of commands "
        "that took longer than so many ms, logarithmic. Solid: answer (execution). Dashed: commit. "
        f"{_conditions(summary)}</figcaption></figure>"
    )


def _curve(points: list[list[float]], place: Any, number: int, dash: str) -> str:
    shown, before = [], 1.0
    for ms, share in points:
        shown += [place(ms, before), place(ms, 1 - share)]
        before = 1 - share
    if not shown:
        return ""
    return (
        f"<polyline fill='none' stroke='var(--run{number})' stroke-width='1.8' "
        f"stroke-dasharray='{dash}' points='{' '.join(shown)}'/>"
    )


# Tables and texts ------------------------------------------------------------------------------


def _table(summary: Document, phase: Document) -> str:
    runs, titles = _runs(summary), _titles(summary)
    rows = []
    for region, title in titles.items():
        for cell in phase["cells"]:
            if cell["region"] != region:
                continue
            commit, answer, optimum = cell["commit"], cell["answer"], cell["optimum"]
            share = cell.get("fast_share")
            values = [
                _ms(optimum["fast_ms"]),
                *(_ms(commit[key]) for key in ("p50", "p95", "p99")),
                *(_ms(answer[key]) for key in ("p50", "p95", "p99")),
                "–" if cell.get("ratio") is None else f"{cell['ratio']:.3f}",
                "–" if share is None else f"{share:.1%}",
                f"{cell['samples']:,}",
                f"{cell['fates']['lost'] + cell['fates']['ambiguous']:,}",
            ]
            rows.append(
                f"<tr><td>{escape(title)}</td><td class=name>{escape(runs[cell['run']][1])}</td>"
                f"{''.join(f'<td>{value}</td>' for value in values)}</tr>"
            )
    heads = (
        "optimum",
        "commit p50",
        "p95",
        "p99",
        "answer p50",
        "p95",
        "p99",
        "commit / optimum",
        "fast path",
        "samples",
        "lost",
    )
    return (
        "<details open><summary>Table</summary><div class=scroll><table><tr><th>Region</th>"
        f"<th class=name>Run</th>{''.join(f'<th>{head}</th>' for head in heads)}</tr>"
        f"{''.join(rows)}</table></div><p class=note>ms. A p99 is shown from 1,000 samples.</p>"
        "</details>"
    )


def _costs(summary: Document) -> str:
    runs = _runs(summary)
    rows = [
        f"<tr><td>{phase['conflict']:g} %</td><td class=name>{escape(runs[cost['run']][1])}</td>"
        f"<td>{cost['messages']:.1f}</td><td>{cost['bytes']:,.0f}</td><td>{cost['syncs']:.1f}</td>"
        f"<td>{cost['cpu_ms']:.2f}</td></tr>"
        for phase in summary["phases"]
        for cost in phase["costs"]
    ]
    return (
        "<h2>What a command costs, all replicas together</h2><div class=scroll><table><tr>"
        "<th>Conflicts</th><th class=name>Run</th><th>messages</th><th>bytes</th><th>syncs</th>"
        f"<th>CPU ms</th></tr>{''.join(rows)}</table></div>"
    )


def _explanations(summary: Document) -> str:
    manifest = summary["manifest"]
    return (
        "<h2>How to read it</h2><p>The <em>optimum</em> is what the configured round trips allow, "
        "plus three measured syncs and the client's hop: EPaxos answers from the nearest quorum of "
        "every region, Multi-Paxos through its leader. <em>Commit</em> is when an answer could "
        "have left if answers left at commit; <em>answer</em> is what the client got, after "
        "execution.</p><h2>How it was measured</h2><p>Real replica processes on one machine, links "
        "delayed as the matrix says, one client per region at equal offered load, open loop, "
        "latency from the intended start, warm-up and end cut. "
        f"{_conditions(summary)} The same run again:</p><pre>{escape(manifest['command_line'])}"
        "</pre><details><summary>Manifest</summary><pre>"
        f"{escape(json.dumps({'setup': summary['setup'], 'manifest': manifest}, indent=1))}</pre>"
        "</details>"
    )


def _conditions(summary: Document) -> str:
    setup = summary["setup"]
    quorums = setup["quorums"]
    return escape(
        f"Matrix {setup['topology']['name']}, n = {setup['replicas']}, fast quorum "
        f"{quorums['fast']}, slow {quorums['slow']}, {setup['durability']}, {setup['loop']}, "
        f"{setup['rate']:g} commands/s per region, seed {setup['seed']}, one run."
    )


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _step(longest: float) -> float:
    for step in (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 5000.0):
        if longest / step <= 7:
            return step
    return longest


def _range(step: float, longest: float) -> list[float]:
    return [step * each for each in range(int(longest / step) + 1)]


_SCRIPT = """
for (const choice of document.querySelectorAll('input[name=layer]'))
  choice.addEventListener('change', () => {
    for (const layer of document.querySelectorAll('.layer'))
      layer.classList.toggle('dead', layer.id !== 'layer-' + choice.value);
  });
"""
