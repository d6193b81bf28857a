"""What must hold of EPaxos* replicas, numbered, as code.

Four kinds: of one replica's state (`check`), of one step (`check_step`), of a replica restored from
its log and a message it once released (`check_remembered`), of a cluster (`check_cluster`). On in
tests and in the simulator, off in benchmarks. Each raises AssertionError that begins with the
number of the broken sentence and names the ids concerned.

Source: EPaxos* (OPODIS'25) invariants as read in its TLA+ model; R1, R15 of the protocol reference.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from epaxos.core.command import interferes
from epaxos.core.replica import Message
from epaxos.core.types import Ballot, Deps, InstanceId, ReplicaId, Slot, covers
from epaxos.protocols.epaxos.instance import Instance, Phase
from epaxos.protocols.epaxos.messages import (
    Accept,
    AcceptOk,
    AcceptShort,
    CommitShort,
    PreAccept,
    PreAcceptOk,
    Recover,
    RecoverOk,
    ValidateOk,
    Vote,
)
from epaxos.protocols.epaxos.replica import EPaxosReplica

EP1 = "EP1: nobody votes above what it promised"
EP2 = "EP2: a pre-accepted vote is in ballot 0 and covers the initial deps"
EP3 = "EP3: deps never name an own slot at or above the instance"
EP4 = "EP4: the committed vector covers committed instances only, and executed-everywhere <= it"
EP5 = "EP5: floor <= stable"
EP6 = "EP6: promised and voted never decrease, and the phase never goes back"
EP7 = "EP7: a committed payload and its deps never change"
EP8 = "EP8: initial deps never change once known"
EP9 = "EP9: payload and deps change from Accepted on only in a higher ballot"
EP10 = "EP10: known, committed, stable and floor never go back"
EP11 = "EP11: two replicas that committed an instance committed the same payload and deps"
EP12 = "EP12: of two interfering committed instances one is in the other's deps, or one was"
EP12 += " executed everywhere before the other was decided"
EP13 = "EP13: after a restart a replica still keeps what it said: votes, promises, introductions"
EP13 += " and fast commits"


class InstanceState(NamedTuple):
    """What a step must respect of one instance."""

    phase: int
    promised: Ballot
    voted: Ballot
    payload: bytes | None
    deps: Deps
    initial_deps: Deps | None


class State(NamedTuple):
    """What a step must respect of one replica."""

    instances: dict[tuple[ReplicaId, Slot], InstanceState]
    known: Deps
    committed: Deps
    stable: Deps
    floor: Deps


def snapshot(replica: EPaxosReplica) -> State:
    """The state of a replica, for a later `check_step`."""
    columns = replica.columns
    return State(
        {
            (column, slot): InstanceState(
                known.phase,
                known.promised,
                known.voted,
                None if known.payload is None else known.payload.encoded,
                known.deps,
                known.initial_deps,
            )
            for column, instances in enumerate(columns.instances)
            for slot, known in instances.items()
        },
        tuple(columns.known),
        tuple(columns.committed),
        columns.stable,
        columns.floor,
    )


def check(replica: EPaxosReplica) -> None:
    """EP1 to EP5 in one replica's state."""
    state = snapshot(replica)
    found: list[str] = []
    for (column, slot), known in state.instances.items():
        found += _check_instance(column, slot, known)
    _raise([*found, *_check_vectors(replica, state, state.floor)])


def _check_vectors(replica: EPaxosReplica, state: State, checked: Deps) -> Iterable[str]:
    """EP4 and EP5. Up to `checked` what the committed vector covers was looked at before."""
    for column, low, high in zip(range(replica.n), map(max, checked, state.floor), state.committed):
        for slot in range(low + 1, high + 1):
            known = state.instances.get((column, slot))
            if known is None or known.phase != Phase.COMMITTED:
                yield f"{EP4} ({InstanceId(column, slot)})"
    if not covers(state.committed, state.stable):
        yield EP4
    if not covers(state.stable, state.floor):
        yield EP5


def _check_instance(column: ReplicaId, slot: Slot, known: InstanceState) -> list[str]:
    """EP1 to EP3."""
    return [f"{sentence} ({InstanceId(column, slot)})" for sentence in _broken(column, slot, known)]


def _broken(column: ReplicaId, slot: Slot, known: InstanceState) -> Iterable[str]:
    if known.phase != Phase.COMMITTED and known.voted > known.promised:
        yield EP1
    if known.phase == Phase.PREACCEPTED and (
        known.voted != 0 or known.initial_deps is None or not covers(known.deps, known.initial_deps)
    ):
        yield EP2
    if known.deps and known.deps[column] >= slot:
        yield EP3


def check_step(before: State, replica: EPaxosReplica) -> State:
    """EP6 to EP10 between an earlier state of the same process life and the present one, and EP1 to
    EP5 of what has changed since; returns the present one, for the next step."""
    after = snapshot(replica)
    found: list[str] = []
    earlier = before.instances
    for key, new in after.instances.items():
        old = earlier.get(key)
        if new == old:
            continue
        found += _check_instance(*key, new)
        if old is not None:
            found += [f"{sentence} ({InstanceId(*key)})" for sentence in _changed(old, new)]
    vectors = zip(before[1:], after[1:])
    if not all(covers(new, old) for old, new in vectors):
        found.append(EP10)
    _raise([*found, *_check_vectors(replica, after, before.committed)])
    return after


def _changed(old: InstanceState, new: InstanceState) -> Iterable[str]:
    """EP6 to EP9."""
    if new.phase < old.phase or new.promised < old.promised or new.voted < old.voted:
        yield EP6
    changed = (old.payload, old.deps) != (new.payload, new.deps)
    if old.phase == Phase.COMMITTED and changed:
        yield EP7
    if old.initial_deps is not None and new.initial_deps != old.initial_deps:
        yield EP8
    if old.phase == new.phase == Phase.ACCEPTED and changed and new.voted <= old.voted:
        yield EP9


def check_cluster(replicas: Sequence[EPaxosReplica]) -> None:
    """EP11 and EP12 among the present states of a cluster's replicas."""
    decided: dict[tuple[ReplicaId, Slot], Instance] = {}
    found: list[str] = []
    for replica in replicas:
        for column, instances in enumerate(replica.columns.instances):
            for slot, known in instances.items():
                if known.phase != Phase.COMMITTED:
                    continue
                other = decided.setdefault((column, slot), known)
                if other.payload != known.payload or other.deps != known.deps:
                    found.append(f"{EP11} ({InstanceId(column, slot)})")
    floor = tuple(map(max, *(replica.floor for replica in replicas), replicas[0].floor))
    items = [
        (key, known)
        for key, known in decided.items()
        if known.payload is not None and key[1] > floor[key[0]]
    ]
    for index, (key, known) in enumerate(items):
        for key2, known2 in items[:index]:
            if (
                known.payload is not None
                and known2.payload is not None
                and key2[1] > known.deps[key2[0]]
                and key[1] > known2.deps[key[0]]
                and interferes(known.payload.footprint, known2.payload.footprint)
            ):
                found.append(f"{EP12} ({InstanceId(*key)}, {InstanceId(*key2)})")
    _raise(found)


def check_remembered(replica: EPaxosReplica, message: Message) -> None:
    """EP13: a message that this replica once released, against its state restored from the log."""
    broken: list[InstanceId] = []
    if isinstance(message, RecoverOk):
        for vote in message.votes:
            known = _known(replica, message.replica, vote.slot)
            if known is not None and not _still_votes(known, vote, message.ballot):
                broken.append(InstanceId(message.replica, vote.slot))
    elif isinstance(message, Recover):
        for slot in message.slots:
            known = _known(replica, message.replica, slot)
            if known is not None and known.promised < message.ballot:
                broken.append(InstanceId(message.replica, slot))
    elif isinstance(message, _SINGLE):
        known = _known(replica, message.replica, message.slot)
        if known is not None and not _still_holds(replica, known, message):
            broken.append(InstanceId(message.replica, message.slot))
    _raise([f"{EP13} ({instance}, {message})" for instance in broken])


_SINGLE = (PreAccept, PreAcceptOk, Accept, AcceptShort, AcceptOk, ValidateOk, CommitShort)


def _known(replica: EPaxosReplica, column: ReplicaId, slot: Slot) -> Instance | None:
    """The instance, an empty one if nothing is known; None if it is committed or forgotten."""
    if slot <= replica.floor[column]:
        return None
    known = replica.columns.get(column, slot)
    if known is None:
        return Instance(column, slot)
    return None if known.phase == Phase.COMMITTED else known


def _still_votes(known: Instance, vote: Vote, ballot: Ballot) -> bool:
    if vote.phase == Phase.COMMITTED:
        return True
    return known.promised >= ballot and known.phase >= vote.phase and known.voted >= vote.voted


def _still_holds(replica: EPaxosReplica, known: Instance, message: Message) -> bool:
    if isinstance(message, PreAccept | PreAcceptOk):
        return known.phase >= Phase.PREACCEPTED and known.initial_deps is not None
    if isinstance(message, Accept | AcceptOk):
        return known.phase == Phase.ACCEPTED and known.voted >= message.ballot
    if isinstance(message, AcceptShort):
        return known.phase == Phase.ACCEPTED
    if isinstance(message, ValidateOk):
        return known.promised >= message.ballot and known.initial_deps is not None
    # After the slow path any quorum still has it; after the fast path only the command leader is
    # sure to.
    assert isinstance(message, CommitShort), "one of _SINGLE"
    return message.replica != replica.me or known.phase == Phase.ACCEPTED


def _raise(found: Sequence[str]) -> None:
    if found:
        raise AssertionError("; ".join(found[:3]))
