"""Admission: commands on contended keys queue, the others wait for nothing (R12); those that leave
together share batches.

A key is contended while an interfering instance on it is known and not executed here. Commands on
contended keys never share an instance with the rest. They leave in the order of their arrival, as
soon as this replica has no un-executed instance of its own that writes one of their keys; all that
may leave at one moment leaves together. So at most n un-executed instances per key exist, every
dependency chain is finite, and the oldest queued command can always be the next (no deadlock, and
no write starves behind reads).

Rules of this file: no protocol and no time; columns, keys and slots only. A command names all its
keys at once, so that several keys are taken together or not at all. A run that is divided gives its
columns to its parts, and is done.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from epaxos.core.command import BATCH_ENVELOPE_BYTES, Footprint, Operation, commands_bytes
from epaxos.core.types import Slot
from epaxos.node.requests import Run

T = TypeVar("T")


class Wanted(NamedTuple, Generic[T]):
    """One queued command: the keys it touches, and whose it is."""

    writes: tuple[bytes, ...]
    reads: tuple[bytes, ...]
    item: T

    @property
    def keys(self) -> tuple[bytes, ...]:
        """All its keys."""
        return self.writes + self.reads


class HotQueue(Generic[T]):
    """Commands on contended keys, in order of arrival, and the own instances they wait for."""

    def __init__(self) -> None:
        self._queue: list[Wanted[T]] = []
        self._named: dict[bytes, int] = {}
        """How many queued commands name a key."""
        self._held: dict[bytes, Slot] = {}
        """Key -> the own un-executed instance that writes it."""
        self._keys_of: dict[Slot, list[bytes]] = {}
        """The inverse of `_held`."""
        self._stirred = False
        """Whether something changed since `leave` found nothing more."""

    def __len__(self) -> int:
        return len(self._queue)

    def held(self) -> int:
        """How many keys and commands it holds."""
        return len(self._queue) + len(self._named) + len(self._held) + len(self._keys_of)

    def names(self, keys: Iterable[bytes]) -> set[bytes]:
        """Which of these keys a queued command names."""
        return self._named.keys() & keys

    def add(self, wanted: Wanted[T]) -> None:
        """Queue a command behind all others."""
        self._queue.append(wanted)
        for key in wanted.keys:
            self._named[key] = self._named.get(key, 0) + 1
        self._stirred = True

    def hold(self, slot: Slot, keys: Iterable[bytes]) -> None:
        """The own instance `slot` writes these keys and is not executed yet."""
        for key in keys:
            before = self._held.get(key)
            if before is None or before < slot:
                self._held[key] = slot
                self._keys_of.setdefault(slot, []).append(key)

    def release(self, slot: Slot) -> None:
        """The own instance was executed, or decided as Nop."""
        for key in self._keys_of.pop(slot, ()):
            if self._held.get(key) == slot:
                del self._held[key]
                self._stirred = True

    def leave(self) -> list[T]:
        """Everything that may leave now, in order; it is no longer queued."""
        if not self._stirred or not self._queue:
            return []
        self._stirred = False
        held = self._held.keys()
        behind: set[bytes] = set()
        staying: list[Wanted[T]] = []
        leaving: list[T] = []
        for wanted in self._queue:
            keys = wanted.keys
            if held.isdisjoint(keys) and behind.isdisjoint(keys):
                leaving.append(wanted.item)
                self._forget(keys)
            else:
                behind.update(keys)
                staying.append(wanted)
        self._queue = staying
        return leaving

    def drop(self, is_late: Callable[[T], bool]) -> list[T]:
        """Remove what waited too long."""
        late = [wanted for wanted in self._queue if is_late(wanted.item)]
        if late:
            self._queue = [wanted for wanted in self._queue if not is_late(wanted.item)]
            for wanted in late:
                self._forget(wanted.keys)
            self._stirred = True
        return [wanted.item for wanted in late]

    def _forget(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            count = self._named[key] - 1
            if count:
                self._named[key] = count
            else:
                del self._named[key]


class Part(NamedTuple):
    """Neighbouring commands of a divided run."""

    run: Run
    key: bytes | None
    """The contended key that each of them names; None: none of them names a contended key."""
    reads: bool
    """Whether they read that key; otherwise each of them writes it."""


def contended_keys(
    runs: Sequence[Run], queue: HotQueue[Run], is_contended: Callable[[Footprint], bool]
) -> set[bytes]:
    """The keys of some runs that are contended, or that a queued command names.

    `is_contended` answers for all keys of a footprint at once. It is asked once when none is, and
    about log2(keys) times more for each that is."""
    writes: list[bytes] = []
    reads: list[bytes] = []
    for run in runs:
        if run.operations.count(_GET):
            for code, key in zip(run.operations, run.keys):
                (reads if code == _GET else writes).append(key)
        else:
            writes += run.keys
    queued = queue.names(writes) | queue.names(reads) if queue else set()
    if not is_contended(Footprint(writes, reads)):
        return queued
    distinct = list(dict.fromkeys(writes))
    found = _by_halves(distinct, lambda part: is_contended(Footprint(part, ())))
    if reads:
        written = set(distinct)
        only_read = [key for key in dict.fromkeys(reads) if key not in written]
        found |= _by_halves(only_read, lambda part: is_contended(Footprint((), part)))
    return found | queued


def _by_halves(keys: list[bytes], is_any: Callable[[Sequence[bytes]], bool]) -> set[bytes]:
    found: set[bytes] = set()
    parts = [keys]
    while parts:
        part = parts.pop()
        if not part or not is_any(part):
            continue
        if len(part) == 1:
            found.add(part[0])
        else:
            middle = len(part) // 2
            parts += (part[:middle], part[middle:])
    return found


def divide(run: Run, hot: set[bytes]) -> list[Part]:
    """The commands of a run in their order, those on contended keys apart from the rest.

    Neighbours of one kind on one contended key stay together: they would leave together anyway."""
    parts: list[Part] = []
    operations, keys, count = run.operations, run.keys, run.count
    start = 0
    while start < count:
        key = keys[start]
        stop = start + 1
        if key in hot:
            reads = operations[start] == _GET
            while stop < count and keys[stop] == key and (operations[stop] == _GET) is reads:
                stop += 1
            parts.append(Part(run.part(start, stop), key, reads))
        else:
            while stop < count and keys[stop] not in hot:
                stop += 1
            parts.append(Part(run.part(start, stop), None, False))
        start = stop
    run.done = True
    run.drop_columns()
    return parts


def fill_batches(
    runs: Iterable[Run], commands_max: int, bytes_max: int
) -> tuple[list[list[Run]], list[Run]]:
    """Runs in their order as batches within the limits, and the parts of those that had to be cut.

    No batch takes more than `bytes_max` encoded, but for a command that alone does. A run that is
    larger than a batch makes batches of its own."""
    room = bytes_max - BATCH_ENVELOPE_BYTES
    made: list[list[Run]] = []
    cut: list[Run] = []
    batch: list[Run] = []
    commands = size = 0
    for run in runs:
        count = run.count
        if commands + count <= commands_max and size + run.size <= room:
            batch.append(run)
            commands += count
            size += run.size
            continue
        if batch:
            made.append(batch)
        if count <= commands_max and run.size <= room:
            batch, commands, size = [run], count, run.size
            continue
        parts = _cut(run, commands_max, room)
        made += [[part] for part in parts]
        cut += parts
        batch, commands, size = [], 0, 0
    if batch:
        made.append(batch)
    return made, cut


def _cut(run: Run, commands_max: int, room: int) -> list[Run]:
    """Each part takes in as many neighbours as fit, and at least one command."""
    parts: list[Run] = []
    start = size = 0
    for place, (key, argument) in enumerate(zip(run.keys, run.arguments)):
        needed = commands_bytes((key,), (argument,))
        if place > start and (place - start == commands_max or size + needed > room):
            parts.append(run.part(start, place))
            start, size = place, 0
        size += needed
    parts.append(run.part(start, run.count))
    run.done = True
    run.drop_columns()
    return parts


_GET: Final = int(Operation.GET)
