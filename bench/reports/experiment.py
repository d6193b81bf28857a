"""The report of an experiment: one HTML file, no network, in the style of the comparison's.

Top: validity and its reasons. Then figures as inline SVG where few enough configurations are swept,
the table of all cells, what failed, how it was measured, and the command line that repeats it.

Rules of this file: every number shown stands in the cells; nothing is computed here.
"""

import json
from html import escape
from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.drawing.style import INK
from bench.trials.plots import SERIES_MAX
from bench.trials.results import Results
from epaxos.core.errors import ConfigError

PAGE: Final = "report.html"
_BLACK: Final = "#000000"


def write_page(results: Results, path: Path | None = None) -> Path:
    """Write the report into the directory of results, or elsewhere; returns its path. Raises
    ConfigError for a place that cannot be written."""
    place = path or results.directory / PAGE
    try:
        place.write_text(render(results), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{place}: {error.strerror}; name a file that can be written") from None
    return place


def render(results: Results) -> str:
    """The whole page."""
    style = files("bench").joinpath("report.css").read_text("utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(results.title)}</title><style>{style}</style></head><body>"
        f"<h1>{escape(results.title)}</h1><p class=setup>{escape(results.conditions)}</p>"
        f"{_verdict(results)}{_figures(results)}"
        f"<section><h2>Every cell</h2><div class=scroll>{results.table().html()}</div></section>"
        f"{_explanations(results)}</body></html>"
    )


def _verdict(results: Results) -> str:
    manifest = results.manifest
    reasons = "".join(f"<li>{escape(each)}</li>" for each in results.reasons + manifest["notes"])
    finished, failed = len(manifest["trials"]), len(manifest["failed"])
    said = f"{finished:,} trials finished" + (f", {failed:,} failed" if failed else "")
    listed = f"<details open><summary>Why</summary><ul>{reasons}</ul></details>" if reasons else ""
    return (
        f"<section class=verdict><p><span class='badge {results.validity}'>{results.validity}"
        f"</span> {said}</p>{listed}</section>"
    )


def _figures(results: Results) -> str:
    if not results.configurations:
        return ""
    if len(results.configurations) > SERIES_MAX:
        return (
            f"<p class=note>{len(results.configurations):,} configurations are too many for one "
            f"figure. From Python: Results.load({str(results.directory)!r}).plot.bars(only=…)</p>"
        )
    plot = results.plot
    panels = next((key for key in results.swept if key not in ("protocol", "leader")), "region")
    found = [
        _figure(
            plot.bars(by=panels),
            "Median answers. Whiskers: 95 % bootstrap interval. Ticks: closed-form optimum.",
            results,
        ),
        _figure(
            plot.cdf(),
            "Share of commands answered within so many ms from their intended start; the tail is "
            "drawn out logarithmically. Marks at 50, 90, 99 and 99.9 %.",
            results,
        ),
    ]
    if any(
        repeat.stored.outcome.events for each in results.configurations for repeat in each.repeats
    ):
        found.append(
            _figure(
                plot.timeline(),
                "What happened when, by intended start. Shades: faults.",
                results,
            )
        )
    return f"<section><h2>Figures</h2>{''.join(found)}</section>"


def _figure(figure: Figure, caption: str, results: Results) -> str:
    return (
        f"<figure>{svg(figure)}<figcaption>{escape(caption)} {escape(results.conditions)}"
        "</figcaption></figure>"
    )


def svg(figure: Figure) -> str:
    """A figure inside a page: text stays text, and ink follows light and dark."""
    text = StringIO()
    # Distinct ids per figure: on one page they share a name space.
    salt = f"epaxos {id(figure)}"
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    found = text.getvalue()
    found = found[found.index("<svg") :]
    return found.replace(_BLACK, "currentColor").replace(INK, "currentColor")


def _explanations(results: Results) -> str:
    manifest = results.manifest
    failed = "".join(
        f"<li>{escape(each['why'])}<br><code>{escape(json.dumps(each['trial']))}</code></li>"
        for each in manifest["failed"]
    )
    shown = {key: manifest[key] for key in ("experiment", "trial", "case") if manifest[key]}
    told = {
        key: manifest[key]
        for key in ("begun", "ended", "executor", "reused", "code", "version", "python", "packages")
    }
    return (
        (f"<section><h2>What failed</h2><ul>{failed}</ul></section>" if failed else "")
        + "<section><h2>How to read this</h2><p>Latencies count from the intended start of a "
        "command. Commit: until an answer could leave if answers left at commit. Answer: until the "
        "client has it, after execution. A figure is the mean over the repeats of the percentile "
        "of each; its interval redraws repeats, and the samples within each, with replacement. "
        "A p99 is stated only from 1,000 samples per cell. Optimum: round trips to the quorum by "
        "the configured delays, plus the syncs on the way, plus the client's own hop.</p>"
        f"<h2>What was run</h2><pre>{escape(json.dumps(shown, indent=1, ensure_ascii=False))}</pre>"
        f"<details><summary>Where and with what</summary><pre>"
        f"{escape(json.dumps(told | {'machine': manifest['machine']}, indent=1))}</pre></details>"
        f"<p>Again: <code>{escape(manifest['command_line'])}</code></p></section>"
    )
