"""The kinds of workload: the EPaxos conflict rate, hot keys, Zipf, regions with keys of their own.

Each definition stands in its class and, with sources and examples, in docs/workloads.md; YCSB's are
in ycsb.py.

Rules of this file: a `draw` takes its randomness from the client alone, in an order that never
depends on what an earlier draw gave to whom.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from epaxos.workload.base import OWN_KEY, Client, Command, Workload, bounded, number_text
from epaxos.workload.zipf import Gray, Truncated, scatter

_KEYS_MAX: Final = 1_000_000_000
_TRUNCATED_KEYS_MAX: Final = 1_000_000
"""Of Zipf with s: its distribution function is a table of 8 bytes per key."""


@dataclass(frozen=True)
class Conflict(Workload):
    """The conflict rate of the EPaxos paper: `percent` of the commands on a key that all regions
    share, each of `pool` keys as likely; every other command on a key that is never used again."""

    kind: ClassVar[str] = "conflict"
    leading: ClassVar[str] = "percent"

    percent: float = bounded(..., 0, 100)
    pool: int = bounded(1, 1, 1_000_000)
    """How many keys the regions share."""

    @property
    def conflict_rate(self) -> float:
        """What was asked for."""
        return self.percent

    @property
    def stream(self) -> str:
        """The rate alone: whichever else is set, what a seed gave once it gives again."""
        return str(float(self.percent))

    @property
    def title(self) -> str:
        """Like `2 % conflicts`; other settings follow."""
        _, comma, rest = str(self).partition(",")
        return f"{number_text(self.percent)} % conflicts{comma and ', '}{rest.replace(',', ', ')}"

    def draw(self, client: Client) -> Iterator[Command]:
        rng = client.random
        own = f"{client.name}-{number_text(self.percent)}-".encode()
        number = 0
        while True:
            number += 1
            if rng.random() * 100 < self.percent:
                shared = rng.randrange(self.pool)
                yield client.put_or_get(b"shared-%d" % shared, shared)
            else:
                yield client.put_or_get(own + b"%d" % number, OWN_KEY)


@dataclass(frozen=True, kw_only=True)
class Hot(Workload):
    """Hot keys: `percent` of the commands on one of `hot` keys, the others on the rest of `keys`,
    each as likely within its set. Without settings: all commands on one key."""

    kind: ClassVar[str] = "hot"
    leading: ClassVar[str] = "percent"

    percent: float = bounded(100.0, 0, 100)
    hot: int = bounded(1, 1, 1_000_000)
    """How many keys are hot."""
    keys: int = bounded(1000, 1, _KEYS_MAX)
    """How many keys there are, the hot ones included."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.percent < 100 and self.hot >= self.keys:
            self.refuse(f"hot = {self.hot} must be below keys = {self.keys}")

    def draw(self, client: Client) -> Iterator[Command]:
        rng = client.random
        while True:
            if rng.random() * 100 < self.percent:
                number = rng.randrange(self.hot)
            else:
                number = rng.randrange(self.hot, self.keys)
            yield client.put_or_get(b"key-%d" % number, number)


@dataclass(frozen=True, kw_only=True)
class Zipf(Workload):
    """Zipf's law over `keys` keys that all regions share: with `theta` in (0, 1) by YCSB's formula,
    or with `s` above 1 exactly. There is no default: which of the two must be said."""

    kind: ClassVar[str] = "zipf"

    theta: float | None = None
    s: float | None = None
    keys: int = bounded(1_000_000, 1, _KEYS_MAX)
    scramble: bool = False
    """Whether the frequent keys lie scattered among the numbers of the keys instead of first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.theta is None) == (self.s is None):
            self.refuse("write theta=0.9 (0 < theta < 1, YCSB's) or s=1.2 (s > 1), one of the two")
        if self.theta is not None and not 0 < self.theta < 1:
            self.refuse(
                f"theta = {number_text(self.theta)} must lie between 0 and 1, both excluded; for a "
                "steeper law write s=1.2"
            )
        if self.s is not None and not 1 < self.s <= 100:
            self.refuse(
                f"s = {number_text(self.s)} must be above 1 and at most 100; for a flatter law "
                "write theta=0.9"
            )
        if self.s is not None and self.keys > _TRUNCATED_KEYS_MAX:
            self.refuse(f"keys = {self.keys} must be at most {_TRUNCATED_KEYS_MAX} with s")

    def draw(self, client: Client) -> Iterator[Command]:
        rng, keys = client.random, self.keys
        ranks: Gray | Truncated
        if self.theta is not None:
            ranks = Gray(keys, self.theta)
        else:
            assert self.s is not None
            ranks = Truncated(keys, self.s)
        factor = scatter(keys) if self.scramble else 1
        while True:
            number = ranks.rank(rng.random()) * factor % keys
            yield client.put_or_get(b"key-%d" % number, number)


@dataclass(frozen=True, kw_only=True)
class Local(Workload):
    """Every region has `keys` home keys; its commands are on one of them, except for `remote`
    percent on one of another region's. With `drift` each home moves by so many keys per second of
    intended start: over all keys in a circle, all homes alike, so that a region comes to use the
    keys that were the next region's."""

    kind: ClassVar[str] = "local"

    remote: float = bounded(10.0, 0, 100)
    """Percent."""
    keys: int = bounded(1000, 1, _KEYS_MAX)
    """Of each region."""
    drift: float = bounded(0.0, 0, 1_000_000)
    """Keys per second."""

    def draw(self, client: Client) -> Iterator[Command]:
        rng, keys, place = client.random, self.keys, client.place
        regions = len(self.regions)
        for start in client.starts:
            home = place
            if rng.random() * 100 < self.remote and regions > 1:
                home = (place + rng.randrange(1, regions)) % regions
            moved = int(self.drift * start / 1e6)
            number = (home * keys + moved + rng.randrange(keys)) % (regions * keys)
            yield client.put_or_get(b"key-%d" % number, number)
