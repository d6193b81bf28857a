"""Fault timelines: what goes wrong in a trial, and when.

A fault is written as one text, times in seconds from the start of what is measured:

    crash:Tokyo@3-6          killed at 3, started again from its disk at 6
    crash:CA@3               stays dead
    pause:CA@3-5             stands still, and goes on
    partition:CA@3-6         nothing passes between it and all others
    slow:CA@3-6,factor=4     all its links take 4 times as long
    leader:JP@5              leadership is moved there; nothing happens where nobody leads

Rules of this file: it reads and plans; how a fault is made in each world stands elsewhere.
"""

import math
import re
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import msgspec

from epaxos.core.errors import ConfigError
from epaxos.core.numbers import plain
from topology import Topology, TopologyError

KINDS: Final = ("crash", "pause", "partition", "slow", "leader")
FACTOR_MAX: Final = 100.0
_EXAMPLE: Final = "write for example crash:Tokyo@3-6, crash:CA@3, slow:CA@3-6,factor=4"
_TEXT: Final = re.compile(
    r"(?P<kind>[^:]*):(?P<region>.+)@(?P<at>[^@,-]*)(?:-(?P<until>[^@,]*))?(?:,(?P<more>.*))?"
)


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    kind: str
    """One of KINDS."""
    region: str
    """Whose replica, by name or title; of `leader`: where leadership goes."""
    at_s: float
    """From the start of what is measured."""
    until_s: float | None = None
    """None: to the end (of `leader`: it is a moment)."""
    factor: float = 1.0
    """Of `slow`: how many times longer links take."""

    def __str__(self) -> str:
        until = "" if self.until_s is None else f"-{self.until_s:g}"
        more = f",factor={self.factor:g}" if self.kind == "slow" else ""
        return f"{self.kind}:{self.region}@{self.at_s:g}{until}{more}"


class Happened(msgspec.Struct, frozen=True, kw_only=True):
    """What a fault really did."""

    at_s: float
    """When it had begun, from the start of what is measured."""
    until_s: float | None
    """When it had ended; None: never, or it was a moment."""
    kind: str
    region: str
    factor: float = 1.0
    failed: str = ""
    """Why it could not be done as planned; empty: it was."""


def parse_fault(text: str) -> Fault:
    """Raises ConfigError that names what is wrong and what is allowed."""
    found = _TEXT.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"fault {text!r} is not KIND:REGION@TIME: {_EXAMPLE}")
    kind, region = found["kind"].strip(), found["region"].strip()
    if kind not in KINDS:
        raise ConfigError(f"fault {text!r}: kind {kind!r} is unknown; one of {', '.join(KINDS)}")
    at_s = _seconds(text, found["at"])
    until_s = None if found["until"] is None else _seconds(text, found["until"])
    if kind == "leader" and until_s is not None:
        raise ConfigError(f"fault {text!r}: a leader moves at one time, like leader:{region}@5")
    if until_s is not None and until_s <= at_s:
        raise ConfigError(f"fault {text!r} ends at {until_s:g}, before it begins at {at_s:g}")
    return Fault(kind, region, at_s, until_s, _factor(text, kind, found["more"]))


def _seconds(text: str, word: str) -> float:
    try:
        value = float(plain(word))
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise ConfigError(f"fault {text!r}: {word!r} is not a time in seconds: {_EXAMPLE}")
    return value


def _factor(text: str, kind: str, more: str | None) -> float:
    if kind != "slow":
        if more is not None:
            raise ConfigError(f"fault {text!r}: {kind} takes nothing after its time, not {more!r}")
        return 1.0
    name, _, word = (more or "").partition("=")
    try:
        value = float(plain(word)) if name.strip() == "factor" else 0.0
    except ValueError:
        value = 0.0
    if not 1 < value <= FACTOR_MAX:
        raise ConfigError(
            f"fault {text!r}: say how slow with factor=N, above 1 and at most {FACTOR_MAX:g}, "
            "like slow:CA@3-6,factor=4"
        )
    return value


def plan_timeline(
    texts: tuple[str, ...], sites: Topology, duration_s: float, durability: str
) -> tuple[Fault, ...]:
    """The faults of a trial, in order of time, regions by their names. Raises ConfigError where
    one cannot be done there."""
    found = []
    for text in texts:
        fault = parse_fault(text)
        try:
            name = sites.regions[sites.index(fault.region)].name
        except TopologyError as error:
            raise ConfigError(f"fault {text!r}: {error}") from None
        if max(fault.at_s, fault.until_s or 0.0) > duration_s:
            raise ConfigError(f"fault {text!r} is later than duration_s = {duration_s:g}")
        if fault.kind == "crash" and fault.until_s is not None and durability == "memory":
            raise ConfigError(
                f"fault {text!r}: without a disk nobody starts again; write durability = fsync"
            )
        found.append(Fault(fault.kind, name, fault.at_s, fault.until_s, fault.factor))
    for a, b in combinations(found, 2):
        if (a.region, a.kind) == (b.region, b.kind) and _overlap(a, b):
            raise ConfigError(f"faults {str(a)!r} and {str(b)!r} are at the same time")
        if {a.kind, b.kind} == {"crash", "pause"} and a.region == b.region and _overlap(a, b):
            raise ConfigError(f"faults {str(a)!r} and {str(b)!r} are at the same time")
    return tuple(sorted(found, key=lambda fault: fault.at_s))


def _overlap(a: Fault, b: Fault) -> bool:
    def end_s(fault: Fault) -> float:
        if fault.kind == "leader":
            return fault.at_s
        return math.inf if fault.until_s is None else fault.until_s

    return a.at_s <= end_s(b) and b.at_s <= end_s(a)
