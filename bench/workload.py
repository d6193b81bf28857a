"""What clients ask for, and when: everything follows from the seed.

A command is on the shared key with the configured probability, otherwise on a key that is never
used again: the realised conflicts are then those of the shared keys alone. Arrivals are a Poisson
process, known before the run, so that a slow answer delays nobody's intended start.

Rules of this file: no clock and no network; the same seed gives the same commands.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from epaxos.core.command import Operation
from epaxos.core.errors import ConfigError

OWN_KEY: Final = -1
"""Instead of the number of a shared key."""


class Command(NamedTuple):
    """One command of a client."""

    operation: Operation
    key: bytes
    argument: bytes
    shared: int
    """Which of the shared keys it is on; OWN_KEY: a key of its own."""


@dataclass(frozen=True)
class Workload:
    """What is asked for; the same for all regions. Raises ConfigError."""

    conflict: float
    """Percent of commands on a shared key, 0 to 100."""
    value_size: int = 16
    """Bytes of a value."""
    put_share: float = 1.0
    """Share of puts among the commands, 0 to 1; the rest are gets."""
    seed: int = 1
    shared_keys: int = 1
    """How many keys the regions share."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("conflict", 0.0, 100.0),
            ("put_share", 0.0, 1.0),
            ("value_size", 0, 1_000_000),
            ("shared_keys", 1, 1_000_000),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} = {value:g} must be between {low:g} and {high:g}")

    def commands(self, region: str) -> Iterator[Command]:
        """The commands of one region's clients, without end."""
        rng = random.Random(f"{self.seed} commands {region} {self.conflict}")
        value = rng.randbytes(self.value_size)
        own = f"{region}-{self.conflict:g}-".encode()
        number = 0
        while True:
            number += 1
            shared = OWN_KEY
            if rng.random() * 100 < self.conflict:
                shared = rng.randrange(self.shared_keys)
            key = own + b"%d" % number if shared == OWN_KEY else b"shared-%d" % shared
            if rng.random() < self.put_share:
                yield Command(Operation.PUT, key, value, shared)
            else:
                yield Command(Operation.GET, key, b"", shared)

    def arrivals(self, region: str, rate: float, duration_s: float) -> NDArray[np.int64]:
        """Intended starts of one region in µs from 0, ascending: Poisson with `rate` per second."""
        rng = np.random.default_rng(
            [self.seed, round(self.conflict * 1000), *region.encode("utf-8")]
        )
        expected = rate * duration_s
        gaps = rng.exponential(1e6 / rate, round(expected + 10 * expected**0.5 + 20))
        starts = np.cumsum(gaps).astype(np.int64)
        return starts[starts < duration_s * 1e6]
