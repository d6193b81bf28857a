"""The report of an evaluation: one HTML file with every figure, its caption, and its numbers.

Each figure is embedded as a picture of its own, so that what one SVG defines does not meet
another's names.

Rules of this file: every number shown stands in figures.json; no network.
"""

from base64 import b64encode
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

Document = dict[str, Any]

_REASONS_SHOWN: Final = 8


def write_page(directory: Path, document: Document) -> Path:
    """Write `report.html` beside the figures; returns its path."""
    path = directory / "report.html"
    path.write_text(render(document, directory / "svg"), encoding="utf-8")
    return path


def render(document: Document, pictures: Path) -> str:
    """The whole page; SVG files are taken from `pictures`."""
    style = files("bench").joinpath("report.css").read_text("utf-8")
    figures = document["figures"]
    links = "".join(
        f"<li><a href='#{each['name']}'>{escape(each['question'])}</a> "
        f"<span class='badge {each['validity']}'>{each['validity']}</span></li>"
        for each in figures
    )
    sections = "".join(_section(each, pictures) for each in figures)
    scale, manifest = document["scale"], document["manifest"]
    setup = (
        f"simulated: {_times(scale['repeats'])} of {scale['simulated_s']:g} s, if a figure says "
        f"nothing else · real: {_times(scale['real_repeats'])} of {scale['real_s']:g} s · "
        f"{document['trials']} trials · epaxos {manifest['version']}"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>The papers' figures</title><style>{style}{_STYLE}</style></head><body>"
        f"<h1>The papers' figures, measured here</h1><p class=setup>{escape(setup)}</p>"
        f"<ul class=contents>{links}</ul>{sections}{_manifest(document)}</body></html>"
    )


def _times(repeats: int) -> str:
    return "one repeat" if repeats == 1 else f"{repeats} repeats"


_STYLE: Final = (
    "figure img { width:100%; background:#fff; border:1px solid var(--line); border-radius:6px; "
    "padding:8px; } .contents { padding-left:20px; } .contents li { margin:3px 0; } "
    "figcaption b { color:var(--ink); } .conditions { margin:6px 0 0; }"
)


def _section(study: Document, pictures: Path) -> str:
    reasons = study["reasons"]
    shown = "".join(f"<li>{escape(each)}</li>" for each in reasons[:_REASONS_SHOWN])
    if len(reasons) > _REASONS_SHOWN:
        shown += f"<li>and {len(reasons) - _REASONS_SHOWN} more, in figures.json</li>"
    why = f"<details><summary>Why</summary><ul>{shown}</ul></details>" if reasons else ""
    return (
        f"<section id='{study['name']}'><h2>{escape(study['question'])}</h2>"
        f"<p class=note>{escape(study['source'])} · epaxos figures {study['name']} · "
        f"<span class='badge {study['validity']}'>{study['validity']}</span></p>{why}"
        f"{''.join(_picture(each, pictures) for each in study['pictures'])}</section>"
    )


def _picture(picture: Document, pictures: Path) -> str:
    octets = (pictures / f"{picture['file']}.svg").read_bytes()
    source = f"data:image/svg+xml;base64,{b64encode(octets).decode()}"
    return (
        f"<figure><img alt='{escape(picture['title'], quote=True)}' src='{source}'>"
        f"<figcaption><b>{escape(picture['title'])}.</b> {escape(picture['caption'])}"
        f"<p class=conditions>Measured under: {escape(picture['conditions'])}.</p></figcaption>"
        f"</figure><details><summary>The numbers</summary>{_table(picture['rows'])}</details>"
    )


def _table(rows: list[Document]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in names)
    body = "".join(
        f"<tr>{''.join(f'<td>{_cell(row.get(name))}</td>' for name in names)}</tr>" for row in rows
    )
    return f"<div class=scroll><table><tr>{head}</tr>{body}</table></div>"


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1 else f"{value:,.1f}"
    return escape(f"{value:,}" if isinstance(value, int) else str(value))


def _manifest(document: Document) -> str:
    manifest = document["manifest"]
    machine = manifest["machine"]
    lines = [
        manifest["command_line"],
        f"{manifest['begun']} to {manifest['ended']}; {document['reused']} of "
        f"{document['trials']} trials had been run before",
        f"epaxos {manifest['version']}, code {manifest['code']}, {manifest['python']}",
        f"{machine['system']}, {machine['cpus']} cores, {machine['cpu']}",
    ]
    notes = "".join(f"<p class=note>{escape(note)}</p>" for note in document["notes"])
    return f"<h2>How to repeat it</h2>{notes}<pre>{escape(chr(10).join(lines))}</pre>"
