"""Bugs about what must be on disk before something is said, and what a restart brings back."""

from collections.abc import Callable

from epaxos.core.command import Payload
from epaxos.core.lineage import Life
from epaxos.core.replica import Executed, Outbox, Path, Record, Setup
from epaxos.core.types import Deps, Micros, ReplicaId
from epaxos.node.node import Node
from epaxos.node.requests import Limits, NodeReady
from epaxos.protocols.epaxos.instance import Instance
from epaxos.protocols.epaxos.messages import PreAccepted, Promised
from epaxos.protocols.epaxos.replica import EPaxosReplica
from epaxos.registry import ProtocolSpec
from epaxos.sim.check.checkers import (
    AGREEMENT,
    CONVERGES,
    EXECUTES,
    INVARIANT,
    LINEARIZABLE,
    ONCE,
    ORDER,
    REMEMBERED,
    RESTORES,
    VISIBILITY,
)
from epaxos.sim.disk import Disk
from epaxos.sim.museum.exhibit import Directed, Exhibit, Swarm, in_node, in_place_of, in_replica
from epaxos.sim.schedule.recipes import ask, exchange, preaccept
from epaxos.sim.schedule.stage import Stage
from epaxos.sim.world import World

_CRASHES = {"crashes": 10}


def _a_counter_will_do(
    true: Callable[..., bool], world: World, disk: Disk, remembered: Life
) -> bool:
    return disk.boot > remembered.boot


def _lost_fast_commit(stage: Stage) -> None:
    """A decides on the fast path with B, tells its client, and crashes before any Commit leaves. It
    restarts from its disk, and B recovers A.1 together with A."""
    stage.put("A", "x")
    preaccept(stage, "A", "A.1", "B")
    stage.drop_all()
    stage.crash("A")
    stage.restart("A")
    stage.drop_all()
    ask(stage, "B", "A.1", "A")
    stage.deliver_all("AB")


def _trusts_what_it_read(rewrite: Callable[[Disk], None], disk: Disk) -> None:
    """Nothing is written again."""


class _NotesItsFastCommit(EPaxosReplica):
    def _commit(
        self, instance: Instance, payload: Payload | None, deps: Deps, path: Path, now: Micros
    ) -> None:
        path = Path.SLOW if path is Path.FAST else path
        super()._commit(instance, payload, deps, path, now)


def _amnesiac_acceptor(stage: Stage) -> None:
    """B pre-accepts A's batch and answers; then it crashes and comes back from its disk, and its
    answer reaches A. C asks B about an interfering batch."""
    stage.put("A", "x")
    stage.deliver("A>B", "PreAccept")
    stage.crash("B")
    stage.restart("B")
    stage.deliver("B>A", "PreAcceptOk")
    stage.drop_all()
    stage.put("C", "x")
    exchange(stage, "C>B", "PreAccept")
    stage.drop("C>A", "PreAccept")
    stage.deliver_all("BC")


class _NotesPreAccepts(Outbox):
    def record(self, record: Record) -> None:
        if isinstance(record, PreAccepted):
            self.note(record)
        else:
            super().record(record)


class _AnswersBeforeItSyncs(EPaxosReplica):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.out = _NotesPreAccepts()


def _forgotten_promise(stage: Stage) -> None:
    """A's PreAccept is on its way to B when C takes A.1 over with B: neither knows the batch, so it
    becomes Nop. B crashes and comes back from its disk before it hears more of either."""
    stage.put("A", "x")
    stage.drop("A>C", "PreAccept")
    stage.recover("C", "A.1")
    stage.drop("C>A")
    exchange(stage, "C>B", "Recover")
    stage.drop("C>A")
    stage.crash("B")
    stage.restart("B")
    stage.deliver("A>B", "PreAccept")
    stage.deliver("B>A", "PreAcceptOk|Nack")
    stage.drop("A>")
    exchange(stage, "C>B", "Accept")


class _NotesPromises(Outbox):
    def record(self, record: Record) -> None:
        if isinstance(record, Promised):
            self.note(record)
        else:
            super().record(record)


class _PromisesBeforeItSyncs(EPaxosReplica):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.out = _NotesPromises()


class _RepliesFirst(Node):
    """Answers leave at once; what they rest on is appended with the next step."""

    def __init__(self, protocol: ProtocolSpec, setup: Setup, boot: int, limits: Limits) -> None:
        super().__init__(protocol, setup, boot, limits)
        self._held: NodeReady | None = None

    def take(self, now: Micros) -> NodeReady:
        if self._held is not None:
            held, self._held = self._held, None
            return held
        ready = super().take(now)
        if not ready.replies:
            return ready
        self._held = ready._replace(replies=[])
        return NodeReady([], False, [], ready.replies, [])

    def deadline(self) -> Micros | None:
        return 0 if self._held is not None else super().deadline()


def _two_in_a_group(stage: Stage) -> None:
    """Batches of A and C reach B at the same time; B logs both, syncs, answers both, and
    crashes."""
    stage.put("A", "x")
    stage.put("C", "y")
    stage.step("B", stage.arrival("A>B", "PreAccept A.1"), stage.arrival("C>B", "PreAccept C.1"))
    stage.deliver("B>A", "PreAcceptOk")
    stage.deliver("B>C", "PreAcceptOk")
    stage.crash("B")


class _SyncsHalf(Node):
    """Of a group of records the first half is synced, and all of it is acknowledged."""

    def __init__(self, protocol: ProtocolSpec, setup: Setup, boot: int, limits: Limits) -> None:
        super().__init__(protocol, setup, boot, limits)
        self._left: list[Record] = []

    def take(self, now: Micros) -> NodeReady:
        ready = super().take(now)
        log = self._left + ready.log
        half = (len(log) + 1) // 2 if ready.must_sync else len(log)
        self._left = log[half:]
        return ready._replace(log=log[:half])


def _slot_used_twice(stage: Stage) -> None:
    """A's PreAccept leaves before its own record is durable, and reaches B. A crashes, restarts
    with nothing, and gives its next batch the same slot."""
    stage.put("A", "x")
    stage.deliver("A>B", "PreAccept")
    stage.crash("A")
    stage.drop_all()
    stage.restart("A")
    stage.put("A", "y")
    stage.drop("A>C")
    stage.deliver_all("AB")


class _UnsyncedSlots(Outbox):
    def __init__(self, me: ReplicaId) -> None:
        super().__init__()
        self._me = me

    def record(self, record: Record) -> None:
        if isinstance(record, PreAccepted) and record.replica == self._me:
            self.note(record)
        else:
            super().record(record)


class _ProposesBeforeItSyncs(EPaxosReplica):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.out = _UnsyncedSlots(setup.me)


def _counts_from_one(stage: Stage) -> None:
    """A decides a batch, crashes, comes back from its disk and proposes another."""
    stage.put("A", "x")
    stage.deliver_all()
    stage.crash("A")
    stage.restart("A")
    stage.put("A", "y")
    stage.deliver_all()


class _StartsCountingAgain(EPaxosReplica):
    def _restore_preaccepted(self, r: PreAccepted) -> None:
        super()._restore_preaccepted(r)
        self._next_slot = 1

    def _is_taken(self, instance: Instance) -> bool:
        return instance.promised > 0  # what was decided before it was proposed is written over


class _StartsEmpty(Node):
    def restore(self, record: Record) -> None:
        pass


class _LogsInOrderOfNames(Node):
    def take(self, now: Micros) -> NodeReady:
        ready = super().take(now)
        log: list[Record] = []
        for record in ready.log:
            if isinstance(record, Executed):
                ids = sorted(zip(record.replicas, record.slots))
                record = Executed(bytes(each[0] for each in ids), [each[1] for each in ids])
            log.append(record)
        return ready._replace(log=log)


EXHIBITS = (
    Exhibit(
        name="unsynced-fast-commit",
        title="The command leader tells its client of a fast commit before it is on its disk",
        source="efficient/epaxos issues 27 and 28; protocol.md 2.6",
        story="In the papers a process that crashes never returns, so a fast commit needs no "
        "disk. A real one returns, remembers only that it pre-accepted, and says so to whoever "
        "recovers the instance. The rule says that a leader that answers has not decided: Nop. "
        "The client had its answer, and the write is gone.",
        plant=in_replica(_NotesItsFastCommit),
        properties=(AGREEMENT,),
        search=Directed(3, _lost_fast_commit),
    ),
    Exhibit(
        name="unsynced-vote",
        title="An acceptor answers a PreAccept before its vote is on its disk",
        source="efficient/epaxos issue 28; protocol.md 2.6",
        story="A replica answered, crashed, and knows nothing of it. Its answer completes a "
        "quorum all the same. Asked about the next batch on the key it says that nothing "
        "interferes, and two batches are decided blind to each other.",
        plant=in_replica(_AnswersBeforeItSyncs),
        properties=(VISIBILITY,),
        search=Directed(3, _amnesiac_acceptor),
    ),
    Exhibit(
        name="unsynced-promise",
        title="A promise leaves before it is on the disk",
        source="protocol.md 1.12",
        story="A replica promised a recoverer to take part in no lower ballot, crashed, and has "
        "forgotten it. It now votes in the lower ballot, for which the recoverer had counted it "
        "out. Two recoveries of one instance can then both succeed.",
        plant=in_replica(_PromisesBeforeItSyncs),
        properties=(AGREEMENT,),
        search=Directed(3, _forgotten_promise),
    ),
    Exhibit(
        name="reply-before-sync",
        title="The client has its answer before the disk has the commit",
        source="protocol.md 1.12",
        story="The answer does not wait for the sync because it is the last thing that matters to "
        "the client. It matters to everybody: when the replica crashes at that moment, the others "
        "make the instance Nop, and a write that was acknowledged never happened.",
        plant=in_node(_RepliesFirst),
        properties=(AGREEMENT, LINEARIZABLE, ORDER, CONVERGES),
        search=Swarm((1, 3), faults=_CRASHES),
        budget=60,
    ),
    Exhibit(
        name="half-a-group",
        title="Half of a group of records is synced, and all of it is acknowledged",
        source="protocol.md 1.12",
        story="Records are synced in groups, one sync for many. If the group that is acknowledged "
        "is not the group that was synced, the rest of it is a promise that nobody keeps. It "
        "shows only when a crash falls between the two.",
        plant=in_node(_SyncsHalf),
        properties=(REMEMBERED,),
        search=Directed(3, _two_in_a_group),
    ),
    Exhibit(
        name="proposes-before-it-syncs",
        title="A PreAccept leaves before its command leader's own record is durable",
        source="protocol.md 1.12 and R2",
        story="The first record of an instance is also what gives its slot away. A command leader "
        "that sends first and crashes comes back without either, and uses the slot again. A "
        "replica that saw the first batch answers for the second as if it were the same.",
        plant=in_replica(_ProposesBeforeItSyncs),
        properties=(AGREEMENT,),
        search=Directed(3, _slot_used_twice),
    ),
    Exhibit(
        name="slot-used-again",
        title="A restarted replica counts its slots from 1 again",
        source="protocol.md R2",
        story="The log has every own instance, but the counter was kept in memory only. After a "
        "restart the next batch takes the place of one that was decided long ago.",
        plant=in_replica(_StartsCountingAgain),
        properties=(ONCE,),
        search=Directed(3, _counts_from_one),
    ),
    Exhibit(
        name="empty-restart",
        title="A replica comes back under its old name with an empty disk",
        source="protocol.md R11 and 4.6; TigerBeetle's reformat fault",
        story="A replica that has lost its log is not a slow replica, it is another one: the "
        "others still count the votes that it no longer knows of. A restored backup is the same "
        "thing.",
        plant=in_node(_StartsEmpty),
        properties=(VISIBILITY,),
        search=Directed(3, _amnesiac_acceptor),
    ),
    Exhibit(
        name="trusts-failed-sync",
        title="A start trusts what a failed sync left in memory",
        source="Rebello et al., Can Applications Recover from fsync Failures? (ATC 2020)",
        story="A sync fails and the process ends, as it must. What the sync covered can still be "
        "read, so the next life restores it and speaks of it; but the system takes it for "
        "written, and no later sync writes it. The next loss of power leaves a hole where others "
        "rely on a record.",
        plant=in_place_of(Disk, "rewrite", _trusts_what_it_read),
        properties=(REMEMBERED, RESTORES),
        search=Swarm(
            kinds=frozenset({"sync_errors_readable", "crashes"}),
            faults={"sync_errors_readable": 6, "crashes": 8},
        ),
        budget=40,
    ),
    Exhibit(
        name="amnesia",
        title="A boot counter is taken for a memory",
        source="protocol.md R11, and 1.15",
        story="Each start of a data directory has a higher number, and peers refuse a lower one "
        "than they saw. A directory that was emptied begins at 1 again and is refused, but a "
        "refused start counts too: after a few of them the number has passed what the peers "
        "remember, and a replica that has forgotten all its votes is let in.",
        plant=in_place_of(World, "accepts", _a_counter_will_do),
        properties=(REMEMBERED, INVARIANT, AGREEMENT, ONCE, VISIBILITY, ORDER, EXECUTES, CONVERGES),
        search=Swarm(
            (3, 5),
            kinds=frozenset({"swapped", "crashes"}),
            faults={"crashes": 4, "swapped": 2, "insistent": 12},
        ),
        budget=60,
    ),
    Exhibit(
        name="order-not-logged",
        title="The log says what has run, but not in which order",
        source="protocol.md R3 and R5",
        story="A replica notes the instances that it has executed, sorted, as lists of ids usually "
        "are. When it starts again it runs them in the order of the list. Two writes of one key "
        "that ran the other way round leave another value behind, here and nowhere else.",
        plant=in_node(_LogsInOrderOfNames),
        properties=(RESTORES, CONVERGES, ORDER, LINEARIZABLE),
        search=Swarm((3,), options={"keys": 1, "gate": False}),
        budget=40,
    ),
)
