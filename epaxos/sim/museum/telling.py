"""How a catch is told: cut down, as a chart, and in one sentence at the end.

Rules of this file: owns no clock; `more` says whether to go on.
"""

from collections.abc import Callable
from typing import NamedTuple

from epaxos.core.command import Payload
from epaxos.core.types import Deps, InstanceId, replica_name
from epaxos.registry import find_protocol
from epaxos.sim.chart import say_commands, say_deps
from epaxos.sim.checkers import AGREEMENT, Violation
from epaxos.sim.museum.exhibit import Caught, Directed, Exhibit, Planted
from epaxos.sim.player import Player
from epaxos.sim.run import Failure, tell
from epaxos.sim.schedule import Schedule
from epaxos.sim.shrink import NotViolated, shrink, size_of
from epaxos.sim.shrink_options import shrink_options

EVENTS_MAX = 2_000
"""What is longer is told as it was played."""
LINES_MAX = 120
"""Of a longer chart the middle is left out."""


class Told(NamedTuple):
    """A catch for people."""

    chart: str
    """Empty where a run under load was judged by its clock."""
    conclusion: str
    """What the observer saw, in a sentence."""
    played: int | None = None
    """How many events the schedule that found it has."""
    left: int | None = None
    """How many remain; None: it is not cut down."""


def narrate(exhibit: Exhibit, caught: Caught, more: Callable[[], bool]) -> Told:
    """Cut what was caught down to its shortest story, and tell it."""
    with exhibit.plant(find_protocol(exhibit.protocol)) as planted:
        if caught.schedule is None:
            return Told("", caught.detail)
        played = size_of(caught.schedule)
        if played <= EVENTS_MAX:
            try:
                shortest = shrink(
                    caught.schedule, planted.spec, planted.node, caught.sentence, more
                )
            except NotViolated:
                pass  # what never happens has no finite story; it is told as it was found
            else:
                return _shortest(shortest, planted, caught, played)
        if isinstance(exhibit.search, Directed) or caught.options is None:
            return Told(_abridged(caught.chart), caught.detail, played)
        smaller = shrink_options(caught.options, planted.spec, planted.node, caught.sentence, more)
        again = tell(smaller, planted.spec, planted.node)
        if isinstance(again, Failure):
            played = size_of(again.schedule)
            return Told(_abridged(again.story), again.detail, played)
        return Told(_abridged(caught.chart), caught.detail, played)


def _shortest(schedule: Schedule, planted: Planted, caught: Caught, played: int) -> Told:
    player = Player(schedule, planted.spec, planted.node, only=caught.sentence)
    try:
        player.play(schedule.events)
    except Violation as violation:
        chart = _abridged(player.chart(violation))
        return Told(chart, _conclude(player, violation), played, size_of(schedule))
    raise AssertionError("what was cut down still violates its sentence")


def _abridged(chart: str) -> str:
    lines = chart.splitlines()
    if len(lines) <= LINES_MAX:
        return chart
    half = LINES_MAX // 2
    gap = f"... {len(lines) - 2 * half:,} more lines ..."
    return "\n".join([*lines[:half], gap, *lines[-half:]])


def _conclude(player: Player, violation: Violation) -> str:
    """`A.1 was committed as (put x 1) at A and as Nop at B.`, where values differ."""
    if violation.sentence != AGREEMENT:
        return violation.detail
    first: dict[InstanceId, tuple[Payload | None, Deps, str]] = {}
    for actor in player.actors:
        for key, (payload, deps) in actor.decided.items():
            name = InstanceId(*key)
            before = first.setdefault(name, (payload, deps, replica_name(actor.me)))
            if before[:2] != (payload, deps):
                one, other = (before[0], before[1]), (payload, deps)
                return (
                    f"{name if deps else f'Slot {name.slot}'} was committed as "
                    f"{_say(one, other)} at {before[2]} and as {_say(other, one)} at "
                    f"{replica_name(actor.me)}."
                )
    return violation.detail


def _say(value: tuple[Payload | None, Deps], other: tuple[Payload | None, Deps]) -> str:
    """A decided value; its deps only where these are what differs."""
    payload, deps = value
    if payload is None:
        return "Nop"
    batch = payload.batch
    said = f"({say_commands(batch.operations, batch.keys, batch.arguments)})"
    return f"{said} with deps {say_deps(deps)}" if payload == other[0] else said
