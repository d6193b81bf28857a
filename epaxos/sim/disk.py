"""A simulated disk: a log with a durable prefix, and what a crash or a bad sector does to it.

Reading follows the rule of the durable log: a bad record is a torn tail, cut with all behind it,
unless a valid record behind it names a synced position beyond it; then it is corruption, and
refused. What was read is rewritten before anything rests on it: what a failed sync covered can be
read, and no later sync makes it durable.

Rules of this file: no time. A record that was never synced may survive a crash; one that was synced
survives everything but bit rot.
"""

import random

from epaxos.core.lineage import Life


class Corrupt(Exception):
    """A bad record that is no torn tail; the start is refused."""


class Disk:
    """A log with a durable prefix, and the identity beside it."""

    def __init__(self, owner: int = 0) -> None:
        self.owner = owner
        """Whose directory it is."""
        self.lives: list[str] = []
        """Nonces of the lives that started from it (R11)."""
        self.refused = False
        """Marked: its peers remembered a life that it had not lived."""
        self.durable: list[bytes] = []
        """Records that survive a crash."""
        self.tail: list[bytes] = []
        """Records appended and not synced."""
        self._synced: list[int] = []
        """Per durable record how many were synced when it was appended."""
        self._bad: set[int] = set()
        """Places of durable records whose checksum does not fit."""
        self._doomed: set[int] = set()
        """Places of records that a failed sync covered: read from memory, gone with the power."""

    @property
    def boot(self) -> int:
        """How often a process started from it."""
        return len(self.lives)

    def start(self, nonce: str = "") -> Life:
        """A process begins a life from it."""
        self.lives.append(nonce)
        return Life(self.boot, nonce)

    def append(self, body: bytes) -> None:
        """Write a record; it is not durable yet."""
        self.tail.append(body)

    def sync(self) -> None:
        """Everything written is durable from here on."""
        self.keep(len(self.tail))

    def keep(self, count: int) -> None:
        """Of the tail the first `count` records become durable; the others are lost."""
        tail, self.tail = self.tail, []
        kept = tail if count >= len(tail) else tail[:count]
        self._synced += [len(self.durable)] * len(kept)
        self.durable += kept

    def crash(self, rng: random.Random, torn: bool) -> int:
        """The process ended: keep the durable prefix and, now and then, some of the rest. Returns
        how many records of the tail can still be read.

        With `torn`, sectors of the tail reach the disk in any order and the last record that does
        may be half written; what follows a gap cannot be read."""
        self.lose_power()
        kept = rng.randint(0, len(self.tail)) if rng.random() < 0.3 else 0
        if not (torn and self.tail):
            self.keep(kept)
            return kept
        first = len(self.durable)
        valid = [rng.random() < 0.6 for _ in range(rng.randint(0, len(self.tail)))]
        bad = [place for place, is_valid in enumerate(valid) if not is_valid]
        self.keep(len(valid))
        self._bad.update(first + place for place in bad)
        return bad[0] if bad else len(valid)

    def crash_full(self, rng: random.Random, size: int) -> int:
        """The disk became full in the append of the last `size` records, and the process ended. The
        file keeps the first part of them; returns how many records of the tail can be read."""
        kept = len(self.tail) - size + rng.randrange(size)
        self.keep(kept)
        return kept

    def fail_sync(self) -> int:
        """A sync failed, and the process ended: everything can still be read. Returns how many
        records of the tail."""
        first, kept = len(self.durable), len(self.tail)
        self.keep(kept)
        self._doomed.update(range(first, first + kept))
        return kept

    def lose_power(self) -> int:
        """What no sync wrote is gone; returns how many records."""
        lost = len(self._doomed)
        self._bad |= self._doomed
        self._doomed.clear()
        return lost

    def rewrite(self) -> None:
        """Write what was read into a new file and sync that."""
        self._doomed.clear()

    def certain(self) -> list[bytes]:
        """The records that a start after a loss of power would read."""
        return self.durable[: min(self._doomed, default=len(self.durable))]

    def rot(self, rng: random.Random) -> bool:
        """Flip a bit somewhere in the middle, where it must be noticed, also after a loss of power;
        False: no such place."""
        gone = self._bad | self._doomed
        beyond = max(
            (synced for place, synced in enumerate(self._synced) if place not in gone),
            default=0,
        )
        if beyond < 1:
            return False
        self._bad.add(rng.randrange(beyond))
        return True

    def read(self) -> list[bytes]:
        """The records to restore from, a torn tail cut off; durable now. Raises Corrupt."""
        if self._bad:
            place = min(self._bad)
            later = range(place + 1, len(self.durable))
            if any(each not in self._bad and self._synced[each] > place for each in later):
                raise Corrupt(f"record {place + 1} of {len(self.durable)} is bad")
            del self.durable[place:], self._synced[place:]
            self._bad.clear()
            self._doomed = {each for each in self._doomed if each < place}
        self.rewrite()
        return list(self.durable)

    def copy(self) -> "Disk":
        """A backup: what is durable, and the identity."""
        copy = Disk(self.owner)
        copy.lives, copy.refused = [*self.lives], self.refused
        copy.durable, copy._synced, copy._bad = [*self.durable], [*self._synced], {*self._bad}
        copy._doomed = {*self._doomed}
        return copy
