"""The client port: runs, columns, bounds, and what a bad client can do."""

import asyncio
import contextlib

import pytest
from fakenode import ports

from epaxos.codec import (
    FRAME_BYTES_MAX,
    FRAME_HEADER,
    PROTOCOL_VERSION,
    ClientAnswer,
    ClientHello,
    ClientRefusal,
    ClientRequest,
    ServerHello,
    decode_client,
    encode_frame,
)
from epaxos.core.command import Operation, Status
from epaxos.runtime.alarm import clock
from epaxos.runtime.binary import PATIENCE_US_MAX
from epaxos.runtime.framing import FrameBuffer


class Client:
    """The other end, frame by frame."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.first = 0

    def put(self, *keys, patience=0, first=None):
        count = len(keys)
        at = self.first if first is None else first
        operations = bytes([Operation.PUT] * count)
        frame = ClientRequest(at, patience, operations, list(keys), [b"v"] * count)
        self.writer.write(encode_frame(frame))
        self.first += count

    async def read(self):
        async with asyncio.timeout(5):
            length, _ = FRAME_HEADER.unpack(await self.reader.readexactly(8))
            assert length <= FRAME_BYTES_MAX
            return decode_client(await self.reader.readexactly(length))

    async def ended(self):
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionResetError):
                assert await self.reader.read() == b""


@contextlib.asynccontextmanager
async def connected(parts, hello=True):
    client = Client(*await asyncio.open_connection(*parts.address))
    try:
        if hello:
            client.writer.write(encode_frame(ClientHello(PROTOCOL_VERSION, "")))
            assert await client.read() == ServerHello(PROTOCOL_VERSION, "c1", 0, "VA")
        yield client
    finally:
        client.writer.close()


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 # what is awaited has no event
            await asyncio.sleep(0.002)


async def test_frames_of_one_moment_are_one_request_and_one_answer():
    async with ports() as p, connected(p) as c:
        c.writer.transport.pause_reading()
        frames = b"".join(
            encode_frame(ClientRequest(i, 0, b"\1", [b"k%d" % i], [b"v"])) for i in range(50)
        )
        c.writer.transport.resume_reading()
        c.writer.write(frames)
        answer = await c.read()
        assert isinstance(answer, ClientAnswer)
        assert (answer.first, answer.results.count, answer.path) == (0, 50, 0)
        assert 0 <= answer.commit_us <= answer.execute_us
        assert [len(r.keys) for r in p.node.requests] == [50]
        assert p.log.syncs == 1


def large(size):
    return encode_frame(ClientRequest(0, 0, b"\1", [b"k"], [b"v" * size]))


async def test_large_frames_of_all_connections_are_bounded_together(monkeypatch):
    monkeypatch.setattr("epaxos.runtime.binary.ARRIVING_BYTES_MAX", 5 << 20)
    frame = large(3 << 20)
    async with ports() as p, connected(p) as a, connected(p) as b, connected(p) as c:
        a.writer.write(frame[:-1])
        await until(lambda: p.clients.arriving._bytes)
        b.writer.write(frame[:-1])
        await b.ended()
        c.put(b"small")
        assert isinstance(await c.read(), ClientAnswer)
        a.writer.write(frame[-1:])
        assert isinstance(await a.read(), ClientAnswer)
        assert p.clients.arriving._bytes == 0
        async with connected(p) as d:
            d.writer.write(frame[:-1])
            await until(lambda: p.clients.arriving._bytes)
        await until(lambda: not p.clients.arriving._bytes)
        async with connected(p) as e:
            e.writer.write(frame)
            assert isinstance(await e.read(), ClientAnswer)


def test_what_a_large_frame_took_is_given_back_when_it_is_there():
    buffer = FrameBuffer(FRAME_BYTES_MAX)
    frame = memoryview(large(3 << 20))
    bodies = []
    while frame:
        space = buffer.space()
        size = min(len(space), len(frame))
        space[:size] = frame[:size]
        frame = frame[size:]
        bodies = buffer.cut(size)
    assert len(decode_client(bodies[0]).arguments[0]) == 3 << 20
    assert len(buffer._view) <= 1 << 20


async def test_another_patience_is_another_request():
    async with ports() as p, connected(p) as c:
        c.put(b"a", patience=1000)
        c.put(b"b", patience=2000)
        c.put(b"c", b"d", patience=2000)
        answers = [await c.read(), await c.read()]
        assert [(a.first, a.results.count) for a in answers] == [(0, 1), (1, 3)]
        deadlines = [r.deadline for r in p.node.requests]
        assert 900 <= deadlines[1] - deadlines[0] <= 1100


async def test_reads_and_writes_come_back_as_columns():
    async with ports() as p, connected(p) as c:
        frame = ClientRequest(
            0, 0, bytes([1, 0, 0, 2]), [b"a", b"a", b"b", b"b"], [b"v"] + [b""] * 3
        )
        c.writer.write(encode_frame(frame))
        results = (await c.read()).results
        assert list(results.statuses) == [Status.OK, Status.OK, Status.MISSING, Status.MISSING]
        assert results.values[1] == b"v"


@pytest.mark.parametrize(
    ("code", "definite"), [("overloaded", True), ("not-proposed", True), ("outcome-unknown", False)]
)
async def test_refusals_say_the_fate(code, definite):
    async with ports() as p, connected(p) as c:
        p.node.react = code
        c.put(b"a", b"b")
        assert await c.read() == ClientRefusal(0, 2, definite, code, f"because of {code}")


async def test_a_key_out_of_bounds_is_refused_and_the_connection_goes_on():
    async with ports() as p, connected(p) as c:
        for key in (b"", b"k" * 1025):
            c.put(b"ok", key)
            refusal = await c.read()
            assert (refusal.count, refusal.definite, refusal.code) == (2, True, "invalid")
        c.put(b"k" * 1024)
        assert (await c.read()).first == 4


@pytest.mark.parametrize(
    "frame",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        FRAME_HEADER.pack(0xFFFFFFFF, 0),
        FRAME_HEADER.pack(3, 1) + b"abc",
        encode_frame(ClientHello(PROTOCOL_VERSION, "")),
        encode_frame(ServerHello(1, "", 0, "")),
        encode_frame(ClientRequest(1, 0, b"\1", [b"a"], [b"v"])),
        encode_frame(ClientRequest(0, 0, b"\1", [b"a", b"b"], [b"v"])),
        encode_frame(ClientRequest(0, 0, b"", [], [])),
        encode_frame(ClientRequest(0, -5, b"\1", [b"a"], [b"v"])),
    ],
)
async def test_a_bad_frame_closes_only_its_connection(frame):
    async with ports() as p, connected(p) as good:
        async with connected(p) as bad:
            bad.writer.write(frame)
            await bad.ended()
        good.put(b"a")
        assert (await good.read()).first == 0
        assert len(p.node.requests) == 1


@pytest.mark.parametrize(
    "first",
    [
        encode_frame(ClientRequest(0, 0, b"\1", [b"a"], [b"v"])),
        encode_frame(ClientHello(PROTOCOL_VERSION + 1, "")),
        FRAME_HEADER.pack(4097, 0),
    ],
)
async def test_a_bad_beginning_closes_the_connection(first):
    async with ports() as p, connected(p, hello=False) as c:
        c.writer.write(first)
        await c.ended()
        assert p.node.requests == []


async def test_a_client_of_another_cluster_learns_which_this_is():
    async with ports() as p, connected(p, hello=False) as c:
        c.writer.write(encode_frame(ClientHello(PROTOCOL_VERSION, "c2")))
        assert (await c.read()).cluster == "c1"
        await c.ended()


async def test_a_silent_client_is_closed(monkeypatch):
    monkeypatch.setattr("epaxos.runtime.binary.HELLO_DEADLINE_S", 0.05)
    async with ports() as p, connected(p, hello=False) as c:
        await c.ended()


async def test_connections_have_a_cap():
    async with ports() as p, contextlib.AsyncExitStack() as stack:
        for _ in range(16):
            await stack.enter_async_context(connected(p))
        async with connected(p, hello=False) as extra:
            await extra.ended()
        assert p.clients.connections == 16


async def test_a_client_with_too_much_in_flight_is_not_read_until_it_is_answered(monkeypatch):
    monkeypatch.setattr("epaxos.runtime.binary.IN_FLIGHT_MAX", 100)
    async with ports() as p, connected(p) as c:
        p.node.react = "silent"
        for _ in range(200):
            c.put(*[b"k"] * 10)
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)
        held = sum(len(r.keys) for r in p.node.held)
        assert 100 < held < 2000
        p.node.react = ""
        requests, p.node.held = p.node.held, []
        for request in requests:
            p.node.answer(request, 1)
        p.driver.schedule()
        count = 0
        while count < 2000:
            count += (await c.read()).results.count
        assert p.clients.in_flight == 0


async def test_a_client_that_does_not_read_loses_its_connection(monkeypatch):
    monkeypatch.setattr("epaxos.runtime.unread.UNREAD_DEADLINE_S", 0.2)
    async with ports() as p, connected(p) as c:
        p.node.data[b"big"] = (b"x" * 1_000_000, (0, 1, 0))
        c.writer.transport.pause_reading()
        c.writer.write(encode_frame(ClientRequest(0, 0, b"\0" * 30, [b"big"] * 30, [b""] * 30)))
        async with asyncio.timeout(5):
            while p.clients.connections:  # noqa: ASYNC110 # the port has no event
                await asyncio.sleep(0.01)
        assert p.failures == []


MIB = 1 << 20


def gets(count, key=b"big", first=0):
    return encode_frame(ClientRequest(first, 0, bytes(count), [key] * count, [b""] * count))


async def test_a_small_request_for_much_is_answered_in_parts_and_holds_little():
    """Many reads of one MiB were one frame that no client takes, and 4000 ended the replica."""
    async with ports() as p, connected(p) as c:
        p.node.data[b"big"] = (b"x" * MIB, (0, 1, 0))
        c.writer.transport.pause_reading()
        c.writer.write(gets(60))
        (connection,) = p.clients._connections
        await until(lambda: connection._is_full)
        for _ in range(20):
            assert connection._wire.get_write_buffer_size() < 3 * MIB
            await asyncio.sleep(0.001)
        assert p.clients.in_flight > 30
        c.writer.transport.resume_reading()
        told = 0
        while told < 60:
            answer = await c.read()
            assert answer.first == told
            assert answer.results.values == [b"x" * MIB] * answer.results.count
            assert answer.results.index == told
            told += answer.results.count
        assert p.clients.in_flight == 0
        assert p.failures == []


async def test_who_asks_for_little_does_not_wait_for_who_asks_for_much():
    async with ports() as p, connected(p) as c, connected(p) as other:
        p.node.data[b"big"] = (b"x" * MIB, (0, 1, 0))
        c.writer.write(gets(60))
        assert (await c.read()).first == 0
        other.put(b"a")
        assert (await other.read()).first == 0
        assert p.clients.in_flight > 0, "the first has not got everything yet"


async def test_a_client_whose_answers_are_many_bytes_is_not_read_until_it_took_them(monkeypatch):
    monkeypatch.setattr("epaxos.runtime.binary.UNREAD_BYTES_MAX", 4 * MIB)
    async with ports() as p, connected(p) as c:
        p.node.data[b"big"] = (b"x" * 100_000, (0, 1, 0))
        (connection,) = p.clients._connections
        request, waiting = p.node.request, []

        def watched(requests, now):
            waiting.append(connection._answers.bytes)
            request(requests, now)

        p.node.request = watched
        c.writer.write(gets(100))
        told = (await c.read()).results.count
        assert connection._answers.bytes > 4 * MIB
        c.writer.write(gets(100, first=100))
        while told < 200:
            told += (await c.read()).results.count
        first, second = waiting
        assert (first, second <= 2 * MIB) == (0, True)
        assert p.clients.in_flight == 0


async def test_an_answer_that_cannot_be_encoded_costs_one_connection(monkeypatch):
    real = encode_frame

    def encode(frame):
        if isinstance(frame, ClientAnswer) and frame.results.values:
            raise MemoryError
        return real(frame)

    async with ports() as p, connected(p) as bad, connected(p) as good:
        monkeypatch.setattr("epaxos.runtime.unread.encode_frame", encode)
        bad.writer.write(gets(1))
        await bad.ended()
        good.put(b"a")
        assert (await good.read()).first == 0
        assert p.failures == []
        assert p.driver.faults == 1


async def test_frames_that_arrive_together_have_fates_of_their_own():
    async with ports() as p, connected(p) as c:
        ahead = ClientRequest(0, 0, b"\1", [b"a"], [b"v"])
        bad = ClientRequest(1, 0, b"\1\3", [b"b", b"bad"], [b"v", b"not a compare-and-set"])
        unknown = ClientRequest(3, 0, b"\x63", [b"c"], [b"v"])
        behind = ClientRequest(4, 0, b"\1\0", [b"d", b"d"], [b"v", b""])
        c.writer.write(b"".join(map(encode_frame, (ahead, bad, unknown, behind))))
        frames = []
        while sum(1 if isinstance(f, ClientRefusal) else f.results.count for f in frames) < 5:
            frames.append(await c.read())
        refused = [f for f in frames if isinstance(f, ClientRefusal)]
        assert [(f.first, f.count, f.definite, f.code) for f in refused] == [
            (1, 2, True, "invalid"),
            (3, 1, True, "invalid"),
        ]
        assert "compare-and-set" in refused[0].detail
        assert [(f.first, f.results.count) for f in frames if f not in refused] == [(0, 1), (4, 2)]
        assert sorted(p.node.data) == [b"a", b"d"]
        assert p.driver.refusals == {"invalid": 3}


async def test_a_large_frame_is_a_request_of_its_own():
    """The node refuses a request for the size of one command."""
    async with ports() as p, connected(p) as c:
        small = [encode_frame(ClientRequest(i, 0, b"\1", [b"a"], [b"v"])) for i in (0, 2)]
        large = encode_frame(ClientRequest(1, 0, b"\1", [b"b"], [b"v" * 300_000]))
        c.writer.write(small[0] + large + small[1])
        told = 0
        while told < 3:
            told += (await c.read()).results.count
        assert all(r.keys in ([b"a"], [b"b"]) for r in p.node.requests)


async def test_patience_has_an_end():
    async with ports() as p, connected(p) as c:
        p.node.react = "silent"
        c.put(b"a", patience=1 << 62)
        await until(lambda: p.node.held)
        assert p.node.held[0].deadline - clock() <= PATIENCE_US_MAX


async def test_while_draining_commands_are_refused_definitely_and_old_ones_answered():
    async with ports() as p, connected(p) as c:
        p.node.react = "silent"
        c.put(b"a")
        async with asyncio.timeout(5):
            while not p.node.held:  # noqa: ASYNC110 # the fake has no event
                await asyncio.sleep(0.005)
        p.clients.drain()
        c.put(b"b")
        refusal = await c.read()
        assert (refusal.first, refusal.definite, refusal.code) == (1, True, "not-proposed")
        assert p.clients.in_flight == 1
        p.node.answer(p.node.held.pop(), 1)
        p.driver.schedule()
        assert (await c.read()).first == 0


async def test_a_client_that_left_is_not_answered():
    async with ports() as p:
        p.node.react = "silent"
        async with connected(p) as c:
            c.put(b"a")
            async with asyncio.timeout(5):
                while not p.node.held:  # noqa: ASYNC110 # the fake has no event
                    await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        p.node.answer(p.node.held.pop(), 1)
        p.driver.schedule()
        await asyncio.sleep(0.05)
        assert p.failures == []
        assert p.node.data[b"a"]
