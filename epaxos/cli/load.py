"""`epaxos load`: Locust from every region at once, on a cluster of its own or on one that runs.

It starts the cluster, runs Locust with `bench/locustfile.py`, shows its figures while they come,
and ends with a report. What it cannot say, Locust itself can: docs/load.md.
"""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from bench.analysis.statistics import PERCENTS, WHY_NONE, field_of
from bench.analysis.units import ms, percent
from bench.clusters.local import free_port_numbers
from bench.loadtest.options import parse_limits, parse_seconds, parse_steps, places
from bench.loadtest.run import LoadOptions, LoadReport, run_load, serve_page
from bench.loadtest.summary import broken
from bench.reports.load import write_page
from bench.run_directory import make_directory, manifest, measuring, sweep, write_json
from bench.trials.trial import Trial
from epaxos.cli.exits import ExitCode
from epaxos.cli.options import (
    Check,
    Durability,
    Json,
    LoadSeed,
    Out,
    Replicas,
    TopologyName,
    UnsafeNoGate,
)
from epaxos.cli.output import begin, calls_table, make_table, print_json
from epaxos.cli.progress import doing, left, line, show_live
from epaxos.core.errors import ConfigError
from topology import DEFAULT

app = typer.Typer()

_BAR: Final = 40
_RATE: Final = 50.0
_LIMITS: Final = ("--max-p99", "--max-fail-ratio", "--min-rate")


@app.command()
def load(
    topology: TopologyName = DEFAULT,
    replicas: Replicas = None,
    protocol: Annotated[str, typer.Option(help="What the cluster runs.")] = "epaxos",
    leader: Annotated[
        str, typer.Option(help="Where a leader stands: best, worst or a region.")
    ] = "best",
    workload: Annotated[
        str, typer.Option(metavar="TEXT", help="Like conflict:2, zipf:theta=0.9,keys=1000, ycsb-a.")
    ] = "conflict:0",
    rate: Annotated[
        float | None, typer.Option(help="Commands per second and region, open loop. [50]")
    ] = None,
    users: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Closed loop instead: users per region.")
    ] = None,
    duration: Annotated[
        str, typer.Option("--time", metavar="TIME", help="Measured per step, like 20s or 5m.")
    ] = "20s",
    warmup: Annotated[
        str, typer.Option(metavar="TIME", help="Before it and before each step, not measured.")
    ] = "2s",
    steps: Annotated[
        str,
        typer.Option(metavar="LIST", help="One after the other: rates, or users with --closed."),
    ] = "",
    closed: Annotated[
        bool, typer.Option("--closed", help="The steps are users per region, closed loop.")
    ] = False,
    durability: Durability = "fsync",
    processes: Annotated[int, typer.Option(help="Of Locust.")] = 1,
    patience: Annotated[
        str, typer.Option(metavar="TIME", help="How long a user waits for an answer.")
    ] = "10s",
    max_p99: Annotated[
        str, typer.Option(metavar="MS", help="Else end with 1; 250, or Tokyo=300, by commas.")
    ] = "",
    max_fail_ratio: Annotated[
        str, typer.Option(metavar="SHARE", help="Else end with 1: share of failed commands.")
    ] = "0",
    min_rate: Annotated[
        str, typer.Option(metavar="RATE", help="Else end with 1: good answers/s of a region.")
    ] = "",
    at: Annotated[
        str, typer.Option(metavar="URLS", help="Of replicas that run already, in order, by commas.")
    ] = "",
    web: Annotated[
        bool, typer.Option("--web", help="Locust's web page instead; Ctrl-C ends it.")
    ] = False,
    check: Check = False,
    seed: LoadSeed = 1,
    unsafe_no_gate: UnsafeNoGate = False,
    out: Out = Path("results"),
    json: Json = False,
) -> None:
    """Load a cluster from every region with Locust, and report percentiles per region.

    Open loop: commands at Poisson moments at an equal rate in every region, latency from the
    moment a command should have been sent. Closed loop: users that wait for each answer. Without
    --at a cluster is started on this machine and stopped again. Ends with 1 if the result is
    INVALID or a criterion is not met."""
    options = LoadOptions(
        trial=Trial(
            topology=topology,
            replicas=replicas,
            protocol=protocol,
            leader=leader,
            workload=workload,
            **_loop(rate, users, steps, closed),
            warmup_s=parse_seconds(warmup, "--warmup"),
            duration_s=parse_seconds(duration, "--time"),
            durability=durability,
            gate=not unsafe_no_gate,
            check=check,
            seed=seed,
        ),
        steps=parse_steps(steps),
        processes=processes,
        patience_s=parse_seconds(patience, "--patience"),
        limits=_limits(topology, replicas, (max_p99, max_fail_ratio, min_rate)),
        at=at,
    )
    if web and (steps or json or check):
        raise ConfigError("--web starts and stops runs by hand: leave --steps, --json, --check out")
    begun = datetime.now()
    directory = make_directory(out, "load", begun)
    remarks, screen = begin(options.title(), json=json)
    if web:
        _serve(options, directory, screen)
        return
    document = _run(options, directory, remarks, begun)
    report = write_page(directory, document)
    if json:
        print_json(document | {"directory": str(directory)})
    else:
        _print_document(screen, document)
        files = "raw: load.json, steps.csv, seconds.csv, *.hlog, *.hgrm, manifest.json"
        screen.print(f"report  {report}  ({files})", soft_wrap=True)
    if document["validity"] == "INVALID" or broken(document):
        raise typer.Exit(ExitCode.FAILED)


def _loop(rate: float | None, users: int | None, steps: str, closed: bool) -> dict[str, Any]:
    """Rate and clients of the trial; of the first step, if there are steps."""
    if steps:
        if rate is not None or users is not None:
            raise ConfigError("--steps says rates or users already: leave --rate and --users out")
        first = (parse_steps(steps) or (_RATE,))[0]
        return {"rate": 0.0, "clients": max(1, round(first))} if closed else {"rate": first}
    if rate is not None and (users is not None or closed):
        raise ConfigError("--rate is the open loop, --users the closed one: give one of them")
    if users is not None or closed:
        return {"rate": 0.0, "clients": users or 1}
    return {"rate": _RATE if rate is None else rate}


def _limits(topology: str, replicas: int | None, texts: tuple[str, ...]) -> tuple[str, ...]:
    """Options of the locustfile. Raises ConfigError."""
    sites = places(topology, replicas)
    titles, names = [place.title for place in sites], [place.name for place in sites]
    found: list[str] = []
    for option, text in zip(_LIMITS, texts):
        parse_limits(text, titles, option, names)
        found += [option, text] if text else []
    return tuple(found)


def _run(
    options: LoadOptions, directory: Path, remarks: Console, begun: datetime
) -> dict[str, Any]:
    with measuring(directory, remarks), show_live(remarks, _picture, _line) as watch:
        document = run_load(options, directory, watch)
    document["manifest"] = manifest(begun)
    write_json(directory / "load.json", document)
    write_json(directory / "manifest.json", document["manifest"] | {"setup": document["setup"]})
    return document


def _serve(options: LoadOptions, directory: Path, screen: Console) -> None:
    (port,) = free_port_numbers(1)
    screen.print("starting the cluster and Locust")

    def ready() -> None:
        screen.print(
            f"ready · Locust's web page: http://127.0.0.1:{port} · figures of ours: "
            f"http://127.0.0.1:{port}/epaxos · Ctrl-C ends both",
            soft_wrap=True,
        )

    try:
        serve_page(options, directory, port, ready)
    except KeyboardInterrupt:
        screen.print(f"stopped; files of the last run: {directory}", soft_wrap=True)
    finally:
        sweep(directory / "replicas")


def _line(report: LoadReport) -> str:
    figures = ""
    if report.live and report.live["measured_s"]:
        figures = " · " + " · ".join(
            f"{row['region']} {ms(row['p50'])} / {ms(row['p99'])} ms"
            + (f" {sum(row['failures'].values())} failed" if row["failures"] else "")
            for row in report.live["regions"]
        )
    return f"{line(report)}{figures}"


def _picture(report: LoadReport) -> Group:
    done = round(report.total * _BAR)
    bar = Text("━" * done, style="cyan") + Text("━" * (_BAR - done), style="dim")
    progress = Text(f"{doing(report)}  ") + bar
    progress += Text(f" {report.total * 100:3.0f} %   {left(report)}")
    return Group(progress, *([_live_table(report.live)] if report.live else []))


def _live_table(live: dict[str, Any]) -> Table:
    table = make_table("region", ">answers/s", ">p50 ms", ">p95", ">p99", ">failed", "")
    measured_s = live["measured_s"] or None
    for row in live["regions"]:
        failed = sum(row["failures"].values())
        why = max(row["failures"], key=lambda each: row["failures"][each], default="")
        table.add_row(
            row["region"],
            f"{row['answered'] / measured_s:,.1f}" if measured_s else "–",
            *(ms(row[name]) for name in ("p50", "p95", "p99")),
            f"{failed:,}",
            why,
            style="yellow" if failed else None,
        )
    return table


def _print_document(screen: Console, document: dict[str, Any]) -> None:
    screen.print()
    screen.print(results_table(document))
    rows = [row["answer"] for step in document["steps"] for row in step["regions"]]
    if any(row[field_of(each)] is None for row in rows for each in PERCENTS):
        screen.print(WHY_NONE)
    for each in document["generators"]:
        error = each["start_error_p99_ms"]
        starts = "" if error is None else f" · starts {error:.2f} ms late at the p99"
        screen.print(
            f"generator {each['process']}: its 10 ms greenlet late by "
            f"{each['lateness_max_ms'] or 0:.1f} ms at most{starts} · "
            f"{each['cpu_share'] * 100:.0f} % CPU"
        )
    missed = broken(document)
    for each in missed:
        screen.print(f"not met: {each}", soft_wrap=True)
    if len(document["steps"]) > 1 and document["sustained"] is not None:
        screen.print(f"all criteria are met up to {document['sustained']:g}")
    elif document["criteria"] and not missed:
        screen.print("all criteria are met")
    if "history" in document:
        screen.print(f"history {document['history']['sentence']}", soft_wrap=True)
        if document["history"]["shown"]:
            screen.print(calls_table(document["history"]["shown"]))
    screen.print(document["validity"])
    for reason in document["reasons"]:
        screen.print(f"  {reason}", soft_wrap=True)


def results_table(document: dict[str, Any]) -> Table:
    """A row per step and region: answers and commits in ms from the intended start."""
    several = len(document["steps"]) > 1
    what = "rate" if document["setup"]["loop"] == "open" else "users"
    table = make_table(
        *([f">{what}"] if several else []),
        *("region", ">sent", ">good/s", ">failed", ">answer\np50", ">\np95", ">\np99"),
        *(">\np99.9", ">commit\np50", ">wait\np95", ">fast\npath"),
    )
    for step in document["steps"]:
        rows = list(step["regions"])
        if len(rows) > 1:
            rows.append({"region": "all"} | step["total"])
        for i, row in enumerate(rows):
            table.add_row(
                *([f"{step['wanted']:g}" if i == 0 else ""] if several else []),
                row["region"],
                f"{row['sent']:,}",
                f"{row['rate']:,.1f}",
                f"{row['failed']:,}",
                *(ms(row["answer"][field_of(each)]) for each in PERCENTS),
                ms(row["commit"]["p50"]),
                ms(row["wait"]["p95"]),
                percent(row["fast_share"]),
            )
        if several:
            table.add_row()
    return table
