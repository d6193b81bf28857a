"""Messages, records and client frames to bytes and back; what does not decode is refused by name.

A frame is `length, CRC-32 of the body, body`, little-endian; the length is checked against a limit
before anything is allocated. A broadcast is framed once. The body is one msgspec struct in
MessagePack (array-like, integer tag first). The client port's structs stand here because both ends
of that port are ours: the runtime's server and `epaxos.client`.
"""

import struct
from functools import reduce
from operator import or_
from typing import Any, Final
from zlib import crc32

import msgspec

from epaxos.core.command import PAYLOAD_BYTES_MAX, UNDECODABLE, Payload, Results
from epaxos.core.errors import CodecError
from epaxos.core.replica import Executed, Message, Record
from epaxos.registry import ProtocolSpec

PROTOCOL_VERSION: Final = 2
"""Changes whenever an older process could misread a frame or a record; checked in every hello."""

FRAME_HEADER: Final = struct.Struct("<II")
"""Body length in bytes, CRC-32 of the body."""

FRAME_BYTES_MAX: Final = PAYLOAD_BYTES_MAX + 64 * 1024
"""No frame, between replicas or from a client, is larger, and no record. What surrounds one payload
takes less than 300 bytes: with nine members two vectors of ten times nine, and a few numbers."""


class ClientHello(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Client -> replica, first frame of a connection."""

    version: int
    """PROTOCOL_VERSION of the client."""
    cluster: str
    """Which cluster the client means; empty: whatever answers."""


class ServerHello(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Replica -> client, the answer to ClientHello."""

    version: int
    """PROTOCOL_VERSION of the replica."""
    cluster: str
    """The cluster's id."""
    replica: int
    """Which member answers."""
    region: str
    """Its region's name."""


class ClientRequest(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """Client -> replica: one command or many. The i-th command is number first + i.

    What is invalid is refused by the frame: if one of its commands is, none of them happens, and
    other frames have fates of their own."""

    first: int
    """Number of the first command; a connection numbers its commands 0, 1, 2, ... in order."""
    patience_us: int
    """How long the client waits, from arrival at the replica; 0: the replica's default."""
    operations: bytes
    """One Operation code per command."""
    keys: list[bytes]
    """The key of each command."""
    arguments: list[bytes]
    """The value or operands of each command."""


class ClientAnswer(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """Replica -> client: a run of executed commands. What one request answers may come in several
    runs; who joins them goes by the numbers."""

    first: int
    """Number of the run's first command."""
    results: Results
    """What the run answered."""
    path: int
    """`Path` by which its instance was decided."""
    commit_us: int
    """From arrival at the replica until an answer could have left if answers left at commit."""
    execute_us: int
    """From arrival at the replica until this answer left."""


class ClientRefusal(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """Replica -> client: a run of commands that did not succeed."""

    first: int
    """Number of the run's first command."""
    count: int
    """How many commands share this fate."""
    definite: bool
    """True: did not and will not happen. False: may have happened, or may yet."""
    code: str
    """A stable name, like `overloaded` or `outcome-unknown`."""
    detail: str
    """A sentence for a person."""


ClientFrame = ClientHello | ServerHello | ClientRequest | ClientAnswer | ClientRefusal


def _encode_hook(value: Any) -> bytes:
    if isinstance(value, Payload):
        return value.encoded
    raise TypeError(f"{type(value).__name__} has no encoding")


def _decode_hook(kind: type, value: Any) -> Payload:
    if kind is Payload and isinstance(value, bytes):
        return Payload.decode(value)
    raise TypeError(f"{kind.__name__} does not decode from {type(value).__name__}")


def _decode_sent(kind: type, value: Any) -> Payload:
    """A peer's payload: with one that is larger we could not make every message of ours."""
    if isinstance(value, bytes) and len(value) > PAYLOAD_BYTES_MAX:
        raise CodecError(f"a payload has {len(value):,} bytes, over {PAYLOAD_BYTES_MAX:,}")
    return _decode_hook(kind, value)


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_hook)
_client_decoder: msgspec.msgpack.Decoder[ClientFrame] = msgspec.msgpack.Decoder(ClientFrame)

encode = _encoder.encode
"""The bytes of any message, record or client struct, without a frame."""


def encode_frame(value: msgspec.Struct) -> bytes:
    """A whole frame, header and body. Nothing is made that a receiver refuses for its size."""
    body = _encoder.encode(value)
    assert len(body) <= FRAME_BYTES_MAX, f"a {type(value).__name__} of {len(body):,} bytes"
    return FRAME_HEADER.pack(len(body), crc32(body)) + body


def decode_client(body: bytes | memoryview) -> ClientFrame:
    """One struct of the client port. Raises CodecError."""
    frame: ClientFrame = _decode(_client_decoder, body, "a client frame")
    return frame


def split_frames(
    buffer: bytearray | memoryview, size: int, limit: int = FRAME_BYTES_MAX
) -> tuple[list[memoryview], int]:
    """The bodies of the complete frames in the first `size` bytes, and how many bytes they take.

    The views alias `buffer`: decode them before the buffer changes. Raises CodecError for a frame
    over `limit` (as soon as its header is there) or with a wrong CRC."""
    bodies = []
    at = 0
    view = memoryview(buffer)
    while size - at >= FRAME_HEADER.size:
        length, crc = FRAME_HEADER.unpack_from(view, at)
        if length > limit:
            raise CodecError(f"a frame announces {length} bytes, over the limit of {limit}")
        start = at + FRAME_HEADER.size
        if size - start < length:
            break
        body = view[start : start + length]
        if crc32(body) != crc:
            raise CodecError("a frame's checksum does not match its body")
        bodies.append(body)
        at = start + length
    return bodies, at


class Codec:
    """Messages and records of one protocol."""

    def __init__(self, protocol: ProtocolSpec) -> None:
        messages: Any = reduce(or_, protocol.messages)
        records: Any = reduce(or_, (Executed, *protocol.records))
        self._messages = msgspec.msgpack.Decoder(messages, dec_hook=_decode_sent)
        self._records = msgspec.msgpack.Decoder(records, dec_hook=_decode_hook)

    def decode_message(self, body: bytes | memoryview) -> Message:
        """One message. Raises CodecError."""
        message: Message = _decode(self._messages, body, "a message")
        return message

    def decode_record(self, body: bytes | memoryview) -> Record:
        """One record. Raises CodecError."""
        record: Record = _decode(self._records, body, "a record")
        return record


def _decode(decoder: Any, body: bytes | memoryview, what: str) -> Any:
    try:
        return decoder.decode(body)
    except (CodecError, TypeError, *UNDECODABLE) as error:
        raise CodecError(f"{what} does not decode: {error}") from None
