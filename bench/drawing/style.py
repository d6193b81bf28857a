"""How every figure looks: widths of a paper's columns, small type, one look per protocol.

The colours are those of the comparison's report. Beside its colour each protocol has a marker and a
line of its own, and bars have patterns, so that nothing is told by colour alone.

Rules of this file: no data; matplotlib's objects without pyplot, so that figures can be drawn
anywhere, also side by side in several threads.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLUMN_IN: Final = 3.33
"""Width of a figure in one column of a paper, in inches."""
PAGE_IN: Final = 7.0
"""Width of a figure over both."""
FORMATS: Final = ("pdf", "svg", "png")

_RC: Final[Any] = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "legend.columnspacing": 1.2,
    "legend.borderaxespad": 0.2,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#d1d9e0",
    "grid.linewidth": 0.5,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "hatch.linewidth": 0.5,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "pdf.fonttype": 42,
    "svg.hashsalt": "epaxos",
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True)
class Look:
    """How one series looks."""

    colour: str
    marker: str = "o"
    line: str = "-"
    hatch: str = ""

    def but(self, **changes: str) -> "Look":
        """The same, with some of it changed."""
        return replace(self, **changes)

    @property
    def plotted(self) -> dict[str, Any]:
        """For `Axes.plot`."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.line}

    @property
    def filled(self) -> dict[str, Any]:
        """For `Axes.bar`."""
        return {"color": self.colour, "hatch": self.hatch, "edgecolor": "white", "linewidth": 0.4}


EPAXOS: Final = Look("#0072b2")
EPAXOS_UNSAFE: Final = Look("#56b4e9", "v", "--", "///")
"""EPaxos without the contended-key rule, as in the papers."""
MULTIPAXOS: Final = Look("#b8860b", "s", "-", "\\\\\\")
"""Multi-Paxos with its best leader, or with the only one drawn."""
MULTIPAXOS_WORST: Final = Look("#c0392b", "^", "-", "xxx")
SHADES: Final = ("#9ecae1", "#4292c6", "#0072b2", "#08306b")
"""EPaxos at rising conflict rates."""
SHADE_HATCHES: Final = ("", "...", "///", "xxx")
REGIONS: Final = ("#0072b2", "#b8860b", "#c0392b", "#117733", "#882e72", "#59636e")
"""Lines of regions, where both protocols have a panel of their own; with REGION_MARKERS."""
REGION_MARKERS: Final = ("o", "s", "^", "D", "v", "P")
INK: Final = "#1b1f24"
SOFT: Final = "#59636e"
FAULT: Final = "#fae0dd"
"""Shade of the time during which something was broken."""


@contextmanager
def styled() -> Iterator[None]:
    """Figures that are made and saved inside look alike."""
    with mpl.rc_context(_RC):
        yield


def make(width_in: float, height_in: float) -> Figure:
    """An empty figure; call it inside `styled()`."""
    return Figure(figsize=(width_in, height_in), layout="constrained")


def save(figure: Figure, stem: Path, formats: tuple[str, ...] = FORMATS) -> list[Path]:
    """`stem.pdf`, `.svg`, `.png`; the same figure gives the same bytes."""
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
    found = []
    for each in formats:
        path = stem.with_name(f"{stem.name}.{each}")
        figure.savefig(path, metadata=dates[each], dpi=200)
        found.append(path)
    return found


def legend_above(figure: Figure, axes: Axes, columns: int) -> None:
    """One legend over all panels, from the handles of one of them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)


def letter(axes: Axes, name: str, title: str) -> None:
    """The title of a panel, with the letter by which the caption calls it."""
    axes.set_title(f"({name}) {title}", loc="left")
