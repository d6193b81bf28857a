"""A node: replica + executor + store + those who wait for answers. Still no I/O.

Floor 3. Drivers (the runtime's and the simulator's) know only this class and keep the law of
durability for it:

    feed inputs (`request`, `ask`, `receive`, `wake`)
    ready = node.take()
    append ready.log; sync once if ready.must_sync
    for flight in ready.flights: flight.committed_at = clock()      # the law's moment of commit
    send ready.messages; give ready.replies

`take` is called again only when the previous Ready was appended, synced if it must, and sent: so at
`take` the node knows without a callback what is durable.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

from epaxos.core.command import Results
from epaxos.core.errors import RequestError
from epaxos.core.replica import Message, Record, Setup
from epaxos.core.types import InstanceId, Micros, ReplicaId
from epaxos.registry import ProtocolSpec


class Request(NamedTuple):
    """Commands of one client that arrived together, as columns of equal length."""

    waiter: Hashable
    """Whose they are: opaque here, unique among what is unanswered, comes back with every reply."""
    operations: bytes
    keys: list[bytes]
    arguments: list[bytes]
    deadline: Micros
    """When the client stops waiting: unanswered commands are then refused, definite or
    ambiguous."""


class Flight:
    """One batch made here, from its proposal to the last answer."""

    __slots__ = ("committed_at", "instance", "number", "path", "payload", "proposed_at")

    committed_at: Micros
    """When an answer could have left if answers left at commit; set by the driver, 0 before."""
    # The other attributes are the node's own; `path` is that of its instance once decided.


class Reply(NamedTuple):
    """Answers for a run of neighbouring commands of one request."""

    waiter: Hashable
    offset: int
    """Position, in the request, of the run's first command."""
    results: Results
    arrived: Micros
    """When the request arrived here."""
    flight: Flight
    """For path and commit time."""


class Refusal(NamedTuple):
    """A run of commands that did not succeed."""

    waiter: Hashable
    offset: int
    count: int
    error: RequestError
    """Definite or Ambiguous, with a sentence."""
    code: str
    """`overloaded`, `not-proposed` (definite); `outcome-unknown` (ambiguous); `invalid`
    (definite)."""


@dataclass(frozen=True)
class AskStatus:
    """What `/v1/status` shows of the node: protocol, vectors, counters, readiness, memory,
    holdout."""


@dataclass(frozen=True)
class AskInstance:
    """One instance as this replica knows it."""

    instance: InstanceId


@dataclass(frozen=True)
class AskGraph:
    """Committed instances that still matter (above floor, newest first), with deps, keys and
    edges."""

    limit: int = 1000


@dataclass(frozen=True)
class AskTransfer:
    """Make another replica the leader; refused (Definite) by protocols without one."""

    target: ReplicaId


@dataclass(frozen=True)
class AskKeys:
    """Number of keys and a digest of the store that is equal wherever the contents are (O9)."""


Question = AskStatus | AskInstance | AskGraph | AskTransfer | AskKeys


class Told(NamedTuple):
    """The answer to a question; leaves like a reply (R10)."""

    waiter: Hashable
    document: dict[str, Any] | None
    """Values that JSON can say; None: nothing is known of what was asked."""
    error: RequestError | None
    """Set when the question was refused."""


class NodeReady(NamedTuple):
    """Everything the node wants done, in order."""

    log: list[Record]
    must_sync: bool
    messages: list[tuple[ReplicaId, Message]]
    """(target, message); the target may be EVERYONE."""
    replies: list[Reply | Refusal | Told]
    flights: list[Flight]
    """Own batches decided in this Ready."""


@dataclass(frozen=True)
class Limits:
    """Bounds and switches of a node."""

    batch_commands: int = 4096
    """At most so many commands in one batch."""
    batch_bytes: int = 4 * 1024 * 1024
    """At most so many bytes of keys and arguments in one batch, unless one command alone is
    larger."""
    queued_commands: int = 65_536
    """Commands on contended keys that may wait unproposed; beyond: refused, `overloaded`."""
    live_bytes: int = 1 << 30
    """Memory for live instances; at the bound new commands are refused, `overloaded`."""
    gate: bool = True
    """R12. False is `--unsafe-no-gate`: contended keys are not held back."""


class Node:
    """One member of a cluster: what drivers and the simulator run."""

    def __init__(self, protocol: ProtocolSpec, setup: Setup, boot: int, limits: Limits) -> None:
        raise NotImplementedError

    def request(self, requests: list[Request], now: Micros) -> None:
        """Commands from clients. Malformed operands are refused (`invalid`), nothing is raised."""

    def ask(self, waiter: Hashable, question: Question, now: Micros) -> None:
        """A question about the node's state; answered by a `Told` in the next Ready."""

    def receive(self, source: ReplicaId, message: Message, now: Micros) -> None:
        """A message from another member."""

    def wake(self, now: Micros) -> None:
        """Some deadline has passed. The first wake ends restore."""

    def deadline(self) -> Micros | None:
        """When to be woken next."""

    def restore(self, record: Record) -> None:
        """Replay one record of the own log, front to back, before the first wake."""

    def take(self, now: Micros) -> NodeReady:
        """Propose what may leave, execute what may execute, and hand over what is to be done."""
        raise NotImplementedError

    def unready(self) -> str | None:
        """Why `/readyz` should say no; None if it should say yes."""

    def statistics(self) -> dict[str, int]:
        """Counters of replica, executor and node."""
        raise NotImplementedError
