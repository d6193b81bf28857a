"""Canonical forms the shrinker tries: fewer replicas, plain keys and values, round figures.

Rules of this file: pure functions of schedules. Nothing here knows whether what it returns still
fails: the shrinker plays it.
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence

from epaxos.core.command import Operation, decode_cas, encode_cas
from epaxos.core.types import InstanceId, Micros, ReplicaId, replica_name
from epaxos.sim.schedule.schedule import (
    Arrival,
    Commands,
    Event,
    HandOver,
    Input,
    Schedule,
    Start,
    Step,
    TakeOver,
)

RTT_US: Micros = 40_000
"""The round trip of all links in a plain schedule."""

PATIENCE_US: Micros = 60_000_000
"""How long clients wait in a plain schedule."""

_KEYS = "xyzwvutsrqponmlkjihgfedcba"


def plain_rtts(n: int, rtt_us: Micros = RTT_US) -> tuple[tuple[Micros, ...], ...]:
    """All links alike."""
    return tuple(tuple(0 if i == j else rtt_us for j in range(n)) for i in range(n))


def with_plain_head(schedule: Schedule) -> Schedule:
    """Equal round trips, no switches, patient clients, and seeds that follow from the replica."""
    rtts = plain_rtts(schedule.replicas)
    plain = schedule._replace(rtt_us=rtts, gate=False, limits=(), tunables=(), calm_at=())
    return _with_plain_events(plain)


def plain_parts(schedule: Schedule) -> list[Schedule]:
    """The same, one part of it at a time."""
    return [
        schedule._replace(tunables=()),
        schedule._replace(limits=()),
        *[
            schedule._replace(tunables=tuple(each for each in schedule.tunables if each != left))
            for left in schedule.tunables
        ],
        *[
            schedule._replace(limits=tuple(each for each in schedule.limits if each != left))
            for left in schedule.limits
        ],
        schedule._replace(calm_at=()),
        schedule._replace(gate=False),
        schedule._replace(rtt_us=plain_rtts(schedule.replicas)),
        _with_plain_events(schedule),
    ]


def _with_plain_events(schedule: Schedule) -> Schedule:
    def patient(given: Input) -> Input:
        return given._replace(patience_us=PATIENCE_US) if isinstance(given, Commands) else given

    events = tuple(
        event._replace(seed=event.member) if isinstance(event, Start) else event
        for event in _with_inputs(schedule, patient).events
    )
    return schedule._replace(events=events)


def first_starts(n: int) -> tuple[Event, ...]:
    """All processes start, one after the other, and nothing happens between."""
    return tuple(
        event for member in range(n) for event in (Start(member, 0, member), Step(member, 0))
    )


def has_plain_starts(schedule: Schedule) -> bool:
    """Whether it begins with `first_starts`."""
    starts = first_starts(schedule.replicas)
    return schedule.events[: len(starts)] == starts


def with_plain_starts(schedule: Schedule) -> Schedule:
    """With `first_starts` at its beginning, instead of whenever and whoever."""
    started: set[ReplicaId] = set()
    fresh: set[ReplicaId] = set()
    left: list[Event] = []
    for event in schedule.events:
        if isinstance(event, Start) and event.member not in started:
            started.add(event.member)
            fresh.add(event.member)
            continue
        if not (isinstance(event, Step) and event.member in fresh and not event.inputs):
            left.append(event)
        fresh.discard(event.member)
    return schedule._replace(events=(*first_starts(schedule.replicas), *left))


# Time --------------------------------------------------------------------------------------------

ROUND_US: Micros = 100_000
"""Times of a plain schedule are multiples of this."""


def without_waits_for_disks(schedule: Schedule) -> Schedule:
    """Every step leaves when it was taken."""
    events = tuple(
        event._replace(released_at=None) if isinstance(event, Step) else event
        for event in schedule.events
    )
    return schedule._replace(events=events)


def with_one_clock(schedule: Schedule) -> Schedule:
    """All clocks show the same, and it never goes back."""
    now: Micros = 0
    events: list[Event] = []
    for event in without_waits_for_disks(schedule).events:
        now = max(now, event.at)
        moved = event._replace(at=now)
        if isinstance(moved, Step) and moved.crash is not None:
            moved = moved._replace(crash=moved.crash._replace(at=now))
        events.append(moved)
    return schedule._replace(events=tuple(events))


def with_gap(schedule: Schedule, place: int, round_up: bool) -> Schedule:
    """The process of an event takes it as soon as the one before, or a round time after it; what
    comes later at that process keeps its distance."""
    events = schedule.events
    member = events[place].member
    before = max((event.at for event in events[:place] if event.member == member), default=0)
    gap = events[place].at - before
    shift = (-events[place].at) % ROUND_US if round_up else -gap

    def moved(event: Event) -> Event:
        at = event.at + shift
        if not isinstance(event, Step):
            return event._replace(at=at)
        released_at = None if event.released_at is None else event.released_at + shift
        crash = event.crash and event.crash._replace(at=event.crash.at + shift)
        return event._replace(at=at, released_at=released_at, crash=crash)

    return schedule._replace(
        events=tuple(
            moved(event) if index >= place and event.member == member else event
            for index, event in enumerate(events)
        )
    )


# Words -------------------------------------------------------------------------------------------


def with_puts_only(schedule: Schedule) -> Schedule:
    """Every write is a plain one."""

    def plain(given: Input) -> Input:
        if not isinstance(given, Commands):
            return given
        codes = bytes(min(code, Operation.PUT) for code in given.operations)
        arguments = tuple(
            argument if code <= Operation.PUT else b"%d.%d" % (given.number, index)
            for index, (code, argument) in enumerate(zip(given.operations, given.arguments))
        )
        return given._replace(operations=codes, arguments=arguments)

    return _with_inputs(schedule, plain)


def with_plain_words(schedule: Schedule, one_key: bool) -> Schedule:
    """Requests 1, 2, ..., keys x, y, ... (or x alone), values 1, 2, ..."""
    return _with_inputs(schedule, _Words(one_key).plain)


def _with_inputs(schedule: Schedule, plain: Callable[[Input], Input]) -> Schedule:
    events = tuple(
        event._replace(inputs=tuple(map(plain, event.inputs))) if isinstance(event, Step) else event
        for event in schedule.events
    )
    return schedule._replace(events=events)


class _Words:
    def __init__(self, one_key: bool) -> None:
        self._one_key = one_key
        self._keys: dict[bytes, bytes] = {}
        self._values: dict[bytes, bytes] = {}
        self._requests = 0

    def plain(self, given: Input) -> Input:
        """The same input in plain words."""
        if not isinstance(given, Commands):
            return given
        self._requests += 1
        return given._replace(
            number=self._requests,
            keys=tuple(map(self._key, given.keys)),
            arguments=tuple(
                self._argument(code, argument)
                for code, argument in zip(given.operations, given.arguments)
            ),
        )

    def _key(self, key: bytes) -> bytes:
        place = 0 if self._one_key else len(self._keys)
        known = self._keys.get(key)
        if known is None:
            name = _KEYS[place] if place < len(_KEYS) else f"k{place}"
            known = self._keys[key] = name.encode()
        return known

    def _argument(self, code: int, argument: bytes) -> bytes:
        if not argument:
            return argument
        if code != Operation.CAS:
            return self._value(argument)
        operands = decode_cas(argument)
        expect = operands.expect
        return encode_cas(
            self._value(expect) if isinstance(expect, bytes) else expect,
            None if operands.value is None else self._value(operands.value),
        )

    def _value(self, value: bytes) -> bytes:
        return self._values.setdefault(value, b"%d" % (len(self._values) + 1))


# Slots -------------------------------------------------------------------------------------------

_IDS = re.compile(r"(?:([A-P])\.)?(\d+(?:,\d+)*)(?= |$)")
"""Instances or slots in a label; ballots have a letter before their digits."""


def without_slot(events: Iterable[Event], name: str) -> list[Event]:
    """Without what is said about this instance (`A.3`) or slot (`3`) alone; what comes after it in
    its column moves down by one."""
    column, _, number = name.rpartition(".")
    slot = int(number)

    def moved(label: str) -> str | None:
        found = _IDS.search(label)
        if found is None or (found[1] or "") != column:
            return label
        slots = [int(each) for each in found[2].split(",")]
        left = [each - (each > slot) for each in slots if each != slot]
        if not left:
            return None
        head = f"{column}." if column else ""
        numbers = ",".join(map(str, left))
        return f"{label[: found.start()]}{head}{numbers}{label[found.end() :]}"

    def kept(given: Input) -> Input | None:
        if isinstance(given, Arrival):
            label = moved(given.label)
            return None if label is None else given._replace(label=label)
        if isinstance(given, TakeOver) and column:
            left = tuple(
                InstanceId(each.replica, each.slot - (each.slot > slot))
                if replica_name(each.replica) == column
                else each
                for each in given.instances
                if str(each) != name
            )
            return TakeOver(left) if left else None
        return given

    return [
        event._replace(inputs=tuple(each for each in map(kept, event.inputs) if each is not None))
        if isinstance(event, Step)
        else event
        for event in events
    ]


# Replicas ----------------------------------------------------------------------------------------


def without_members(schedule: Schedule, gone: Collection[ReplicaId]) -> Schedule:
    """A smaller cluster: without these, and the others called A, B, C, ... in their order."""
    return _with_members(
        schedule, [member for member in range(schedule.replicas) if member not in gone]
    )


def in_order_of_appearance(schedule: Schedule) -> Schedule:
    """Who does something first is called A, who does something next B, ..."""
    return _with_members(schedule, appearance(schedule))


def appearance(schedule: Schedule) -> list[ReplicaId]:
    """All replicas in the order in which they, or messages of theirs, come into it."""
    found: dict[ReplicaId, None] = {}
    for event in schedule.events:
        if isinstance(event, Step):
            for each in event.inputs:
                if isinstance(each, Arrival):
                    found[each.source] = None
                found[event.member] = None
    found.update(dict.fromkeys(range(schedule.replicas)))
    return list(found)


def _with_members(schedule: Schedule, left: Sequence[ReplicaId]) -> Schedule:
    """A cluster of these alone, called A, B, C, ... in this order."""
    place = {member: index for index, member in enumerate(left)}
    letters = str.maketrans({replica_name(old): replica_name(new) for old, new in place.items()})

    def renamed(label: str) -> str:
        kind, space, rest = label.partition(" ")
        return kind + space + rest.translate(letters)

    def kept(given: Input) -> Input | None:
        if isinstance(given, Arrival):
            if given.source not in place:
                return None
            return given._replace(source=place[given.source], label=renamed(given.label))
        if isinstance(given, TakeOver):
            instances = tuple(
                InstanceId(place[each.replica], each.slot)
                for each in given.instances
                if each.replica in place
            )
            return TakeOver(instances) if instances else None
        if isinstance(given, HandOver):
            return HandOver(place[given.target]) if given.target in place else None
        return given

    events: list[Event] = []
    for event in schedule.events:
        if event.member not in place:
            continue
        moved: Event = event._replace(member=place[event.member])
        if isinstance(moved, Step):
            inputs = tuple(each for each in map(kept, moved.inputs) if each is not None)
            crash = moved.crash and moved.crash._replace(member=moved.member)
            moved = moved._replace(inputs=inputs, crash=crash)
        events.append(moved)
    return schedule._replace(
        replicas=len(left),
        rtt_us=tuple(tuple(schedule.rtt_us[i][j] for j in left) for i in left),
        calm_at=tuple(schedule.calm_at[i] for i in left) if schedule.calm_at else (),
        leader=place.get(schedule.leader, 0),
        events=tuple(events),
    )
