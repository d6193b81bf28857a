"""The core workloads of YCSB: A to D, and F. E scans, and this store has no scan.

A is half updates, B one in twenty, C none; D reads what was inserted latest; F reads and modifies.
1000 records of 1000 bytes, theta = 0.99 and the generators of keys are those of YCSB's property
files and program. What differs is said in docs/workloads.md.

Rules of this file: as in kinds.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from epaxos.workload.base import Client, Command, Size, Workload, bounded
from epaxos.workload.zipf import Gray, Scrambled

_CLIENT_BITS: Final = 40
"""D: the keys of different clients of a region have numbers so far apart."""


@dataclass(frozen=True, kw_only=True)
class YcsbA(Workload):
    """Update heavy: half reads, half updates of whole records."""

    kind: ClassVar[str] = "ycsb-a"

    puts: float = bounded(0.5, 0, 1)
    """Share of writes, 0 to 1; the rest are reads."""
    value_size: Size = 1000
    """Bytes of a record: ten fields of 100."""
    keys: int = bounded(1000, 1, 1_000_000_000)
    """How many records there are (YCSB's `recordcount`)."""
    theta: float = bounded(0.99, 0.01, 0.999)

    def draw(self, client: Client) -> Iterator[Command]:
        records = Scrambled(self.keys, self.theta)
        while True:
            number = records.key(client.random.random())
            yield client.put_or_get(b"user%d" % number, number)


@dataclass(frozen=True, kw_only=True)
class YcsbB(YcsbA):
    """Read mostly: 95 % reads, 5 % updates."""

    kind: ClassVar[str] = "ycsb-b"

    puts: float = bounded(0.05, 0, 1)


@dataclass(frozen=True, kw_only=True)
class YcsbC(YcsbA):
    """Read only."""

    kind: ClassVar[str] = "ycsb-c"

    puts: float = bounded(0.0, 0, 1)


@dataclass(frozen=True, kw_only=True)
class YcsbD(YcsbA):
    """Read latest: 5 % inserts of new records, 95 % reads, the latest record the most frequent.

    Clients of different regions insert in turns: the i-th record of the clients with one number in
    R regions belongs to region i mod R. A client knows its own inserts and takes it that the others
    have made as many; a read of one that is not there yet finds nothing."""

    kind: ClassVar[str] = "ycsb-d"

    puts: float = bounded(0.05, 0, 1)
    """Share of inserts, 0 to 1; the rest are reads."""

    def draw(self, client: Client) -> Iterator[Command]:
        rng, place, regions = client.random, client.place, len(self.regions)
        ranks = Gray(self.keys, self.theta)
        inserted = 0
        while True:
            if rng.random() < self.puts:
                number = self.keys + inserted * regions + place
                inserted += 1
                ranks.grow(regions)
                yield client.put(*self._record(client, number))
            else:
                number = ranks.keys - 1 - ranks.rank(rng.random())
                yield client.get(*self._record(client, number))

    def _record(self, client: Client, number: int) -> tuple[bytes, int]:
        """Key and number of a record: what was there before is every client's."""
        if number < self.keys or client.number == 0:
            return b"user%d" % number, number
        return b"user%d.%d" % (number, client.number), number + (client.number << _CLIENT_BITS)


@dataclass(frozen=True, kw_only=True)
class YcsbF(YcsbA):
    """Read-modify-write: half reads, half a read and then a write of the same record.

    Both are commands of their own: with `puts` = 0.5 a third of the commands are writes. Where
    clients wait for each answer the write is a CAS that expects what was read; where they do not,
    a PUT."""

    kind: ClassVar[str] = "ycsb-f"

    puts: float = bounded(0.5, 0, 1)
    """Share of read-modify-writes among the operations, 0 to 1; the rest are reads."""

    def draw(self, client: Client) -> Iterator[Command]:
        records = Scrambled(self.keys, self.theta)
        while True:
            number = records.key(client.random.random())
            key = b"user%d" % number
            yield client.get(key, number)
            if client.random.random() < self.puts:
                yield client.put(key, number, modifies=True)
