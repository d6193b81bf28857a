"""The trace of a running replica: what went into its node, step by step, and what came out.

A node is a pure function of its inputs (house rule: no clock, no random of its own), so a trace
replays: `epaxos.runtime.recorder` writes one file per life of a replica, `epaxos.sim.replay` feeds
it to a new node and compares.

    file    magic with format, Header, Restored ..., TraceStep ..., TraceEnd
    frame   body length, CRC-32 of the body, body (`codec.encode_frame`)

Bodies are msgspec structs in MessagePack, array-like, tagged. Messages and records stand as the
bytes that went over the wire or into the log. What a node said and is long is kept as its checksum.

Rules of this file: opens nothing, writes nothing; what cannot be a trace is a StorageError that
names file and byte, and a bad end is cut, with a sentence.
"""

from collections.abc import Hashable, Iterator
from typing import Any, Final, TypeAlias
from zlib import crc32

import msgspec

from epaxos.codec import FRAME_HEADER, PROTOCOL_VERSION, Codec, encode
from epaxos.core.command import UNDECODABLE
from epaxos.core.errors import Definite, StorageError
from epaxos.core.replica import Message, Record, Target
from epaxos.core.types import InstanceId, Micros, ReplicaId, Slot
from epaxos.node.requests import (
    AskGraph,
    AskInstance,
    AskKeys,
    AskStatus,
    AskTransfer,
    Limits,
    NodeReady,
    Question,
    QuestionReply,
    Refusal,
    Reply,
    Request,
)

FORMAT: Final = 1
"""Version of the file; its last byte of magic."""
MAGIC: Final = b"epaxost" + bytes((FORMAT,))
SUFFIX: Final = ".trace"
SAID_BYTES_MAX: Final = 1024
"""What a node said and is longer is kept as its checksum: its input stands in the trace already."""


class Header(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """What the node was built from."""

    version: int
    """PROTOCOL_VERSION of messages and records."""
    cluster: str
    protocol: str
    member: ReplicaId
    """Whose life this is."""
    regions: list[str]
    """The name of every member's region; as many as the cluster has members."""
    rtt_us: list[Micros]
    """Expected round trip to each member."""
    leader: ReplicaId | None
    """Who was told to lead at the first start."""
    boot: int
    """Which life of the replica: its boot counter."""
    seed: str
    """Of the node's random."""
    batch_commands: int
    batch_bytes: int
    queued_commands: int
    live_bytes: int
    gate: bool
    """This and the four before it: the fields of `Limits` of that name."""
    machine: str
    """Names the machine and its start. The monotonic clock is one for all processes of a machine:
    times of traces with the same name can be compared, others not."""
    state_machine: str = ""
    """What executed commands; empty: the key-value store."""

    @property
    def limits(self) -> Limits:
        """The bounds of the node."""
        return Limits(
            batch_commands=self.batch_commands,
            batch_bytes=self.batch_bytes,
            queued_commands=self.queued_commands,
            live_bytes=self.live_bytes,
            gate=self.gate,
        )


class Restored(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """What the log held at the start, replayed in this order; in several frames if it is long."""

    records: list[bytes]
    """Encoded records."""


class Received(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Input: a message."""

    source: ReplicaId
    """Who sent it."""
    body: bytes
    """As the codec encodes it."""


class CommandColumns(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One request of a client."""

    waiter: int
    """Number of whoever waits for it."""
    operations: bytes
    """One Operation code per command."""
    keys: list[bytes]
    """The key of each command."""
    arguments: list[bytes]
    """The value or operands of each command."""
    deadline: Micros
    """When the client stops waiting."""


class Requested(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Input: requests that arrived together."""

    requests: list[CommandColumns]
    """In the order of their arrival."""


class Asked(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """Input: a question about the node's state."""

    waiter: int
    """Number of whoever waits for it."""
    kind: str
    """`status`, `instance`, `graph`, `transfer`, `keys`."""
    operands: list[int]
    """Instance: replica and slot; graph: limit; transfer: target."""


class Woken(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """Input: a deadline passed."""


Input: TypeAlias = Received | Requested | Asked | Woken


class Digest(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """In place of something long: enough to know whether it is the same."""

    kind: str
    """Name of its class."""
    size: int
    """In bytes, encoded."""
    crc: int
    """CRC-32 of the encoded bytes."""


Said: TypeAlias = bytes | Digest
"""Something a node said, encoded."""


class Answered(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Output: a run of commands was executed."""

    waiter: int
    """Whose they are."""
    offset: int
    """Position, in the request, of the run's first command."""
    results: Said
    """`Results`."""
    path: int
    """`Path` by which their instance was decided."""


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Output: a run of commands did not succeed."""

    waiter: int
    """Whose they are."""
    offset: int
    """Position, in the request, of the run's first command."""
    commands: int
    """How many share this fate."""
    definite: bool
    """True: never happened. False: may have happened."""
    code: str
    """A stable name."""
    detail: str
    """The sentence for a person."""


class Explained(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """Output: the answer to a question."""

    waiter: int
    """Who asked."""
    document: Said | None
    """In JSON; None: nothing is known, or it was refused."""
    refusal: str | None
    """Why it was refused."""


TraceAnswer: TypeAlias = Answered | Refused | Explained


class Choice(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Output: an own batch was decided."""

    number: int
    """The batch's number."""
    instance: tuple[ReplicaId, Slot] | None
    """Where it had been proposed; None: a leader elsewhere had it."""
    path: int
    """`Path` by which it was decided."""


class StepOutcome(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """All that came out of a step, in a form that can be compared."""

    records: list[Said]
    """To the log."""
    must_sync: bool
    """Whether nothing might leave before a sync."""
    messages: list[tuple[Target, Said]]
    answers: list[TraceAnswer]
    """To clients."""
    choices: list[Choice]
    """Own batches decided."""
    deadline: Micros | None
    """When the node wants to be woken next."""


class TraceStep(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """One turn of the driver: inputs, then `take`."""

    now: Micros
    """When it began, on the machine's monotonic clock; the node was told this time throughout."""
    inputs: list[Input]
    """In order."""
    outcome: StepOutcome | None
    """None: it was not finished; the replica failed in it."""
    sent_us: int | None
    """From `now` until messages might leave, what they rely on being on disk; None: none left."""
    took_us: int | None
    """From `now` until everything was on disk, sent and answered; None: it never was."""


class TraceEnd(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """The recording ended here, in order."""

    why: str
    """`closed`: the replica stopped or failed. Otherwise a sentence; the replica went on."""


CLOSED: Final = "closed"


def said(thing: msgspec.Struct) -> Said:
    """What a trace keeps of a message, record or results."""
    return said_bytes(type(thing).__name__, encode(thing))


def said_bytes(kind: str, body: bytes) -> Said:
    """What a trace keeps of encoded bytes."""
    if len(body) <= SAID_BYTES_MAX:
        return body
    return Digest(kind, len(body), crc32(body))


class Waiters:
    """Numbers those who wait for answers, so that a trace can name them."""

    def __init__(self) -> None:
        self._last = 0
        self._open: dict[Hashable, tuple[int, int]] = {}
        """Number, and how many commands are unanswered."""

    def add(self, waiter: Hashable, commands: int) -> int:
        """A number for a new waiter."""
        self._last += 1
        self._open[waiter] = (self._last, commands)
        return self._last

    def settle(self, answer: Reply | Refusal | QuestionReply) -> int:
        """The number of whoever gets an answer; forgotten with the last one."""
        number, left = self._open[answer.waiter]
        if isinstance(answer, Reply):
            left -= answer.results.count
        elif isinstance(answer, Refusal):
            left -= answer.count
        else:
            left = 0
        if left > 0:
            self._open[answer.waiter] = (number, left)
        else:
            del self._open[answer.waiter]
        return number


def outcome_of(ready: NodeReady, waiters: list[int], deadline: Micros | None) -> StepOutcome:
    """What came out of a node. `waiters`: per reply, the number of its waiter."""
    return StepOutcome(
        [said(record) for record in ready.log],
        ready.must_sync,
        [(target, said(message)) for target, message in ready.messages],
        [_answer_of(reply, waiter) for reply, waiter in zip(ready.replies, waiters)],
        [Choice(each.number, each.instance, int(each.path)) for each in ready.flights],
        deadline,
    )


def _answer_of(reply: Reply | Refusal | QuestionReply, waiter: int) -> TraceAnswer:
    if isinstance(reply, Reply):
        return Answered(waiter, reply.offset, said(reply.results), int(reply.flight.path))
    if isinstance(reply, Refusal):
        error = reply.error
        return Refused(
            waiter, reply.offset, reply.count, isinstance(error, Definite), reply.code, str(error)
        )
    document = None
    if reply.document is not None:
        document = said_bytes("document", msgspec.json.encode(reply.document))
    return Explained(waiter, document, None if reply.error is None else str(reply.error))


def columns_of(request: Request, waiter: int) -> CommandColumns:
    """A request as it is kept."""
    _, operations, keys, arguments, deadline = request
    return CommandColumns(waiter, operations, keys, arguments, deadline)


def request_of(columns: CommandColumns) -> Request:
    """The request again; its waiter is the number."""
    return Request(
        columns.waiter, columns.operations, columns.keys, columns.arguments, columns.deadline
    )


def asked_of(question: Question, waiter: int) -> Asked:
    """A question as it is kept."""
    if isinstance(question, AskInstance):
        return Asked(waiter, "instance", list(question.instance))
    if isinstance(question, AskGraph):
        return Asked(waiter, "graph", [question.limit])
    if isinstance(question, AskTransfer):
        return Asked(waiter, "transfer", [question.target])
    return Asked(waiter, "keys" if isinstance(question, AskKeys) else "status", [])


def question_of(asked: Asked) -> Question:
    """The question again."""
    if asked.kind == "instance":
        return AskInstance(InstanceId(*asked.operands))
    if asked.kind == "graph":
        return AskGraph(*asked.operands)
    if asked.kind == "transfer":
        return AskTransfer(*asked.operands)
    return AskKeys() if asked.kind == "keys" else AskStatus()


TraceFrame: TypeAlias = Header | Restored | TraceStep | TraceEnd
_decoder: Final[msgspec.msgpack.Decoder[TraceFrame]] = msgspec.msgpack.Decoder(TraceFrame)


class TraceReader:
    """Reads a trace front to back.

    Iterate `records`, then `steps`, each once; afterwards `end`, `torn` and `damage` say how it
    ends."""

    def __init__(self, name: str, data: Any) -> None:
        """`data` is anything with a buffer: bytes, or a mapped file. Raises StorageError if it
        cannot be a trace of this version."""
        self.name = name
        self._data = memoryview(data)
        self.end: str | None = None
        """`TraceEnd.why`; None: it never ended, so the replica was killed, or runs still."""
        self.torn: str | None = None
        """Set when the last frame is incomplete: the write that a kill interrupted was cut."""
        self.damage: str | None = None
        """Set when what follows is not what was written; nothing behind it was read."""
        self._check_magic()
        self._at = len(MAGIC)
        first = self._next()
        if not isinstance(first, Header):
            why = self.damage or self.torn or f"trace {name}: byte {len(MAGIC)} has no header"
            raise StorageError(f"{why}. Without its header nothing can be replayed")
        if first.version != PROTOCOL_VERSION:
            raise StorageError(
                f"trace {name}: its messages have version {first.version}, this is version "
                f"{PROTOCOL_VERSION}; replay it with the version that recorded it"
            )
        self.header = first
        self._ahead: TraceStep | TraceEnd | None = None

    def records(self) -> Iterator[bytes]:
        """Encoded records that the log held; to be iterated before `steps`."""
        while isinstance(frame := self._next(), Restored):
            yield from frame.records
        if isinstance(frame, TraceStep | TraceEnd):
            self._ahead = frame

    def steps(self) -> Iterator[TraceStep]:
        """Every step, front to back."""
        frame: object = self._ahead or self._next()
        self._ahead = None
        while isinstance(frame, TraceStep):
            yield frame
            frame = self._next()
        if isinstance(frame, TraceEnd):
            self.end = frame.why
        elif frame is not None:
            self.damage = f"trace {self.name}: a {type(frame).__name__} stands amid the steps"

    def _check_magic(self) -> None:
        start = bytes(self._data[: len(MAGIC)])
        if start[:-1] != MAGIC[:-1] or len(start) < len(MAGIC):
            raise StorageError(f"trace {self.name}: byte 0 does not begin a trace")
        if start != MAGIC:
            raise StorageError(
                f"trace {self.name} has format {start[-1]}, this version reads format {FORMAT}; "
                "replay it with the version that recorded it"
            )

    def _next(self) -> TraceFrame | None:
        at, size = self._at, len(self._data)
        if at == size or self.end is not None:
            return None
        start = at + FRAME_HEADER.size
        length, crc = FRAME_HEADER.unpack_from(self._data, at) if start <= size else (size, 0)
        if length > size - start:
            self.torn = (
                f"trace {self.name}: the frame at byte {at} is not complete; the last "
                f"{size - at} bytes are left out"
            )
            return None
        body = self._data[start : start + length]
        try:
            if crc32(body) != crc:
                raise msgspec.DecodeError("its checksum does not match")
            frame = _decoder.decode(body)
        except UNDECODABLE as error:
            self.damage = (
                f"trace {self.name} is damaged at byte {at}: {error}; the {size - at} bytes from "
                "there on are left out"
            )
            return None
        self._at = start + length
        return frame


def decode_said(codec: Codec, thing: Said, what: str) -> Message | Record | Digest:
    """A `message` or a `record` again; of a long one only its digest. Raises CodecError."""
    if isinstance(thing, Digest):
        return thing
    return codec.decode_message(thing) if what == "message" else codec.decode_record(thing)
