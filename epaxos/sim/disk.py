"""A simulated disk: a log with a durable prefix, and what a crash or a bad sector does to it.

Reading follows the rule of the durable log: a bad record is a torn tail, cut with all behind it,
unless a valid record behind it names a synced position beyond it; then it is corruption, and
refused.

Rules of this file: no time. A record that was never synced may survive a crash; one that was synced
survives everything but bit rot.
"""

import random
from typing import NamedTuple


class DiskRecord(NamedTuple):
    """One record as it lies on the disk."""

    body: bytes
    synced: int
    """How many records were synced when it was appended."""
    valid: bool = True
    """Whether its checksum fits."""


class Corrupt(Exception):
    """A bad record that is no torn tail; the start is refused."""


class Disk:
    """A log with a durable prefix, and the identity beside it."""

    def __init__(self, owner: int) -> None:
        self.owner = owner
        """Whose directory it is."""
        self.boot = 0
        """How often a process started from it (R11)."""
        self.durable: list[DiskRecord] = []
        self.tail: list[DiskRecord] = []

    def append(self, body: bytes) -> None:
        """Write a record; it is not durable yet."""
        self.tail.append(DiskRecord(body, len(self.durable)))

    def sync(self) -> None:
        """Everything written is durable from here on."""
        self.durable += self.tail
        self.tail = []

    def crash(self, rng: random.Random, torn: bool) -> int:
        """The process ended: keep the durable prefix and, now and then, some of the rest. Returns
        how many records of the tail can still be read.

        With `torn`, sectors of the tail reach the disk in any order and the last record that does
        may be half written; what follows a gap cannot be read."""
        kept = rng.randint(0, len(self.tail)) if rng.random() < 0.3 else 0
        if torn and self.tail:
            survivors = [
                record._replace(valid=rng.random() < 0.6)
                for record in self.tail[: rng.randint(0, len(self.tail))]
            ]
            kept = next(
                (place for place, record in enumerate(survivors) if not record.valid),
                len(survivors),
            )
            self.durable += survivors
        else:
            self.durable += self.tail[:kept]
        self.tail = []
        return kept

    def rot(self, rng: random.Random) -> bool:
        """Flip a bit somewhere in the middle, where it must be noticed; False: no such place."""
        beyond = max((record.synced for record in self.durable if record.valid), default=0)
        if beyond < 1:
            return False
        place = rng.randrange(beyond)
        self.durable[place] = self.durable[place]._replace(valid=False)
        return True

    def read(self) -> list[bytes]:
        """The records to restore from, a torn tail cut off. Raises Corrupt."""
        for place, record in enumerate(self.durable):
            if record.valid:
                continue
            if any(later.valid and later.synced > place for later in self.durable[place + 1 :]):
                raise Corrupt(f"record {place + 1} of {len(self.durable)} is bad")
            del self.durable[place:]
            break
        return [record.body for record in self.durable]
