"""Members of the cluster as one of them knows them: heard when, how far away, how far along.

Rules of this file: vectors only grow; what is measured is never more than a stopped clock allows.
Source: docs/protocol.md 1.14 (R15: forgetting; the times).
"""

from epaxos.core.types import Micros, ReplicaId, Slot

RTT_FLOOR_US = 40_000
"""RTT_max is never taken for less."""

SUSPECT_RTTS = 10
"""A member not heard for so many RTT_max does not count in RTT_max."""

WAIT_CAP_RTTS = 36
"""Every wait that doubles ends at so many RTT_max,"""

WAIT_CAP_FLOOR_US = 1_500_000
"""or at this, whichever is longer."""


class Members:
    """What the members said of themselves, and how far away they are."""

    __slots__ = (
        "_me",
        "_measured",
        "_probed",
        "_rtt",
        "_stamp",
        "_stamp_at",
        "chosen",
        "executed",
        "heard",
        "rtt_max",
        "stable",
    )

    def __init__(self, me: ReplicaId, rtt_us: tuple[Micros, ...]) -> None:
        n = len(rtt_us)
        self._me = me
        self._rtt = list(rtt_us)
        self._measured = [False] * n
        self._probed = [True] * n
        """Whether a heartbeat of ours has left since that member's last echo was measured."""
        self._stamp = [0] * n
        self._stamp_at: list[Micros] = [0] * n
        self.heard: list[Micros | None] = [None] * n
        """When any message of a member last arrived."""
        self.executed: list[Slot] = [0] * n
        """Executed and durable, per member. Only grows."""
        self.stable: list[Slot] = [0] * n
        """The minimum of all executed, as each member advertised it. Only grows."""
        self.chosen: list[Slot] = [0] * n
        """What each member knows chosen without a gap, as it last said."""
        self.rtt_max: Micros = max(RTT_FLOOR_US, *rtt_us)
        """The unit of all waits."""

    # Heartbeats.

    def advance(self, source: ReplicaId, executed: Slot, stable: Slot, chosen: Slot) -> None:
        """Take in how far along a member says it is."""
        self.executed[source] = max(self.executed[source], executed)
        self.stable[source] = max(self.stable[source], stable)
        self.chosen[source] = chosen

    def measure(self, source: ReplicaId, stamp: int, echo: int, now: Micros) -> None:
        """Take in a member's `stamp`, to be echoed, and its echo of ours: a round trip."""
        is_copy = stamp == self._stamp[source]
        self._stamp[source] = stamp
        self._stamp_at[source] = now
        # One sample per stamp of ours: what was stamped before our clock jumped is echoed again and
        # again, until we speak.
        if 0 < echo <= now and not is_copy and self._probed[source]:
            self._probed[source] = False
            # A process that stood still, or whose clock jumped, must not take its round trips for
            # minutes: one sample counts for at most twice what was known.
            measured = min(now - echo, 2 * self._rtt[source] + RTT_FLOOR_US)
            if self._measured[source]:
                measured = (7 * self._rtt[source] + measured) // 8
            self._rtt[source] = measured
            self._measured[source] = True
            self._renew_rtt_max(now)

    def echo(self, now: Micros) -> tuple[int, ...]:
        """Per member the last stamp heard, moved forward by the time it was held here; 0: none.
        Goes into a heartbeat sent now."""
        self._probed = [True] * len(self._stamp)
        return tuple(stamp and stamp + now - at for stamp, at in zip(self._stamp, self._stamp_at))

    # What follows from it.

    def renew_floor(self) -> Slot:
        """Renew our own stable, and say up to where every member knows that every member has
        executed (R15)."""
        stable = min(self.executed)
        if stable > self.stable[self._me]:
            self.stable[self._me] = stable
        return min(self.stable)

    def slowest(self) -> ReplicaId:
        """Who has executed least; among those, who knows least of the others."""
        members = range(len(self.executed))
        return min(members, key=lambda q: (self.executed[q], self.stable[q], q))

    def heard_since(self, since: Micros) -> int:
        """How many members, ourselves included, were heard at or after `since`."""
        return 1 + sum(at is not None and at >= since for at in self.heard)

    def wait(self, attempts: int) -> Micros:
        """2.3 RTT_max, doubled with every attempt, up to the one cap."""
        cap = max(WAIT_CAP_RTTS * self.rtt_max, WAIT_CAP_FLOOR_US)
        return min((self.rtt_max * 23 // 10) << min(attempts, 16), cap)

    def _renew_rtt_max(self, now: Micros) -> None:
        patience = SUSPECT_RTTS * self.rtt_max
        self.rtt_max = max(
            RTT_FLOOR_US,
            *(rtt for rtt, at in zip(self._rtt, self.heard) if at is None or now - at < patience),
        )
