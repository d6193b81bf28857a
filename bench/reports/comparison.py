"""The report of a comparison: one HTML file, no network, from the summary alone.

Top: the verdict and a world map. Then per workload bars with the predicted tick, tails on a
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

from bench.reports import stages
from bench.reports.worldmap import HEIGHT, WIDTH, land_path, project, way_path

Document = dict[str, Any]

_PATTERNS = ("", "M0,4 l4,-4", "M0,0 l4,4", "M0,2 h4", "M2,0 v4")
_BAR, _GAP, _LEFT, _RIGHT = 15, 12, 120, 150
_TAILS = (0.5, 0.1, 0.01, 0.001)
_MARKED = (0.5, 0.1, 0.01)
_REASONS_OPEN = 4
_WAITED_MS = 1.0
"""Less between commit and answer is not drawn."""


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
        f"{_definitions(summary)}{_verdict(summary['verdict'])}{_map(summary)}{phases}"
        f"{_costs(summary)}{_explanations(summary)}<script>{_SCRIPT}</script></body></html>"
    )


def _verdict(verdict: Document) -> str:
    sentences = "".join(f"<p>{escape(each)}</p>" for each in verdict["sentences"])
    reasons = "".join(f"<li>{escape(each)}</li>" for each in verdict["reasons"])
    if reasons:
        shown = "open" if len(verdict["reasons"]) <= _REASONS_OPEN else ""
        count = f"{len(verdict['reasons'])} reason{'s' if len(verdict['reasons']) > 1 else ''}"
        reasons = f"<details {shown}><summary>{count}</summary><ul>{reasons}</ul></details>"
    validity = escape(verdict["validity"])
    return (
        f"<section class=verdict>{sentences}<p><span class='badge {validity}'>{validity}</span> "
        f"{escape(verdict['evidence'])}</p>{reasons}</section>"
    )


def _runs(summary: Document) -> dict[str, tuple[int, str]]:
    """Run -> (number, label)."""
    return {run["run"]: (at, run["label"]) for at, run in enumerate(summary["runs"])}


def _definitions(summary: Document) -> str:
    """The patterns of the runs, for the whole page."""
    found = []
    for number, _ in _runs(summary).values():
        stroke = _PATTERNS[number % len(_PATTERNS)]
        lines = f"<path d='{stroke}' stroke='var(--paper)' stroke-width='1'/>" if stroke else ""
        found.append(
            f"<pattern id='p{number}' width='4' height='4' patternUnits='userSpaceOnUse'>"
            f"<rect width='4' height='4' fill='var(--run{number})'/>{lines}</pattern>"
        )
    return f"<svg class=definitions><defs>{''.join(found)}</defs></svg>"


def _mark(number: int, x: float, y: float, size: float) -> str:
    """The shape of a run at a place: with the pattern of its bars, what tells runs apart without
    colour."""
    look = f"class=mark fill='var(--run{number})'"
    shape = number % 5
    if shape == 0:
        return f"<circle {look} cx='{x:.1f}' cy='{y:.1f}' r='{size:g}'/>"
    k = size * 0.9
    corners = {
        1: ((-k, -k), (k, -k), (k, k), (-k, k)),
        2: ((0, -1.2 * size), (1.1 * size, 0.9 * size), (-1.1 * size, 0.9 * size)),
        3: ((0, -1.3 * size), (1.3 * size, 0), (0, 1.3 * size), (-1.3 * size, 0)),
        4: ((0, 1.2 * size), (1.1 * size, -0.9 * size), (-1.1 * size, -0.9 * size)),
    }[shape]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f"<polygon {look} points='{points}'/>"


def _key(number: int) -> str:
    """Pattern and shape of a run, for a line of text."""
    return (
        f"<svg class=key viewBox='0 0 40 14'><rect y='1' width='24' height='12' rx='2' "
        f"fill='url(#p{number})'/>{_mark(number, 33, 7, 4.5)}</svg>"
    )


# Map -------------------------------------------------------------------------------------------


def _map(summary: Document) -> str:
    places = {
        region["name"]: region
        for region in summary["setup"]["topology"]["regions"]
        if region.get("lat") is not None and region.get("lon") is not None
    }
    if not places:
        keys = " ".join(
            f"{_key(number)}{escape(label)}" for number, label in _runs(summary).values()
        )
        return f"<p class=note>{keys}</p>"
    runs = {run["run"]: run for run in summary["runs"]}
    layers: list[str] = []
    for at, phase in enumerate(summary["phases"]):
        for number, run in enumerate(runs.values()):
            cells = [cell for cell in phase["cells"] if cell["run"] == run["run"]]
            layers.append(
                f"<g class='layer{' dead' if layers else ''}' data-run='{number}' "
                f"data-workload='{at}'>"
                f"{''.join(_site(cell, run['leader'], places, number) for cell in cells)}</g>"
            )
    heights = [project(each["lon"], each["lat"])[1] for each in places.values()]
    top = max(0.0, min(heights) - 90)
    bottom = min(HEIGHT, max(max(heights) + 70, top + 220))
    return (
        f"<figure>{_choices(summary)}"
        f"<svg viewBox='0 {top:.0f} {WIDTH:g} {bottom - top:.0f}' role=img "
        f"aria-label='World map of the regions'>"
        f"<path class=land d='{land_path()}'/>{''.join(layers)}</svg>"
        "<figcaption>Numbers: median answer in ms. Lines: whom a region's commands wait for, by "
        "closed form: EPaxos for its nearest quorum, Multi-Paxos for the leader and the leader's "
        "quorum. The thicker the lines of EPaxos, the more fast paths. Point at a region for its "
        "quorum.</figcaption></figure>"
    )


def _choices(summary: Document) -> str:
    """What the map shows: a run and a workload."""

    def choice(name: str, value: str, text: str, first: bool) -> str:
        checked = " checked" if first else ""
        return f"<label><input type=radio name={name} value='{value}'{checked}> {text}</label>"

    runs = "".join(
        choice("run", str(number), f"{_key(number)}{escape(label)}", number == 0)
        for number, label in _runs(summary).values()
    )
    workloads = "".join(
        choice("workload", str(at), escape(phase["title"]), at == 0)
        for at, phase in enumerate(summary["phases"])
    )
    return f"<p class=choose>{runs}</p><p class=choose>{workloads}</p>"


def _site(cell: Document, leader: str | None, places: Document, number: int) -> str:
    """One region on the map: its ways, its mark, its median."""
    here = places.get(cell["region"])
    if here is None:
        return ""
    share = cell.get("fast_share")
    width = 2.2 if share is None else 0.8 + 2 * share
    quorum = cell["optimum"]["quorum"]
    home = _home(cell)
    asked = quorum if leader in (None, home) else [leader]
    if home != cell["region"]:
        asked = [home]
    ways = "".join(
        f"<path class=way stroke='var(--run{number})' stroke-width='{width:.1f}' "
        f"d='{way_path(_point(here), _point(places[other]))}'/>"
        for other in asked
        if other in places and other != cell["region"]
    )
    x, y = project(here["lon"], here["lat"])
    crowded = any(
        abs(x - other_x) < 150 and 0 < y - other_y < 40
        for other_x, other_y in (project(each["lon"], each["lat"]) for each in places.values())
    )
    titles = {name: place["title"] for name, place in places.items()}
    steps = dict.fromkeys([home, leader or home])
    through = "".join(
        f" through {titles.get(each, each)}" for each in steps if each != cell["region"]
    )
    fast = "" if share is None else f", {_share(share)} fast path"
    hint = (
        f"{here['title']}{through}: answer p50 {_ms(cell['answer']['p50'])} ms, optimum "
        f"{_ms(cell['optimum']['fast_ms'])} ms{fast}"
    )
    if quorum:
        hint += f"; quorum {', '.join(titles.get(each, each) for each in quorum)}"
    size = 8.5 if leader == cell["region"] else 6
    text = f"text-anchor='end' x='{x - 9:.1f}'" if x > WIDTH - 150 else f"x='{x + 10:.1f}'"
    return (
        f"<g class=site><title>{escape(hint)}</title>{ways}{_mark(number, x, y, size)}"
        f"<text {text} y='{y + (19 if crowded else -8):.1f}'>{escape(here['title'])} "
        f"<tspan font-weight='700'>{_ms(cell['answer']['p50'])}</tspan></text></g>"
    )


def _home(cell: Document) -> str:
    """The region of the replica that a cell's clients ask."""
    name: str = cell["replica" if "replica" in cell else "region"]
    return name


def _point(place: Document) -> tuple[float, float]:
    return place["lon"], place["lat"]


# Bars and tails --------------------------------------------------------------------------------


def _phase(summary: Document, phase: Document) -> str:
    title = escape(phase["title"])
    return (
        f"<section><h2>{title}</h2>{_bars(summary, phase)}{_tails(summary, phase)}"
        f"{_waiting(summary, phase)}{_stages(summary, phase)}{_table(summary, phase)}</section>"
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
    longest = max(longest, *(cell["optimum"]["fast_ms"] or 0.0 for cell in cells)) * 1.04
    wide = WIDTH - _LEFT - _RIGHT

    def x(value: float) -> float:
        return _LEFT + value / longest * wide

    parts, y = list[str](), 8.0
    for region, title in titles.items():
        mine = [cell for cell in cells if cell["region"] == region]
        if not mine:
            continue
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
    fast = "" if cell.get("fast_share") is None else f" · {_share(cell['fast_share'])} fast"
    best, slow = optimum["fast_ms"], optimum["slow_ms"]
    ticks = ""
    if best is not None:
        ticks = f"<line class=tick x1='{x(best):.1f}' x2='{x(best):.1f}' "
        ticks += f"y1='{y - 2}' y2='{y + _BAR + 2}'/>"
    after = x(p95) + 8
    if slow is not None and slow > best + 0.01 and x(slow) < WIDTH - _RIGHT:
        ticks += f"<line class='tick slow' x1='{x(slow):.1f}' "
        ticks += f"x2='{x(slow):.1f}' y1='{y - 2}' y2='{y + _BAR + 2}'/>"
        if after - 6 < x(slow) < after + 140:
            after = x(slow) + 8
    hint = f"{label}: p50 {_ms(p50)}, p95 {_ms(p95)}, optimum {_ms(best)} ms"
    return (
        f"<g><title>{escape(hint)}</title><rect x='{_LEFT}' y='{y}' height='{_BAR}' rx='2' "
        f"width='{max(1.0, x(p50) - _LEFT):.1f}' fill='url(#p{number})'/>"
        f"<line x1='{x(p50):.1f}' x2='{x(p95):.1f}' y1='{y + _BAR / 2}' y2='{y + _BAR / 2}' "
        f"stroke='var(--run{number})' stroke-width='2'/>{ticks}"
        f"<text class=soft x='{after:.1f}' y='{y + 12}'>{_ms(p50)} {escape(label)}{fast}</text></g>"
    )


def _tails(summary: Document, phase: Document) -> str:
    """Per region: share of answers that took longer, on a logarithmic scale."""
    titles = _titles(summary)
    panels: list[str] = []
    for region, title in titles.items():
        cells = [c for c in phase["cells"] if c["region"] == region and c["answer_cdf"]]
        if cells:
            longest = max(point[0] for cell in cells for point in cell["answer_cdf"]) * 1.05
            panel = _Panel(len(panels) % 3 * 320.0, len(panels) // 3 * 232.0, longest)
            panels.append(panel.draw(title, cells, _runs(summary)))
    return (
        "<h3>Who waits how long</h3>"
        f"<figure><svg viewBox='0 0 {WIDTH:g} {(len(panels) + 2) // 3 * 232}' role=img "
        f"aria-label='Tails of the latencies'>{''.join(panels)}</svg><figcaption>Share of commands "
        "that took longer than so many ms, logarithmic. Solid: answer (execution). Dashed: commit. "
        f"Marks at 50, 10 and 1 %. {_conditions(summary)}</figcaption></figure>"
    )


class _Panel:
    """One region's tails: x in ms, y the share of commands that took longer, down to 0.1 %."""

    _WIDE, _HIGH, _PAD = 300.0, 170.0, 44.0

    def __init__(self, left: float, top: float, longest: float) -> None:
        self._left = left
        self._top = top
        self._longest = longest

    def x(self, ms: float) -> float:
        return self._left + self._PAD + ms / self._longest * (self._WIDE - self._PAD)

    def y(self, beyond: float) -> float:
        down = min(1.0, max(0.0, -log10(max(beyond, 1e-3)) / 3))
        return self._top + 20 + down * self._HIGH

    def draw(self, title: str, cells: list[Document], runs: dict[str, tuple[int, str]]) -> str:
        """The panel of a region."""
        grid = "".join(
            f"<line class=axis x1='{self.x(0):.1f}' x2='{self._left + self._WIDE}' "
            f"y1='{self.y(tail):.1f}' y2='{self.y(tail):.1f}'/>"
            f"<text class=soft x='{self.x(0) - 4:.1f}' text-anchor='end' "
            f"y='{self.y(tail) + 4:.1f}'>{tail * 100:g} %</text>"
            for tail in _TAILS
        )
        scale = "".join(
            f"<text class=soft x='{self.x(v):.1f}' y='{self.y(1e-3) + 16:.1f}' "
            f"text-anchor='middle'>{v:g}</text>"
            for v in _range(_step(self._longest), self._longest)
        )
        curves = "".join(
            self._curve(cell["commit_cdf"], runs[cell["run"]][0], dashed=True)
            + self._curve(cell["answer_cdf"], runs[cell["run"]][0], dashed=False)
            for cell in cells
        )
        heading = f"<text x='{self.x(0):.1f}' y='{self._top + 12}' font-weight='600'>"
        return f"{heading}{escape(title)}</text>{grid}{scale}{curves}"

    def _curve(self, points: list[list[float]], number: int, *, dashed: bool) -> str:
        shown, marks, before = [], "", 1.0
        for ms, share in points:
            x, beyond = self.x(ms), 1 - share
            shown += [f"{x:.1f},{self.y(before):.1f}", f"{x:.1f},{self.y(beyond):.1f}"]
            for tail in _MARKED:
                if not dashed and beyond <= tail < before:
                    marks += _mark(number, x, self.y(tail), 3.6)
            before = beyond
        dash = "stroke-dasharray='2 3'" if dashed else ""
        return (
            f"<polyline fill='none' stroke='var(--run{number})' stroke-width='1.8' {dash} "
            f"points='{' '.join(shown)}'/>{marks}"
        )


def _stages(summary: Document, phase: Document) -> str:
    """Where the time of a typical batch goes."""

    def scale(longest: float) -> list[float]:
        return _range(_step(longest), longest)

    return stages.figure(phase.get("waterfalls", ()), _runs(summary), _titles(summary), scale)


def _waiting(summary: Document, phase: Document) -> str:
    """Commit against execution, for the runs where it makes a difference."""
    runs, titles = _runs(summary), _titles(summary)
    cells = [cell for cell in phase["cells"] if cell["answer"]["p50"] is not None]
    heading = "<h3>From commit to answer</h3>"

    def waited(cell: Document) -> float:
        gaps = [cell["answer"][key] - cell["commit"][key] for key in ("p50", "p95")]
        return float(max(gaps))

    waiting = {cell["run"] for cell in cells if waited(cell) > _WAITED_MS}
    if not waiting:
        longest = max((waited(cell) for cell in cells), default=0.0)
        return (
            f"{heading}<p>Nobody waited: at p50 and p95 every run's answers left within "
            f"{max(longest, 0.1):.1f} ms of commit.</p>"
        )
    shown = [cell for cell in cells if cell["run"] in waiting]
    longest = max(cell["answer"]["p95"] for cell in shown) * 1.04
    wide = WIDTH - _LEFT - _RIGHT
    parts, y, before = list[str](), 14.0, ""
    for cell in shown:
        number, label = runs[cell["run"]]
        ends = [
            (_LEFT + cell[kind][key] / longest * wide)
            for key in ("p50", "p95")
            for kind in ("commit", "answer")
        ]
        name = titles[cell["region"]] if cell["region"] != before else ""
        before = cell["region"]
        parts.append(
            f"<text x='{_LEFT - 8}' y='{y + 4}' text-anchor='end'>{escape(name)}</text>"
            f"<line stroke='var(--run{number})' stroke-width='5' x1='{ends[0]:.1f}' "
            f"x2='{ends[1]:.1f}' y1='{y}' y2='{y}'/>"
            f"<line stroke='var(--run{number})' stroke-width='1.5' stroke-dasharray='2 3' "
            f"x1='{ends[2]:.1f}' x2='{ends[3]:.1f}' y1='{y + 8}' y2='{y + 8}'/>"
            f"<circle class=commit cx='{ends[0]:.1f}' cy='{y}' r='4.5' "
            f"stroke='var(--run{number})'/>{_mark(number, ends[1], y, 5.5)}"
            f"<text class=soft x='{max(ends[1], ends[3]) + 10:.1f}' y='{y + 4}'>{escape(label)}: "
            f"{_ms(cell['commit']['p50'])} → {_ms(cell['answer']['p50'])}</text>"
        )
        y += 26
    return (
        f"{heading}<figure><svg viewBox='0 0 {WIDTH:g} {y:.0f}' role=img "
        f"aria-label='From commit to answer'>{''.join(parts)}</svg><figcaption>Ring: commit p50. "
        "Filled: answer p50, after everything the command must follow was executed. Thin dashed "
        "line: the same at p95. What is not shown did not wait.</figcaption></figure>"
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
                "–" if share is None else _share(share),
                f"{cell['samples']:,}",
                f"{cell['fates']['lost'] + cell['fates']['ambiguous']:,}",
            ]
            home = _home(cell)
            where = title if home == region else f"{title} → {titles[home]}"
            rows.append(
                f"<tr><td>{escape(where)}</td><td class=name>{escape(runs[cell['run']][1])}</td>"
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
        f"<tr><td>{escape(phase['label'])}</td><td class=name>{escape(runs[cost['run']][1])}</td>"
        f"<td>{met['realised_share'] * 100:.1f} %</td>"
        f"<td>{met['realised_batch_share'] * 100:.1f} %</td>"
        f"<td>{cost['messages']:.1f}</td><td>{cost['bytes']:,.0f}</td><td>{cost['syncs']:.1f}</td>"
        f"<td>{'–' if cost['cpu_ms'] is None else format(cost['cpu_ms'], '.2f')}</td></tr>"
        for phase in summary["phases"]
        for cost, met in zip(phase["costs"], phase["conflicts"])
    ]
    return (
        "<h2>What a command costs, all replicas together</h2><div class=scroll><table><tr>"
        "<th>Configured</th><th class=name>Run</th><th>met another</th><th>batches that did</th>"
        "<th>messages</th><th>bytes</th><th>syncs</th>"
        f"<th>CPU ms</th></tr>{''.join(rows)}</table></div>"
    )


def _explanations(summary: Document) -> str:
    manifest = summary["manifest"]
    return (
        "<h2>How to read it</h2><p>One colour, pattern and shape per run, everywhere. The "
        "<em>optimum</em> is what the configured round trips allow, plus the syncs on the way and "
        "the client's hop: EPaxos answers from the nearest quorum of every region, Multi-Paxos "
        "through its leader. <em>Commit</em> is when an answer could "
        "have left if answers left at commit; <em>answer</em> is what the client got, after "
        "execution. A command <em>met another</em> if a command of another region on its key, one "
        "of the two a write, was under way; what is <em>configured</em> is how often clients "
        "choose a shared key.</p>"
        f"<h2>How it was measured</h2><p>{_method(summary)} One client per region at "
        "equal offered load, open loop, latency from the intended start, warm-up and end cut. "
        f"{_conditions(summary)} The same run again:</p><pre>{escape(manifest['command_line'])}"
        "</pre><details><summary>Manifest</summary><pre>"
        f"{escape(json.dumps({'setup': summary['setup'], 'manifest': manifest}, indent=1))}</pre>"
        "</details>"
    )


def _method(summary: Document) -> str:
    if not summary.get("simulated"):
        return "Real replica processes on one machine, links delayed as the matrix says."
    setup = summary["setup"]
    syncs = ""
    if setup["durability"] == "fsync":
        syncs = f", every sync takes {setup['sync_ms']:g} ms"
    links = "with the topology's jitter" if setup["jitter"] else "without jitter"
    return (
        "In virtual time: the replicas' own code, driven by one clock that no machine delays. "
        f"Links take what the matrix says, {links}{syncs}, and computing takes no time."
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


def _share(share: float) -> str:
    """`100 %` is said only of all."""
    if share in (0.0, 1.0):
        return f"{share * 100:.0f} %"
    return f"{min(max(share * 100, 0.1), 99.9):.1f} %"


def _step(longest: float) -> float:
    for step in (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 5000.0):
        if longest / step <= 7:
            return step
    return longest


def _range(step: float, longest: float) -> list[float]:
    return [step * each for each in range(int(longest / step) + 1)]


_SCRIPT = """
const chosen = name => document.querySelector(`input[name=${name}]:checked`).value;
for (const choice of document.querySelectorAll('.choose input'))
  choice.addEventListener('change', () => {
    for (const layer of document.querySelectorAll('.layer'))
      layer.classList.toggle('dead', layer.dataset.run !== chosen('run')
        || layer.dataset.workload !== chosen('workload'));
  });
"""
