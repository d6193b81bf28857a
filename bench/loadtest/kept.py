"""The calls of one Locust process, kept for a history (`bench.history.calls`).

Rules of this file: the processes of one history are on one machine, whose monotonic clock they
share. Times are µs of `clock`.
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from bench.history.calls import HistoryWriter, UnlikeValues, new_label
from bench.loadtest.http import HttpAnswer
from bench.loadtest.targets import HttpRequest, LoadTarget, Meaning
from epaxos.core.command import Operation, encode_cas, format_version
from epaxos.core.types import Micros
from epaxos.workload import Command

_SUFFIX: Final = ".jsonl"


class KeptCall(NamedTuple):
    """A call that has begun."""

    client: str
    operation: int
    key: bytes
    argument: bytes
    called: Micros


class KeptCalls:
    """UnlikeValues what users write and writes down what became of it. Raises OSError."""

    def __init__(self, directory: str, process: str, initial: str) -> None:
        self._writer = HistoryWriter(Path(directory) / f"load-{process}{_SUFFIX}", initial)
        self._process = process
        self._label = new_label()
        self._unlike: dict[Hashable, UnlikeValues] = {}
        self._names: dict[Hashable, str] = {}
        self._open: dict[int, KeptCall] = {}
        """By identity: a user may ask the same twice at the same moment."""

    def made_unlike(self, user: Hashable, region: str, command: Command) -> Command:
        """The command that a user sends instead of this one."""
        unlike = self._unlike.get(user)
        if unlike is None:
            number = len(self._unlike)
            unlike = self._unlike[user] = UnlikeValues(self._label, number)
            self._names[user] = f"{region}.{self._process}.{number}"
        return command._replace(argument=unlike.argument(command.operation, command.argument))

    def begin(
        self,
        user: Hashable,
        command: Command,
        target: LoadTarget,
        found: str | None,
        now: Micros,
    ) -> KeptCall:
        """A command is about to be sent; with `found`, a write that expects that version."""
        operation, argument = command.operation, command.argument
        if command.modifies and found is not None:
            expect = target.version(found) if found else False
            operation, argument = Operation.CAS, encode_cas(expect, argument)
        call = KeptCall(self._names[user], operation, command.key, argument, now)
        self._open[id(call)] = call
        return call

    def end(
        self,
        call: KeptCall,
        target: LoadTarget,
        request: HttpRequest,
        answer: HttpAnswer | Exception,
        meaning: Meaning,
    ) -> None:
        """It was answered, refused, or nobody knows."""
        if self._open.pop(id(call), None) is None:
            return  # the history was over
        if meaning.failure or not isinstance(answer, HttpAnswer):
            definite = isinstance(answer, ConnectionRefusedError)  # it was not sent
            if isinstance(answer, HttpAnswer):
                definite = target.is_definite(answer.get_code())
            self._writer.failed(*call, definite=definite)
            return
        told = target.told(request, answer.get_code(), answer.header, answer.body)
        version = format_version(told.version) if told.version else ""
        met = None if told.met_nothing else msgspec.UNSET
        self._writer.told(*call, answer.arrived, told.result, version, met)

    def close(self) -> None:
        """What is still under way may have happened."""
        for call in self._open.values():
            self._writer.failed(*call, definite=False)
        self._open.clear()
        self._writer.close()
