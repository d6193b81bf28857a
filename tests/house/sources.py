"""Our own source text, for the tests of the house.

A lint is a function of a file that yields the line and a sentence for everything it objects to.
One test runs it over the whole house and lists all that it found; another gives it a text of which
it must say so.
"""

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = ("epaxos", "topology", "bench")

Lint = Callable[[Path], Iterator[tuple[int, str]]]


def modules(*folders: str) -> list[Path]:
    """Every Python file below these folders of the repository."""
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def named(path: Path) -> str:
    """A path as people write it: from the repository's top."""
    return (path.relative_to(ROOT) if path.is_relative_to(ROOT) else path).as_posix()


def tree(path: Path) -> ast.Module:
    """A file's syntax tree."""
    return _parsed(path.read_text(encoding="utf-8"))


_parsed = cache(ast.parse)


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method in a file, at any depth."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def offenders(lint: Lint, paths: list[Path]) -> list[str]:
    """All that a lint objects to in these files, as `file:line: sentence`."""
    return [f"{named(path)}:{line}: {said}" for path in paths for line, said in lint(path)]


def objections(lint: Lint, directory: Path, text: str, name: str = "example.py") -> list[str]:
    """What a lint says of a text, written to `name` below a directory."""
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return [f"{line}: {said}" for line, said in lint(path)]
