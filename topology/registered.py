"""Topologies that installed distributions bring, by the entry point group `epaxos.topologies`.

An entry point is a `Topology`, or a function that returns one; `read_toml` makes one from a file.

Rules of this file: imports nothing of ours; whatever somebody else's code does while it is loaded
becomes a TopologyError that names the distribution.
"""

from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from topology.regions import Topology, TopologyError

GROUP: Final = "epaxos.topologies"


def registered_names() -> list[str]:
    """What installed distributions bring, sorted. Loads nothing."""
    return sorted({each.name for each in entry_points(group=GROUP)})


@cache
def registered(name: str) -> Topology | None:
    """The topology of that name, by which it can be found again; None if nobody brings one.

    Raises TopologyError."""
    entries = [each for each in entry_points(group=GROUP) if each.name == name]
    if not entries:
        return None
    where = f"topology {name}, entry point {GROUP} of {' and of '.join(map(_owner, entries))}"
    if len(entries) > 1:
        raise TopologyError(f"{where}: two distributions have it; uninstall one of them")
    try:
        found: Any = entries[0].load()
        if callable(found):
            found = found()
    except Exception as error:
        # Whatever it was, it is theirs.
        raise TopologyError(
            f"{where}: {entries[0].value} cannot be loaded: {type(error).__name__}: {error}"
        ) from None
    if not isinstance(found, Topology):
        raise TopologyError(
            f"{where}: {entries[0].value} is a {type(found).__name__}, not a Topology, nor a "
            "function that returns one"
        )
    return replace(found, name=name)


def _owner(entry: EntryPoint) -> str:
    dist = entry.dist
    return "an unnamed distribution" if dist is None else f"{dist.name} {dist.version}"
