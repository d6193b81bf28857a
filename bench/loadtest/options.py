"""What a Locust run offers, and to whom: regions and their replicas, steps, criteria.

Rules of this file: it only reads what a person wrote. Bad input is a ConfigError that names the
option and says what may stand there.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from epaxos.core.errors import ConfigError
from epaxos.core.numbers import plain
from topology import find, find_homes, own_homes

HTTP_PORT: Final = 8001
"""Replica A of `epaxos up`; the others follow."""
TARGETS: Final = ("epaxos", "etcd")
_SECONDS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
STEPS_MAX: Final = 100


@dataclass(frozen=True)
class Place:
    """The users of one region, and the server that they ask."""

    name: str
    """The region's short name."""
    title: str
    """The region's name for people; it stands in every name of a request."""
    url: str
    """Of its nearest replica, without a path."""
    replica: str
    """Title of the replica's region; another one where the region has none."""

    @property
    def class_name(self) -> str:
        name = "".join(filter(str.isalnum, self.title)) or "Region"
        return f"Region{name}" if name[0].isdigit() else name

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return parts.hostname or "127.0.0.1", parts.port or 80


@dataclass(frozen=True)
class Offer:
    """What each region is asked for. Raises ConfigError."""

    workload: str = "conflict:0"
    """As text, for `parse_workload`."""
    seed: int = 1
    rate: float = 0.0
    """Commands per second and region, open loop; 0: closed loop."""
    loop: str = ""
    """`open` or `closed` where a tag asked for it; empty: open with a rate, closed without."""
    steps: tuple[float, ...] = ()
    """Rates (open) or users per region (closed) of a stepwise run; empty: no steps."""
    step_s: float = 20.0
    warmup_s: float = 1.0
    """From the start, and from each step, until answers count."""
    target: str = "epaxos"
    patience_s: float = 10.0
    """How long a user waits for an answer."""
    history: str = ""
    """The directory in which each process keeps its calls; empty: none is kept."""
    initial: str = ""
    """What they say of the time before."""

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("--rate", self.rate, 0.0, 100_000.0),
            ("--warmup", self.warmup_s, 0.0, 3600.0),
            ("--step-time", self.step_s, 1.0, 86_400.0),
            ("--patience", self.patience_s, 0.1, 3600.0),
        ):
            if not low <= value <= high:
                raise ConfigError(f"{name} {value:g} must be between {low:g} and {high:g}")
        if self.target not in TARGETS:
            raise ConfigError(f"--target {self.target!r}: write {' or '.join(TARGETS)}")
        if self.steps and self.warmup_s >= self.step_s:
            raise ConfigError(
                f"--warmup {self.warmup_s:g} s leaves nothing of a step of {self.step_s:g} s: "
                "make --step-time longer"
            )
        if self.loop == "open" and not self.rate and not self.steps:
            raise ConfigError("-T open needs a rate: add --rate 50, or --steps 50,100,200")
        if self.loop == "closed" and self.rate:
            raise ConfigError(
                f"--rate {self.rate:g} is for the open loop: leave it out, or write -T open"
            )
        if self.steps and self.rate:
            raise ConfigError("--steps says the rates already: leave --rate out")

    @property
    def open(self) -> bool:
        """Whether commands are sent at their moments, whatever became of those before."""
        return self.loop == "open" or (not self.loop and self.rate > 0)

    @property
    def run_s(self) -> float:
        """How long all steps take; 0 without steps."""
        return len(self.steps) * self.step_s


def loop_of(tags: Sequence[str], rate: float) -> str:
    """`open` or `closed` as `-T` asks, or empty: the rate decides. Steps alone are a closed loop.
    Raises ConfigError."""
    known = {"open", "closed"}
    if unknown := set(tags) - known:
        raise ConfigError(f"-T {', '.join(sorted(unknown))} is unknown: write open or closed")
    if set(tags) == known:
        return ""
    return tags[0] if tags else ""


def places(
    topology: str,
    replicas: int | None = None,
    clients: str = "",
    at: str = "",
    http_port: int = HTTP_PORT,
) -> list[Place]:
    """The regions with users, each with the URL of its nearest replica.

    `at` are URLs, one per replica in the topology's order, or one for all; without them replicas
    listen on 127.0.0.1, from `http_port` upwards. Raises ConfigError, TopologyError."""
    sites = find(topology, replicas)
    names = [name.strip() for name in clients.split(",") if name.strip()]
    homes = find_homes(topology, sites, names) if names else own_homes(sites)
    urls = [url.strip().rstrip("/") for url in at.split(",") if url.strip()]
    if not urls:
        if not 1 <= http_port <= 65_536 - sites.n:
            raise ConfigError(f"--http-port {http_port} must be between 1 and {65_536 - sites.n}")
        urls = [f"http://127.0.0.1:{http_port + i}" for i in range(sites.n)]
    if len(urls) == 1:
        urls *= sites.n
    if len(urls) != sites.n:
        raise ConfigError(
            f"--at names {len(urls)} URLs; {topology} has {sites.n} replicas: name one URL for "
            "each, in its order, or one for all"
        )
    for url in urls:
        _check_url(url)
    found = [
        Place(
            home.region.name,
            home.region.title,
            urls[home.replica],
            sites.regions[home.replica].title,
        )
        for home in homes
    ]
    if len({place.class_name for place in found}) != len(found):
        raise ConfigError(f"{topology} has regions whose titles differ by signs only: rename one")
    return found


def redirected(sites: Sequence[Place], hosts: Mapping[str, str]) -> list[Place]:
    """The same regions, some at other URLs, by user class, as Locust's own options name them.
    Raises ConfigError."""
    found = []
    for place in sites:
        url = hosts.get(place.class_name, place.url).strip().rstrip("/")
        _check_url(url, f"host of {place.class_name}")
        found.append(replace(place, url=url))
    return found


def _check_url(url: str, option: str = "--at") -> None:
    try:
        parts = urlsplit(url)
        fine = parts.scheme == "http" and bool(parts.hostname) and parts.path in ("", "/")
        fine = fine and (parts.port or 80) > 0
    except ValueError:
        fine = False
    if not fine:
        raise ConfigError(
            f"{option} {url!r} is no address: write for example http://127.0.0.1:8001"
        )


def workload_text(workload: str, conflict: str, keys: int, value_size: int) -> str:
    """The workload of `--workload` with the short options worked in: a conflict rate instead of it,
    a number of keys, a size of values (0: as it says itself). Raises ConfigError."""
    if workload and conflict:
        raise ConfigError("give --workload or --conflict-rate, not both")
    text = workload or f"conflict:{conflict or 0}"
    kind = text.partition(":")[0]
    if keys:
        text = _with(text, f"{'pool' if kind == 'conflict' else 'keys'}={keys}")
    return _with(text, f"value_size={value_size}") if value_size else text


def _with(text: str, setting: str) -> str:
    return f"{text}{',' if ':' in text else ':'}{setting}"


def parse_seconds(text: str, option: str) -> float:
    """Seconds from `20`, `20s`, `2m` or `1h`. Raises ConfigError."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([smh]?)", text.strip())
    if match is None:
        raise ConfigError(f"{option} {text!r}: write a time, like 20s or 2m")
    return float(match[1]) * _SECONDS[match[2]]


def parse_steps(text: str) -> tuple[float, ...]:
    """The steps of `50,100,200`; none for an empty text. Raises ConfigError."""
    try:
        steps = tuple(float(plain(each)) for each in text.split(",") if each.strip())
    except ValueError:
        raise ConfigError(f"--steps {text!r}: write numbers, like 50,100,200") from None
    if any(not 0 < step <= 100_000 for step in steps) or len(steps) > STEPS_MAX:
        raise ConfigError(f"--steps {text!r}: write up to {STEPS_MAX} numbers above 0")
    return steps


def parse_limits(
    text: str, regions: Sequence[str], option: str, names: Sequence[str] = ()
) -> dict[str, float]:
    """A limit per region, by its title, from `250`, `Tokyo=300` or `250,Tokyo=300`; none for an
    empty text. A region's name comes before its title. Raises ConfigError."""
    found: dict[str, float] = {}
    special: dict[str, float] = {}
    for part in filter(str.strip, text.split(",")):
        name, named, number = part.rpartition("=")
        try:
            limit = float(plain(number))
        except ValueError:
            raise ConfigError(
                f"{option} {part.strip()!r}: write a number for all regions, or Region=number"
            ) from None
        if limit < 0:
            raise ConfigError(f"{option} {part.strip()!r}: write a number of at least 0")
        if not named:
            found.update(dict.fromkeys(regions, limit))
            continue
        wanted = name.strip().casefold()
        matches = [title for own, title in zip(names, regions) if own.casefold() == wanted]
        matches += [region for region in regions if region.casefold() == wanted]
        if not matches:
            raise ConfigError(
                f"{option}: there is no region {name.strip()!r}; choose among "
                f"{', '.join(names or regions)}"
            )
        special[matches[0]] = limit
    return found | special
