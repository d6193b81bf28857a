"""What a comparison says, in sentences made from its figures.

A difference counts as one when its 95 % interval excludes 0 and it is at least LEVEL_SHARE of the
other median: less is called level. The sentences say where EPaxos loses, too.

Rules of this file: pure; it reads a summary (summary.py) and nothing else. Whether the figures may
be believed says analysis.validity.
"""

from collections.abc import Callable
from math import ceil, inf
from typing import Any, Final, NamedTuple

from bench.analysis.units import ms, percent
from bench.analysis.validity import validity
from epaxos.percentile import median

LEVEL_SHARE: Final = 0.01
"""Smaller differences, in parts of the other's median, are called level."""
CLOSE_SHARE: Final = 0.03
"""A median within this of the optimum is said to be at it."""
_SIGNIFICANT: Final = (
    "Faster and slower are significant: the 95 % bootstrap interval of the difference of medians "
    f"excludes 0, and the difference is at least {LEVEL_SHARE * 100:g} %; otherwise level."
)
_CAVEATS: Final = {"VALID": "", "SUSPECT": "SUSPECT: ", "INVALID": "INVALID, not to be quoted: "}
_FIRST: Final = {"faster": "faster than", "slower": "slower than", "level": "as fast as"}
_NAMED: Final = 2
"""So many regions are named in the headline; more are counted."""
_VIRTUAL: Final = "virtual time: no lag, no CPU and no other program is in these figures"


def judge(summary: dict[str, Any]) -> dict[str, Any]:
    """`sentences`, `validity` (VALID, SUSPECT or INVALID), `reasons` and `evidence`, a line."""
    level, reasons = validity(summary)
    return {
        "sentences": sentences(summary),
        "validity": level,
        "reasons": reasons,
        "evidence": evidence(summary),
    }


class KeyFigure(NamedTuple):
    """A number for the top of a report."""

    value: str
    """With its unit: `73.2 ms`."""
    what: str
    """What it is, and under which condition."""
    beside: str
    """The rival's: `Multi-Paxos led from California: 120.3 ms`; empty where there is none."""


def headline(summary: dict[str, Any]) -> str:
    """One sentence to quote: the leaderless protocol against the best leader, where it is faster,
    level or slower and by how much, at the lowest and at the highest conflict rate. Without two
    protocols to compare, the span of each one's medians."""
    caveat = _CAVEATS[validity(summary)[0]]
    rival = _rival(summary)
    phases = _ends(summary["phases"])
    if not any(cell["samples"] for phase in phases for cell in phase["cells"]):
        return f"{caveat}No command was answered."
    if rival is None:
        return caveat + _joined([_medians_said(summary, phase) for phase in phases])
    return caveat + _joined(
        [_compared(summary, phase, rival, is_first=i == 0) for i, phase in enumerate(phases)]
    )


def key_figures(summary: dict[str, Any]) -> list[KeyFigure]:
    """Up to three numbers: the regions' median and the slowest region's tail at the lowest conflict
    rate, and the median at the highest; with one workload, the share of the fast path instead."""
    ours, rival = _ours(summary), _rival(summary)
    cold, *hot = _ends(summary["phases"])
    tail = "p99" if all(cell["answer"]["p99"] is not None for cell in cold["cells"]) else "p95"
    count = len({cell["region"] for cell in cold["cells"]})
    typical, slowest = "median answer", f"{tail} of the answers"
    if count > 1:
        typical += f", median over the {count} regions"
        slowest += f" in the slowest of the {count} regions"
    wanted: list[tuple[dict[str, Any], str, Callable[[list[float]], float | None], str]] = [
        (cold, "p50", median, typical),
        (cold, tail, max, slowest),
        *((phase, "p50", median, typical) for phase in hot),
    ]
    found = []
    for phase, which, over, what in wanted:
        beside = ""
        if rival is not None and (others := _regional(phase, rival, which)):
            beside = f"{rival['title']}: {ms(over(others))} ms"
        if values := _regional(phase, ours, which):
            said = f"{ours['title']} {_preposition(phase)} {phase['title']}: {what}"
            found.append(KeyFigure(f"{ms(over(values))} ms", said, beside))
    paths = [cell["paths"] for cell in cold["cells"] if cell["run"] == ours["run"]]
    if not hot and ours["leader"] is None and any(paths):
        fast, all_paths = sum(p.get("fast", 0) for p in paths), sum(sum(p.values()) for p in paths)
        said = f"{ours['title']} {_preposition(cold)} {cold['title']}: decided in one round trip"
        found.append(KeyFigure(percent(fast / all_paths), said, ""))
    return found


def _regional(phase: dict[str, Any], run: dict[str, Any], which: str) -> list[float]:
    """A percentile of a run's answers, of each region that has it."""
    return [
        cell["answer"][which]
        for cell in phase["cells"]
        if cell["run"] == run["run"] and cell["answer"][which] is not None
    ]


def _ours(summary: dict[str, Any]) -> dict[str, Any]:
    """The leaderless run, or the first."""
    runs: list[dict[str, Any]] = summary["runs"]
    return next((run for run in runs if run["leader"] is None), runs[0])


def _rival(summary: dict[str, Any]) -> dict[str, Any] | None:
    """What ours is compared with in one sentence: the run with the best leader, by its placement
    or else by its medians."""
    cold = _ends(summary["phases"])[0]
    against = {row["against"] for row in cold["comparisons"]}

    def order(run: dict[str, Any]) -> tuple[bool, float]:
        typical = median(_regional(cold, run, "p50"))
        return run["placement"] != "best", inf if typical is None else typical

    return min((run for run in summary["runs"] if run["run"] in against), key=order, default=None)


def _ends(phases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The phases with the lowest and the highest conflict rate; one where there is one."""
    ordered = sorted(phases, key=lambda phase: phase["conflict"] or 0.0)
    return ordered[:1] + ordered[1:][-1:]


def _preposition(phase: dict[str, Any]) -> str:
    return "with" if phase["conflict"] is None else "at"


def _compared(
    summary: dict[str, Any], phase: dict[str, Any], rival: dict[str, Any], *, is_first: bool
) -> str:
    """A part of the headline: ours against one other run in one phase."""
    titles, parts = _titles(summary), list[str]()
    rows = [row for row in phase["comparisons"] if row["against"] == rival["run"]]
    for word, group in _grouped(phase, rival, rows).items():
        by = "" if word in ("level", "without figures") else f" (by {_span(group)})"
        where = _where(group, len(rows), titles)
        if len(group) == len(rows) == 2:
            where = "both regions"
        elif _NAMED < len(group) < len(rows):
            where = f"{len(group)} of {len(rows)} regions"
        if is_first and not parts and word in _FIRST:
            placed = _placed(rival)
            word = f"{_FIRST[word]} {rival['title']}{placed}{',' if placed else ''}"
            by = by.replace(" ms)", " ms at the median)")
        parts.append(f"{word} in {where}{by}")
    ours = f"{_ours(summary)['title']} answers " if is_first else ""
    return f"{_preposition(phase)} {phase['title']} {ours}{_join(parts)}"


def _medians_said(summary: dict[str, Any], phase: dict[str, Any]) -> str:
    """A part of the headline without a comparison: each run's shortest and longest median."""
    titles, said = _titles(summary), []
    for run in summary["runs"]:
        medians = sorted(
            (cell["answer"]["p50"], titles[cell["region"]])
            for cell in phase["cells"]
            if cell["run"] == run["run"] and cell["answer"]["p50"] is not None
        )
        if medians:
            (low, nearest), (high, farthest) = medians[0], medians[-1]
            span = f"{low:.1f} ms in {nearest}"
            span += f" to {high:.1f} ms in {farthest}" if len(medians) > 1 else ""
            said.append(f"{run['title']} {span}")
    answers = _join(said) if said else "unknown"
    return f"{_preposition(phase)} {phase['title']} the median answer takes {answers}"


def _joined(parts: list[str]) -> str:
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def sentences(summary: dict[str, Any]) -> list[str]:
    """Who won where, by how much, and where EPaxos loses: a paragraph per workload, and one on
    how near to physics the leader protocols were."""
    runs = {run["run"]: run for run in summary["runs"]}
    titles = _titles(summary)
    found: list[str] = []
    for phase in summary["phases"]:
        parts = _leaderless(phase, runs, titles)
        parts += _without_answer(phase, runs, summary["setup"]["patience_s"])
        for run in runs:
            rows = [row for row in phase["comparisons"] if row["against"] == run]
            if rows:
                parts.append(_against(phase, runs[run], rows, titles))
        if parts:
            word = "With" if phase["conflict"] is None else "At"
            found.append(f"{word} {phase['title']} " + " ".join(parts))
    for name, run in runs.items():
        if run["leader"] is not None:
            found += _led(name, run, summary["phases"])
    if any(phase["comparisons"] for phase in summary["phases"]):
        found.append(_SIGNIFICANT)
    return found


def _leaderless(phase: dict[str, Any], runs: dict[str, Any], titles: dict[str, str]) -> list[str]:
    """How near to physics EPaxos is, and why not nearer."""
    found = []
    for row in phase["conflicts"]:
        cells = [c for c in phase["cells"] if c["run"] == row["run"] and c["ratio"] is not None]
        if row["slow"] is None or not cells:
            continue
        title = runs[row["run"]]["title"]
        over = [c for c in cells if c["ratio"] > 1 + CLOSE_SHARE]
        worst = max(c["ratio"] for c in cells)
        if over:
            where = _where(over, len(cells), titles)
            above = f"up to {_over(worst)} % above the optimum"
            if worst >= 2:
                above = f"in up to {worst:.1f} times the one-round-trip optimum"
            found.append(f"{title} commits {above} in {where}.")
        else:
            found.append(
                f"{title} commits within {_over(worst)} % of the optimum in {_all(len(cells))}."
            )
        if row["slow"]:
            share = row["slow"] / sum(c["samples"] for c in cells) * 100
            explained = (
                "all explained by conflicts that happened"
                if not row["unexplained"]
                else f"{row['unexplained']:,} of them not explained by any conflict"
            )
            found.append(
                f"{_percent(share)} % of its commands ({row['slow']:,}) needed a second round "
                f"trip, {explained}."
            )
    return found


def _without_answer(phase: dict[str, Any], runs: dict[str, Any], patience_s: float) -> list[str]:
    found = []
    for name, run in runs.items():
        fates = [cell["fates"] for cell in phase["cells"] if cell["run"] == name]
        sent = sum(each["sent"] for each in fates)
        missing = sent - sum(each["answered"] for each in fates)
        if missing:
            found.append(
                f"{run['title']} did not answer {missing:,} of {sent:,} commands within "
                f"{patience_s:g} s; its percentiles are those of the others."
            )
    return found


def _led(name: str, run: dict[str, Any], phases: list[dict[str, Any]]) -> list[str]:
    ratios = [
        cell["ratio"]
        for phase in phases
        for cell in phase["cells"]
        if cell["run"] == name and cell["ratio"] is not None
    ]
    if not ratios:
        return []
    worst = max(ratios)
    if worst >= 2:
        return [f"{run['title']} commits in up to {worst:.1f} times its own optimum."]
    if worst > 1 + CLOSE_SHARE:
        return [f"{run['title']} commits up to {_over(worst)} % above its own optimum."]
    return [f"{run['title']} commits within {_over(worst)} % of its own optimum everywhere."]


def _over(ratio: float) -> int:
    """Whole percent above 1, rounded up, at least 1."""
    return max(1, ceil((ratio - 1) * 100))


def _titles(summary: dict[str, Any]) -> dict[str, str]:
    return {region["name"]: region["title"] for region in summary["setup"]["topology"]["regions"]}


def _grouped(
    phase: dict[str, Any], run: dict[str, Any], rows: list[dict[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Regions by what became of ours there: faster, slower, level or without figures."""
    found: dict[str, list[dict[str, Any]]] = {
        word: [] for word in ("faster", "slower", "level", "without figures")
    }
    cells = {(c["run"], c["region"]): c for c in phase["cells"]}
    for row in rows:
        difference = row["answer"]
        other = cells[run["run"], row["region"]]["answer"]["p50"]
        if difference is None or other is None:
            word = "without figures"
        elif not difference["significant"] or abs(difference["median_ms"]) < LEVEL_SHARE * other:
            word = "level"
        else:
            word = "faster" if difference["median_ms"] < 0 else "slower"
        found[word].append(row)
    return {word: group for word, group in found.items() if group}


def _against(
    phase: dict[str, Any], run: dict[str, Any], rows: list[dict[str, Any]], titles: dict[str, str]
) -> str:
    parts = []
    for word, group in _grouped(phase, run, rows).items():
        by = f" (by {_span(group)})" if word in ("faster", "slower") else ""
        parts.append(f"{word} in {_where(group, len(rows), titles)}{by}")
    return f"Against {run['title']}{_placed(run)}, its answers are {_join(parts)}."


def _placed(run: dict[str, Any]) -> str:
    return f", its {run['placement']} leader" if run["placement"] in ("best", "worst") else ""


def _where(rows: list[dict[str, Any]], total: int, titles: dict[str, str]) -> str:
    return _all(total) if len(rows) == total else _join([titles[r["region"]] for r in rows])


def _all(count: int) -> str:
    return f"all {count} regions" if count > 1 else "its region"


def _span(rows: list[dict[str, Any]]) -> str:
    sizes = sorted(abs(row["answer"]["median_ms"]) for row in rows)
    low, high = f"{sizes[0]:.1f}", f"{sizes[-1]:.1f}"
    return f"{low} ms" if low == high else f"{low} to {high} ms"


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _percent(share: float) -> str:
    return f"{share:.0f}" if share >= 10 else f"{share:.1f}"


def evidence(summary: dict[str, Any]) -> str:
    """The line beside VALID: the worst of everything that was watched."""
    health = [row for phase in summary["phases"] for row in phase["health"]]
    fates = [cell["fates"] for phase in summary["phases"] for cell in phase["cells"]]
    if not health:
        return f"{_VIRTUAL} · {_lost(fates)}"
    errors = [row["link_error_p99_ms"] for row in health if row["link_error_p99_ms"] is not None]
    parts = [f"loop lag p99 {max(row['loop_lag_p99_ms'] for row in health):.1f} ms"]
    if errors:
        parts.append(f"link error p99 {max(errors):.1f} ms")
    parts.append(_lost(fates))
    parts.append(f"clients {max(row['client_cpu'] for row in health) * 100:.0f} % CPU")
    others = max(row["others_cpu"] or 0.0 for row in health)
    machine = max(row["machine_cpu"] for row in health)
    parts.append(f"machine {machine * 100:.0f} %, others {others * 100:.0f} %")
    return " · ".join(parts)


def _lost(fates: list[dict[str, Any]]) -> str:
    lost = f"{sum(f['lost'] for f in fates):,} of {sum(f['sent'] for f in fates):,} lost"
    failed = sum(f["refused"] + f["ambiguous"] for f in fates)
    return f"{lost} · {failed:,} refused or ambiguous" if failed else lost
