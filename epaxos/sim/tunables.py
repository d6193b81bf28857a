"""Constants of the protocols at their extremes, for the time of one run.

A bound of 512 slots is never met by a short run; a bound of one is met at once. The constants stay
constants: they are set from outside, and set back however the run ends.

Rules of this file: names are those of `options.TUNABLES`, `<protocol>.<CONSTANT>`; a constant is
set in every module that has it, of the protocol and of what it shares with others.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

_MODULES = {
    "epaxos": ("epaxos.columns", "epaxos.recovery", "epaxos.replica"),
    "multipaxos": (
        *("multipaxos.log", "multipaxos.election", "multipaxos.replica"),
        *("leader_based.members", "leader_based.patience"),
    ),
}


@contextmanager
def tuned(tunables: tuple[tuple[str, float], ...]) -> Iterator[None]:
    """Set these constants; set them back at the end."""
    before: list[tuple[Any, str, Any]] = []
    try:
        for name, value in tunables:
            protocol, constant = name.split(".")
            for part in _MODULES[protocol]:
                module: Any = import_module(f"epaxos.protocols.{part}")
                if hasattr(module, constant):
                    before.append((module, constant, getattr(module, constant)))
                    setattr(module, constant, value)
        yield
    finally:
        for module, constant, value in reversed(before):
            setattr(module, constant, value)
