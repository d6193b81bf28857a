"""The report of an experiment.

Top: validity and its reasons. Then figures as inline SVG where few enough configurations are swept,
the table of all cells, what failed, how it was measured, and the command line that repeats it.

Rules of this file: every number shown stands in the cells; nothing is computed here.
"""

from io import StringIO
from pathlib import Path
from typing import Final, NamedTuple

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

from bench.analysis.statistics import WHY_NONE
from bench.drawing.style import INK
from bench.reports.histories import histories
from bench.reports.page import PAGE, render_page
from bench.trials.plots import SERIES_MAX
from bench.trials.results import Results
from epaxos.core.errors import ConfigError

_BLACK: Final = "#000000"


class _Picture(NamedTuple):
    svg: Markup
    caption: str


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
    manifest = results.manifest
    told = ("begun", "ended", "executor", "reused", "code", "version", "python", "packages")
    return render_page(
        "experiment.html.j2",
        title=results.title,
        setup=results.conditions,
        results=results,
        trials=manifest,
        too_many=len(results.configurations) > SERIES_MAX,
        load=f"Results.load({str(results.directory)!r}).plot.bars(only=…)",
        pictures=_pictures(results),
        histories=histories(results.histories),
        table=Markup(results.table().html()),  # it escapes what it shows
        why_none=WHY_NONE,
        what={key: manifest[key] for key in ("experiment", "trial", "case") if manifest[key]},
        command_line=manifest["command_line"],
        manifest={
            "Where and with what": {key: manifest[key] for key in told}
            | {"machine": manifest["machine"]}
        },
    )


def _pictures(results: Results) -> list[_Picture]:
    if not 0 < len(results.configurations) <= SERIES_MAX:
        return []
    plot = results.plot
    panels = next((key for key in results.swept if key not in ("protocol", "leader")), "region")
    found = [
        _Picture(
            svg(plot.bars(by=panels)),
            "Median answers. Whiskers: 95 % bootstrap interval. Ticks: closed-form optimum.",
        ),
        _Picture(
            svg(plot.cdf()),
            "Share of commands answered within so many ms from their intended start; the tail is "
            "drawn out logarithmically. Marks at 50, 90, 99 and 99.9 %.",
        ),
    ]
    if any(
        repeat.stored.outcome.events for each in results.configurations for repeat in each.repeats
    ):
        said = "What happened when, by intended start. Shades: faults."
        found.append(_Picture(svg(plot.timeline()), said))
    return found


def svg(figure: Figure) -> Markup:
    """A figure inside a page: text stays text, and ink follows light and dark."""
    text = StringIO()
    # Distinct ids per figure: on one page they share a name space.
    salt = f"epaxos {id(figure)}"
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    found = text.getvalue()
    found = found[found.index("<svg") :]
    found = found.replace(_BLACK, "currentColor").replace(INK, "currentColor")
    return Markup(found)
