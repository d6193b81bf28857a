"""The plain words of every protocol: replicas, slots, ballots, dependencies, time.

Rules of this file: values only, no behaviour that depends on a protocol. Hot paths use the bare
integers; `InstanceId` is for people and for places where clarity costs nothing. A range belongs to
its type: whatever is decoded is within it, or does not decode.
"""

from typing import Annotated, Final, NamedTuple, TypeAlias

from msgspec import Meta

from epaxos.core.numbers import cut, parse_whole

REPLICAS_MAX = 9
"""The largest cluster we support; quorum sizes are tested for every n up to it."""

BALLOT_REPLICAS = 16
"""How many replicas one ballot round has room for."""

SLOT_MAX: Final = (1 << 48) - 1
"""No column gets there: at ten thousand instances per second it takes nine hundred years."""

BALLOT_MAX: Final = (1 << 48) - 1
"""Nor do ballots: at a thousand rounds per second it takes five hundred years."""

LAST_ROUND: Final = BALLOT_MAX + 1 - BALLOT_REPLICAS
"""From this ballot on nobody can go above. Only a broken peer names one."""

SLOTS_PER_MESSAGE_MAX: Final = 4096
"""No message names or carries more slots than this."""

STAMP_MAX: Final = 1 << 62
"""No clock shows more, in either direction; what is reckoned from a stamp still has an encoding."""

ReplicaId: TypeAlias = Annotated[int, Meta(ge=0, lt=BALLOT_REPLICAS)]
"""A member's number, 0 .. n-1. People read it as a letter: 0 is A."""

Slot: TypeAlias = Annotated[int, Meta(ge=0, le=SLOT_MAX)]
"""A position in a replica's column (EPaxos) or in the log (Multi-Paxos): 1, 2, 3, ..., no holes.

0 means none (R2)."""

Ballot: TypeAlias = Annotated[int, Meta(ge=0, le=BALLOT_MAX)]
"""One integer, round * 16 + replica (R17). 0 is the command leader's first ballot."""

Micros: TypeAlias = int
"""Microseconds on a monotonic clock (virtual in the simulator). Never a float, never a wall
clock."""

Stamp: TypeAlias = Annotated[int, Meta(ge=-STAMP_MAX, le=STAMP_MAX)]
"""A reading of its sender's clock in µs, in a message; 0 for none."""

Deps: TypeAlias = Annotated[tuple[Slot, ...], Meta(max_length=REPLICAS_MAX)]
"""One slot per replica, read everywhere as a closed prefix (protocol reference 1.9):
deps[q] = s names all of (q, 1) .. (q, s); 0 names none. Slot protocols use the empty tuple."""


class InstanceId(NamedTuple):
    """One cell of EPaxos's two-dimensional space, printed `A.7`."""

    replica: ReplicaId
    slot: Slot

    def __str__(self) -> str:
        return f"{replica_name(self.replica)}.{self.slot}"


def replica_name(replica: ReplicaId) -> str:
    """Replica 0 is A, 1 is B, and so on."""
    return chr(ord("A") + replica)


def parse_instance(text: str) -> InstanceId:
    """Read `A.7`. Raises ValueError, with a sentence, on anything else."""
    name, dot, slot = text.partition(".")
    if dot and len(name) == 1 and "A" <= name <= "P":
        try:
            return InstanceId(ord(name) - ord("A"), parse_whole(slot, 0, SLOT_MAX))
        except ValueError:
            pass  # the sentence below says more
    raise ValueError(f"{cut(text)} is not an instance; write for example A.7")


def make_ballot(number: int, replica: ReplicaId) -> Ballot:
    """The ballot of round `number` that belongs to `replica`."""
    return number * BALLOT_REPLICAS + replica


def ballot_replica(ballot: Ballot) -> ReplicaId:
    """To whom a ballot above 0 belongs."""
    return ballot % BALLOT_REPLICAS


def next_ballot(above: Ballot, replica: ReplicaId) -> Ballot:
    """The ballot of `replica` in the first round after the round of `above`, which is below
    LAST_ROUND."""
    assert above < LAST_ROUND, "what nobody can go above is left alone"
    return make_ballot(above // BALLOT_REPLICAS + 1, replica)


def ballot_name(ballot: Ballot) -> str:
    """`b3@C`; the command leader's first ballot is `b0`."""
    if ballot == 0:
        return "b0"
    return f"b{ballot // BALLOT_REPLICAS}@{replica_name(ballot_replica(ballot))}"


def no_deps(n: int) -> Deps:
    """The vector that names nothing."""
    return (0,) * n


def merge(a: Deps, b: Deps) -> Deps:
    """The union of two closed prefixes: the element-wise maximum."""
    if a == b:
        return a
    return tuple(map(max, a, b))


def covers(outer: Deps, inner: Deps) -> bool:
    """Whether every id that `inner` names is also named by `outer`."""
    return all(map(int.__ge__, outer, inner))
