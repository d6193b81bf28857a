"""`epaxos sim`: whole clusters in virtual time.

`run` runs them by seed, everything can go wrong, and a failure is cut down to its shortest story,
shown as a chart, and written out as a test. `replay` feeds what a live cluster recorded to the same
nodes again; `contention` shows what the rule for contended keys is for; `speed` measures the
simulator.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperGroup

import topology as places
from epaxos.cli.exits import ExitCode
from epaxos.cli.options import JOBS_MAX, SEED_MAX, Json, StateMachineName, UnsafeNoGate, seed_option
from epaxos.cli.output import console, make_table, print_json
from epaxos.core.errors import ConfigError
from epaxos.core.numbers import plain
from epaxos.registry import BUILT_IN, find_protocol, protocol_names
from epaxos.sim.options import KINDS, WORKLOADS
from epaxos.sim.soak import Profile

if TYPE_CHECKING:
    from epaxos.cli.sim_workers import Soak


class _SimGroup(TyperGroup):
    """Names the command that was left out before an option."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        if args[0].startswith("-"):
            raise ConfigError(
                f"{args[0]} needs a command before it: epaxos sim run {args[0]} ... (see epaxos "
                "sim --help)"
            )
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_SimGroup,
    help="Clusters in virtual time, the very nodes of the runtime in one thread: the same seed is "
    "the same run.",
    context_settings={"ignore_unknown_options": True},  # resolve_command says what is wrong
)

EVERYTHING = "all"
SEEDS: Final = 200
CONTENDED_PER_S: Final = 100
"""Commands that each region of `contention` sends per second."""


@app.command()
def run(
    seed: Annotated[int | None, seed_option("Run this one seed only.")] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, max=SEED_MAX, help=f"How many seeds to run.  [default: {SEEDS}]"),
    ] = None,
    first_seed: Annotated[int | None, seed_option("The first of them.  [default: 1]")] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.01, max=100_000, help="Run seeds for so long instead of so many."),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(protocol_names())}, your own as package.module:NAME, or "
            f"{EVERYTHING} of this package."
        ),
    ] = EVERYTHING,
    replicas: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Sizes of clusters to draw from.  [default: 3,4,5,7]"),
    ] = None,
    commands: Annotated[int, typer.Option(min=1, max=100_000, help="Commands per seed.")] = 40,
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
    jobs: Annotated[
        int | None, typer.Option(min=1, max=JOBS_MAX, help="Processes.  [default: one per core]")
    ] = None,
    shrink: Annotated[bool, typer.Option(help="Cut a failure down to its shortest story.")] = True,
    unsafe_no_gate: UnsafeNoGate = False,
    plant: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Put the class in this file in the place of ours."),
    ] = None,
    state_machine: StateMachineName = "",
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the tests of failures are written.")
    ] = Path("results"),
    json: Json = False,
) -> None:
    """Run seeds; anything may fail.

    Crashes, lost and copied messages, partitions, slow, full and torn disks, wrong clocks, pauses.
    Seeds are shared out over all cores. Prints its options first. Ends with 1 if a property of
    the protocols was violated."""
    from epaxos.cli.sim_workers import Soak

    _only_one("--topology", topology, "--replicas", replicas)
    wanted = _seeds(seed, seeds, first_seed, minutes)
    profiles = [
        Profile(
            name,
            Profile.replicas if replicas is None else _sizes(replicas),
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
    found = Soak(profiles, wanted, minutes, jobs)
    remarks = console(stderr=True)
    remarks.print(found.title(), soft_wrap=True)
    found.run(remarks)
    failed = _report(found, soak, shrink, out, json)
    if found.interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)
    if failed:
        raise typer.Exit(ExitCode.FAILED)


@app.command()
def replay(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="What `epaxos up --record` kept.")
    ],
    instance: Annotated[
        str | None, typer.Option(metavar="ID", help="Chart this instance, like A.7.")
    ] = None,
    json: Json = False,
) -> None:
    """Feed recorded inputs to the same nodes again.

    Names the first step of each replica in which a record, message, answer, decision or deadline
    is another one than recorded; then it ends with 1."""
    from epaxos.cli.sim_replay import replay as replay_directory

    raise typer.Exit(replay_directory(directory, instance, json))


@app.command()
def contention(
    topology: Annotated[str, typer.Option(help="Regions and delays.")] = places.DEFAULT,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="How long they send.")] = 30.0,
    seed: Annotated[int, seed_option("Draws when they send.")] = 1,
    unsafe_no_gate: UnsafeNoGate = False,
    json: Json = False,
) -> None:
    """All regions write one key, without faults.

    Shows what the rule for contended keys is for: each region sends 100 commands/s, and with the
    rule an answer takes a few round trips; with --unsafe-no-gate the oldest command is as old as
    the load."""
    from dataclasses import asdict

    from epaxos.sim.contention import contend

    sites = places.find(topology)
    screen = console()
    if not json:
        screen.print(
            f"{sites.n} regions of {sites.name}, {CONTENDED_PER_S} commands/s each on one key for "
            f"{seconds:g} s, {'without' if unsafe_no_gate else 'with'} the rule for contended keys"
        )
    found = contend(sites, not unsafe_no_gate, CONTENDED_PER_S, seconds, seed)
    if json:
        print_json(asdict(found))
        return
    screen.print(f"  answered      {found.answered:,} of {found.sent:,}")
    for label, value in (("p50", found.p50_us), ("p99", found.p99_us)):
        if value is not None:
            in_round_trips = f"({value / found.rtt_max_us:.1f} RTT_max)"
            screen.print(f"  {label}           {value / 1000:,.1f} ms  {in_round_trips}")
    screen.print(f"  oldest open   {found.oldest_us / 1000:,.1f} ms  at the end of the load")


@app.command()
def speed(json: Json = False) -> None:
    """Measure the simulator itself.

    Schedules a minute, virtual seconds a second, seconds to judge a long history."""
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


def _seeds(
    seed: int | None, seeds: int | None, first_seed: int | None, minutes: float | None
) -> range:
    """The seeds to run, or where to begin for --minutes. Raises ConfigError."""
    _only_one("--seed", seed, "--seeds", seeds)
    _only_one("--seed", seed, "--first-seed", first_seed)
    _only_one("--seed", seed, "--minutes", minutes)
    _only_one("--seeds", seeds, "--minutes", minutes)
    if seed is not None:
        return range(seed, seed + 1)
    first = 1 if first_seed is None else first_seed
    return range(first, first + (seeds or SEEDS))


def _only_one(name: str, value: object, other: str, other_value: object) -> None:
    """Of two options only one can be followed. Raises ConfigError."""
    if value is not None and other_value is not None:
        raise ConfigError(f"{name} and {other} say different things: leave one out")


def _protocols(name: str) -> list[str]:
    if name == EVERYTHING:
        return list(BUILT_IN)
    find_protocol(name)
    return [name]


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(plain(each)) for each in text.split(","))
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
                    screen.print(line, soft_wrap=True)
    return bool(failures or run.lost) or (soak and any(unmet.values()))
