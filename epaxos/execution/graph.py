"""Strongly connected components of what is committed and waits, found incrementally.

An edge leads from an instance to every committed, not executed, interfering instance of its closed
prefix (R6). A component may execute when everything it reaches through edges has its whole prefix
committed; inside, the order is (slot, replica).

How: a depth-first search that is suspended instead of undone. A vertex whose prefix is committed
goes through its edges once. At the first target that has not finished it starts to wait for that
target, and goes on from there when the target has finished; if that closes a cycle of waits, the
cycle becomes one group (Purdom and Munro's form of Tarjan's algorithm). So every edge is looked at
once in its life, however often the search is held up by a missing commit.

Edges are not written out pair by pair: a thousand writes of one key would make a million. Per key
and column the instances that write it (and those that only read it) form a chain by slot; each link
leads to its instance and to the link before it, so one edge to a link stands for edges to all the
instances up to it. Links are vertices of the search and of no component.

A chain: the instances of column A that write x. C.3 writes x too, and depends on A up to slot 5:

    links         x.1 ◀───── x.4 ◀───── x.7           the edges of a link lead to its `target` and
                   │          │          │            to the link before it in its `chain`
                   ▼          ▼          ▼
    instances     A.1        A.4        A.7

    C.3 ─edge─▶ x.4                                   one edge stands for A.4 and A.1

A cycle of waits becomes a group. B.2 is searched and meets A.4, which waits for C.3, and so on:

    B.2 ─edge─▶ A.4 ─waits─▶ C.3 ─waits─▶ B.2         _root(A.4) is B.2 itself: a cycle

    A.4 ─group─▶ B.2 ◀─group─ C.3                     `_head` of all three: one of them, B.2, which
                                                      has their `members`, `edges`, `waiters`

    D.1 ─waits─▶ B.2 ─waits─▶ E.9                     `_root` of D.1: E.9, the end of the waits,
     └────────────jump─────────▲                      whose prefix is not committed

Rules of this file: no recursion; no set is iterated.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from operator import attrgetter, gt

from epaxos.core.replica import Decided
from epaxos.core.types import ReplicaId, Slot

_in_order = attrgetter("slot", "replica")


class Vertex:
    """An instance in the graph, or a link of a chain.

    One class for both: with a subclass for links the search, which meets both everywhere, is 4 %
    slower, as the interpreter's attribute caches hold one type each."""

    __slots__ = (
        "chain",
        "decided",
        "done",
        "edges",
        "group",
        "jump",
        "members",
        "open",
        "shared",
        "slot",
        "target",
        "waiters",
        "waits",
    )

    def __init__(self, decided: Decided | None) -> None:
        self.decided = decided
        """The instance; None for a link, and once it has finished."""
        self.open = True
        """Not searched from yet: an instance until its prefix is committed, a link until met."""
        self.done = False
        """Executed. Only that of a group's head counts."""
        self.edges: list[Vertex] = []
        """What is still to be looked at; the last is next."""
        self.members: list[Decided] = [] if decided is None else [decided]
        """The instances of the group that this vertex heads."""
        self.waits: Vertex | None = None
        """What the group waits for."""
        self.waiters: list[Vertex] = []
        """Who waits for the group."""
        self.jump: Vertex | None = None
        """Some vertex farther along `waits`, unless it is done: a short cut."""
        self.group: Vertex | None = None
        """Towards the head of the group; None: this is the head."""
        self.shared: list[bytes] = []
        """Keys of the instance that others in the graph touch too."""
        self.slot: Slot = 0
        self.chain: _Chain | None = None
        """Of a link: its chain."""
        self.target: Vertex | None = None
        """Of a link: its instance."""


class _Chain:
    """The instances of one column that touch one key in one way, by slot."""

    __slots__ = ("links", "slots")

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self.links: list[Vertex] = []

    def add(self, vertex: Vertex, slot: Slot) -> None:
        link = Vertex(None)
        link.chain, link.target, link.slot = self, vertex, slot
        at = bisect_left(self.slots, slot)
        self.slots.insert(at, slot)
        self.links.insert(at, link)

    def up_to(self, slot: Slot, executed: Slot) -> Vertex | None:
        """The vertex that stands for all members with a slot in (executed, slot]."""
        slots = self.slots
        if slots and slots[0] <= executed:
            past = bisect_right(slots, executed)
            del slots[:past], self.links[:past]
        at = bisect_right(slots, slot)
        if not at:
            return None
        return self.links[0].target if at == 1 else self.links[at - 1]


class _Touched:
    """Who touches a key that more than one instance touches."""

    __slots__ = ("last", "readers", "writers")

    def __init__(self) -> None:
        self.writers: dict[ReplicaId, _Chain] = {}
        self.readers: dict[ReplicaId, _Chain] = {}
        self.last: Vertex | None = None
        """Who was added last; an instance names all its keys in one go."""

    def add(self, vertex: Vertex, decided: Decided, writing: bool) -> None:
        chains = self.writers if writing else self.readers
        chain = chains.get(decided.replica)
        if chain is None:
            chain = chains[decided.replica] = _Chain()
        chain.add(vertex, decided.slot)
        self.last = vertex

    def is_dead(self) -> bool:
        return all(
            link.target is None or _head(link.target).done
            for chains in (self.writers, self.readers)
            for chain in chains.values()
            for link in chain.links
        )


def _head(vertex: Vertex) -> Vertex:
    while (up := vertex.group) is not None:
        if up.group is not None:
            vertex.group = up.group
        vertex = up
    return vertex


class Graph:
    """What is committed and not executed, Nops left out."""

    def __init__(self) -> None:
        self._index: dict[bytes, Vertex | _Touched] = {}
        """Per key the only instance that touches it, or all of them. May name finished ones."""
        self._unindexed: list[Vertex] = []
        self._alive = 0
        self._alive_keys = 0
        self._finished: list[list[Decided]] = []

    def __len__(self) -> int:
        """How many instances and keys it holds, finished ones included."""
        return len(self._index) + len(self._unindexed) + self._alive

    def add(self, decided: Decided) -> Vertex:
        """Take in a committed instance that is not a Nop; others may have edges to it from now."""
        vertex = Vertex(decided)
        self._unindexed.append(vertex)
        self._alive += 1
        self._alive_keys += _key_count(decided)
        return vertex

    def close(self, vertex: Vertex, executed: list[Slot]) -> None:
        """All of the vertex's prefix has been added or executed: search from it."""
        vertex.open = False
        assert vertex.decided is not None
        if any(map(gt, vertex.decided.deps, executed)):
            unindexed, self._unindexed = self._unindexed, []
            for each in unindexed:
                if not each.done:
                    self._enter(each)
            vertex.edges = self._edges(vertex, vertex.decided, executed)
        self._search(vertex)
        if not self._alive:
            self._index.clear()
            self._unindexed.clear()
        elif len(self._index) + len(self._unindexed) > 4 * self._alive_keys + 1024:
            self._sweep()

    def take(self) -> list[list[Decided]]:
        """The components that have finished since the last take, dependencies first."""
        finished, self._finished = self._finished, []
        return finished

    def blocked_on(self, vertex: Vertex) -> Vertex:
        """What an unfinished vertex waits for in the end: one whose prefix is not committed."""
        return self._root(_head(vertex))

    def _enter(self, vertex: Vertex) -> None:
        """Make a vertex known under its keys."""
        decided = vertex.decided
        assert decided is not None
        assert decided.payload is not None
        footprint = decided.payload.footprint
        if footprint.writes:
            self._enter_keys(vertex, decided, footprint.writes, footprint.write_set, True)
        if footprint.reads:
            self._enter_keys(vertex, decided, footprint.reads, footprint.read_set, False)

    def _enter_keys(
        self,
        vertex: Vertex,
        decided: Decided,
        keys: Sequence[bytes],
        key_set: frozenset[bytes],
        writing: bool,
    ) -> None:
        index = self._index
        if index.keys().isdisjoint(key_set):
            index.update(dict.fromkeys(keys, vertex))
            return
        for key in dict.fromkeys(keys):
            holder = index.get(key)
            if isinstance(holder, _Touched):
                if holder.last is not vertex:
                    holder.add(vertex, decided, writing)
                    vertex.shared.append(key)
            elif holder is None or _head(holder).done:
                index[key] = vertex
            elif holder is not vertex:
                assert holder.decided is not None
                assert holder.decided.payload is not None
                touched = index[key] = _Touched()
                wrote = key in holder.decided.payload.footprint.write_set
                touched.add(holder, holder.decided, wrote)
                holder.shared.append(key)
                touched.add(vertex, decided, writing)
                vertex.shared.append(key)

    def _edges(self, vertex: Vertex, decided: Decided, executed: list[Slot]) -> list[Vertex]:
        """Vertices that stand for all interfering ones of the closed prefix (R6)."""
        assert decided.payload is not None
        write_set = decided.payload.footprint.write_set
        columns = [
            (replica, slot, executed[replica])
            for replica, slot in enumerate(decided.deps)
            if slot > executed[replica]
        ]
        edges: list[Vertex] = []
        for key in vertex.shared:
            touched = self._index[key]
            assert isinstance(touched, _Touched)
            ways = (touched.writers, touched.readers) if key in write_set else (touched.writers,)
            for chains in ways:
                for replica, slot, done in columns:
                    chain = chains.get(replica)
                    if chain is not None:
                        last = chain.up_to(slot, done)
                        if last is not None:
                            edges.append(last)
        return edges

    def _search(self, start: Vertex) -> None:
        """Go on from `start`, and from all that its finishing sets free."""
        work = [start]
        while work:
            group = _head(work.pop())
            if group.done or group.waits is not None:
                continue
            while group.edges:
                target = _head(group.edges[-1])
                if target is group or target.done:
                    group.edges.pop()
                elif not target.open and self._root(target) is group:
                    group = self._contract(group, target)
                else:
                    if target.open and target.chain is not None:
                        _unfold(target, target.chain)
                        work.append(target)
                    group.waits = target
                    target.waiters.append(group)
                    break
            else:
                self._finish(group, work)

    def _contract(self, group: Vertex, target: Vertex) -> Vertex:
        """Make one group of `group` and of everything on the way from `target` to it."""
        path = [group]
        while target is not group:
            path.append(target)
            assert target.waits is not None
            target = _head(target.waits)
        head = max(path, key=lambda each: len(each.members) + len(each.waiters))
        for each in path:
            if each is not head:
                head.members += each.members
                head.waiters += each.waiters
                head.edges += each.edges
                each.group = head
                # Its keys may still be met by instances that enter later.
                decided = each.decided
                _clear(each)
                each.decided = decided
        head.waits = head.jump = None
        return head

    def _finish(self, group: Vertex, work: list[Vertex]) -> None:
        """All edges of the group lead into itself or to what has finished: it is a component."""
        group.done = True
        members, waiters = group.members, group.waiters
        _clear(group)
        if members:
            if len(members) > 1:
                members.sort(key=_in_order)
            self._finished.append(members)
            self._alive -= len(members)
            for decided in members:
                self._alive_keys -= _key_count(decided)
        for waiter in waiters:
            waiter = _head(waiter)
            if waiter is not group:
                waiter.waits = waiter.jump = None
                work.append(waiter)

    def _root(self, group: Vertex) -> Vertex:
        """The end of the waits that start at `group`, a head; shortens the way for the next."""
        path = []
        while True:
            up = group.jump
            if up is None or (above := _head(up)).done or above is group:
                up = group.waits
                if up is None:
                    break
                above = _head(up)
            path.append(group)
            group = above
        for each in path:
            each.jump = group
        return group

    def _sweep(self) -> None:
        """Forget the keys that only finished instances touch."""
        self._unindexed = [vertex for vertex in self._unindexed if not vertex.done]
        self._index = {
            key: holder
            for key, holder in self._index.items()
            if not (holder.is_dead() if isinstance(holder, _Touched) else _head(holder).done)
        }


def _unfold(link: Vertex, chain: _Chain) -> None:
    """Give a link its edges. What is below it in its column is committed, so they are final."""
    link.open = False
    at = bisect_left(chain.slots, link.slot)
    assert link.target is not None
    link.edges = [chain.links[at - 1], link.target] if at else [link.target]


def _clear(vertex: Vertex) -> None:
    vertex.decided = vertex.waits = vertex.jump = None
    vertex.edges, vertex.members, vertex.waiters, vertex.shared = [], [], [], []


def _key_count(decided: Decided) -> int:
    assert decided.payload is not None
    return len(decided.payload.batch.keys)
