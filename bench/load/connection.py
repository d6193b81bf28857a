"""A connection to a replica's client port, as load generators use it.

Rules of this file: it carries frames; what they mean is its owner's business.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeAlias, cast

from epaxos.codec import (
    FRAME_BYTES_MAX,
    PROTOCOL_VERSION,
    ClientHello,
    ServerHello,
    decode_client,
    encode_frame,
)
from epaxos.core.errors import CodecError
from epaxos.core.types import Micros
from epaxos.percentile import median
from epaxos.runtime.alarm import clock
from epaxos.runtime.framing import FrameBuffer

HOP_PROBES: Final = 20
"""Greetings per replica, for the median of a client's hop."""

OnFrame: TypeAlias = Callable[[Any], None]
"""Takes a ClientAnswer or a ClientRefusal."""


class Connection(asyncio.BufferedProtocol):
    """One client connection; hands each answer on as it comes."""

    def __init__(self, on_frame: OnFrame, on_lost: Callable[[], None] = lambda: None) -> None:
        self.greeted: asyncio.Future[ServerHello] = asyncio.get_running_loop().create_future()
        self.wire: asyncio.Transport | None = None
        self._buffer = FrameBuffer(FRAME_BYTES_MAX)
        self._on_frame = on_frame
        self._on_lost = on_lost

    def close(self) -> None:
        if self.wire is not None:
            self.wire.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.wire = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer.space()

    def buffer_updated(self, nbytes: int) -> None:
        for body in self._buffer.cut(nbytes):
            frame = decode_client(body)
            if not isinstance(frame, ServerHello):
                self._on_frame(frame)
            elif not self.greeted.done():
                self.greeted.set_result(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self.wire = None
        if not self.greeted.done():
            self.greeted.set_exception(CodecError("the replica closed the connection"))
        else:
            self._on_lost()


async def connect(
    port: int,
    on_frame: OnFrame = lambda frame: None,
    make: Callable[[OnFrame], Connection] = Connection,
) -> tuple[Connection, Micros]:
    """A greeted connection, and how long the greeting took. Raises OSError or CodecError."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: make(on_frame), "127.0.0.1", port)
    before = clock()
    if connection.wire is not None:
        connection.wire.write(encode_frame(ClientHello(PROTOCOL_VERSION, "")))
    await connection.greeted
    return connection, clock() - before


async def measure_hop(port: int) -> Micros:
    """Median round trip of a greeting: what lies between client and replica."""
    times = []
    for _ in range(HOP_PROBES):
        connection, took = await connect(port)
        connection.close()
        times.append(took)
        await asyncio.sleep(0.002)
    return median(times) or 0
