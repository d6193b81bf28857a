"""A node without agreement, and the ports around it: what driver and ports are tested against."""

import asyncio
import socket
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from epaxos.codec import PROTOCOL_VERSION, ServerHello
from epaxos.core.command import NO_VERSION, Among, Operation, Results, Status, decode_cas
from epaxos.core.errors import Ambiguous, ConfigError, Definite
from epaxos.core.replica import Executed, Path
from epaxos.node.requests import (
    AskGraph,
    AskInstance,
    AskTransfer,
    NodeReady,
    QuestionReply,
    Refusal,
    Reply,
)
from epaxos.runtime.binary import ClientPort
from epaxos.runtime.driver import Driver
from epaxos.runtime.http import HttpPort


class FakeFlight:
    stamps = None

    def __init__(self):
        self.committed_at = 0
        self.path = Path.FAST


class FakeNode:
    """Answers at once, or as `react` says: `silent`, or the code of a refusal."""

    def __init__(self):
        self.data = {}
        self.slot = 0
        self.react = ""
        self.requests = []
        self.held = []
        self.received = []
        self.out = []
        self.flights = []
        self.wakes = 0
        self.at = None
        self.log = []
        self.trouble = None

    def request(self, requests, now):
        for request in requests:
            self.requests.append(request)
            count = len(request.keys)
            if self.react == "silent":
                self.held.append(request)
            elif self.react:
                kind = Ambiguous if self.react == "outcome-unknown" else Definite
                error = kind(f"because of {self.react}")
                self.out.append(Refusal(request.waiter, 0, count, error, self.react))
            else:
                self.answer(request, now)

    def answer(self, request, now):
        self.slot += 1
        rows = [
            self._apply(code, key, argument, (0, self.slot, i))
            for i, (code, key, argument) in enumerate(
                zip(request.operations, request.keys, request.arguments)
            )
        ]
        columns = (bytes(r[0] for r in rows), [r[1] for r in rows], [r[2] for r in rows])
        if set(request.operations) == {Operation.PUT}:
            columns = (b"", [], [])
        flight = FakeFlight()
        self.flights.append(flight)
        self.log.append(Executed(b"\0", [self.slot]))
        results = Results(0, self.slot, 0, len(rows), *columns)
        self.out.append(Reply(request.waiter, 0, results, now, flight))

    def _apply(self, code, key, argument, mine):
        value, version = self.data.get(key, (b"", NO_VERSION))
        here = version != NO_VERSION
        if code == Operation.GET:
            return (Status.OK if here else Status.MISSING, value, version)
        if code == Operation.DELETE:
            self.data.pop(key, None)
            return (Status.OK if here else Status.MISSING, b"", version)
        if code == Operation.CAS:
            cas = decode_cas(argument)
            expect = cas.expect
            if isinstance(expect, Among):
                good = (here and version in expect.versions) is not expect.excluded
            else:
                good = here is expect if isinstance(expect, bool) else version == tuple(expect)
            if not good:
                return (Status.CONFLICT, value, version)
            if cas.value is None:
                self.data.pop(key, None)
                return (Status.OK, b"", version)
            argument = cas.value
        self.data[key] = (argument, mine)
        return (Status.OK, b"", mine)

    def ask(self, waiter, question, now):
        document, error = {"asked": type(question).__name__}, None
        if isinstance(question, AskInstance):
            document = None if question.instance.slot > 9 else {"instance": str(question.instance)}
        if isinstance(question, AskGraph):
            document = {"limit": question.limit}
        if isinstance(question, AskTransfer) and question.target == 0:
            document, error = None, Definite("this protocol has no leader")
        self.out.append(QuestionReply(waiter, document, error))

    def receive(self, source, message, now):
        self.received.append((source, message))

    def wake(self, now):
        self.wakes += 1
        self.at = None

    def deadline(self):
        return self.at

    def take(self, now):
        if self.trouble is not None:
            raise self.trouble
        log, self.log = self.log, []
        out, self.out = self.out, []
        flights, self.flights = self.flights, []
        return NodeReady(log, bool(log), [], out, flights)


class FakeLog:
    """Counts, and fails when told to."""

    def __init__(self):
        self.records = []
        self.syncs = 0
        self.trouble = None

    def append(self, records):
        self.records += records

    def sync(self):
        self.syncs += 1
        if self.trouble is not None:
            raise self.trouble


class FakeStatus:
    draining = False
    why = None

    def unready(self):
        return self.why

    def document(self, node, http):
        return {"replica": "A", "node": node, "clients": http}

    def metrics(self):
        return b"# nothing\n"

    def histograms(self):
        return {"replica": "A", "loop_lag": "HISTF"}

    def identity(self):
        regions = {"A": "Virginia", "B": "Tokyo"}
        return {"replica": "A", "region": "Virginia", "regions": regions, "per_second": 100}

    def find(self, text):
        if text not in "AB":
            raise ConfigError(f"replica {text!r} is none of the replicas")
        return "AB".index(text)


class FakeLinks:
    changes = ()
    enabled = True

    def documents(self):
        return [{"from": "B"}] if self.enabled else None

    def change(self, change):
        self.changes = (*self.changes, change)


class Ports:
    """A driver with both ports, around a fake node."""

    def __init__(self, connections):
        self.node = FakeNode()
        self.log = FakeLog()
        self.status = FakeStatus()
        self.links = FakeLinks()
        self.failures = []
        self.driver = Driver(self.node, self.log, self._send, self.failures.append)
        hello = ServerHello(PROTOCOL_VERSION, "c1", 0, "VA")
        self.clients = ClientPort(self.driver, hello, 5_000_000, 16)
        self.http = HttpPort(
            self.driver,
            self.status,
            self.links,
            body_bytes=100_000,
            patience_us=5_000_000,
            connections=connections,
            loopback=True,
        )
        self.sent = []

    def _send(self, messages):
        self.sent += messages


def listener():
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


@asynccontextmanager
async def ports(connections=16):
    """`Ports`, listening; with `.url`, `.address` and an HTTP session `.web`."""
    parts = Ports(connections)
    client, http = listener(), listener()
    await parts.clients.start(client)
    runner = web.ServerRunner(parts.http.web, shutdown_timeout=0.1)
    await runner.setup()
    await web.SockSite(runner, http).start()
    parts.address = client.getsockname()
    parts.http_address = http.getsockname()
    parts.url = f"http://127.0.0.1:{parts.http_address[1]}"
    parts.driver.start()
    try:
        async with aiohttp.ClientSession() as parts.web:
            yield parts
    finally:
        parts.clients.close()
        await runner.cleanup()
        parts.driver.stop()
        client.close()
        http.close()
        await asyncio.sleep(0)
