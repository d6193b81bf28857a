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
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any, Final

import structlog
from aiohttp import web

import topology
from epaxos.codec import PROTOCOL_VERSION, Codec, ServerHello
from epaxos.core.errors import AddressError, ConfigError
from epaxos.core.quorum import quorums
from epaxos.core.replica import Message, Setup
from epaxos.core.types import Micros, ReplicaId, replica_name
from epaxos.node.node import AskStatus, Limits, Node, node_with
from epaxos.registry import ProtocolSpec, find_protocol, find_state_machine
from epaxos.runtime.alarm import clock
from epaxos.runtime.binary import ClientPort
from epaxos.runtime.config import (
    Cluster,
    ServeConfig,
    config_hash,
    find_member,
    first_leader,
    is_loopback,
)
from epaxos.runtime.delay import DelayLine, DelayLines
from epaxos.runtime.driver import Driver
from epaxos.runtime.exposition import (
    Parts,
    histograms_document,
    link_documents,
    make_registry,
    metrics_text,
    status_document,
)
from epaxos.runtime.http import HttpPort, LinkChange
from epaxos.runtime.identity import DataDirectory, MemoryIdentity, Owner
from epaxos.runtime.recorder import Recorder, Send, start_recording
from epaxos.runtime.transport import LinkHello, Transport
from epaxos.runtime.wal import Wal
from epaxos.runtime.webserver import WebServer

RTT_UNKNOWN_US: Final = 50_000
"""Expected round trip where no topology says one."""
_GC_THRESHOLD: Final = 100_000
_RESERVED_FILES: Final = 128
"""Descriptors that clients never get: links, log, alarms."""
_READY_POLL_S: Final = 0.02

log = structlog.get_logger()

Announce = Callable[[dict[str, Any]], None]


def run(config: ServeConfig, announce: Announce) -> None:
    """Run a replica until SIGTERM or SIGINT.

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

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    loop.set_exception_handler(_on_loop_error)
    async with Server(config) as server:
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
    """A running replica: `async with Server(config)`. Is the `Backend` of its HTTP port."""

    def __init__(self, config: ServeConfig) -> None:
        self.config = config
        self.draining = False
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Ends with an exception when the replica cannot go on."""
        self.addresses: dict[str, str] = {}
        """Where `http`, `client` and `peer` listen."""
        self._started = False
        self._stack = ExitStack()
        self._runner: web.ServerRunner | None = None
        self._parts: Parts
        self._http: HttpPort
        self._titles: list[str]
        """What people call each member's region."""
        self._web: WebServer

    async def __aenter__(self) -> "Server":
        try:
            await self._start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def wait_ready(self, announce: Announce) -> None:
        """Tell `announce` where the replica listens, as soon as /readyz says yes."""
        last = ""
        while (why := self.unready()) is not None:
            if why != last:
                log.info("not ready yet", why=why)
                last = why
            await asyncio.sleep(_READY_POLL_S)
        log.info("ready", **self.addresses)
        me = self.config.me
        announce(
            {
                "ready": True,
                "replica": replica_name(me),
                "region": self.config.member.region,
                **self.addresses,
            }
        )

    async def drain(self) -> None:
        """Take nothing new, and wait for what is in flight as long as the grace lasts."""
        self.draining = True
        log.info("stopping")
        clients = self._parts.clients
        clients.drain()
        if self._runner is not None:
            for site in list(self._runner.sites):
                await site.stop()
        deadline = clock() + self.config.cluster.grace_ms * 1000
        # Polled, so that no counter on the hot path has to ring a bell that only a stop listens to.
        while (clients.in_flight or self._http.in_flight) and clock() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_READY_POLL_S)
        log.info("stopped", unanswered=clients.in_flight + self._http.in_flight)

    # Backend of the HTTP port

    def unready(self) -> str | None:
        if self.draining:
            return "this replica is stopping"
        if not self._started:
            return "this replica is starting"
        n = len(self.config.cluster.replicas)
        linked, needed = self._parts.transport.link_count(), quorums(n).slow - 1
        if linked < needed:
            return f"linked to {linked} of {n - 1} peers, a quorum needs {needed}"
        return self._parts.node.unready()

    async def status(self) -> dict[str, Any]:
        told = await self._parts.driver.ask(AskStatus())
        http = {"http": len(self._web.connections), "http_in_flight": self._http.in_flight}
        return status_document(self._parts, self.unready(), told.document, http)

    def whereabouts(self) -> dict[str, Any]:
        titles = self._titles
        return {
            "replica": replica_name(self.config.me),
            "region": titles[self.config.me],
            "regions": {replica_name(member): title for member, title in enumerate(titles)},
            "per_second": self.config.cluster.explain_per_s,
        }

    def metrics(self) -> bytes:
        return metrics_text(self._registry)

    def histograms(self) -> dict[str, Any]:
        return histograms_document(self._parts)

    def find(self, text: str) -> ReplicaId:
        return find_member(self.config.cluster, text)

    def links(self) -> list[dict[str, Any]] | None:
        if not self.config.cluster.admin or not is_loopback(self.config.member.host):
            return None
        return link_documents(self._parts)

    def change_links(self, change: LinkChange) -> None:
        lines = self._parts.transport.lines
        assert lines is not None
        if change.delay_ms is not None and not 0 <= change.delay_ms <= 60_000:
            raise ConfigError(f"delay_ms = {change.delay_ms} must be between 0 and 60000")
        if change.loss is not None and not 0 <= change.loss <= 1:
            raise ConfigError(f"loss = {change.loss} must be between 0 and 1")
        if change.source == "*":
            sources = list(lines.lines)
        else:
            sources = [self.find(change.source)]
            if sources[0] not in lines.lines:
                raise ConfigError(f"from = {change.source!r} is this replica; name another")
        for source in sources:
            line = lines.lines[source]
            lines.change(
                source,
                line.delay_us if change.delay_ms is None else round(change.delay_ms * 1000),
                line.loss if change.loss is None else change.loss,
                line.cut if change.cut is None else change.cut,
            )
        log.info(
            "links changed",
            source=change.source,
            delay_ms=change.delay_ms,
            loss=change.loss,
            cut=change.cut,
        )

    # Start and stop

    async def _start(self) -> None:
        cluster, me = self.config.cluster, self.config.me
        spec = find_protocol(cluster.protocol)
        codec = Codec(spec)
        distances = _Distances(cluster, me)
        self._titles = distances.titles
        identity = self._open_identity()
        listeners = self._bind()
        seed = f"{cluster.seed} node {me} {identity.boot}"
        node = self._make_node(spec, identity.boot, distances.rtt_us, seed)
        driven: Node | Recorder = node

        def relay(messages: Iterable[tuple[ReplicaId, Message]]) -> None:
            transport.send(messages)

        send: Send = relay
        if cluster.record:
            driven = start_recording(
                node, self.config, identity.boot, seed, distances.rtt_us, distances.titles
            )
            send = driven.sending(send)
            self._stack.callback(driven.close)
        log_file = self._open_log(identity, driven, codec)
        driver = Driver(driven, log_file, send, self._fail)
        self._stack.callback(driver.stop)
        transport = Transport(
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
            identity.peers,
            driver.deliver,
            self._fail,
            lines=distances.lines(driver) if cluster.emulate else None,
            seed=f"{cluster.seed} links {me}",
        )
        connections = min(cluster.connections, _descriptors())
        hello = ServerHello(PROTOCOL_VERSION, cluster.cluster, me, self.config.member.region)
        clients = ClientPort(driver, hello, cluster.patience_ms * 1000, connections)
        self._parts = Parts(
            self.config, identity.boot, node, driver, transport, log_file, clients, clock()
        )
        self._registry = make_registry(self._parts)
        await transport.start(listeners["peer"])
        driver.start()
        await clients.start(listeners["client"])
        await self._start_http(driver, listeners["http"], connections)
        self._started = True

    def _make_node(
        self, spec: ProtocolSpec, boot: int, rtt_us: tuple[Micros, ...], seed: str
    ) -> Node:
        cluster = self.config.cluster
        setup = Setup(
            me=self.config.me,
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
        cluster = self.config.cluster
        if self.config.data is None or cluster.durability == "memory":
            return MemoryIdentity()
        owner = Owner(cluster.cluster, self.config.me, len(cluster.replicas), cluster.protocol)
        identity = DataDirectory(self.config.data, owner)
        self._stack.callback(identity.close)
        return identity

    def _bind(self) -> dict[str, socket.socket]:
        """All addresses, before anything slow: a port in use is known at once."""
        member = self.config.member
        listeners = {}
        for name in ("peer", "client", "http"):
            port = getattr(member, f"{name}_port")
            listener = _bind(member.host, port, f"{name}_port")
            self._stack.callback(listener.close)
            listeners[name] = listener
            host = f"[{member.host}]" if ":" in member.host else member.host
            address = f"{host}:{listener.getsockname()[1]}"
            self.addresses[name] = f"http://{address}" if name == "http" else address
        return listeners

    def _open_log(
        self, identity: DataDirectory | MemoryIdentity, node: Node | Recorder, codec: Codec
    ) -> Wal | None:
        if isinstance(identity, MemoryIdentity):
            return None
        wal = Wal(identity.wal_path, self.config.cluster.cluster, self.config.me)
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
        log.info("log replayed", records=count, boot=identity.boot, ms=(clock() - started) // 1000)
        return wal

    async def _start_http(self, driver: Driver, listener: socket.socket, connections: int) -> None:
        cluster = self.config.cluster
        self._http = HttpPort(
            driver,
            self,
            body_bytes=cluster.body_bytes,
            patience_us=cluster.patience_ms * 1000,
            loopback=is_loopback(self.config.member.host),
        )
        self._web = WebServer(self._http.handle, connections)
        # The grace was given by `drain`; what is still open then is closed.
        self._runner = web.ServerRunner(self._web, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()

    async def _close(self) -> None:
        parts = getattr(self, "_parts", None)
        if parts is not None:
            parts.clients.close()
        if self._runner is not None:
            await self._runner.cleanup()
        if parts is not None:
            parts.driver.stop()
            await parts.transport.close()
            if parts.log is not None and not self.failed.done():
                parts.log.close()
        self._stack.close()

    def _fail(self, error: BaseException) -> None:
        """The first failure ends the replica."""
        if not self.failed.done():
            self._parts.driver.stop()
            self.failed.set_exception(error)


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
