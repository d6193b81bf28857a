"""Progress of verbs that take long: redrawn on a terminal, said in lines where nobody watches.

Rules of this file: all of it goes to the console that it is given, which is that of stderr; a bar
or a table is gone when the work ends, lines stay.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from bench.progress import ProgressReport, Watch

if TYPE_CHECKING:
    from bench.trials.sweep import SweepReport

_LINE_SHARE: Final = 0.1
"""Lines: one is said after each such share of the whole,"""
_NEW_SHARE: Final = 0.05
"""and after this much already where something else is being done."""
_MINUTES_FROM_S: Final = 100.0

_Report = TypeVar("_Report", bound=ProgressReport)


def doing(report: ProgressReport) -> str:
    """What is being done, like `MP @CA · 2 % conflicts`."""
    return " · ".join(filter(None, (report.what, report.activity)))


def left(report: ProgressReport) -> str:
    """Like `about 40 s to go`."""
    seconds = report.left_s
    time = f"{seconds:.0f} s" if seconds < _MINUTES_FROM_S else f"{seconds / 60:.0f} min"
    return f"about {time} to go"


def line(report: ProgressReport) -> str:
    """Everything that a bar shows, as a line of a log."""
    return f"{doing(report)} · {left(report)}"


@contextmanager
def show_bar(remarks: Console) -> Iterator[Watch[ProgressReport]]:
    """A bar with an estimate; lines where nobody watches."""
    if not remarks.is_terminal:
        yield say_lines(remarks, line)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]}", markup=False),
    )
    with Progress(*columns, console=remarks, transient=True) as bars:
        task = bars.add_task("", total=1.0, left="")
        yield lambda report: bars.update(
            task, completed=report.total, description=doing(report), left=left(report)
        )


@contextmanager
def show_sweep(remarks: Console) -> "Iterator[Watch[SweepReport]]":
    """A bar, or lines; after Ctrl-C it says what is kept, and how to go on."""
    last: SweepReport | None = None

    try:
        with show_bar(remarks) as show:

            def watch(report: "SweepReport") -> None:
                nonlocal last
                last = report
                show(report)

            yield watch
    except KeyboardInterrupt:
        if last is not None:
            kept = last.done - last.failed + last.reused
            remarks.print(
                f"stopped; {kept:,} of {last.trials + last.reused:,} trials are finished and "
                "kept: the same command goes on from there"
            )
        raise


@contextmanager
def show_live(
    remarks: Console,
    draw: Callable[[_Report], RenderableType],
    words: Callable[[_Report], str],
) -> Iterator[Watch[_Report]]:
    """A picture that is drawn anew at each report; lines where nobody watches."""
    if not remarks.is_terminal:
        yield say_lines(remarks, words)
        return
    with Live(console=remarks, auto_refresh=False, transient=True) as screen:
        yield lambda report: screen.update(draw(report), refresh=True)


def say_lines(remarks: Console, words: Callable[[_Report], str]) -> Watch[_Report]:
    """Lines for logs: few enough to be read, however long the work takes and however often it
    reports."""
    said = set[tuple[str, str]]()
    last = -1.0

    def tell(report: _Report) -> None:
        nonlocal last
        key = report.what, report.activity
        gone = report.total - last
        if gone >= _LINE_SHARE or (key not in said and gone >= _NEW_SHARE):
            said.add(key)
            last = report.total
            remarks.print(words(report), soft_wrap=True)

    return tell
