"""The report of a comparison, from the summary alone.

Top: one sentence to quote and three numbers, the verdict and a world map. Then per workload bars
with the predicted tick, tails on a logarithmic scale, commit against execution, and a table of
everything. One colour per run everywhere; a pattern beside each colour.

Rules of this file: every number shown stands in summary.json; nothing is computed here.
"""

from pathlib import Path
from typing import Any

from bench.analysis.statistics import WHY_NONE
from bench.compare.verdict import headline, key_figures
from bench.reports import charts, svg
from bench.reports.histories import Checked, histories
from bench.reports.page import render_page, write_html
from bench.reports.stages import draw_stages, sampled

Document = dict[str, Any]


def write_report(directory: Path, summary: Document) -> Path:
    """Write `report.html` into a results directory; returns its path."""
    return write_html(directory, render(summary))


def render(summary: Document) -> str:
    """The whole page."""
    manifest = summary["manifest"]
    return render_page(
        "comparison.html.j2",
        title=summary["title"],
        heading="Who is fast where, and why",
        setup=summary["title"],
        headline=headline(summary),
        key_figures=key_figures(summary),
        verdict=summary["verdict"],
        patterns=svg.patterns(len(summary["runs"])),
        keys=[(svg.key(number), label) for number, label in charts.labels(summary).values()],
        map=charts.draw_map(summary),
        phases=[_phase(summary, phase) for phase in summary["phases"]],
        costs=_costs(summary),
        why_none=WHY_NONE,
        histories=histories(_checked(summary)),
        conditions=_conditions(summary),
        method=_method(summary),
        command_line=manifest["command_line"],
        manifest={"Manifest": {"setup": summary["setup"], "manifest": manifest}},
    )


def _phase(summary: Document, phase: Document) -> Document:
    runs, titles = charts.labels(summary), charts.titles(summary)
    waterfalls = phase.get("waterfalls", ())
    return {
        "title": phase["title"],
        "bars": charts.draw_bars(summary, phase),
        "tails": charts.draw_tails(summary, phase),
        "waiting": charts.draw_waiting(summary, phase),
        "waited_ms": max(charts.longest_wait_ms(phase), 0.1),
        "stages": draw_stages(waterfalls, runs, titles),
        "fewest": min((each["samples"] for each in sampled(waterfalls)), default=0),
        "rows": [
            (charts.where(cell, titles), runs[cell["run"]][1], cell)
            for region in titles
            for cell in phase["cells"]
            if cell["region"] == region
        ],
    }


def _costs(summary: Document) -> list[tuple[str, str, Document, Document]]:
    """Workload, run, what a command cost, and how often it met another."""
    runs = charts.labels(summary)
    return [
        (phase["label"], runs[cost["run"]][1], cost, met)
        for phase in summary["phases"]
        for cost, met in zip(phase["costs"], phase["conflicts"])
    ]


def _checked(summary: Document) -> list[Checked]:
    runs = charts.labels(summary)
    return [
        (f"{phase['title']}, {runs[found['run']][1]}", found)
        for phase in summary["phases"]
        for found in phase.get("histories", ())
    ]


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
    checked = ", history checked (values all unlike)" if setup.get("check") else ""
    return (
        f"Matrix {setup['topology']['name']}, n = {setup['replicas']}, fast quorum "
        f"{quorums['fast']}, slow {quorums['slow']}, {setup['durability']}, {setup['loop']}, "
        f"{setup['rate']:g} commands/s per region, seed {setup['seed']}, one run{checked}."
    )
