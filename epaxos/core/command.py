"""Commands, the batch that carries them, its footprint, and what they answered.

The batch is the unit: a protocol sees a `Payload` and its `Footprint`, never single commands.
Everything here is columns; no object per command exists on the hot path.

Rules of this file: the conflict relation is said once, in `interferes`. Sessions, scans and
transactions will be further columns at the end of `Batch` (array-like structs grow at the end).
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Final, TypeAlias

import msgspec

from epaxos.core.errors import CodecError
from epaxos.core.numbers import cut, parse_whole
from epaxos.core.types import ReplicaId, Slot, parse_instance, replica_name

UNDECODABLE: Final = (
    msgspec.DecodeError,
    msgspec.ValidationError,
    UnicodeDecodeError,  # a text that is not UTF-8
    RecursionError,  # arrays in arrays in a field that a newer version might have appended
)
"""All that msgspec raises for bytes that do not decode."""


VALUE_BYTES_MAX: Final = 32 * 1024 * 1024
"""A value up to so many bytes is never too large, whatever its key is and however it is written."""

PAYLOAD_BYTES_MAX: Final = VALUE_BYTES_MAX + 64 * 1024
"""No encoded batch is larger: what is over it is refused before anything is proposed. Frames and
records carry so much, and what surrounds it, with room to spare (`epaxos.codec`)."""

BATCH_ENVELOPE_BYTES: Final = 34
"""The most that a batch takes beside its commands: the array, origin (9) and number (9), and the
headers of three columns (5 each)."""

COMMAND_ENVELOPE_BYTES: Final = 11
"""The most that a command takes in a batch beside its key and argument: its operation code, and a
header (5) for each of the two."""


class Operation(IntEnum):
    """The verb of a command; one byte in a batch's `operations` column."""

    GET = 0
    """Read a key. Commutes with other reads. Argument: empty."""
    PUT = 1
    """Write a key unconditionally. Argument: the value."""
    DELETE = 2
    """Remove a key unconditionally. Argument: ignored."""
    CAS = 3
    """Compare-and-set: write or remove a key if it is as expected. Argument: `encode_cas`.

    One that fails still orders as a write."""


class Status(IntEnum):
    """What became of one executed command."""

    OK = 0
    """A write took effect; a read found its key."""
    MISSING = 1
    """A read or a DELETE met no value."""
    CONFLICT = 2
    """A CAS met something other than it expected; the answer carries what is there."""


Version: TypeAlias = tuple[ReplicaId, Slot, int]
"""Which write made a value: (replica, slot, index in batch), unique for ever and opaque (R9)."""

NO_VERSION: Version = (0, 0, 0)
"""The version of a key that has no value; slots start at 1, so no write has it."""


def format_version(version: Version) -> str:
    """`<epoch>.<replica>.<slot>.<index>`; the epoch is 0 as long as membership is fixed."""
    return f"0.{replica_name(version[0])}.{version[1]}.{version[2]}"


def parse_version(text: str) -> Version:
    """The inverse of `format_version`. Raises ValueError with a sentence."""
    epoch, _, rest = text.partition(".")
    instance, _, index = rest.rpartition(".")
    if epoch == "0":
        try:
            return (*parse_instance(instance), parse_whole(index))
        except ValueError:
            pass  # the sentence below says more
    raise ValueError(f"{cut(text)} is not a version; write one that a reply carried, like 0.A.7.0")


class Among(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """What a CAS expects of a key's version: it is one of several. A key without value has none."""

    versions: tuple[Version, ...] = msgspec.field(name="v", default=())
    excluded: bool = msgspec.field(name="x", default=False)
    """Whether it must be none of them instead."""


Expectation: TypeAlias = bool | Version | bytes | Among
"""False: the key has no value. True: it has one. A version: exactly that write's. Bytes: exactly
that value. Among: one of several versions, or none of them."""


class Cas(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The operands of a CAS."""

    expect: Expectation
    value: bytes | None
    """What to write; None removes the key."""


_cas_encoder = msgspec.msgpack.Encoder()
_CAS_HEAD: Final = b"\x92"
"""MessagePack's array of two."""
_cas_decoder = msgspec.msgpack.Decoder(Cas)


def encode_cas(expect: Expectation, value: bytes | None) -> bytes:
    """The argument column's entry of a CAS."""
    return _cas_encoder.encode(Cas(expect, value))


def decode_cas(argument: bytes) -> Cas:
    """The operands of a CAS. Raises CodecError.

    Exactly two operands: skipping further, deeply nested ones depends on how deep the caller's own
    stack is, and every replica must read the same."""
    if argument[:1] != _CAS_HEAD:
        raise CodecError("the operands of a compare-and-set are not an array of two")
    try:
        return _cas_decoder.decode(argument)
    except UNDECODABLE as error:
        raise CodecError(f"the operands of a compare-and-set do not decode: {error}") from None


class Batch(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one instance or log slot carries: commands as columns of equal length."""

    origin: ReplicaId
    """The replica whose node made the batch and answers its clients."""
    number: int
    """Unique per origin, for ever (it contains the boot counter): how the origin knows its own."""
    operations: bytes
    """One Operation code per command."""
    keys: list[bytes]
    """The key of each command."""
    arguments: list[bytes]
    """The value, or the encoded operands, of each command."""


def commands_bytes(keys: Sequence[bytes], arguments: Sequence[bytes]) -> int:
    """The most bytes that some commands take in an encoded batch, its envelope apart."""
    return sum(map(len, keys)) + sum(map(len, arguments)) + COMMAND_ENVELOPE_BYTES * len(keys)


def oversize(key: bytes, argument: bytes, payload_bytes: int = PAYLOAD_BYTES_MAX) -> str | None:
    """Why a command cannot be proposed, not even in a batch of its own; None if it can."""
    size = BATCH_ENVELOPE_BYTES + commands_bytes((key,), (argument,))
    if size <= payload_bytes:
        return None
    return (
        f"the command takes {size:,} bytes, over the limit of {payload_bytes:,}: a value may have "
        f"{max(0, payload_bytes - (PAYLOAD_BYTES_MAX - VALUE_BYTES_MAX)):,} bytes; store less "
        "under one key"
    )


class Footprint:
    """The conflict keys of a batch: those it writes and those it only reads.

    Lists may repeat a key. Scanned prefixes and session pseudo-keys will be further columns.
    """

    __slots__ = ("_read_set", "_write_set", "reads", "writes")

    def __init__(self, writes: Sequence[bytes], reads: Sequence[bytes]) -> None:
        self.writes = writes
        self.reads = reads
        self._write_set: frozenset[bytes] | None = None
        self._read_set: frozenset[bytes] | None = None

    @property
    def write_set(self) -> frozenset[bytes]:
        """The keys written, as a set, made when first asked for."""
        if self._write_set is None:
            self._write_set = frozenset(self.writes)
        return self._write_set

    @property
    def read_set(self) -> frozenset[bytes]:
        """The keys read, as a set, made when first asked for."""
        if self._read_set is None:
            self._read_set = frozenset(self.reads)
        return self._read_set


def interferes(a: Footprint, b: Footprint) -> bool:
    """Whether two batches do not commute: they share a key that at least one of them writes."""
    if a.writes and b.writes and not a.write_set.isdisjoint(b.write_set):
        return True
    if a.writes and b.reads and not a.write_set.isdisjoint(b.read_set):
        return True
    return bool(a.reads and b.writes and not a.read_set.isdisjoint(b.write_set))


_GET = int(Operation.GET)


def footprint_of(batch: Batch) -> Footprint:
    """What a batch writes and reads."""
    gets = batch.operations.count(_GET)
    if not gets:
        return Footprint(batch.keys, ())
    if gets == len(batch.keys):
        return Footprint((), batch.keys)
    pairs = tuple(zip(batch.operations, batch.keys))
    return Footprint(
        [key for code, key in pairs if code != _GET], [key for code, key in pairs if code == _GET]
    )


def show_footprint(footprint: Footprint | None) -> dict[str, list[str]]:
    """Keys written and only read, for people: UTF-8 with backslash escapes, sorted."""
    if footprint is None:
        return {"writes": [], "reads": []}
    return {
        "writes": sorted(key.decode("utf-8", "backslashreplace") for key in footprint.write_set),
        "reads": sorted(key.decode("utf-8", "backslashreplace") for key in footprint.read_set),
    }


_batch_encoder = msgspec.msgpack.Encoder()
_batch_decoder = msgspec.msgpack.Decoder(Batch)
_CODES = bytes(Operation)


class Payload:
    """A batch with its encoded bytes and its footprint.

    Encoded once, by the node that made the batch; messages and records carry the very bytes, and
    each replica decodes them once, on arrival. Two payloads are equal when their bytes are. `None`
    in the place of a payload is Nop.
    """

    __slots__ = ("batch", "encoded", "footprint")

    def __init__(self, batch: Batch, encoded: bytes) -> None:
        self.batch = batch
        self.encoded = encoded
        self.footprint = footprint_of(batch)

    @classmethod
    def of(cls, batch: Batch) -> "Payload":
        """The payload of a batch made here."""
        return cls(batch, _batch_encoder.encode(batch))

    @classmethod
    def decode(cls, encoded: bytes) -> "Payload":
        """The payload in bytes from a peer or the disk. Raises CodecError."""
        try:
            batch = _batch_decoder.decode(encoded)
        except UNDECODABLE as error:
            raise CodecError(f"a batch does not decode: {error}") from None
        if not len(batch.operations) == len(batch.keys) == len(batch.arguments):
            raise CodecError("a batch has columns of different lengths")
        if batch.operations.translate(None, _CODES):
            raise CodecError("a batch has an operation code that this version does not know")
        return cls(batch, encoded)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Payload) and other.encoded == self.encoded

    def __hash__(self) -> int:
        return hash(self.encoded)

    def __repr__(self) -> str:
        return f"Payload({self.batch.origin}:{self.batch.number}, {len(self.batch.keys)} commands)"


class Results(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a run of neighbouring commands of one batch answered, as columns.

    The three columns are empty when every command was a PUT: then all are OK, and the version of
    the i-th is (replica, slot, index + i). Otherwise each has one entry per command.
    """

    replica: ReplicaId
    """Column of the instance (0 in slot protocols)."""
    slot: Slot
    """Slot of the instance."""
    index: int
    """Position of the run's first command in its batch."""
    count: int
    """How many commands the run has."""
    statuses: bytes
    """One Status code per command."""
    values: list[bytes]
    """GET: the value found; CAS in conflict: the value met; otherwise empty bytes."""
    versions: list[Version]
    """The version written, found, removed or met; NO_VERSION where there is none."""
