"""Bugs about the order in which decided batches run, and when they may."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from epaxos.core.command import Footprint, Payload, Results
from epaxos.core.replica import Decided, Replica, Setup
from epaxos.core.types import InstanceId, ReplicaId, Slot
from epaxos.execution.graph_executor import GraphExecutor
from epaxos.execution.interface import Executor
from epaxos.execution.store import Store
from epaxos.node.node import Node
from epaxos.node.requests import Limits
from epaxos.protocols.epaxos.replica import EPaxosReplica
from epaxos.registry import ProtocolSpec
from epaxos.sim.check.checkers import (
    CONVERGES,
    EXECUTES,
    IN_ORDER,
    LINEARIZABLE,
    ORDER,
    PREMATURE,
    RAISES,
)
from epaxos.sim.museum.exhibit import (
    Directed,
    Exhibit,
    Swarm,
    in_executor,
    in_node,
    must_be_equal,
    must_be_executed,
)
from epaxos.sim.planted import Planted
from epaxos.sim.schedule.recipes import ask, exchange, preaccept
from epaxos.sim.schedule.stage import Stage

Id = tuple[ReplicaId, Slot]

_ONE_ORDER = (ORDER, LINEARIZABLE, CONVERGES)
_CONTENDED = {"keys": 1, "gate": False, "active_us": 800_000}


class _Plain:
    """An executor as short as it can be: what is known, what has run, and a rule for the next."""

    def __init__(self, n: int) -> None:
        self.executed: list[Slot] = [0] * n
        self._known: dict[Id, Decided] = {}
        self._done: set[Id] = set()

    def commit(self, decided: Decided) -> None:
        self._known[decided.replica, decided.slot] = decided

    def ready(self) -> list[list[Decided]]:
        found = []
        while (component := self._next()) is not None:
            for each in component:
                del self._known[each.replica, each.slot]
                self._mark(each.replica, each.slot)
            found.append(component)
        return found

    def replay(self, ids: list[InstanceId]) -> list[Decided]:
        replayed = [self._known.pop((each.replica, each.slot)) for each in ids]
        for each in ids:
            self._mark(*each)
        return replayed

    def is_executed(self, replica: ReplicaId, slot: Slot) -> bool:
        return (replica, slot) in self._done

    def blocked(self) -> dict[InstanceId, InstanceId]:
        return {}

    def blocked_on(self, instance: InstanceId) -> InstanceId | None:
        return None

    def pending(self) -> list[Decided]:
        return [self._known[key] for key in sorted(self._known)]

    def statistics(self) -> dict[str, int]:
        return {}

    def held(self) -> dict[str, int]:
        return {"known": len(self._known)}

    def _next(self) -> list[Decided] | None:
        raise NotImplementedError

    def _mark(self, replica: ReplicaId, slot: Slot) -> None:
        self._done.add((replica, slot))
        while (replica, self.executed[replica] + 1) in self._done:
            self.executed[replica] += 1


class _SingleEdges(_Plain):
    def _next(self) -> list[Decided] | None:
        for each in self._known.values():
            if all(
                not slot or (column, slot) in self._done for column, slot in enumerate(each.deps)
            ):
                return [each]
        return None


class _WhatIsKnown(_Plain):
    def _next(self) -> list[Decided] | None:
        for key, each in self._known.items():
            named = (
                [
                    other
                    for other in self._known.values()
                    if other is not each
                    and other.slot <= each.deps[other.replica]
                    and not (
                        key[1] <= other.deps[key[0]] and (each.slot, each.replica) < _place(other)
                    )
                ]
                if each.payload is not None
                else []
            )
            if not named:
                return [each]
        return None


def _place(decided: Decided) -> tuple[Slot, ReplicaId]:
    return decided.slot, decided.replica


class _TiesByArrival(GraphExecutor):
    def __init__(self, n: int) -> None:
        super().__init__(n)
        self._came: dict[Id, int] = {}

    def commit(self, decided: Decided) -> None:
        super().commit(decided)
        self._came[decided.replica, decided.slot] = len(self._came)

    def ready(self) -> list[list[Decided]]:
        return [
            sorted(component, key=lambda each: self._came[each.replica, each.slot])
            for component in super().ready()
        ]


class _Recursive(_Plain):
    """The textbook's search for components."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self._missing: dict[Id, Id] = {}
        """Why an earlier search from here came to nothing."""
        self._seen: dict[Id, int] = {}
        self._stack: list[Id] = []

    def _next(self) -> list[Decided] | None:
        for key in reversed(self._known):
            self._seen, self._stack = {}, []
            found = self._visit(key)
            if isinstance(found, list):
                return found
        return None

    def _visit(self, key: Id) -> list[Decided] | int | None:
        """A component that may run; or the lowest number reached; None: something is missing."""
        each = self._known.get(key)
        missing = self._missing.get(key, key)
        if each is None or (missing not in self._known and missing not in self._done):
            return None
        number = low = self._seen[key] = len(self._seen)
        self._stack.append(key)
        for column, top in enumerate(each.deps):
            for slot in range(top, self.executed[column], -1):
                other = (column, slot)
                if other in self._done or other == key:
                    continue
                if other in self._seen:
                    low = min(low, self._seen[other])
                    continue
                reached = self._visit(other)
                if reached is None:
                    self._missing[key] = self._missing.get(other, other)
                    return None
                if isinstance(reached, list):
                    return reached
                low = min(low, reached)
        if low < number:
            return low
        members = self._stack[self._stack.index(key) :]
        return sorted((self._known[member] for member in members), key=_place)


class _HeadOfLine(GraphExecutor):
    def ready(self) -> list[list[Decided]]:
        if any(a > b for each in self._arrived for a, b in zip(each.deps, self.executed)):
            return []
        return super().ready()


class _Unpruned:
    """A true executor to which every batch seems to write one more key, the same for all."""

    def __init__(self, n: int) -> None:
        self._inner = GraphExecutor(n)
        self.executed = self._inner.executed
        self._true: dict[Id, Decided] = {}

    def commit(self, decided: Decided) -> None:
        self._true[decided.replica, decided.slot] = decided
        if decided.payload is not None:
            batch = decided.payload.batch
            seeming = Payload(batch, decided.payload.encoded)
            seeming.footprint = Footprint([*batch.keys, b"*"], ())
            decided = decided._replace(payload=seeming)
        self._inner.commit(decided)

    def ready(self) -> list[list[Decided]]:
        return [
            [self._true[each.replica, each.slot] for each in component]
            for component in self._inner.ready()
        ]

    def replay(self, ids: list[InstanceId]) -> list[Decided]:
        return [self._true[each.replica, each.slot] for each in self._inner.replay(ids)]

    def is_executed(self, replica: ReplicaId, slot: Slot) -> bool:
        return self._inner.is_executed(replica, slot)

    def blocked(self) -> dict[InstanceId, InstanceId]:
        return self._inner.blocked()

    def blocked_on(self, instance: InstanceId) -> InstanceId | None:
        return self._inner.blocked_on(instance)

    def pending(self) -> list[Decided]:
        return self._inner.pending()

    def statistics(self) -> dict[str, int]:
        return self._inner.statistics()

    def held(self) -> dict[str, int]:
        return self._inner.held()


class _Revisions(Store):
    """Every write has the number that one counter gives it."""

    def __init__(self) -> None:
        super().__init__()
        self._writes = 0

    def apply(self, decided: Decided) -> None:
        super().apply(self._numbered(decided))

    def answer(self, decided: Decided) -> Results:
        return super().answer(self._numbered(decided))

    def _numbered(self, decided: Decided) -> Decided:
        self._writes += 1
        return decided._replace(slot=self._writes)


class _CountsWrites(Node):
    def __init__(self, protocol: ProtocolSpec, setup: Setup, boot: int, limits: Limits) -> None:
        super().__init__(protocol, setup, boot, limits)
        self.store = _Revisions()


@contextmanager
def _unpruned_at_b(spec: ProtocolSpec) -> Iterator[Planted]:
    """A node builds its replica, then its executor; only B's is another one."""
    latest: list[ReplicaId] = [0]

    def build_replica(setup: Setup) -> Replica:
        latest[0] = setup.me
        return EPaxosReplica(setup)

    def build_executor(n: int) -> Executor:
        return _Unpruned(n) if latest[0] == 1 else GraphExecutor(n)

    yield Planted(replace(spec, replica=build_replica, executor=build_executor))


def _a_gap_below(stage: Stage) -> None:
    """E decides E.1 with B and C. E.2 reaches nobody. A's batch sees E.2 at E and nothing at D, so
    its deps name E's column up to 2. A recovers E.2 as Nop. B hears of E.1 first, C of A's batch
    first."""
    stage.put("E", "x")
    preaccept(stage, "E", "E.1", "B", "C")
    stage.put("E", "x")
    stage.drop("E>", "PreAccept", "E.2")
    stage.put("A", "x")
    preaccept(stage, "A", "A.1", "D", "E")
    for member in "DE":
        stage.deliver(f"A>{member}", "AcceptShort")
        stage.deliver(f"{member}>A", "AcceptOk")
    ask(stage, "A", "E.2", "B", "C")
    for member in "BC":
        stage.deliver(f"A>{member}", "Accept", "E.2")
        stage.deliver(f"{member}>A", "AcceptOk", "E.2")
        stage.deliver(f"A>{member}", "PreAccept", "A.1")
    stage.deliver("E>B", "CommitShort", "E.1")
    for member in "BC":
        stage.deliver(f"A>{member}", "CommitShort", "A.1")
        stage.deliver(f"A>{member}", "Commit", "E.2")
    stage.deliver("E>C", "CommitShort", "E.1")


def _two_writes_that_commute(stage: Stage) -> None:
    """A writes one key and C another; each executes its own batch before it hears of the other."""
    stage.put("A", "x")
    stage.put("C", "y")
    preaccept(stage, "A", "A.1", "B")
    preaccept(stage, "C", "C.1", "B")
    stage.deliver_all()
    must_be_equal(stage, "A", "C")


def _a_cycle_through_another_key(stage: Stage) -> None:
    """C's batch on x and y follows B's on y, which follows A's second, on y, which follows C's.
    A's first, on x, follows C's too; B's names it only because it names A's second."""
    stage.put("C", "x", "y")
    stage.put("A", "x")
    stage.put("A", "y")
    stage.put("B", "y")
    for way, name in (("C>B", "C.1"), ("A>C", "A.1"), ("A>C", "A.2"), ("B>A", "B.1")):
        preaccept(stage, way[0], name, way[2])
        stage.deliver(way, "AcceptShort", name)
        stage.deliver(f"{way[2]}>{way[0]}", "AcceptOk", name)
    stage.deliver_all()


def _a_batch_that_waits(stage: Stage) -> None:
    """A's batch meets one of B at A; B is dead, and nobody else has heard of that. C's batch has
    nothing to do with either."""
    stage.put("B", "x")
    stage.deliver("B>A", "PreAccept")
    stage.crash("B")
    stage.drop_all()
    stage.put("A", "x")
    preaccept(stage, "A", "A.1", "C")
    stage.put("C", "y")
    preaccept(stage, "C", "C.1", "A")
    stage.deliver("C>A", "CommitShort")
    must_be_executed(stage, "A", "C.1")


CHAIN = 1_000
"""Long enough for the interpreter's stack."""


def _a_long_chain(stage: Stage) -> None:
    """B's batch is known to A and not decided. A decides a thousand batches on the same key with C,
    which all wait for it. Then B decides."""
    stage.put("B", "x")
    stage.deliver("B>A", "PreAccept")
    for _ in range(CHAIN):
        stage.put("A", "x")
        stage.drop("A>B", "PreAccept|CommitShort")
        exchange(stage, "A>C", "PreAccept")
        stage.drop("A>C")
    stage.deliver("A>B", "PreAcceptOk")
    stage.deliver("B>A", "CommitShort")


EXHIBITS = (
    Exhibit(
        name="single-edges",
        title="Deps that name a column's latest instance are read as that one instance",
        source="Whittaker, bipartisan_paxos (epaxos_bugs); protocol.md 2.8 and 1.9",
        story="One number per column is a short way to write a set of dependencies: everything up "
        "to it. Read as the one instance it names, with the rest to be reached through that, it "
        "loses the rest when that instance becomes Nop, for a Nop has no deps. Two replicas then "
        "run two writes of one key in different orders.",
        plant=in_executor(_SingleEdges),
        properties=(PREMATURE,),
        search=Directed(5, _a_gap_below),
    ),
    Exhibit(
        name="uncommitted-dependency",
        title="A batch runs before all that it depends on is decided",
        source="protocol.md 3",
        story="A dependency that is not decided yet is left out, in the hope that it will come to "
        "nothing or later. Where its decision has arrived it is not left out. The same two writes "
        "run in one order here and in the other there.",
        plant=in_executor(_WhatIsKnown),
        properties=(PREMATURE, *_ONE_ORDER),
        search=Swarm((3,), options=_CONTENDED),
        budget=20,
    ),
    Exhibit(
        name="ties-by-arrival",
        title="Batches that depend on each other run in the order of their arrival",
        source="protocol.md 3",
        story="Two batches proposed at the same time often name each other. Then any order will "
        "do, as long as it is the same everywhere; the order in which the commits came in is not.",
        plant=in_executor(_TiesByArrival),
        properties=(IN_ORDER, *_ONE_ORDER),
        search=Swarm((3,), options=_CONTENDED),
        budget=20,
    ),
    Exhibit(
        name="recursive-search",
        title="The search for components calls itself",
        source="protocol.md 3",
        story="Written as in the textbook, the depth-first search goes one call deeper for each "
        "batch in a chain. A hot key makes chains of any length, and the stack ends before they "
        "do. The replica stops, restarts, finds the same chain, and stops.",
        plant=in_executor(_Recursive),
        properties=(RAISES,),
        search=Directed(3, _a_long_chain, deep=False),
    ),
    Exhibit(
        name="head-of-line",
        title="Execution stops at the first batch that cannot run yet",
        source="efficient/epaxos issue 26; protocol.md 2.11",
        story="The executor waits for a dependency that is not decided, and everything else waits "
        "for the executor, be it related or not. In the Go code the thread that waited was the "
        "one that should have started the recovery.",
        plant=in_executor(_HeadOfLine),
        properties=(EXECUTES,),
        search=Directed(3, _a_batch_that_waits),
    ),
    Exhibit(
        name="one-unpruned",
        title="One replica follows dependencies between batches that do not interfere",
        source="protocol.md R6",
        story="Deps name whole columns, so they also name batches on other keys. To follow those "
        "edges costs time; to leave them out is safe, if everybody does. With them a component "
        "can be larger, and its order another one.",
        plant=_unpruned_at_b,
        properties=(ORDER,),
        search=Directed(3, _a_cycle_through_another_key),
    ),
    Exhibit(
        name="one-revision",
        title="Versions come from one counter that every write moves",
        source="etcd's revision; protocol.md R9",
        story="Where all writes stand in one log, a single counter can number them. Here two "
        "writes on different keys may run in either order, and each replica gives them other "
        "numbers. A client that sends back a version it was given elsewhere is told that the key "
        "has changed.",
        plant=in_node(_CountsWrites),
        properties=(CONVERGES,),
        search=Directed(3, _two_writes_that_commute),
    ),
)
