"""Small damage to a module, one place at a time, made on its syntax tree.

Kinds: `compare` turns one comparison operator into its neighbour or its opposite; `extreme` turns
max into min and back; `quorum` adds one to a quorum size or to a number in quorum or ballot
arithmetic, or takes one away; `drop` leaves a record, a note or a sync out; `note` lets a record
become durable later, with the next sync.

Rules of this file: pure functions of source text. A mutant's key survives edits elsewhere in its
module: function, kind, what it was and what it became, and which one of several.
"""

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

_FLIPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_DUNDERS = {"__lt__": "__le__", "__le__": "__lt__", "__gt__": "__ge__", "__ge__": "__gt__"}
_EXTREMES = {"max": "min", "min": "max"}
_SIZES = ("fast", "slow", "e", "f")
"""Fields of Quorums that decide."""
_SYNCS = ("fsync", "fdatasync", "sync", "_sync", "sync_directory", "sync_folder")
ARITHMETIC = ("epaxos/core/types.py", "epaxos/core/quorum.py")
"""Here every number in arithmetic or in a comparison is one of a quorum or a ballot."""


class Mutant(NamedTuple):
    """One place, damaged."""

    module: str
    """Path of the module from the repository's top."""
    key: str
    kind: str
    line: int
    before: str
    after: str
    owner: str
    """Dotted name of the function or class it is in; empty for the module."""
    tree: ast.Module
    """The module without the damage."""
    change: "_Change"

    def damaged(self) -> ast.Module:
        """The module with the damage; its own copy."""
        return ast.fix_missing_locations(_replaced(self.tree, self.change))


class _Change(NamedTuple):
    kind: str
    old: ast.AST
    """What is replaced, in the original."""
    new: ast.AST


def mutants_of(module: str, source: str) -> list[Mutant]:
    """Every mutant of a module, in the order of its lines."""
    tree = ast.parse(source, module)
    owners = dict(_owners(tree, ""))
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    seen: Counter[str] = Counter()
    found = []
    for change in sorted(_changes(module, tree), key=lambda change: _place(change.old)):
        shown = change.old
        if change.kind in ("quorum", "extreme"):
            shown = parents[shown]
        before, after = _text(shown), _text(_replaced(shown, change))
        owner = owners.get(change.old, "")
        name = f"{module}::{owner}::{change.kind}::{before} -> {after}"
        seen[name] += 1
        key = name if seen[name] == 1 else f"{name} #{seen[name]}"
        line = change.old.lineno
        found.append(Mutant(module, key, change.kind, line, before, after, owner, tree, change))
    return found


def _place(node: ast.AST) -> tuple[int, int]:
    return node.lineno, node.col_offset


def _owners(node: ast.AST, name: str) -> Iterator[tuple[ast.AST, str]]:
    """Every node with the dotted name of the function or class it is in."""
    for child in ast.iter_child_nodes(node):
        inner = name
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = f"{name}.{child.name}" if name else child.name
        yield child, inner
        yield from _owners(child, inner)


def _changes(module: str, tree: ast.Module) -> Iterator[_Change]:
    asserted = {
        inner for node in ast.walk(tree) if isinstance(node, ast.Assert) for inner in ast.walk(node)
    }
    hints = {
        inner
        for node in ast.walk(tree)
        for hint in _hints_of(node)
        if hint is not None
        for inner in ast.walk(hint)
    }
    for node in ast.walk(tree):
        if node in asserted or node in hints:
            continue
        if isinstance(node, ast.Compare):
            yield from _flips(node)
        elif isinstance(node, ast.Name) and node.id in _EXTREMES:
            yield _Change("extreme", node, ast.Name(_EXTREMES[node.id], node.ctx))
        elif isinstance(node, ast.Attribute) and node.attr in _DUNDERS:
            new = ast.Attribute(node.value, _DUNDERS[node.attr], node.ctx)
            yield _Change("compare", node, new)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield from _drops(module, node)
        elif _is_size(module, node):
            for operator in (ast.Add(), ast.Sub()):
                yield _Change("quorum", node, ast.BinOp(node, operator, ast.Constant(1)))
        if module in ARITHMETIC:
            yield from _numbers(node)


def _hints_of(node: ast.AST) -> list[ast.AST | None]:
    if isinstance(node, ast.FunctionDef):
        return [node.returns]
    return [node.annotation] if isinstance(node, ast.arg | ast.AnnAssign) else []


def _flips(node: ast.Compare) -> Iterator[_Change]:
    for index, operator in enumerate(node.ops):
        new = copy.copy(node)
        new.ops = [*node.ops]
        new.ops[index] = _FLIPPED[type(operator)]()
        yield _Change("compare", node, new)


def _drops(module: str, node: ast.Expr) -> Iterator[_Change]:
    """Calls made for their effect on the disk."""
    call = node.value
    assert isinstance(call, ast.Call)
    function = call.func
    if not isinstance(function, ast.Attribute):
        name = function.id if isinstance(function, ast.Name) else ""
        if module.startswith("epaxos/runtime/") and name in _SYNCS:
            yield _Change("drop", node, ast.Pass())
        return
    holder = ast.unparse(function.value)
    if function.attr in ("record", "note") and (holder == "out" or holder.endswith(".out")):
        yield _Change("drop", node, ast.Pass())
        if function.attr == "record":
            weaker = ast.Attribute(function.value, "note", function.ctx)
            new = ast.Expr(ast.Call(weaker, call.args, call.keywords))
            yield _Change("note", node, new)
    elif module.startswith("epaxos/runtime/") and function.attr in _SYNCS:
        yield _Change("drop", node, ast.Pass())


def _is_size(module: str, node: ast.AST) -> bool:
    """Whether this is a quorum size that is read."""
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        holder = ast.unparse(node.value).partition("(")[0].rpartition(".")[2]
        return node.attr == "majority" or (
            node.attr in _SIZES and holder in ("sizes", "_sizes", "quorums")
        )
    return (
        isinstance(node, ast.Name)
        and isinstance(node.ctx, ast.Load)
        and node.id in ("e", "f")
        and (module in ARITHMETIC or module.endswith("recovery.py"))
    )


def _numbers(node: ast.AST) -> Iterator[_Change]:
    """Numbers in arithmetic, in comparisons, and named ones, one more and one less."""
    numbers: list[ast.AST] = []
    if isinstance(node, ast.BinOp):
        numbers = [node.left, node.right]
    elif isinstance(node, ast.Compare):
        numbers = [node.left, *node.comparators]
    elif isinstance(node, ast.Assign):
        numbers = [node.value]
    for number in numbers:
        if isinstance(number, ast.Constant) and type(number.value) is int:
            for by in (1, -1):
                yield _Change("quorum", number, ast.Constant(number.value + by))


def _text(node: ast.AST) -> str:
    return " ".join(ast.unparse(node).split())


def _replaced(node: ast.AST, change: _Change) -> ast.AST:
    """A copy of a tree with one node in it replaced; the original stays as it is."""
    memo: dict[int, object] = {}
    damaged = copy.deepcopy(node, memo)
    new = ast.copy_location(copy.deepcopy(change.new), change.old)
    return _Replace(memo[id(change.old)], new).visit(damaged)


class _Replace(ast.NodeTransformer):
    def __init__(self, target: object, new: ast.AST) -> None:
        self._target = target
        self._new = new

    def visit(self, node: ast.AST) -> ast.AST:
        return self._new if node is self._target else super().visit(node)
