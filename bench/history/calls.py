"""The calls of a history, the line that each is written as, and who writes them.

    {"history":"epaxos","initial":"absent"}                                    first line of ours
    {"client":"CA.0","operation":"put","key":"x","argument":"…","result":true,"version":"0.A.7.0",
     "call":1200,"return":1350}
    {"calls":1}                                                                last line of ours

The whole format stands in docs/check.md. A history is written line by line while clients run, so
that neither memory nor a second pass grows with it; the last line says that nobody ended before.

Rules of this file: call and return are moments of one clock (of ours: the machine's monotonic one,
in µs). A call lies within its two moments, never outside: it is noted before a command leaves, and
after its answer has come.
"""

import random
from binascii import b2a_base64
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeAlias

import msgspec

from epaxos.core.command import (
    NO_VERSION,
    Operation,
    Results,
    Status,
    decode_cas,
    encode_cas,
    format_version,
)
from epaxos.core.types import Micros

ABSENT: Final = "absent"
"""Before a history, no key has a value."""
OTHER: Final = "other"
"""Before a history, nobody knows, but it is no value that the history writes: a key's first read
tells."""
ANYTHING: Final = "unknown"
"""Before a history, nobody knows."""
DEFINITE: Final = "definite"
"""The error of a call that did not happen."""
AMBIGUOUS: Final = "ambiguous"
"""The error of one that may have, or still may."""
WHOLE_MAX: Final = 64
"""Longer values stand in a history as their first bytes, length and digest."""
_HEAD: Final = 32
_DIGEST: Final = 8
_LABELS: Final = 1 << 40
_KINDS: Final = {operation: operation.name.lower() for operation in Operation}

Text: TypeAlias = str | dict[str, str]
"""Octets in JSON: as text, or `{"hex": …}` where they are not UTF-8."""


class HistoryCall(msgspec.Struct, frozen=True, gc=False):
    """One call of one client on one key."""

    client: str
    kind: str
    """`get`, `put`, `delete`, `cas` or `append`."""
    called: int
    returned: int | None
    """None: nobody knows what became of it, and it may still happen."""
    value: bytes | None = None
    """What it writes; cas: None removes."""
    expect: bytes | bool | str = False
    """cas: that value; False: none; True: any; a text: the value of that version."""
    result: bytes | bool | tuple[bool, bytes | None] | None = None
    """get: what it found. delete: whether there was a value. put, append: True. cas: True, False,
    or `(False, value met)`."""
    version: str = ""
    """Of what was written, found, met or removed, where the answer says it."""
    refused: bool = False
    """It did not happen and never will."""


class CallLine(msgspec.Struct, omit_defaults=True, gc=False):
    """A call as a line of a file."""

    client: str | int
    operation: str
    key: Text | int
    call: int
    argument: Any = None
    result: Any = None
    met: Any = msgspec.UNSET
    """cas that failed: what it met."""
    version: str = ""
    error: str = ""
    """DEFINITE or AMBIGUOUS."""
    end: int | None = msgspec.field(default=None, name="return")


_encode: Final = msgspec.json.Encoder().encode


def as_text(octets: bytes) -> Text:
    """Octets as they stand in a line."""
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return {"hex": octets.hex()}


def short(octets: bytes) -> bytes:
    """A value as a history keeps it: equal if and only if the values are."""
    if len(octets) <= WHOLE_MAX:
        return octets
    digest = blake2b(octets, digest_size=_DIGEST).hexdigest()
    return octets[:_HEAD] + f"…{len(octets)}:{digest}".encode()


class UnlikeValues:
    """Makes each value that a client writes unlike all others: its first bytes become label,
    client and number. Its size stays, unless it was shorter than they are."""

    SIZE: Final = 16

    def __init__(self, label: int, client: int) -> None:
        """`label` tells loads of one cluster apart, whichever process offers them."""
        self._head = (label % _LABELS).to_bytes(5, "big") + (client % (1 << 24)).to_bytes(3, "big")
        self._number = 0

    def put(self, value: bytes) -> bytes:
        """The value that is written instead of this one."""
        self._number += 1
        mark = self._head + self._number.to_bytes(4, "big")
        return b2a_base64(mark, newline=False) + value[self.SIZE :]

    def argument(self, operation: int, argument: bytes) -> bytes:
        """The argument of a command, its value unlike all others if it writes one."""
        if operation == Operation.PUT:
            return self.put(argument)
        if operation == Operation.CAS:
            operands = decode_cas(argument)
            if operands.value is not None:
                return encode_cas(operands.expect, self.put(operands.value))
        return argument


def new_label() -> int:
    """The label of a load of real clients, like that of no other."""
    return random.SystemRandom().randrange(_LABELS)


class HistoryWriter:
    """Writes the calls of one process as they end. Raises OSError."""

    def __init__(self, path: Path, initial: str = OTHER) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb", buffering=1 << 18)
        self._calls = 0
        self._write({"history": "epaxos", "initial": initial})

    def answered(
        self,
        client: str,
        operation: int,
        key: bytes,
        argument: bytes,
        called: Micros,
        returned: Micros,
        results: Results,
        index: int = 0,
    ) -> None:
        """The command at `index` of these results."""
        version = (results.replica, results.slot, results.index + index)
        result: bool | bytes | None = True
        met: bytes | msgspec.UnsetType | None = msgspec.UNSET
        if results.statuses:
            version = results.versions[index]
            is_ok = results.statuses[index] == Status.OK
            if operation == Operation.GET:
                result = results.values[index] if is_ok else None
            else:
                result = is_ok
                if operation == Operation.CAS and not is_ok:
                    met = results.values[index] if version != NO_VERSION else None
        name = "" if version == NO_VERSION else format_version(version)
        self.told(client, operation, key, argument, called, returned, result, name, met)

    def told(
        self,
        client: str,
        operation: int,
        key: bytes,
        argument: bytes,
        called: Micros,
        returned: Micros,
        result: bool | bytes | None,
        version: str = "",
        met: bytes | msgspec.UnsetType | None = msgspec.UNSET,
    ) -> None:
        """A command that was answered so; a get's result is what it found."""
        line = _asked(client, operation, key, argument, called)
        line.end = returned
        line.result = as_text(short(result)) if isinstance(result, bytes) else result
        line.version = version
        if met is not msgspec.UNSET:
            line.met = as_text(short(met)) if isinstance(met, bytes) else None
        self._add(line)

    def failed(
        self,
        client: str,
        operation: int,
        key: bytes,
        argument: bytes,
        called: Micros,
        *,
        definite: bool,
    ) -> None:
        """A command without an answer. What a read would have found is nobody's business."""
        if operation == Operation.GET:
            return
        line = _asked(client, operation, key, argument, called)
        line.error = DEFINITE if definite else AMBIGUOUS
        self._add(line)

    def close(self) -> None:
        """Say that this was all."""
        if not self._file.closed:
            self._write({"calls": self._calls})
            self._file.close()

    def __enter__(self) -> "HistoryWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Whoever was interrupted leaves a history without its last line."""
        if error is None:
            self.close()
        else:
            self._file.close()

    def _add(self, line: CallLine) -> None:
        self._calls += 1
        self._write(line)

    def _write(self, line: CallLine | Mapping[str, object]) -> None:
        self._file.write(_encode(line) + b"\n")


def _asked(client: str, operation: int, key: bytes, argument: bytes, called: Micros) -> CallLine:
    line = CallLine(client, _KINDS[Operation(operation)], as_text(key), called)
    if operation == Operation.PUT:
        line.argument = as_text(short(argument))
    elif operation == Operation.CAS:
        operands = decode_cas(argument)
        value, expect = operands.value, operands.expect
        said: object = expect or None
        if isinstance(expect, bytes):
            said = as_text(short(expect))
        elif isinstance(expect, tuple):
            said = {"version": format_version(expect)}
        new = None if value is None else as_text(short(value))
        line.argument = {"expect": said, "value": new}
    return line
