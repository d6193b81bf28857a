"""What the clients of a schedule saw, and whether it can be explained.

Times here are numbers of events, not clocks: a call is as late as the step that took it in,
an answer as early as the step that gave it, so what is found illegal is illegal on any clock.

Rules of this file: a definite refusal is left out of the history and held to its word; an unknown
outcome stays in it without an end.
"""

from epaxos.core.errors import Definite
from epaxos.core.types import ReplicaId
from epaxos.node.requests import Refusal, Reply
from epaxos.sim.check.calls import Call, check_fates, histories
from epaxos.sim.check.checkers import LINEARIZABLE, ExecutionChecker, Violation
from epaxos.sim.check.linearizability import Op, Verdict, check, say_answer, say_illegal
from epaxos.sim.schedule.schedule import Commands
from epaxos.sim.schedule.words import say_commands

OPERATIONS_SHOWN = 4
"""How many answers before the one that cannot be explained are shown."""


class History:
    """All calls of a schedule, by request."""

    def __init__(self) -> None:
        self._calls: dict[int, list[Call]] = {}

    def called(self, member: ReplicaId, commands: Commands, number: int) -> None:
        self._calls[commands.number] = [
            Call(member, code, key, argument, number)
            for code, key, argument in zip(commands.operations, commands.keys, commands.arguments)
        ]

    def answered(self, answer: Reply | Refusal, number: int) -> None:
        calls = self._calls[int(str(answer.waiter))]
        if isinstance(answer, Refusal):
            for call in calls[answer.offset : answer.offset + answer.count]:
                call.failed = isinstance(answer.error, Definite)
            return
        for index in range(answer.results.count):
            calls[answer.offset + index].answered(answer, index, number)

    def show(self, answer: Reply | Refusal) -> str:
        """What a client was told."""
        count = answer.results.count if isinstance(answer, Reply) else answer.count
        calls = self._calls[int(str(answer.waiter))][answer.offset : answer.offset + count]
        if isinstance(answer, Refusal):
            codes = bytes(call.operation for call in calls)
            columns = [call.key for call in calls], [call.argument for call in calls]
            return f"refuses {say_commands(codes, *columns)}: {answer.code}"
        told = [
            f"{say_commands(bytes([call.operation]), [call.key], [call.argument])}: "
            f"{say_answer(call.kind, call.result)}"
            for call in calls
        ]
        return f"answers {', '.join(told)}"

    def check_fates(self, executions: ExecutionChecker) -> None:
        """What was refused as definitely not done was not done, by no replica; nothing was done
        more often than it was asked for."""
        check_fates(self._all(), executions)

    def check_answers(self) -> None:
        """Linearizability, key by key."""
        for key, history in sorted(histories(self._all()).items()):
            ops = [op for _, op in history]
            verdict = check(ops)
            if verdict is Verdict.ILLEGAL:
                raise Violation(
                    LINEARIZABLE, f"key {key!r}: {say_illegal(ops, OPERATIONS_SHOWN, _say)}"
                )
            if verdict is Verdict.UNKNOWN:
                detail = f"key {key!r}: {verdict.value}; {len(ops)} operations"
                raise Violation(LINEARIZABLE, detail)

    def _all(self) -> list[Call]:
        return [call for calls in self._calls.values() for call in calls]


def _say(op: Op) -> str:
    """An operation with numbers of events where others have times."""
    return f"{str(op).partition(' [')[0]} [{op.called} to {op.returned}]"
