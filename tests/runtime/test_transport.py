"""Links: who may talk, what arrives, in which order, and what a bad peer can do."""

import asyncio
import contextlib
import socket

import msgspec
import pytest

from epaxos.codec import FRAME_HEADER, Codec, encode_frame
from epaxos.core.errors import StorageError
from epaxos.core.lineage import Life
from epaxos.core.replica import EVERYONE
from epaxos.registry import ProtocolSpec
from epaxos.runtime.alarm import Alarm, clock
from epaxos.runtime.backlog import Backlog
from epaxos.runtime.delay import DelayLine, DelayLines
from epaxos.runtime.greeting import LinkHello, LinkProof, LinkRefusal, decode_greeting
from epaxos.runtime.identity import MemoryIdentity
from epaxos.runtime.transport import HELLO_BYTES_MAX, Transport


class Ping(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    number: int
    filler: bytes = b""


class Record(msgspec.Struct, frozen=True, array_like=True, tag=16, gc=False):
    number: int


CODEC = Codec(ProtocolSpec("fake", "Fake", False, (Ping,), (Record,), None, None))


def listener(port=0):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.setblocking(False)
    return sock


class Identity(MemoryIdentity):
    """That of a replica whose earlier lives have the nonces `life1`, `life2`, ..."""

    def __init__(self, hello):
        super().__init__()
        self.lives = [*(f"life{boot}" for boot in range(1, hello.boot)), hello.nonce]
        self.refused = []

    def refuse(self, why):
        self.refused.append(why)


class Peer:
    """A transport that remembers what it got."""

    def __init__(self, me, listeners, *, delays=None, **changes):
        self.me = me
        self.got = []
        self.failures = []
        self.arrived = asyncio.Event()
        self.backlog = Backlog()
        self.is_busy = False
        hello = LinkHello(1, "c1", me, me, 1, f"nonce{me}", "fake", len(listeners), "hash")
        self.hello = msgspec.structs.replace(hello, **changes)
        self.identity = Identity(self.hello)
        lines = None
        if delays is not None:
            loop = asyncio.get_running_loop()
            lines = DelayLines(
                loop,
                {i: DelayLine(delays, None, 0.0, f"{i}") for i in range(len(listeners)) if i != me},
                self.deliver,
            )
        self.listener = listeners[me]
        addresses = [sock.getsockname() for sock in listeners]
        self.transport = Transport(
            self.hello,
            addresses,
            CODEC,
            self.identity,
            self,
            self.failures.append,
            lines=lines,
            seed="x",
        )

    def deliver(self, source, messages, size):
        self.backlog.add(source, messages, size)
        if not self.is_busy:
            self.work()

    def work(self, budget=1_000_000):
        for source, messages in self.backlog.take(budget):
            self.got += [(source, m.number, clock()) for m in messages]
        self.arrived.set()

    @property
    def numbers(self):
        return [number for _, number, _ in self.got]


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 # what is awaited has no event
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def cluster(n, **options):
    listeners = [listener() for _ in range(n)]
    peers = [Peer(i, listeners, **options) for i in range(n)]
    try:
        for peer in peers:
            await peer.transport.start(peer.listener)
        await until(lambda: all(p.transport.link_count() == n - 1 for p in peers))
        yield peers
    finally:
        for peer in peers:
            await peer.transport.close()
        for sock in listeners:
            sock.close()


async def test_messages_arrive_in_order_and_broadcasts_reach_all_others():
    async with cluster(3) as peers:
        a, b, c = peers
        a.transport.send([(EVERYONE, Ping(0)), (1, Ping(1)), (EVERYONE, Ping(2))])
        for i in range(3, 100):
            a.transport.send([(1, Ping(i)), (2, Ping(i, b"x" * i * 1000))])
        await until(lambda: len(b.got) == 100 and len(c.got) == 99)
        assert b.numbers == list(range(100))
        assert c.numbers == [0, 2, *range(3, 100)]
        assert {source for source, _, _ in b.got} == {0}
        assert a.got == []
        assert a.transport.sent[Ping][0] == 199
        assert b.transport.received[Ping] == 100


async def test_a_frame_larger_than_the_buffer_arrives():
    async with cluster(2) as (a, b):
        a.transport.send([(1, Ping(1, b"y" * 5_000_000)), (1, Ping(2))])
        await until(lambda: len(b.got) == 2)
        assert b.numbers == [1, 2]


async def test_the_link_of_a_peer_that_is_distrusted_closes_and_comes_back():
    async with cluster(3) as (a, b, c):
        b.transport.distrust(0)
        await until(lambda: a.transport.outbound[1].reconnects == 1 and a.transport.linked(1))
        assert b.transport.malformed == 1
        assert c.transport.outbound[1].reconnects == 0
        a.transport.send([(1, Ping(7))])
        await until(lambda: b.numbers == [7])


async def test_what_cannot_be_sent_is_dropped_and_counted():
    listeners = [listener(), listener()]
    a = Peer(0, listeners)
    a.transport.send([(1, Ping(1)), (EVERYONE, Ping(2))])
    assert a.transport.outbound[1].dropped == 2
    await a.transport.close()
    for sock in listeners:
        sock.close()


async def test_a_peer_that_does_not_read_costs_only_its_own_messages(monkeypatch):
    monkeypatch.setattr("epaxos.runtime.transport.QUEUE_BYTES_MAX", 1_000_000)
    async with cluster(3) as (a, b, c):
        inbound = b.transport._inbound[0]
        inbound.wire.pause_reading()
        filler = b"z" * 100_000
        for i in range(200):
            a.transport.send([(EVERYONE, Ping(i, filler))])
            assert a.transport.outbound[1].unsent <= 1_000_000
            await asyncio.sleep(0)
        await until(lambda: c.numbers == list(range(200)))
        assert a.transport.outbound[1].dropped > 0
        assert a.transport.outbound[2].dropped == 0
        inbound.wire.resume_reading()
        await until(lambda: len(b.got) == 200 - a.transport.outbound[1].dropped)
        assert b.numbers == sorted(b.numbers)


@pytest.mark.parametrize("bound", ["BACKLOG_MESSAGES_MAX", "BACKLOG_BYTES_MAX"])
async def test_a_peer_is_not_read_while_too_much_of_it_waits_and_nothing_is_lost(
    monkeypatch, bound
):
    monkeypatch.setattr(f"epaxos.runtime.backlog.{bound}", 1000)
    async with cluster(3) as (a, b, c):
        b.is_busy = True
        sent = 0
        # Until nothing moves any more: the kernel's buffers are full, and what is not read waits
        # at the sender.
        while a.transport.outbound[1].unsent < 2_000_000:
            a.transport.send([(1, Ping(sent + i, b"x" * 100)) for i in range(100)])
            sent += 100
            await asyncio.sleep(0)
        read = b.backlog.messages(0)
        assert 0 < read <= 4000, "the bound, and what one read brings"
        assert b.transport.is_paused(0)
        assert b.transport.pauses == {0: 1}
        c.transport.send([(1, Ping(7))])
        await until(lambda: b.backlog.messages(2) == 1)
        assert b.backlog.messages(0) == read
        while len(b.got) < sent + 1:
            b.work(500)
            assert b.backlog.messages(0) <= 4000
            await asyncio.sleep(0)
        assert [number for source, number, _ in b.got if source == 0] == list(range(sent))
        assert not b.transport.is_paused(0)
        assert a.transport.outbound[1].dropped == 0


async def test_a_new_link_of_a_peer_is_not_read_either_while_its_backlog_is_full(monkeypatch):
    monkeypatch.setattr("epaxos.runtime.backlog.BACKLOG_MESSAGES_MAX", 10)
    async with cluster(2) as (a, b):
        b.is_busy = True
        a.transport.send([(1, Ping(i)) for i in range(20)])
        await until(lambda: b.transport.is_paused(0))
        old = b.transport._inbound[0]
        a.transport.outbound[1]._wire.abort()
        await until(lambda: b.transport._inbound.get(0) not in (old, None))
        await until(lambda: a.transport.outbound[1].ready)
        assert b.transport.is_paused(0)
        a.transport.send([(1, Ping(20))])
        await asyncio.sleep(0.05)
        assert b.backlog.messages(0) == 20
        b.is_busy = False
        b.work()
        await until(lambda: len(b.got) == 21)
        assert b.numbers == list(range(21))


@pytest.mark.parametrize("bound", ["LINE_MESSAGES_MAX", "LINE_BYTES_MAX"])
async def test_a_full_delay_line_is_not_fed_and_loses_nothing(monkeypatch, bound):
    monkeypatch.setattr(f"epaxos.runtime.delay.{bound}", 3000)
    async with cluster(2, delays=50_000) as (a, b):
        line, left, most, sent = b.transport.lines.lines[0], [], 0, 0
        while a.transport.outbound[1].unsent < 1_000_000 and sent < 100_000:
            left += [clock()] * 100
            a.transport.send([(1, Ping(sent + i, b"x" * 100)) for i in range(100)])
            sent += 100
            await asyncio.sleep(0)
            most = max(most, line._messages)
        async with asyncio.timeout(60):
            while len(b.got) < sent:
                most = max(most, line._messages)
                await asyncio.sleep(0.001)
        assert b.numbers == list(range(sent))
        assert most <= 8000, "the bound, and what one read brings"
        assert b.transport.pauses[0] > 0
        assert all(at - start >= 49_900 for start, (_, _, at) in zip(left, b.got))
        assert line.dropped == 0


async def test_a_lost_link_comes_back():
    async with cluster(2) as (a, b):
        b.transport._inbound[0].wire.abort()
        await until(lambda: a.transport.outbound[1].reconnects == 1)
        await until(lambda: a.transport.link_count() == 1)
        a.transport.send([(1, Ping(5))])
        await until(lambda: b.numbers == [5])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"cluster": "c2"}, "cluster differs: 'c1' at B, 'c2' at the other; start both"),
        ({"version": 9}, "wire version differs: 1 at B, 9 at the other; run the same"),
        ({"protocol": "other"}, "protocol differs"),
        ({"n": 5}, "number of replicas differs"),
        ({"settings": "else"}, "settings hash differs"),
        ({"target": 0}, "this is B, not A; an address is wrong"),
        ({"replica": 1}, "a peer cannot be replica 1"),
        ({"replica": 7}, "a peer cannot be replica 7"),
    ],
)
async def test_a_hello_that_does_not_fit_is_refused_with_both_values(change, sentence):
    async with one_listening() as (b, dial):
        hello = LinkHello(1, "c1", 0, 1, 1, "n", "fake", 2, "hash")
        reader, writer = await dial()
        writer.write(encode_frame(msgspec.structs.replace(hello, **change)))
        answer = await read_hello(reader)
        assert isinstance(answer, LinkRefusal)
        assert (answer.code, sentence in answer.detail) == ("mismatch", True)
        assert await reader.read() == b""
        writer.close()
        assert b.failures == []


async def test_lives_are_told_apart():
    async with one_listening() as (b, dial):
        hello = LinkHello(1, "c1", 0, 1, 2, "n", "fake", 2, "hash")
        later = msgspec.structs.replace(hello, boot=3, nonce="o")
        expected = [
            (hello, None, ""),
            (msgspec.structs.replace(hello, boot=1), "regressed", None),
            (msgspec.structs.replace(hello, nonce="m"), "twin", None),
            (hello, None, ""),
            (later, None, "n"),
            (hello, "regressed", None),
        ]
        for said, code, shown in expected:
            reader, writer = await dial()
            writer.write(encode_frame(said))
            answer = await read_hello(reader)
            assert getattr(answer, "code", None) == code
            if code is None:
                writer.write(encode_frame(LinkProof(shown)) + encode_frame(Ping(said.boot)))
                await until(lambda boot=said.boot: boot in b.numbers)
                b.got.clear()
            writer.close()


async def test_a_later_life_that_does_not_show_the_one_remembered_is_not_accepted():
    """A counter alone is no memory: an emptied directory that was started often has a high one."""
    async with one_listening() as (b, dial):
        b.identity.peers.judge(0, Life(2, "n"), "")
        for boot, shown in ((3, ""), (9, "x"), (9, "n")):
            reader, writer = await dial()
            said = LinkHello(1, "c1", 0, 1, boot, "o", "fake", 2, "hash")
            writer.write(encode_frame(said))
            answer = await read_hello(reader)
            assert answer.remembered == Life(2, "n")
            writer.write(encode_frame(LinkProof(shown)) + encode_frame(Ping(boot)))
            if shown == "n":
                await until(lambda: b.numbers == [9])
            else:
                assert await ends(reader)
                assert b.identity.peers.remembered(0) == Life(2, "n")
                assert b.got == []
            writer.close()


async def ends(reader):
    async with asyncio.timeout(5):
        try:
            return await reader.read() == b""
        except ConnectionResetError:
            return True


@pytest.mark.parametrize(
    ("remembered", "sentence"),
    [
        (Life(4, "later"), "was in boot 4 before and says boot 1 now"),
        (Life(1, "another"), "boot 1 of A is another process"),
    ],
)
async def test_a_life_that_forgot_an_earlier_one_ends_and_marks_its_directory(remembered, sentence):
    async with two(boot=1, remembered=remembered) as (a, b):
        await until(lambda: a.failures)
        assert isinstance(a.failures[0], StorageError)
        assert sentence in str(a.failures[0])
        assert a.identity.refused == [str(a.failures[0])]
        assert b.failures == []
        assert b.identity.peers.remembered(0) == remembered


async def test_a_life_with_a_high_counter_and_no_memory_ends_and_marks_its_directory():
    async with two(boot=7, remembered=Life(2, "emptied since")) as (a, b):
        await until(lambda: a.failures)
        assert "B remembers boot 2 of this replica" in str(a.failures[0])
        assert len(a.identity.refused) == 1
        assert b.identity.peers.remembered(0) == Life(2, "emptied since")


async def test_a_later_life_of_the_same_lineage_is_accepted():
    async with two(boot=7, remembered=Life(2, "life2")) as (a, b):
        await until(lambda: a.transport.link_count() == b.transport.link_count() == 1)
        assert (a.failures, a.identity.refused) == ([], [])
        assert b.identity.peers.remembered(0) == Life(7, "nonce0")


async def test_nobody_is_ended_by_who_calls_it():
    """Whoever reaches the port may say that it remembers something; only peers that were dialled,
    at the addresses given, are believed."""
    async with one_listening() as (b, dial):
        reader, writer = await dial()
        hello = LinkHello(1, "c1", 0, 1, 1, "n", "fake", 2, "hash", 9, "later")
        writer.write(encode_frame(hello))
        assert await ends(reader)
        assert (b.failures, b.identity.refused) == ([], [])
        assert b.identity.peers.remembered(0) == Life(0, "")


@contextlib.asynccontextmanager
async def two(boot, remembered):
    """A in this boot, and B, who remembers this life of it."""
    listeners = [listener(), listener()]
    a, b = Peer(0, listeners, boot=boot), Peer(1, listeners)
    b.identity.peers.judge(0, remembered, "")
    try:
        await b.transport.start(b.listener)
        await a.transport.start(a.listener)
        yield a, b
    finally:
        await a.transport.close()
        await b.transport.close()
        for sock in listeners:
            sock.close()


@contextlib.asynccontextmanager
async def one_listening():
    """Replica B of two, and a way to connect to it."""
    listeners = [listener(), listener()]
    b = Peer(1, listeners)
    listeners[0].close()
    writers = []

    async def dial():
        reader, writer = await asyncio.open_connection(*listeners[1].getsockname())
        writers.append(writer)
        return reader, writer

    listeners[0] = listener()
    await b.transport.start(b.listener)
    try:
        yield b, dial
    finally:
        for writer in writers:
            writer.close()
        await b.transport.close()
        for sock in listeners:
            sock.close()


async def read_hello(reader):
    async with asyncio.timeout(5):
        length, _ = FRAME_HEADER.unpack(await reader.readexactly(8))
        return decode_greeting(await reader.readexactly(length))


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n" * 10,
        FRAME_HEADER.pack(HELLO_BYTES_MAX + 1, 0),
        FRAME_HEADER.pack(4, 0) + b"abcd",
        FRAME_HEADER.pack(0, 0),
        encode_frame(Ping(1)),
        encode_frame(LinkRefusal("a", "b")),
    ],
)
async def test_garbage_before_the_hello_closes_the_connection(garbage):
    async with one_listening() as (b, dial):
        reader, writer = await dial()
        writer.write(garbage)
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        assert b.got == []
        assert b.transport.malformed == 1
        writer.close()


@pytest.mark.parametrize(
    "garbage",
    [
        FRAME_HEADER.pack(0xFFFFFFFF, 0),
        FRAME_HEADER.pack(4, 0) + b"abcd",
        encode_frame(Record(1)),
        encode_frame(LinkHello(1, "c1", 0, 1, 1, "n", "fake", 2, "hash")),
    ],
)
async def test_garbage_after_the_hello_closes_the_link_and_delivers_nothing(garbage):
    async with one_listening() as (b, dial):
        reader, writer = await dial()
        writer.write(encode_frame(LinkHello(1, "c1", 0, 1, 1, "n", "fake", 2, "hash")))
        assert isinstance(await read_hello(reader), LinkHello)
        writer.write(encode_frame(LinkProof("")) + encode_frame(Ping(1)))
        await until(lambda: b.numbers == [1])
        writer.write(garbage)
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        assert b.numbers == [1]
        assert b.transport.malformed == 1
        writer.close()


async def test_a_silent_connection_is_closed(monkeypatch):
    monkeypatch.setattr("epaxos.runtime.transport.HELLO_DEADLINE_S", 0.05)
    async with one_listening() as (_, dial):
        reader, writer = await dial()
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()


async def test_a_second_link_of_the_same_life_replaces_the_first():
    async with one_listening() as (b, dial):
        hello = encode_frame(LinkHello(1, "c1", 0, 1, 1, "n", "fake", 2, "hash")) + encode_frame(
            LinkProof("")
        )
        first, writer_1 = await dial()
        writer_1.write(hello)
        await read_hello(first)
        second, writer_2 = await dial()
        writer_2.write(hello)
        await read_hello(second)
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionResetError):
                assert await first.read() == b""
        writer_2.write(encode_frame(Ping(7)))
        await until(lambda: b.numbers == [7])
        writer_1.close()
        writer_2.close()


async def test_delayed_messages_come_late_in_order_and_never_early():
    async with cluster(2, delays=30_000) as (a, b):
        sent = []
        for i in range(20):
            sent.append(clock())
            a.transport.send([(1, Ping(i))])
            await asyncio.sleep(0.002)
        await until(lambda: len(b.got) == 20)
        assert b.numbers == list(range(20))
        assert all(at - start >= 29_900 for start, (_, _, at) in zip(sent, b.got))
        assert b.transport.lines.error.count == 20


async def test_links_can_be_cut_and_healed_while_running():
    async with cluster(2, delays=1000) as (a, b):
        lines = b.transport.lines
        lines.change(0, 1000, 0.0, True)
        a.transport.send([(1, Ping(1))])
        await until(lambda: lines.lines[0].dropped == 1)
        lines.change(0, 1000, 0.0, False)
        a.transport.send([(1, Ping(2))])
        await until(lambda: b.numbers == [2])
        lines.change(0, 1000, 0.5, False)
        for i in range(100, 300):
            a.transport.send([(1, Ping(i))])
        await until(lambda: len(b.got) - 1 + lines.lines[0].dropped - 1 == 200)
        assert 50 < len(b.got) < 150
        assert b.numbers == sorted(b.numbers)


def test_a_line_never_reorders_and_shortens_when_told():
    class Wild:
        def sample(self, rng):
            return rng.randrange(50_000)

    line = DelayLine(10_000, Wild(), 0.0, "seed")
    for i in range(100):
        line.push(i, [Ping(i)], 10)
    dues, numbers = [], []
    while line.next() is not None:
        due, messages, _ = line.pop()
        dues.append(due)
        numbers += [m.number for m in messages]
    assert numbers == list(range(100))
    assert dues == sorted(dues)
    line.push(1000, [Ping(1)], 10)
    line.change(2000, 5, 0.0, False)
    assert line.next() == 2005
    line.push(2001, [Ping(2)], 10)
    assert line.next() == 2005


async def test_an_alarm_can_be_moved_and_silenced():
    rung = []
    loop = asyncio.get_running_loop()
    alarm = Alarm(loop, lambda: rung.append(clock()))
    start = clock()
    alarm.set(start + 500_000)
    alarm.set(start + 10_000)
    await until(lambda: rung)
    assert rung[0] >= start + 10_000
    alarm.set(clock() + 5_000)
    alarm.set(None)
    await asyncio.sleep(0.02)
    assert len(rung) == 1
    alarm.set(1)
    await until(lambda: len(rung) == 2)
    alarm.close()
