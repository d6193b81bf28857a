"""Bugs about what a client is told, and when."""

from typing import Any

from epaxos.core.command import Operation, Results
from epaxos.core.errors import Ambiguous, Definite, RequestError
from epaxos.core.replica import Decided
from epaxos.core.types import Micros
from epaxos.node import node
from epaxos.node.node import Node
from epaxos.node.requests import Flight, Run
from epaxos.sim.check.checkers import HONEST, LINEARIZABLE, RELEASED, VERSIONED
from epaxos.sim.museum.exhibit import Directed, Exhibit, Swarm, in_node, in_place_of
from epaxos.sim.schedule.recipes import preaccept
from epaxos.sim.schedule.stage import Stage

_PUT = int(Operation.PUT)


class _AnswersAtCommit(Node):
    def _on_decided(self, decided: Decided, flights: list[Flight], now: Micros) -> None:
        super()._on_decided(decided, flights, now)
        payload = decided.payload
        if payload is None or payload.batch.origin != self.me:
            return
        flight = self._flying.get(payload.batch.number)
        operations = payload.batch.operations
        if flight is not None and operations.count(_PUT) == len(operations):
            size = len(operations)
            self._answer(flight, Results(decided.replica, decided.slot, 0, size, b"", [], []))


def _answered_too_early(stage: Stage) -> None:
    """B's batch reaches C. C's meets it and is decided with A on the fast path; its client could be
    told now. Then A's meets both, and B's meets A's: all three form one component, in which A's
    comes before C's. At the end a client reads."""
    stage.put("B", "x")
    stage.deliver("B>C", "PreAccept")
    stage.put("C", "x")
    preaccept(stage, "C", "C.1", "A")
    stage.put("A", "x")
    preaccept(stage, "A", "A.1", "C")
    stage.deliver("B>A", "PreAccept")
    stage.deliver("A>B", "PreAcceptOk", "B.1")
    stage.deliver_all()
    stage.get("A", "x")
    stage.deliver_all()


class _SaysItNeverHappened(Node):
    def _refuse(self, run: Run, error: RequestError, code: str) -> None:
        if isinstance(error, Ambiguous):
            error, code = Definite(str(error)), "not-proposed"
        super()._refuse(run, error, code)


def _from_the_front(true: Any, results: Results, start: int, count: int) -> Results:
    found: Results = true(results, 0, count)
    return found


def _until_its_deadline(true: Any, self: Node, run: Run) -> None:
    """An answered run stays in the table."""


EXHIBITS = (
    Exhibit(
        name="answer-at-commit",
        title="A write is answered when it is decided, not when it has run",
        source="protocol.md 2.9; EPaxos 2013 may do so, because it has sequence numbers",
        story="A blind write has nothing to report, so why wait until it has run? Because what it "
        "depends on may not be decided yet, and may come to depend on something newer. All of "
        "them form one component, and in it a write that began after the answer can run before "
        "the write that was answered.",
        plant=in_node(_AnswersAtCommit),
        properties=(LINEARIZABLE,),
        search=Directed(3, _answered_too_early),
    ),
    Exhibit(
        name="certain-refusal",
        title="A client whose time is up is told that its command did not happen",
        source="protocol.md 1.14",
        story="The command was proposed and not decided in time. It may still be, and often is. A "
        "client that is told 503 instead of 504 sends it again, and has its money moved twice.",
        plant=in_node(_SaysItNeverHappened),
        properties=(HONEST,),
        search=Swarm((3,), options={"patience_us": 200_000}),
        budget=40,
    ),
    Exhibit(
        name="anothers-answer",
        title="Every request of a batch gets the answers that stand at the front of the batch",
        source="this project: what unit tests with one request per batch do not see",
        story="Commands of several clients travel in one batch, and its results come back as "
        "columns. Each client's part begins where the parts before it end. Cut from the front "
        "instead, all is well as long as batches have one request, and as long as all answers are "
        "alike.",
        plant=in_place_of(node, "slice_of", _from_the_front),
        properties=(VERSIONED,),
        search=Swarm((3,), options={"keys": 2, "active_us": 300_000, "lag_us": 20_000}),
        budget=40,
    ),
    Exhibit(
        name="held-for-its-patience",
        title="An answered request is held until its client's patience would have ended",
        source="this project, fixed in 760737a",
        story="A node keeps the deadlines of its clients in a table, and looks at one when its "
        "time has come. Answered ones are skipped then, and held until then: for ever, where a "
        "client names a patience of years.",
        plant=in_place_of(Node, "_unwatch", _until_its_deadline),
        properties=(RELEASED,),
        search=Swarm((3,)),
        budget=5,
    ),
)
