"""One segment file of the log: its header, its records, and how both are recognised.

    segment   header (256 bytes), records, zeros up to the preallocated size
    header    magic, format, replica, segment number, first sequence, chain, cluster id, CRC-32
    record    CRC-32, body length, chain, kind, sequence, synced, body, zeros up to 8 bytes

A record's CRC is seeded with the CRC of its segment's header, so that a valid record of another
segment, replica or cluster is not valid here. `chain` is the CRC of the record before it (in a
header: of the last record of the segment before), `sequence` counts from 1 without holes through
all segments, and `synced` is the highest sequence known to be on disk when the record was appended:
what tells a torn tail from corruption.

Rules of this file: nothing here writes, opens or raises because of what it read.
"""

import struct
from array import array
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple
from zlib import crc32

from epaxos.codec import FRAME_BYTES_MAX
from epaxos.core.types import ReplicaId

MAGIC: Final = b"epaxosw\x01"
FORMAT: Final = 1
"""Version of everything in the data directory."""

HEADER_BYTES: Final = 256
CLUSTER_BYTES_MAX: Final = 128
"""The longest cluster id, in UTF-8."""

_HEADER: Final = struct.Struct("<8sIIQQI4x128s")
_CRC: Final = struct.Struct("<I")
_FIELDS: Final = struct.Struct("<IIIQQ")
_RECORD: Final = struct.Struct("<IIIIQQ")

_SEQUENCE_AT: Final = 16

RECORD_BYTES: Final = _RECORD.size
"""Size of a record's header; records start at multiples of 8."""

BODY_BYTES_MAX: Final = FRAME_BYTES_MAX
"""No record has a larger body: none is written, and none is read, which is checked before anything
is allocated."""

_ZEROS: Final = bytes(1 << 20)


class RecordKind(IntEnum):
    """What a record's body is."""

    NODE = 1
    """A record of the node, encoded by the codec."""
    BOOT = 2
    """The process started: the boot counter, 8 bytes little-endian."""
    CLOSED = 3
    """The log was closed in order; everything before it is on disk. The body is empty."""


class SegmentHeader(NamedTuple):
    """The first 256 bytes of a segment."""

    cluster: str
    replica: ReplicaId
    number: int
    """1, 2, 3, ... without holes."""
    first: int
    """Sequence of the first record in it."""
    chain: int
    """CRC of the last record of the segment before; 0 in segment 1."""
    crc: int
    """Seed of the CRC of every record in it."""


class LogFrame(NamedTuple):
    """A valid record as it stands in its segment."""

    offset: int
    """Where it starts in its segment."""
    kind: int
    sequence: int
    synced: int
    body: memoryview
    crc: int
    end: int
    """Where the next one starts."""


def pack_header(cluster: str, replica: ReplicaId, number: int, first: int, chain: int) -> bytes:
    """The header of a new segment."""
    name = cluster.encode()
    assert len(name) <= CLUSTER_BYTES_MAX
    fields = _HEADER.pack(MAGIC, FORMAT, replica, number, first, chain, name)
    fields = fields.ljust(HEADER_BYTES - _CRC.size, b"\0")
    return fields + _CRC.pack(crc32(fields))


def parse_header(data: bytes | memoryview) -> SegmentHeader | str:
    """The header, or a sentence that says what is wrong with it."""
    if len(data) < HEADER_BYTES:
        return f"the file ends after {len(data)} bytes, within its header"
    (crc,) = _CRC.unpack_from(data, HEADER_BYTES - _CRC.size)
    if data[: len(MAGIC)] != MAGIC:
        return "the file does not begin like a log segment"
    if crc32(data[: HEADER_BYTES - _CRC.size]) != crc:
        return "the header's checksum is wrong"
    _, version, replica, number, first, chain, name = _HEADER.unpack_from(data)
    if version != FORMAT:
        return f"the file has format {version}; this version reads format {FORMAT}"
    try:
        cluster = name.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        return "the cluster id in its header is not UTF-8"
    return SegmentHeader(cluster, replica, number, first, chain, crc)


def pack_record(
    kind: int, sequence: int, synced: int, body: bytes, chain: int, seed: int
) -> tuple[bytes, int]:
    """A record, padded, and its CRC."""
    assert len(body) <= BODY_BYTES_MAX, f"a record of {len(body):,} bytes: no start would read it"
    fields = _FIELDS.pack(len(body), chain, kind, sequence, synced)
    crc = crc32(body, crc32(fields, seed))
    return b"".join((_CRC.pack(crc), fields, body, bytes(-len(body) & 7))), crc


def read_record(data: memoryview, offset: int, seed: int) -> LogFrame | None:
    """The record at `offset` if a whole and valid one is there."""
    if len(data) - offset < RECORD_BYTES:
        return None
    crc, length, _, kind, sequence, synced = _RECORD.unpack_from(data, offset)
    body_at = offset + RECORD_BYTES
    if length > BODY_BYTES_MAX or length > len(data) - body_at or not sequence:
        return None
    end = body_at + length
    body = data[body_at:end]
    if crc32(body, crc32(data[offset + _CRC.size : body_at], seed)) != crc:
        return None
    return LogFrame(offset, kind, sequence, synced, body, crc, end + (-length & 7))


def chain_of(data: memoryview, offset: int) -> int:
    """The `chain` field of the record at `offset`."""
    chain: int = _RECORD.unpack_from(data, offset)[2]
    return chain


def valid_records(data: memoryview, offset: int, seed: int, sequence: int) -> Iterator[LogFrame]:
    """Every valid record at or after `offset` whose sequence is at least `sequence`, found without
    trusting anything in between."""
    start = offset + (-offset & 7)
    stop = max(start, len(data) - (len(data) - start) % 8)
    words = array("Q")
    words.frombytes(data[start:stop])
    ceiling = sequence + (1 << 40)
    for index, word in enumerate(words):
        at = start + index * 8 - _SEQUENCE_AT
        if sequence <= word < ceiling and at >= start:
            frame = read_record(data, at, seed)
            if frame is not None:
                yield frame


def is_zero(data: memoryview) -> bool:
    """Whether there is nothing but zero bytes."""
    step = len(_ZEROS)
    return all(data[at : at + step] == _ZEROS[: len(data) - at] for at in range(0, len(data), step))
