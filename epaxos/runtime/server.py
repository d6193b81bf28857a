"""One replica, put together from its parts, from start to stop.

Order of a start: data directory (lock, owner), addresses, log (replay into the node), boot counter
(log first, then directory), links, ports, first wake. Nothing is said before the boot counter is
durable. Order of a stop: not ready, no new connections and commands, what is in flight until the
grace ends, links, log.

Rules of this file: errors of a start are raised as they are; the first failure of the running
replica ends it, and is raised from `run`.
"""

import asyncio
import errno
import gc
import os
import random
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import structlog
from aiohttp import web

import topology
from epaxos.codec import PROTOCOL_VERSION, Codec, ServerHello
from epaxos.core.errors import AddressError
from epaxos.core.replica import Message, Setup
from epaxos.core.types import Micros, ReplicaId, replica_name
from epaxos.node.node import Node, node_with
from epaxos.node.requests import Limits
from epaxos.registry import ProtocolSpec, find_protocol, find_state_machine
from epaxos.runtime.alarm import clock
from epaxos.runtime.binary import ClientPort
from epaxos.runtime.config import (
    Cluster,
    ServeConfig,
    config_hash,
    first_leader,
    is_loopback,
)
from epaxos.runtime.delay import DelayLine, DelayLines
from epaxos.runtime.driver import Driver
from epaxos.runtime.greeting import LinkHello
from epaxos.runtime.http import HttpPort
from epaxos.runtime.identity import DataDirectory, MemoryIdentity, Owner
from epaxos.runtime.links import LinkSettings
from epaxos.runtime.parts import Parts
from epaxos.runtime.recorder import Recorder, Send, start_recording
from epaxos.runtime.status import StatusView
from epaxos.runtime.transport import Transport
from epaxos.runtime.wal import Wal

RTT_UNKNOWN_US: Final = 50_000
"""Expected round trip where no topology says one."""
_GC_THRESHOLD: Final = 100_000
_RESERVED_FILES: Final = 128
"""Descriptors that clients never get: links, log, alarms."""
_READY_POLL_S: Final = 0.02

log = structlog.get_logger()

Announce = Callable[[dict[str, Any]], None]


def run(config: ServeConfig, announce: Announce) -> None:
    """Run a replica until SIGTERM, SIGINT or SIGHUP.

    `announce` is told once, when the replica is ready to serve, where it listens. Raises
    ConfigError, StorageError, AddressError at the start, and later whatever made it fail."""
    os.umask(0o077)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_main(config, announce))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _main(config: ServeConfig, announce: Announce) -> None:
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[None] = loop.create_future()

    def on_signal() -> None:
        if not stop.done():
            stop.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
            continue  # nohup
        loop.add_signal_handler(number, on_signal)
    loop.set_exception_handler(_on_loop_error)
    async with running(config) as server:
        collect_less_garbage()
        ready = loop.create_task(server.wait_ready(announce))
        try:
            await asyncio.wait((stop, server.failed), return_when=asyncio.FIRST_COMPLETED)
            if server.failed.done():
                server.failed.result()
            await server.drain()
        finally:
            ready.cancel()


def collect_less_garbage() -> None:
    """What a start leaves behind is never garbage, and what a step leaves behind rarely is."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 50, 50)


def _on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    log.error("event loop", message=context.get("message"), error=repr(context.get("exception")))


class Server:
    """A running replica; made by `running`."""

    def __init__(
        self,
        parts: Parts,
        status: StatusView,
        http: HttpPort,
        runner: web.ServerRunner,
        addresses: dict[str, str],
        failed: asyncio.Future[None],
    ) -> None:
        self.addresses = addresses
        """Where `http`, `client` and `peer` listen."""
        self.failed = failed
        """Ends with an exception when the replica cannot go on."""
        self._parts = parts
        self._status = status
        self._http = http
        self._runner = runner

    async def wait_ready(self, announce: Announce) -> None:
        """Tell `announce` where the replica listens, as soon as /readyz says yes."""
        last = ""
        while (why := self._status.unready()) is not None:
            if why != last:
                log.info("not ready yet", why=why)
                last = why
            await asyncio.sleep(_READY_POLL_S)
        log.info("ready", **self.addresses)
        config = self._parts.config
        announce(
            {
                "ready": True,
                "replica": replica_name(config.me),
                "region": config.member.region,
                **self.addresses,
            }
        )

    async def drain(self) -> None:
        """Take nothing new, and wait for what is in flight as long as the grace lasts."""
        log.info("stopping")
        clients = self._parts.clients
        clients.drain()
        for site in list(self._runner.sites):
            await site.stop()
        deadline = clock() + self._parts.config.cluster.grace_ms * 1000
        # Polled, so that no counter on the hot path has to ring a bell that only a stop listens to.
        while (clients.in_flight or self._http.in_flight) and clock() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_READY_POLL_S)
        log.info("stopped", unanswered=clients.in_flight + self._http.in_flight)


@asynccontextmanager
async def running(config: ServeConfig) -> AsyncIterator[Server]:
    """A replica from its start to its end. Raises what the start raises."""
    async with AsyncExitStack() as stack:
        yield await _Start(config, stack).server()


class _Start:
    """The start of one replica: everything is put together, then everything begins.

    What was opened is closed in the reverse order, whether the start succeeds or not."""

    def __init__(self, config: ServeConfig, stack: AsyncExitStack) -> None:
        self._config = config
        self._stack = stack
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._addresses: dict[str, str] = {}

    async def server(self) -> Server:
        cluster, me = self._config.cluster, self._config.me
        spec = find_protocol(cluster.protocol)
        codec = Codec(spec)
        distances = _Distances(cluster, me)
        identity = self._open_identity()
        listeners = self._bind()
        seed = f"{cluster.seed} node {me} {identity.boot}"
        node = self._make_node(spec, identity.boot, distances.rtt_us, seed)
        driven: Node | Recorder = node

        def relay(messages: Iterable[tuple[ReplicaId, Message]]) -> None:
            transport.send(messages)

        def fail(error: BaseException) -> None:
            """The first failure ends the replica."""
            if not self._failed.done():
                driver.stop()
                self._failed.set_exception(error)

        send: Send = relay
        if cluster.record:
            driven = start_recording(
                node, self._config, identity.boot, seed, distances.rtt_us, distances.titles
            )
            send = driven.sending(send)
            self._stack.callback(driven.close)
        log_file = self._open_log(identity, driven, codec)
        driver = Driver(driven, log_file, send, fail)
        transport = self._make_transport(identity, codec, driver, distances, fail)
        driver.distrust = transport.distrust
        self._stack.push_async_callback(transport.close)
        self._stack.callback(driver.stop)  # Before the links close: nothing is sent any more.
        connections = min(cluster.connections, _descriptors())
        hello = ServerHello(PROTOCOL_VERSION, cluster.cluster, me, self._config.member.region)
        clients = ClientPort(driver, hello, cluster.patience_ms * 1000, connections)
        parts = Parts(
            self._config, identity.boot, node, driver, transport, log_file, clients, clock()
        )
        status = StatusView(parts, distances.titles)
        http = self._make_http(parts, status, connections)
        # The grace was given by `drain`; what is still open then is closed.
        runner = web.ServerRunner(http.web, shutdown_timeout=0.1)
        self._stack.push_async_callback(runner.cleanup)
        self._stack.callback(clients.close)

        await transport.start(listeners["peer"])
        driver.start()
        await clients.start(listeners["client"])
        await runner.setup()
        await web.SockSite(runner, listeners["http"]).start()
        return Server(parts, status, http, runner, self._addresses, self._failed)

    def _make_node(
        self, spec: ProtocolSpec, boot: int, rtt_us: tuple[Micros, ...], seed: str
    ) -> Node:
        cluster = self._config.cluster
        setup = Setup(
            me=self._config.me,
            n=len(cluster.replicas),
            rtt_us=rtt_us,
            random=random.Random(seed),
            leader=first_leader(cluster),
        )
        limits = Limits(
            batch_commands=cluster.batch_commands,
            live_bytes=cluster.live_bytes,
            gate=cluster.gate,
            sampled_per_s=cluster.explain_per_s,
        )
        return node_with(find_state_machine(cluster.state_machine))(spec, setup, boot, limits)

    def _open_identity(self) -> DataDirectory | MemoryIdentity:
        cluster = self._config.cluster
        if self._config.data is None or cluster.durability == "memory":
            return MemoryIdentity()
        owner = Owner(cluster.cluster, self._config.me, len(cluster.replicas), cluster.protocol)
        identity = DataDirectory(self._config.data, owner)
        self._stack.callback(identity.close)
        return identity

    def _bind(self) -> dict[str, socket.socket]:
        """All addresses, before anything slow: a port in use is known at once."""
        member = self._config.member
        listeners = {}
        for name in ("peer", "client", "http"):
            port = getattr(member, f"{name}_port")
            listener = _bind(member.host, port, f"{name}_port")
            self._stack.callback(listener.close)
            listeners[name] = listener
            host = f"[{member.host}]" if ":" in member.host else member.host
            address = f"{host}:{listener.getsockname()[1]}"
            self._addresses[name] = f"http://{address}" if name == "http" else address
        return listeners

    def _open_log(
        self, identity: DataDirectory | MemoryIdentity, node: Node | Recorder, codec: Codec
    ) -> Wal | None:
        if isinstance(identity, MemoryIdentity):
            return None
        wal = Wal(identity.wal_path, self._config.cluster.cluster, self._config.me)
        self._stack.callback(wal.abandon)
        started, count = clock(), 0
        gc.disable()  # Nothing of a replay is garbage, and there may be millions of objects.
        try:
            for record in wal.replay(codec):
                node.restore(record)
                count += 1
        finally:
            gc.enable()
        if wal.warning is not None:
            log.warning(wal.warning)
        identity.check_log(wal.boot)
        wal.record_boot(identity.boot)
        identity.advance()
        self._stack.callback(self._close_log, wal)
        log.info("log replayed", records=count, boot=identity.boot, ms=(clock() - started) // 1000)
        return wal

    def _close_log(self, wal: Wal) -> None:
        """After a failure nothing more is written."""
        if not self._failed.done():
            wal.close()

    def _make_transport(
        self,
        identity: DataDirectory | MemoryIdentity,
        codec: Codec,
        driver: Driver,
        distances: "_Distances",
        fail: Callable[[BaseException], None],
    ) -> Transport:
        cluster, me = self._config.cluster, self._config.me
        return Transport(
            LinkHello(
                PROTOCOL_VERSION,
                cluster.cluster,
                me,
                me,
                identity.boot,
                identity.nonce,
                cluster.protocol,
                len(cluster.replicas),
                config_hash(cluster),
            ),
            [(member.host, member.peer_port) for member in cluster.replicas],
            codec,
            identity,
            driver,
            fail,
            lines=distances.lines(driver) if cluster.emulate else None,
            seed=f"{cluster.seed} links {me}",
        )

    def _make_http(self, parts: Parts, status: StatusView, connections: int) -> HttpPort:
        cluster = self._config.cluster
        return HttpPort(
            parts.driver,
            status,
            LinkSettings(self._config, parts.transport.lines),
            body_bytes=cluster.body_bytes,
            patience_us=cluster.patience_ms * 1000,
            connections=connections,
            loopback=is_loopback(self._config.member.host),
        )


class _Distances:
    """What the topology says of this cluster, as seen from one replica."""

    def __init__(self, cluster: Cluster, me: ReplicaId) -> None:
        self._cluster = cluster
        self._me = me
        n = len(cluster.replicas)
        self.titles = [member.region for member in cluster.replicas]
        """What people call each member's region."""
        if not cluster.topology:
            self.rtt_us: tuple[Micros, ...] = tuple(
                0 if i == me else RTT_UNKNOWN_US for i in range(n)
            )
            return
        self._topology = topology.find(cluster.topology)
        self._index = [self._topology.index(member.region) for member in cluster.replicas]
        self.titles = [self._topology.regions[i].title for i in self._index]
        here = self._index[me]
        self.rtt_us = tuple(
            0 if i == me else self._topology.rtt_us(here, there)
            for i, there in enumerate(self._index)
        )

    def lines(self, driver: Driver) -> DelayLines:
        """A delay line from each peer."""
        here = self._index[self._me]
        lines = {
            i: DelayLine(
                self._topology.one_way_us(there, here),
                self._topology.jitter(there, here),
                self._topology.loss(there, here),
                f"{self._cluster.seed} line {i} {self._me}",
            )
            for i, there in enumerate(self._index)
            if i != self._me
        }
        return DelayLines(asyncio.get_running_loop(), lines, driver.deliver)


def _bind(host: str, port: int, key: str) -> socket.socket:
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise AddressError(f"host {host!r} is not an address: {error.strerror}") from error
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind(address)
        # Without this, two processes may bind the same port until one of them listens.
        listener.listen(128)
    except OSError as error:
        listener.close()
        what = "is in use by another process" if error.errno == errno.EADDRINUSE else str(error)
        raise AddressError(
            f"{host}:{port} ({key}) {what}; stop it, or choose another port"
        ) from error
    return listener


def _descriptors() -> int:
    """How many connections a client port may hold."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        soft = hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, (soft - _RESERVED_FILES) // 2)
