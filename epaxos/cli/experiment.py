"""`epaxos experiment`: declarative sweeps, resumable; what came out, and what differs.

An experiment is a TOML file, or one that comes with the package; docs/experiments.md says what
stands in it.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from epaxos.cli.exits import ExitCode
from epaxos.cli.options import JOBS_MAX, Json
from epaxos.cli.output import STYLES, begin, calls_table, console, make_table, print_json
from epaxos.cli.progress import show_sweep
from epaxos.core.errors import ConfigError

if TYPE_CHECKING:
    from bench.trials.results import Results, Table

app = typer.Typer(
    help="Sweeps, resumable: run, show, report, diff.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

What = Annotated[str, typer.Argument(help="A TOML file, or a name that `list` shows.")]
Which = Annotated[
    str, typer.Argument(help="A directory of results, or a name: its newest results.")
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Where results and their store are.")]


@app.command()
def run(
    what: What,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, max=JOBS_MAX, help="Processes for simulated trials.  [default: one per core]"
        ),
    ] = None,
    dask: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="A Dask scheduler for them, like tcp://host:8786."),
    ] = "",
    repeats: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Instead of those in the file.")
    ] = None,
    out: Out = Path("results"),
    json: Json = False,
) -> None:
    """Run an experiment, or what is still missing of it.

    Prints its table and writes a report. Finished trials are kept in DIR/store, by what they follow
    from: the same trial of the same code is never run twice, and Ctrl-C loses only what is running.
    Real processes run one trial after another; simulated trials are shared out. Ends with 1 if the
    result is INVALID."""
    from bench.reports.experiment import write_page
    from bench.trials.experiment import Experiment

    experiment = Experiment.load(what)
    if repeats is not None:
        experiment = experiment.repeated(repeats)
    count = len(experiment.configurations)
    title = (
        f"{experiment.title} · {count} configuration{'s' if count != 1 else ''} · "
        f"{experiment.repeats} repeat{'s' if experiment.repeats != 1 else ''} · "
        f"seed {experiment.seed}"
    )
    remarks, screen = begin(title, json=json)
    with show_sweep(remarks) as watch:
        results = experiment.run(out=out, jobs=jobs, dask=dask, watch=watch)
    page = write_page(results)
    if json:
        print_json(_document(results))
    else:
        _print_results(screen, results)
        screen.print(f"report  {page}  (raw: experiment.json, trials/)")
    if results.validity == "INVALID":
        raise typer.Exit(ExitCode.FAILED)


@app.command("list")
def list_all(out: Out = Path("results"), json: Json = False) -> None:
    """The experiments that come with us, and your results."""
    from bench.trials.experiment import Experiment, built_in

    known = [Experiment.load(name) for name in built_in()]
    found = list(_all_results(out))
    if json:
        print_json(
            {
                "experiments": [
                    {
                        "name": each.name,
                        "title": each.title,
                        "configurations": len(each.configurations),
                        "repeats": each.repeats,
                        "simulated": all(trial.simulated for trial in each.configurations),
                    }
                    for each in known
                ],
                "results": [
                    {
                        "directory": str(each.directory),
                        "name": each.name,
                        "title": each.title,
                        "begun": each.manifest["begun"],
                        "trials": len(each.manifest["trials"]),
                        "failed": len(each.manifest["failed"]),
                    }
                    for each in found
                ],
            }
        )
        return
    screen = console()
    table = make_table("experiment", "", ">configurations", ">repeats", "")
    for each in known:
        virtual = all(trial.simulated for trial in each.configurations)
        table.add_row(
            each.name,
            each.title,
            f"{len(each.configurations):,}",
            f"{each.repeats:,}",
            "virtual time" if virtual else "real processes",
        )
    screen.print(table)
    if found:
        table = make_table("results", "", ">trials", ">failed")
        for result in found:
            table.add_row(
                str(result.directory),
                result.title,
                f"{len(result.manifest['trials']):,}",
                f"{len(result.manifest['failed']):,}",
            )
        screen.print(table)
    else:
        screen.print(f"no results in {out} yet: epaxos experiment run {known[0].name}")


@app.command()
def show(which: Which, out: Out = Path("results"), json: Json = False) -> None:
    """The table of results, with its validity."""
    results = _find(which, out)
    if json:
        print_json(_document(results))
    else:
        _print_results(console(), results)


@app.command()
def report(
    which: Which,
    out: Out = Path("results"),
    to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Instead of report.html beside them.")
    ] = None,
) -> None:
    """Write one HTML file with figures and tables.

    Prints where it is."""
    from bench.reports.experiment import write_page

    console().print(str(write_page(_find(which, out), to)), soft_wrap=True)


@app.command()
def diff(a: Which, b: Which, out: Out = Path("results"), json: Json = False) -> None:
    """Which differences between A and B are significant.

    Positive: B takes longer. Cells are matched by region and by what is swept in either. A
    difference is significant when its 95 % bootstrap interval, over repeats and the samples within
    each, excludes 0."""
    found = _find(a, out).diff(_find(b, out))
    if json:
        print_json(found.document())
        return
    screen = console()
    _print_table(screen, found.table())
    for sentence in found.sentences():
        screen.print(sentence, soft_wrap=True)
    if found.validity != "VALID":
        screen.print(
            f"{found.validity}: epaxos experiment show says why", style=STYLES[found.validity]
        )


def _document(results: "Results") -> dict[str, Any]:
    return {
        "directory": str(results.directory),
        "title": results.title,
        "conditions": results.conditions,
        "validity": results.validity,
        "reasons": results.reasons,
        "histories": [{"trial": which} | verdict for which, verdict in results.histories],
        "manifest": results.manifest,
        "cells": results.records(),
    }


def _all_results(out: Path) -> "Iterator[Results]":
    """The results below a directory, oldest first."""
    from bench.trials.results import MANIFEST, Results

    for path in sorted(out.glob(f"*/{MANIFEST}")):
        yield Results(path.parent)


def _find(which: str, out: Path) -> "Results":
    """A directory of results, or the newest of an experiment. Raises ConfigError."""
    from bench.trials.results import Results

    if Path(which).is_dir():
        return Results(Path(which))
    found = [each for each in _all_results(out) if each.name == which]
    if not found:
        raise ConfigError(
            f"{which} is no directory, and {out} has no results of an experiment called that; "
            "epaxos experiment list shows what there is"
        )
    return max(found, key=lambda each: str(each.manifest["ended"]))


def _print_results(screen: Console, results: "Results") -> None:
    _print_table(screen, results.table())
    checked = [verdict for _, verdict in results.histories]
    if checked:
        counts = Counter(verdict["verdict"] for verdict in checked)
        said = ", ".join(f"{count:,} {verdict}" for verdict, count in counts.items())
        screen.print(f"histories of {len(checked):,} trials: {said}")
    for verdict in checked:
        if verdict["shown"]:
            screen.print(calls_table(verdict["shown"]))
    screen.print(results.validity, style=STYLES[results.validity])
    for each in (*results.reasons, *results.manifest["notes"]):
        screen.print(f"  {each}", soft_wrap=True)


def _print_table(screen: Console, table: "Table") -> None:
    found = make_table(*table.headings, title=table.title)
    for row in table.rows:
        found.add_row(*row)
    screen.print(found)
    for note in table.notes:
        screen.print(note, soft_wrap=True)
