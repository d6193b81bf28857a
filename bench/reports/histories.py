"""The verdicts of histories, and the calls of an illegal one over time.

Rules of this file: every number shown stands in the document; nothing is computed here but places.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from markupsafe import Markup

from bench.reports.svg import element, hinted, line, picture, text

Document = dict[str, Any]
Checked = tuple[str, Document]
"""What was measured, and what `HistoryVerdict` says of it."""

_WIDTH: Final = 900
_LEFT, _RIGHT = 130, 60
_ROW: Final = 40
_BAR: Final = 12
_SHOWN_MAX: Final = 60


def histories(checked: Iterable[Checked]) -> list[Document]:
    """A row per history, with a picture of the calls that no order explains."""
    found = []
    for what, verdict in checked:
        shown = verdict["shown"]
        drawn = _draw(shown[:_SHOWN_MAX]) if shown else None
        found.append(verdict | {"what": what, "picture": drawn})
    return found


def _draw(calls: list[Document]) -> Markup:
    """A row per call: from its call to its return; to the edge where nobody knows its end."""
    ends = [call["called"] if call["returned"] is None else call["returned"] for call in calls]
    first: int = min(call["called"] for call in calls)
    span: int = max(1, max(ends) - first)

    def x(moment: int) -> float:
        return _LEFT + (moment - first) / span * (_WIDTH - _LEFT - _RIGHT)

    pieces = [_call(call, 18 + number * _ROW, x) for number, call in enumerate(calls)]
    height = 24 + len(calls) * _ROW
    return picture(_WIDTH, height, "Calls that no order explains", *pieces)


def _call(call: Document, y: float, x: Callable[[int], float]) -> Markup:
    begin, end = x(call["called"]), call["returned"]
    until = _WIDTH - 4.0 if end is None else max(x(end), begin + 2)
    near_end = begin > _WIDTH / 2
    said = text(
        until if near_end else begin, y - 4, call["what"], anchor="end" if near_end else None
    )
    bar = element(
        "rect",
        x=begin,
        y=y,
        width=until - begin,
        height=_BAR,
        fill="var(--run0)",
        fill_opacity=0.35 if end is None else None,
        stroke="var(--run0)",
        stroke_dasharray="4 3" if end is None else None,
    )
    edge = line(_LEFT, y + _BAR + 6, _WIDTH, y + _BAR + 6, class_="axis")
    name = text(_LEFT - 8, y + _BAR - 1, call["client"], anchor="end")
    outcome = "no return" if end is None else f"{end - call['called']:,} long"
    return hinted(f"{call['client']}: {call['what']}, {outcome}", edge, name, bar, said)
