"""What passes between a node and whoever drives it: requests in, replies and questions out.

Rules of this file: plain data; methods only keep it consistent. Times are `Micros` of the node's
clock.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from epaxos.core.command import PAYLOAD_BYTES_MAX, Payload, Results, commands_bytes
from epaxos.core.errors import RequestError
from epaxos.core.replica import Message, Path, Record
from epaxos.core.stamps import Stamps
from epaxos.core.types import InstanceId, Micros, ReplicaId


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


class Run:
    """Neighbouring commands of one request that share their fate from here on."""

    __slots__ = (
        "arguments",
        "arrived",
        "count",
        "deadline",
        "done",
        "flight",
        "keys",
        "offset",
        "operations",
        "period",
        "size",
        "waiter",
    )

    def __init__(
        self,
        waiter: Hashable,
        offset: int,
        operations: bytes,
        keys: list[bytes],
        arguments: list[bytes],
        arrived: Micros,
        deadline: Micros,
    ) -> None:
        self.waiter = waiter
        self.offset = offset
        """Position of the first command in its request."""
        self.operations = operations
        self.keys = keys
        self.arguments = arguments
        self.count = len(keys)
        self.size = commands_bytes(keys, arguments)
        """The most bytes that its commands take in an encoded batch."""
        self.arrived = arrived
        self.deadline = deadline
        self.done = False
        """Whether the client has its answer or refusal."""
        self.flight: Flight | None = None
        """The batch that carries its commands, once they were proposed."""
        self.period = -1
        """Where its node keeps its deadline."""

    def drop_columns(self) -> None:
        """Its commands are carried by others from here on: a batch, or parts of it."""
        self.operations, self.keys, self.arguments = b"", [], []

    def part(self, start: int, stop: int) -> "Run":
        """Some of its commands, as a run of their own."""
        return Run(
            self.waiter,
            self.offset + start,
            self.operations[start:stop],
            self.keys[start:stop],
            self.arguments[start:stop],
            self.arrived,
            self.deadline,
        )


class Flight:
    """One batch made here, from its proposal to the last answer."""

    __slots__ = (
        "committed_at",
        "instance",
        "number",
        "path",
        "payload",
        "proposed_at",
        "runs",
        "stamps",
    )

    def __init__(self, number: int, payload: Payload, runs: list[Run], now: Micros) -> None:
        self.number = number
        """The batch's number."""
        self.payload = payload
        self.runs = runs
        """Whose commands it carries, in the order of the batch."""
        self.proposed_at = now
        self.instance: InstanceId | None = None
        """Where it was proposed; None while a leader elsewhere has it."""
        self.path: Path = Path.LEARNED
        """How its instance was decided."""
        self.committed_at: Micros = 0
        """When an answer could have left if answers left at commit; set by the driver, 0 before."""
        self.stamps: Stamps | None = None
        """How its journey goes, if it is sampled."""

    def name_request(self, name: str) -> None:
        """A client calls one of its requests so: if the batch is sampled, it is found by that."""
        if self.stamps is not None:
            self.stamps.requests.append(name)


def commit(flights: Iterable[Flight], now: Micros) -> None:
    """The law's moment of commit: the Ready in which these batches are decided is durable."""
    for flight in flights:
        flight.committed_at = now


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
    count: int  # type: ignore[assignment] # tuple.count is of no use here
    error: RequestError
    """Definite or Ambiguous, with a sentence."""
    code: str
    """`overloaded`, `not-proposed` (definite); `outcome-unknown` (ambiguous); `invalid`
    (definite)."""


@dataclass(frozen=True)
class AskStatus:
    """What `/v1/status` shows of the node: protocol, vectors, counters, readiness, memory, the
    slowest member."""


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


class QuestionReply(NamedTuple):
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
    replies: list[Reply | Refusal | QuestionReply]
    flights: list[Flight]
    """Own batches decided in this Ready."""
    distrusted: Sequence[ReplicaId] = ()
    """Members that sent what no correct one sends: their links should be closed."""
    sampled: Sequence[Stamps] = ()
    """Sampled batches that were proposed, decided or executed in this Ready."""


@dataclass(frozen=True)
class Limits:
    """Bounds and switches of a node."""

    batch_commands: int = 4096
    """At most so many commands in one batch."""
    batch_bytes: int = 4 * 1024 * 1024
    """No encoded batch is larger, unless one command alone is."""
    payload_bytes: int = PAYLOAD_BYTES_MAX
    """A command that takes more than so many bytes in a batch of its own is refused, `invalid`."""
    queued_commands: int = 65_536
    """Commands on contended keys that may wait unproposed; beyond: refused, `overloaded`."""
    queued_bytes: int = 256 << 20
    """Their bytes."""
    live_bytes: int = 1 << 30
    """Memory for live instances; at the bound new commands are refused, `overloaded`."""
    sampled_per_s: int = 0
    """At most so many own batches per second carry stamps; 0: none."""
    gate: bool = True
    """R12. False is `--unsafe-no-gate`: contended keys are not held back."""
