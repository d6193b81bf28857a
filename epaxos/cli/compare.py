"""`epaxos compare`: EPaxos against Multi-Paxos over emulated regions, with a verdict.

Real replica processes, real sockets and disks; only the distance between regions is emulated. With
`--simulated` the same in virtual time.
"""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.analysis.statistics import PERCENTS, WHY_NONE, field_of
from bench.analysis.units import ms, percent
from bench.clusters.counters import SYNC_MS
from bench.compare.compare import ComparisonOptions
from bench.compare.compare import compare as run_comparison
from bench.compare.save import write_results
from bench.compare.simulated import compare as run_simulation
from bench.compare.summary import title
from bench.compare.verdict import headline
from bench.reports.charts import titles, where
from bench.reports.comparison import write_report
from bench.run_directory import make_directory, measuring
from bench.trials.trial import Trial
from bench.workers import cores
from epaxos.cli.exits import ExitCode
from epaxos.cli.options import (
    Check,
    Durability,
    Json,
    LoadSeed,
    Out,
    Replicas,
    Simulated,
    TopologyName,
    UnsafeNoGate,
)
from epaxos.cli.output import STYLES, begin, calls_table, make_table, print_json, size
from epaxos.cli.progress import show_bar
from epaxos.core.errors import ConfigError
from epaxos.core.numbers import plain
from topology import DEFAULT, find, find_homes

app = typer.Typer()

_BAR_WIDTHS: Final = (6, 30)
"""Of the longest bar: where there is room for less, there is none."""
_FIXED_WIDTH: Final = 24
"""What a table takes beside names, percentiles and bars: optimum, fast path, gaps."""
_GAP: Final = 3
"""Between two columns."""
_Column = tuple[str, float]
"""Latency (`commit`, `answer`) and percentile."""
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
_COLOURS: Final = ("cyan", "yellow", "magenta", "blue", "white")
"""One per run, everywhere; the label says the same without colour."""


@app.command()
def compare(
    topology: TopologyName = DEFAULT,
    replicas: Replicas = None,
    protocols: Annotated[
        str,
        typer.Option(
            metavar="LIST", help="What to compare; your own as package.module:NAME among them."
        ),
    ] = "epaxos,multipaxos",
    leader: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Where leaders stand: best, worst (by closed form), or regions.",
        ),
    ] = "best,worst",
    conflicts: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Percent of commands on a key all regions share.  [default: 0,2,100]",
        ),
    ] = None,
    workload: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Instead of --conflicts: zipf:theta=0.9, ycsb-a, ... (docs/workloads.md).",
        ),
    ] = None,
    rate: Annotated[float, typer.Option(min=0.1, help="Commands per second and region.")] = 50.0,
    duration: Annotated[
        float, typer.Option(metavar="SECONDS", help="Measured per protocol and workload.")
    ] = 7.0,
    warmup: Annotated[
        float, typer.Option(metavar="SECONDS", help="Load before it, not measured.")
    ] = 1.5,
    durability: Durability = "fsync",
    value_size: Annotated[
        int | None, typer.Option(metavar="BYTES", help="Size of a value.  [default: 16]")
    ] = None,
    puts: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Share of puts; else gets.  [default: 1.0]"),
    ] = None,
    shared_keys: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="How many keys the regions share.  [default: 1]"),
    ] = None,
    check: Check = False,
    seed: LoadSeed = 1,
    unsafe_no_gate: UnsafeNoGate = False,
    simulated: Simulated = False,
    clients: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Simulated: regions with clients, also without a replica; those ask the nearest.",
        ),
    ] = None,
    sync_ms: Annotated[
        float | None,
        typer.Option(metavar="MS", help="Simulated: how long every sync takes.  [default: 0.2]"),
    ] = None,
    jitter: Annotated[
        bool, typer.Option("--jitter", help="Simulated: links vary as the topology says.")
    ] = False,
    out: Out = Path("results"),
    json: Json = False,
) -> None:
    """Compare protocols over emulated regions; the default run takes under two minutes.

    Starts real replicas on this machine, one cluster per protocol and leader, and sends each the
    same commands at the same moments: open loop, at an equal rate in every region. Latency counts
    from the moment a command should have been sent. With --simulated the replicas' code runs in
    virtual time instead. Ends with 1 if the result is INVALID."""
    if not simulated and (clients is not None or sync_ms is not None or jitter):
        raise ConfigError(
            "--clients, --sync-ms and --jitter are for virtual time (real clients are beside their "
            "replica, a real disk is measured, emulated links always vary): add --simulated"
        )
    regions = () if clients is None else _list(clients, "--clients")
    # a trial would say the same in the words of an experiment's file
    find_homes(topology, find(topology, replicas), regions)
    trial = Trial(
        topology=topology,
        replicas=replicas,
        rate=rate,
        duration_s=duration,
        warmup_s=warmup,
        durability=durability,
        check=check,
        seed=seed,
        gate=not unsafe_no_gate,
        simulated=simulated,
        jitter=jitter,
        client_regions=regions,
        sync_ms=SYNC_MS if sync_ms is None else sync_ms,
    )
    options = ComparisonOptions(
        trial,
        protocols=_list(protocols, "--protocols"),
        leaders=_list(leader, "--leader"),
        **_workloads(workload, conflicts, value_size, puts, shared_keys),
    )
    begun = datetime.now()
    directory = make_directory(out, "compare", begun)
    remarks, screen = begin(title(options), json=json)
    document = _measure(options, directory, remarks, begun)
    report = write_report(directory, document)
    if json:
        print_json(document | {"directory": str(directory)})
    else:
        print_document(screen, document)
        raw = "raw: samples.jsonl, summary.json, manifest.json"
        screen.print(f"report  {report}  ({raw})", soft_wrap=True)
    if document["verdict"]["validity"] == "INVALID":
        raise typer.Exit(ExitCode.FAILED)


def _list(text: str, option: str) -> tuple[str, ...]:
    found = tuple(each.strip() for each in text.split(",") if each.strip())
    if not found:
        raise ConfigError(f"{option} is empty; see epaxos compare --help")
    return found


def _workloads(
    workload: str | None,
    conflicts: str | None,
    value_size: int | None,
    puts: float | None,
    shared_keys: int | None,
) -> dict[str, Any]:
    """What is asked for: a workload says all itself."""
    given = {
        "conflicts": None if conflicts is None else _percents(conflicts),
        "value_size": value_size,
        "put_share": puts,
        "shared_keys": shared_keys,
    }
    found: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if workload is None:
        return found
    if found:
        raise ConfigError(
            "--workload says everything itself: instead of --conflicts, --value-size, --puts and "
            "--shared-keys write for example conflict:2,value_size=100,puts=0.5,pool=10"
        )
    return {"workload": workload}


def _percents(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(plain(each.removesuffix("%"))) for each in _list(text, "--conflicts"))
    except ValueError:
        raise ConfigError(f"--conflicts {text!r}: write percents, like 0,2,100") from None


def _measure(
    options: ComparisonOptions, directory: Path, remarks: Console, begun: datetime
) -> dict[str, Any]:
    with measuring(directory, remarks) as replicas, show_bar(remarks) as watch:
        if options.trial.simulated:
            found = run_simulation(options, watch, cores(), replicas)
        else:
            found = run_comparison(options, replicas, watch)
    return write_results(directory, options, found, begun)


def print_document(screen: Console, document: dict[str, Any]) -> None:
    """Tables, costs, verdict and validity, for a person."""
    for phase in document["phases"]:
        screen.print(phase_table(document, phase, screen.width))
    cells = [cell for phase in document["phases"] for cell in phase["cells"]]
    if any(cell["answer"][field_of(each)] is None for cell in cells for each in PERCENTS):
        screen.print(WHY_NONE)
        screen.print()
    screen.print(_costs_table(document))
    print_histories(screen, document)
    screen.print(Text(headline(document), style="bold"))
    screen.print()
    for sentence in document["verdict"]["sentences"]:
        screen.print(sentence)
    for note in document["setup"]["topology"]["notes"]:
        screen.print(f"note: {note}")
    screen.print()
    verdict = document["verdict"]
    validity = verdict["validity"]
    evidence = Text.assemble((validity, STYLES[validity]), "  " + verdict["evidence"])
    screen.print(evidence, soft_wrap=True)
    for reason in verdict["reasons"]:
        screen.print(f"  {reason}")


def print_histories(screen: Console, document: dict[str, Any]) -> None:
    """Verdicts of the histories that were kept; of an illegal one the calls that show it."""
    labels = {run["run"]: run["label"] for run in document["runs"]}
    for phase in document["phases"]:
        for found in phase.get("histories", ()):
            at = f"history, {phase['title']}, {labels[found['run']]}: "
            screen.print(f"{at}{found['sentence']}", soft_wrap=True)
            if found["shown"]:
                screen.print(calls_table(found["shown"]))


def phase_table(document: dict[str, Any], phase: dict[str, Any], width: int) -> Table:
    """One workload: a row per region and run, on a screen of so many columns."""
    runs = {run["run"]: run for run in document["runs"]}
    colours = {run: _COLOURS[i % len(_COLOURS)] for i, run in enumerate(runs)}
    names = titles(document)
    cells = phase["cells"]
    widest = max(len(where(cell, names)) for cell in cells) + max(
        len(run["label"]) for run in runs.values()
    )
    room = width - _FIXED_WIDTH - widest
    columns, room = _percentile_columns(cells, room)
    room = 0 if room - _GAP < _BAR_WIDTHS[0] else min(room - _GAP, _BAR_WIDTHS[1])
    table = make_table(
        *("region", "", ">optimum"),
        *(f">{kind if each == 50 else ''}\np{each:g}" for kind, each in columns),
        *([""] if room else []),
        ">fast\npath",
        title=f"{phase['title']}, times in ms",
    )
    longest = max((cell["answer"]["p50"] or 0.0 for cell in cells), default=0.0)
    before = None
    for cell in cells:
        region = cell["region"]
        if before not in (None, region):
            table.add_row()
        share = cell["fast_share"]
        style = colours[cell["run"]]
        table.add_row(
            where(cell, names) if region != before else "",
            runs[cell["run"]]["label"],
            ms(cell["optimum"]["fast_ms"]),
            *(ms(cell[kind][field_of(each)]) for kind, each in columns),
            *([Text(bar(cell["answer"]["p50"], longest, room), style=style)] if room else []),
            "" if share is None else percent(share),
        )
        before = region
    return table


def _percentile_columns(cells: list[dict[str, Any]], room: int) -> tuple[list[_Column], int]:
    """Columns of percentiles, and what they leave of the room: all of the answers, and of the
    commits as many as fit; a commit is seldom far from its answer, and the report shows all."""
    taken: dict[_Column, int] = {}
    for kind in ("answer", "commit"):
        for each in PERCENTS:
            figures = (len(ms(cell[kind][field_of(each)])) for cell in cells)
            wide = _GAP + max(len(kind) if each == 50 else 0, len(f"p{each:g}"), *figures)
            if kind == "answer" or sum(taken.values()) + wide <= room:
                taken[kind, each] = wide
    order = sorted(taken, key=lambda column: column[0] == "answer")
    return order, room - sum(taken.values())


def bar(value: float | None, longest: float, width: int) -> str:
    """`width` characters for `longest`, in eighths."""
    if not value or not longest:
        return ""
    eighths = max(1, round(value / longest * width * 8))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _costs_table(document: dict[str, Any]) -> Table:
    table = make_table(
        *("per command", "", ">messages", ">bytes", ">syncs", ">CPU ms", ">slow\npaths"),
        *(">met\nanother", ">batches\nthat did"),
    )
    labels = {run["run"]: run["label"] for run in document["runs"]}
    for phase in document["phases"]:
        realised = {row["run"]: row for row in phase["conflicts"]}
        for i, cost in enumerate(phase["costs"]):
            found = realised[cost["run"]]
            table.add_row(
                phase["title"] if i == 0 else "",
                labels[cost["run"]],
                f"{cost['messages']:.1f}",
                size(round(cost["bytes"])),
                f"{cost['syncs']:.1f}",
                "–" if cost["cpu_ms"] is None else f"{cost['cpu_ms']:.2f}",
                "" if found["slow"] is None else f"{found['slow']:,}",
                percent(found["realised_share"]),
                percent(found["realised_batch_share"]),
            )
    return table
