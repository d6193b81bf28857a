"""Sizes: a payload at its bound fits into every message and record, and a command just over it is
refused before anything is proposed."""

import types
from typing import Annotated, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest

from epaxos.codec import FRAME_BYTES_MAX, FRAME_HEADER, ClientAnswer, Codec, encode, encode_frame
from epaxos.core.command import (
    BATCH_ENVELOPE_BYTES,
    PAYLOAD_BYTES_MAX,
    VALUE_BYTES_MAX,
    Batch,
    Payload,
    Results,
    commands_bytes,
    encode_cas,
    oversize,
)
from epaxos.core.errors import CodecError
from epaxos.core.types import BALLOT_MAX, REPLICAS_MAX, SLOT_MAX
from epaxos.protocols.epaxos import messages as epaxos
from epaxos.registry import find_protocol, protocol_names
from epaxos.runtime.segments import BODY_BYTES_MAX, pack_record

NUMBER = 2**64 - 1
LONG = Payload.of(Batch(0, 1, b"\1", [b"k"], [bytes(70_000)]))
"""Long enough for the longest of all headers."""
LARGEST = Payload.of(Batch(0, 1, b"\1", [b"k"], [bytes(PAYLOAD_BYTES_MAX - 16)]))


def largest(hint):
    """The value of a type that takes the most bytes, with one payload in it."""
    if hint is Payload:
        return LONG
    if get_origin(hint) is Annotated:
        return largest(get_args(hint)[0])
    if hint is int:
        return NUMBER
    if hint is bool:
        return True
    inside = get_args(hint)
    if get_origin(hint) is list:
        return [largest(inside[0])]
    if get_origin(hint) is tuple:
        return (largest(inside[0]),) * REPLICAS_MAX
    if get_origin(hint) in (Union, types.UnionType):
        return largest(next(each for each in inside if each is not type(None)))
    assert issubclass(hint, msgspec.Struct), f"{hint} is of no known kind"
    hints = get_type_hints(hint, include_extras=True)
    return hint(*(largest(hints[name]) for name in hint.__struct_fields__))


KINDS = [
    kind
    for name in protocol_names()
    for kind in (*find_protocol(name).messages, *find_protocol(name).records)
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_what_surrounds_one_payload_leaves_room(kind):
    made = encode(largest(kind))
    surroundings = len(made) - len(LONG.encoded) * (LONG.encoded in made)
    assert surroundings < 500
    assert PAYLOAD_BYTES_MAX + surroundings < min(FRAME_BYTES_MAX, BODY_BYTES_MAX)


def test_the_largest_payload_is_framed_recorded_and_read():
    vote = epaxos.Vote(SLOT_MAX, 1, BALLOT_MAX, LARGEST, (SLOT_MAX,) * 9, (SLOT_MAX,) * 9)
    message = epaxos.RecoverOk(8, BALLOT_MAX, [vote])
    assert len(LARGEST.encoded) == PAYLOAD_BYTES_MAX
    codec = Codec(find_protocol("epaxos"))
    assert codec.decode_message(encode_frame(message)[FRAME_HEADER.size :]) == message
    record = epaxos.PreAccepted(8, SLOT_MAX, LARGEST, (SLOT_MAX,) * 9, (SLOT_MAX,) * 9)
    pack_record(1, 1, 0, encode(record), 0, 0)


def test_a_larger_payload_of_a_peer_is_refused_and_one_in_the_log_is_read():
    larger = Payload.of(Batch(0, 1, b"\1", [b"kk"], LARGEST.batch.arguments))
    codec = Codec(find_protocol("epaxos"))
    with pytest.raises(CodecError, match="a payload has"):
        codec.decode_message(encode(epaxos.Commit(0, 1, larger, (0, 0, 0))))
    record = epaxos.Committed(0, 1, larger, (0, 0, 0))
    assert codec.decode_record(encode(record)) == record


def test_nothing_over_the_limit_is_framed_or_recorded():
    body = bytes(BODY_BYTES_MAX + 1)
    with pytest.raises(AssertionError, match="no start would read it"):
        pack_record(1, 1, 0, body, 0, 0)
    with pytest.raises(AssertionError, match="a Commit of"):
        encode_frame(epaxos.Commit(0, 1, Payload(LONG.batch, body), (0, 0, 0)))


def test_the_answer_to_a_read_of_the_largest_value_fits():
    results = Results(8, NUMBER, NUMBER, 1, b"\0", [bytes(PAYLOAD_BYTES_MAX)], [(8, NUMBER, 9)])
    assert encode_frame(ClientAnswer(NUMBER, results, 0, NUMBER, NUMBER))


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_535, 65_536])
@pytest.mark.parametrize("count", [1, 15, 16, 300])
def test_a_batch_never_takes_more_than_was_reckoned(size, count):
    keys, arguments = [bytes(size)] * count, [bytes(size)] * count
    batch = Batch(2**32, NUMBER, b"\1" * count, keys, arguments)
    reckoned = BATCH_ENVELOPE_BYTES + commands_bytes(keys, arguments)
    assert reckoned - 13 * count - 34 <= len(Payload.of(batch).encoded) <= reckoned


def test_a_value_at_its_bound_is_never_too_large_and_the_refusal_names_it():
    key, value = bytes(1024), bytes(VALUE_BYTES_MAX)
    assert oversize(key, value) is None
    assert oversize(key, encode_cas((8, NUMBER, NUMBER), value)) is None
    assert "may have 33,554,432 bytes" in oversize(key, value + bytes(64 * 1024))
    assert oversize(b"k", bytes(89), 100 + 35) is None
    assert oversize(b"k", bytes(90), 100 + 35)
