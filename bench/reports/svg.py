"""Pieces of SVG: what stands in them is escaped here, so that no caller has to remember it.

A series (a run of a comparison, a percentile) has a number, and by it a colour, a pattern and a
shape, the same in every picture.

Rules of this file: pieces only, no figures. A piece is Markup; whatever else is put into one is
text.
"""

from collections.abc import Iterable
from typing import Final

from markupsafe import Markup, escape

_PATTERNS: Final = ("", "M0,4 l4,-4", "M0,0 l4,4", "M0,2 h4", "M2,0 v4")
_STEPS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 5000.0)
_TICKS_MAX: Final = 7

Content = str | Markup
"""A text, or a piece."""


def element(name: str, *content: Content, **attributes: str | float | None) -> Markup:
    """One element. Names of attributes are written as in Python, `class_`, `stroke_width`; floats
    get one decimal; None leaves an attribute out."""
    found = ""
    for key, value in attributes.items():
        if value is not None:
            text = f"{value:.1f}" if isinstance(value, float) else str(value)
            found += f" {key.rstrip('_').replace('_', '-')}='{escape(text)}'"
    return Markup(f"<{name}{found}>{join(content)}</{name}>" if content else f"<{name}{found}/>")


def join(pieces: Iterable[Content]) -> Markup:
    """Pieces and texts, one after the other."""
    return Markup("".join(escape(piece) for piece in pieces))


def text(x: float, y: float, words: Content, **attributes: str | float | None) -> Markup:
    """Words at a place; `anchor` says which end of them is there."""
    anchor = attributes.pop("anchor", None)
    return element("text", words, x=x, y=y, text_anchor=anchor, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, **attributes: str | float | None) -> Markup:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, **attributes)


def hinted(hint: str, *pieces: Content) -> Markup:
    """Pieces that tell more when they are pointed at."""
    return element("g", element("title", hint), *pieces)


def picture(width: float, height: float, label: str, *content: Content, top: float = 0.0) -> Markup:
    """A whole SVG, as wide as its page; `label` says what it shows to who cannot see it."""
    box = f"0 {top:.0f} {width:g} {height:.0f}"
    return element("svg", *content, viewBox=box, role="img", aria_label=label)


def ticks(longest: float) -> list[float]:
    """Round values of an axis from 0 up to `longest`."""
    step = next((step for step in _STEPS if longest / step <= _TICKS_MAX), longest)
    return [step * each for each in range(int(longest / step) + 1)]


# Series ----------------------------------------------------------------------------------------


def colour(series: int) -> str:
    """The paint of a series."""
    return f"var(--run{series})"


def pattern(series: int) -> str:
    """The paint of its areas, which tells series apart without colour; a page that uses it holds
    `patterns`."""
    return f"url(#p{series})"


def patterns(count: int) -> Markup:
    """The patterns of the first `count` series, for a whole page."""
    found = []
    for series in range(count):
        strokes = _PATTERNS[series % len(_PATTERNS)]
        area = element("rect", width=4, height=4, fill=colour(series))
        over = element("path", d=strokes, stroke="var(--paper)", stroke_width=1) if strokes else ""
        found.append(
            element(
                "pattern",
                *(area, over),
                id=f"p{series}",
                width=4,
                height=4,
                patternUnits="userSpaceOnUse",
            )
        )
    return element("svg", element("defs", *found), class_="definitions")


def mark(series: int, x: float, y: float, size: float) -> Markup:
    """The shape of a series at a place."""
    look = {"class_": "mark", "fill": colour(series)}
    shape = series % 5
    if shape == 0:
        return element("circle", **look, cx=x, cy=y, r=f"{size:g}")
    k = size * 0.9
    corners = {
        1: ((-k, -k), (k, -k), (k, k), (-k, k)),
        2: ((0, -1.2 * size), (1.1 * size, 0.9 * size), (-1.1 * size, 0.9 * size)),
        3: ((0, -1.3 * size), (1.3 * size, 0), (0, 1.3 * size), (-1.3 * size, 0)),
        4: ((0, 1.2 * size), (1.1 * size, -0.9 * size), (-1.1 * size, -0.9 * size)),
    }[shape]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return element("polygon", **look, points=points)


def key(series: int) -> Markup:
    """Pattern and shape of a series, small enough for a line of text."""
    area = element("rect", y=1, width=24, height=12, rx=2, fill=pattern(series))
    return element("svg", area, mark(series, 33, 7, 4.5), class_="key", viewBox="0 0 40 14")
