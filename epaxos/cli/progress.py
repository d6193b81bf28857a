"""The bar of verbs that take long: what is done, how much of it, and how long it may still take.

Rules of this file: only where somebody watches; what is said elsewhere is each verb's own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

Show = Callable[[float, str, str], None]
"""Told the share that is done (0 to 1), what is being done, and how long it will take."""


@contextmanager
def progress_bar(remarks: Console) -> Iterator[Show]:
    """A bar that is gone when it ends."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=remarks, transient=True) as bars:
        task = bars.add_task("", total=1.0, left="")

        def show(share: float, said: str, left: str) -> None:
            bars.update(task, completed=share, description=said, left=left)

        yield show
