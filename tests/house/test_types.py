"""The lower floors say what they expect in types, and take nothing on trust."""

import ast

from tests.house.sources import ROOT, modules, objections, offenders, tree

FLOORS = modules("epaxos/core", "epaxos/protocols", "epaxos/execution", "epaxos/node")
FLOORS_1_TO_3 = [
    *FLOORS,
    *(ROOT / "epaxos" / name for name in ("codec.py", "registry.py", "trace.py")),
]


def on_trust(path):
    """Calls of cast and getattr."""
    for node in ast.walk(tree(path)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("cast", "getattr")
        ):
            yield node.lineno, node.func.id


def untyped(path):
    """`Any` outside a dict: documents for people and tables of handlers may hold anything."""
    within = {
        id(inner)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Subscript) and getattr(node.value, "id", None) == "dict"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Name) and node.id == "Any" and id(node) not in within:
            yield node.lineno, "Any"


def test_no_cast_and_no_getattr_below_the_worlds():
    assert offenders(on_trust, FLOORS_1_TO_3) == []


def test_only_documents_and_tables_of_handlers_hold_anything():
    assert offenders(untyped, FLOORS) == []


def test_what_is_taken_on_trust_is_named(tmp_path):
    text = (
        "from typing import Any, cast\n"
        "table: dict[type, Callable[[Any], None]] = {}\n"
        "def f(x: Any) -> dict[str, Any]:\n"
        "    return cast(dict, getattr(x, 'y'))\n"
    )
    assert sorted(objections(on_trust, tmp_path, text)) == ["4: cast", "4: getattr"]
    assert objections(untyped, tmp_path, text) == ["3: Any"]
