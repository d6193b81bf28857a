"""Whether figures may be believed: VALID, SUSPECT or INVALID, with every reason.

Rules of this file: pure; all thresholds stand here.
"""

from collections.abc import Iterable
from typing import Any, Final

LAG_MS: Final = (5.0, 25.0)
"""Loop lag p99 of a replica or the clients: suspect above, invalid above."""
LINK_ERROR_MS: Final = (5.0, 25.0)
"""Error p99 of the emulated links."""
CPU: Final = (0.7, 0.95)
"""Of one core: what the clients took."""
BUSY: Final = (0.7, 2.0)
"""Of all cores: everything that ran. Others that come and go meet one run and not the next; alone
that makes no figure impossible, so there is no invalid."""
OTHERS: Final = (0.2, 0.5)
"""Of all cores, of other programs, where clients ask for all that the machine can give. What the
system does for our own messages and syncs is among it: some 0.1."""
LOST: Final = (0.0, 0.001)
"""Share of commands without an answer."""
FAILED: Final = (0.0, 0.01)
"""Share of commands refused, or with an ambiguous fate."""
SAMPLES: Final = (100, 10)
"""Per cell: suspect below, invalid below."""
_KEPT_UP: Final = {
    "loop_lag_p99_ms": (LAG_MS, "loop lag p99 of a replica is {:.1f} ms"),
    "client_lag_p99_ms": (LAG_MS, "loop lag p99 of the clients is {:.1f} ms"),
    "start_error_p99_ms": (LAG_MS, "clients began {:.1f} ms late at the p99"),
    "link_error_p99_ms": (LINK_ERROR_MS, "link error p99 is {:.1f} ms"),
    "client_cpu": (CPU, "the clients used {:.2f} of a core"),
}
"""Figure of a run -> its limits, and how it is said."""
_LEVELS: Final = ("VALID", "SUSPECT", "INVALID")


class Findings:
    """Why figures may not be believed, one by one."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self._worst = 0

    @property
    def validity(self) -> str:
        """VALID, SUSPECT or INVALID: the worst of all."""
        return _LEVELS[self._worst]

    def add(self, validity: str, reason: str) -> None:
        """One reason, and what it makes of the figures."""
        self._worst = max(self._worst, _LEVELS.index(validity))
        self.reasons.append(reason)

    def hold(self, value: float, limits: tuple[float, float], reason: str) -> None:
        """A reason, if a value is above its limits: suspect above the first, invalid above the
        second."""
        level = (value > limits[0]) + (value > limits[1])
        if level:
            said = f"{reason} ({_LEVELS[level].lower()} above {limits[level - 1]:g})"
            self.add(_LEVELS[level], said)

    def look_at_health(self, at: str, row: dict[str, Any]) -> None:
        """How replicas, clients and machine kept up."""
        self._look_at(at, row, _KEPT_UP)
        others = row["others_cpu"] or 0.0
        busy = row["machine_cpu"] + others
        what = f"the machine was busy to {busy:.2f}, {others:.2f} with other programs"
        self.hold(busy, BUSY, f"{at}{what}")

    def look_at_throughput(self, at: str, row: dict[str, Any]) -> None:
        """The same where clients ask for all that the machine can give: then lag and a busy machine
        are what is measured. The clients must not be what limits it, nor other programs."""
        self._look_at(at, row, ("client_cpu",))
        others = row["others_cpu"] or 0.0
        self.hold(others, OTHERS, f"{at}other programs took {others:.2f} of the machine")

    def _look_at(self, at: str, row: dict[str, Any], keys: Iterable[str]) -> None:
        for key in keys:
            limits, what = _KEPT_UP[key]
            if row[key] is not None:
                self.hold(row[key], limits, f"{at}{what.format(row[key])}")

    def look_at_samples(self, at: str, count: int) -> None:
        """Whether there are enough for figures."""
        level = (count < SAMPLES[0]) + (count < SAMPLES[1])
        if level:
            self.add(_LEVELS[level], f"{at}only {count} samples")

    def look_at_fates(self, at: str, fates: dict[str, Any]) -> None:
        """What became of the commands of a region."""
        sent = max(1, fates["sent"])
        failed = fates["refused"] + fates["ambiguous"]
        self.hold(fates["lost"] / sent, LOST, f"{at}{fates['lost']} commands lost")
        self.hold(failed / sent, FAILED, f"{at}{failed} commands refused or ambiguous")

    def look_at_history(self, at: str, verdict: str, sentence: str) -> None:
        """Whether the answers were right. What could not be decided is no pass."""
        if verdict != "OK":
            level = "INVALID" if verdict == "ILLEGAL" else "SUSPECT"
            self.add(level, f"{at}the history is {sentence}")

    def look_at_death(self, at: str, region: str, last_words: str) -> None:
        """A replica that ended and was not to."""
        self.add("INVALID", f"{at}the replica in {region} ended: {last_words}")

    def look_at_slow_paths(self, at: str, unexplained: int | None) -> None:
        """Whether conflicts explain them."""
        if unexplained:
            self.add("SUSPECT", f"{at}{unexplained} slow paths without a conflict")


def validity(summary: dict[str, Any]) -> tuple[str, list[str]]:
    """VALID, SUSPECT or INVALID, and why not VALID."""
    runs = {run["run"]: run["label"] for run in summary["runs"]}
    found = Findings()
    for phase in summary["phases"]:
        rate = f"{phase['label']}: "
        for row in phase.get("deaths", ()):
            at = f"{runs[row['run']]}, {rate}"
            found.look_at_death(at, row["region"], row["last_words"])
        for row in phase["health"]:
            found.look_at_health(f"{runs[row['run']]}, {rate}", row)
        for row in phase.get("histories", ()):
            at = f"{runs[row['run']]}, {rate}"
            found.look_at_history(at, row["verdict"], row["sentence"])
        for row in phase["conflicts"]:
            found.look_at_slow_paths(f"{runs[row['run']]}, {rate}", row["unexplained"])
        for cell in phase["cells"]:
            at = f"{runs[cell['run']]} in {cell['region']}, {rate}"
            found.look_at_samples(at, cell["samples"])
            found.look_at_fates(at, cell["fates"])
    return found.validity, found.reasons
