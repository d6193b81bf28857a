"""Bugs about who must have answered, and what an answer must say."""

from epaxos.core.command import Payload
from epaxos.core.quorum import Quorums
from epaxos.core.replica import Setup
from epaxos.core.types import Deps, Micros, ReplicaId
from epaxos.protocols.epaxos.instance import Instance, Phase, PreAccepting
from epaxos.protocols.epaxos.messages import PreAcceptOk
from epaxos.protocols.epaxos.replica import EPaxosReplica
from epaxos.sim.check.checkers import (
    AGREEMENT,
    CONVERGES,
    COUNTED,
    INVARIANT,
    LINEARIZABLE,
    ORDER,
    VISIBILITY,
)
from epaxos.sim.museum.exhibit import Directed, Exhibit, Swarm, in_replica
from epaxos.sim.schedule.recipes import exchange, preaccept
from epaxos.sim.schedule.stage import Stage

_ONE_ORDER = (AGREEMENT, VISIBILITY, ORDER, LINEARIZABLE, CONVERGES)
"""What breaks when two quorums miss each other."""


class _SmallFastQuorum(EPaxosReplica):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.sizes = self.sizes._replace(fast=self.sizes.fast - 1)


class _SmallSlowQuorum(EPaxosReplica):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.sizes = self.sizes._replace(slow=self.sizes.slow - 1)


class _MajorityIsFast(EPaxosReplica):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.sizes: Quorums = self.sizes._replace(fast=self.n // 2 + 1)


def _seven(stage: Stage) -> None:
    """A's batch is equal at four of seven replicas and A decides it. A, and two that know it, die.
    F recovers it with a slow quorum, in which only one has it."""
    stage.put("A", "x")
    preaccept(stage, "A", "A.1", "B", "C", "D")
    stage.crash("A", "B", "C")
    stage.drop_all()
    stage.recover("E", "A.1")
    for member in "DFG":
        stage.deliver(f"E>{member}", "Recover")
        stage.deliver(f"{member}>E", "RecoverOk")
    stage.deliver_all("DEFG")


class _CountsMessages(EPaxosReplica):
    def _on_preaccept_ok(self, source: ReplicaId, m: PreAcceptOk, now: Micros) -> None:
        known = self.columns.get(m.replica, m.slot)
        attempt = None if known is None else known.attempt
        if (
            isinstance(attempt, PreAccepting)
            and source in attempt.replied
            and m.deps == attempt.instance.deps
        ):
            attempt.same += 1
            if attempt.same >= self.sizes.fast:
                self._commit_fast(attempt, now)
            return
        super()._on_preaccept_ok(source, m, now)


def _one_member_answers_twice(stage: Stage) -> None:
    """Of five replicas only B has seen A's batch, and its answer arrives twice. D decides another
    batch on the key with C and E."""
    stage.put("A", "x")
    stage.deliver("A>B", "PreAccept", keep=True)
    stage.deliver("B>A", "PreAcceptOk", keep=True)
    stage.deliver("B>A", "PreAcceptOk")
    stage.drop("A>")
    stage.put("D", "x")
    preaccept(stage, "D", "D.1", "C", "E")


class _FirstAnswerIsEnough(EPaxosReplica):
    def _on_preaccept_ok(self, source: ReplicaId, m: PreAcceptOk, now: Micros) -> None:
        known = self.columns.get(m.replica, m.slot)
        if known is not None and known.phase == Phase.PREACCEPTED:
            attempt = known.attempt
            if isinstance(attempt, PreAccepting):
                known.deps = m.deps
                attempt.same = self.sizes.fast - 1
        super()._on_preaccept_ok(source, m, now)


def _two_candidates(stage: Stage) -> None:
    """A's batch meets B's at B and C's at C. A hears B, and dies; B recovers it with C."""
    stage.put("B", "x")
    stage.put("C", "x")
    stage.drop_all()
    stage.put("A", "x")
    stage.deliver("A>B", "PreAccept")
    stage.deliver("A>C", "PreAccept")
    stage.deliver("B>A", "PreAcceptOk")
    stage.crash("A")
    stage.drop_all()
    stage.recover("B", "A.1")
    exchange(stage, "B>C", "Recover")
    stage.deliver_all("BC")


class _AnswersWhatItWasTold(EPaxosReplica):
    def _acceptor_deps(self, replica: ReplicaId, payload: Payload, initial: Deps) -> Deps:
        return initial


class _CountsHopes(EPaxosReplica):
    def _start_preaccept(
        self, instance: Instance, payload: Payload, deps: Deps, now: Micros
    ) -> None:
        self.counts["fast"] += 1
        super()._start_preaccept(instance, payload, deps, now)

    def _commit_fast(self, attempt: PreAccepting, now: Micros) -> None:
        self.counts["fast"] -= 1
        super()._commit_fast(attempt, now)


EXHIBITS = (
    Exhibit(
        name="small-fast-quorum",
        title="The fast path counts one answer too few",
        source="protocol.md 1.1",
        story="Five replicas decide on the fast path when three agree, the command leader among "
        "them. With two, a second batch can find two others, and a recovery can find three that "
        "never heard of a batch whose client has its answer.",
        plant=in_replica(_SmallFastQuorum),
        properties=_ONE_ORDER,
        search=Swarm((5,)),
        budget=60,
    ),
    Exhibit(
        name="seven-replicas",
        title="The fast quorum of seven replicas is taken to be a majority",
        source="efficient/epaxos issue 10; protocol.md 1.1",
        story="For three and five replicas the fast quorum is a majority, so an implementation "
        "that counts half of the others looks right in every test that anybody runs. Seven "
        "replicas need five. With four, three crashes leave one replica that saw the batch, and a "
        "recovery cannot tell whether it was decided.",
        plant=in_replica(_MajorityIsFast),
        properties=(AGREEMENT,),
        search=Directed(7, _seven),
    ),
    Exhibit(
        name="small-slow-quorum",
        title="Accept and recovery count one answer too few",
        source="protocol.md 1.1",
        story="What was accepted by a slow quorum survives because any two slow quorums share a "
        "replica. One answer fewer, and a recovery can ask two replicas of which neither has "
        "voted for what the other two decided.",
        plant=in_replica(_SmallSlowQuorum),
        properties=(*_ONE_ORDER, INVARIANT),
        search=Swarm((5,)),
        budget=60,
    ),
    Exhibit(
        name="counts-messages",
        title="A quorum is counted in messages, not in replicas",
        source="protocol.md 1.13, H9",
        story="A question is asked again when its answer is late, so answers come twice. Who "
        "counts messages takes one replica for two, and decides with a quorum that is not one.",
        plant=in_replica(_CountsMessages),
        properties=(VISIBILITY,),
        search=Directed(5, _one_member_answers_twice),
    ),
    Exhibit(
        name="first-answer-decides",
        title="With three replicas the first answer decides, whatever it says",
        source="the original Go code with three replicas; openacid/celeritasdb issue 24; "
        "protocol.md 2.13",
        story="The command leader and one more replica are a fast quorum of three, so the leader "
        "takes that one's deps and decides in one round trip, always. If the other two answered "
        "differently and the leader dies, nobody can say which answer it took. This is why three "
        "replicas under conflict need two rounds.",
        plant=in_replica(_FirstAnswerIsEnough),
        properties=(AGREEMENT,),
        search=Directed(3, _two_candidates),
    ),
    Exhibit(
        name="echoed-deps",
        title="Acceptors answer with the command leader's deps as they came",
        source="protocol.md 1.5",
        story="A replica that pre-accepts a batch adds what it knows to interfere. One that only "
        "repeats what it was told makes every batch look free of conflict: all are fast, and no "
        "two replicas agree on their order.",
        plant=in_replica(_AnswersWhatItWasTold),
        properties=_ONE_ORDER,
        search=Swarm((3,)),
        budget=20,
    ),
    Exhibit(
        name="counted-too-early",
        title="A batch counts as fast when it sets out, not when it arrives",
        source="the share of the fast path in many a figure",
        story="Most batches take the fast path, so a counter moved at the start and not at the end "
        "is nearly right. Under conflict it is not, and there it matters: the comparison then says "
        "that latency is bad although nearly everything was fast.",
        plant=in_replica(_CountsHopes),
        properties=(COUNTED,),
        search=Swarm((3,), options={"keys": 1, "gate": False}),
        budget=20,
    ),
)
