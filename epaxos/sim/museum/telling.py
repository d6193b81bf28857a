"""How a catch is told: cut down, as a chart, and in one sentence at the end.

Rules of this file: owns no clock; `more` says whether to go on.
"""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from epaxos.core.replica import Decided
from epaxos.core.types import InstanceId, replica_name
from epaxos.registry import find_protocol
from epaxos.sim.check import checkers
from epaxos.sim.check.checkers import AGREEMENT, ONCE, VISIBILITY, Violation
from epaxos.sim.museum.exhibit import Caught, Directed, Exhibit
from epaxos.sim.planted import Planted
from epaxos.sim.run import Failure, tell
from epaxos.sim.schedule.chart import draw
from epaxos.sim.schedule.player import Player
from epaxos.sim.schedule.schedule import Schedule
from epaxos.sim.schedule.shrink import NotViolated, shrink, size_of
from epaxos.sim.schedule.words import say_commands, say_deps
from epaxos.sim.shrink_options import shrink_options

EVENTS_MAX = 2_000
"""What is longer is told as it was played."""
LINES_MAX = 120
"""Of a longer chart the middle is left out."""
RUN_LINES = 30
"""So much is shown of a run that has no shortest story."""
WIDTH = 110


class Narrative(NamedTuple):
    """A catch for people."""

    chart: str
    """Empty where a run under load was judged by its clock."""
    conclusion: str
    """What the observer saw, in a sentence."""
    played: int | None = None
    """How many events the schedule has that found it, or the smallest run found that ends so."""
    left: int | None = None
    """How many remain; None: it is not cut down."""


def narrate(exhibit: Exhibit, caught: Caught, more: Callable[[], bool]) -> Narrative:
    """Cut what was caught down to its shortest story, and tell it."""
    with exhibit.plant(find_protocol(exhibit.protocol)) as planted:
        if caught.schedule is None:
            return Narrative("", caught.detail)
        played = size_of(caught.schedule)
        if played <= EVENTS_MAX:
            try:
                shortest = shrink(
                    caught.schedule, planted.spec, planted.node, caught.property, more
                )
            except NotViolated:
                pass  # what never happens has no finite story; it is told as it was found
            else:
                return _shortest(shortest, planted, caught, played)
        if isinstance(exhibit.search, Directed) or caught.options is None:
            return Narrative(_abridged(caught.chart), caught.detail, played)
        smaller = shrink_options(caught.options, planted.spec, planted.node, caught.property, more)
        again = tell(smaller, planted.spec, planted.node)
        if isinstance(again, Failure):
            return Narrative(_end_of(again.story), again.detail, size_of(again.schedule))
        return Narrative(_end_of(caught.chart), caught.detail, played)


def observer_of(violated: str) -> str:
    """A sentence in a word or two: `agreement`, `in order`."""
    for name, value in vars(checkers).items():
        if value == violated:
            return name.lower().replace("_", " ")
    return violated


def _shortest(schedule: Schedule, planted: Planted, caught: Caught, played: int) -> Narrative:
    player = Player(schedule, planted.spec, planted.node, only=caught.property)
    try:
        player.play(schedule.events)
    except Violation as violation:
        chart = _abridged(draw(player, violation))
        return Narrative(chart, _conclude(player, violation), played, size_of(schedule))
    raise AssertionError("what was cut down still violates its sentence")


def _abridged(chart: str) -> str:
    lines = chart.splitlines()
    if len(lines) <= LINES_MAX:
        return chart
    half = LINES_MAX // 2
    gap = f"... {len(lines) - 2 * half:,} more lines ..."
    return "\n".join([*lines[:half], gap, *lines[-half:]])


def _end_of(story: str) -> str:
    """The last lines of a run's story, each cut to a screen's width."""
    return "\n".join(
        line if len(line) <= WIDTH else f"{line[: WIDTH - 2]} …"
        for line in story.splitlines()[-RUN_LINES:]
    )


def _conclude(player: Player, violation: Violation) -> str:
    """`A.1 was committed as (put x 1) at A and as Nop at B.`, where it can be said so."""
    detail = violation.detail
    if violation.property == VISIBILITY:
        return _BLIND.sub(
            r"\1 and \2 meet on key \3, and neither has the other in its deps.", detail
        )
    if violation.property == ONCE:
        return _TWICE.sub(r"The write of \1 ran in \2 and in \3.", detail)
    if violation.property == AGREEMENT:
        return _disagreement(player) or detail
    return detail


def _disagreement(player: Player) -> str | None:
    """The first instance that was decided twice, in different ways."""
    first: dict[InstanceId, tuple[Decided, str]] = {}
    for happening in player.happenings:
        if happening.kind != "decides":
            continue
        decided: Decided = happening.thing
        where = replica_name(happening.member)
        name = InstanceId(decided.replica, decided.slot)
        before, there = first.setdefault(name, (decided, where))
        if (before.payload, before.deps) != (decided.payload, decided.deps):
            return (
                f"{name if decided.deps else f'Slot {name.slot}'} was committed as "
                f"{_say(before, decided)} at {there} and as {_say(decided, before)} at {where}."
            )
    return None


_BLIND: Final = re.compile(r"(\S+) deps \(.*?\) and (\S+) deps \(.*?\) on key b'(.*)'")
_TWICE: Final = re.compile(r"b'(.*)' in (\S+) and in (\S+)")


def _say(decided: Decided, other: Decided) -> str:
    """A decided value; its deps only where these are what differs."""
    payload = decided.payload
    if payload is None:
        return "Nop"
    batch = payload.batch
    said = f"({say_commands(batch.operations, batch.keys, batch.arguments)})"
    return f"{said} with deps {say_deps(decided.deps)}" if payload == other.payload else said
