"""When a decided instance of EPaxos* may execute: at once, or with its component, or not yet.

Most instances depend on nothing that is not executed; one comparison of vectors lets them through.
Any other waits until its whole prefix is committed, column by column, and then enters the graph.
A waiting instance is touched once per column of its prefix, never per arrival.

Source: EPaxos*, execution; rules R3, R5, R6 of docs/protocol.md. Nops count as executed when they
are committed. Does not know what a command does, nor why something is not committed.
"""

from operator import gt

from epaxos.core.errors import StorageError
from epaxos.core.replica import Decided
from epaxos.core.types import InstanceId, ReplicaId, Slot
from epaxos.execution.graph import Graph, Vertex
from epaxos.execution.interface import BLOCKED_MAX

_ABSENT = Vertex(None)


class GraphExecutor:
    """The `Executor` of protocols whose decisions carry dependencies."""

    def __init__(self, n: int) -> None:
        self.executed: list[Slot] = [0] * n
        self._committed: list[Slot] = [0] * n
        """Per column: every slot up to it is committed."""
        self._beyond: list[dict[Slot, Vertex | None]] = [{} for _ in range(n)]
        """Per column, what is committed above `executed`; None: it has executed."""
        self._waiting: list[dict[Slot, list[Vertex]]] = [{} for _ in range(n)]
        """Per column: who waits until everything up to that slot is committed."""
        self._graph = Graph()
        self._arrived: list[Decided] = []
        self._restored: dict[tuple[ReplicaId, Slot], Decided] = {}
        """During restore: what is committed and not yet replayed."""
        self._out: list[list[Decided]] = []
        self._counts = dict.fromkeys(
            (
                "components",
                "components_2",
                "components_3_4",
                "components_5",
                "component_max",
                "dependency_on_nop",
                "blocked",
            ),
            0,
        )

    def commit(self, decided: Decided) -> None:
        self._arrived.append(decided)

    def ready(self) -> list[list[Decided]]:
        if self._restored:
            self._arrived[:0] = self._restored.values()
            self._restored = {}
        if not self._arrived:
            return []
        arrived, self._arrived = self._arrived, []
        executed, committed = self.executed, self._committed
        out = self._out
        for decided in arrived:
            replica, slot, deps, payload, _ = decided
            beyond = self._beyond[replica]
            vertex = None
            if payload is None or not any(map(gt, deps, executed)):
                if payload is None and self._waiting[replica]:
                    self._count_nop(replica, slot)
                out.append([decided])
                if slot == executed[replica] + 1 and not beyond:
                    executed[replica] = slot
                else:
                    self._mark(replica, slot)
            else:
                vertex = beyond[slot] = self._graph.add(decided)
            if slot == committed[replica] + 1:
                self._advance(replica, slot)
            if vertex is not None:
                self._settle(vertex)
        self._out = []
        self._counts["components"] += len(out)
        return out

    def replay(self, ids: list[InstanceId]) -> list[Decided]:
        assert not any(self._waiting), "restore comes before execution"
        for decided in self._arrived:
            self._restored[decided.replica, decided.slot] = decided
        self._arrived.clear()
        replayed = []
        for instance in ids:
            found = self._restored.pop(instance, None)
            if found is None:
                raise StorageError(f"the log says that {instance} was executed, but not what it is")
            replayed.append(found)
            self._mark(*instance)
            if instance.slot == self._committed[instance.replica] + 1:
                self._advance(*instance)
        return replayed

    def is_executed(self, replica: ReplicaId, slot: Slot) -> bool:
        return slot <= self.executed[replica] or self._beyond[replica].get(slot, _ABSENT) is None

    def blocked(self) -> dict[InstanceId, InstanceId]:
        found: dict[InstanceId, InstanceId] = {}
        for replica, beyond in enumerate(self._beyond):
            for slot, vertex in beyond.items():
                if vertex is None:
                    continue
                if len(found) == BLOCKED_MAX:
                    return found
                missing = self._missing(vertex)
                if missing is not None:
                    found[InstanceId(replica, slot)] = missing
        return found

    def blocked_on(self, instance: InstanceId) -> InstanceId | None:
        vertex = self._beyond[instance.replica].get(instance.slot)
        return None if vertex is None else self._missing(vertex)

    def _missing(self, vertex: Vertex) -> InstanceId | None:
        held_up = self._graph.blocked_on(vertex).decided
        assert held_up is not None
        for column, needed in enumerate(held_up.deps):
            if needed > self._committed[column]:
                return InstanceId(column, self._committed[column] + 1)
        return None

    def pending(self) -> list[Decided]:
        waiting = [*self._arrived, *self._restored.values()]
        for beyond in self._beyond:
            waiting += [
                vertex.decided
                for vertex in beyond.values()
                if vertex is not None and vertex.decided is not None
            ]
        return sorted(waiting, key=lambda decided: (decided.replica, decided.slot))

    def statistics(self) -> dict[str, int]:
        return dict(self._counts)

    def held(self) -> dict[str, int]:
        return {
            "arrived": len(self._arrived) + len(self._restored),
            "beyond gaps": sum(map(len, self._beyond)),
            "waiting for prefixes": sum(map(len, self._waiting)),
            "graph": len(self._graph),
        }

    def _mark(self, replica: ReplicaId, slot: Slot) -> None:
        beyond = self._beyond[replica]
        if slot != self.executed[replica] + 1:
            beyond[slot] = None
            return
        beyond.pop(slot, None)
        while beyond.get(slot + 1, _ABSENT) is None:
            slot += 1
            del beyond[slot]
        self.executed[replica] = slot

    def _advance(self, replica: ReplicaId, slot: Slot) -> None:
        """That id, the first that was not committed in its column, is: who waited for it?"""
        beyond = self._beyond[replica]
        assert slot == self._committed[replica] + 1, "prefixes grow without gaps"
        first = slot
        slot = max(slot, self.executed[replica])
        while slot + 1 in beyond:
            slot += 1
        self._committed[replica] = slot
        waiting = self._waiting[replica]
        if waiting:
            for needed in range(first, slot + 1):
                for vertex in waiting.pop(needed, ()):
                    self._settle(vertex)

    def _settle(self, vertex: Vertex) -> None:
        """Wait for the next column of the vertex's prefix that has a gap; none: search."""
        decided = vertex.decided
        assert decided is not None
        for replica, needed in enumerate(decided.deps):
            if needed > self._committed[replica]:
                self._waiting[replica].setdefault(needed, []).append(vertex)
                self._counts["blocked"] += 1
                return
        self._graph.close(vertex, self.executed)
        for component in self._graph.take():
            self._out.append(component)
            self._count_component(len(component))
            for each in component:
                self._mark(each.replica, each.slot)

    def _count_component(self, size: int) -> None:
        counts = self._counts
        if size == 2:
            counts["components_2"] += 1
        elif size in (3, 4):
            counts["components_3_4"] += 1
        elif size >= 5:
            counts["components_5"] += 1
        counts["component_max"] = max(counts["component_max"], size)

    def _count_nop(self, replica: ReplicaId, slot: Slot) -> None:
        if any(needed >= slot for needed in self._waiting[replica]):
            self._counts["dependency_on_nop"] += 1
