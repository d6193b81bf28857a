"""A reader's own bug: a class in a file, planted in the place of the real one.

The file holds one class that inherits from a protocol's replica, from an executor or from `Node`;
it is put there from outside, nothing in the product knows of it.

Rules of this file: a file is loaded once per process.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import extract_tb
from typing import Any, NamedTuple

from epaxos.core.errors import ConfigError
from epaxos.node.node import Node
from epaxos.registry import ProtocolSpec, find_protocol


class Planted(NamedTuple):
    """What runs instead of the code as it is."""

    spec: ProtocolSpec
    node: type[Node] = Node


@cache
def planted(protocol: str, place: str) -> Planted:
    """The protocol and the node with the class of `FILE.py` or `FILE.py:CLASS` in its place.

    Raises ConfigError that names the file and what to write."""
    spec = find_protocol(protocol)
    found: Any = _find(place, _roles(spec))
    if issubclass(found, Node):
        return Planted(spec, found)
    if issubclass(found, _class_of(spec.replica)):
        return Planted(replace(spec, replica=found))
    return Planted(replace(spec, executor=found))


def _roles(spec: ProtocolSpec) -> tuple[type, ...]:
    return Node, _class_of(spec.replica), _class_of(spec.executor)


def _class_of(factory: Callable[..., object]) -> type:
    if not isinstance(factory, type):
        raise ConfigError(
            f"--plant needs a protocol whose parts are classes, which {factory} is not"
        )
    return factory


def _find(place: str, roles: tuple[type, ...]) -> type[Any]:
    name, _, wanted = place.partition(":")
    path = Path(name)
    if not path.is_file():
        raise ConfigError(f"--plant {place}: there is no file {name}")
    loader = spec_from_file_location(path.stem, path)
    if loader is None or loader.loader is None:
        raise ConfigError(f"--plant {place}: {name} is not a Python file")
    module = module_from_spec(loader)
    try:
        loader.loader.exec_module(module)
    except Exception as error:
        # Whatever it was, it is the reader's file, not ours.
        line = getattr(error, "lineno", None) or _line_in(name, error)
        where = name if line is None else f"{name}:{line}"
        raise ConfigError(f"--plant {where}: {type(error).__name__}: {error}") from None
    names = ", ".join(role.__name__ for role in roles)
    found = [
        each
        for each in vars(module).values()
        if isinstance(each, type)
        and issubclass(each, roles)
        and each not in roles
        and wanted in ("", each.__name__)
    ]
    if len(found) != 1:
        raise ConfigError(
            f"--plant {place}: {len(found)} classes there inherit from {names}; name one, like "
            f"{name}:MyReplica"
        )
    return found[0]


def _line_in(name: str, error: Exception) -> int | None:
    """Where in the file it was raised."""
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == name]
    return lines[-1] if lines else None
