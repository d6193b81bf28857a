"""What a node can run, by name: the protocols, as the worlds and the codec must know them, and the
state machines.

A protocol from outside the package registers through the entry point group `epaxos.protocols`, as a
`ProtocolSpec` or a function that returns one, or is named as `package.module:NAME`.

Rules of this file: no protocol logic; a `ProtocolSpec` is plain data.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from epaxos.core.errors import ConfigError
from epaxos.core.quorum import quorums
from epaxos.core.replica import RECORD_TAG_PROTOCOL, Message, Record, Replica, Setup
from epaxos.execution.interface import Executor
from epaxos.execution.store import StateMachine, Store
from epaxos.extensions import entry_names, is_place, load_entry, load_place

GROUP: Final = "epaxos.protocols"
"""The entry points that are protocols."""
BUILT_IN: Final = ("epaxos", "multipaxos")
"""The protocols of this package, in the order of their age."""


def minority(n: int) -> int:
    """How many of n replicas are less than half."""
    return quorums(n).f


@dataclass(frozen=True)
class ProtocolSpec:
    """One protocol as data."""

    name: str
    """What a person types: `epaxos`, `multipaxos`."""
    title: str
    """What a person reads: `EPaxos`, `Multi-Paxos`."""
    has_leader: bool
    """Whether one replica leads; if not, its replica may inherit `Leaderless`."""
    messages: tuple[type[Message], ...]
    """Every message class, with distinct integer tags."""
    records: tuple[type[Record], ...]
    """Every record class, with distinct integer tags from `RECORD_TAG_PROTOCOL` on."""
    replica: Callable[[Setup], Replica]
    """Builds a new replica."""
    executor: Callable[[int], Executor]
    """Builds the executor for a cluster of n replicas."""
    short: str = ""
    """What a person reads where there is little room: `MP`; empty: the title."""
    invariants: str = ""
    """The module of its invariants (`epaxos.sim.check.protocol_invariants`); empty: it has none."""
    survives: Callable[[int], int] = minority
    """How many of n replicas may be lost for good before commands are no longer decided. The
    simulator loses no more of them, and then wants everything decided."""
    optimum: Literal["", "epaxos", "leader"] = ""
    """What physics allows: from the nearest fast quorum of every replica, as in EPaxos; from the
    nearest majority of a leader; empty: no closed form is known, and no optimum is shown."""


def protocol_names() -> list[str]:
    """The names `find_protocol` knows: those of this package, then those of installed ones."""
    return [*BUILT_IN, *(each for each in entry_names(GROUP) if each not in BUILT_IN)]


def find_protocol(name: str) -> ProtocolSpec:
    """The protocol called `name`: one of `protocol_names`, or `package.module:NAME`.

    Raises ConfigError that lists the known ones, or says what is wrong with one from outside."""
    if name == "epaxos":
        return _epaxos()
    if name == "multipaxos":
        return _multipaxos()
    if is_place(name):
        return _checked(name, load_place(name))
    found = load_entry(GROUP, name)
    if found is None:
        raise ConfigError(
            f"unknown protocol {name!r}; choose one of {', '.join(protocol_names())}, or write "
            "package.module:NAME"
        )
    return _checked(name, found)


def find_state_machine(place: str) -> type[StateMachine]:
    """The class that `package.module:CLASS` means; empty: the key-value store. Raises
    ConfigError."""
    if not place:
        return Store
    if not is_place(place):
        raise ConfigError(f"state machine {place!r}: write package.module:CLASS")
    found = load_place(place)
    lacks = [each for each in _STATE_MACHINE if not hasattr(found, each)]
    if not isinstance(found, type) or lacks:
        raise ConfigError(
            f"state machine {place}: {f'it lacks {lacks[0]}' if lacks else 'it is not a class'}; "
            "see epaxos.execution.store.StateMachine"
        )
    return found


def _epaxos() -> ProtocolSpec:
    from epaxos.execution.graph_executor import GraphExecutor
    from epaxos.protocols.epaxos import messages
    from epaxos.protocols.epaxos.replica import EPaxosReplica

    return ProtocolSpec(
        "epaxos",
        "EPaxos",
        False,
        messages.MESSAGES,
        messages.RECORDS,
        EPaxosReplica,
        GraphExecutor,
        invariants="epaxos.protocols.epaxos.invariants",
        optimum="epaxos",
    )


def _multipaxos() -> ProtocolSpec:
    from epaxos.execution.slot_executor import SlotExecutor
    from epaxos.protocols.multipaxos import messages
    from epaxos.protocols.multipaxos.replica import MultiPaxosReplica

    return ProtocolSpec(
        "multipaxos",
        "Multi-Paxos",
        True,
        messages.MESSAGES,
        messages.RECORDS,
        MultiPaxosReplica,
        SlotExecutor,
        short="MP",
        invariants="epaxos.protocols.multipaxos.invariants",
        optimum="leader",
    )


def _checked(name: str, found: Any) -> ProtocolSpec:
    """A protocol from outside, or what makes it. Raises ConfigError."""
    if not isinstance(found, ProtocolSpec) and callable(found):
        try:
            found = found()
        except Exception as error:
            # Whatever it was, it is theirs.
            raise ConfigError(
                f"protocol {name}: what makes it raises {type(error).__name__}: {error}"
            ) from None
    if not isinstance(found, ProtocolSpec):
        raise ConfigError(
            f"protocol {name}: it is a {type(found).__name__}, not a ProtocolSpec, nor a function "
            "that returns one"
        )
    _check_tags(f"protocol {name}: messages", found.messages, 0)
    _check_tags(f"protocol {name}: records", found.records, RECORD_TAG_PROTOCOL)
    return found


def _check_tags(where: str, kinds: tuple[type[Message], ...], lowest: int) -> None:
    if not kinds:
        raise ConfigError(f"{where}: there is none")
    owners: dict[int, str] = {}
    for kind in kinds:
        config = kind.__struct_config__
        tag = config.tag
        if not config.array_like or not isinstance(tag, int) or tag < lowest:
            raise ConfigError(
                f"{where}: {kind.__name__} must be an array_like struct with tag={lowest} or more"
            )
        if owners.setdefault(tag, kind.__name__) != kind.__name__:
            raise ConfigError(f"{where}: {owners[tag]} and {kind.__name__} have one tag, {tag}")


_STATE_MACHINE: Final = ("__len__", "apply", "answer", "digest", "is_key_value")
