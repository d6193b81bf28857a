"""A store behind the client port without any agreement: what clients are tested against."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from epaxos.codec import (
    PROTOCOL_VERSION,
    ClientAnswer,
    ClientRefusal,
    ClientRequest,
    ServerHello,
    decode_client,
    encode_frame,
    split_frames,
)
from epaxos.core.command import (
    NO_VERSION,
    Operation,
    Results,
    Status,
    Version,
    decode_cas,
)
from epaxos.core.replica import Path


class FakeReplica:
    """Answers commands at once, or as `react` says instead: a frame, `None` for silence, or
    `hang up` to close the connection."""

    def __init__(self, replica: int = 0, cluster: str = "fake", version: int = PROTOCOL_VERSION):
        self.hello = ServerHello(version, cluster, replica, f"region-{replica}")
        self.data: dict[bytes, tuple[bytes, Version]] = {}
        self.slot = 0
        self.requests: list[ClientRequest] = []
        self.asked = asyncio.Event()
        self.connections = 0
        self.react: Callable[[ClientRequest], object] = self.execute
        self.address = ""

    def execute(self, request: ClientRequest) -> ClientAnswer:
        self.slot += 1
        statuses, values, versions = [], [], []
        for i, code in enumerate(request.operations):
            status, value, version = self._apply(
                code, request.keys[i], request.arguments[i], (self.hello.replica, self.slot, i)
            )
            statuses.append(status)
            values.append(value)
            versions.append(version)
        run = Results(self.hello.replica, self.slot, 0, len(statuses), b"", [], [])
        if set(request.operations) != {Operation.PUT}:
            run = Results(
                self.hello.replica, self.slot, 0, len(statuses), bytes(statuses), values, versions
            )
        return ClientAnswer(request.first, run, Path.FAST, 1000, 1500)

    def _apply(
        self, code: int, key: bytes, argument: bytes, mine: Version
    ) -> tuple[Status, bytes, Version]:
        value, version = self.data.get(key, (b"", NO_VERSION))
        if code == Operation.GET:
            return (Status.OK if version != NO_VERSION else Status.MISSING), value, version
        if code == Operation.DELETE:
            found = self.data.pop(key, None)
            return (Status.OK if found else Status.MISSING), b"", version
        new: bytes | None = argument
        if code == Operation.CAS:
            cas = decode_cas(argument)
            met = {bool: version != NO_VERSION, bytes: value, tuple: version}[type(cas.expect)]
            if met != cas.expect or (version == NO_VERSION and cas.expect is not False):
                return Status.CONFLICT, value, version
            new = cas.value
        if new is None:
            self.data.pop(key, None)
        else:
            self.data[key] = (new, mine)
        return Status.OK, b"", mine

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        buffer = bytearray()
        greeted = False
        while data := await reader.read(65536):
            buffer += data
            bodies, taken = split_frames(buffer, len(buffer))
            frames = [decode_client(bytes(body)) for body in bodies]
            for body in bodies:
                body.release()
            del buffer[:taken]
            for frame in frames:
                if not greeted:
                    greeted = True
                    writer.write(encode_frame(self.hello))
                    continue
                assert isinstance(frame, ClientRequest)
                self.requests.append(frame)
                self.asked.set()
                answer = self.react(frame)
                if answer == "hang up":
                    return
                if isinstance(answer, bytes):
                    writer.write(answer)
                elif answer is not None:
                    writer.write(encode_frame(answer))

    @asynccontextmanager
    async def running(self) -> AsyncIterator["FakeReplica"]:
        async with listening(self.serve) as self.address:
            yield self


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[str]:
    """A server on a port of its own; gives its address, and ends with every connection closed."""
    handlers = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.current_task())
        with suppress(ConnectionError):
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.sleep(0)
        await asyncio.gather(*handlers)


def refuse(definite: bool, code: str) -> Callable[[ClientRequest], ClientRefusal]:
    return lambda request: ClientRefusal(request.first, 1, definite, code, f"because of {code}")
