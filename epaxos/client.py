"""Clients of the binary port: `EPaxosClient` for asyncio, `Client` for everybody else.

    async with EPaxosClient(["10.0.0.1:7101", "10.1.0.1:7101"]) as client:
        written = await client.put("x", "1")
        await client.cas("x", expect=written.version, value="2")      # or PreconditionFailed
        found = await client.get("x")                                 # KV, or None

Addresses are given nearest first. Another one is tried only while it is certain that nothing has
happened yet, or for a read, which may be asked twice; addresses that failed are asked last for a
while.

Rules of this file: an unknown fate never becomes a definite one. Once a command has been handed to
the operating system, a lost connection or a deadline means `Ambiguous`, whatever else may be
likely. Knows nothing of replicas beyond the client structs of `epaxos.codec`.
"""

# ruff: noqa: ASYNC109 - a deadline per call is what users of a store expect

import asyncio
import threading
from collections.abc import Coroutine, Iterable
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeAlias, TypeVar

from epaxos.codec import (
    PROTOCOL_VERSION,
    ClientAnswer,
    ClientHello,
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
    Status,
    Version,
    encode_cas,
    format_version,
    oversize,
)
from epaxos.core.errors import Ambiguous, CodecError, ConfigError, Definite
from epaxos.core.numbers import cut, parse_whole
from epaxos.core.replica import Path
from epaxos.core.types import InstanceId

TIMEOUT_S: Final = 5.0
"""How long a call may take, all attempts together, unless it says otherwise."""

CONNECT_TIMEOUT_S: Final = 1.0
"""How long one address may take to accept a connection and to say hello."""

AVOID_S: Final = 3.0
"""For so long an address that failed is asked only after all others."""

_PATIENCE_S_MAX: Final = 3600.0
"""No replica lets a request wait longer."""

Text: TypeAlias = bytes | str
"""Keys and values; a str is encoded as UTF-8."""

_T = TypeVar("_T")


class Unavailable(Definite):
    """Nobody took the command: it did not and will not happen, and may be tried again."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code
        """`unreachable`: no address took it; `no-answer`: a read was not answered; otherwise the
        replica's word, like `overloaded`."""


class InvalidArgument(Definite):
    """The replica refuses this command for what it is; trying again does not help."""


class PreconditionFailed(Definite):
    """A compare-and-set met something else than it expected, and changed nothing."""

    def __init__(self, message: str, current: "KV | None") -> None:
        super().__init__(message)
        self.current = current
        """What the key holds instead; None: it has no value."""


class KV(NamedTuple):
    """A key with the value it holds and the write that made it."""

    key: bytes
    value: bytes
    version: Version
    """Names the write, for ever; `epaxos.core.command.format_version` prints it."""


class Answer(NamedTuple):
    """All that a replica said about one executed command."""

    status: Status
    value: bytes
    """What a GET found, or what a CAS in conflict met; otherwise empty."""
    version: Version
    """The version written, found, removed or met; NO_VERSION where there is none."""
    instance: InstanceId
    """The instance that carried the command."""
    path: Path
    commit_us: int
    """From arrival at the replica until an answer could have left if answers left at commit."""
    execute_us: int
    """From arrival at the replica until the answer left."""
    replica: int
    """Who answered."""
    region: str
    """Where it is."""


class _NotSent(Exception):
    """An attempt ended before anything left this process. The message says why."""


class _Link(asyncio.Protocol):
    """One connection: numbers commands, matches answers. Commands of one tick leave together."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._unsent: list[bytes] = []
        self._next = 0
        self._sent = 0
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self.hello: asyncio.Future[ServerHello] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.failure = "it closed the connection"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def greet(self, cluster: str) -> None:
        """Send the first frame of the connection."""
        assert self._transport is not None
        self._transport.write(encode_frame(ClientHello(PROTOCOL_VERSION, cluster)))

    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(
        self, operation: Operation, key: bytes, argument: bytes, patience_us: int
    ) -> asyncio.Future[Answer]:
        """Number a command and let it leave with this tick."""
        number = self._next
        self._next += 1
        request = ClientRequest(number, patience_us, bytes((operation,)), [key], [argument])
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(encode_frame(request))
        future = self._waiting[number] = self._loop.create_future()
        # Who stopped waiting does not want to hear that nobody retrieved the exception.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return future

    def _flush(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        frames, self._unsent = self._unsent, []
        self._sent = self._next
        self._transport.write(b"".join(frames))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            bodies, taken = split_frames(self._buffer, len(self._buffer))
            for body in bodies:
                with body:
                    frame = decode_client(body)
                self._take(frame)
        except (CodecError, ValueError) as error:  # ValueError: a code that we do not know
            self.close(f"it does not speak the client protocol ({error})")
            return
        del self._buffer[:taken]

    def _take(self, frame: object) -> None:
        if not self.hello.done():
            if isinstance(frame, ServerHello):
                self.hello.set_result(frame)
            elif isinstance(frame, ClientRefusal):
                self.close(frame.detail)
            else:
                raise CodecError(f"{type(frame).__name__} came before ServerHello")
        elif isinstance(frame, ClientAnswer):
            self._take_answer(frame, self.hello.result())
        elif isinstance(frame, ClientRefusal):
            error = _error_of(frame)
            for number in range(frame.first, frame.first + frame.count):
                self._fail(number, error)
        else:
            raise CodecError(f"{type(frame).__name__} is not for a client")

    def _take_answer(self, answer: ClientAnswer, server: ServerHello) -> None:
        results = answer.results
        columns = (results.statuses, results.values, results.versions)
        bare = not any(columns)
        if not bare and any(len(column) != results.count for column in columns):
            raise CodecError("an answer has columns of different lengths")
        instance = InstanceId(results.replica, results.slot)
        for i in range(results.count):
            future = self._waiting.pop(answer.first + i, None)
            if future is None or future.done():
                continue
            if bare:
                found = (Status.OK, b"", (results.replica, results.slot, results.index + i))
            else:
                found = (Status(results.statuses[i]), results.values[i], results.versions[i])
            future.set_result(
                Answer(
                    *found,
                    instance,
                    Path(answer.path),
                    answer.commit_us,
                    answer.execute_us,
                    server.replica,
                    server.region,
                )
            )

    def _fail(self, number: int, error: Exception) -> None:
        future = self._waiting.pop(number, None)
        if future is not None and not future.done():
            future.set_exception(error)

    def close(self, reason: str) -> None:
        """Drop the connection; what waits fails as if it had been lost."""
        self.failure = reason
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self.failure = str(error)
        if not self.hello.done():
            self.hello.set_exception(_NotSent(self.failure))
            self.hello.exception()
        for number in list(self._waiting):
            self._fail(
                number,
                Ambiguous(f"the connection was lost before an answer: {self.failure}")
                if number < self._sent
                else _NotSent(self.failure),
            )
        self.closed.set_result(None)


def _error_of(refusal: ClientRefusal) -> Ambiguous | Definite:
    if not refusal.definite:
        return Ambiguous(refusal.detail)
    if refusal.code == "invalid":
        return InvalidArgument(refusal.detail)
    return Unavailable(refusal.detail, refusal.code)


class _Endpoint:
    """One address and the connection to it, if there is one."""

    def __init__(self, address: str, cluster: str) -> None:
        self.address = address
        self._host, self._port = parse_address(address)
        self._cluster = cluster
        self._link: _Link | None = None
        self._connecting = asyncio.Lock()
        self.avoid_until = 0.0

    async def link(self) -> _Link:
        """The open connection, or a new one. Raises _NotSent."""
        async with self._connecting:
            if self._link is None or not self._link.is_open():
                self._link = None
                self._link = await self._connect()
            return self._link

    async def _connect(self) -> _Link:
        loop = asyncio.get_running_loop()
        link: _Link | None = None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, link = await loop.create_connection(_Link, self._host, self._port)
                link.greet(self._cluster)
                self._judge(await asyncio.shield(link.hello))
        except BaseException as error:
            if link is not None:
                link.close("no hello in time")
            if isinstance(error, TimeoutError):
                said = "no hello" if link else "no connection"
                raise _NotSent(f"{said} within {CONNECT_TIMEOUT_S:.0f} s") from None
            if isinstance(error, OSError):
                raise _NotSent(_reason(error)) from None
            raise
        return link

    def _judge(self, server: ServerHello) -> None:
        if server.version != PROTOCOL_VERSION:
            raise _NotSent(
                f"it speaks version {server.version} of the client protocol,"
                f" this client version {PROTOCOL_VERSION}"
            )
        if self._cluster and server.cluster != self._cluster:
            raise _NotSent(f"it belongs to cluster {server.cluster}, not to {self._cluster}")

    async def close(self) -> None:
        if self._link is not None:
            self._link.close("the client was closed")
            await self._link.closed


def _reason(error: OSError) -> str:
    """A short sentence; asyncio's own repeats the address, and joins several with commas."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return error.strerror or str(error)


def parse_address(text: str) -> tuple[str, int]:
    """Read `host:port` or `[ipv6]:port` of a client port. Raises ConfigError with a sentence."""
    if "://" in text:
        raise ConfigError(
            f"address {cut(text)} is a URL; write HOST:PORT of the client port, which is not the "
            "HTTP port, for example 127.0.0.1:7101"
        )
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        if not host:
            raise ValueError("no host")
        return host, parse_whole(port, 1, 65_535)
    except ValueError:
        raise ConfigError(
            f"address {cut(text)} is not host:port with a port from 1 to 65535; write for example "
            "127.0.0.1:7101"
        ) from None


def _octets(text: Text) -> bytes:
    return text.encode() if isinstance(text, str) else bytes(text)


class EPaxosClient:
    """Asynchronous client. Many calls may be under way at once; they share one connection."""

    def __init__(
        self, addresses: Iterable[str], cluster: str | None = None, *, timeout: float = TIMEOUT_S
    ) -> None:
        """`addresses` are `host:port` of client ports, nearest first; `cluster`, if given, is the
        id that a replica must have; `timeout` in seconds holds for calls that name none."""
        self._endpoints = [_Endpoint(address, cluster or "") for address in addresses]
        if not self._endpoints:
            raise ConfigError("addresses is empty; give at least one host:port")
        self._timeout = timeout

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all connections; calls under way become ambiguous."""
        for endpoint in self._endpoints:
            await endpoint.close()

    async def greet(self) -> dict[str, ServerHello | str]:
        """Who is at each address, asked of all at once; or a sentence why nobody is."""

        async def ask(endpoint: _Endpoint) -> ServerHello | str:
            try:
                return (await endpoint.link()).hello.result()
            except _NotSent as error:
                return str(error)

        answers = await asyncio.gather(*map(ask, self._endpoints))
        return {endpoint.address: said for endpoint, said in zip(self._endpoints, answers)}

    async def get(self, key: Text, *, timeout: float | None = None) -> KV | None:
        """What the key holds; None if it holds nothing."""
        name = _octets(key)
        answer = await self.execute(Operation.GET, name, timeout=timeout)
        if answer.status is Status.MISSING:
            return None
        return KV(name, answer.value, answer.version)

    async def put(self, key: Text, value: Text, *, timeout: float | None = None) -> KV:
        """Write the key unconditionally."""
        name, content = _octets(key), _octets(value)
        answer = await self.execute(Operation.PUT, name, content, timeout=timeout)
        return KV(name, content, answer.version)

    async def delete(self, key: Text, *, timeout: float | None = None) -> Version | None:
        """Remove the key; returns the version removed, None if there was nothing."""
        answer = await self.execute(Operation.DELETE, _octets(key), timeout=timeout)
        return None if answer.status is Status.MISSING else answer.version

    async def cas(
        self,
        key: Text,
        *,
        expect: bool | Version | Text,
        value: Text | None,
        timeout: float | None = None,
    ) -> KV | None:
        """Write the key, or remove it (`value` None), if it holds what is expected.

        `expect` is a version, a value, True (any value) or False (none). Returns what the key now
        holds. Raises PreconditionFailed, which tells what it held instead."""
        name = _octets(key)
        content = None if value is None else _octets(value)
        wanted = _octets(expect) if isinstance(expect, (bytes, str)) else expect
        answer = await self.execute(
            Operation.CAS, name, encode_cas(wanted, content), timeout=timeout
        )
        if answer.status is Status.CONFLICT:
            raise precondition_failed(name, answer)
        return None if content is None else KV(name, content, answer.version)

    async def execute(
        self,
        operation: Operation,
        key: bytes,
        argument: bytes = b"",
        *,
        timeout: float | None = None,
    ) -> Answer:
        """One command, with everything that the replica said about it.

        Raises Unavailable, InvalidArgument (definite) or Ambiguous."""
        check_size(key, argument)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (self._timeout if timeout is None else timeout)
        failures: list[str] = []
        code = "unreachable"
        now = loop.time()
        order = sorted(self._endpoints, key=lambda endpoint: endpoint.avoid_until > now)
        for i, endpoint in enumerate(order):
            left = deadline - loop.time()
            if left <= 0:
                break
            reads = operation is Operation.GET
            patience = left / 2 if reads and i + 1 < len(order) else left
            try:
                async with asyncio.timeout(left):
                    link = await endpoint.link()
                return await _attempt(link, operation, key, argument, patience)
            except (_NotSent, TimeoutError) as error:
                failures.append(f"{endpoint.address}: {error or 'no connection in time'}")
            except Unavailable as error:
                failures.append(f"{endpoint.address}: {error}")
                code = error.code
            except Ambiguous as error:
                if not reads:
                    raise Ambiguous(
                        f"{endpoint.address}: {error}; the {operation.name} may have happened,"
                        " or may yet"
                    ) from None
                failures.append(f"{endpoint.address}: {error}")
                code = "no-answer"
            endpoint.avoid_until = loop.time() + AVOID_S
        raise Unavailable("; ".join(failures) or "the time was over before it was sent", code)


def check_size(key: bytes, argument: bytes) -> None:
    """Raises InvalidArgument for a command that every replica refuses for its size: nothing needs
    to be sent to know that."""
    if (fault := oversize(key, argument)) is not None:
        raise InvalidArgument(fault)


async def _attempt(
    link: _Link, operation: Operation, key: bytes, argument: bytes, seconds: float
) -> Answer:
    """One command over one connection. Raises _NotSent, Unavailable, InvalidArgument, Ambiguous."""
    # The replica is told a little less than we wait: its word on the fate is better than none. It
    # joins neighbours of equal patience, hence the rounding.
    patience_ms = max(1, int(min(seconds, _PATIENCE_S_MAX) * 90) * 10)
    future = link.send(operation, key, argument, patience_ms * 1000)
    try:
        async with asyncio.timeout(seconds):
            return await future
    except TimeoutError:
        raise Ambiguous(f"no answer within {seconds:.1f} s") from None


def precondition_failed(key: bytes, answer: Answer) -> PreconditionFailed:
    """The error that says what a CAS in conflict met."""
    if answer.version == NO_VERSION:
        return PreconditionFailed("the key has no value", None)
    return PreconditionFailed(
        f"the key holds version {format_version(answer.version)}",
        KV(key, answer.value, answer.version),
    )


class Client:
    """The same calls for code without an event loop; may be shared by threads."""

    def __init__(
        self, addresses: Iterable[str], cluster: str | None = None, *, timeout: float = TIMEOUT_S
    ) -> None:
        """As EPaxosClient."""
        self._client = EPaxosClient(addresses, cluster, timeout=timeout)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="epaxos-client", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, call: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def close(self) -> None:
        """End all connections and the thread behind them."""
        if self._loop.is_closed():
            return
        self._run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def get(self, key: Text, *, timeout: float | None = None) -> KV | None:
        """As EPaxosClient.get."""
        return self._run(self._client.get(key, timeout=timeout))

    def put(self, key: Text, value: Text, *, timeout: float | None = None) -> KV:
        """As EPaxosClient.put."""
        return self._run(self._client.put(key, value, timeout=timeout))

    def delete(self, key: Text, *, timeout: float | None = None) -> Version | None:
        """As EPaxosClient.delete."""
        return self._run(self._client.delete(key, timeout=timeout))

    def cas(
        self,
        key: Text,
        *,
        expect: bool | Version | Text,
        value: Text | None,
        timeout: float | None = None,
    ) -> KV | None:
        """As EPaxosClient.cas."""
        return self._run(self._client.cas(key, expect=expect, value=value, timeout=timeout))
