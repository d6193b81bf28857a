"""What a comparison says, in sentences made from its figures, and whether it may be believed.

A difference counts as one when its 95 % interval excludes 0 and it is at least LEVEL_SHARE of the
other median: less is called level. The sentences say where EPaxos loses, too.

Rules of this file: pure; it reads a summary (summary.py) and nothing else. Thresholds stand here.
"""

from collections.abc import Iterable
from math import ceil
from typing import Any, Final

LEVEL_SHARE: Final = 0.01
"""Smaller differences, in parts of the other's median, are called level."""
CLOSE_SHARE: Final = 0.03
"""A median within this of the optimum is said to be at it."""

LAG_MS: Final = (5.0, 25.0)
"""Loop lag p99 of a replica or the clients: suspect above, invalid above."""
LINK_ERROR_MS: Final = (5.0, 25.0)
"""Error p99 of the emulated links."""
CPU: Final = (0.7, 0.95)
"""Of one core: what the clients took."""
BUSY: Final = (0.7, 2.0)
"""Of all cores: everything that ran. Others that come and go meet one run and not the next; alone
that makes no figure impossible, so there is no invalid."""
OTHERS: Final = (0.2, 0.5)
"""Of all cores, of other programs, where clients ask for all that the machine can give. What the
system does for our own messages and syncs is among it: some 0.1."""
LOST: Final = (0.0, 0.001)
"""Share of commands without an answer."""
FAILED: Final = (0.0, 0.01)
"""Share of commands refused, or with an ambiguous fate."""
SAMPLES: Final = (100, 10)
"""Per cell: suspect below, invalid below."""

_KEPT_UP: Final = {
    "loop_lag_p99_ms": (LAG_MS, "loop lag p99 of a replica is {:.1f} ms"),
    "client_lag_p99_ms": (LAG_MS, "loop lag p99 of the clients is {:.1f} ms"),
    "start_error_p99_ms": (LAG_MS, "clients began {:.1f} ms late at the p99"),
    "link_error_p99_ms": (LINK_ERROR_MS, "link error p99 is {:.1f} ms"),
    "client_cpu": (CPU, "the clients used {:.2f} of a core"),
}
"""Figure of a run -> its limits, and how it is said."""
_SIGNIFICANT: Final = (
    "Faster and slower are significant: the 95 % bootstrap interval of the difference of medians "
    f"excludes 0, and the difference is at least {LEVEL_SHARE * 100:g} %; otherwise level."
)
_VIRTUAL: Final = "virtual time: no lag, no CPU and no other program is in these figures"
_LEVELS: Final = ("VALID", "SUSPECT", "INVALID")


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


class Findings:
    """Why figures may not be believed, one by one."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self._worst = 0

    @property
    def validity(self) -> str:
        """VALID, SUSPECT or INVALID: the worst of all."""
        return _LEVELS[self._worst]

    def add(self, validity: str, reason: str) -> None:
        """One reason, and what it makes of the figures."""
        self._worst = max(self._worst, _LEVELS.index(validity))
        self.reasons.append(reason)

    def hold(self, value: float, limits: tuple[float, float], reason: str) -> None:
        """A reason, if a value is above its limits: suspect above the first, invalid above the
        second."""
        level = (value > limits[0]) + (value > limits[1])
        if level:
            said = f"{reason} ({_LEVELS[level].lower()} above {limits[level - 1]:g})"
            self.add(_LEVELS[level], said)

    def look_at_health(self, at: str, row: dict[str, Any]) -> None:
        """How replicas, clients and machine kept up."""
        self._look_at(at, row, _KEPT_UP)
        others = row["others_cpu"] or 0.0
        busy = row["machine_cpu"] + others
        what = f"the machine was busy to {busy:.2f}, {others:.2f} with other programs"
        self.hold(busy, BUSY, f"{at}{what}")

    def look_at_throughput(self, at: str, row: dict[str, Any]) -> None:
        """The same where clients ask for all that the machine can give: then lag and a busy machine
        are what is measured. The clients must not be what limits it, nor other programs."""
        self._look_at(at, row, ("client_cpu",))
        others = row["others_cpu"] or 0.0
        self.hold(others, OTHERS, f"{at}other programs took {others:.2f} of the machine")

    def _look_at(self, at: str, row: dict[str, Any], keys: Iterable[str]) -> None:
        for key in keys:
            limits, what = _KEPT_UP[key]
            if row[key] is not None:
                self.hold(row[key], limits, f"{at}{what.format(row[key])}")

    def look_at_samples(self, at: str, count: int) -> None:
        """Whether there are enough for figures."""
        level = (count < SAMPLES[0]) + (count < SAMPLES[1])
        if level:
            self.add(_LEVELS[level], f"{at}only {count} samples")

    def look_at_fates(self, at: str, fates: dict[str, Any]) -> None:
        """What became of the commands of a region."""
        sent = max(1, fates["sent"])
        failed = fates["refused"] + fates["ambiguous"]
        self.hold(fates["lost"] / sent, LOST, f"{at}{fates['lost']} commands lost")
        self.hold(failed / sent, FAILED, f"{at}{failed} commands refused or ambiguous")

    def look_at_slow_paths(self, at: str, unexplained: int | None) -> None:
        """Whether conflicts explain them."""
        if unexplained:
            self.add("SUSPECT", f"{at}{unexplained} slow paths without a conflict")


def validity(summary: dict[str, Any]) -> tuple[str, list[str]]:
    """VALID, SUSPECT or INVALID, and why not VALID."""
    runs = {run["run"]: run["label"] for run in summary["runs"]}
    found = Findings()
    for phase in summary["phases"]:
        rate = f"{phase['label']}: "
        for row in phase["health"]:
            found.look_at_health(f"{runs[row['run']]}, {rate}", row)
        for row in phase["conflicts"]:
            found.look_at_slow_paths(f"{runs[row['run']]}, {rate}", row["unexplained"])
        for cell in phase["cells"]:
            at = f"{runs[cell['run']]} in {cell['region']}, {rate}"
            found.look_at_samples(at, cell["samples"])
            found.look_at_fates(at, cell["fates"])
    return found.validity, found.reasons
