"""Connections to a running replica's three ports, in virtual time: any bytes, cut anywhere, closed
at any moment. The replica lives on, and answers whoever comes next.

A stranger that knows a member's life gets past the greeting and lies in messages: then commands may
fail, for what a member says is believed, and the replica lives on all the same."""

import asyncio
import random
import shutil
from collections import Counter
from contextlib import suppress
from pathlib import Path

import msgspec

from epaxos.codec import PROTOCOL_VERSION, ClientHello, ClientRequest, encode_frame
from epaxos.core.command import Operation
from epaxos.registry import find_protocol
from epaxos.runtime.greeting import LinkHello, LinkProof
from tests.fuzz.lies import lie
from tests.fuzz.mutation import mutate
from tests.fuzz.targets import sealed_frames
from tests.scripted.cluster import CLIENT, HTTP, PEER, Plan, World, play
from tests.scripted.http import call
from tests.scripted.loop import HOST, Host

_REQUEST = ClientRequest(1, 0, bytes([Operation.PUT, Operation.GET]), [b"x", b"y"], [b"1", b""])
_HTTP = (
    b"PUT /v1/kv/a%2Fb%00?x=1 HTTP/1.1\r\nHost: a\r\nIf-Match: *\r\nContent-Length: 3\r\n\r\nabc",
    b"PUT http://127.0.0.1:3000/v1/kv/x HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    b'If-None-Match: "0.A.2.0"\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n',
    b"GET /v1/kv/x HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: r\r\n\r\n"
    b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v1/graph?limit=3 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v1/instances/A.1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"DELETE /v1/kv/x HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\r\n" * 3,
    b"HEAD /v1/kv/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    b"PUT /v1/kv/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"1;a=b\r\nx\r\n0\r\nTrailer: t\r\n\r\n" * 2,
    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * 3000 + b"\r\n" * 2,
    b'POST /v1/leader HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{"to":"B"}',
)
LIES_MOST = 30
LIES_PER_WORLD = 25
PORTS: dict[int, list[bytes]] = {
    HTTP: list(_HTTP),
    CLIENT: [encode_frame(ClientHello(PROTOCOL_VERSION, "scripted")) + encode_frame(_REQUEST) * 3],
    PEER: [
        encode_frame(LinkHello(PROTOCOL_VERSION, "scripted", 1, 0, 1, "n", "epaxos", 3, "h"))
        + encode_frame(LinkProof(""))
    ],
}


async def _send(port: int, data: bytes, rng: random.Random) -> int:
    """How many bytes came back."""
    told = Counter[str]()

    class Sink(asyncio.Protocol):
        def data_received(self, received: bytes) -> None:
            told["bytes"] += len(received)

    wire, _ = await asyncio.get_running_loop().create_connection(Sink, "127.0.0.1", port)
    while data and not wire.is_closing():
        size = 1 + rng.randrange(1 << rng.randrange(1, 10))
        wire.write(data[:size])
        data = data[size:]
        if rng.random() < 0.3:
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.02)
    wire.close()
    return told["bytes"]


async def _start(world: World) -> None:
    for machine in world.machines:
        world.start(machine)
    await asyncio.sleep(5)
    HOST.set(Host("stranger"))


def _check(world: World, number: int, data: bytes) -> None:
    machine = world.machines[0]
    assert machine.failure is None, f"connection {number} {data!r}: {machine.failure!r}"
    assert not world.errors, f"connection {number} {data!r}: {world.errors}"


async def _run(world: World, first: int, inputs: int, told: Counter[str]) -> None:
    await _start(world)
    for number in range(first, first + inputs):
        rng = random.Random(f"connection {number}")
        port = rng.choice(list(PORTS))
        data = mutate(rng.choice(PORTS[port]), PORTS[port], rng)
        heard = await _send(port, data, rng)
        name = {HTTP: "http", CLIENT: "client", PEER: "peer"}[port]
        told[f"{name} {'answered' if heard else 'silent'}"] += 1
        if number % 20 == 0:
            status, _, _ = await call(HTTP, "PUT", b"good", b"1", {}, 5.0)
            assert status == 200, f"connection {number}: {status}"
        _check(world, number, data)


def _greeting(world: World) -> bytes:
    """What B would say to A."""
    transport = world.machines[0].running._parts.transport
    life = transport._identity.peers.remembered(1)
    hello = msgspec.structs.replace(
        transport._me, replica=1, target=0, boot=life.boot, nonce=life.nonce, shown=""
    )
    return encode_frame(hello) + encode_frame(LinkProof(life.nonce))


async def _lie(world: World, protocol: str, numbers: range, told: Counter[str]) -> None:
    await _start(world)
    messages = find_protocol(protocol).messages
    for number in numbers:
        rng = random.Random(f"lies {number}")
        greeting, frames = _greeting(world), b""
        for _ in range(rng.randint(1, LIES_MOST)):
            with suppress(OverflowError):
                frames += encode_frame(lie(messages, rng))
        if rng.random() < 0.3:
            frames = mutate(frames, [frames], rng)
            frames = sealed_frames(frames, 0) if rng.random() < 0.8 else frames
        heard = await _send(PEER, greeting + frames, rng)
        told["liar answered" if heard else "liar silent"] += 1
        livez = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
        assert await _send(HTTP, livez, rng), f"connection {number}"
        _check(world, number, greeting + frames)


def fuzz_lies(first: int, inputs: int, directory: Path) -> Counter[str]:
    """The same of connections whose greeting is accepted; worlds last for some of them only, since
    each is further from what is true."""
    told = Counter[str]()
    for begin in range(first, first + inputs, LIES_PER_WORLD):
        numbers = range(begin, min(begin + LIES_PER_WORLD, first + inputs))
        protocol = ("epaxos", "multipaxos")[begin // LIES_PER_WORLD % 2]
        world = World(Plan(1, protocol, 3, False, "", 1.0, 0, False), directory / str(begin), [])
        play(world, _lie(world, protocol, numbers, told))
        shutil.rmtree(directory / str(begin), ignore_errors=True)
    return told


def fuzz_connections(first: int, inputs: int, directory: Path) -> Counter[str]:
    """How the connections fared. Raises AssertionError with the number of one that broke
    something."""
    told = Counter[str]()
    world = World(Plan(1, "epaxos", 3, False, "", 1.0, 0, False), directory, [])
    play(world, _run(world, first, inputs, told))
    return told
