"""The waterfall of a comparison: where the time of a typical batch went, as stacked bars.

Rules of this file: places only; the figures come from analysis.stages.
"""

from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

from bench.analysis.stages import Document
from bench.reports.charts import LEFT, Place, axis, scale
from bench.reports.svg import colour, element, hinted, picture, text
from bench.reports.worldmap import WIDTH

_LABELS: Final = {"preaccept": "pre-accept"}
_STRENGTH: Final = {"queue": 0.2, "preaccept": 1.0, "leader": 1.0, "accept": 0.45, "execute": 0.3}
"""How strongly a stage shows in the colour of its run; others are grey: they are of this machine,
its processor and its disk."""
_BAR, _GAP, _RIGHT = 17, 12, 110
_LETTER: Final = 6.4
"""Width of a letter, about."""


def draw_stages(
    waterfalls: Sequence[Document], runs: dict[str, tuple[int, str]], titles: dict[str, str]
) -> Markup:
    """Stacked bars, region by region; empty where nothing was sampled. `runs` has number and label
    of each."""
    shown = sampled(waterfalls)
    if not shown:
        return Markup("")
    longest: float = max(sum(each["stages"].values()) for each in shown) * 1.02
    x = scale(longest, _RIGHT)
    bars, y = list[Markup](), 8.0
    for region, title in titles.items():
        mine = [each for each in shown if each["region"] == region]
        if mine:
            bars.append(text(LEFT - 8, y + 13, title, anchor="end"))
        for each in mine:
            bars.append(_bar(each, runs[each["run"]], titles, x, y))
            y += _BAR + 3
        y += _GAP if mine else 0
    return picture(WIDTH, y + 22, "Stages", axis(longest, x, y), *bars)


def sampled(waterfalls: Sequence[Document]) -> list[Document]:
    """Those that have samples."""
    return [each for each in waterfalls if each["samples"]]


def _bar(
    each: Document, run: tuple[int, str], titles: dict[str, str], x: Place, y: float
) -> Markup:
    number, label = run
    closers = ", ".join(
        f"{titles.get(region, region)} {share:.0%}" for region, share in each["closed_by"].items()
    )
    parts, begin = list[Markup](), 0.0
    for name, ms in each["stages"].items():
        is_only_round = name == "accept" and "preaccept" not in each["stages"]
        strength = 1.0 if is_only_round else _STRENGTH.get(name)
        parts.append(_part(name, ms, number, strength, x(begin), x(begin + ms), y))
        begin += ms
    hint = f"{label}: {begin:.1f} ms, {each['samples']:,} samples"
    hint += f"; decided by the answer of {closers}" if closers else ""
    return hinted(hint, *parts, text(x(begin) + 8, y + 13, f"{begin:.1f} {label}", class_="soft"))


def _part(
    name: str, ms: float, number: int, strength: float | None, left: float, right: float, y: float
) -> Markup:
    label = _LABELS.get(name, name)
    fill, opacity = ("var(--soft)", 0.55) if strength is None else (colour(number), strength)
    words = next(
        (word for word in (f"{label} {ms:.1f}", label) if len(word) * _LETTER + 8 < right - left),
        "",
    )
    ink = "var(--paper)" if strength is None or strength > 0.5 else "var(--ink)"
    area = element(
        "rect",
        x=left,
        y=y,
        height=_BAR,
        width=max(0.0, right - left),
        stroke="var(--paper)",
        stroke_width=0.6,
        fill=fill,
        fill_opacity=f"{opacity:g}",
    )
    return hinted(
        f"{label} {ms:.1f} ms",
        area,
        text(left + 5, y + 13, words, style=f"fill:{ink}") if words else "",
    )
