"""Bugs of forgetting: what may be dropped once everybody has executed it, and what may not."""

from epaxos.core.command import Payload
from epaxos.core.types import Deps, InstanceId, Micros, ReplicaId
from epaxos.node.node import Node
from epaxos.node.requests import NodeReady
from epaxos.protocols.epaxos.conflicts import ConflictIndex
from epaxos.protocols.epaxos.instance import Phase
from epaxos.protocols.epaxos.messages import Progress
from epaxos.protocols.epaxos.replica import EPaxosReplica
from epaxos.sim.check.checkers import AGREEMENT, EXECUTES
from epaxos.sim.museum.exhibit import Directed, Exhibit, in_node, in_replica, must_be_executed
from epaxos.sim.schedule.recipes import ask, preaccept
from epaxos.sim.schedule.stage import Stage

HEARTBEAT_US = 60_000
"""After so long every replica has its next heartbeat due."""
SYNC_US = 150_000
"""After so long a replica makes durable what it has executed."""


def _tell(stage: Stage, *ways: str) -> None:
    """Heartbeats, "A>B"."""
    for way in ways:
        stage.wait(way[0], HEARTBEAT_US)
        stage.deliver(way, "Progress")


def _settle(stage: Stage, *members: str) -> None:
    """Their executed vectors become durable, and they know it."""
    for member in members:
        stage.wait(member, SYNC_US)
        stage.wait(member, 1)


def _leader_leaves_out(stage: Stage) -> None:
    """B's batch is executed by all; A and B know that everybody has, C does not. A proposes another
    on the same key and decides with B; its Commit is lost, A dies, and B recovers with C."""
    stage.put("B", "x")
    stage.deliver_all()
    _settle(stage, "A", "B", "C")
    stage.drop_all()
    _tell(stage, "A>B", "C>B", "B>A", "C>A")
    stage.put("A", "x")
    preaccept(stage, "A", "A.1", "B")
    stage.crash("A")
    stage.drop_all()
    ask(stage, "B", "A.1", "C")
    stage.deliver_all("BC")


class _ForgetsAtStable(EPaxosReplica):
    def _on_progress(self, source: ReplicaId, m: Progress, now: Micros) -> None:
        super()._on_progress(source, m, now)
        self.index = ConflictIndex(self.n)
        for column, instances in enumerate(self.columns.instances):
            for slot, known in instances.items():
                if slot > self.columns.stable[column] and known.payload is not None:
                    self.index.add(column, slot, known.payload.footprint)

    def propose(self, payload: Payload, now: Micros) -> InstanceId:
        stable, self.columns.stable = self.columns.stable, (0,) * self.n
        instance = super().propose(payload, now)
        self.columns.stable = stable
        return instance


def _acceptor_leaves_out(stage: Stage) -> None:
    """A's batch is proposed with empty deps and is slow on its way to B. C's batch on the same key
    is decided, executed by all and forgotten at B. Now A's reaches B; A dies, and B recovers it
    with C."""
    stage.put("A", "x")
    stage.drop("A>C")
    stage.put("C", "x")
    preaccept(stage, "C", "C.1", "B")
    stage.deliver("C>B", "CommitShort")
    stage.deliver("C>A", "CommitShort")
    stage.deliver("A>C", "CommitReq")
    stage.deliver("C>A", "Commit")
    slow = [sent for sent in stage.flight if stage.matches(sent, "A>B", "PreAccept", "A.1")]
    _settle(stage, "A", "B", "C")
    _tell(stage, "B>C", "A>C", "A>B", "C>B", "B>A", "C>A", "A>B")
    stage.flight = slow
    preaccept(stage, "A", "A.1", "B")
    stage.crash("A")
    stage.drop_all()
    ask(stage, "B", "A.1", "C")
    stage.deliver_all("BC")


class _AnswersWithoutFloor(EPaxosReplica):
    def _acceptor_deps(self, replica: ReplicaId, payload: Payload, initial: Deps) -> Deps:
        self.index = ConflictIndex(self.n)
        for column, instances in enumerate(self.columns.instances):
            for slot, known in instances.items():
                if known.phase != Phase.INITIAL and known.payload is not None:
                    self.index.add(column, slot, known.payload.footprint)
        return self.index.deps(payload.footprint, initial)


def _told_and_lost(stage: Stage) -> None:
    """All three execute A's batch. A and C have it on disk, B not yet. Heartbeats go round, and B
    crashes; A and C learn that everybody knows that everybody has executed it. B comes back."""
    stage.put("A", "x")
    stage.deliver_all()
    stage.put("C", "y")
    stage.drop_all()
    stage.wait("C", HEARTBEAT_US)
    stage.wait("A", 1)
    stage.deliver("C>B", "Progress")
    stage.deliver("A>B", "Progress")
    stage.wait("B", 1)
    stage.crash("B")
    for way in ("B>A", "B>C", "A>C", "C>A"):
        stage.deliver(way, "Progress")
    _tell(stage, "A>C", "C>A", "A>C", "C>A")
    stage.drop_all()
    stage.restart("B")
    for _ in range(10):
        stage.wait("B", 100_000)
        stage.deliver_all()
    must_be_executed(stage, "B", "A.1")


class _AdvertisesAtOnce(Node):
    """The executed vector is told as it is, not as of the last sync."""

    def take(self, now: Micros) -> NodeReady:
        ready = super().take(now)
        if self._executed_noted != self._executed_durable:
            self.replica.executed(self._executed_noted, now)
        return ready


EXHIBITS = (
    Exhibit(
        name="leader-leaves-out",
        title="A command leader leaves out of its deps what everybody has executed",
        source="protocol.md R15",
        story="What every replica has executed seems to need no mention any more. But this "
        "replica knows that and another one does not yet, and the two then name different deps "
        "for the same batch. A recovery takes the difference for an objection, and a batch that "
        "was decided becomes Nop.",
        plant=in_replica(_ForgetsAtStable),
        properties=(AGREEMENT,),
        search=Directed(3, _leader_leaves_out),
    ),
    Exhibit(
        name="acceptor-leaves-out",
        title="An acceptor leaves out of its answer what it has forgotten",
        source="protocol.md R15",
        story="A PreAccept was slow, and while it was on its way an interfering batch was "
        "decided, executed by all, and forgotten where the PreAccept now arrives. The answer says "
        "that nothing interferes. Another replica has not forgotten yet, and says so when its "
        "turn comes: the batch was decided, and becomes Nop.",
        plant=in_replica(_AnswersWithoutFloor),
        properties=(AGREEMENT,),
        search=Directed(3, _acceptor_leaves_out),
    ),
    Exhibit(
        name="live-vector",
        title="A replica advertises what it has executed before its disk says so",
        source="protocol.md R3",
        story="The others forget an instance when everybody has executed it. If one of them only "
        "said so, crashes, and comes back from its disk, it misses an instance that nobody has "
        "any more: it asks for ever, and executes nothing that comes after.",
        plant=in_node(_AdvertisesAtOnce),
        properties=(EXECUTES,),
        search=Directed(3, _told_and_lost),
    ),
)
