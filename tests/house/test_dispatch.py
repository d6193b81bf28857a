"""Every message of a protocol has a handler, every tag is used once, every field is explained."""

import ast
import random
import sys
from pathlib import Path

import msgspec
import pytest

from epaxos import codec
from epaxos.core.replica import RECORD_TAG_PROTOCOL, Executed, Setup
from epaxos.registry import find_protocol, protocol_names
from tests.house.sources import tree

PROTOCOLS = [find_protocol(name) for name in protocol_names()]
CLIENT = (
    codec.ClientHello,
    codec.ServerHello,
    codec.ClientRequest,
    codec.ClientAnswer,
    codec.ClientRefusal,
)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_every_message_has_a_handler(protocol):
    replica = protocol.replica(Setup(0, 3, (0, 1000, 1000), random.Random(1)))
    handlers = replica._handlers
    assert set(handlers) == set(protocol.messages)
    for handler in handlers.values():
        assert handler.__name__.startswith("_on_"), handler


def tags(classes):
    return [each.__struct_config__.tag for each in classes]


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_every_tag_is_used_once(protocol):
    assert len(set(tags(protocol.messages))) == len(protocol.messages)
    records = tags(protocol.records)
    assert len(set(records)) == len(records)
    assert min(records) >= RECORD_TAG_PROTOCOL
    assert tags([Executed])[0] < RECORD_TAG_PROTOCOL
    assert len(set(tags(CLIENT))) == len(CLIENT)


def flaws(kind):
    """What a message or record lacks: it is frozen, an array on the wire, without defaults, and
    it and its fields are explained."""
    config = kind.__struct_config__
    if not config.frozen:
        yield "is not frozen"
    if not config.array_like:
        yield "is no array"
    if kind.__struct_defaults__:
        yield "has fields that are not mandatory"
    (definition,) = (
        node
        for node in ast.walk(tree(Path(sys.modules[kind.__module__].__file__)))
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__
    )
    if not ast.get_docstring(definition):
        yield "is not explained"
    explained = {
        field.target.id
        for field, text in zip(definition.body, definition.body[1:])
        if isinstance(field, ast.AnnAssign)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }
    if explained != set(kind.__struct_fields__):
        yield f"explains {sorted(explained)}"


def test_every_message_and_record_is_plain_and_explained():
    kinds = [each for protocol in PROTOCOLS for each in (*protocol.messages, *protocol.records)]
    assert len(kinds) > 30
    assert [
        f"{kind.__module__}.{kind.__name__} {flaw}"
        for kind in (*kinds, *CLIENT, Executed)
        for flaw in flaws(kind)
    ] == []


def test_a_message_that_is_not_plain_or_not_explained_is_named():
    class Careless(msgspec.Struct):
        slot: int
        deps: tuple[int, ...] = ()
        """What it depends on."""

    assert list(flaws(Careless)) == [
        "is not frozen",
        "is no array",
        "has fields that are not mandatory",
        "is not explained",
        "explains ['deps']",
    ]
