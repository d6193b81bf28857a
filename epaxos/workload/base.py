"""What a workload is: the commands of each client, and the moments at which they start.

Everything follows from the seed: the commands of a client from seed, region, number of the client
and workload; the arrivals of a region from seed, region and configured conflict rate, so that
workloads of other kinds start at the same moments. Arrivals are a Poisson process, known before the
run: a slow answer delays nobody's intended start.

Rules of this file: no clock and no network; the same seed gives the same commands. What a kind of
workload draws stands in its own class; here is what all have.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import Field, dataclass, field, fields
from itertools import repeat
from typing import Any, ClassVar, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from epaxos.core.command import Operation, Results, Status, encode_cas
from epaxos.core.errors import ConfigError
from epaxos.core.types import Micros

OWN_KEY: Final = -1
"""Instead of the number of a shared key."""
VALUE_BYTES_MAX: Final = 1_000_000
AT_ONCE: Final = repeat(0)
"""Intended starts where nobody knows them."""
_NORMAL_WIDTH: Final = 4
"""A normal distribution of sizes is cut off so many standard deviations above its mean."""


class Command(NamedTuple):
    """One command of a client."""

    operation: Operation
    key: bytes
    argument: bytes
    shared: int
    """Number of the key among those that several regions use; OWN_KEY: this region's alone."""
    modifies: bool = False
    """A PUT that belongs to the GET of its key just before it: together a read-modify-write. Who
    waits for the answer of that GET sends `expecting` instead."""

    def expecting(self, found: bytes | None) -> "Command":
        """The second half of a read-modify-write whose read found this (None: no value): a CAS
        that writes only if that still stands."""
        expect = False if found is None else found
        argument = encode_cas(expect, self.argument)
        return self._replace(operation=Operation.CAS, argument=argument, modifies=False)


class Asker:
    """One client's commands, one by one. Whoever waits for answers tells it what each GET found;
    then the write of a read-modify-write expects that. Where nobody does it is a PUT."""

    def __init__(self, commands: Iterator[Command]) -> None:
        self._commands = commands
        self._has_heard = False
        self._found: bytes | None = None

    def next(self) -> Command:
        """The next command."""
        command = next(self._commands)
        if command.modifies and self._has_heard:
            command = command.expecting(self._found)
        self._has_heard = False
        return command

    def heard(self, command: Command, results: Results, index: int) -> None:
        """A command of the client was answered: it is the one at `index` of these results."""
        if command.operation == Operation.GET:
            self._has_heard = True
            has_value = results.statuses[index] == Status.OK
            self._found = results.values[index] if has_value else None


@dataclass(frozen=True)
class Uniform:
    """Sizes from `low` to `high` bytes, each as likely."""

    low: int
    high: int

    def __str__(self) -> str:
        return f"uniform({self.low},{self.high})"

    @property
    def largest(self) -> int:
        """Bytes."""
        return self.high

    def draw(self, rng: random.Random) -> int:
        """A size in bytes."""
        return rng.randint(self.low, self.high)


@dataclass(frozen=True)
class Normal:
    """Sizes normally distributed around `mean` bytes with standard deviation `sd`, rounded; what
    would be below 0 is 0, what would lie four deviations above the mean or more is that."""

    mean: float
    sd: float

    def __str__(self) -> str:
        return f"normal({number_text(self.mean)},{number_text(self.sd)})"

    @property
    def largest(self) -> int:
        """Bytes."""
        return round(self.mean + _NORMAL_WIDTH * self.sd)

    def draw(self, rng: random.Random) -> int:
        """A size in bytes."""
        return min(max(0, round(rng.gauss(self.mean, self.sd))), self.largest)


Size: TypeAlias = int | Uniform | Normal
"""How many bytes a value has: always so many, or drawn."""


class Client:
    """Who commands are drawn for, with what a kind draws from and the commands it may make."""

    def __init__(
        self,
        workload: "Workload",
        region: str,
        number: int,
        starts: Iterable[Micros],
    ) -> None:
        self.region = region
        self.number = number
        """Among the clients of its region."""
        self.name = f"{region}.{number}" if number else region
        """Of a region's first client: the region's."""
        self.random = random.Random(f"{workload.seed} commands {self.name} {workload.stream}")
        self.starts = starts
        """Intended start of each command, in µs from the start of the load."""
        self._workload = workload
        size = workload.value_size
        self._values = self.random.randbytes(size if isinstance(size, int) else size.largest)

    @property
    def place(self) -> int:
        """Index of its region among the regions. Raises ConfigError if they are not known."""
        regions = self._workload.regions
        if self.region not in regions:
            known = ", ".join(regions) or "none"
            raise ConfigError(
                f"workload {self._workload}: region {self.region} is none of its regions ({known})"
            )
        return regions.index(self.region)

    def get(self, key: bytes, shared: int = OWN_KEY) -> Command:
        """Read a key."""
        return Command(Operation.GET, key, b"", shared)

    def put(self, key: bytes, shared: int = OWN_KEY, modifies: bool = False) -> Command:
        """Write a key, with a value of the workload's size."""
        size = self._workload.value_size
        value = self._values if isinstance(size, int) else self._values[: size.draw(self.random)]
        return Command(Operation.PUT, key, value, shared, modifies)

    def put_or_get(self, key: bytes, shared: int = OWN_KEY) -> Command:
        """Write a key with the probability `puts` of the workload, else read it."""
        if self.random.random() < self._workload.puts:
            return self.put(key, shared)
        return self.get(key, shared)


def bounded(default: Any, low: float, high: float) -> Any:
    """A setting between two bounds, both allowed; `...` as default: it must be given."""
    bounds = {"bounds": (low, high)}
    return field(metadata=bounds) if default is ... else field(default=default, metadata=bounds)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What clients ask for. Each kind is a subclass with a `draw`; its fields are its settings.

    `str` gives the text that `parse_workload` reads, without settings that have their default.
    Raises ConfigError."""

    kind: ClassVar[str] = ""
    """Its name in texts; empty, as in classes from outside: `module:Class`."""
    leading: ClassVar[str] = ""
    """The setting that may be written without its name, as the first one."""

    puts: float = bounded(1.0, 0, 1)
    """Share of writes, 0 to 1; the rest are reads."""
    value_size: Size = 16
    """Bytes of a value."""
    seed: int = field(default=1, metadata={"given": True})
    regions: tuple[str, ...] = field(default=(), metadata={"given": True})
    """Where clients are, for kinds in which regions have keys of their own or know of each
    other's."""

    def __post_init__(self) -> None:
        for each in fields(self):
            if "bounds" in each.metadata:
                low, high = each.metadata["bounds"]
                value = getattr(self, each.name)
                if value is not None and not low <= value <= high:
                    self.refuse(
                        f"{each.name} = {number_text(value)} must be between {number_text(low)} "
                        f"and {number_text(high)}"
                    )
        self._check_sizes()

    def _check_sizes(self) -> None:
        size = self.value_size
        if isinstance(size, int):
            good = 0 <= size <= VALUE_BYTES_MAX
        elif isinstance(size, Uniform):
            good = 0 <= size.low <= size.high <= VALUE_BYTES_MAX
        else:
            good = size.mean >= 0 <= size.sd and size.largest <= VALUE_BYTES_MAX
        if not good:
            self.refuse(
                f"value_size = {size} must be between 0 and {VALUE_BYTES_MAX:,}: bytes, "
                "uniform(LOW,HIGH) or normal(MEAN,SD)"
            )

    def refuse(self, sentence: str) -> None:
        """Raise ConfigError: this workload cannot be as `sentence` says."""
        raise ConfigError(f"workload {name_of(type(self))}: {sentence}")

    @property
    def conflict_rate(self) -> float | None:
        """Percent of commands on keys that all regions share, where it was configured as such;
        None where a distribution decides."""
        return None

    @property
    def title(self) -> str:
        """What a person reads."""
        return str(self)

    @property
    def stream(self) -> str:
        """What the commands of a client depend on beside seed, region and number."""
        return str(self)

    def commands(
        self, region: str, client: int = 0, starts: Iterable[Micros] = AT_ONCE
    ) -> Iterator[Command]:
        """The commands of one client of a region; without end if `starts` has none.

        Clients of a region with different numbers draw different commands. `starts` are the
        intended starts of the commands, in µs from the start of the load, taken one by one; kinds
        that change with time (`local` with drift) need them, for them time stands still
        otherwise."""
        return self.draw(Client(self, region, client, starts))

    def draw(self, client: Client) -> Iterator[Command]:
        """The commands of a client: what a kind of workload is. All randomness is
        `client.random`."""
        raise NotImplementedError

    def arrivals(self, region: str, rate: float, duration_s: float) -> NDArray[np.int64]:
        """Intended starts of one region in µs from 0, ascending: Poisson with `rate` per second."""
        rate_code = round((self.conflict_rate or 0) * 1000)
        rng = np.random.default_rng([self.seed, rate_code, *region.encode("utf-8")])
        expected = rate * duration_s
        gaps = rng.exponential(1e6 / rate, round(expected + 10 * expected**0.5 + 20))
        starts = np.cumsum(gaps).astype(np.int64)
        return starts[starts < duration_s * 1e6]

    def __str__(self) -> str:
        words = []
        for each in settings_of(type(self)):
            value = getattr(self, each.name)
            if value == each.default:
                continue
            text = value_text(value)
            words.append(text if each.name == self.leading else f"{each.name}={text}")
        name = name_of(type(self))
        return (("," if ":" in name else ":").join((name, ",".join(words)))) if words else name


def name_of(kind: type[Workload]) -> str:
    """How texts call a kind."""
    return kind.kind or f"{kind.__module__}:{kind.__qualname__}"


def settings_of(kind: type[Workload]) -> "list[Field[Any]]":
    """What a text may set: those of the kind first, then those that all have."""
    found = [each for each in fields(kind) if not each.metadata.get("given")]
    common = {each.name for each in fields(Workload)}
    return sorted(found, key=lambda each: each.name in common)


def number_text(value: float) -> str:
    """A number in as few digits as give it back: `2`, `0.99`, `1000000`."""
    return str(int(value)) if float(value).is_integer() else repr(value)


def value_text(value: object) -> str:
    """A setting as texts carry it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return number_text(value)
    return str(value)
