"""What physics and the disks allow for commands of one region: the closed form with its syncs.

Round trips to the quorum, plus the medians of the syncs on the way, plus the client's own hop. On
the way are three syncs on the fast path of EPaxos: command leader, the slowest of its quorum, and
the command leader's commit. The slow path has four: what its second quorum holds needs no more to
be committed. A leader protocol has two. Of a protocol without a closed form nothing is known.

Rules of this file: pure; milliseconds; a healthy cluster.
"""

from collections.abc import Sequence

import msgspec

from epaxos.registry import find_protocol
from topology import Topology, predict_epaxos, predict_leader


class Optimum(msgspec.Struct, frozen=True, kw_only=True):
    """Latencies that nothing beats."""

    fast_ms: float | None
    """EPaxos: the fast path. Leader protocols: the only path. None: not known."""
    slow_ms: float | None
    """EPaxos: the slow path. None for leader protocols."""
    network_ms: float | None
    """The round trips alone, of the fast path."""
    sync_ms: float | None
    """The syncs alone, of the fast path."""
    hop_ms: float
    """Between client and replica."""
    quorum: list[str]
    """Names of the regions whose answers complete the fast path."""


def optimum(
    protocol: str,
    sites: Topology,
    leader: int | None,
    sync_us: Sequence[int],
    replica: int,
    hop_us: float,
) -> Optimum:
    """Of commands that reach `replica`, from clients so far away. `leader`: None for EPaxos;
    `sync_us`: median of each replica. Raises ConfigError for an unknown protocol."""
    hop_ms = hop_us / 1000
    if not find_protocol(protocol).optimum:
        unknown = None
        return Optimum(
            fast_ms=unknown,
            slow_ms=unknown,
            network_ms=unknown,
            sync_ms=unknown,
            hop_ms=round(hop_ms, 3),
            quorum=[],
        )
    predictions = predict_epaxos(sites) if leader is None else predict_leader(sites, leader)
    prediction = predictions[replica]
    asker = replica if leader is None else leader
    syncs = [each / 1000 for each in sync_us]
    # One replica alone decides in the step in which it proposes.
    round_ms = syncs[asker] + max((syncs[i] for i in prediction.quorum if i != asker), default=0.0)
    sync_ms = round_ms + syncs[asker] if leader is None and sites.n > 1 else round_ms
    return Optimum(
        fast_ms=round(prediction.fast_ms + sync_ms + hop_ms, 3),
        slow_ms=round(prediction.slow_ms + 2 * round_ms + hop_ms, 3) if leader is None else None,
        network_ms=round(prediction.fast_ms, 3),
        sync_ms=round(sync_ms, 3),
        hop_ms=round(hop_ms, 3),
        quorum=[sites.regions[i].name for i in prediction.quorum],
    )
