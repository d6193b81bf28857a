"""One command as its client saw it, in the world and in a schedule alike.

Rules of this file: times are whatever the caller counts in, as long as later is more. A definite
failure is left out of a history; an unknown outcome stays in it without an end.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from epaxos.core.command import Operation, Status, decode_cas
from epaxos.core.types import InstanceId, ReplicaId, replica_name
from epaxos.node.requests import Reply
from epaxos.sim.check.checkers import HONEST, ExecutionChecker, Place, Violation
from epaxos.sim.check.linearizability import Op

_KINDS = {
    Operation.GET: "get",
    Operation.PUT: "put",
    Operation.DELETE: "delete",
    Operation.CAS: "cas",
}


@dataclass
class Call:
    """One command of a client."""

    replica: ReplicaId
    operation: int
    key: bytes
    argument: bytes
    called: int
    returned: int | None = None
    result: object = None
    failed: bool = False
    """It definitely did not happen."""
    place: Place | None = None
    """Where the answer says it was executed."""
    settled: bool = False
    """The client knows its fate, or has given up."""

    def answered(self, reply: Reply, index: int, now: int) -> None:
        """The `index`-th command of the reply's run was this one."""
        results = reply.results
        self.settled = True
        self.returned = now
        self.result = _result_of(self, reply, index)
        self.place = ((results.replica, results.slot), results.index + index)

    def op(self) -> Op:
        """As an operation of a history."""
        value: bytes | None = self.argument
        expect: bytes | None = None
        if self.operation == Operation.CAS:
            operands = decode_cas(self.argument)
            value = operands.value
            expect = operands.expect if isinstance(operands.expect, bytes) else None
        kind = _KINDS[Operation(self.operation)]
        return Op(kind, value, expect, self.called, self.returned, self.result)


def _result_of(call: Call, reply: Reply, index: int) -> object:
    results = reply.results
    if not results.statuses:
        return True
    status = results.statuses[index]
    if call.operation == Operation.GET:
        return None if status == Status.MISSING else results.values[index]
    if call.operation == Operation.CAS:
        if status == Status.OK:
            return True
        return (False, results.values[index] if results.versions[index][1] else None)
    return status == Status.OK


def histories(calls: Iterable[Call]) -> dict[bytes, list[Op]]:
    """What was seen, per key."""
    found: dict[bytes, list[Op]] = {}
    for call in calls:
        if not call.failed:
            found.setdefault(call.key, []).append(call.op())
    return found


def check_refusals(calls: Iterable[Call], executions: ExecutionChecker) -> None:
    """A write that was refused as definitely not done was not done, by no replica. Its client may
    have sent it again elsewhere, under another argument. Raises Violation."""
    for call in calls:
        place = executions.place_of(call.argument) if call.failed and call.argument else None
        if place is not None:
            raise Violation(
                HONEST,
                f"{call.argument!r} of {call.key!r} was refused at {replica_name(call.replica)} "
                f"and executed in {InstanceId(*place[0])}",
            )
