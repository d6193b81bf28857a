"""Links between replicas.

Each ordered pair of replicas has its own connection, dialled by the sender, which then only writes.
It begins with a hello in both directions that says who speaks and under which settings; what does
not fit is refused with both values. From then on the link *is* the sender's identity: no message
says who sent it.

    sender    connect, LinkHello ───────▶  receiver   checks it
              checks it  ◀─────────────── LinkHello, or LinkRefusal and the end
              LinkProof  ────────────────▶            checks it, remembers the sender's life (R11)
              frames: stamp (only when delays are emulated), message, message, ...

A hello says which life of the other its speaker remembers. Who cannot find that life among its own
has forgotten it, and ends, for good (`epaxos.core.lineage`); who can shows its nonce, the receiver
in its hello, the sender in its proof.

Rules of this file: nothing waits for a peer. What cannot be sent now (no link, or more than
`QUEUE_BYTES_MAX` unsent) is dropped and counted; the protocols retransmit. One write per link and
tick; a broadcast is encoded once. Before the hello at most `HELLO_BYTES_MAX` bytes are taken, and
behind it a peer is not read while more of it waits here than should (`Receiver.has_room`, and a
full delay line): TCP tells it so.
"""

import asyncio
import random
import socket
from collections.abc import Callable, Iterable
from typing import Final, cast
from zlib import crc32

import msgspec
import structlog

from epaxos.codec import FRAME_BYTES_MAX, FRAME_HEADER, Codec, encode_frame
from epaxos.core.errors import CodecError, EpaxosError, StorageError
from epaxos.core.lineage import descends, judge_life
from epaxos.core.replica import EVERYONE, Message
from epaxos.core.types import ReplicaId, replica_name
from epaxos.runtime.alarm import clock
from epaxos.runtime.backlog import Receiver
from epaxos.runtime.delay import DelayLines
from epaxos.runtime.framing import FrameBuffer
from epaxos.runtime.greeting import (
    Greeting,
    LinkHello,
    LinkProof,
    LinkRefusal,
    decode_greeting,
    judge_hello,
    say_verdict,
)
from epaxos.runtime.identity import DataDirectory, MemoryIdentity

QUEUE_BYTES_MAX: Final = 64 * 1024 * 1024
"""Unsent bytes per peer; what would exceed it is dropped."""
HELLO_BYTES_MAX: Final = 4096
HELLO_DEADLINE_S: Final = 5.0
PENDING_MAX: Final = 64
"""Connections that have not said who they are; beyond it, new ones are closed."""
BACKOFF_S: Final = (0.05, 1.0)
"""First and longest wait before dialling again; doubled each time, jittered."""
_USER_TIMEOUT_MS: Final = 10_000
"""How long the kernel keeps trying to deliver to a peer that vanished."""
_STAMP: Final = 0xC1
"""First byte of a stamp's body: the one byte that no MessagePack value begins with."""

log = structlog.get_logger()


class Inbound(asyncio.BufferedProtocol):
    """The receiving end of a link."""

    def __init__(self, transport: "Transport") -> None:
        self._owner = transport
        self._buffer = FrameBuffer(HELLO_BYTES_MAX)
        self._deadline: asyncio.TimerHandle | None = None
        self._stamp = 0
        self._hello: LinkHello | None = None
        self.source: ReplicaId | None = None
        """Who sends; None before the proof."""
        self.wire: asyncio.Transport | None = None
        self.is_paused = False
        """Whether the peer is not read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.wire = cast("asyncio.Transport", transport)
        self._deadline = self._owner.loop.call_later(
            HELLO_DEADLINE_S, self.refuse, "no hello came in time"
        )
        self._owner.accept(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer.space()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            bodies = self._buffer.cut(nbytes)
            while bodies and self.source is None and self.wire is not None:
                self._greet(decode_greeting(bodies.pop(0)))
            if bodies and self.source is not None:
                self._receive(self.source, bodies)
        except CodecError as error:
            self._owner.malformed += 1
            self.refuse(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self.wire = None
        self._owner.forget(self)

    def pause(self) -> None:
        """Do not read the peer for a while."""
        if self.wire is not None and not self.is_paused:
            self.is_paused = True
            self.wire.pause_reading()

    def resume(self) -> None:
        """Read the peer again."""
        if self.wire is not None and self.is_paused:
            self.is_paused = False
            self.wire.resume_reading()

    def refuse(self, why: str) -> None:
        """Close the link, and say why in the log."""
        if self.wire is not None:
            log.warning(
                "peer link closed", source=self.name, why=why, address=_address_of(self.wire)
            )
            self.wire.abort()

    @property
    def name(self) -> str:
        """The peer's letter, or a question mark before its hello."""
        return "?" if self.source is None else replica_name(self.source)

    def _greet(self, said: Greeting) -> None:
        """A frame before the link is up: the hello, then the proof."""
        if isinstance(said, LinkHello) and self._hello is None:
            self._hello = said
            if self._answer(said, self._owner.welcome(said)):
                # Messages may follow the proof at once.
                self._buffer.limit = FRAME_BYTES_MAX
        elif isinstance(said, LinkProof) and self._hello is not None:
            self._owner.check_proof(self._hello, said)
            if self._deadline is not None:
                self._deadline.cancel()
            self.source = self._hello.replica
            self._owner.adopt(self, self.source)
        else:
            raise CodecError(f"a {type(said).__name__} came where it does not belong")

    def _answer(self, hello: LinkHello, answer: LinkHello | LinkRefusal) -> bool:
        """Answer the hello; False if the link ends with it."""
        assert self.wire is not None
        self.wire.write(encode_frame(answer))
        if isinstance(answer, LinkHello):
            return True
        log.warning(
            "peer refused",
            source=hello.replica,
            why=answer.detail,
            address=_address_of(self.wire),
        )
        self.wire.close()
        self.wire = None
        return False

    def _receive(self, source: ReplicaId, bodies: list[memoryview]) -> None:
        owner = self._owner
        decode = owner.codec.decode_message
        messages: list[Message] = []
        size = 0
        for body in bodies:
            if len(body) == 9 and body[0] == _STAMP:
                if messages:
                    owner.receive(source, self._stamp, messages, size)
                    messages, size = [], 0
                self._stamp = int.from_bytes(body[1:], "little")
            else:
                messages.append(decode(body))
                size += len(body)
        if messages:
            owner.receive(source, self._stamp, messages, size)


class Outbound(asyncio.Protocol):
    """The sending end of a link: dials, says hello, and takes what there is to send."""

    def __init__(self, owner: "Transport", peer: ReplicaId, address: tuple[str, int]) -> None:
        self._owner = owner
        self._peer = peer
        self._address = address
        self._buffer = bytearray()
        self._answer: asyncio.Future[Greeting] | None = None
        self._lost: asyncio.Future[None] | None = None
        self._wire: asyncio.Transport | None = None
        self.ready = False
        """Whether the peer has accepted this life of ours."""
        self.parts: list[bytes] = []
        """Frames of the tick under way."""
        self.bytes = 0
        self.messages = 0
        self.dropped = 0
        """Messages that could not be sent."""
        self.reconnects = -1
        """How often the link came back."""
        self.refusal = ""
        """Why the peer does not talk to us, if it said so."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._answer is None or self._answer.done():
            self._close()
            return
        try:
            size = len(self._buffer)
            if size >= FRAME_HEADER.size:
                length, _ = FRAME_HEADER.unpack_from(self._buffer)
                if length > HELLO_BYTES_MAX:
                    raise CodecError(f"a hello announces {length} bytes")
                if size >= FRAME_HEADER.size + length:
                    self._answer.set_result(
                        decode_greeting(memoryview(self._buffer)[8 : 8 + length])
                    )
        except CodecError as error:
            self._answer.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ready = False
        self._wire = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError("the peer closed the link"))
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(None)

    def flush(self, stamp: bytes) -> None:
        """Write what this tick has for the peer, or drop and count it."""
        parts = self.parts
        wire = self._wire
        data = stamp + b"".join(parts) if self.ready and wire is not None else b""
        unsent = self.unsent
        # What a step says is never too much for an empty queue.
        if wire is None or not data or (unsent and unsent + len(data) > QUEUE_BYTES_MAX):
            self.dropped += len(parts)
        else:
            self.messages += len(parts)
            self.bytes += len(data)
            wire.write(data)
        parts.clear()

    @property
    def unsent(self) -> int:
        """Bytes that wait for the peer to read."""
        return 0 if self._wire is None else self._wire.get_write_buffer_size()

    async def run(self) -> None:
        """Keep the link up, for ever."""
        wait, longest = BACKOFF_S
        while True:
            try:
                await self._connect()
                wait = BACKOFF_S[0]
                assert self._lost is not None
                await self._lost
                log.warning("peer link lost", peer=replica_name(self._peer))
            except (OSError, CodecError, TimeoutError) as error:
                self._explain(str(error) or type(error).__name__)
            finally:
                self.ready = False
                self._close()
            await asyncio.sleep(wait * self._owner.random.uniform(0.5, 1.5))
            wait = min(wait * 2, longest)

    async def _connect(self) -> None:
        loop = self._owner.loop
        self._answer, self._lost = loop.create_future(), loop.create_future()
        self._buffer.clear()
        async with asyncio.timeout(HELLO_DEADLINE_S):
            wire, _ = await loop.create_connection(lambda: self, *self._address)
            _tune(wire)
            wire.write(encode_frame(self._owner.hello_to(self._peer)))
            answer = await self._answer
        if isinstance(answer, LinkRefusal):
            self.refusal = answer.detail
            self._owner.was_refused(self._peer, answer)
            raise ConnectionRefusedError(f"refused: {answer.detail}")
        if not isinstance(answer, LinkHello):
            raise CodecError("a proof came where a hello belongs")
        fault = self._owner.judge(answer, self._peer)
        if fault is not None:
            self.refusal = fault
            raise ConnectionRefusedError(fault)
        wire.write(encode_frame(LinkProof(answer.remembered_nonce)))
        self.ready = True
        self.refusal = ""
        self.reconnects += 1
        log.info("peer link up", peer=replica_name(self._peer), boot=answer.boot)
        self._owner.link_changed()

    def _explain(self, why: str) -> None:
        if why != self.refusal or not why:
            say = log.warning if why.startswith("refused") else log.info
            say("peer not reachable", peer=replica_name(self._peer), why=why)
        self.refusal = why

    def _close(self) -> None:
        if self._wire is not None:
            self._wire.abort()


class Transport:
    """All links of one replica."""

    def __init__(
        self,
        me: LinkHello,
        addresses: list[tuple[str, int]],
        codec: Codec,
        identity: DataDirectory | MemoryIdentity,
        receiver: Receiver,
        fail: Callable[[BaseException], None],
        *,
        lines: DelayLines | None,
        seed: str,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.codec = codec
        self.random = random.Random(seed)
        self.lines = lines
        self.malformed = 0
        """Connections closed because of what they sent."""
        self.sent: dict[type[Message], list[int]] = {}
        """Per class of message: how many left for peers, and their bytes."""
        self.received: dict[type[Message], int] = {}
        self.link_changed: Callable[[], None] = lambda: None
        """Called when a link came up."""
        self._me = me
        self._identity = identity
        self._receiver = receiver
        self._backlog = receiver.backlog
        self._backlog.drained = self._drained
        if lines is not None:
            lines.drained = self._drained
        self.pauses: dict[ReplicaId, int] = {}
        """How often each peer was not read for a while, since too much of it waited here."""
        self._fail = fail
        self._inbound: dict[ReplicaId, Inbound] = {}
        self._pending: dict[Inbound, None] = {}
        self.outbound = {
            peer: Outbound(self, peer, address)
            for peer, address in enumerate(addresses)
            if peer != me.replica
        }
        self._links = tuple(self.outbound.values())
        self._tasks: list[asyncio.Task[None]] = []
        self._server: asyncio.Server | None = None

    async def start(self, listener: socket.socket) -> None:
        """Accept links on a bound socket, and dial all peers."""
        self._server = await self.loop.create_server(lambda: Inbound(self), sock=listener)
        for link in self._links:
            task = self.loop.create_task(link.run())
            task.add_done_callback(self._supervise)
            self._tasks.append(task)

    async def close(self) -> None:
        """End all links."""
        for task in self._tasks:
            task.remove_done_callback(self._supervise)
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            self._server.close()
        for link in [*self._pending, *self._inbound.values()]:
            if link.wire is not None:
                link.wire.abort()
        if self.lines is not None:
            self.lines.close()

    def send(self, messages: Iterable[tuple[ReplicaId, Message]]) -> None:
        """Everything of one tick, in order."""
        links, outbound, sent = self._links, self.outbound, self.sent
        for target, message in messages:
            frame = encode_frame(message)
            count = sent.get(type(message))
            if count is None:
                count = sent[type(message)] = [0, 0]
            if target == EVERYONE:
                for link in links:
                    link.parts.append(frame)
                count[0] += len(links)
                count[1] += len(frame) * len(links)
            else:
                outbound[target].parts.append(frame)
                count[0] += 1
                count[1] += len(frame)
        stamp = b""
        if self.lines is not None:
            stamp = encode_stamp(clock())
        for link in links:
            if link.parts:
                link.flush(stamp)

    def receive(self, source: ReplicaId, stamp: int, messages: list[Message], size: int) -> None:
        """From a link: messages of one write of the peer."""
        received = self.received
        for message in messages:
            kind = type(message)
            received[kind] = received.get(kind, 0) + 1
        if self.lines is None:
            self._receiver.deliver(source, messages, size)
        else:
            self.lines.push(source, stamp, messages, size)
        if not self._has_room(source):
            self._pause(source)

    def is_paused(self, peer: ReplicaId) -> bool:
        """Whether a peer is not read, since too much of it waits here."""
        link = self._inbound.get(peer)
        return link is not None and link.is_paused

    def _has_room(self, source: ReplicaId) -> bool:
        lines = self.lines
        return self._backlog.has_room(source) and (lines is None or not lines.lines[source].is_full)

    def _pause(self, source: ReplicaId) -> None:
        link = self._inbound.get(source)
        if link is not None and not link.is_paused:
            link.pause()
            self.pauses[source] = self.pauses.get(source, 0) + 1

    def _drained(self, source: ReplicaId) -> None:
        link = self._inbound.get(source)
        if link is not None and self._has_room(source):
            link.resume()

    def distrust(self, peer: ReplicaId) -> None:
        """A peer sent a message that decodes, and that no correct replica sends."""
        link = self._inbound.get(peer)
        if link is not None:
            self.malformed += 1
            link.refuse("it sent a message with a value that is out of range")

    def linked(self, peer: ReplicaId) -> bool:
        """Whether messages flow in both directions."""
        return self.outbound[peer].ready and peer in self._inbound

    def link_count(self) -> int:
        """How many peers messages flow to and from."""
        return sum(self.linked(peer) for peer in self.outbound)

    def hello_to(self, peer: ReplicaId, shown: str = "") -> LinkHello:
        """What we say of ourselves, and what we remember of the peer."""
        boot, nonce = self._identity.peers.remembered(peer)
        return msgspec.structs.replace(
            self._me, target=peer, remembered_boot=boot, remembered_nonce=nonce, shown=shown
        )

    def accept(self, link: Inbound) -> None:
        """A new connection, not yet known."""
        self._pending[link] = None
        if len(self._pending) > PENDING_MAX:
            link.refuse("too many connections that have not said who they are")

    def forget(self, link: Inbound) -> None:
        """A connection has ended."""
        self._pending.pop(link, None)
        if link.source is not None and self._inbound.get(link.source) is link:
            del self._inbound[link.source]

    def adopt(self, link: Inbound, source: ReplicaId) -> None:
        """A peer has said hello: it replaces the link it had before."""
        self._pending.pop(link, None)
        before = self._inbound.get(source)
        self._inbound[source] = link
        if before is not None and before.wire is not None:
            before.wire.abort()
        if not self._has_room(source):
            self._pause(source)
        self.link_changed()

    def welcome(self, hello: LinkHello) -> LinkHello | LinkRefusal:
        """The answer to a peer's hello."""
        fault = judge_hello(self._me, hello)
        if fault is not None:
            return LinkRefusal("mismatch", fault)
        if not descends(self._identity.lives, hello.remembered):
            # Our own call of that peer brings it to light: it is at the address we were given.
            raise CodecError("the peer remembers a life of this replica that is not known here")
        remembered = self._identity.peers.remembered(hello.replica)
        verdict = judge_life(remembered, hello.life, remembered.nonce)
        if verdict in ("regressed", "twin"):
            return LinkRefusal(verdict, say_verdict(verdict, hello, remembered))
        return self.hello_to(hello.replica, hello.remembered_nonce)

    def check_proof(self, hello: LinkHello, proof: LinkProof) -> None:
        """The sender's life is accepted. Raises CodecError if it is not."""
        fault = self._judge_life(hello, proof.shown)
        if fault is not None:
            raise CodecError(fault)

    def judge(self, answer: LinkHello, peer: ReplicaId) -> str | None:
        """What is wrong with the hello of a peer that we dialled. If it remembers a life of ours
        that this one does not descend from, this life ends."""
        fault = judge_hello(self._me, answer)
        if fault is None and answer.replica != peer:
            fault = f"{replica_name(answer.replica)} answers where {replica_name(peer)} should"
        if fault is not None:
            return fault
        if not descends(self._identity.lives, answer.remembered):
            fault = (
                f"{replica_name(peer)} remembers boot {answer.remembered_boot} of this replica, "
                "which this directory has not lived"
            )
            self._end_lineage(fault)
            return fault
        return self._judge_life(answer, answer.shown)

    def was_refused(self, peer: ReplicaId, refusal: LinkRefusal) -> None:
        """A peer does not talk to us. If it remembers a later or another life, this one ends."""
        if refusal.code in ("regressed", "twin"):
            self._end_lineage(f"{replica_name(peer)} refuses this replica: {refusal.detail}")

    def _end_lineage(self, why: str) -> None:
        """End this life, and have no later one begin from the same directory."""
        why = (
            f"{why}. What an earlier life promised and voted is forgotten here (the directory was "
            'emptied, or is an older copy): replace the replica (docs/operating.md, "lost disk"); '
            "in memory mode a replica starts once in a cluster's life"
        )
        try:
            self._identity.refuse(why)
        except EpaxosError as error:
            self._fail(error)
            return
        self._fail(StorageError(why))

    def _judge_life(self, hello: LinkHello, shown: str) -> str | None:
        """Why a peer's life is not accepted; None: it is, and is remembered from here on."""
        peers = self._identity.peers
        try:
            verdict = peers.judge(hello.replica, hello.life, shown)
        except EpaxosError as error:
            self._fail(error)
            raise CodecError("the peer's life could not be kept") from error
        if verdict in ("known", "newer"):
            return None
        return say_verdict(verdict, hello, peers.remembered(hello.replica))

    def _supervise(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        self._fail(error or RuntimeError("a link's task ended"))


def encode_stamp(sent: int) -> bytes:
    """A frame that says when the frames behind it left."""
    body = bytes((_STAMP,)) + sent.to_bytes(8, "little")
    return FRAME_HEADER.pack(len(body), crc32(body)) + body


def _address_of(wire: asyncio.Transport) -> str:
    return str(wire.get_extra_info("peername"))


def _tune(wire: asyncio.Transport) -> None:
    sock = wire.get_extra_info("socket")
    if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)
