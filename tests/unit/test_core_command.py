"""Commands, batches, footprints and the conflict relation."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epaxos.core.command import (
    Among,
    Batch,
    Cas,
    Footprint,
    Operation,
    Payload,
    decode_cas,
    encode_cas,
    footprint_of,
    format_version,
    interferes,
    parse_version,
    show_footprint,
)
from epaxos.core.errors import CodecError
from epaxos.core.types import SLOT_MAX

KEYS = [b"a", b"b", b"c"]
columns = st.lists(st.tuples(st.sampled_from(list(Operation)), st.sampled_from(KEYS)), max_size=5)


def make_batch(commands):
    return Batch(
        origin=0,
        number=1,
        operations=bytes(code for code, _ in commands),
        keys=[key for _, key in commands],
        arguments=[b""] * len(commands),
    )


def commute(a, b):
    """The conflict relation as one would say it, command by command."""
    return a[1] != b[1] or (a[0] is Operation.GET and b[0] is Operation.GET)


@given(columns, columns)
def test_batches_interfere_when_two_of_their_commands_do(left, right):
    naive = any(not commute(a, b) for a in left for b in right)
    a, b = footprint_of(make_batch(left)), footprint_of(make_batch(right))
    assert interferes(a, b) is naive
    assert interferes(b, a) is naive


@given(columns)
def test_footprint_has_every_key(commands):
    footprint = footprint_of(make_batch(commands))
    assert set(footprint.reads) == {key for code, key in commands if code is Operation.GET}
    assert set(footprint.writes) == {key for code, key in commands if code is not Operation.GET}


def test_reads_commute():
    reads = Footprint((), KEYS)
    assert not interferes(reads, reads)
    assert interferes(Footprint(KEYS, ()), reads)


def test_footprint_for_people():
    footprint = Footprint([b"b", b"a\xff", b"b"], [b"c"])
    assert show_footprint(footprint) == {"writes": ["a\\xff", "b"], "reads": ["c"]}
    assert show_footprint(None) == {"writes": [], "reads": []}


def test_payload_carries_the_very_bytes():
    batch = make_batch([(Operation.PUT, b"x"), (Operation.GET, b"y")])
    payload = Payload.of(batch)
    again = Payload.decode(payload.encoded)
    assert again == payload
    assert hash(again) == hash(payload)
    assert again.batch == batch
    assert again.encoded is not None
    assert payload != Payload.of(make_batch([(Operation.PUT, b"x")]))
    assert repr(payload) == "Payload(0:1, 2 commands)"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"operations": b"\x01"}, "columns of different lengths"),
        ({"keys": [b"x"]}, "columns of different lengths"),
        ({"arguments": []}, "columns of different lengths"),
        ({"operations": b"\x01\x63"}, "an operation code that this version does not know"),
    ],
)
def test_payload_with_broken_columns_is_refused(change, words):
    batch = make_batch([(Operation.PUT, b"x"), (Operation.GET, b"y")])
    encoded = msgspec.msgpack.encode(msgspec.structs.replace(batch, **change))
    with pytest.raises(CodecError, match=words):
        Payload.decode(encoded)


@pytest.mark.parametrize(
    "expect",
    [True, False, b"value", (2, 7, 1), Among(), Among(((0, 1, 0), (2, 7, 1))), Among((), True)],
)
@pytest.mark.parametrize("value", [b"", b"new", None])
def test_operands_of_cas_are_read_back(expect, value):
    assert decode_cas(encode_cas(expect, value)) == Cas(expect, value)


@pytest.mark.parametrize(
    "argument",
    [
        b"",
        b"\xc1",
        b"\x92\x01\xc0",
        b"\x93\xc3\xc0\xc0",
        b"\x92\xc3" + b"\x91" * 100_000,
        b"\x92\xc3\xc0\x00",
    ],
    ids=["empty", "no msgpack", "wrong type", "three", "deep", "longer"],
)
def test_what_are_no_operands_of_cas_is_refused(argument):
    with pytest.raises(CodecError, match="operands of a compare-and-set"):
        decode_cas(argument)


@given(st.tuples(st.integers(0, 8), st.integers(1, SLOT_MAX), st.integers(0, 2**20)))
def test_version_is_printed_and_read_back(version):
    assert parse_version(format_version(version)) == version


@pytest.mark.parametrize("text", ["", "0.A.7", "1.A.7.0", "0.a.7.0", "0.A.x.0", "0.A.7.0.0"])
def test_what_is_no_version_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"like 0\.A\.7\.0"):
        parse_version(text)


def test_operands_of_older_logs_mean_what_they_meant():
    old = [False, True, (2, 7, 1), b"v"]
    for expect in old:
        assert decode_cas(msgspec.msgpack.encode([expect, b"new"])) == Cas(expect, b"new")
        assert encode_cas(expect, b"new") == msgspec.msgpack.encode([expect, b"new"])


@pytest.mark.parametrize(
    "text",
    ["0.A.+1_0. 0", "0.A.07.0", "0.A.٣.0", "0.A.99999999999999999999999.0", "0.A.7", "9" * 5000],
)
def test_a_version_is_written_in_one_way(text):
    with pytest.raises(ValueError, match=r"not a version; write one") as raised:
        parse_version(text)
    assert len(str(raised.value)) < 200
