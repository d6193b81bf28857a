"""The waterfall of a comparison: where the time of a typical batch went, as stacked bars.

Rules of this file: markup only; the figures come from analysis.stages.
"""

from collections.abc import Callable, Sequence
from html import escape
from typing import Final

from bench.analysis.stages import Document
from bench.reports.worldmap import WIDTH

_LABELS: Final = {"preaccept": "pre-accept"}
_STRENGTH: Final = {"queue": 0.2, "preaccept": 1.0, "leader": 1.0, "accept": 0.45, "execute": 0.3}
"""How strongly a stage shows in the colour of its run; others are grey: they are of this machine,
its processor and its disk."""
_BAR, _GAP, _LEFT, _RIGHT = 17, 12, 120, 110
_LETTER: Final = 6.4
"""Width of a letter, about."""


def figure(
    waterfalls: Sequence[Document],
    runs: dict[str, tuple[int, str]],
    titles: dict[str, str],
    scale: Callable[[float], list[float]],
) -> str:
    """Stacked bars, region by region; empty where nothing was sampled. `runs` has number and label
    of each, `scale` the ticks of an axis up to so many ms."""
    shown = [each for each in waterfalls if each["samples"]]
    if not shown:
        return ""
    longest: float = max(sum(each["stages"].values()) for each in shown) * 1.02

    def x(ms: float) -> float:
        return _LEFT + ms / longest * (WIDTH - _LEFT - _RIGHT)

    bars, y = list[str](), 8.0
    for region, title in titles.items():
        mine = [each for each in shown if each["region"] == region]
        if mine:
            name = f"<text x='{_LEFT - 8}' y='{y + 13}' text-anchor='end'>{escape(title)}</text>"
            bars.append(name)
        for each in mine:
            bars.append(_bar(each, runs[each["run"]], titles, x, y))
            y += _BAR + 3
        y += _GAP if mine else 0
    axis = "".join(
        f"<line class=axis x1='{x(v):.1f}' x2='{x(v):.1f}' y1='0' y2='{y:.0f}'/>"
        f"<text class=soft x='{x(v):.1f}' y='{y + 14:.0f}' text-anchor='middle'>{v:g}</text>"
        for v in scale(longest)
    )
    fewest = min(each["samples"] for each in shown)
    return (
        "<h3>Where the time goes</h3>"
        f"<figure><svg viewBox='0 0 {WIDTH:g} {y + 22:.0f}' role=img aria-label='Stages'>{axis}"
        f"{''.join(bars)}</svg><figcaption>The typical batch (the middle fifth by answer, of at "
        f"least {fewest:,} samples), at the replica that was asked, in ms from the "
        "arrival of its first command to the answer. "
        "In the run's colour: queueing for a contended key, the rounds, waiting for execution; "
        "grey: this replica's own processor and disk. Point at a part for its length.</figcaption>"
        "</figure>"
    )


def _bar(
    each: Document,
    run: tuple[int, str],
    titles: dict[str, str],
    x: Callable[[float], float],
    y: float,
) -> str:
    number, label = run
    closers = ", ".join(
        f"{titles.get(region, region)} {share:.0%}" for region, share in each["closed_by"].items()
    )
    parts, begin = list[str](), 0.0
    for name, ms in each["stages"].items():
        is_only_round = name == "accept" and "preaccept" not in each["stages"]
        strength = 1.0 if is_only_round else _STRENGTH.get(name)
        parts.append(_part(name, ms, number, strength, x(begin), x(begin + ms), y))
        begin += ms
    hint = f"{label}: {begin:.1f} ms, {each['samples']:,} samples"
    hint += f"; decided by the answer of {closers}" if closers else ""
    return (
        f"<g><title>{escape(hint)}</title>{''.join(parts)}"
        f"<text class=soft x='{x(begin) + 8:.1f}' y='{y + 13}'>{begin:.1f} {escape(label)}</text>"
        "</g>"
    )


def _part(
    name: str, ms: float, number: int, strength: float | None, left: float, right: float, y: float
) -> str:
    label = _LABELS.get(name, name)
    look = (
        "fill='var(--soft)' fill-opacity='.55'"
        if strength is None
        else f"fill='var(--run{number})' fill-opacity='{strength:g}'"
    )
    words = next(
        (text for text in (f"{label} {ms:.1f}", label) if len(text) * _LETTER + 8 < right - left),
        "",
    )
    ink = "var(--paper)" if strength is None or strength > 0.5 else "var(--ink)"
    text = f"<text x='{left + 5:.1f}' y='{y + 13}' style='fill:{ink}'>{words}</text>"
    return (
        f"<g><title>{label} {ms:.1f} ms</title><rect x='{left:.1f}' y='{y}' height='{_BAR}' "
        f"width='{max(0.0, right - left):.1f}' stroke='var(--paper)' stroke-width='.6' {look}/>"
        f"{text if words else ''}</g>"
    )
