"""Pages: one HTML file each, no network, on one skeleton.

Markup stands in `templates/`, where every text is escaped; pictures come as Markup from Python,
since their places are computed (svg.py).
"""

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from bench.analysis import units

PAGE: Final = "report.html"
"""Its name in a results directory."""


def render_page(template: str, **context: Any) -> str:
    """A whole page from a template that extends the skeleton.

    The skeleton takes `title`, `heading` (default: the title), `setup`, `command_line` (that
    repeats it; may be empty) and `manifest`: documents by their names."""
    style = files("bench.reports").joinpath("report.css").read_text("utf-8")
    defaults = {"heading": "", "command_line": "", "manifest": {}}
    return _environment().get_template(template).render(defaults | context, style=style)


def write_html(directory: Path, page: str) -> Path:
    """Write a page into a results directory; returns its path."""
    path = directory / PAGE
    path.write_text(page, encoding="utf-8")
    return path


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("bench.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"ms": units.ms, "percent": units.percent, "counted": _counted, "json": _json}
    return found


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _json(document: Any, indent: int | None = 1) -> str:
    return json.dumps(document, indent=indent, ensure_ascii=False)
