"""Every message of a protocol has a handler, every tag is used once, every field is explained."""

import ast
import inspect
import random
import sys
from pathlib import Path

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


@pytest.mark.parametrize(
    "kind",
    [each for protocol in PROTOCOLS for each in (*protocol.messages, *protocol.records)]
    + [*CLIENT, Executed],
    ids=lambda kind: f"{kind.__module__.split('.')[-2]}.{kind.__name__}",
)
def test_every_message_and_record_is_plain_and_explained(kind):
    config = kind.__struct_config__
    assert config.frozen
    assert config.array_like
    assert not kind.__struct_defaults__, "every field is mandatory"
    assert inspect.getdoc(kind)
    (definition,) = (
        node
        for node in tree(Path(sys.modules[kind.__module__].__file__)).body
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__
    )
    explained = {
        field.target.id
        for field, text in zip(definition.body, definition.body[1:])
        if isinstance(field, ast.AnnAssign)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }
    assert explained == set(kind.__struct_fields__)
