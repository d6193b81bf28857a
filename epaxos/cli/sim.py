"""`epaxos sim`: whole clusters in virtual time, by seed; everything can go wrong.

Seeds are shared out over all cores, whole seeds at a time. A failure is cut down to its shortest
story, shown as a chart, and written out as a test.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import topology as places
from epaxos.cli.exits import ExitCode
from epaxos.cli.output import console, make_table, print_json
from epaxos.core.errors import ConfigError
from epaxos.registry import BUILT_IN, find_protocol, protocol_names
from epaxos.sim.options import KINDS, WORKLOADS
from epaxos.sim.soak import Profile

if TYPE_CHECKING:
    from epaxos.cli.sim_workers import Soak

app = typer.Typer()

EVERYTHING = "all"


@app.command()
def sim(
    context: typer.Context,
    seed: Annotated[int | None, typer.Option(help="Run this one seed only.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds to run.")] = 200,
    first_seed: Annotated[int, typer.Option(help="The first of them.")] = 1,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Run seeds for so long instead of so many.")
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(protocol_names())}, your own as package.module:NAME, or "
            f"{EVERYTHING} of this package."
        ),
    ] = EVERYTHING,
    replicas: Annotated[
        str, typer.Option(metavar="LIST", help="Sizes of clusters to draw from.")
    ] = "3,4,5,7",
    commands: Annotated[int, typer.Option(help="Commands per seed.")] = 40,
    topology: Annotated[
        str | None, typer.Option(help="Delays and replicas of this topology; else drawn.")
    ] = None,
    workload: Annotated[
        str,
        typer.Option(
            help=f"What clients do: {', '.join(WORKLOADS)}; or as for compare, like zipf:theta=0.9."
        ),
    ] = "mixed",
    faults: Annotated[
        str,
        typer.Option(metavar="LIST", help=f"Kinds that may happen: all, none, {', '.join(KINDS)}."),
    ] = EVERYTHING,
    soak: Annotated[
        bool, typer.Option("--soak", help="Fail also if some situation was never met.")
    ] = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; default: all cores.")] = None,
    shrink: Annotated[bool, typer.Option(help="Cut a failure down to its shortest story.")] = True,
    unsafe_no_gate: Annotated[
        bool, typer.Option("--unsafe-no-gate", help="Do not hold back commands on contended keys.")
    ] = False,
    plant: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Put the class in this file in the place of ours."),
    ] = None,
    state_machine: Annotated[
        str,
        typer.Option(
            metavar="MODULE:CLASS", help="Your own state machine in place of the key-value store."
        ),
    ] = "",
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the tests of failures are written.")
    ] = Path("results"),
    contended: Annotated[
        bool, typer.Option("--contended", help="No faults: all regions write one key.")
    ] = False,
    seconds: Annotated[float, typer.Option(help="With --contended: for so long.")] = 30.0,
    replay: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Run what `epaxos up --record` kept through the nodes."),
    ] = None,
    instance: Annotated[
        str | None, typer.Option(help="With --replay: chart this instance, like A.7.")
    ] = None,
    bench: Annotated[bool, typer.Option("--bench", help="Measure the simulator itself.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Run clusters in virtual time: crashes, lost and copied messages, partitions, slow, full and
    torn disks, wrong clocks, pauses. The same seed is the same run.

    Prints its options first. Ends with 1 if a sentence about the protocols was violated."""
    _refuse_what_would_be_ignored(context)
    if replay is not None:
        from epaxos.cli.sim_replay import replay as replay_directory

        raise typer.Exit(replay_directory(replay, instance, json))
    if bench:
        _bench(json)
        return
    if contended:
        _contended(topology or places.DEFAULT, not unsafe_no_gate, seconds, first_seed, json)
        return
    profiles = [
        Profile(
            name,
            _sizes(replicas),
            commands,
            not unsafe_no_gate,
            _kinds(faults),
            workload,
            topology,
            plant=plant,
            state_machine=state_machine,
        )
        for name in _protocols(protocol)
    ]
    from epaxos.cli.sim_workers import Soak, terminable

    wanted = range(first_seed, first_seed + seeds) if seed is None else range(seed, seed + 1)
    run = Soak(profiles, wanted, minutes, jobs)
    remarks = console(stderr=True)
    remarks.print(run.title(), markup=False, soft_wrap=True)
    with terminable():
        run.run(remarks)
        failed = _report(run, soak, shrink, out, json)
    if run.interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)
    if failed:
        raise typer.Exit(ExitCode.FAILED)


_MODES = {
    "replay": ("instance",),
    "bench": (),
    "contended": ("topology", "seconds", "unsafe_no_gate", "first_seed"),
}
"""Options that mean something else than to run seeds, and with which others each goes."""


def _refuse_what_would_be_ignored(context: typer.Context) -> None:
    """An option that is given and changes nothing is a misunderstanding. Raises ConfigError."""
    given = [
        name
        for name in context.params
        if name != "json"
        and (source := context.get_parameter_source(name)) is not None
        and source.name not in ("DEFAULT", "DEFAULT_MAP")
    ]
    for mode, others in _MODES.items():
        if mode in given:
            for name in given:
                if name not in (mode, *others):
                    raise ConfigError(f"{_option(name)} says nothing with --{mode}: leave one out")
            return
    for name, mode in (("instance", "replay"), ("seconds", "contended")):
        if name in given:
            raise ConfigError(f"--{name} needs --{mode}")
    for name, other in _EITHER:
        if name in given and other in given:
            raise ConfigError(
                f"{_option(name)} and {_option(other)} say different things: leave one out"
            )


_EITHER = (
    *(("seed", "seeds"), ("seed", "first_seed"), ("seed", "minutes")),
    *(("seeds", "minutes"), ("topology", "replicas")),
)
"""Each says how many seeds, which, or of what size: only one can be followed."""


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _protocols(name: str) -> list[str]:
    if name == EVERYTHING:
        return list(BUILT_IN)
    find_protocol(name)
    return [name]


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(each) for each in text.split(","))
    except ValueError:
        raise ConfigError("--replicas takes numbers from 1 to 9, like 3,5,7") from None


def _kinds(text: str) -> frozenset[str] | None:
    if text == EVERYTHING:
        return None
    return frozenset(each.strip() for each in text.split(",") if each.strip() not in ("", "none"))


def _report(run: "Soak", soak: bool, shrink: bool, out: Path, json: bool) -> bool:
    """Print what was found; whether it is a failure. Who interrupts gets the summary at once."""
    from epaxos.cli.sim_report import document_of, print_failure, print_lost, print_tallies

    for tally in run.tallies:
        tally.failures.sort(key=lambda failure: failure.options.seed)
    run.lost.sort(key=lambda lost: lost.seeds[0])
    unmet = {tally.protocol: tally.unmet() for tally in run.tallies}
    failures = [
        (failure, profile)
        for tally, profile in zip(run.tallies, run.profiles)
        for failure in tally.failures
    ]
    if json:
        print_json(document_of(run, unmet, soak))
    else:
        screen = console()
        try:
            for failure, profile in failures[: not run.interrupted]:
                print_failure(screen, failure, profile, shrink, out)
        except KeyboardInterrupt:
            run.interrupted = True
        print_lost(screen, run.lost)
        print_tallies(screen, run.tallies, run.profiles)
        if soak:
            for name, missing in unmet.items():
                if missing:
                    line = f"{name}: never met: {', '.join(missing)}"
                    screen.print(line, markup=False, soft_wrap=True)
    return bool(failures or run.lost) or (soak and any(unmet.values()))


def _bench(json: bool) -> None:
    from bench.throughput.simulator import measure
    from epaxos.sim.soak import collect_rarely

    collect_rarely()
    figures = measure().rows()
    if json:
        print_json(
            [{"name": name, "figure": value, "target": goal} for name, value, goal in figures]
        )
        return
    table = make_table("simulator", ">figure", ">target")
    for row in figures:
        table.add_row(*row)
    console().print(table)


def _contended(name: str, gate: bool, seconds: float, seed: int, json: bool) -> None:
    from dataclasses import asdict

    from epaxos.sim.contention import contend

    sites = places.find(name)
    found = contend(sites, gate, 100, seconds, seed)
    if json:
        print_json(asdict(found))
        return
    rtt = found.rtt_max_us
    screen = console()
    screen.print(
        f"{sites.n} regions of {sites.name}, 100 commands/s each on one key for {seconds:g} s, "
        f"{'with' if gate else 'without'} the rule for contended keys"
    )
    screen.print(f"  answered      {found.answered:,} of {found.sent:,}")
    for label, value in (("p50", found.p50_us), ("p99", found.p99_us)):
        screen.print(f"  {label}           {value / 1000:,.1f} ms  ({value / rtt:.1f} RTT_max)")
    screen.print(f"  oldest open   {found.oldest_us / 1000:,.1f} ms  at the end of the load")
