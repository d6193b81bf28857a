"""`epaxos explore`: every order of events in a small world, checked on the code that runs."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from epaxos.cli.exits import ExitCode
from epaxos.cli.options import Json
from epaxos.cli.output import begin, count, make_table, print_json
from epaxos.core.errors import ConfigError
from epaxos.core.types import replica_name
from epaxos.registry import BUILT_IN, find_protocol
from epaxos.sim.explore.replica import ClientBatch, SmallWorld
from epaxos.sim.explore.search import Report, SearchCounts, explore

app = typer.Typer()

_SHOW_EVERY_S: Final = 0.5
_UNLIMITED: Final = 1 << 62


@app.command("explore")
def run(
    protocol: Annotated[str, typer.Option(help="epaxos or multipaxos.")] = "epaxos",
    replicas: Annotated[int, typer.Option(min=1, max=9, help="How many.")] = 3,
    batches: Annotated[
        int, typer.Option(min=1, max=9, help="All on one key, at A, B, C, ... in turn.")
    ] = 2,
    at: Annotated[
        str, typer.Option(metavar="LETTERS", help="Where the batches are proposed instead: AAB.")
    ] = "",
    crashes: Annotated[
        int, typer.Option(min=0, max=15, help="Replicas crash and start again so many times.")
    ] = 1,
    recoveries: Annotated[
        int, typer.Option(min=0, max=15, help="Instances taken over; Multi-Paxos: campaigns.")
    ] = 1,
    repeats: Annotated[
        int, typer.Option(min=0, max=15, help="How many times a replica asks again (epaxos).")
    ] = 0,
    fallen: Annotated[
        str,
        typer.Option(
            metavar="LETTERS", help="Command leaders that crash for good right after proposing."
        ),
    ] = "",
    duplicates: Annotated[
        bool, typer.Option(help="Whether a message may arrive more than once.")
    ] = True,
    deep: Annotated[
        bool, typer.Option("--deep", help="Look far from the start first: for large worlds.")
    ] = False,
    budget: Annotated[
        int | None,
        typer.Option(min=1, max=10**9, metavar="STATES", help="Stop after so many states."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.01, max=100_000, help="Stop after so long. [10, without --budget]"),
    ] = None,
    json: Json = False,
) -> None:
    """Look at every order of events in a small world, on the very code that runs.

    Messages are lost, overtake each other and, unless --no-duplicates, come again; replicas crash
    for good at any time, and start again from their disks as often as --crashes says. Ends at the
    first state in which a property is violated, with the steps that lead there (exit code 1)."""
    world = _world(protocol, replicas, at or _in_turn(batches, replicas), fallen)
    world = replace(
        world, crashes=crashes, recoveries=recoveries, repeats=repeats, duplicates=duplicates
    )
    if minutes is None and budget is None:
        minutes = 10.0
    remarks, screen = begin(_title(world, budget, minutes), json=json)
    begun = time.monotonic()
    with _progress(remarks, begun, minutes) as watch:
        report = explore(world, budget or _UNLIMITED, watch, deep)
    seconds = time.monotonic() - begun
    if json:
        print_json(_document(world, report, seconds))
    else:
        _print(screen, report, seconds)
    if report.violation is not None:
        raise typer.Exit(ExitCode.FAILED)


def _in_turn(batches: int, replicas: int) -> str:
    return "".join(replica_name(batch % replicas) for batch in range(batches))


def _world(protocol: str, replicas: int, at: str, fallen: str) -> SmallWorld:
    spec = find_protocol(protocol)
    if spec.name not in BUILT_IN:
        raise ConfigError(
            f"small worlds are made of {' or '.join(BUILT_IN)}; {protocol} runs in `epaxos sim run`"
        )
    places = [_member("--at", letter, replicas) for letter in at]
    if len(places) > 9:
        raise ConfigError(f"--at {at}: that is no small world; name at most 9 batches")
    return SmallWorld(
        spec,
        replicas,
        tuple(ClientBatch(place) for place in places),
        fallen=tuple(_member("--fallen", letter, replicas) for letter in fallen),
    )


def _member(option: str, letter: str, replicas: int) -> int:
    member = ord(letter) - ord("A")
    if not 0 <= member < replicas:
        raise ConfigError(
            f"{option}: there is no replica {letter}; they are A to {replica_name(replicas - 1)}"
        )
    return member


def _title(world: SmallWorld, budget: int | None, minutes: float | None) -> str:
    leading = ", ".join(replica_name(batch.replica) for batch in world.batches)
    words = [
        f"{world.spec.title}: {world.replicas} replicas",
        f"conflicting batches at {leading}",
        f"{world.crashes} crashes with restart",
        f"{world.recoveries} {'campaigns' if world.spec.has_leader else 'recoveries'}",
    ]
    if world.repeats:
        words.append(f"{world.repeats} repeated questions")
    if world.fallen:
        words.append(f"{', '.join(map(replica_name, world.fallen))} fall after proposing")
    words.append("loss and duplicates" if world.duplicates else "loss")
    limits = [] if budget is None else [f"{budget:,} states"]
    limits += [] if minutes is None else [f"{minutes:g} minutes"]
    return f"{'; '.join(words)}; at most {' or '.join(limits)}"


@contextmanager
def _progress(
    remarks: Console, begun: float, minutes: float | None
) -> Iterator[Callable[[SearchCounts], bool]]:
    """A line that is redrawn where somebody watches; and the end of patience."""
    until = None if minutes is None else begun + minutes * 60
    with remarks.status("") as status:
        shown = begun

        def watch(counts: SearchCounts) -> bool:
            nonlocal shown
            now = time.monotonic()
            if now - shown >= _SHOW_EVERY_S:
                shown = now
                rate = counts.states / (now - begun)
                status.update(
                    f"{counts.states:,} states, {counts.waiting:,} waiting, depth {counts.depth}, "
                    f"{rate:,.0f} states/s"
                )
            return until is not None and now >= until

        yield watch


def _print(screen: Console, report: Report, seconds: float) -> None:
    counts = report.counts
    table = make_table("", ">", "")
    table.show_header = False
    table.add_row("states", count(counts.states), f"{counts.states / seconds:,.0f} per second")
    table.add_row("transitions", count(counts.transitions))
    table.add_row("depth", count(counts.depth), "steps")
    locals_ = ", ".join(
        f"{replica_name(member)} {number:,}" for member, number in enumerate(counts.locals)
    )
    table.add_row("local states", count(sum(counts.locals)), locals_)
    table.add_row("steps of real code", count(counts.runs))
    table.add_row("messages", count(counts.messages), "different ones")
    table.add_row("outcomes", count(counts.outcomes), "combinations of what replicas released")
    table.add_row("time", f"{seconds:,.1f}", "s")
    screen.print(table)
    if report.violation is not None:
        screen.print(f"violated: {report.violation.property}")
        screen.print(f"  {report.violation.detail}")
        for number, step in enumerate(report.path, 1):
            screen.print(f"  {number:3}  {step}", soft_wrap=not screen.is_terminal)
    elif report.exhausted:
        screen.print("exhausted: every property holds in every reachable state")
    else:
        screen.print(
            f"not exhausted: every property holds as far as was looked; {counts.waiting:,} states "
            "wait"
        )


def _document(world: SmallWorld, report: Report, seconds: float) -> dict[str, Any]:
    broken = report.violation
    return {
        "protocol": world.spec.name,
        "replicas": world.replicas,
        "batches": [replica_name(batch.replica) for batch in world.batches],
        "crashes": world.crashes,
        "recoveries": world.recoveries,
        "repeats": world.repeats,
        "fallen": [replica_name(member) for member in world.fallen],
        "duplicates": world.duplicates,
        **report.counts._asdict(),
        "seconds": round(seconds, 3),
        "states_per_second": round(report.counts.states / seconds),
        "exhausted": report.exhausted,
        "violation": None if broken is None else broken.property,
        "detail": None if broken is None else broken.detail,
        "path": report.path,
    }
