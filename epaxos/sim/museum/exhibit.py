"""What an exhibit is: one bug, planted from outside, and a search that must find it.

A plant swaps a class, or one function, while the search runs; the code that is searched is the
code that runs in production. `examine` plants the bug and searches; `acquit` gives the same trials
to the code as it is, which must pass them.

Rules of this package: no switch inside the code that is broken; a plant changes one thing; what
counts as caught is a violation that an outside observer sees, never a crash that happens to follow.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from epaxos.core.replica import Replica, Setup
from epaxos.core.types import Micros
from epaxos.execution.interface import Executor
from epaxos.node.node import Node
from epaxos.registry import ProtocolSpec, find_protocol
from epaxos.sim.check.checkers import CONVERGES, EXECUTES, Violation
from epaxos.sim.options import RunOptions, draw
from epaxos.sim.planted import Planted
from epaxos.sim.run import Failure, tell
from epaxos.sim.schedule.schedule import Schedule
from epaxos.sim.schedule.stage import Stage, as_id, directed

ACTIVE_US: Micros = 800_000
"""Random runs last so long before they heal: a few bugs need company, none needs time."""


Plant = Callable[[ProtocolSpec], AbstractContextManager[Planted]]
"""Plants the bug for as long as the context lasts."""


class Caught(NamedTuple):
    """A property that did not hold, and how that came about."""

    property: str
    detail: str
    chart: str
    """What happened, one line per event."""
    schedule: Schedule | None = None
    """The same as steps that can be played again and cut down."""
    options: RunOptions | None = None
    """Of a random run: it can be run again, and made smaller."""


@dataclass(frozen=True)
class Swarm:
    """Random runs, one per seed, in a profile that suits the bug."""

    replicas: tuple[int, ...] = (3,)
    commands: int = 20
    kinds: frozenset[str] = frozenset()
    """Which kinds of fault a seed may draw."""
    faults: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Faults` that do not follow from the seed."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `RunOptions` that do not follow from the seed."""

    def draw(self, protocol: str, seed: int) -> RunOptions:
        """The run that belongs to a seed."""
        drawn = draw(seed, protocol, self.replicas, self.commands, only=self.kinds)
        changes = {"memory": False, "active_us": ACTIVE_US, **self.options}
        return replace(drawn, faults=replace(drawn.faults, **self.faults), **changes)

    def trial(self, planted: Planted, seed: int, only: str | None = None) -> Caught | None:
        outcome = tell(self.draw(planted.spec.name, seed), planted.spec, planted.node)
        if isinstance(outcome, Failure):
            return Caught(
                outcome.property, outcome.detail, outcome.story, outcome.schedule, outcome.options
            )
        return None


@dataclass(frozen=True)
class Directed:
    """One schedule, played by hand: random runs find it too seldom."""

    replicas: int
    play: Callable[[Stage], None]
    """Plays the story. What it demands beyond the checkers it raises as a Violation."""
    gate: bool = False
    """Whether contended keys are held back (R12)."""
    deep: bool = True
    """Whether the protocol's own invariants are looked at too, where the code is as it is."""
    tunables: tuple[tuple[str, float], ...] = ()
    """Constants of the protocol that differ, to keep the story short."""

    def trial(self, planted: Planted, seed: int, only: str | None = None) -> Caught | None:
        stage = directed(
            self.replicas,
            planted.spec.name,
            spec=planted.spec,
            node=planted.node,
            only=only,
            deep=self.deep and only is None,
            gate=self.gate,
            tunables=self.tunables,
        )
        try:
            self.play(stage)
            stage.check()
        except Violation as violation:
            chart = stage.chart(violation)
            return Caught(violation.property, violation.detail, chart, stage.schedule())
        return None


@dataclass(frozen=True)
class Load:
    """A run under a steady load, without faults."""

    run: Callable[[Planted, int], None]
    """Runs the seed; raises a Violation."""

    def trial(self, planted: Planted, seed: int, only: str | None = None) -> Caught | None:
        try:
            self.run(planted, seed)
        except Violation as violation:
            return Caught(violation.property, violation.detail, "")
        return None


Search = Swarm | Directed | Load


@dataclass(frozen=True)
class Exhibit:
    """One bug of the museum."""

    name: str
    """What a person types."""
    title: str
    """What is wrong, in a line."""
    source: str
    """Where it was seen, or who warns of it."""
    story: str
    """How it comes about and what it costs, in a few plain sentences."""
    plant: Plant
    properties: tuple[str, ...]
    """Which properties of the checkers it may violate; of a directed schedule only the first is
    looked at."""
    search: Search
    budget: int = 1
    """It is caught within so many schedules."""
    protocol: str = "epaxos"


class ExhibitVerdict(NamedTuple):
    """What a search found."""

    schedules: int
    """How many were tried, the one that found it included."""
    caught: Caught | None


def examine(exhibit: Exhibit, first: int = 1) -> ExhibitVerdict:
    """Plant the bug and search, within its budget."""
    with exhibit.plant(find_protocol(exhibit.protocol)) as planted:
        return _search(exhibit.search, planted, first, exhibit.budget, exhibit.properties[0])


def acquit(exhibit: Exhibit, schedules: int, first: int = 1) -> ExhibitVerdict:
    """Give the same schedules to the code as it is, under all observers; it must pass."""
    return _search(exhibit.search, Planted(find_protocol(exhibit.protocol)), first, schedules, None)


def _search(
    search: Search, planted: Planted, first: int, schedules: int, only: str | None
) -> ExhibitVerdict:
    for number in range(schedules):
        caught = search.trial(planted, first + number, only)
        if caught is not None:
            return ExhibitVerdict(number + 1, caught)
    return ExhibitVerdict(schedules, None)


# Plants ------------------------------------------------------------------------------------------


def in_replica(broken: Callable[[Setup], Replica]) -> Plant:
    """Another replica."""

    @contextmanager
    def plant(spec: ProtocolSpec) -> Iterator[Planted]:
        yield Planted(replace(spec, replica=broken))

    return plant


def in_executor(broken: Callable[[int], Executor]) -> Plant:
    """Another executor."""

    @contextmanager
    def plant(spec: ProtocolSpec) -> Iterator[Planted]:
        yield Planted(replace(spec, executor=broken))

    return plant


def in_node(broken: type[Node]) -> Plant:
    """Another node."""

    @contextmanager
    def plant(spec: ProtocolSpec) -> Iterator[Planted]:
        yield Planted(spec, broken)

    return plant


def in_place_of(owner: Any, name: str, broken: Callable[..., Any]) -> Plant:
    """One function of a module or class. `broken` is called with the true one before its
    arguments."""

    @contextmanager
    def plant(spec: ProtocolSpec) -> Iterator[Planted]:
        true = getattr(owner, name)

        def stand_in(*arguments: Any) -> Any:
            return broken(true, *arguments)

        setattr(owner, name, stand_in)
        try:
            yield Planted(spec)
        finally:
            setattr(owner, name, true)

    return plant


# What a play must lead to ------------------------------------------------------------------------


def must_be_decided(stage: Stage, who: str, *instances: str) -> None:
    """All that was sent has arrived: these are decided."""
    for instance in instances:
        if stage.value(who, instance) is None:
            raise Violation(
                EXECUTES, f"{instance} is not decided at {who} when all that was sent has arrived"
            )


def must_be_executed(stage: Stage, who: str, instance: str) -> None:
    """All that was sent has arrived: `who` has executed it in this life."""
    if as_id(instance) not in stage.executed(who):
        raise Violation(
            EXECUTES, f"{instance} is not executed at {who} when all that was sent has arrived"
        )


def must_be_equal(stage: Stage, one: str, other: str) -> None:
    """All that was sent has arrived: the two have the same keys, values and versions."""
    digests = [stage.node(name).store.digest() for name in (one, other)]
    if digests[0] != digests[1]:
        raise Violation(CONVERGES, f"digests {digests[0]} at {one}, {digests[1]} at {other}")


def must_be_answered(stage: Stage, who: str, requests: int) -> None:
    """All that was sent has arrived: so many requests at `who` are answered."""
    answered = len(stage.answers(who))
    if answered < requests:
        raise Violation(
            EXECUTES,
            f"{requests - answered} of {requests} requests at {who} are not answered when all that "
            "was sent has arrived",
        )
