"""Frames: what is complete, what is too large, what was damaged on the way."""

from zlib import crc32

import pytest

from epaxos.codec import (
    FRAME_BYTES_MAX,
    FRAME_HEADER,
    ClientHello,
    Codec,
    decode_client,
    encode,
    encode_frame,
    split_frames,
)
from epaxos.core.command import Batch, Payload
from epaxos.core.errors import CodecError
from epaxos.core.replica import Executed
from epaxos.protocols.epaxos import messages as epaxos
from epaxos.registry import find_protocol, protocol_names

CODECS = {name: Codec(find_protocol(name)) for name in protocol_names()}
DEEP = b"\x91" * 100_000 + b"\x01"
PAYLOAD = Payload.of(Batch(0, 1, b"\x01", [b"key"], [b"value"]))


def frame(body):
    return FRAME_HEADER.pack(len(body), crc32(body)) + body


def test_frames_are_split_and_the_rest_is_left():
    buffer = bytearray(frame(b"one") + frame(b"") + frame(b"three")[:-1])
    bodies, used = split_frames(buffer, len(buffer))
    assert [bytes(body) for body in bodies] == [b"one", b""]
    assert used == len(frame(b"one") + frame(b""))


def test_only_what_was_received_is_read():
    buffer = bytearray(frame(b"one") + b"\xff" * 50)
    bodies, used = split_frames(buffer, len(frame(b"one")))
    assert [bytes(body) for body in bodies] == [b"one"]
    assert used == len(frame(b"one"))


@pytest.mark.parametrize("length", range(1, len(frame(b"one"))))
def test_part_of_a_frame_is_waited_for(length):
    buffer = bytearray(frame(b"one")[:length])
    assert split_frames(buffer, length) == ([], 0)


def test_too_large_a_frame_is_refused_by_its_header_alone():
    header = bytearray(FRAME_HEADER.pack(FRAME_BYTES_MAX + 1, 0))
    with pytest.raises(CodecError, match=f"over the limit of {FRAME_BYTES_MAX}"):
        split_frames(header, len(header))
    small = bytearray(frame(b"x" * 11))
    with pytest.raises(CodecError, match="announces 11 bytes, over the limit of 10"):
        split_frames(small, len(small), 10)


@pytest.mark.parametrize("bit", range(8 * 4, 8 * len(frame(b"one"))))
def test_a_flipped_bit_in_checksum_or_body_is_noticed(bit):
    damaged = bytearray(frame(b"one"))
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CodecError, match="checksum does not match"):
        split_frames(damaged, len(damaged))


def test_frame_of_a_message_is_its_body_with_header():
    hello = ClientHello(1, "cluster")
    (body,), used = split_frames(bytearray(encode_frame(hello)), len(encode_frame(hello)))
    assert decode_client(body) == hello
    assert used == len(encode_frame(hello))


def test_a_message_embeds_the_payloads_very_bytes():
    message = epaxos.PreAccept(0, 1, PAYLOAD, (0, 0, 0))
    assert PAYLOAD.encoded in encode(message)
    assert CODECS["epaxos"].decode_message(encode(message)) == message


def test_a_message_outlives_the_buffer_it_came_from():
    buffer = bytearray(encode(epaxos.PreAccept(0, 1, PAYLOAD, (0, 0, 0))))
    message = CODECS["epaxos"].decode_message(memoryview(buffer))
    buffer[:] = b"\x00" * len(buffer)
    assert message.payload == PAYLOAD
    assert message.payload.batch.keys == [b"key"]


@pytest.mark.parametrize("name", CODECS)
def test_the_nodes_own_record_is_known_to_every_protocol(name):
    assert CODECS[name].decode_record(encode(Executed(b"\x00", [1]))) == Executed(b"\x00", [1])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x01",
        b"\x90",
        b"\x92\x7f\x01",
        DEEP,
        b"\x93\x01\x01\xa2\xff\xfe",
        b"\x94\x01\x01\xa1a" + DEEP,
    ],
    ids=["empty", "no msgpack", "int", "no tag", "tag", "deep", "not UTF-8", "deep appendix"],
)
def test_what_no_client_says_is_refused(body):
    with pytest.raises(CodecError, match="a client frame does not decode"):
        decode_client(body)


def test_a_broken_payload_is_named():
    broken = encode(epaxos.PreAccept(0, 1, PAYLOAD, (0, 0, 0))).replace(
        b"\xc4\x01\x01", b"\xc4\x01\x63"
    )
    with pytest.raises(
        CodecError, match="a message does not decode: a batch has an operation code"
    ):
        CODECS["epaxos"].decode_message(broken)


def test_nop_is_not_a_payload_where_one_must_be():
    with pytest.raises(CodecError):
        CODECS["epaxos"].decode_message(encode(epaxos.PreAccept(0, 1, None, (0, 0, 0))))


def test_a_newer_version_may_append_fields():
    body = encode(epaxos.PreAcceptOk(0, 1, (0, 0, 0)))
    longer = bytes([body[0] + 1]) + body[1:] + b"\xa3new"
    assert CODECS["epaxos"].decode_message(longer) == epaxos.PreAcceptOk(0, 1, (0, 0, 0))
    with pytest.raises(CodecError):
        CODECS["epaxos"].decode_message(bytes([body[0] + 1]) + body[1:] + DEEP)
