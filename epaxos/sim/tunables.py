"""Constants of the protocols at their extremes, for the time of one run: also when everything must
execute, which must not hang on them, but for `UNTIL_HEALED`.

A bound of 512 slots is never met by a short run; a bound of one is met at once. The constants stay
constants: they are set from outside, and set back however the run ends.

Rules of this file: names are those of `options.TUNABLES`, `<protocol>.<CONSTANT>`; a constant is
set in every module that has it, of the protocol and of what it shares with others.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

UNTIL_HEALED = frozenset(("multipaxos.SLOTS_AHEAD_MAX",))
"""What goes back when the core heals. A candidate that cannot take a vote so far ahead cannot lead,
and nobody else can meanwhile: no leader may open so many slots, which a run's few commands do."""

_PACKAGES = {"epaxos": ("epaxos",), "multipaxos": ("multipaxos", "leader_based")}
"""A protocol's own package, and what it shares with others."""

_PACKERS = ("epaxos.VOTE_BYTES_PER_ANSWER", "multipaxos.CHUNK_BYTES")


def packers_of(limits: tuple[tuple[str, int], ...]) -> tuple[tuple[str, float], ...]:
    """The constants of who packs several payloads into a message, where a run's bound of one
    payload is small: no message carries more."""
    small = dict(limits).get("payload_bytes")
    return () if small is None else tuple((name, small) for name in _PACKERS)


@contextmanager
def tuned(tunables: tuple[tuple[str, float], ...]) -> Iterator[None]:
    """Set these constants; set them back at the end."""
    before: list[tuple[Any, str, Any]] = []
    try:
        for name, value in tunables:
            protocol, constant = name.split(".")
            for module in _modules(protocol):
                if hasattr(module, constant):
                    before.append((module, constant, getattr(module, constant)))
                    setattr(module, constant, value)
        yield
    finally:
        for module, constant, value in reversed(before):
            setattr(module, constant, value)


def lasting(tunables: tuple[tuple[str, float], ...]) -> tuple[tuple[str, float], ...]:
    """Those of them that stay set when the core heals."""
    return tuple(each for each in tunables if each[0] not in UNTIL_HEALED)


@cache
def _modules(protocol: str) -> list[Any]:
    found = []
    for name in _PACKAGES[protocol]:
        package = import_module(f"epaxos.protocols.{name}")
        names = (part.name for part in iter_modules(package.__path__))
        found += [import_module(f"{package.__name__}.{part}") for part in names]
    return found
