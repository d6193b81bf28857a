"""Outside observers: each checks properties, an English sentence each, and remembers only what it
needs for them.

They see what left a process (its Ready was released), never what was merely computed: a commit
whose sync never happened was never decided.

Rules of this file: a violation is raised as `Violation` with the property and the ids concerned; no
observer changes anything.
"""

from collections.abc import Sequence
from traceback import extract_tb
from typing import NamedTuple, NoReturn

from epaxos.core.command import Operation, Payload, interferes
from epaxos.core.replica import Decided
from epaxos.core.types import Deps, InstanceId, ReplicaId, Slot, replica_name

Id = tuple[ReplicaId, Slot]

Place = tuple[Id, int]
"""Instance, and index in its batch."""

_GET = int(Operation.GET)

AGREEMENT = "every replica that decides an instance decides the same payload and deps"
VISIBILITY = (
    "of two interfering decided instances one is in the other's deps, or every replica had durably "
    "executed one before the other was decided"
)
ORDER = "interfering commands execute in one order at all replicas"
ONCE = "every command is executed at most once at each replica, and under one instance only"
VERSIONED = "the answer of a write names that write"
PROPOSED = "only what a client sent is executed"
REMEMBERED = "what a replica said it still knows after any crash"
INVARIANT = "the protocol's own invariants hold"
LINEARIZABLE = "what clients saw is linearizable, key by key"
HONEST = "what a client was told certainly did not happen never happens"
EXECUTES = "after healing everything known is executed everywhere, and every request is answered"
CONVERGES = "after healing all stores are equal"
ASSERTION = "a replica's own assertions hold"
RAISES = "a node raises nothing, whatever arrives"


PREMATURE = "nothing executes before everything in its deps is decided at that replica"
IN_ORDER = "the members of a component execute in order of slot, then replica"
RESTORES = "what the log says and what is in memory are the same state"
COUNTED = "counters say what happened"
RELEASED = "after healing nothing is held of what is answered, executed and known to be so"
BOUNDED = "no queue grows beyond its bound"
READABLE = "what a replica says and writes is taken by those who read it"


class Violation(Exception):
    """A property is violated."""

    def __init__(self, violated: str, detail: str) -> None:
        super().__init__(f"{violated}: {detail}")
        self.property = violated
        """One of the sentences above."""
        self.detail = detail


def broken_by(error: Exception) -> Violation:
    """What a node raised, as the property that it violates, with file and line."""
    frame = extract_tb(error.__traceback__)[-1]
    place = f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"
    if isinstance(error, AssertionError):
        return Violation(ASSERTION, f"{error} ({place})")
    return Violation(RAISES, f"{type(error).__name__}: {error} ({place})")


class DecisionChecker:
    """Agreement and visibility."""

    def __init__(self, n: int) -> None:
        self._decided: dict[Id, tuple[bytes | None, Deps]] = {}
        self._by_key: dict[bytes, list[tuple[Id, Payload, Deps]]] = {}
        self._durable_at: dict[Id, set[ReplicaId]] = {}
        self._everywhere: set[Id] = set()
        self._n = n

    def executed_durably(self, member: ReplicaId, ids: list[Id]) -> None:
        """These ids are executed at `member`, and its disk says so."""
        for each in ids:
            members = self._durable_at.setdefault(each, set())
            members.add(member)
            if len(members) == self._n:
                self._everywhere.add(each)

    def decided_ids(self) -> list[tuple[Id, Deps]]:
        """What is decided, with its deps, in the order in which it was."""
        return [(key, deps) for key, (_, deps) in self._decided.items()]

    def decided(self, member: ReplicaId, decided: Decided) -> None:
        """`member` has released that an instance is decided."""
        key = (decided.replica, decided.slot)
        value = (None if decided.payload is None else decided.payload.encoded, decided.deps)
        before = self._decided.setdefault(key, value)
        if before is not value:
            if before != value:
                raise Violation(
                    AGREEMENT,
                    f"{InstanceId(*key)} is {_show(before)} and, at {replica_name(member)}, "
                    f"{_show(value)}",
                )
            return
        if decided.payload is not None and decided.deps:
            self._look_for_blind_spots(key, decided.payload, decided.deps)

    def _look_for_blind_spots(self, key: Id, payload: Payload, deps: Deps) -> None:
        footprint = payload.footprint
        for name in dict.fromkeys((*footprint.writes, *footprint.reads)):
            others = self._by_key.setdefault(name, [])
            for other, theirs, their_deps in others:
                if (
                    other[1] > deps[other[0]]
                    and key[1] > their_deps[key[0]]
                    and other not in self._everywhere
                    and interferes(footprint, theirs.footprint)
                ):
                    raise Violation(
                        VISIBILITY,
                        f"{InstanceId(*key)} deps {deps} and {InstanceId(*other)} deps "
                        f"{their_deps} on key {name!r}",
                    )
            others.append((key, payload, deps))


class _Column:
    """Which slots of a column are decided at a replica."""

    __slots__ = ("_beyond", "upto")

    def __init__(self) -> None:
        self.upto: Slot = 0
        """Every slot up to it is."""
        self._beyond: set[Slot] = set()

    def add(self, slot: Slot) -> None:
        if slot != self.upto + 1:
            self._beyond.add(slot)
            return
        self.upto = slot
        while self.upto + 1 in self._beyond:
            self.upto += 1
            self._beyond.discard(self.upto)


class _KeyOrder:
    """The order of one key: writers, and before which writer each reader came."""

    __slots__ = ("readers", "writers")

    def __init__(self) -> None:
        self.writers: list[Id] = []
        self.readers: dict[Id, int] = {}


class _First(NamedTuple):
    """An instance as the first replica executed it."""

    payload: Payload
    writes: list[bytes]
    """The keys that it writes, in order."""
    reads: list[bytes]
    """Those that it only reads."""


class ExecutionChecker:
    """One order per key, at most once, only what was proposed."""

    def __init__(self) -> None:
        self._sent: dict[tuple[ReplicaId, bytes], int] = {}
        """How often clients sent each argument to each replica."""
        self._orders: dict[bytes, _KeyOrder] = {}
        self._where: dict[tuple[ReplicaId, bytes], list[Place]] = {}
        """The places in which commands of a replica's clients with this argument were executed."""
        self._batches: dict[tuple[ReplicaId, int], Id] = {}
        """Origin and number of a batch -> the instance in which it was executed."""
        self._first: dict[Id, _First] = {}
        self._seen: list[dict[Id, Decided]] = []
        """Per replica what it has executed in this life, in its order."""
        self._counts: list[dict[bytes, int]] = []
        self._known: list[dict[ReplicaId, _Column]] = []
        """Per replica and column which slots are decided there."""

    def requested(self, member: ReplicaId, arguments: Sequence[bytes]) -> None:
        """A client sends commands with these arguments to a replica."""
        for argument in arguments:
            self._sent[member, argument] = self._sent.get((member, argument), 0) + 1

    def start(self, member: ReplicaId) -> None:
        """A process life begins; it replays what its log says it executed."""
        while len(self._seen) <= member:
            self._seen.append({})
            self._counts.append({})
            self._known.append({})
        self._seen[member] = {}
        self._counts[member] = {}
        self._known[member] = {}

    def decided(self, member: ReplicaId, decided: Decided) -> None:
        """`member` knows that an instance is decided."""
        column = self._known[member].get(decided.replica)
        if column is None:
            column = self._known[member][decided.replica] = _Column()
        column.add(decided.slot)

    def component(self, member: ReplicaId, component: list[Decided]) -> None:
        ids = [(decided.slot, decided.replica) for decided in component]
        if ids != sorted(ids):
            names = " ".join(str(InstanceId(d.replica, d.slot)) for d in component)
            raise Violation(IN_ORDER, f"{names} at {replica_name(member)}")

    def executed(self, member: ReplicaId, decided: Decided) -> None:
        key = (decided.replica, decided.slot)
        if key in self._seen[member]:
            raise Violation(ONCE, f"{InstanceId(*key)} twice at {replica_name(member)}")
        self._seen[member][key] = decided
        if decided.payload is None:
            return
        first = self._first.get(key)
        if first is None or first.payload != decided.payload:
            first = self._first[key] = self._look_at(key, decided.payload)
        known = self._known[member]
        for column, needed in enumerate(decided.deps):
            if needed and (column not in known or known[column].upto < needed):
                raise Violation(
                    PREMATURE,
                    f"{InstanceId(*key)} deps {decided.deps} at {replica_name(member)}, which "
                    f"does not know all of {replica_name(column)}'s",
                )
        orders, counts = self._orders, self._counts[member]
        for name in first.writes:
            order = orders[name]
            position = counts.get(name, 0)
            counts[name] = position + 1
            if position == len(order.writers):
                order.writers.append(key)
            elif order.writers[position] != key:
                self._raise_order(member, key, name, position)
        for name in first.reads:
            self._read(member, key, name)

    def _look_at(self, key: Id, payload: Payload) -> "_First":
        """What depends on the payload alone, for the first replica that executes it."""
        batch = payload.batch
        first = self._batches.setdefault((batch.origin, batch.number), key)
        for index, (code, argument) in enumerate(zip(batch.operations, batch.arguments)):
            if code != _GET and argument:
                self._where.setdefault((batch.origin, argument), []).append((key, index))
        if first != key:
            raise Violation(ONCE, f"{payload!r} in {InstanceId(*key)} and in {InstanceId(*first)}")
        for code, argument in zip(batch.operations, batch.arguments):
            if code == _GET or not argument:
                continue
            sent = self._sent.get((batch.origin, argument), 0)
            if not sent:
                raise Violation(PROPOSED, f"{argument!r} in {InstanceId(*key)}")
            places = self._where[batch.origin, argument]
            if len(places) > sent:
                where = " and in ".join(str(InstanceId(*place[0])) for place in places)
                raise Violation(ONCE, f"{argument!r}, sent {sent} times, in {where}")
        footprint = payload.footprint
        writes = sorted(footprint.write_set)
        reads = sorted(footprint.read_set - footprint.write_set)
        for name in (*writes, *reads):
            self._orders.setdefault(name, _KeyOrder())
        return _First(payload, writes, reads)

    def places(self, member: ReplicaId) -> dict[Place, int]:
        """Where each command stands in the order in which `member` executed them."""
        found: dict[Place, int] = {}
        for key, decided in self._seen[member].items():
            if decided.payload is not None:
                for index in range(len(decided.payload.batch.keys)):
                    found[key, index] = len(found)
        return found

    def places_of(self, origin: ReplicaId, argument: bytes) -> list[Place]:
        """Where writes with this argument, sent to this replica, were executed."""
        return self._where.get((origin, argument), [])

    def _raise_order(self, member: ReplicaId, key: Id, name: bytes, position: int) -> NoReturn:
        writers = self._orders[name].writers
        window = [str(InstanceId(*each)) for each in writers[position : position + 3]]
        raise Violation(
            ORDER,
            f"on key {name!r} writer {position + 1} is {InstanceId(*key)} at "
            f"{replica_name(member)}, elsewhere {' '.join(window)}",
        )

    def _read(self, member: ReplicaId, key: Id, name: bytes) -> None:
        order = self._orders[name]
        position = self._counts[member].get(name, 0)
        before = order.readers.setdefault(key, position)
        if before != position:
            raise Violation(
                ORDER,
                f"on key {name!r} reader {InstanceId(*key)} runs after {position} writers at "
                f"{replica_name(member)}, elsewhere after {before}",
            )


def _show(value: tuple[bytes | None, Deps]) -> str:
    payload = "Nop" if value[0] is None else repr(Payload.decode(value[0]))
    return f"({payload}, {value[1]})"
