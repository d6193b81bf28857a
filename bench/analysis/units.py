"""Figures for people, written in one way on every page and in every table.

Rules of this file: text only; nothing is rounded that is computed with afterwards.
"""


def ms(value: float | None) -> str:
    """`1,234.5`: milliseconds, without their unit; a dash for None."""
    return "–" if value is None else f"{value:,.1f}"


def percent(share: float | None) -> str:
    """`99.3 %` for 0.993; `100 %` is said only of all, and `0 %` of none. A dash for None."""
    if share is None:
        return "–"
    if share in (0.0, 1.0):
        return f"{share * 100:.0f} %"
    return f"{min(max(share * 100, 0.1), 99.9):.1f} %"
