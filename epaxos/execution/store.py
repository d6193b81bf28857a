"""The state machine: what it is asked, and the key-value store, which is the one of this package.

Rules of this file (R9): the outcome of a command is a function of its batch, its place in it, its
instance's id, and the values of the keys it names; nothing here depends on the order of commands
that commute. An entry's version is the identity of the write that made it.
"""

from hashlib import blake2b
from itertools import count, repeat
from typing import ClassVar, Protocol

from epaxos.core.command import (
    NO_VERSION,
    Among,
    Cas,
    Operation,
    Results,
    Status,
    Version,
    decode_cas,
)
from epaxos.core.errors import CodecError
from epaxos.core.replica import Decided
from epaxos.core.types import ReplicaId, Slot

_GET, _PUT, _DELETE = int(Operation.GET), int(Operation.PUT), int(Operation.DELETE)
_OK, _MISSING, _CONFLICT = int(Status.OK), int(Status.MISSING), int(Status.CONFLICT)

_Entry = tuple[bytes, ReplicaId, Slot, int]
"""Value, and the three parts of its version."""


class StateMachine(Protocol):
    """The replicated state. Executes what it is given, in the order in which it is given.

    Replicas give it commands that commute in different orders, so rule R9 is everybody's: what a
    command does and answers follows from the command, from its place (instance and index in the
    batch) and from what the keys that it names hold. Which commands commute is said by
    `epaxos.core.command.interferes`: GETs of a key do, whatever else names the same key does not.
    So a GET changes nothing, and every other command changes nothing but its own key."""

    is_key_value: ClassVar[bool]
    """Whether commands do and answer what `Store` does, which is what the simulator's check of
    linearizability knows. Otherwise replicas are only compared with each other, by `digest`."""

    def __len__(self) -> int:
        """How many keys have a value."""
        ...

    def apply(self, decided: Decided) -> None:
        """Execute a batch whose answers nobody waits for here. A Nop (payload None) changes
        nothing. Raises nothing, whatever the arguments of the commands are."""
        ...

    def answer(self, decided: Decided) -> Results:
        """Execute a batch, never a Nop, and say what each of its commands answered."""
        ...

    def digest(self) -> str:
        """Equal wherever the states are, and differing where they are not, as good as always."""
        ...


class Store:
    """The key-value store, a `StateMachine`."""

    is_key_value: ClassVar[bool] = True

    def __init__(self) -> None:
        self._table: dict[bytes, _Entry] = {}

    def __len__(self) -> int:
        return len(self._table)

    def get(self, key: bytes) -> tuple[bytes, Version] | None:
        """Value and version of a key, None if it has none."""
        entry = self._table.get(key)
        return None if entry is None else (entry[0], entry[1:])

    def apply(self, decided: Decided) -> None:
        payload = decided.payload
        if payload is None:
            return
        batch = payload.batch
        operations = batch.operations
        if operations.count(_PUT) == len(operations):
            self._put_all(decided.replica, decided.slot, batch.keys, batch.arguments)
        elif operations.count(_GET) < len(operations):
            self._run(decided)

    def answer(self, decided: Decided) -> Results:
        payload = decided.payload
        assert payload is not None
        batch = payload.batch
        operations = batch.operations
        size = len(operations)
        if operations.count(_PUT) == size:
            self._put_all(decided.replica, decided.slot, batch.keys, batch.arguments)
            return Results(decided.replica, decided.slot, 0, size, b"", [], [])
        return self._run(decided)

    def digest(self) -> str:
        """16 hexadecimal digits, equal wherever keys, values and versions are."""
        total = 0
        for key, (value, replica, slot, index) in self._table.items():
            head = b"%d.%d.%d.%d." % (len(key), replica, slot, index)
            total += int.from_bytes(blake2b(head + key + value, digest_size=8).digest(), "little")
        return f"{total % 2**64:016x}"

    def _put_all(
        self, replica: ReplicaId, slot: Slot, keys: list[bytes], values: list[bytes]
    ) -> None:
        self._table.update(zip(keys, zip(values, repeat(replica), repeat(slot), count())))

    def _run(self, decided: Decided) -> Results:
        assert decided.payload is not None
        batch = decided.payload.batch
        replica, slot = decided.replica, decided.slot
        table = self._table
        statuses = bytearray()
        values: list[bytes] = []
        versions: list[Version] = []
        index = 0
        for code, key, argument in zip(batch.operations, batch.keys, batch.arguments):
            status, value, version = _OK, b"", NO_VERSION
            if code == _PUT:
                table[key] = (argument, replica, slot, index)
                version = (replica, slot, index)
            elif code == _GET:
                entry = table.get(key)
                if entry is None:
                    status = _MISSING
                else:
                    value, version = entry[0], entry[1:]
            elif code == _DELETE:
                entry = table.pop(key, None)
                if entry is None:
                    status = _MISSING
                else:
                    version = entry[1:]
            else:
                status, value, version = self._compare_and_set(
                    key, argument, (replica, slot, index)
                )
            statuses.append(status)
            values.append(value)
            versions.append(version)
            index += 1
        return Results(replica, slot, 0, index, bytes(statuses), values, versions)

    def _compare_and_set(
        self, key: bytes, argument: bytes, version: Version
    ) -> tuple[int, bytes, Version]:
        """Status, value and version to answer. Operands that do not decode are a conflict."""
        entry = self._table.get(key)
        try:
            cas = decode_cas(argument)
        except CodecError:
            cas = None
        if cas is None or not _is_as_expected(cas, entry):
            return (
                (_CONFLICT, b"", NO_VERSION)
                if entry is None
                else (
                    _CONFLICT,
                    entry[0],
                    entry[1:],
                )
            )
        if cas.value is not None:
            self._table[key] = (cas.value, *version)
            return _OK, b"", version
        if entry is None:
            return _OK, b"", NO_VERSION
        del self._table[key]
        return _OK, b"", entry[1:]


def _is_as_expected(cas: Cas, entry: _Entry | None) -> bool:
    if isinstance(cas.expect, bool):
        return cas.expect is (entry is not None)
    if isinstance(cas.expect, Among):
        among = entry is not None and entry[1:] in cas.expect.versions
        return among is not cas.expect.excluded
    if entry is None:
        return False
    if isinstance(cas.expect, bytes):
        return cas.expect == entry[0]
    return cas.expect == entry[1:]
