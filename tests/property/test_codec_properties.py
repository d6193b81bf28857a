"""Every message and record survives its encoding; anything else is refused with CodecError, or is
another value."""

from contextlib import suppress
from functools import cache
from zlib import crc32

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epaxos import codec
from epaxos.codec import FRAME_HEADER, Codec, decode_client, encode, encode_frame, split_frames
from epaxos.core.command import Payload, decode_cas, encode_cas
from epaxos.core.errors import CodecError
from epaxos.core.replica import Executed
from epaxos.protocols.epaxos import messages as epaxos
from epaxos.registry import find_protocol, protocol_names
from tests.property.strategies import structs_of

CODECS = {name: Codec(find_protocol(name)) for name in protocol_names()}
CLIENT = (
    codec.ClientHello,
    codec.ServerHello,
    codec.ClientRequest,
    codec.ClientAnswer,
    codec.ClientRefusal,
)
KINDS = (
    [
        pytest.param(CODECS[name].decode_message, kind, id=f"{name}.{kind.__name__}")
        for name in protocol_names()
        for kind in find_protocol(name).messages
    ]
    + [
        pytest.param(CODECS[name].decode_record, kind, id=f"{name}.{kind.__name__}")
        for name in protocol_names()
        for kind in (*find_protocol(name).records, Executed)
    ]
    + [pytest.param(decode_client, kind, id=kind.__name__) for kind in CLIENT]
)


@cache
def structs(kind):
    """Any value of a message or record class."""
    return structs_of(kind, None, st.integers(0, 9))


@pytest.mark.parametrize(("decode", "kind"), KINDS)
def test_what_is_encoded_is_read_back(decode, kind):
    @given(structs(kind))
    def check(value):
        again = decode(encode(value))
        assert again == value
        assert type(again) is kind
        assert encode(again) == encode(value)

    check()


def check_damage(decode, kind, **how):
    """A flipped bit or a cut end is refused, or read as another value; never as the one sent."""

    @settings(**how)
    @given(structs(kind), st.data())
    def check(value, data):
        body = bytearray(encode(value))
        at = data.draw(st.integers(0, len(body) - 1))
        if data.draw(st.booleans()):
            body[at] ^= 1 << data.draw(st.integers(0, 7))
        else:
            del body[at:]
        with suppress(CodecError):
            assert decode(bytes(body)) != value

    check()


@pytest.mark.parametrize(("decode", "kind"), KINDS)
def test_damage_is_refused_or_is_another_value(decode, kind):
    check_damage(decode, kind)


def test_a_codec_that_reads_over_damage_is_noticed():
    decoders = CODECS["epaxos"]

    def forgiving(body):
        # What is cut off is taken for zeros, as from a buffer that was not filled.
        for more in range(64):
            with suppress(CodecError):
                return decoders.decode_message(body + bytes(more))
        raise CodecError("nothing to be read")

    # Vectors that end in zeros, cut there, are few among all.
    with pytest.raises(AssertionError):
        check_damage(forgiving, epaxos.PreAcceptOk, max_examples=2_000, derandomize=True)


garbage = st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers(-2, 40) | st.binary(max_size=3) | st.text(max_size=3),
    lambda inside: st.lists(inside, max_size=6),
).map(msgspec.msgpack.encode)


def check_garbage(decode, again):
    """Bytes that nobody encoded are refused, or are a value that can be sent and read again."""

    @given(garbage)
    def check(body):
        with suppress(CodecError):
            sent = again(decode(body))
            assert again(decode(sent)) == sent

    check()


@pytest.mark.parametrize(
    ("decode", "again"),
    [
        (decode_client, encode),
        (decode_cas, lambda operands: encode_cas(*msgspec.structs.astuple(operands))),
        (Payload.decode, lambda payload: Payload.of(payload.batch).encoded),
        *(
            (function, encode)
            for each in CODECS.values()
            for function in (each.decode_message, each.decode_record)
        ),
    ],
)
def test_garbage_is_refused_or_is_a_value_like_any_other(decode, again):
    check_garbage(decode, again)


def test_a_codec_that_lets_other_errors_out_or_takes_what_cannot_be_sent_is_noticed():
    with pytest.raises(msgspec.DecodeError):
        check_garbage(msgspec.msgpack.decode, encode)

    def takes_anything(body):
        return body[1:]

    with pytest.raises(AssertionError):
        check_garbage(takes_anything, bytes)


@given(st.lists(st.binary(max_size=40), max_size=6), st.data())
def test_frames_arrive_whole_however_the_stream_is_cut(bodies, data):
    stream = b"".join(encode_frame(codec.ClientRequest(0, 0, b"", [body], [])) for body in bodies)
    received, buffer, at = [], bytearray(), 0
    while at < len(stream):
        step = data.draw(st.integers(1, len(stream) - at))
        buffer += stream[at : at + step]
        at += step
        found, used = split_frames(bytes(buffer), len(buffer))
        received += [decode_client(body).keys[0] for body in found]
        del buffer[:used]
    assert received == bodies
    assert not buffer


def framed(body):
    return FRAME_HEADER.pack(len(body), crc32(body)) + body


@given(st.binary(max_size=64))
def test_of_a_stream_of_garbage_frames_are_taken_that_are_frames(stream):
    with suppress(CodecError):
        bodies, used = split_frames(bytearray(stream), len(stream), 1024)
        assert b"".join(framed(bytes(body)) for body in bodies) == stream[:used]


def check_damaged_stream():
    @given(st.lists(st.binary(max_size=20), min_size=1, max_size=4), st.data())
    def check(bodies, data):
        stream = bytearray(b"".join(map(framed, bodies)))
        bit = data.draw(st.integers(0, 8 * len(stream) - 1))
        stream[bit // 8] ^= 1 << bit % 8
        with suppress(CodecError):
            found, _ = split_frames(stream, len(stream))
            assert [bytes(body) for body in found] in [bodies[:n] for n in range(len(bodies))]

    check()


def test_a_damaged_stream_is_refused_or_waited_for_where_the_damage_is():
    check_damaged_stream()


def test_a_checksum_that_always_fits_is_noticed(monkeypatch):
    class Always(int):
        __ne__ = __eq__ = lambda self, other: False
        __hash__ = int.__hash__

    monkeypatch.setattr(codec, "crc32", lambda body: Always())
    with pytest.raises(AssertionError):
        check_damaged_stream()
