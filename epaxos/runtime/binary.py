"""The client port: columns in, columns out.

Frames of one connection that arrived in one tick become one request, answers to it leave in one
write per tick. A connection numbers its commands 0, 1, 2, ...; there is no session: what a client
does not know the fate of stays unknown to it.

Rules of this file: a frame that is malformed, too large or out of order closes its connection with
one line in the log. Everything per connection is bounded: bytes before the hello, commands in
flight (reading pauses), bytes not read by the client (the connection ends).
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
from epaxos.core.errors import CodecError, Definite
from epaxos.core.types import Micros
from epaxos.node.requests import Refusal, Reply, Request
from epaxos.runtime.driver import Driver
from epaxos.runtime.framing import FrameBuffer

KEY_BYTES_MAX: Final = 1024
"""The longest key, on every port."""
HELLO_BYTES_MAX: Final = 4096
HELLO_DEADLINE_S: Final = 10.0
IN_FLIGHT_MAX: Final = 65_536
"""Commands of one connection without an answer; beyond it, the connection is not read."""
UNREAD_BYTES_MAX: Final = 64 * 1024 * 1024
"""Answers that a client does not read; beyond it, its connection ends."""

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
            ),
            reply.results.count,
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
            ),
            refusal.count,
        )


class _JoinedFrames:
    """Consecutive commands with the same patience, on their way into one request."""

    __slots__ = ("arguments", "first", "keys", "operations", "patience_us")

    def __init__(self, request: ClientRequest) -> None:
        self.first = request.first
        self.patience_us = request.patience_us
        self.operations = [request.operations]
        self.keys = request.keys
        self.arguments = request.arguments

    def join(self, request: ClientRequest) -> bool:
        """Take one more frame in, if it fits."""
        if request.patience_us != self.patience_us:
            return False
        self.operations.append(request.operations)
        self.keys += request.keys
        self.arguments += request.arguments
        return True


class ClientConnection(asyncio.BufferedProtocol):
    """One client."""

    def __init__(self, port: "ClientPort") -> None:
        self._port = port
        self._buffer = FrameBuffer(HELLO_BYTES_MAX)
        self._deadline: asyncio.TimerHandle | None = None
        self._wire: asyncio.Transport | None = None
        self._next = 0
        self._greeted = False
        self._paused = False
        self._columns: list[_JoinedFrames] = []
        self._parts: list[bytes] = []
        self.in_flight = 0
        """Commands without an answer."""

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
            for body in self._buffer.cut(nbytes):
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
        self._columns.clear()
        self._parts.clear()
        self._port.forget(self)

    def pause_writing(self) -> None:
        self._pause()

    def resume_writing(self) -> None:
        self._resume()

    def close(self, why: str) -> None:
        """End the connection, with a reason in the log."""
        if self._wire is not None:
            peer = self._wire.get_extra_info("peername")
            log.warning("client connection closed", why=why, address=str(peer))
            self._wire.abort()

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
                now + (columns.patience_us or patience_us),
            )
            for columns in self._columns
        ]
        self._columns.clear()
        return requests

    def answer(self, frame: ClientAnswer | ClientRefusal, count: int) -> None:
        """Put an answer into this tick's write."""
        self.in_flight -= count
        if self._wire is None:
            return
        if not self._parts:
            self._port.answered(self)
        self._parts.append(encode_frame(frame))

    def flush(self) -> None:
        """Write this tick's answers."""
        if self._wire is None:
            return
        self._wire.write(b"".join(self._parts))
        self._parts.clear()
        if self._wire.get_write_buffer_size() > UNREAD_BYTES_MAX:
            self.close("the client does not read its answers")
        elif self._paused:
            self._resume()

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
        lengths = [*map(len, request.keys)]
        if max(lengths) > KEY_BYTES_MAX or not min(lengths):
            why = f"a key must have 1 to {KEY_BYTES_MAX} bytes"
            self.answer(ClientRefusal(request.first, count, True, "invalid", why), count)
            self._port.schedule()
            return
        if self._port.draining:
            why = "this replica is stopping; ask another"
            self.answer(ClientRefusal(request.first, count, True, "not-proposed", why), count)
            self._port.schedule()
            return
        if not self._columns:
            self._port.requested(self)
        if not self._columns or not self._columns[-1].join(request):
            self._columns.append(_JoinedFrames(request))
        if self.in_flight > IN_FLIGHT_MAX:
            self._pause()

    def _pause(self) -> None:
        if not self._paused and self._wire is not None:
            self._paused = True
            self._wire.pause_reading()

    def _resume(self) -> None:
        wire = self._wire
        if self._paused and wire is not None and self.in_flight <= IN_FLIGHT_MAX // 2:
            _, high = wire.get_write_buffer_limits()
            if wire.get_write_buffer_size() <= high:
                self._paused = False
                wire.resume_reading()


class ClientPort:
    """Accepts clients, and is the driver's source of their requests."""

    def __init__(
        self, driver: Driver, hello: ServerHello, patience_us: Micros, connections: int
    ) -> None:
        self.hello = hello
        self.draining = False
        self._driver = driver
        self._patience_us = patience_us
        self._connections_max = connections
        self._connections: dict[ClientConnection, None] = {}
        self._requested: list[ClientConnection] = []
        self._answered: list[ClientConnection] = []
        self._server: asyncio.Server | None = None
        driver.add_source(self)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    @property
    def in_flight(self) -> int:
        """Commands without an answer."""
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
        """A connection has the first answer of this tick."""
        self._answered.append(connection)

    def schedule(self) -> None:
        """An answer was given without the node: have it written."""
        asyncio.get_running_loop().call_soon(self.flush)

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
