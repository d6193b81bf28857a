"""Bugs about waiting: when to ask again, and when to leave others alone."""

from epaxos.core.replica import Setup
from epaxos.core.types import Micros, ReplicaId, Slot
from epaxos.protocols.epaxos.columns import Columns
from epaxos.protocols.epaxos.instance import Attempt
from epaxos.protocols.epaxos.replica import EPaxosReplica
from epaxos.sim.check.checkers import EXECUTES
from epaxos.sim.museum.exhibit import Directed, Exhibit, Swarm, in_replica, must_be_decided
from epaxos.sim.schedule.stage import Stage

LONG_US: Micros = 2_000_000
"""Longer than any pause between two questions."""
_FAR = tuple(tuple(0 if i == j else 80_000 for j in range(5)) for i in range(5))


class _Hasty(Columns):
    def backoff_us(self, tries: int) -> Micros:
        return self.rtt_max // 2

    def taken_over(self, replica: ReplicaId, slot: Slot, now: Micros) -> None:
        pass

    def _stagger(self, replica: ReplicaId) -> Micros:
        return 0


class _Duels(EPaxosReplica):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.columns = _Hasty(setup.me, setup.n, setup.rtt_us, setup.random)


def _lost_twice(stage: Stage) -> None:
    """A's batch is lost, and so is its repetition. After that no message is lost any more."""
    stage.put("A", "x")
    stage.drop_all()
    stage.wait("A", LONG_US)
    stage.drop_all()
    for _ in range(3):
        stage.wait("A", LONG_US)
        stage.deliver_all()
    must_be_decided(stage, "A", "A.1")


class _AsksTwice(EPaxosReplica):
    def _on_attempt_due(self, attempt: Attempt, now: Micros) -> None:
        super()._on_attempt_due(attempt, now)
        self._timers.cancel(attempt)


class _BeginsAnew(EPaxosReplica):
    def _is_given_up(self, attempt: Attempt, all_lost: bool) -> bool:
        return super()._is_given_up(attempt, True)


EXHIBITS = (
    Exhibit(
        name="duel",
        title="Recoverers neither take turns nor back off",
        source="protocol.md 1.14; Cassandra's EPaxos prototype",
        story="A command leader dies, and all others notice at the same time. Each takes its "
        "instances over in a ballot above the last one it saw, sees its own overtaken before it "
        "is done, and tries again. Whoever is next always comes too early.",
        plant=in_replica(_Duels),
        properties=(EXECUTES,),
        search=Swarm(
            (5,),
            commands=20,
            faults={"dead": 2},
            options={"delays_us": _FAR, "jitter_us": 0, "settle_us": 8_000_000},
        ),
        budget=20,
    ),
    Exhibit(
        name="lost-timer",
        title="A question that was asked twice is not asked again",
        source="protocol.md 1.14",
        story="The timer of an unanswered question is set when the question is asked, and not "
        "again when it is repeated. Two losses in a row are rare. When they come, the instance "
        "has somebody who takes care of it and does nothing, so nobody else takes care of it "
        "either.",
        plant=in_replica(_AsksTwice),
        properties=(EXECUTES,),
        search=Directed(3, _lost_twice),
    ),
    Exhibit(
        name="begins-anew",
        title="A recovery begins anew while the answers to its question are on their way",
        source="this project, found when drawn constants stayed until liveness is judged",
        story="A recovery that has asked often enough takes a higher ballot. Dead members are "
        "asked again and again, so some time after it began it has always asked often enough. "
        "Where the living take longer to answer, by distance or because they are busy, each ballot "
        "ends before its answers come.",
        plant=in_replica(_BeginsAnew),
        properties=(EXECUTES,),
        search=Swarm(
            (5,),
            faults={"dead": 2},
            options={
                "delays_us": _FAR,
                "tunables": (("epaxos.RESEND_RTTS", 0.6), ("epaxos.VALIDATE_RESENDS", 0)),
            },
        ),
        budget=20,
    ),
)
