"""Which commands may leave now: commands on contended keys queue, the others wait for nothing
(R12).

A key is contended while an interfering instance on it is known and not executed here. Commands on
contended keys never share an instance with the rest. They leave in the order of their arrival, as
soon as this replica has no un-executed instance of its own that writes one of their keys; all that
may leave at one moment leaves together. So at most n un-executed instances per key exist, every
dependency chain is finite, and the oldest queued command can always be the next (no deadlock, and
no write starves behind reads).

Rules of this file: no protocol and no time; keys and slots only. A command names all its keys at
once, so that several keys are taken together or not at all.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

from epaxos.core.types import Slot

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


def contended_keys(
    keys: Sequence[bytes], is_contended: Callable[[Sequence[bytes]], bool]
) -> set[bytes]:
    """Which of some distinct keys are contended, by halves: `is_contended` says it of any of
    several.

    Costs one question when none is, and about log2(len(keys)) per key that is."""
    found: set[bytes] = set()
    parts = [keys]
    while parts:
        part = parts.pop()
        if not part or not is_contended(part):
            continue
        if len(part) == 1:
            found.add(part[0])
        else:
            middle = len(part) // 2
            parts += (part[:middle], part[middle:])
    return found
