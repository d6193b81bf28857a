"""`epaxos figures`: the papers' evaluation figures, measured here and drawn beside theirs."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.figures import evaluate
from bench.figures.catalogue import find_studies
from bench.figures.plan import FULL, REDUCED, Scale, Study
from bench.reports.figures import write_page
from bench.run_directory import make_directory
from bench.trials.executors import choose
from bench.trials.store import TrialStore
from bench.trials.sweep import STORE
from bench.workers import cores
from epaxos.cli.exits import ExitCode
from epaxos.cli.options import JOBS_MAX, Json, Out, seed_option
from epaxos.cli.output import console, make_table, print_json
from epaxos.cli.progress import show_sweep
from epaxos.core.errors import ConfigError

app = typer.Typer()


@app.command()
def figures(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...", help="Which; all if none is named.", show_default=False
        ),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Say which there are.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="The papers' size: five repeats of a minute; hours.")
    ] = False,
    repeats: Annotated[
        int | None, typer.Option(help="Of each trial, with a seed of its own.  [3; real ones 1]")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.5, max=3600, help="Measured per simulated trial.  [default: 18]"),
    ] = None,
    real_seconds: Annotated[
        float | None,
        typer.Option(min=0.5, max=3600, help="Measured per real trial.  [default: 2]"),
    ] = None,
    seed: Annotated[int, seed_option("Of the first repeat.")] = 1,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, max=JOBS_MAX, help="Processes for simulated trials; one per core."),
    ] = None,
    dask: Annotated[
        str, typer.Option(metavar="ADDRESS", help="A Dask scheduler for simulated trials.")
    ] = "",
    out: Out = Path("results"),
    json: Json = False,
) -> None:
    """Run and draw the evaluation figures of the EPaxos papers; all in under 15 minutes.

    Most trials run in virtual time and are shared out over the cores; those on throughput start
    real replicas, one cluster after another. What was run before, by the same code, is not run
    again. Writes one HTML report, and PDF, SVG and PNG of each figure. Published numbers are drawn
    where they are known. Ends with 1 if a figure is INVALID."""
    studies = find_studies(names or [])
    if listed:
        _list(studies, json)
        return
    scale = _scale(FULL if full else REDUCED, repeats, seconds, real_seconds, seed)
    executor = choose(jobs or cores(), dask)
    begun = datetime.now()
    remarks, screen = console(stderr=True), console()
    count = len(evaluate.needed(studies, scale))
    remarks.print(
        f"{len(studies)} figure{'s'[: len(studies) > 1]} · {count} trials · {executor.title()} · "
        f"seed {seed}"
    )
    with show_sweep(remarks) as watch:
        outcomes, ran = evaluate.run(studies, scale, TrialStore(out / STORE), executor, watch)
    remarks.print("drawing")
    drawn = evaluate.draw(studies, scale, outcomes)
    directory = make_directory(out, "figures", begun)
    document = evaluate.write(directory, drawn, scale, ran, begun)
    page = write_page(directory, document)
    if json:
        print_json(document | {"directory": str(directory)})
    else:
        _tell(screen, document, page)
    if any(each["validity"] == "INVALID" for each in document["figures"]):
        raise typer.Exit(ExitCode.FAILED)


def _scale(
    base: Scale,
    repeats: int | None,
    seconds: float | None,
    real_seconds: float | None,
    seed: int,
) -> Scale:
    try:
        return Scale(
            repeats=base.repeats if repeats is None else repeats,
            real_repeats=base.real_repeats if repeats is None else repeats,
            simulated_s=base.simulated_s if seconds is None else seconds,
            real_s=base.real_s if real_seconds is None else real_seconds,
            seed=seed,
        )
    except ConfigError as error:
        raise ConfigError(f"{error}; see epaxos figures --help") from None


def _list(studies: list[Study], json: bool) -> None:
    if json:
        print_json(
            [
                {"name": each.name, "question": each.question, "source": each.source}
                for each in studies
            ]
        )
        return
    table = make_table("figure", "question", "after")
    for each in studies:
        table.add_row(each.name, each.question, each.source)
    console().print(table)


def _tell(screen: Console, document: dict[str, object], page: Path) -> None:
    table = make_table("figure", "", "files")
    figures = document["figures"]
    assert isinstance(figures, list)
    for each in figures:
        files = ", ".join(picture["file"] for picture in each["pictures"])
        table.add_row(each["name"], each["validity"], files)
    screen.print(table)
    for each in figures:
        for reason in each["reasons"][:1]:
            more = f" (and {len(each['reasons']) - 1} more)" if len(each["reasons"]) > 1 else ""
            screen.print(f"{each['name']}: {reason}{more}", soft_wrap=True)
    screen.print(f"report  {page}  (each figure: pdf/, svg/, png/)", soft_wrap=True)
