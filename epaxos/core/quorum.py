"""Quorum sizes for every n from 1 to 9, and who has answered.

EPaxos* needs n >= max(2e + f - 1, 2f + 1), where f replicas may crash and the fast path survives e
crashes (EPaxos*, model section; R17). Both quorums include the command leader. Multi-Paxos uses the
slow quorum, which for n = 2f + 1 is the majority.
"""

from typing import NamedTuple

from epaxos.core.errors import ConfigError
from epaxos.core.types import REPLICAS_MAX, ReplicaId


class Quorums(NamedTuple):
    """The sizes for one n."""

    n: int
    f: int
    """How many crashes the cluster survives."""
    e: int
    """How many crashes the fast path survives; e <= f."""
    fast: int
    """n - e: equal answers, the command leader's own among them, that commit in one round trip."""
    slow: int
    """n - f: answers that complete every other round."""


def quorums(n: int) -> Quorums:
    """The sizes for a cluster of `n` replicas. Raises ConfigError unless 1 <= n <= 9."""
    if not 1 <= n <= REPLICAS_MAX:
        raise ConfigError(f"a cluster has 1 to {REPLICAS_MAX} replicas, not {n}")
    f = (n - 1) // 2
    e = min(f, (n - f + 1) // 2)
    return Quorums(n, f, e, n - e, n - f)


class Tally:
    """Who has answered. Counts replicas, never messages, so that duplicates count once."""

    __slots__ = ("_members", "count")

    def __init__(self, *members: ReplicaId) -> None:
        self._members = 0
        self.count = 0
        """How many different replicas have answered."""
        for member in members:
            self.add(member)

    def add(self, member: ReplicaId) -> bool:
        """Count `member`; False if it was counted before."""
        bit = 1 << member
        if self._members & bit:
            return False
        self._members |= bit
        self.count += 1
        return True

    def __contains__(self, member: ReplicaId) -> bool:
        return bool(self._members >> member & 1)
