"""The protocols that a node can run, by name: what the worlds and the codec must know of each.

Rules of this file: no protocol logic; a `ProtocolSpec` is plain data. A protocol from outside the
package will register through the entry point group `epaxos.protocols`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from epaxos.core.errors import ConfigError
from epaxos.core.replica import Message, Record, Replica, Setup
from epaxos.execution.ordering import Executor


@dataclass(frozen=True)
class ProtocolSpec:
    """One protocol as data."""

    name: str
    """What a person types: `epaxos`, `multipaxos`."""
    title: str
    """What a person reads: `EPaxos`, `Multi-Paxos`."""
    has_leader: bool
    """Whether its replica is a `LeaderReplica`."""
    messages: tuple[type[Message], ...]
    """Every message class, with distinct integer tags."""
    records: tuple[type[Record], ...]
    """Every record class, with distinct integer tags from `RECORD_TAG_PROTOCOL` on."""
    replica: Callable[[Setup], Replica]
    """Builds a new replica."""
    executor: Callable[[int], Executor]
    """Builds the executor for a cluster of n replicas."""


def protocol_names() -> list[str]:
    """The names `find_protocol` knows, in the order of their age."""
    return ["epaxos", "multipaxos"]


def find_protocol(name: str) -> ProtocolSpec:
    """The protocol called `name`. Raises ConfigError that lists the known ones."""
    if name == "epaxos":
        from epaxos.execution.executor import GraphExecutor
        from epaxos.protocols.epaxos import messages as epaxos
        from epaxos.protocols.epaxos.replica import EPaxosReplica

        return ProtocolSpec(
            "epaxos",
            "EPaxos",
            False,
            epaxos.MESSAGES,
            epaxos.RECORDS,
            EPaxosReplica,
            GraphExecutor,
        )
    if name == "multipaxos":
        from epaxos.execution.sequence import SlotExecutor
        from epaxos.protocols.multipaxos import messages as multipaxos
        from epaxos.protocols.multipaxos.replica import MultiPaxosReplica

        return ProtocolSpec(
            "multipaxos",
            "Multi-Paxos",
            True,
            multipaxos.MESSAGES,
            multipaxos.RECORDS,
            MultiPaxosReplica,
            SlotExecutor,
        )
    raise ConfigError(f"unknown protocol {name!r}; choose one of {', '.join(protocol_names())}")
