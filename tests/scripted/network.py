"""A network of byte streams that does to them what networks do, as a seed says.

Bytes of a stream arrive in order, cut and joined anywhere. A stream takes no more than `WINDOW`
unread bytes: beyond it they wait at the sender. A connection that breaks loses a suffix of what was
under way, in each direction its own, and its two ends learn of it at different times. A blocked
path holds bytes and connection attempts back until it opens, and breaks them after `GIVES_UP_S`.
"""

import asyncio
import contextvars
import errno
import random
from collections import deque

from tests.scripted.loop import HOST, Host

WINDOW = 128 * 1024
"""Bytes that a receiver's system holds for one that does not read."""
HIGH_WATER = 64 * 1024
GIVES_UP_S = 10.0
"""After so long without progress the systems give a connection up."""


class Network:
    """All connections between hosts."""

    def __init__(self, seed: object, latency_us: tuple[int, int] = (50, 2_000)) -> None:
        self.random = random.Random(f"network {seed}")
        self.loop = None
        self.latency_us = latency_us
        self.calm = False
        """Whether chance faults are over."""
        self.breaks = 0.0
        """Chance that a write breaks its connection."""
        self.on_write = lambda host: None
        """Told before a host's bytes leave."""
        self.broken = 0
        """Connections that were broken."""
        self._listeners = {}
        self._blocked: set[tuple[Host, Host]] = set()
        self._streams: dict[Stream, None] = {}

    def listen(self, factory, port: int) -> "Server":
        server = Server(self, factory, port, HOST.get(), contextvars.copy_context())
        self._listeners[port] = server
        return server

    def unlisten(self, server: "Server") -> None:
        if self._listeners.get(server.port) is server:
            del self._listeners[server.port]

    async def connect(self, factory, port: int):
        """A new connection from the host whose code runs. Raises OSError."""
        source = HOST.get()
        await asyncio.sleep(self.latency())
        waited = 0.0
        server = self._listeners.get(port)
        while server is not None and self._is_blocked_between(source, server.host):
            await asyncio.sleep(0.05)
            waited += 0.05
            if waited > GIVES_UP_S:
                raise TimeoutError(errno.ETIMEDOUT, "connection timed out")
            server = self._listeners.get(port)
        if server is None or not server.host.alive:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "connection refused")
        there = server.factory()
        here = factory()
        a = Stream(self, source, here, contextvars.copy_context())
        b = Stream(self, server.host, there, server.context)
        a.other, b.other = b, a
        for end in (a, b):
            self._streams[end] = None
            end.call(end.protocol.connection_made, end)
        # The other end hears of us when our first bytes or its accept arrive; here at once.
        await asyncio.sleep(0)
        return a, here

    def latency(self) -> float:
        low, high = self.latency_us
        return self.random.randint(low, high) / 1e6

    def block(self, a: Host, b: Host) -> None:
        """Hold back what goes from a to b."""
        self._blocked.add((a, b))
        for stream in self.streams(a, b):
            stream.stalled()

    def open(self) -> None:
        """Let everything flow again."""
        self._blocked.clear()
        for stream in list(self._streams):
            stream.pump()

    def is_blocked(self, a: Host, b: Host) -> bool:
        return (a, b) in self._blocked

    def _is_blocked_between(self, a: Host, b: Host) -> bool:
        return self.is_blocked(a, b) or self.is_blocked(b, a)

    def streams(self, a: Host, b: Host) -> list["Stream"]:
        """The sending ends from a to b."""
        return [s for s in self._streams if s.host is a and s.other.host is b]

    def break_between(self, a: Host, b: Host) -> None:
        """Break all connections of two hosts."""
        for stream in self.streams(a, b):
            stream.break_down()

    def vanish(self, host: Host) -> None:
        """A host died: nobody there reads or writes, the others learn of it in time."""
        for server in [s for s in self._listeners.values() if s.host is host]:
            self.unlisten(server)
        for stream in [s for s in self._streams if s.host is host]:
            stream.break_down()

    def forget(self, stream: "Stream") -> None:
        self._streams.pop(stream, None)


class Server:
    """Stands for `asyncio.Server`."""

    def __init__(self, network: Network, factory, port: int, host: Host, context) -> None:
        self.factory = factory
        self.port = port
        self.host = host
        self.context = context
        self.sockets = ()
        self._network = network

    def close(self) -> None:
        self._network.unlisten(self)

    def is_serving(self) -> bool:
        return True

    async def wait_closed(self) -> None:
        """Nothing to wait for."""


class Stream(asyncio.Transport):
    """One end of a connection, and the bytes that leave it."""

    def __init__(self, network: Network, host: Host, protocol, context) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.host = host
        self.protocol = protocol
        self.other: Stream = self
        self._network = network
        self._loop = network.loop
        self._context = context
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._under_way: deque[tuple[float, bytes | None]] = deque()
        """Sent, with the time of arrival; None: the end of the stream."""
        self._under_way_bytes = 0
        self._alarm = None
        self._arrives = 0.0
        self._closing = False
        self._ended = False
        """This end hears and says nothing any more."""
        self._is_reading = True
        self._writing_paused = False
        self._high = HIGH_WATER

    # What a protocol uses ------------------------------------------------------------------------

    def write(self, data) -> None:
        network = self._network
        network.on_write(self.host)
        if self._closing or self._ended or not data:
            return
        if not network.calm and network.breaks and network.random.random() < network.breaks:
            self._put(bytes(data))
            self.break_down()
            return
        self._put(bytes(data))
        if self._unsent_bytes > self._high and not self._writing_paused:
            self._writing_paused = True
            self.protocol.pause_writing()

    def _put(self, data: bytes) -> None:
        self._unsent.append(data)
        self._unsent_bytes += len(data)
        self._send()

    def writelines(self, parts) -> None:
        self.write(b"".join(parts))

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        if self._closing or self._ended:
            return
        self._closing = True
        self._send()
        self._finish_close()

    def abort(self) -> None:
        if self._ended:
            return
        self._unsent.clear()
        self._unsent_bytes = 0
        self._closing = True
        self._under_way.append((self._due(), None))
        self._lose(None)
        self.pump()

    def is_closing(self) -> bool:
        return self._closing or self._ended

    def get_write_buffer_size(self) -> int:
        return self._unsent_bytes

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._high // 4, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = HIGH_WATER if high is None else high

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        self._is_reading = True
        self.other.pump()

    def is_reading(self) -> bool:
        return self._is_reading

    def set_protocol(self, protocol) -> None:
        self.protocol = protocol

    def get_protocol(self):
        return self.protocol

    # What the network does -----------------------------------------------------------------------

    def call(self, callback, *arguments) -> None:
        """Have code of this end's host run."""
        if self.host.alive:
            self._loop.call_soon(self._run, callback, *arguments, context=self._context)

    def _run(self, callback, *arguments) -> None:
        if self.host.alive:
            callback(*arguments)

    def _due(self) -> float:
        self._arrives = max(self._arrives, self._loop.time() + self._network.latency())
        return self._arrives

    def _send(self) -> None:
        """Give the network what the receiver has room for, in pieces of any size."""
        rng = self._network.random
        while self._unsent and self._under_way_bytes < WINDOW:
            data = self._unsent.popleft()
            room = WINDOW - self._under_way_bytes
            most = min(len(data), room)
            size = rng.randint(1, most) if rng.random() < 0.3 else most
            if size < len(data):
                self._unsent.appendleft(data[size:])
            self._unsent_bytes -= size
            self._under_way_bytes += size
            self._under_way.append((self._due(), data[:size]))
        if self._writing_paused and self._unsent_bytes <= self._high // 4 and not self._ended:
            self._writing_paused = False
            self.call(self.protocol.resume_writing)
        self.pump()

    def _finish_close(self) -> None:
        if self._closing and not self._unsent and not self._ended:
            self._under_way.append((self._due(), None))
            self._lose(None)
            self.pump()

    def pump(self) -> None:
        """See to it that what arrives next arrives."""
        if self._alarm is None and self._under_way:
            at = self._under_way[0][0]
            self._alarm = self._loop.call_at(max(at, self._loop.time()), self._arrive)

    def stalled(self) -> None:
        """A block began: given up if it lasts."""
        self._loop.call_later(GIVES_UP_S, self._give_up)

    def _give_up(self) -> None:
        if self._network.is_blocked(self.host, self.other.host) and self._under_way:
            self.break_down()

    def _arrive(self) -> None:
        self._alarm = None
        there = self.other
        if there._ended or self._network.is_blocked(self.host, there.host):
            return
        if not there._is_reading:
            return
        now = self._loop.time()
        parts = []
        joins = self._network.random.random() < 0.7
        while self._under_way and self._under_way[0][0] <= now:
            data = self._under_way[0][1]
            if data is None:
                if not parts:
                    self._under_way.popleft()
                    there.call(there._end_of_stream)
                break
            self._under_way.popleft()
            parts.append(data)
            self._under_way_bytes -= len(data)
            if not joins:
                break
        if parts:
            there.call(there._receive, b"".join(parts))
            self._send()
            self._finish_close()
        if self._ended and not self._under_way:
            self._network.forget(self)
        self.pump()

    def _receive(self, data: bytes) -> None:
        protocol = self.protocol
        if not isinstance(protocol, asyncio.BufferedProtocol):
            if not self._ended:
                protocol.data_received(data)
            return
        view = memoryview(data)
        while view and not self._ended:
            space = protocol.get_buffer(-1)
            count = min(len(space), len(view))
            space[:count] = view[:count]
            protocol.buffer_updated(count)
            view = view[count:]

    def _end_of_stream(self) -> None:
        if not self._ended:
            self.protocol.eof_received()
            self.close()

    def break_down(self) -> None:
        """The connection is gone: of what was under way a prefix arrives, each end learns later."""
        network = self._network
        network.broken += 1
        for end in (self, self.other):
            kept = network.random.randint(0, len(end._under_way))
            while len(end._under_way) > kept:
                end._under_way.pop()
            end._under_way_bytes = sum(len(data or b"") for _, data in end._under_way)
            end._unsent.clear()
            end._unsent_bytes = 0
            end._closing = True
            late = network.random.choice((0.0, 0.001, 0.05, 1.0))
            at = max(end.other._arrives, self._loop.time()) + late + 1e-5
            self._loop.call_at(at, end._lose, ConnectionResetError("connection reset"))

    def _lose(self, error: Exception | None) -> None:
        if self._ended:
            return
        self._ended = True
        if not self._under_way:
            self._network.forget(self)
        self.call(self.protocol.connection_lost, error)
