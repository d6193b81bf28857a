"""Cuts a failing schedule down while the same sentence fails.

Coarse cuts first (whole kinds of things), then halves, quarters, ... of all that is left, down to
single deliveries; between these, changes that make a schedule plainer without making it shorter:
fewer replicas, one key, a take-over in the place of the time-outs that led to it. What was played
is kept, not what was tried: what a cut made impossible falls out by itself, and numbers and ballots
that shift are found again.

Rules of this file: a candidate counts only if it violates the very sentence, whatever else it
violates; whatever counts is smaller by `measure`, so it ends. Owns no clock: `more` says whether to
go on.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import combinations, pairwise
from typing import NamedTuple, TypeAlias

from epaxos.core.types import InstanceId
from epaxos.node.node import Node
from epaxos.registry import ProtocolSpec, find_protocol
from epaxos.sim.check.checkers import Violation
from epaxos.sim.schedule.player import Player
from epaxos.sim.schedule.schedule import (
    HEARTBEATS,
    Arrival,
    Commands,
    Crash,
    Event,
    Schedule,
    Start,
    Step,
    TakeOver,
    label_of,
)
from epaxos.sim.schedule.simplify import (
    PATIENCE_US,
    ROUND_US,
    appearance,
    has_plain_starts,
    in_order_of_appearance,
    plain_parts,
    with_gap,
    with_one_clock,
    with_plain_head,
    with_plain_starts,
    with_plain_words,
    with_puts_only,
    without_members,
    without_slot,
    without_waits_for_disks,
)

Measure: TypeAlias = tuple[int, ...]


def always() -> bool:
    """No budget."""
    return True


class NotViolated(Exception):
    """The schedule does not violate the sentence when it is played."""


def size_of(schedule: Schedule) -> int:
    """Events that somebody has to follow: requests, deliveries, take-overs, wakes, crashes and
    restarts; a step without any of these counts one. First starts and first wakes do not."""
    total = 0
    lives: dict[int, int] = {}
    fresh: set[int] = set()
    for event in schedule.events:
        if isinstance(event, Start):
            lives[event.member] = lives.get(event.member, 0) + 1
            fresh.add(event.member)
            total += lives[event.member] > 1
        elif isinstance(event, Crash):
            total += 1
        else:
            is_first = event.member in fresh
            fresh.discard(event.member)
            parts = len(event.inputs) + (event.wake and not is_first) + (event.crash is not None)
            total += parts if is_first else max(1, parts)
    return total


def measure(schedule: Schedule) -> Measure:
    """What is smaller, the most important first."""
    steps = [event for event in schedule.events if isinstance(event, Step)]
    inputs = [each for step in steps for each in step.inputs]
    requests = [each for each in inputs if isinstance(each, Commands)]
    return (
        size_of(schedule),
        schedule.replicas,
        sum(step.wake for step in steps),
        sum(len(each.instances) for each in inputs if isinstance(each, TakeOver)),
        sum(len(step.inputs) - 1 for step in steps if step.inputs),
        sum(step.crash is not None for step in steps),
        sum(len(each.keys) for each in requests),
        len({key for each in requests for key in each.keys}),
        sum(sum(each.operations) for each in requests),
        sum(each.nth for each in inputs if isinstance(each, Arrival)),
        len(schedule.limits) + len(schedule.tunables) + len(schedule.calm_at) + schedule.gate,
        len({rtt for row in schedule.rtt_us for rtt in row}),
        sum(len(part) for each in requests for part in (*each.keys, *each.arguments)),
        sum(each.patience_us != PATIENCE_US for each in requests),
        sum(event.seed != event.member for event in schedule.events if isinstance(event, Start)),
        sum(step.released_at is not None for step in steps),
        _disorder(appearance(schedule)),
        not has_plain_starts(schedule),
        sum(event.at % ROUND_US != 0 for event in schedule.events),
        sum(a.at != b.at for a, b in pairwise(schedule.events)),
        max((event.at for event in schedule.events), default=0),
        sum(event.at for event in schedule.events),
        len(schedule.events),
    )


def _disorder(numbers: Sequence[int]) -> int:
    """How many pairs stand in the wrong order."""
    return sum(a > b for a, b in combinations(numbers, 2))


def shrink(
    schedule: Schedule,
    spec: ProtocolSpec | None,
    node: type[Node],
    violated: str,
    more: Callable[[], bool] = always,
) -> Schedule:
    """The smallest schedule found that violates `violated`. Raises NotViolated if this one does
    not."""
    return Shrinker(schedule, spec, node, violated, more).run()


class Shrinker:
    """One search. `best` is the smallest so far, `plays` how often something was played."""

    def __init__(
        self,
        schedule: Schedule,
        spec: ProtocolSpec | None,
        node: type[Node],
        violated: str,
        more: Callable[[], bool] = always,
    ) -> None:
        self._spec = spec or find_protocol(schedule.protocol)
        self._node = node
        self._violated = violated
        self._more = more
        self.plays = 0
        self.best = schedule
        self._player = Player(schedule)
        """The one that played `best`."""
        if not any(self._attempt(each, at_any_size=True) for each in _as_it_ended(schedule)):
            raise NotViolated(f"does not hold against it when played: {violated}")

    def run(self) -> Schedule:
        """Everything, until nothing helps any more."""
        self._cut_coarsely()
        self._cut_finely()
        before: Measure = ()
        while before != measure(self.best) and self._more():
            before = measure(self.best)
            self._make_plainer()
            self._cut_finely()
        return self.best

    def _attempt(
        self,
        schedule: Schedule,
        *,
        tight: bool = False,
        anyhow: bool = False,
        at_any_size: bool = False,
    ) -> bool:
        """Play it; if it violates the sentence and is smaller, it is the best from now on."""
        if not at_any_size and not self._more():
            return False
        self.plays += 1
        loose = 2 if anyhow else 1
        spec, node, only = self._spec, self._node, self._violated
        player = Player(schedule, spec, node, only=only, loose=loose, tight=tight)
        try:
            player.play(schedule.events)
        except Violation as violation:
            if violation.property != self._violated:
                return False
        else:
            return False
        found = player.schedule()
        if not at_any_size and measure(found) >= measure(self.best):
            return False
        self.best, self._player = found, player
        return True

    def _keep(self, events: Iterable[Event], anyhow: bool = False) -> bool:
        return self._attempt(self.best._replace(events=tuple(events)), anyhow=anyhow)

    # Cuts --------------------------------------------------------------------------------------

    def _cut_coarsely(self) -> None:
        """Whole kinds of things."""
        self._attempt(self.best, tight=True)
        self._drop_where(lambda atom: atom.is_wake)
        kinds = {atom.kind for atom in _atoms(self.best.events)}
        for kind in (*HEARTBEATS, *sorted(kinds - {"", *HEARTBEATS})):
            self._drop_where(partial(_is_kind, kind))
        for member in range(self.best.replicas):
            self._drop_where(partial(_is_at, member))
        for member in range(self.best.replicas):
            self._drop_where(partial(_is_crash_at, member))
        for name in sorted({each for atom in _atoms(self.best.events) for each in atom.about}):
            self._drop_where(partial(_is_about, name))

    def _drop_where(self, wanted: Callable[["_Atom"], bool]) -> bool:
        gone = {atom.place for atom in _atoms(self.best.events) if wanted(atom)}
        return bool(gone) and self._keep(_without(self.best.events, gone))

    def _cut_finely(self) -> None:
        """Ever smaller parts, the last ones first, until no single thing can be left out."""
        size = max(1, len(_atoms(self.best.events)) // 2)
        while self._more():
            cut = self._cut_parts(size)
            if size == 1 and not cut:
                return
            size = max(1, size // 2)

    def _cut_parts(self, size: int) -> bool:
        cut = False
        atoms = _atoms(self.best.events)
        end = len(atoms)
        while end > 0 and self._more():
            gone = {atom.place for atom in atoms[max(0, end - size) : end]}
            if self._keep(_without(self.best.events, gone)):
                cut = True
                atoms = _atoms(self.best.events)
            end = min(end - size, len(atoms))
        return cut

    # Plainer -----------------------------------------------------------------------------------

    def _make_plainer(self) -> None:
        self._attempt(self.best, tight=True)
        if not self._attempt(with_plain_head(self.best)):
            for place in reversed(range(len(plain_parts(self.best)))):
                if place < len(plain_parts(self.best)):
                    self._attempt(plain_parts(self.best)[place])
            self._attempt(with_plain_head(self.best), anyhow=True)
        self._attempt(with_plain_starts(self.best))
        self._split_steps()
        self._crash_between_steps()
        self._shorten_waits()
        self._take_over_at_once()
        self._take_over_less()
        self._deliver_the_first()
        self._cut_requests()
        self._cut_commands()
        self._attempt(with_puts_only(self.best))
        self._attempt(with_plain_words(self.best, one_key=True))
        self._attempt(with_plain_words(self.best, one_key=False))
        self._cut_replicas()
        self._attempt(with_plain_head(in_order_of_appearance(self.best)))

    def _split_steps(self) -> None:
        """One input per step."""
        for place in reversed(range(len(self.best.events))):
            event = self.best.events[place]
            if isinstance(event, Step) and len(event.inputs) > 1:
                parts: list[Event] = [
                    event._replace(inputs=(each,), wake=False, crash=None)
                    for each in event.inputs[:-1]
                ]
                parts.append(event._replace(inputs=event.inputs[-1:]))
                self._keep(_spliced(self.best.events, place, parts))

    def _crash_between_steps(self) -> None:
        """Not within one."""
        for place in reversed(range(len(self.best.events))):
            event = self.best.events[place] if place < len(self.best.events) else None
            if isinstance(event, Step) and event.crash is not None:
                whole = event._replace(crash=None)
                parts: list[Event] = [whole] if event.inputs or event.wake else []
                crash = Crash(event.member, event.at, kept=event.crash.kept)
                self._keep(_spliced(self.best.events, place, [*parts, crash]))

    def _shorten_waits(self) -> None:
        """No time passes but what must, and that is a round one."""
        self._attempt(without_waits_for_disks(self.best))
        for round_up in (False, True):
            for place in range(len(self.best.events)):
                if place < len(self.best.events):
                    shifted = with_gap(self.best, place, round_up)
                    if shifted != self.best:
                        self._attempt(shifted)
            self._attempt(with_one_clock(self.best))

    def _take_over_at_once(self) -> None:
        """A process that a wake made recover instances is told to, and needs no reasons."""
        for place in reversed(range(len(self.best.events))):
            if place >= len(self.best.events):
                continue
            event = self.best.events[place]
            if not isinstance(event, Step) or any(isinstance(x, TakeOver) for x in event.inputs):
                continue
            taken = self._recovered_in(event.member, self._player.numbers[place])
            if taken:
                told = event._replace(inputs=(TakeOver(taken),), wake=False)
                self._keep(_spliced(self.best.events, place, [told]))

    def _recovered_in(self, member: int, number: int) -> tuple[InstanceId, ...]:
        """The instances that a member asked to recover in an event."""
        found: dict[InstanceId, None] = {}
        for happening in self._player.happenings:
            message = happening.thing
            if (happening.number, happening.member, happening.kind) == (
                number,
                member,
                "sends",
            ) and type(message).__name__ == "Recover":
                found.update((InstanceId(message.replica, slot), None) for slot in message.slots)
        return tuple(found)

    def _take_over_less(self) -> None:
        """One instance after the other out of every take-over."""
        for place, event in enumerate(self.best.events):
            for index, each in enumerate(event.inputs if isinstance(event, Step) else ()):
                if isinstance(each, TakeOver) and len(each.instances) > 1:
                    self._take_over_one(place, index, each.instances)

    def _take_over_one(self, place: int, index: int, among: Sequence[InstanceId]) -> None:
        for instance in among:
            event = self.best.events[place]
            if not isinstance(event, Step) or index >= len(event.inputs):
                return
            inputs = list(event.inputs)
            inputs[index] = TakeOver((instance,))
            alone = event._replace(inputs=tuple(inputs))
            if self._keep(_spliced(self.best.events, place, [alone]), anyhow=True):
                return

    def _deliver_the_first(self) -> None:
        """Not one of its repetitions."""

        def first(each: object) -> object:
            return each._replace(nth=0) if isinstance(each, Arrival) else each

        steps = [
            event._replace(inputs=tuple(map(first, event.inputs)))  # type: ignore[arg-type]
            if isinstance(event, Step)
            else event
            for event in self.best.events
        ]
        if self._keep(steps):
            return
        for place, step in enumerate(steps):
            if place < len(self.best.events) and step != self.best.events[place]:
                self._keep(_spliced(self.best.events, place, [step]))

    def _cut_requests(self) -> None:
        """A request, all that is said about its instance, and the number in its column."""
        for place in reversed(range(len(self.best.events))):
            if place >= len(self.best.events):
                continue
            event = self.best.events[place]
            inputs = event.inputs if isinstance(event, Step) else ()
            for index, each in enumerate(inputs):
                if isinstance(each, Commands):
                    events = _without(self.best.events, {(place, index)})
                    names = self._proposed_in(place)
                    for name in sorted(names, key=lambda each: (len(each), each), reverse=True):
                        events = without_slot(events, name)
                    if not self._keep(events):
                        self._keep(events, anyhow=True)
                    break

    def _proposed_in(self, place: int) -> set[str]:
        """The instances or slots of which a process speaks in this event for the first time."""
        number, member = self._player.numbers[place], self.best.events[place].member
        now: set[str] = set()
        before: set[str] = set()
        for happening in self._player.happenings:
            if happening.kind == "sends" and happening.number <= number:
                those = now if happening.number == number else before
                if those is before or happening.member == member:
                    those.update(_about(label_of(happening.thing)))
        return now - before

    def _cut_commands(self) -> None:
        """One command after the other out of every request."""
        for place in range(len(self.best.events)):
            for index in (5, 4, 3, 2, 1, 0):
                event = self.best.events[place] if place < len(self.best.events) else None
                if not isinstance(event, Step):
                    continue
                inputs = tuple(
                    _without_command(each, index) if isinstance(each, Commands) else each
                    for each in event.inputs
                )
                if inputs != event.inputs:
                    shorter = event._replace(inputs=inputs)
                    events = _spliced(self.best.events, place, [shorter])
                    if not self._keep(events):
                        self._keep(events, anyhow=True)

    def _cut_replicas(self) -> None:
        """A smaller cluster, of an odd size: two replicas less, or one of an even number."""
        cut = True
        while cut and self.best.replicas > 3:
            counts = [0] * self.best.replicas
            for atom in _atoms(self.best.events):
                counts[atom.member] += 1
            members = sorted(range(self.best.replicas), key=lambda me: counts[me])
            groups = combinations(members, 2 if self.best.replicas % 2 else 1)
            smaller = [with_plain_head(without_members(self.best, group)) for group in groups]
            cut = any(map(self._attempt, smaller)) or any(
                self._attempt(each, anyhow=True) for each in smaller
            )


def _as_it_ended(schedule: Schedule) -> Iterator[Schedule]:
    """The schedule, and with every way in which one of its processes may have crashed at its end:
    what is found in a crash is found before the crash is recorded."""
    yield schedule
    events = schedule.events
    for member in range(schedule.replicas):
        places = [place for place, event in enumerate(events) if event.member == member]
        if not places:
            continue
        last = events[places[-1]]
        crash = Crash(member, last.at)
        if isinstance(last, Step):
            for each in (crash, crash._replace(appended=False), crash._replace(sent=0)):
                ended = last._replace(crash=each)
                yield schedule._replace(events=tuple(_spliced(events, places[-1], [ended])))
        yield schedule._replace(events=(*events, crash))


# Parts of a schedule -----------------------------------------------------------------------------


class _Atom(NamedTuple):
    """Something that can be left out."""

    place: tuple[int, int]
    """Event, and input in it; -1 its wake, -2 its crash, -3 all of it."""
    member: int
    kind: str = ""
    """Of a delivery, the kind of message."""
    about: tuple[str, ...] = ()
    """Of a delivery, the instances or slots it is about."""
    is_wake: bool = False
    is_crash: bool = False
    """A crash or a restart."""


def _is_kind(kind: str, atom: _Atom) -> bool:
    return atom.kind == kind


def _is_at(member: int, atom: _Atom) -> bool:
    return atom.member == member


def _is_crash_at(member: int, atom: _Atom) -> bool:
    return atom.member == member and atom.is_crash


def _is_about(name: str, atom: _Atom) -> bool:
    return name in atom.about


def _atoms(events: Sequence[Event]) -> list[_Atom]:
    """All that can be left out, in the order of the schedule. First starts and the first steps of
    lives stay."""
    found: list[_Atom] = []
    started: set[int] = set()
    fresh: set[int] = set()
    for place, event in enumerate(events):
        me = event.member
        if isinstance(event, Start):
            if me in started:
                found.append(_Atom((place, -3), me, is_crash=True))
            started.add(me)
            fresh.add(me)
            continue
        if isinstance(event, Crash):
            found.append(_Atom((place, -3), me, is_crash=True))
            continue
        before = len(found)
        for index, each in enumerate(event.inputs):
            if isinstance(each, Arrival):
                kind = each.label.split(" ", 1)[0]
                found.append(_Atom((place, index), me, kind, _about(each.label)))
            else:
                found.append(_Atom((place, index), me))
        is_first = me in fresh
        fresh.discard(me)
        if event.wake and not is_first:
            found.append(_Atom((place, -1), me, is_wake=True))
        if event.crash is not None:
            found.append(_Atom((place, -2), me, is_crash=True))
        if len(found) == before and not is_first:
            found.append(_Atom((place, -3), me))
    return found


def _without(events: Sequence[Event], gone: set[tuple[int, int]]) -> list[Event]:
    """The events without some atoms; a step of which nothing is left goes with the last."""
    found: list[Event] = []
    touched = {place for place, _ in gone}
    for place, event in enumerate(events):
        if place not in touched:
            found.append(event)
        elif (place, -3) not in gone and isinstance(event, Step):
            inputs = tuple(
                each for index, each in enumerate(event.inputs) if (place, index) not in gone
            )
            wake = event.wake and (place, -1) not in gone
            crash = None if (place, -2) in gone else event.crash
            if inputs or wake or crash is not None:
                found.append(event._replace(inputs=inputs, wake=wake, crash=crash))
    return found


def _spliced(events: Sequence[Event], place: int, parts: Sequence[Event]) -> list[Event]:
    return [*events[:place], *parts, *events[place + 1 :]]


def _about(label: str) -> tuple[str, ...]:
    """The instances or slots in a label: `Recover A.1,2 b1@B` is about A.1 and A.2."""
    words = [word for word in label.split(" ")[1:] if "@" not in word]
    found: list[str] = []
    for word in words:
        column, dot, slots = word.rpartition(".")
        found += [f"{column}{dot}{slot}" for slot in slots.split(",")]
    return tuple(found)


def _without_command(commands: Commands, index: int) -> Commands:
    if not index < len(commands.keys) or len(commands.keys) == 1:
        return commands
    return commands._replace(
        operations=commands.operations[:index] + commands.operations[index + 1 :],
        keys=commands.keys[:index] + commands.keys[index + 1 :],
        arguments=commands.arguments[:index] + commands.arguments[index + 1 :],
    )
