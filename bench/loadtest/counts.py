"""What a load generator counts: per step, region and operation; mergeable over many processes.

Times are kept as counts per bucket, with the buckets of an HDR histogram of three digits: two
dictionaries merge by addition, a report between processes is what came since the last one, and the
histogram of all processes is exactly the one that a single process would have had.

Rules of this file: no clock, no network; times are integers of µs.
"""

from collections import defaultdict
from typing import Any, Final

import msgspec

from epaxos.percentile import Counts

KINDS: Final = ("answer", "service", "commit", "wait")
"""answer: intended start to answer. service: sending to answer. commit: intended start until the
replica could have answered, had it answered at commit. wait: from there to the answer."""


def _counts() -> Counts:
    return defaultdict(int)


class Key(msgspec.Struct, frozen=True, array_like=True):
    """What is counted apart."""

    step: int
    region: str
    operation: str
    """Like PUT, GET, or `CAS 412`: it was refused because the key was not as expected."""


class CommandCounts(msgspec.Struct, array_like=True):
    """What became of the commands of one step, region and operation."""

    answered: int = 0
    shared: int = 0
    """Of the answered: how many were on a key that regions share."""
    failures: dict[str, int] = msgspec.field(default_factory=lambda: defaultdict(int))
    """What went wrong -> how often."""
    paths: dict[str, int] = msgspec.field(default_factory=lambda: defaultdict(int))
    """fast, slow, recovered or leader -> how often."""
    answer: Counts = msgspec.field(default_factory=_counts)
    service: Counts = msgspec.field(default_factory=_counts)
    commit: Counts = msgspec.field(default_factory=_counts)
    wait: Counts = msgspec.field(default_factory=_counts)

    @property
    def failed(self) -> int:
        """Commands without a good answer."""
        return sum(self.failures.values())

    def add(self, other: "CommandCounts") -> None:
        self.answered += other.answered
        self.shared += other.shared
        for mine, theirs in (
            (self.failures, other.failures),
            (self.paths, other.paths),
            (self.answer, other.answer),
            (self.service, other.service),
            (self.commit, other.commit),
            (self.wait, other.wait),
        ):
            _add(mine, theirs)


def _add(mine: dict[Any, int], theirs: dict[Any, int]) -> None:
    for key, count in theirs.items():
        mine[key] = mine.get(key, 0) + count


class Health(msgspec.Struct, array_like=True):
    """How a generator's process kept up."""

    lateness: Counts = msgspec.field(default_factory=_counts)
    """Of a greenlet that wants to run every 10 ms."""
    lateness_max_us: int = 0
    start_error: Counts = msgspec.field(default_factory=_counts)
    """Open loop: how late commands were sent, against their intended start."""
    cpu_us: int = 0
    wall_us: int = 0


class Window(msgspec.Struct, array_like=True):
    """The measured part of a step, in one process."""

    wanted: float = 0.0
    """Rate per region, open loop; or users per region."""
    users: int = 0
    """Of all regions and processes."""
    measured_us: int = 0


class SecondCounts(msgspec.Struct, array_like=True):
    """What came back to one region in one second."""

    answer: Counts = msgspec.field(default_factory=_counts)
    """Of good answers, warm-up or not."""
    failed: int = 0


class LoadCounts(msgspec.Struct, array_like=True):
    """Everything that a process counted, or all of them together."""

    by_key: dict[Key, CommandCounts] = {}
    sent: dict[tuple[int, str], int] = {}
    """(step, region) -> commands whose start was in the measured window."""
    health: dict[str, Health] = {}
    """Process -> how it kept up."""
    windows: dict[int, Window] = {}
    """Step -> the longest window of all processes."""
    unfinished: int = 0
    """Commands without an answer when the run was over."""
    seconds: dict[tuple[int, str], SecondCounts] = {}
    """(second by the machine's clock, region) -> what came back then; `SecondsFile` takes out those
    that are over."""

    def second(self, at: int, region: str) -> SecondCounts:
        """The counts of a second; made if they are new."""
        found = self.seconds.get((at, region))
        if found is None:
            found = self.seconds[at, region] = SecondCounts()
        return found

    def at(self, step: int, region: str, operation: str) -> CommandCounts:
        """The counts of these commands; made if they are new."""
        key = Key(step, region, operation)
        found = self.by_key.get(key)
        if found is None:
            found = self.by_key[key] = CommandCounts()
        return found

    def add(self, other: "LoadCounts") -> None:
        for key, commands in other.by_key.items():
            self.by_key.setdefault(key, CommandCounts()).add(commands)
        _add(self.sent, other.sent)
        for process, health in other.health.items():
            mine = self.health.setdefault(process, Health())
            _add(mine.lateness, health.lateness)
            _add(mine.start_error, health.start_error)
            mine.lateness_max_us = max(mine.lateness_max_us, health.lateness_max_us)
            mine.cpu_us += health.cpu_us
            mine.wall_us += health.wall_us
        for step, window in other.windows.items():
            known = self.windows.setdefault(step, Window(window.wanted, window.users))
            known.measured_us = max(known.measured_us, window.measured_us)
        self.unfinished += other.unfinished
        for (at, region), second in other.seconds.items():
            mine_then = self.second(at, region)
            _add(mine_then.answer, second.answer)
            mine_then.failed += second.failed

    def of(self, region: str | None = None, step: int | None = None) -> CommandCounts:
        """The sum of all counts of a region (None: of all) in a step (None: in all)."""
        found = CommandCounts()
        for key, commands in self.by_key.items():
            if region in (None, key.region) and step in (None, key.step):
                found.add(commands)
        return found

    def sent_by(self, region: str | None = None, step: int | None = None) -> int:
        """Commands that were sent, of a region (None: of all) in a step (None: in all)."""
        return sum(
            count
            for (at, where), count in self.sent.items()
            if region in (None, where) and step in (None, at)
        )

    def encode(self) -> bytes:
        """For another process."""
        return msgspec.msgpack.encode(self)


def decode(octets: bytes) -> LoadCounts:
    """What `LoadCounts.encode` made."""
    return msgspec.msgpack.decode(octets, type=LoadCounts)
