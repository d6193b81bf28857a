"""`epaxos bench`: throughput, latency and CPU per command of a local cluster, in closed windows."""

import math
import shutil
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from bench.analysis.statistics import WHY_NONE
from bench.run_directory import make_directory, manifest, measuring, write_json
from bench.throughput.suite import WINDOWS, ThroughputOptions, run_suite, summarize, title
from epaxos.cli.exits import ExitCode
from epaxos.cli.options import Check, Json, Out, seed_option
from epaxos.cli.output import begin, calls_table, make_table, print_json
from epaxos.cli.progress import show_bar
from epaxos.core.errors import ConfigError
from epaxos.core.numbers import plain
from epaxos.percentile import median

app = typer.Typer()

_QUICK_WINDOWS: Final = (1, 960)
_QUICK_SECONDS: Final = 0.6


@app.command()
def bench(
    quick: Annotated[
        bool, typer.Option("--quick", help="One short repeat at windows 1 and 960.")
    ] = False,
    repeats: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Interleaved; figures are their medians. [3]"),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, max=3600, help="Measured per case and repeat. [1.5]")
    ] = None,
    windows: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Commands outstanding. [1,15,120,960,7680]"),
    ] = None,
    replicas: Annotated[str, typer.Option(metavar="LIST", help="Sizes of the clusters.")] = "5,3",
    unbatched: Annotated[
        bool,
        typer.Option("--unbatched", help="Only one command per instance, at every window."),
    ] = False,
    only: Annotated[
        str,
        typer.Option(metavar="TEXT", help="Only settings with it in their title, like fsync."),
    ] = "",
    value_size: Annotated[int, typer.Option(metavar="BYTES", help="Size of a value.")] = 16,
    check: Check = False,
    seed: Annotated[int, seed_option("Of everything random.")] = 1,
    out: Out = Path("results"),
    json: Json = False,
) -> None:
    """Measure a local cluster without emulated delays: what the code costs.

    So many commands are outstanding; each answer is replaced by a new command. EPaxos and
    Multi-Paxos, 3 and 5 replicas, in memory and with fsync, many commands per client frame or one,
    one command per instance, all on one key; and a server that only answers, as the ceiling. Says
    whether a larger window has less than the best one.
    Replicas and client share this machine: nothing else should run."""
    options = ThroughputOptions(
        repeats=repeats or (1 if quick else 3),
        seconds=seconds or (_QUICK_SECONDS if quick else 1.5),
        windows=_windows(windows, quick),
        replicas=_numbers(replicas, "--replicas", "7,9"),
        unbatched=unbatched,
        only=only,
        value_size=value_size,
        check=check,
        seed=seed,
    )
    begun = datetime.now()
    directory = make_directory(out, "bench", begun)
    remarks, screen = begin(title(options), json=json)
    with measuring(directory, remarks) as logs, show_bar(remarks) as watch:
        runs = run_suite(options, logs, watch)
        if all(run.checked is None or run.checked.verdict == "OK" for run in runs):
            shutil.rmtree(logs, ignore_errors=True)  # only a failure's logs are of use
    document = summarize(options, runs) | {"manifest": manifest(begun)}
    write_json(directory / "bench.json", document)
    if json:
        print_json(document | {"directory": str(directory)})
    else:
        print_document(screen, document)
        screen.print(f"all figures  {directory / 'bench.json'}")
    if any(each["verdict"] == "ILLEGAL" for each in document["histories"]):
        raise typer.Exit(ExitCode.FAILED)


def _windows(text: str | None, quick: bool) -> tuple[int, ...]:
    if text is None:
        return _QUICK_WINDOWS if quick else WINDOWS
    return tuple(sorted(_numbers(text, "--windows", "1,120,960")))


def _numbers(text: str, option: str, example: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(plain(each)) for each in text.split(",")))
    except ValueError:
        raise ConfigError(f"{option} {text!r}: write numbers, like {example}") from None


def print_document(screen: Console, document: dict[str, Any]) -> None:
    """The table and its sentences, for a person."""
    screen.print()
    screen.print(rows_table(document["rows"]))
    if any(row["p99_9_ms"] is None for row in document["rows"]):
        screen.print(WHY_NONE)
    for sentence in document["sentences"]:
        screen.print(sentence, soft_wrap=not screen.is_terminal)
    for found in document["histories"]:
        at = f"history, {found['case']}, repeat {found['repeat'] + 1}: "
        screen.print(f"{at}{found['sentence']}", soft_wrap=True)
        if found["shown"]:
            screen.print(calls_table(found["shown"]))


def rows_table(rows: list[dict[str, Any]]) -> Table:
    """A row per case, a heading per setting. `µs` is CPU per command: of the client, of all
    replicas, of the busiest one; `spread` is how far the repeats lie apart."""
    table = make_table(
        "",
        ">window",
        ">commands/s",
        ">spread",
        ">p50 ms",
        ">p99",
        ">p99.9",
        ">µs client",
        ">replicas",
        ">busiest",
        ">batch",
        ">fast",
    )
    before = None
    for row in rows:
        if row["setting"] != before:
            if before is not None:
                table.add_row()
            table.add_row(row["setting"], style="bold")
            before = row["setting"]
        replicas = {name: us for name, us in row["cpu_us"].items() if name != "client"}
        busiest = max(replicas, key=lambda name: replicas[name])
        table.add_row(
            f"  {row['case']}",
            f"{row['window']:,}",
            f"{row['commands_per_s']:,}",
            _spread(row["repeats"]),
            _fine(row["p50_ms"]),
            _fine(row["p99_ms"]),
            _fine(row["p99_9_ms"]),
            _fine(row["cpu_us"]["client"]),
            _fine(sum(replicas.values())),
            f"{busiest} {_fine(replicas[busiest])}" if len(replicas) > 1 else "",
            "" if row["commands_per_instance"] is None else f"{row['commands_per_instance']:,.1f}",
            "" if row["fast_share"] is None else _percent(row["fast_share"]),
        )
    return table


def _percent(share: float) -> str:
    """Rounded down: what is not all is not 100 %."""
    return "100 %" if share >= 1 else f"{math.floor(share * 1e4) / 100:.2f} %"


def _spread(rates: list[int]) -> str:
    """How far the repeats lie apart, in parts of their median."""
    middle = median(rates)
    if len(rates) < 2 or not middle:
        return ""
    return f"{(max(rates) - min(rates)) / middle * 100:.0f} %"


def _fine(value: float | None) -> str:
    """Two decimals below ten, one below a hundred: what short times carry."""
    if value is None:
        return "–"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"
