"""How the verbs speak: consoles, tables, JSON, and numbers in the units that people read.

Rules of this file: results to stdout, progress and remarks to stderr; no colour and no redrawing
where the stream is not a terminal or NO_COLOR is set (rich keeps that rule, both consoles here);
milliseconds with one decimal, counts with separators.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

STYLES: Final = {"VALID": "bold green", "SUSPECT": "bold yellow", "INVALID": "bold red"}
"""Of a result, by its validity."""
_PIPE_COLUMNS: Final = 200
"""Width assumed where nobody watches, so that a table in a file is not cut to 80 columns."""


def console(*, stderr: bool = False) -> Console:
    """A console on stdout, or on stderr. What it prints is text, brackets included."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_COLUMNS
    return Console(stderr=stderr, markup=False, highlight=False, width=width)


def begin(title: str, *, json: bool) -> tuple[Console, Console]:
    """The consoles of a verb that takes long, for remarks and for results. Its title is printed on
    the second, or with `json` on the first."""
    remarks, screen = console(stderr=True), console()
    (remarks if json else screen).print(title)
    return remarks, screen


def print_json(document: Any) -> None:
    """One document to stdout, indented, with a newline at its end."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY
    sys.stdout.write(orjson.dumps(document, option=options | orjson.OPT_NON_STR_KEYS).decode())
    sys.stdout.flush()


def make_table(*headings: str, title: str | None = None) -> Table:
    """An empty table. A heading that begins with `>` is that of a column of numbers, which stand
    to the right."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        number = heading.startswith(">")
        table.add_column(heading.removeprefix(">"), justify="right" if number else "left")
    return table


def calls_table(calls: Sequence[Mapping[str, Any]]) -> Table:
    """Calls of a history, a row each; moments from the first call on, in the history's unit."""
    table = make_table("client", "call", ">from", ">to")
    first = min((call["called"] for call in calls), default=0)
    for call in calls:
        end = call["returned"]
        table.add_row(
            call["client"],
            Text(call["what"]),
            f"{call['called'] - first:,}",
            "–" if end is None else f"{end - first:,}",
        )
    return table


def printable(octets: bytes) -> str:
    """Keys and values for people: UTF-8, with a backslash escape for what is not, or not
    printable."""
    text = octets.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def milliseconds(micros: float | None) -> str:
    """`71.2` for 71,234 µs; a dash for None."""
    return "–" if micros is None else f"{micros / 1000:,.1f}"


def count(number: int | None) -> str:
    """`1,234`; a dash for None."""
    return "–" if number is None else f"{number:,}"


def size(octets: int | None) -> str:
    """`2.1 MB`: bytes in decimal units; a dash for None."""
    if octets is None:
        return "–"
    if octets < 1000:
        return f"{octets} B"
    amount = float(octets)
    for unit in ("kB", "MB", "GB"):
        amount /= 1000
        if amount < 999.95:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1000:.1f} TB"
