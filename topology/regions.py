"""Regions, and the round trips between them.

A topology is data: places, a matrix of round trips, and how they vary. The same one drives emulated
links, the simulator, the closed-form predictor and the report's map.

Rules of this file: imports nothing of ours. Times of people are milliseconds, of machines
microseconds. The triangle inequality is not required: real routing violates it in 1.5 to 6 % of
triples."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TypeVar

from topology.delay import Jitter

T = TypeVar("T")

REGIONS_MAX = 16
"""Of a topology that is read from a file."""

IN_REGION_MS = 0.3
"""Round trip inside a region where the source has none, or only a connect to an endpoint."""

NAME_BYTES_MAX = 64
"""Of a region's name."""

TITLE_BYTES_MAX = 120
"""Of its title, which is a part of files' names too."""


class TopologyError(ValueError):
    """A topology cannot be found or read. The message names the place and the fix."""


@dataclass(frozen=True)
class Region:
    """One place."""

    name: str
    """Short and unique in its topology, like `VA`."""
    title: str
    """What people read, like `Virginia`."""
    city: str = ""
    lat: float | None = None
    """Degrees north; None: not on the map."""
    lon: float | None = None
    """Degrees east."""


@dataclass(frozen=True)
class Topology:
    """Places and what lies between them; indices follow `regions`."""

    name: str
    """What a person types to get it."""
    title: str
    """One line on what it is."""
    source: str
    """Where the figures come from."""
    date: str
    """When they were measured; empty where that means nothing."""
    regions: tuple[Region, ...]
    rtt: tuple[tuple[float, ...], ...]
    """Mean round trip in ms, by row and column. The diagonal is the way between two machines of a
    region."""
    jitters: tuple[tuple[Jitter, ...], ...]
    """How the one-way delay varies, by sender and receiver."""
    asymmetry: tuple[tuple[float, ...], ...]
    """ms by which the way from i to j is longer than half the round trip; minus that for j to i."""
    losses: tuple[tuple[float, ...], ...]
    """Probability that a message from i to j is lost."""
    notes: tuple[str, ...] = ()
    """What must be said beside any figure made with it: guessed or inferred round trips."""

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        titles: dict[str, str] = {}
        for region in self.regions:
            why = _unfit(region.name)
            if why is not None:
                raise TopologyError(
                    f"topology {self.name}: a region's name is a file's name too, and "
                    f"{region.name[:80]!r} {why}; write a short one, and the long one as its title"
                )
            if not region.title.strip() or not region.title.isprintable():
                raise TopologyError(
                    f"topology {self.name}: the title of region {region.name!r} is empty, or has "
                    "signs that do not print; write one line of text"
                )
            if len(region.title.encode("utf-8", "replace")) > TITLE_BYTES_MAX:
                raise TopologyError(
                    f"topology {self.name}: the title of region {region.name!r} has more than "
                    f"{TITLE_BYTES_MAX} bytes; write a shorter one"
                )
            other = seen.setdefault(region.name.casefold(), region.name)
            if other is not region.name:
                raise TopologyError(
                    f"topology {self.name}: the regions {other!r} and {region.name!r} differ by "
                    "capital letters at most; rename one"
                )
            other = titles.setdefault(region.title.casefold(), region.name)
            if other is not region.name:
                raise TopologyError(
                    f"topology {self.name}: the regions {other!r} and {region.name!r} have the "
                    f"same title, {region.title!r}; tell them apart"
                )

    @property
    def n(self) -> int:
        return len(self.regions)

    def rtt_ms(self, i: int, j: int) -> float:
        """Mean round trip between two regions."""
        return self.rtt[i][j]

    def rtt_us(self, i: int, j: int) -> int:
        """Mean round trip in µs; 0 from a region to itself."""
        return 0 if i == j else round(self.rtt[i][j] * 1000)

    @property
    def longest_rtt_us(self) -> int:
        """Mean round trip in µs between the two regions that are farthest apart."""
        return max(self.rtt_us(i, j) for i in range(self.n) for j in range(self.n))

    @property
    def longest_one_way_us(self) -> int:
        """The largest mean delay: how long a Commit travels at most."""
        return max(self.mean_one_way_us(i, j) for i in range(self.n) for j in range(self.n))

    def mean_one_way_us(self, i: int, j: int) -> int:
        """Mean delay from i to j: half the round trip, and the asymmetry."""
        if i == j:
            return 0
        return max(0, round((self.rtt[i][j] / 2 + self.asymmetry[i][j]) * 1000))

    def one_way_us(self, i: int, j: int) -> int:
        """The delay that never varies: what the jitter adds to has the matrix's mean."""
        if i == j:
            return 0
        return max(0, self.mean_one_way_us(i, j) - round(self.jitters[i][j].mean_us))

    def jitter(self, i: int, j: int) -> Jitter:
        """What is added to `one_way_us`, message by message."""
        return self.jitters[i][j]

    def loss(self, i: int, j: int) -> float:
        """Probability that a message is lost on the way."""
        return self.losses[i][j]

    def index(self, name: str) -> int:
        """The position of a region by name; else by title, else by letter. Raises
        TopologyError."""
        wanted = name.strip().casefold()
        for words in (
            [region.name.casefold() for region in self.regions],
            [region.title.casefold() for region in self.regions],
        ):
            if wanted in words:
                return words.index(wanted)
        if len(wanted) == 1 and 0 <= ord(wanted) - ord("a") < self.n:
            return ord(wanted) - ord("a")
        known = [region.name for region in self.regions]
        titles = [region.title for region in self.regions]
        raise TopologyError(
            f"topology {self.name} has no region {name!r}{suggestion(name, known + titles)}; "
            f"it has {', '.join(known)}"
        )

    def subset(self, names: Sequence[str]) -> "Topology":
        """The same figures for some regions, in the order given."""
        chosen = [self.index(name) for name in names]
        if len(set(chosen)) != len(chosen):
            raise TopologyError(f"topology {self.name}: a region is named twice")

        def pick(matrix: tuple[tuple[T, ...], ...]) -> tuple[tuple[T, ...], ...]:
            return tuple(tuple(matrix[i][j] for j in chosen) for i in chosen)

        return replace(
            self,
            regions=tuple(self.regions[i] for i in chosen),
            rtt=pick(self.rtt),
            jitters=pick(self.jitters),
            asymmetry=pick(self.asymmetry),
            losses=pick(self.losses),
        )


def _unfit(name: str) -> str | None:
    """Why a region cannot be called so; None: it can."""
    if not name or len(name.encode("utf-8", "replace")) > NAME_BYTES_MAX:
        return f"has not 1 to {NAME_BYTES_MAX} bytes"
    if not name.isprintable() or name != name.strip():
        return "begins or ends with a blank, or has signs that do not print"
    if found := set(name) & set("/\\,"):
        return f"has a {min(found)!r} in it"
    if name[0] in "-.":
        return f"begins with {name[0]!r}"
    return None


def square(size: int, value: T) -> tuple[tuple[T, ...], ...]:
    """A matrix of one value."""
    return ((value,) * size,) * size


def suggestion(name: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` if something known is near."""
    near = get_close_matches(name, list(known), 1, 0.5)
    return f" (did you mean {near[0]}?)" if near else ""
