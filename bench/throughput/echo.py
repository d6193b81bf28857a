"""A server that only reads the client port's frames and answers them: no agreement, no store.

What the same client reaches against it is the ceiling of the machine and of the port in the same
run. `python -m bench.throughput.echo` prints one JSON line with its port, and ends with its
standard input.
"""

import asyncio
import gc
import json
import os
import sys
import time
from typing import cast

from epaxos.codec import (
    FRAME_BYTES_MAX,
    PROTOCOL_VERSION,
    ClientAnswer,
    ClientHello,
    ClientRequest,
    ServerHello,
    decode_client,
    encode_frame,
)
from epaxos.core.command import Results
from epaxos.core.replica import Path
from epaxos.runtime.framing import FrameBuffer


class Echo(asyncio.BufferedProtocol):
    """One connection: an answer per request, as if all of it had been put."""

    def __init__(self) -> None:
        self._buffer = FrameBuffer(FRAME_BYTES_MAX)
        self._wire: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer.space()

    def buffer_updated(self, nbytes: int) -> None:
        answers = []
        first, count = 0, 0
        for body in self._buffer.cut(nbytes):
            frame = decode_client(body)
            if isinstance(frame, ClientRequest):
                first = frame.first if not count else first
                count += len(frame.operations)
            elif isinstance(frame, ClientHello):
                answers.append(encode_frame(ServerHello(PROTOCOL_VERSION, "echo", 0, "echo")))
        if count:
            results = Results(0, 1, 0, count, b"", [], [])
            answers.append(encode_frame(ClientAnswer(first, results, int(Path.FAST), 0, 0)))
        if answers and self._wire is not None:
            self._wire.write(b"".join(answers))


async def serve() -> None:
    """Serve until standard input ends; each line there is answered with the CPU taken so far."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    ended: asyncio.Future[None] = loop.create_future()

    def on_line() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            ended.set_result(None)
            return
        print(json.dumps({"cpu_s": time.process_time()}), flush=True)

    loop.add_reader(sys.stdin.fileno(), on_line)
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    print(json.dumps({"ready": True, "port": server.sockets[0].getsockname()[1]}), flush=True)
    await ended
    server.close()


def main() -> None:
    """Entry point of the echo process."""
    import uvloop

    uvloop.run(serve())


if __name__ == "__main__":
    main()
