"""Every message and record survives its encoding; nothing but CodecError comes of anything else."""

import types
from contextlib import suppress
from functools import cache
from typing import Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epaxos import codec
from epaxos.codec import Codec, decode_client, encode, encode_frame, split_frames
from epaxos.core.command import Batch, Operation, Payload, decode_cas
from epaxos.core.errors import CodecError
from epaxos.core.replica import Executed
from epaxos.registry import find_protocol, protocol_names

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

commands = st.lists(
    st.tuples(st.sampled_from(Operation), st.binary(max_size=6), st.binary(max_size=6)), max_size=4
)


@st.composite
def payloads(draw):
    found = draw(commands)
    return Payload.of(
        Batch(
            draw(st.integers(0, 8)),
            draw(st.integers(0, 2**63)),
            bytes(code for code, _, _ in found),
            [key for _, key, _ in found],
            [argument for _, _, argument in found],
        )
    )


def values(hint, numbers, lengths):
    """What a field of that type may hold."""
    if hint is Payload:
        return payloads()
    if hint is int:
        return numbers
    inside = get_args(hint)
    if get_origin(hint) is list:
        return st.lists(values(inside[0], numbers, lengths), max_size=3)
    if get_origin(hint) is tuple and inside[-1] is Ellipsis:
        return lengths.flatmap(lambda n: st.tuples(*[values(inside[0], numbers, lengths)] * n))
    if get_origin(hint) is tuple:
        return st.tuples(*(values(each, numbers, lengths) for each in inside))
    if get_origin(hint) in (Union, types.UnionType):
        return st.one_of(*(values(each, numbers, lengths) for each in inside))
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return structs_of(hint, numbers, lengths)
    return st.from_type(hint)


def structs_of(kind, numbers, lengths):
    """Any value of a message or record class: its integers, and the lengths of its vectors."""
    hints = get_type_hints(kind)
    return st.builds(
        kind, *(values(hints[name], numbers, lengths) for name in kind.__struct_fields__)
    )


@cache
def structs(kind):
    """Any value of a message or record class."""
    return structs_of(kind, st.integers(-(2**63), 2**64 - 1), st.integers(0, 9))


@pytest.mark.parametrize(("decode", "kind"), KINDS)
def test_what_is_encoded_is_read_back(decode, kind):
    @given(structs(kind))
    def check(value):
        again = decode(encode(value))
        assert again == value
        assert type(again) is kind
        assert encode(again) == encode(value)

    check()


@pytest.mark.parametrize(("decode", "kind"), KINDS)
def test_damage_is_refused_or_is_another_value(decode, kind):
    @given(structs(kind), st.data())
    def check(value, data):
        body = bytearray(encode(value))
        at = data.draw(st.integers(0, len(body) - 1))
        if data.draw(st.booleans()):
            body[at] ^= 1 << data.draw(st.integers(0, 7))
        else:
            del body[at:]
        with suppress(CodecError):
            decode(bytes(body))

    check()


@pytest.mark.parametrize(
    "decode",
    [
        decode_client,
        decode_cas,
        Payload.decode,
        *(
            function
            for each in CODECS.values()
            for function in (each.decode_message, each.decode_record)
        ),
    ],
)
def test_garbage_is_refused(decode):
    @given(st.binary(max_size=200))
    def check(body):
        with suppress(CodecError):
            decode(body)

    check()


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


@given(st.binary(max_size=64))
def test_a_stream_of_garbage_is_refused_or_waits_for_more(stream):
    with suppress(CodecError):
        bodies, used = split_frames(bytearray(stream), len(stream), 1024)
        assert used <= len(stream)
        assert sum(map(len, bodies)) <= used
