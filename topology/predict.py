"""Closed-form latency of a command, per protocol and region of its client.

EPaxos* at command leader c: the fast path takes the round trip to the (fast - 1)-th nearest living
member, the slow path that plus the round trip to the (slow - 1)-th nearest. Multi-Paxos with
leader L: the round trip from c to L plus L's round trip to its (majority - 1)-th nearest. Both
quorums include the one who asks (data/SOURCES.md, analytic oracle). To that come the syncs on the
way (three on the fast path, four on the slow one, two with a leader) and the client's hop.

Rules of this file: milliseconds; no measurements, only the matrix and what is passed in.
"""

from collections.abc import Collection
from dataclasses import dataclass

from topology.regions import Topology, TopologyError


@dataclass(frozen=True)
class Prediction:
    """What physics allows for the clients of one region."""

    region: int
    """Index of the client's region; its replica is there too."""
    fast_ms: float
    """EPaxos: the fast path. Leader protocols: the only path."""
    slow_ms: float
    """EPaxos: the slow path. Leader protocols: the same as fast."""
    quorum: tuple[int, ...]
    """The regions whose answers complete the fast path, the asker included (leader protocols: the
    leader's quorum)."""
    leader: int | None
    """Leader protocols: the leader's region."""


def quorum_sizes(n: int) -> tuple[int, int]:
    """Fast and slow quorum of n replicas, both with the command leader.

    f = (n - 1) // 2, e = min(f, (n - f + 1) // 2): n - e and n - f."""
    f = (n - 1) // 2
    e = min(f, (n - f + 1) // 2)
    return n - e, n - f


def predict_epaxos(
    topology: Topology, alive: Collection[int] | None = None, added_ms: float = 0.0
) -> list[Prediction]:
    """One prediction per region, in order; regions of dead replicas are left out.

    Where fewer than a fast quorum live, the fast path is the slow one. `added_ms` is what syncs and
    the client's hop add. Raises TopologyError when no slow quorum lives."""
    members = _members(topology, alive)
    fast, slow = quorum_sizes(topology.n)
    if len(members) < slow:
        raise TopologyError(f"{len(members)} living replicas are fewer than the quorum of {slow}")
    found = []
    for region in members:
        near = _nearest(topology, region, members)
        accept_ms = _reach_ms(topology, region, near, slow)
        first_ms = _reach_ms(topology, region, near, fast if len(members) >= fast else slow)
        slow_ms = first_ms + accept_ms + added_ms
        has_fast = len(members) >= fast
        size = fast if has_fast else slow
        found.append(
            Prediction(
                region,
                first_ms + added_ms if has_fast else slow_ms,
                slow_ms,
                (region, *near[: size - 1]),
                None,
            )
        )
    return found


def predict_leader(
    topology: Topology,
    leader: int,
    alive: Collection[int] | None = None,
    added_ms: float = 0.0,
) -> list[Prediction]:
    """Multi-Paxos or Raft with its leader in region `leader`; as `predict_epaxos` otherwise."""
    members = _members(topology, alive)
    majority = topology.n // 2 + 1
    if leader not in members or len(members) < majority:
        raise TopologyError("the leader and a majority must live")
    near = _nearest(topology, leader, members)
    commit_ms = _reach_ms(topology, leader, near, majority)
    quorum = (leader, *near[: majority - 1])
    return [
        Prediction(
            region,
            ms := _hop_ms(topology, region, leader) + commit_ms + added_ms,
            ms,
            quorum,
            leader,
        )
        for region in members
    ]


def _members(topology: Topology, alive: Collection[int] | None) -> list[int]:
    return list(range(topology.n)) if alive is None else sorted(set(alive))


def _hop_ms(topology: Topology, i: int, j: int) -> float:
    return 0.0 if i == j else topology.rtt_ms(i, j)


def _nearest(topology: Topology, region: int, members: list[int]) -> list[int]:
    others = [member for member in members if member != region]
    return sorted(others, key=lambda member: (topology.rtt_ms(region, member), member))


def _reach_ms(topology: Topology, region: int, near: list[int], size: int) -> float:
    """Round trip that completes a quorum of `size`, the asker included."""
    return 0.0 if size <= 1 else topology.rtt_ms(region, near[size - 2])
