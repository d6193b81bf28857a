"""Two results beside each other: which differences are significant.

Cells are matched by their region and by every key that is swept in one of the two. The keys that
are fixed in both, at other values, are what was changed: EPaxos with the gate against without is
matched cell by cell. A difference is significant when its 95 % bootstrap interval excludes 0
(analysis.statistics: repeats and samples are drawn again).

Rules of this file: it says what the intervals say and no more; milliseconds; positive means that
the second one is slower.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from bench.analysis.statistics import PERCENTS, Difference, difference, field_of, levels
from bench.analysis.units import ms
from bench.trials.cells import LATENCIES, Cell, flat, worst
from bench.trials.results import Results, Table, shown
from epaxos.core.errors import ConfigError

_NAMED_MAX: Final = 4
"""So many cells are named in a sentence."""
_CHANCE: Final = 0.05
"""Share of differences that a 95 % interval calls significant where there is none."""


@dataclass(frozen=True, eq=False)
class Row:
    """One cell, twice."""

    label: str
    a: Cell
    b: Cell
    differences: dict[tuple[str, float], Difference | None]
    """By latency (`commit`, `answer`) and percent, `b` less `a`, in ms."""

    @property
    def at(self) -> str:
        """Configuration and region."""
        return f"{self.label} in {self.a.title}" if self.label else self.a.title

    def verdict(self, percent: int = 50) -> str:
        """What became of a percentile of the answers: `slower`, `faster`, `level` (nothing
        significant) or `unknown`."""
        found = self.differences["answer", percent]
        if found is None:
            return "unknown"
        if not found.significant:
            return "level"
        return "slower" if found.value > 0 else "faster"

    def size(self, percent: int) -> float:
        """Of the difference of a percentile of the answers, in ms."""
        found = self.differences["answer", percent]
        return 0.0 if found is None else abs(found.value)

    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = {"configuration": self.label, "region": self.a.region}
        for (latency, percent), each in self.differences.items():
            name = f"{latency}_{field_of(percent)}"
            found[f"{name}_a_ms"] = self.a.percentile(latency, percent)
            found[f"{name}_b_ms"] = self.b.percentile(latency, percent)
            found[name] = None if each is None else asdict(each) | {"significant": each.significant}
        return found


@dataclass(frozen=True)
class Differences:
    """What the second of two results has more of than the first."""

    names: tuple[str, str]
    changed: list[str]
    """What was set otherwise in the two, in words."""
    rows: list[Row]
    unmatched: tuple[int, int]
    """Cells of each that the other lacks."""
    validity: str
    """Of the worse one."""
    repeats: int
    """Of the one with fewer."""

    def sentences(self) -> list[str]:
        """Who is faster where."""
        if not self.rows:
            return ["The two have no cell in common."]
        found = [_sentence(self.rows, percent, name) for percent, name in _PERCENTS.items()]
        told = len(_PERCENTS) * len(self.rows)
        if _CHANCE * told >= 1:
            found.append(
                f"Of {told:,} comparisons, about {_CHANCE * told:.0f} would be called significant "
                "by chance if nothing differed."
            )
        for name, count in zip("AB", self.unmatched):
            if count:
                found.append(f"{_cells(count).capitalize()} of {name} not in the other.")
        return found

    def table(self) -> Table:
        """A row per cell."""
        rows = []
        for row in self.rows:
            median, tail = row.differences["answer", 50], row.differences["answer", 95]
            rows.append(
                [
                    row.label,
                    row.a.title,
                    ms(row.a.percentile("answer", 50)),
                    ms(row.b.percentile("answer", 50)),
                    *_difference(median),
                    _WORDS[row.verdict()],
                    *_difference(tail),
                    _WORDS[row.verdict(95)],
                ]
            )
        headings = [
            "configuration",
            "region",
            ">p50 A",
            ">p50 B",
            ">B - A",
            ">95 %",
            "",
            ">p95 B - A",
            ">95 %",
            "",
        ]
        title = f"A {self.names[0]} · B {self.names[1]}"
        notes = [*self.changed, f"answers in ms; intervals over {levels(self.repeats)}"]
        return Table(headings, rows, title, notes)

    def document(self) -> dict[str, Any]:
        """Everything, for programs."""
        return {
            "a": self.names[0],
            "b": self.names[1],
            "changed": self.changed,
            "validity": self.validity,
            "sentences": self.sentences(),
            "cells": [row.record() | {"verdict": row.verdict()} for row in self.rows],
            "unmatched": list(self.unmatched),
        }


_PERCENTS: Final = {50: "median", 95: "95th percentile"}
_WORDS: Final = {"faster": "faster", "slower": "slower", "level": "", "unknown": ""}


def _sentence(rows: Sequence[Row], percent: int, name: str) -> str:
    """Who is faster where, by one percentile."""
    groups = {word: [row for row in rows if row.verdict(percent) == word] for word in _WORDS}
    parts = [
        f"{word} in {_cells(len(groups[word]))} ({_span(groups[word], percent)}: "
        f"{_names(groups[word], percent)})"
        for word in ("faster", "slower")
        if groups[word]
    ]
    if groups["level"]:
        parts.append(f"not significantly different in {_cells(len(groups['level']))}")
    if groups["unknown"]:
        parts.append(f"without figures in {_cells(len(groups['unknown']))}")
    return f"At the {name}, the answers of B are {'; '.join(parts)}."


def compare_results(a: Results, b: Results) -> Differences:
    """`b` less `a`, cell by cell. Raises ConfigError where nothing can be matched."""
    keys = sorted({*a.swept, *b.swept})
    ours, theirs = _by_place(a, keys), _by_place(b, keys)
    common = [place for place in ours if place in theirs]
    if not common:
        raise ConfigError(
            f"{a.directory} and {b.directory} have no configuration and region in common; they "
            f"are matched by region{''.join(f', {key}' for key in keys)}"
        )
    rows = [
        Row(a.label(ours[place].configuration), ours[place], theirs[place], _all(a.seed + n, pair))
        for n, place in enumerate(common)
        for pair in [(ours[place], theirs[place])]
    ]
    repeats = min(len(cell.configuration.repeats) for row in rows for cell in (row.a, row.b))
    return Differences(
        names=(a.directory.name, b.directory.name),
        changed=_changed(a, b, keys),
        rows=rows,
        unmatched=(len(ours) - len(common), len(theirs) - len(common)),
        validity=worst([a.validity, b.validity]),
        repeats=repeats,
    )


def _by_place(results: Results, keys: Sequence[str]) -> dict[tuple[Any, ...], Cell]:
    return {
        (*(cell.configuration.settings[key] for key in keys), cell.region): cell
        for cell in results.cells
    }


def _all(seed: int, pair: tuple[Cell, Cell]) -> dict[tuple[str, float], Difference | None]:
    a, b = pair
    found: dict[tuple[str, float], Difference | None] = {}
    for latency in LATENCIES:
        for percent in PERCENTS:
            stated = all(cell.percentile(latency, percent) is not None for cell in pair)
            found[latency, percent] = (
                difference(b.values(latency), a.values(latency), percent, seed) if stated else None
            )
    return found


def _changed(a: Results, b: Results, keys: Sequence[str]) -> list[str]:
    """What is fixed in both, at other values."""
    ours, theirs = (flat(each.configurations[0].settings) for each in (a, b))
    found = [
        f"{key}: {shown(key, ours[key])} in A, {shown(key, theirs[key])} in B"
        for key in ours
        if key not in keys and ours[key] != theirs[key]
    ]
    if a.manifest["code"] != b.manifest["code"]:
        found.append(f"code: {a.manifest['code']} in A, {b.manifest['code']} in B")
    if a.seed != b.seed:
        found.append(f"seed: {a.seed} in A, {b.seed} in B")
    hosts = [each.manifest["machine"] for each in (a, b)]
    if hosts[0] != hosts[1]:
        found.append("the machines differ")
    return found


def _cells(count: int) -> str:
    return f"{count:,} cell{'s' if count != 1 else ''}"


def _span(rows: Sequence[Row], percent: int) -> str:
    sizes = sorted(row.size(percent) for row in rows)
    low, high = f"{sizes[0]:,.1f}", f"{sizes[-1]:,.1f}"
    return f"by {low} ms" if low == high else f"by {low} to {high} ms"


def _names(rows: Sequence[Row], percent: int) -> str:
    """The largest differences first."""
    largest = sorted(rows, key=lambda row: row.size(percent), reverse=True)[:_NAMED_MAX]
    more = f" and {len(rows) - _NAMED_MAX:,} more" if len(rows) > _NAMED_MAX else ""
    return ", ".join(row.at for row in largest) + more


def _difference(found: Difference | None) -> list[str]:
    if found is None:
        return ["–", "–"]
    return [f"{found.value:+,.1f}", f"{found.low:+,.1f} to {found.high:+,.1f}"]
