"""The lower floors say what they expect in types, and take nothing on trust."""

import ast

from tests.house.sources import ROOT, modules, named, tree

FLOORS_1_TO_3 = (
    *modules("epaxos/core", "epaxos/protocols", "epaxos/execution", "epaxos/node"),
    *(ROOT / "epaxos" / name for name in ("codec.py", "registry.py", "trace.py")),
)


def test_no_cast_and_no_getattr_below_the_worlds():
    found = [
        f"{named(path)}:{node.lineno}"
        for path in FLOORS_1_TO_3
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("cast", "getattr")
    ]
    assert not found
