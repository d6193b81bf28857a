"""Silences and their limits: a follower's election time-out, a leader's check of its quorum.

Rules of this file: times are the caller's; no timer is armed here.
Source: docs/protocol.md 5.1 (election, check-quorum).
"""

from random import Random

from epaxos.core.types import Micros
from epaxos.protocols.leader_based.members import RTT_FLOOR_US, Members

PATIENCE_RTTS = 10
"""T, the shortest silence of a leader that matters, in configured RTT_max."""

PATIENCE_FLOOR_US = 1_000_000
"""T is never less."""


class Patience:
    """Election time-out of one member, and when it last heard whom it follows."""

    __slots__ = ("_random", "heard_at", "timeout", "us")

    def __init__(self, rtt_us: tuple[Micros, ...], random: Random) -> None:
        self._random = random
        self.us: Micros = max(PATIENCE_RTTS * max(RTT_FLOOR_US, *rtt_us), PATIENCE_FLOOR_US)
        """T, in µs; election time-outs are drawn from T .. 2T."""
        self.timeout: Micros = 0
        """The election time-out, as last drawn."""
        self.heard_at: Micros | None = None
        """When the leader, or a candidate we promised, was last heard; None: there is neither."""

    def draw(self, now: Micros) -> Micros:
        """A new election time-out; returns when it ends if it begins now."""
        self.timeout = self._random.randint(self.us, 2 * self.us)
        return now + self.timeout

    def ends_at(self) -> Micros | None:
        """The end of the election time-out since the leader or candidate was heard; None: there is
        neither."""
        return None if self.heard_at is None else self.heard_at + self.timeout

    def is_heard(self, now: Micros) -> bool:
        """Whether a leader or candidate was heard within T."""
        return self.heard_at is not None and now - self.heard_at < self.us


class CheckQuorum:
    """Loss of a leader's majority: a leader that has not heard one for T steps down."""

    __slots__ = ("_checked_at", "_since")

    def __init__(self, now: Micros) -> None:
        self._since = now
        """Silences count from here on."""
        self._checked_at = now

    def is_lost(self, members: Members, majority: int, patience_us: Micros, now: Micros) -> bool:
        """Look around at least every T: whether fewer than `majority` members, ourselves included,
        were heard for T."""
        if now - self._checked_at > patience_us:
            self._since = now  # We were stopped ourselves; what they said is yet to come.
        self._checked_at = now
        since = now - patience_us
        return self._since <= since and members.heard_since(since) < majority
