"""The client port: columns in, columns out.

Frames of one connection that arrived in one tick become one request, answers to it leave in one
write per tick, or in several where they are large. A connection numbers its commands 0, 1, 2, ...;
there is no session: what a client does not know the fate of stays unknown to it.

Rules of this file: a frame that is malformed, too large or out of order closes its connection with
one line in the log. A frame that is invalid is refused alone, whatever it was joined with. Whatever
goes wrong with an answer closes its connection, never the replica. Everything per connection is
bounded: bytes before the hello, commands in flight and bytes of answers (reading pauses), and how
long a client may read nothing (the connection ends).
"""

import asyncio
import socket
from typing import Final, cast

import structlog

from epaxos.codec import (
    FRAME_BYTES_MAX,
    PROTOCOL_VERSION,
    ClientAnswer,
    ClientHello,
    ClientRefusal,
    ClientRequest,
    ServerHello,
    decode_client,
    encode_frame,
)
from epaxos.core.command import Operation
from epaxos.core.errors import CodecError, Definite
from epaxos.core.types import Micros
from epaxos.node.requests import Refusal, Reply, Request
from epaxos.node.runs import fault_of
from epaxos.runtime.driver import Driver
from epaxos.runtime.framing import Arriving, FrameBuffer
from epaxos.runtime.unread import AnswerQueue, UnreadDeadline

KEY_BYTES_MAX: Final = 1024
"""The longest key, on every port."""
HELLO_BYTES_MAX: Final = 4096
HELLO_DEADLINE_S: Final = 10.0
IN_FLIGHT_MAX: Final = 65_536
"""Commands of one connection without an answer; beyond it, the connection is not read."""
UNREAD_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bytes of answers that one connection waits for; beyond it, the connection is not read."""
ARRIVING_BYTES_MAX: Final = 256 * 1024 * 1024
"""Bytes of large frames, or of bodies, that arrive at a port at one time."""
JOINED_BYTES_MAX: Final = 256 * 1024
"""Where more than so many bytes of frames are complete at once, none is joined with another."""
PATIENCE_US_MAX: Final = 3_600_000_000
"""An hour: no request waits longer, whatever its client says."""

_PLAIN_MAX: Final = int(Operation.DELETE)
"""Operations up to this one take any argument."""

log = structlog.get_logger()


class _RequestWaiter:
    """Waits for the commands of one request."""

    __slots__ = ("connection", "first")

    def __init__(self, connection: "ClientConnection", first: int) -> None:
        self.connection = connection
        self.first = first

    def reply(self, reply: Reply, now: Micros) -> None:
        flight = reply.flight
        committed = flight.committed_at or now
        self.connection.answer(
            ClientAnswer(
                self.first + reply.offset,
                reply.results,
                int(flight.path),
                committed - reply.arrived,
                now - reply.arrived,
            )
        )

    def refuse(self, refusal: Refusal) -> None:
        definite = isinstance(refusal.error, Definite)
        self.connection.answer(
            ClientRefusal(
                self.first + refusal.offset,
                refusal.count,
                definite,
                refusal.code,
                str(refusal.error),
            )
        )

    def give_up(self, error: Exception) -> None:
        self.connection.fail(error)


class _JoinedFrames:
    """Consecutive commands with the same patience, on their way into one request.

    What belongs to much that was read at once stays alone: the node may refuse it for its size."""

    __slots__ = ("arguments", "first", "is_open", "keys", "operations", "patience_us")

    def __init__(self, request: ClientRequest, is_open: bool) -> None:
        self.is_open = is_open
        """Whether the next frame may join."""
        self.first = request.first
        self.patience_us = request.patience_us
        self.operations = [request.operations]
        self.keys = request.keys
        self.arguments = request.arguments

    def join(self, request: ClientRequest) -> bool:
        """Take the next frame in, if it fits."""
        if not self.is_open or request.patience_us != self.patience_us:
            return False
        self.operations.append(request.operations)
        self.keys += request.keys
        self.arguments += request.arguments
        return True


class ClientConnection(asyncio.BufferedProtocol):
    """One client."""

    def __init__(self, port: "ClientPort") -> None:
        self._port = port
        self._buffer = FrameBuffer(HELLO_BYTES_MAX, port.arriving)
        self._deadline: asyncio.TimerHandle | None = None
        self._wire: asyncio.Transport | None = None
        self._next = 0
        self._greeted = False
        self._paused = False
        self._joins = True
        """Whether the frames that were just read may be joined."""
        self._columns: list[_JoinedFrames] = []
        self._answers = AnswerQueue()
        self._is_listed = False
        """Whether the port knows that there are answers to write."""
        self._is_full = False
        """Whether the client does not take all that was written."""
        self._unread = UnreadDeadline(self.close)
        self.in_flight = 0
        """Commands whose answer was not written."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast("asyncio.Transport", transport)
        self._deadline = asyncio.get_running_loop().call_later(
            HELLO_DEADLINE_S, self.close, "no hello came in time"
        )
        if not self._port.admit(self):
            self.close("too many connections")

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer.space()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            bodies = self._buffer.cut(nbytes)
            self._joins = self._buffer.taken <= JOINED_BYTES_MAX
            for body in bodies:
                frame = decode_client(body)
                if self._greeted and isinstance(frame, ClientRequest):
                    self._request(frame)
                elif not self._greeted and isinstance(frame, ClientHello):
                    self._hello(frame)
                else:
                    raise CodecError(f"a {type(frame).__name__} came where it does not belong")
        except CodecError as error:
            self.close(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        self._wire = None
        if self._deadline is not None:
            self._deadline.cancel()
        self._unread.cancel()
        self._buffer.close()
        self._columns.clear()
        self._answers.clear()
        self._port.forget(self)

    def pause_writing(self) -> None:
        self._is_full = True
        self._pause()
        if self._wire is not None:
            self._unread.begin(self._wire)

    def resume_writing(self) -> None:
        self._is_full = False
        self._unread.cancel()
        if self._answers:
            self._list()
            self._port.schedule()
        self._resume()

    def close(self, why: str) -> None:
        """End the connection, with a reason in the log."""
        if self._wire is not None:
            peer = self._wire.get_extra_info("peername")
            self._wire.abort()
            log.warning("client connection closed", why=why, address=str(peer))

    def hang_up(self) -> None:
        """End the connection in order: the client has got everything it will get."""
        if self._wire is not None:
            self._wire.close()

    def collect(self, now: Micros, patience_us: Micros) -> list[Request]:
        """Requests that arrived since the last tick."""
        requests = [
            Request(
                _RequestWaiter(self, columns.first),
                b"".join(columns.operations),
                columns.keys,
                columns.arguments,
                now + min(columns.patience_us or patience_us, PATIENCE_US_MAX),
            )
            for columns in self._columns
        ]
        self._columns.clear()
        return requests

    def answer(self, frame: ClientAnswer | ClientRefusal) -> None:
        """Tell the client, with this tick's write if it takes that much."""
        if self._wire is None:
            return
        self._answers.add(frame)
        if not self._is_full:
            self._list()

    def flush(self) -> None:
        """Encode and write answers; only some if they are large, so that others have their turn."""
        self._is_listed = False
        if self._wire is None or self._is_full:
            return
        try:
            data, commands = self._answers.encode()
            self._wire.write(data)
        except Exception as error:
            self._port.count_fault()
            self.fail(error)
            return
        self.in_flight -= commands
        if self._answers:
            if not self._is_full:
                self._list()
            if self._answers.bytes > UNREAD_BYTES_MAX:
                self._pause()
        if self._paused:
            self._resume()

    def fail(self, error: Exception) -> None:
        """An answer cannot be given: the client learns no more, the replica goes on."""
        self._answers.clear()
        self.close(f"an answer could not be given: {error!r}")

    def _list(self) -> None:
        if not self._is_listed:
            self._is_listed = True
            self._port.answered(self)

    def _hello(self, hello: ClientHello) -> None:
        port = self._port
        if hello.version != PROTOCOL_VERSION:
            raise CodecError(
                f"the client speaks version {hello.version}, this replica {PROTOCOL_VERSION}"
            )
        assert self._wire is not None
        self._wire.write(encode_frame(port.hello))
        if hello.cluster not in ("", port.hello.cluster):
            log.warning("client of another cluster", theirs=hello.cluster, ours=port.hello.cluster)
            self._wire.close()
            return
        if self._deadline is not None:
            self._deadline.cancel()
        self._greeted = True
        self._buffer.limit = FRAME_BYTES_MAX

    def _request(self, request: ClientRequest) -> None:
        count = len(request.keys)
        if not count == len(request.operations) == len(request.arguments):
            raise CodecError("a request has columns of different lengths")
        if request.first != self._next or not count:
            raise CodecError(f"a request begins with {request.first}, expected {self._next}")
        if request.patience_us < 0:
            raise CodecError("a request's patience is negative")
        self._next += count
        self.in_flight += count
        if self.in_flight > IN_FLIGHT_MAX:
            self._pause()
        lengths = [*map(len, request.keys)]
        if max(lengths) > KEY_BYTES_MAX or not min(lengths):
            self._refuse(request, "invalid", f"a key must have 1 to {KEY_BYTES_MAX} bytes")
            return
        operations = request.operations
        if operations[0] > _PLAIN_MAX or (count > 1 and max(operations) > _PLAIN_MAX):
            fault = fault_of(operations, request.keys, request.arguments)
            if fault is not None:
                self._refuse(request, "invalid", fault)
                return
        if self._port.draining:
            self._refuse(request, "not-proposed", "this replica is stopping; ask another")
            return
        if not self._columns:
            self._port.requested(self)
        elif self._joins and self._columns[-1].join(request):
            return
        self._columns.append(_JoinedFrames(request, self._joins))

    def _refuse(self, request: ClientRequest, code: str, why: str) -> None:
        count = len(request.keys)
        self._port.count_refusal(code, count)
        if self._columns:
            self._columns[-1].is_open = False  # What comes next is no neighbour of that.
        self.answer(ClientRefusal(request.first, count, True, code, why))
        self._port.schedule()

    def _pause(self) -> None:
        if not self._paused and self._wire is not None:
            self._paused = True
            self._wire.pause_reading()

    def _resume(self) -> None:
        if (
            self._paused
            and self._wire is not None
            and not self._is_full
            and self.in_flight <= IN_FLIGHT_MAX // 2
            and self._answers.bytes <= UNREAD_BYTES_MAX // 2
        ):
            self._paused = False
            self._wire.resume_reading()


class ClientPort:
    """Accepts clients, and is the driver's source of their requests."""

    def __init__(
        self, driver: Driver, hello: ServerHello, patience_us: Micros, connections: int
    ) -> None:
        self.hello = hello
        self.draining = False
        self.arriving = Arriving(ARRIVING_BYTES_MAX)
        self._driver = driver
        self._patience_us = patience_us
        self._connections_max = connections
        self._connections: dict[ClientConnection, None] = {}
        self._requested: list[ClientConnection] = []
        self._answered: list[ClientConnection] = []
        self._is_scheduled = False
        """Whether answers will be written between ticks."""
        self._server: asyncio.Server | None = None
        driver.add_source(self)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    @property
    def in_flight(self) -> int:
        """Commands whose answer was not written."""
        return sum(connection.in_flight for connection in self._connections)

    async def start(self, listener: socket.socket) -> None:
        """Accept on a bound socket."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: ClientConnection(self), sock=listener)

    def drain(self) -> None:
        """Accept no connection and no command any more."""
        self.draining = True
        if self._server is not None:
            self._server.close()

    def close(self) -> None:
        """End all connections."""
        self.drain()
        for connection in list(self._connections):
            connection.hang_up()

    def admit(self, connection: ClientConnection) -> bool:
        """Count a new connection; False beyond the limit."""
        self._connections[connection] = None
        return len(self._connections) <= self._connections_max

    def forget(self, connection: ClientConnection) -> None:
        """A connection has ended."""
        self._connections.pop(connection, None)

    def requested(self, connection: ClientConnection) -> None:
        """A connection has the first request of this tick."""
        self._requested.append(connection)
        self._driver.schedule()

    def answered(self, connection: ClientConnection) -> None:
        """A connection has answers to write."""
        self._answered.append(connection)

    def count_refusal(self, code: str, count: int) -> None:
        """The port refused commands that the node never saw."""
        self._driver.count_refusal(code, count)

    def count_fault(self) -> None:
        """An answer could not be given."""
        self._driver.faults += 1

    def schedule(self) -> None:
        """There are answers to write, and no tick need be near."""
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush_later)

    def collect(self, now: Micros) -> list[Request]:
        requested, self._requested = self._requested, []
        requests: list[Request] = []
        for connection in requested:
            requests += connection.collect(now, self._patience_us)
        return requests

    def flush(self) -> None:
        answered, self._answered = self._answered, []
        for connection in answered:
            connection.flush()
        if self._answered:
            self.schedule()

    def _flush_later(self) -> None:
        self._is_scheduled = False
        self.flush()
