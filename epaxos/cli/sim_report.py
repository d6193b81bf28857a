"""What a soak found: the table of seeds and situations, and a failure's shortest story.

Rules of this file: a failure is told once in full; the others by seed and sentence.
"""

import shlex
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from epaxos.cli.output import count, make_table
from epaxos.cli.sim_workers import Lost, Soak
from epaxos.sim.check.checkers import CONVERGES, EXECUTES
from epaxos.sim.planted import Planted
from epaxos.sim.run import Failure
from epaxos.sim.situations import SITUATIONS
from epaxos.sim.soak import Profile, SoakTally

SHRINK_S: Final = 110.0
"""How long a failure is cut down at most."""


def again(failure: Failure, profile: Profile) -> str:
    """The command line that repeats a failing seed."""
    return _command_line(profile, f"--seed {failure.options.seed}")


def _again_lost(lost: Lost) -> str:
    """The command line that repeats seeds in one process."""
    return _command_line(lost.profile, f"--first-seed {lost.seeds[0]} --seeds {len(lost.seeds)}")


def _command_line(profile: Profile, seeds: str) -> str:
    words = [f"epaxos sim run --protocol {profile.protocol} {seeds}"]
    default = Profile(profile.protocol)
    if profile.replicas != default.replicas:
        words.append(f"--replicas {','.join(map(str, profile.replicas))}")
    if profile.commands != default.commands:
        words.append(f"--commands {profile.commands}")
    if profile.topology is not None:
        words.append(f"--topology {profile.topology}")
    if profile.workload != default.workload:
        words.append(f"--workload {shlex.quote(profile.workload)}")
    if profile.faults is not None:
        words.append(f"--faults {','.join(sorted(profile.faults)) or 'none'}")
    if not profile.gate:
        words.append("--unsafe-no-gate")
    if profile.plant is not None:
        words.append(f"--plant {profile.plant}")
    if profile.state_machine:
        words.append(f"--state-machine {profile.state_machine}")
    return " ".join(words)


def print_failure(
    screen: Console, failure: Failure, profile: Profile, shrink: bool, out: Path
) -> None:
    """Seed, sentence, and the shortest story that can be found in two minutes."""
    options = failure.options
    cast = profile.cast()
    screen.print(
        f"seed {options.seed}, {options.protocol}, n = {options.replicas}: violated:\n"
        f"  {failure.property}\n  {failure.detail}\n  again: {again(failure, profile)}",
        soft_wrap=True,
    )
    cannot_be_cut = failure.directed and failure.property in (EXECUTES, CONVERGES)
    if not shrink or cannot_be_cut:
        screen.print(failure.story, soft_wrap=True)
    elif failure.property in (EXECUTES, CONVERGES):
        _print_smaller_options(screen, failure, cast)
    else:
        _print_shortest(screen, failure, cast, out)


def _clock(seconds: float) -> Any:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() < end


def _print_smaller_options(screen: Console, failure: Failure, cast: Planted) -> None:
    """What never happens has no finite story: find the smallest run in which it does not."""
    from epaxos.sim.run import tell
    from epaxos.sim.shrink_options import shrink_options

    smaller = shrink_options(failure.options, *cast, failure.property, _clock(SHRINK_S))
    screen.print(f"smallest run found that ends so:\n  {smaller}", soft_wrap=True)
    story = tell(smaller, *cast)
    if isinstance(story, Failure):
        screen.print(story.story, soft_wrap=True)


def _print_shortest(screen: Console, failure: Failure, cast: Planted, out: Path) -> None:
    from epaxos.sim.schedule.chart import show_schedule
    from epaxos.sim.schedule.export import to_json, to_pytest
    from epaxos.sim.schedule.shrink import NotViolated, shrink, size_of

    try:
        shortest = shrink(failure.schedule, *cast, failure.property, _clock(SHRINK_S))
    except NotViolated:
        screen.print("its schedule alone does not repeat it; the end of the run:")
        screen.print(failure.story, soft_wrap=True)
        return
    screen.print(f"{size_of(shortest)} events remain:")
    chart = show_schedule(shortest, *cast, failure.property)
    screen.print(chart, soft_wrap=True)
    protocol = failure.options.protocol.replace(":", "_").replace(".", "_")
    name = f"{protocol}-{failure.options.seed}"
    out.mkdir(parents=True, exist_ok=True)
    test = out / f"test_{name.replace('-', '_')}.py"
    test.write_text(
        to_pytest(shortest, failure.property, failure.detail, chart=chart), encoding="utf-8"
    )
    schedule = out / f"{name}.schedule.json"
    schedule.write_bytes(to_json(shortest))
    screen.print(f"written: {test} (a test), {schedule}", soft_wrap=True)


def print_tallies(screen: Console, tallies: list[SoakTally], profiles: list[Profile]) -> None:
    """Seeds, then situations: one column per protocol."""
    for tally, profile in zip(tallies, profiles):
        for failure in tally.failures:
            screen.print(f"failed: {again(failure, profile)}: {failure.property}", soft_wrap=True)
    table = make_table("", *(f">{tally.protocol}" for tally in tallies))
    table.add_row("seeds clean", *(count(tally.clean) for tally in tallies))
    table.add_row("seeds failed", *(count(len(tally.failures)) for tally in tallies))
    table.add_row("of these directed", *(count(tally.directed) for tally in tallies))
    table.add_row("commands answered", *(count(tally.answered) for tally in tallies))
    for n in sorted({n for tally in tallies for n in tally.by_replicas}):
        table.add_row(f"seeds with n = {n}", *(count(tally.by_replicas[n]) for tally in tallies))
    screen.print(table)
    if not any(tally.clean for tally in tallies):
        return
    names = {tally.protocol for tally in tallies}
    table = make_table("situation", *(f">{tally.protocol}" for tally in tallies))
    for each in SITUATIONS:
        if each.protocol is None or each.protocol in names:
            cells = [
                count(tally.situations[each.name])
                if each.protocol in (None, tally.protocol)
                else "–"
                for tally in tallies
            ]
            table.add_row(each.name, *cells)
    screen.print(table)


def print_lost(screen: Console, lost: list[Lost]) -> None:
    """Which seeds are not counted, and how to see why."""
    for each in lost:
        screen.print(
            f"not counted: {each.profile.protocol}, seeds {each.seeds[0]} to {each.seeds[-1]}: "
            f"{each.error}\n  again: {_again_lost(each)}",
            soft_wrap=True,
        )


def document_of(run: Soak, unmet: dict[str, list[str]], soak: bool) -> dict[str, Any]:
    """The same for programs."""
    tallies, profiles = run.tallies, run.profiles
    return {
        "soak": soak,
        "interrupted": run.interrupted,
        "not_counted": [
            {
                "protocol": each.profile.protocol,
                "first_seed": each.seeds[0],
                "last_seed": each.seeds[-1],
                "error": each.error,
                "again": _again_lost(each),
            }
            for each in run.lost
        ],
        "protocols": [
            {
                "protocol": tally.protocol,
                "clean": tally.clean,
                "directed": tally.directed,
                "answered": tally.answered,
                "virtual_s": tally.virtual_us / 1e6,
                "by_replicas": dict(sorted(tally.by_replicas.items())),
                "counts": dict(sorted(tally.counts.items())),
                "situations": dict(tally.situations),
                "never_met": unmet[tally.protocol],
                "failures": [
                    {
                        "options": asdict(failure.options),
                        "property": failure.property,
                        "detail": failure.detail,
                        "again": again(failure, profile),
                        "story": failure.story,
                    }
                    for failure in tally.failures
                ],
            }
            for tally, profile in zip(tallies, profiles)
        ],
    }
