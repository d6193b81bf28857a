"""The state of a replica as a digest: equal digests behave alike for as long as time stands still.

A walk over the whole object graph, so that what a planted class adds is part of its state too.
`EXCLUDED_FIELDS` lists what is left out, with the reason; everything else is taken as it is. What
is met again is named by the number of its first meeting, so that cycles end and aliases count.

Rules of this file: leaving something out needs a reason in `EXCLUDED_FIELDS`; in doubt it stays in,
which costs states and never a violation.
"""

import random
from collections import deque
from collections.abc import Callable
from enum import Enum
from functools import cache
from hashlib import blake2b
from typing import Any, Final

import msgspec

from epaxos.core.command import Payload
from epaxos.core.replica import Decided, Timers
from epaxos.protocols.epaxos.conflicts import ConflictIndex


def _names(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


EXCLUDED_FIELDS: Final[dict[str, frozenset[str]]] = {
    # Constants of a life, tables of bound methods, counters for people, estimates of memory, and
    # what only a wake at a later time reads: the explorer never lets time pass.
    "ReplicaState": _names("me n sizes out counts answers _unanswered _taken _committed_taken"),
    "EPaxosReplica": _names("_handlers _restorers _started _tick_at"),
    # The vectors of others come by Progress only, which is not explored; without them stable and
    # floor stay 0, and our own vectors are only ever advertised.
    "Columns": _names(
        "me n live_bytes rtt_us rtt_max _random _executed _stables _committed_at _heard_at",
        "_suspected _stamps _holes _told_executed progress_at",
    ),
    "Attempt": _names("resends stamps"),
    "Instance": _names("proposed_at"),
    "PreAccepting": _names("round_us stood_us wait_until"),
    "GraphExecutor": _names("_counts"),
    "Vertex": _names("jump"),  # a short cut along `waits`
    # Who was heard when matters to probes only.
    "Elector": _names("me n majority patience out _others _random _counts"),
    "MultiPaxosReplica": _names(
        "live_bytes _preferred _started _fetches _fetched _advertised _accepted _chosen "
        "_handlers _alarms"
    ),
    "SlotLog": _names("live_bytes"),
    "Entry": _names("stamps"),
    "Members": _names("_me _measured _rtt _stamp _stamp_at heard rtt_max chosen"),
    "Probing": _names("attempts"),
    "Preparing": _names("attempts"),
    "Leading": _names("attempts check marker resent_at"),
}
"""By name of the class that declares them: attributes that decide nothing here."""

BALLOTS: Final = frozenset(("_nacked", "known", "_highest"))
"""What only decides whether, and in which ballot, something is taken over."""

ORDERED: Final = frozenset(("votes", "late"))
"""Attributes whose dicts are compared in their order, because handlers pick the first that fits.
All other dicts are compared as mappings: no handler's outcome depends on the order of arrival."""

_PLAIN: Final = frozenset((int, bytes, str, bool, float, type(None)))
_encode: Callable[[Any], bytes] = msgspec.msgpack.encode


def digest(*parts: object, ballots: bool = True) -> bytes:
    """16 bytes that stand for everything in `parts`; without what `BALLOTS` says if nothing will be
    taken over any more."""
    walk = _Walk(ballots)
    return blake2b(_encode([walk.freeze(part) for part in parts]), digest_size=16).digest()


class _Walk:
    """One walk over an object graph."""

    __slots__ = ("ballots", "seen")

    def __init__(self, ballots: bool) -> None:
        self.ballots = ballots
        self.seen: dict[int, int] = {}

    def freeze(self, value: Any) -> Any:
        """A value of lists and scalars that says all of `value`."""
        kind: Any = type(value)
        return value if kind in _PLAIN else _way(kind)(self, value)

    def many(self, values: Any) -> list[Any]:
        """Values in their order."""
        return [each if type(each) in _PLAIN else self.freeze(each) for each in values]

    def mapping(self, value: dict[Any, Any]) -> Any:
        """Keys and values, by key."""
        if not value:
            return 0
        keys = sorted(value) if len(value) > 1 else list(value)
        return {"": [self.many(keys), self.many(value[key] for key in keys)]}

    def ordered(self, value: dict[Any, Any]) -> Any:
        """Keys and values, in their order."""
        return {"": [self.many(value), self.many(value.values())]}

    def thing(self, value: object) -> Any:
        """An object: its class and its attributes, or the number of the first meeting."""
        number = self.seen.setdefault(id(value), len(self.seen))
        if number < len(self.seen) - 1:
            return number
        kind: Any = type(value)
        names = _attributes(kind, self.ballots)
        state = getattr(value, "__dict__", None)
        if state:
            excluded = _excluded(kind)
            names = (*names, *sorted(name for name in state if name not in excluded))
            if not self.ballots:
                names = tuple(name for name in names if name not in BALLOTS)
        fields: list[Any] = [kind.__name__]
        for name in names:
            field = getattr(value, name, None)
            if type(field) in _PLAIN:
                fields.append(field)
            elif name in ORDERED and isinstance(field, dict):
                fields.append(self.ordered(field))
            else:
                fields.append(self.freeze(field))
        return fields


def _struct(walk: _Walk, value: msgspec.Struct) -> Any:
    names = value.__struct_fields__
    return [type(value).__name__, *walk.many(getattr(value, name) for name in names)]


@cache
def _way(kind: Any) -> Callable[[_Walk, Any], Any]:
    """How values of a class are taken apart."""
    if kind is Payload:
        return lambda walk, value: value.encoded
    if kind is Decided:  # by which path it came to be decided is for people
        return lambda walk, value: walk.many(value[:4])
    if issubclass(kind, tuple | list | deque):
        return _Walk.many
    if issubclass(kind, dict):
        return _Walk.mapping
    if issubclass(kind, set | frozenset):
        return lambda walk, value: sorted((walk.freeze(each) for each in value), key=repr)
    if issubclass(kind, Enum):
        return lambda walk, value: value.name
    if issubclass(kind, msgspec.Struct):
        return _struct
    if issubclass(kind, Timers):
        # Whether something is armed can matter (one question at a time), until when cannot.
        return lambda walk, value: sorted(key for key in value._at if isinstance(key, str))
    if kind is ConflictIndex:
        return lambda walk, value: walk.many(_merged(value))
    if issubclass(kind, random.Random) or any("__call__" in base.__dict__ for base in kind.__mro__):
        return lambda walk, value: None
    return _Walk.thing


def _merged(index: ConflictIndex) -> list[dict[bytes, list[int]]]:
    """Both generations as one: while floor is 0, what is in which of them decides nothing."""
    tables: list[dict[bytes, list[int]]] = [{}, {}]
    for generation in (index._old, index._young):
        for table, found in zip(tables, (generation.writers, generation.readers)):
            for key, entry in found.items():
                if isinstance(entry, int):
                    slots = [0] * index._n
                    slots[entry & 15] = entry >> 4
                else:
                    slots = entry
                table[key] = list(map(max, table.get(key, slots), slots))
    return tables


@cache
def _excluded(kind: Any) -> frozenset[str]:
    found = [EXCLUDED_FIELDS.get(base.__name__, frozenset()) for base in kind.__mro__]
    return frozenset().union(*found)


@cache
def _attributes(kind: Any, ballots: bool) -> tuple[str, ...]:
    """The slots of a class that matter, its bases' first."""
    excluded = _excluded(kind) if ballots else _excluded(kind) | BALLOTS
    names: list[str] = []
    for base in reversed(kind.__mro__):
        slots = base.__dict__.get("__slots__", ())
        names += [slots] if isinstance(slots, str) else slots
    return tuple(name for name in names if name not in excluded and not name.startswith("__"))
