"""The report of an evaluation: every figure, its caption, and its numbers.

Each figure is embedded as a picture of its own, so that what one SVG defines does not meet
another's names.

Rules of this file: every number shown stands in figures.json.
"""

from base64 import b64encode
from pathlib import Path
from typing import Any

from bench.reports.page import render_page, write_html

Document = dict[str, Any]


def write_page(directory: Path, document: Document) -> Path:
    """Write `report.html` beside the figures; returns its path."""
    return write_html(directory, render(document, directory / "svg"))


def render(document: Document, pictures: Path) -> str:
    """The whole page; SVG files are taken from `pictures`."""
    scale, manifest = document["scale"], document["manifest"]
    setup = (
        f"simulated: {_times(scale['repeats'])} of {scale['simulated_s']:g} s, if a figure says "
        f"nothing else · real: {_times(scale['real_repeats'])} of {scale['real_s']:g} s · "
        f"{document['trials']} trials · epaxos {manifest['version']}"
    )
    return render_page(
        "figures.html.j2",
        title="The papers' figures",
        heading="The papers' figures, measured here",
        setup=setup,
        document=document,
        sources={
            picture["file"]: _source(pictures / f"{picture['file']}.svg")
            for each in document["figures"]
            for picture in each["pictures"]
        },
        tables={
            picture["file"]: _table(picture["rows"])
            for each in document["figures"]
            for picture in each["pictures"]
        },
    )


def _times(repeats: int) -> str:
    return "one repeat" if repeats == 1 else f"{repeats} repeats"


def _source(path: Path) -> str:
    return f"data:image/svg+xml;base64,{b64encode(path.read_bytes()).decode()}"


def _table(rows: list[Document]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows; rows need not have the same names."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    heads = [name.replace("_", " ") for name in names]
    return heads, [[_cell(row.get(name)) for name in names] for row in rows]


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
