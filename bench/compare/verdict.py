"""What a comparison says, in sentences made from its figures.

A difference counts as one when its 95 % interval excludes 0 and it is at least LEVEL_SHARE of the
other median: less is called level. The sentences say where EPaxos loses, too.

Rules of this file: pure; it reads a summary (summary.py) and nothing else. Whether the figures may
be believed says analysis.validity.
"""

from math import ceil
from typing import Any, Final

from bench.analysis.validity import validity

LEVEL_SHARE: Final = 0.01
"""Smaller differences, in parts of the other's median, are called level."""
CLOSE_SHARE: Final = 0.03
"""A median within this of the optimum is said to be at it."""
_SIGNIFICANT: Final = (
    "Faster and slower are significant: the 95 % bootstrap interval of the difference of medians "
    f"excludes 0, and the difference is at least {LEVEL_SHARE * 100:g} %; otherwise level."
)
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


def sentences(summary: dict[str, Any]) -> list[str]:
    """Who won where, by how much, and where EPaxos loses: a paragraph per workload, and one on
    how near to physics the leader protocols were."""
    runs = {run["run"]: run for run in summary["runs"]}
    titles = {region["name"]: region["title"] for region in summary["setup"]["topology"]["regions"]}
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


def _against(
    phase: dict[str, Any], run: dict[str, Any], rows: list[dict[str, Any]], titles: dict[str, str]
) -> str:
    faster, slower, level, unknown = [], [], [], []
    cells = {(c["run"], c["region"]): c for c in phase["cells"]}
    for row in rows:
        found = row["answer"]
        other = cells[run["run"], row["region"]]["answer"]["p50"]
        if found is None or other is None:
            unknown.append(row)
        elif not found["significant"] or abs(found["median_ms"]) < LEVEL_SHARE * other:
            level.append(row)
        elif found["median_ms"] < 0:
            faster.append(row)
        else:
            slower.append(row)
    total = len(rows)
    parts = []
    for group, word in ((faster, "faster"), (slower, "slower")):
        if group:
            parts.append(f"{word} in {_where(group, total, titles)} (by {_span(group)})")
    if level:
        parts.append(f"level in {_where(level, total, titles)}")
    if unknown:
        parts.append(f"without figures in {_where(unknown, total, titles)}")
    placed = f", its {run['placement']} leader" if run["placement"] in ("best", "worst") else ""
    return f"Against {run['title']}{placed}, its answers are {_join(parts)}."


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
