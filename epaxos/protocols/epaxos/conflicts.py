"""The conflict index: which ids interfere with a footprint, in time proportional to its keys.

One dict per kind of access, key -> id of the latest instance, packed into one integer as long as
one column has touched the key, a list of n slots after that. Two generations; the older is dropped
whole, without per-key deletes, when all that it names is <= floor (R15). Otherwise the index is
monotone: an id never leaves it because it was decided as Nop (protocol reference 2.4).

Rules of this file: batches are tested with whole-dict operations; Python touches keys one by one
only where batches meet. Set intersections are iterated only into maxima, so their order cannot
matter."""

from epaxos.core.command import Footprint
from epaxos.core.types import Deps, ReplicaId, Slot

_COLUMN_BITS = 4
_COLUMN_MASK = (1 << _COLUMN_BITS) - 1

_Entry = int | list[Slot]
_Table = dict[bytes, _Entry]


class _Generation:
    """What was added while it was the young one."""

    __slots__ = ("readers", "tops", "writers")

    def __init__(self, n: int) -> None:
        self.writers: _Table = {}
        self.readers: _Table = {}
        self.tops = [0] * n
        """Per column the highest slot added."""


class ConflictIndex:
    """The latest writers and readers of every key that may still matter."""

    __slots__ = ("_n", "_old", "_young")

    def __init__(self, n: int) -> None:
        assert n <= 1 << _COLUMN_BITS, "a column fits into a packed id"
        self._n = n
        self._young = _Generation(n)
        self._old = _Generation(n)

    def deps(self, footprint: Footprint, base: Deps) -> Deps:
        """The least vector >= `base` that covers every indexed id interfering with `footprint`.

        Returns `base` itself where nothing is to be added."""
        found: list[Slot] | None = None
        writes = footprint.writes
        reads = footprint.reads
        for generation in (self._young, self._old):
            writers = generation.writers
            readers = generation.readers
            if writes:
                if writers and not writers.keys().isdisjoint(writes):
                    found = found or list(base)
                    _collect(writers, footprint.write_set, found)
                if readers and not readers.keys().isdisjoint(writes):
                    found = found or list(base)
                    _collect(readers, footprint.write_set, found)
            if reads and writers and not writers.keys().isdisjoint(reads):
                found = found or list(base)
                _collect(writers, footprint.read_set, found)
        if found is None:
            return base
        deps = tuple(found)
        return base if deps == base else deps

    def add(self, replica: ReplicaId, slot: Slot, footprint: Footprint) -> None:
        """Remember an id under its real payload's footprint."""
        young = self._young
        if slot > young.tops[replica]:
            young.tops[replica] = slot
        packed = slot << _COLUMN_BITS | replica
        if footprint.writes:
            if young.writers.keys().isdisjoint(footprint.writes):
                young.writers.update(dict.fromkeys(footprint.writes, packed))
            else:
                self._join_all(young.writers, footprint.write_set, packed)
        if footprint.reads:
            if young.readers.keys().isdisjoint(footprint.reads):
                young.readers.update(dict.fromkeys(footprint.reads, packed))
            else:
                self._join_all(young.readers, footprint.read_set, packed)

    def turn(self, floor: Deps) -> None:
        """Drop the old generation if all that it names is <= floor."""
        if all(top <= low for top, low in zip(self._old.tops, floor)):
            self._old = self._young
            self._young = _Generation(self._n)

    def __len__(self) -> int:
        return sum(len(g.writers) + len(g.readers) for g in (self._young, self._old))

    def _join_all(self, table: _Table, keys: frozenset[bytes], packed: int) -> None:
        met = {key: self._join(table[key], packed) for key in table.keys() & keys}
        if len(met) < len(keys):
            table.update(dict.fromkeys(keys, packed))
        table.update(met)

    def _join(self, entry: _Entry, packed: int) -> _Entry:
        if isinstance(entry, int):
            if entry & _COLUMN_MASK == packed & _COLUMN_MASK:
                return max(entry, packed)
            slots = [0] * self._n
            slots[entry & _COLUMN_MASK] = entry >> _COLUMN_BITS
            entry = slots
        column = packed & _COLUMN_MASK
        slot = packed >> _COLUMN_BITS
        if slot > entry[column]:
            entry[column] = slot
        return entry


class LiveIndex:
    """Per key all live ids that name it, for the few questions that need more than the latest.

    Only a Validate asks; it is made for the first one, and given up when most of what it holds is
    forgotten. Without recoveries nothing is kept and nothing is paid."""

    __slots__ = ("_ids", "_readers", "_writers")

    def __init__(self) -> None:
        self._ids: set[tuple[ReplicaId, Slot]] = set()
        self._writers: dict[bytes, list[tuple[ReplicaId, Slot]]] = {}
        self._readers: dict[bytes, list[tuple[ReplicaId, Slot]]] = {}

    def __len__(self) -> int:
        """How many ids it holds, forgotten ones included."""
        return len(self._ids)

    def add(self, replica: ReplicaId, slot: Slot, footprint: Footprint) -> None:
        """Hold an id under its real payload's footprint. To do so again changes nothing."""
        instance = (replica, slot)
        if instance in self._ids:
            return
        self._ids.add(instance)
        for key in footprint.writes:
            self._writers.setdefault(key, []).append(instance)
        for key in footprint.reads:
            self._readers.setdefault(key, []).append(instance)

    def interfering(self, footprint: Footprint) -> list[tuple[ReplicaId, Slot]]:
        """The ids added that interfere with `footprint`, in order of column and slot."""
        found: set[tuple[ReplicaId, Slot]] = set()
        for key in footprint.writes:
            found.update(self._writers.get(key, ()))
            found.update(self._readers.get(key, ()))
        for key in footprint.reads:
            found.update(self._writers.get(key, ()))
        return sorted(found)


def _collect(table: _Table, keys: frozenset[bytes], found: list[Slot]) -> None:
    for key in table.keys() & keys:
        entry = table[key]
        if isinstance(entry, int):
            column = entry & _COLUMN_MASK
            slot = entry >> _COLUMN_BITS
            if slot > found[column]:
                found[column] = slot
        else:
            for column, slot in enumerate(entry):
                if slot > found[column]:
                    found[column] = slot
