"""Counters, a state machine: a PUT adds its number to the key, a GET reads the sum."""

from hashlib import blake2b
from typing import ClassVar

from epaxos.core.command import NO_VERSION, Operation, Results, Status, Version
from epaxos.core.replica import Decided


class Counters:
    """A number per key; what is not a number counts as one. A DELETE forgets the key, a CAS never
    finds what it expects."""

    is_key_value: ClassVar[bool] = False

    def __init__(self) -> None:
        self._sums: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._sums)

    def apply(self, decided: Decided) -> None:
        if decided.payload is not None:
            self.answer(decided)

    def answer(self, decided: Decided) -> Results:
        assert decided.payload is not None
        batch = decided.payload.batch
        statuses = bytearray()
        values: list[bytes] = []
        versions: list[Version] = []
        for index, code in enumerate(batch.operations):
            status, value = self._one(Operation(code), batch.keys[index], batch.arguments[index])
            statuses.append(status)
            values.append(value)
            done = status is Status.OK
            versions.append((decided.replica, decided.slot, index) if done else NO_VERSION)
        size = len(statuses)
        return Results(decided.replica, decided.slot, 0, size, bytes(statuses), values, versions)

    def digest(self) -> str:
        return blake2b(repr(sorted(self._sums.items())).encode(), digest_size=8).hexdigest()

    def _one(self, operation: Operation, key: bytes, argument: bytes) -> tuple[Status, bytes]:
        """What a command answers; it changes no other key than its own, a GET not even that."""
        if operation is Operation.PUT:
            step = int(argument) if argument.isdigit() else 1
            self._sums[key] = self._sums.get(key, 0) + step
            return Status.OK, b""
        if operation is Operation.CAS:
            return Status.CONFLICT, b""
        if key not in self._sums:
            return Status.MISSING, b""
        if operation is Operation.DELETE:
            del self._sums[key]
            return Status.OK, b""
        return Status.OK, b"%d" % self._sums[key]
