"""What a node tells people about itself: status, one instance, the dependency graph.

Values that JSON can say; ids as `A.7`, keys as text with backslash escapes. Nothing here changes
anything.
"""

from typing import Any

from epaxos.core.replica import Replica
from epaxos.core.types import Deps, InstanceId, ReplicaId, replica_name
from epaxos.execution.interface import Executor


def status_document(replica: Replica, executor: Executor, has_leader: bool) -> dict[str, Any]:
    """Vectors, memory, and who holds things back."""
    document: dict[str, Any] = {
        "executed": list(executor.executed),
        "floor": list(replica.floor),
        "pending": len(executor.pending()),
        "live_bytes": replica.live_bytes,
        "slowest_member": _name(replica.slowest_member()),
    }
    if has_leader:
        document["leader"] = _name(replica.leader)
    return document


def instance_document(
    replica: Replica, executor: Executor, instance: InstanceId
) -> dict[str, Any] | None:
    """One instance as this replica knows it; None if nothing is known."""
    document = replica.describe(instance)
    if document is None:
        return None
    blocked = executor.blocked().get(instance)
    return {
        **document,
        "executed": executor.is_executed(*instance),
        "blocked_on": None if blocked is None else str(blocked),
    }


def graph_document(
    me: ReplicaId, replica: Replica, executor: Executor, limit: int
) -> dict[str, Any]:
    """The newest committed instances above floor with their edges (R6).

    At most `limit` instances; an edge leads to an interfering one of the closed prefix."""
    ids = [(each.replica, each.slot) for each in executor.pending()]
    for column, executed in enumerate(executor.executed):
        low = replica.floor[column] if column < len(replica.floor) else 0
        ids += [(column, slot) for slot in range(max(low, executed - limit) + 1, executed + 1)]
    newest = sorted(set(ids), key=lambda each: (each[1], each[0]), reverse=True)[:limit]
    nodes = []
    for key in sorted(newest):
        known = replica.describe(InstanceId(*key))
        if known is not None and known.get("phase") in ("committed", "chosen"):
            nodes.append((key, known))
    return {
        "replica": replica_name(me),
        "instances": [
            {
                "id": str(InstanceId(*key)),
                "deps": {replica_name(q): slot for q, slot in enumerate(known["deps"]) if slot},
                "keys": sorted({*known["writes"], *known["reads"]}),
                "status": "executed" if executor.is_executed(*key) else "committed",
                "nop": known["nop"],
            }
            for key, known in nodes
        ],
        "edges": _edges(nodes),
    }


def _edges(nodes: list[tuple[tuple[int, int], dict[str, Any]]]) -> list[list[str]]:
    touched: dict[str, list[int]] = {}
    for position, (_, known) in enumerate(nodes):
        for key in {*known["writes"], *known["reads"]}:
            touched.setdefault(key, []).append(position)
    edges = []
    for position, (mine, known) in enumerate(nodes):
        deps: Deps = tuple(known["deps"])
        writes = set(known["writes"])
        others: dict[int, None] = {}
        for key in sorted({*known["writes"], *known["reads"]}):
            for other in touched[key]:
                theirs, their = nodes[other]
                named = theirs[0] < len(deps) and theirs[1] <= deps[theirs[0]]
                if other != position and named and (key in writes or key in their["writes"]):
                    others[other] = None
        edges += [
            [str(InstanceId(*mine)), str(InstanceId(*nodes[other][0]))] for other in sorted(others)
        ]
    return edges


def _name(replica: ReplicaId | None) -> str | None:
    return None if replica is None else replica_name(replica)
