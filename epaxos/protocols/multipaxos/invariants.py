"""What is always true of Multi-Paxos, as sentences that run.

`check` looks at one replica, `check_step` at one replica before and after a step,
`check_remembered` at a replica restored from its log and a message it once released,
`check_cluster` at all replicas that live. Each raises AssertionError that begins
with the number of the broken sentence. On in every test and in the simulator, off in benchmarks.

MP1  No vote has a higher ballot than the replica promised.
MP2  A replica holds every slot above its floor up to its commit index, and each of them is chosen;
     the floor is not above what it executed durably, nor that above the commit index.
MP3  Who knows a leader has promised that leader's ballot; who leads does so by its own ballot.
MP4  A leader has voted, by its own ballot, for every open slot below its next one, and holds none
     from the next one on.
MP5  What a leader counts as chosen by its ballot has the votes of a majority of replicas.
MP6  What a replica promised never decreases.
MP7  Commit index, floor and the leader's next slot never decrease.
MP8  A chosen slot stays chosen, with its value.
MP9  The ballot of a vote never decreases, and in one ballot a slot keeps its value.
MP10 No slot is chosen with two values.
MP11 In one ballot no two replicas voted for different values of a slot.
MP12 No two replicas lead by one ballot.
MP13 What is chosen somewhere is held by a majority of all replicas.
MP14 No floor is above what any member executed durably.
MP15 After a restart a replica still keeps what it said: its promises, its votes, its proposals, and
     what it advertised as executed.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from epaxos.core.command import Payload
from epaxos.core.replica import Message
from epaxos.core.types import Ballot, ReplicaId, Slot, ballot_name, ballot_replica, replica_name
from epaxos.protocols.multipaxos.messages import Accept, AcceptOk, Heartbeat, Prepare, Promise
from epaxos.protocols.multipaxos.replica import MultiPaxosReplica
from epaxos.protocols.multipaxos.stages import Leading


class Held(NamedTuple):
    """One slot as a snapshot keeps it."""

    ballot: Ballot
    payload: Payload | None
    chosen: bool


class Snapshot(NamedTuple):
    """What `check_step` compares."""

    promised: Ballot
    commit: Slot
    floor: Slot
    leading: tuple[Ballot, Slot] | None
    """Ballot and next slot of a leader."""
    slots: dict[Slot, Held]


def snapshot(replica: MultiPaxosReplica) -> Snapshot:
    """The state of a replica for a later `check_step`."""
    stage, log = replica.stage, replica.log
    return Snapshot(
        replica.promised,
        log.chosen,
        replica.floor[0],
        (stage.ballot, stage.next) if isinstance(stage, Leading) else None,
        {slot: Held(e.ballot, e.payload, e.chosen) for slot, e in log.entries.items()},
    )


def check(replica: MultiPaxosReplica) -> None:
    """MP1 to MP5."""
    log, stage = replica.log, replica.stage
    for slot, entry in log.entries.items():
        assert entry.ballot <= replica.promised, f"MP1: slot {slot} of {_name(replica)}"
    executed = replica.members.executed[replica.me]
    assert replica.floor[0] == log.floor <= executed <= log.chosen, f"MP2: {_name(replica)}"
    for slot in range(log.floor + 1, log.chosen + 1):
        held = log.entries.get(slot)
        assert held is not None, f"MP2: slot {slot} of {_name(replica)} is not held"
        assert held.chosen, f"MP2: slot {slot} of {_name(replica)} is not chosen"
    if replica.leader is not None:
        assert ballot_replica(replica.promised) == replica.leader, f"MP3: {_name(replica)}"
    if isinstance(stage, Leading):
        assert stage.ballot == replica.promised, f"MP3: {_name(replica)}"
        assert replica.leader == replica.me, f"MP3: {_name(replica)}"
        _check_leading(replica, stage)


def _check_leading(replica: MultiPaxosReplica, stage: Leading) -> None:
    log = replica.log
    assert log.last < stage.next, f"MP4: {_name(replica)} holds slot {log.last}"
    for slot in range(log.floor + 1, stage.next):
        entry = log.entries.get(slot)
        assert entry is not None, f"MP4: slot {slot} of {_name(replica)}"
        if not entry.chosen:
            assert entry.ballot == stage.ballot, f"MP4: slot {slot} of {_name(replica)}"
        elif entry.ballot == stage.ballot:
            votes = entry.votes.bit_count()
            assert votes >= replica.n // 2 + 1, f"MP5: slot {slot} of {_name(replica)}: {votes}"


def check_step(before: Snapshot, replica: MultiPaxosReplica) -> Snapshot:
    """MP6 to MP9, between a snapshot and the same replica later in the same life, and MP1 to MP5 of
    it; returns the present one, for the next step."""
    check(replica)
    after = snapshot(replica)
    name = _name(replica)
    assert after.promised >= before.promised, f"MP6: {name}"
    assert after.commit >= before.commit, f"MP7: {name}: commit index"
    assert after.floor >= before.floor, f"MP7: {name}: floor"
    if before.leading and after.leading and before.leading[0] == after.leading[0]:
        assert after.leading[1] >= before.leading[1], f"MP7: {name}: next slot"
    for slot, old in before.slots.items():
        new = after.slots.get(slot)
        if new == old:
            continue
        if new is None:
            assert slot <= after.floor, f"MP8: slot {slot} of {name} vanished"
        elif old.chosen:
            assert new.chosen, f"MP8: slot {slot} of {name} is no longer chosen"
            assert new.payload == old.payload, f"MP8: slot {slot} of {name} changed its value"
        elif not new.chosen:
            assert new.ballot >= old.ballot, f"MP9: slot {slot} of {name}"
            if new.ballot == old.ballot:
                assert new.payload == old.payload, f"MP9: slot {slot} of {name}"
    return after


def check_remembered(replica: MultiPaxosReplica, message: Message) -> None:
    """MP15: `replica` was just restored from its durable log, and once sent `message`."""
    name = f"MP15: {_name(replica)} forgot {message}"
    if isinstance(message, Prepare | Promise):
        assert replica.promised >= message.ballot, name
    elif isinstance(message, AcceptOk):
        for slot in range(message.first, message.last + 1):
            _check_vote(replica, slot, message.ballot, name)
    elif isinstance(message, Accept):
        _check_vote(replica, message.slot, message.ballot, name)
        entry = replica.log.entries.get(message.slot)
        if entry is not None and entry.ballot == message.ballot:
            assert entry.payload == message.payload, name
    elif isinstance(message, Heartbeat):
        assert replica.promised >= message.ballot, name
        assert replica.log.chosen >= message.executed[0], name


def _check_vote(replica: MultiPaxosReplica, slot: Slot, ballot: Ballot, name: str) -> None:
    if slot > replica.log.floor:
        entry = replica.log.entries.get(slot)
        assert entry is not None, name
        assert entry.chosen or entry.ballot >= ballot, name
    assert replica.promised >= ballot, name


def check_cluster(replicas: Iterable[MultiPaxosReplica]) -> None:
    """MP10 to MP14, for the replicas that live (MP13 only if that is all of them)."""
    alive: Sequence[MultiPaxosReplica] = tuple(replicas)
    chosen: dict[Slot, tuple[Payload | None, ReplicaId]] = {}
    votes: dict[tuple[Slot, Ballot], tuple[Payload | None, ReplicaId]] = {}
    leaders: dict[Ballot, ReplicaId] = {}
    for replica in alive:
        for slot, entry in replica.log.entries.items():
            if entry.chosen:
                value, who = chosen.setdefault(slot, (entry.payload, replica.me))
                assert value == entry.payload, (
                    f"MP10: slot {slot} is {value} at {replica_name(who)} "
                    f"and {entry.payload} at {_name(replica)}"
                )
            if entry.ballot:
                value, who = votes.setdefault((slot, entry.ballot), (entry.payload, replica.me))
                assert value == entry.payload, (
                    f"MP11: slot {slot} in {ballot_name(entry.ballot)} is {value} at "
                    f"{replica_name(who)} and {entry.payload} at {_name(replica)}"
                )
        if isinstance(replica.stage, Leading):
            ballot = replica.stage.ballot
            assert leaders.setdefault(ballot, replica.me) == replica.me, (
                f"MP12: {replica_name(leaders[ballot])} and {_name(replica)} lead by "
                f"{ballot_name(ballot)}"
            )
    _check_held(alive, chosen)


def _check_held(
    alive: Sequence[MultiPaxosReplica], chosen: dict[Slot, tuple[Payload | None, ReplicaId]]
) -> None:
    floors = [(replica.floor[0], replica.me) for replica in alive]
    for replica in alive:
        for floor, who in floors:
            assert floor <= replica.log.chosen, (
                f"MP14: {replica_name(who)} forgot slots up to {floor}, {_name(replica)} knows "
                f"{replica.log.chosen}"
            )
    if not alive or len(alive) < alive[0].n:
        return
    majority = alive[0].n // 2 + 1
    for slot, (value, who) in chosen.items():
        held = 0
        for replica in alive:
            entry = replica.log.entries.get(slot)
            held += slot <= replica.log.floor or (entry is not None and entry.payload == value)
        assert held >= majority, (
            f"MP13: slot {slot}, chosen at {replica_name(who)}, is held by {held} of {len(alive)}"
        )


def _name(replica: MultiPaxosReplica) -> str:
    return replica_name(replica.me)
