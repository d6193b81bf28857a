"""What the clients of a schedule saw, and whether it can be explained.

Times here are numbers of events, not clocks: a call is as late as the step that took it in,
an answer as early as the step that gave it, so what is found illegal is illegal on any clock.

Rules of this file: a definite refusal is left out of the history and held to its word; an unknown
outcome stays in it without an end.
"""

from dataclasses import dataclass

from epaxos.core.command import Operation, Status, decode_cas
from epaxos.core.errors import Definite
from epaxos.core.types import InstanceId, ReplicaId, replica_name
from epaxos.exchange import Refusal, Reply
from epaxos.sim.chart import say_commands
from epaxos.sim.checkers import HONEST, LINEARIZABLE, ExecutionChecker, Violation
from epaxos.sim.linearizability import Op, Verdict, check, shortest_illegal
from epaxos.sim.schedule import Commands

OPERATIONS_SHOWN = 4
"""How many answers before the one that cannot be explained are shown."""


@dataclass
class Call:
    """One command of a client."""

    member: ReplicaId
    operation: int
    key: bytes
    argument: bytes
    called: int
    returned: int | None = None
    result: object = None
    failed: bool = False
    """It definitely did not happen."""


class History:
    """All calls of a schedule, by request."""

    def __init__(self) -> None:
        self._calls: dict[int, list[Call]] = {}

    def called(self, member: ReplicaId, commands: Commands, number: int) -> None:
        """A request was taken in."""
        self._calls[commands.number] = [
            Call(member, code, key, argument, number)
            for code, key, argument in zip(commands.operations, commands.keys, commands.arguments)
        ]

    def answered(self, answer: Reply | Refusal, number: int) -> None:
        """An answer or refusal has left."""
        calls = self._calls[int(str(answer.waiter))]
        if isinstance(answer, Refusal):
            for call in calls[answer.offset : answer.offset + answer.count]:
                call.failed = isinstance(answer.error, Definite)
            return
        for index in range(answer.results.count):
            call = calls[answer.offset + index]
            call.returned = number
            call.result = _result_of(call, answer, index)

    def show(self, answer: Reply | Refusal) -> str:
        """What a client was told."""
        count = answer.results.count if isinstance(answer, Reply) else answer.count
        calls = self._calls[int(str(answer.waiter))][answer.offset : answer.offset + count]
        if isinstance(answer, Refusal):
            codes = bytes(call.operation for call in calls)
            columns = [call.key for call in calls], [call.argument for call in calls]
            return f"refuses {say_commands(codes, *columns)}: {answer.code}"
        told = [
            f"{say_commands(bytes([call.operation]), [call.key], [call.argument])}: {_told(call)}"
            for call in calls
        ]
        return f"answers {', '.join(told)}"

    def check_refusals(self, executions: ExecutionChecker) -> None:
        """What was refused as definitely not done was not done, by no replica."""
        for calls in self._calls.values():
            for call in calls:
                place = executions.place_of(call.argument) if call.failed else None
                if call.argument and place is not None:
                    raise Violation(
                        HONEST,
                        f"{call.argument!r} of {call.key!r} was refused at "
                        f"{replica_name(call.member)} and executed in {InstanceId(*place[0])}",
                    )

    def check_answers(self) -> None:
        """Linearizability, key by key."""
        for key, ops in sorted(self._by_key().items()):
            verdict = check(ops)
            if verdict is Verdict.ILLEGAL:
                raise Violation(LINEARIZABLE, f"key {key!r}: {_tell(ops)}")

    def _by_key(self) -> dict[bytes, list[Op]]:
        found: dict[bytes, list[Op]] = {}
        for calls in self._calls.values():
            for call in calls:
                if not call.failed:
                    found.setdefault(call.key, []).append(_op_of(call))
        return found


def _result_of(call: Call, answer: Reply, index: int) -> object:
    results = answer.results
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


_KINDS = {
    Operation.GET: "get",
    Operation.PUT: "put",
    Operation.DELETE: "delete",
    Operation.CAS: "cas",
}


def _op_of(call: Call) -> Op:
    value: bytes | None = call.argument
    expect: bytes | None = None
    if call.operation == Operation.CAS:
        operands = decode_cas(call.argument)
        value = operands.value
        expect = operands.expect if isinstance(operands.expect, bytes) else None
    kind = _KINDS[Operation(call.operation)]
    return Op(kind, value, expect, call.called, call.returned, call.result)


def _tell(ops: list[Op]) -> str:
    finished = [op for op in shortest_illegal(ops) if op.returned is not None]
    finished.sort(key=lambda op: op.returned or 0)
    shown = [
        f"{str(op).partition(' [')[0]} [{op.called} to {op.returned}]"
        for op in finished[-OPERATIONS_SHOWN - 1 :]
    ]
    return f"no order explains {shown[-1]}; before it {'; '.join(shown[:-1]) or 'nothing'}"


def _told(call: Call) -> str:
    """What a client was told, in a word or two."""
    result = call.result
    if isinstance(result, tuple):
        return f"no, met {_show(result[1])}"
    if call.operation == Operation.GET:
        return _show(result)
    return "yes" if result else "no"


def _show(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else "nothing"
