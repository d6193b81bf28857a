"""What a running replica says of itself: the documents of /v1/status and /metrics.

Counters live with whoever counts; here they are only collected, when somebody asks.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

import epaxos
from epaxos.core.quorum import quorums
from epaxos.core.types import replica_name
from epaxos.node.node import Node
from epaxos.runtime.alarm import clock
from epaxos.runtime.binary import ClientPort
from epaxos.runtime.config import ServeConfig
from epaxos.runtime.driver import Driver
from epaxos.runtime.metrics import Distribution
from epaxos.runtime.transport import Transport
from epaxos.runtime.wal import Wal

_WAN_BOUNDS_US: Final = [round(1000 * 2 ** (i / 2)) for i in range(31)]
"""1 ms to 32 s, two per doubling."""
_LOCAL_BOUNDS_US: Final = [round(50 * 2 ** (i / 2)) for i in range(31)]
"""50 µs to 1.6 s."""


@dataclass
class Parts:
    """The running replica, taken apart."""

    config: ServeConfig
    boot: int
    node: Node
    driver: Driver
    transport: Transport
    log: Wal | None
    clients: ClientPort
    started: int
    """When, on `clock`."""


def status_document(
    parts: Parts, unready: str | None, node: dict[str, Any] | None, http: dict[str, int]
) -> dict[str, Any]:
    """`/v1/status`. Times are in µs unless a name says otherwise."""
    config, driver = parts.config, parts.driver
    cluster = config.cluster
    n = len(cluster.replicas)
    return {
        "version": epaxos.__version__,
        "replica": replica_name(config.me),
        "region": config.member.region,
        "cluster": cluster.cluster,
        "protocol": cluster.protocol,
        "durability": cluster.durability,
        "topology": cluster.topology,
        "emulate": cluster.emulate,
        "gate": cluster.gate,
        "quorums": quorums(n)._asdict(),
        "members": [
            {"replica": replica_name(i), "region": member.region}
            for i, member in enumerate(cluster.replicas)
        ],
        "boot": parts.boot,
        "uptime_s": (clock() - parts.started) / 1e6,
        "ready": unready is None,
        "unready": unready,
        "node": node,
        "counters": parts.node.statistics(),
        "commits": {path.name.lower(): count for path, count in driver.commits.items()},
        "commands": driver.commands,
        "refusals": driver.refusals,
        "latency": {
            "commit": driver.commit_latency.summary(),
            "execute": driver.execute_latency.summary(),
        },
        "messages": _messages(parts.transport),
        "peers": _peers(parts),
        "links": link_documents(parts) or [],
        "link_error": parts.transport.lines.error.summary() if parts.transport.lines else None,
        "log": {
            "bytes": parts.log.bytes if parts.log else 0,
            "syncs": driver.sync_latency.count,
            "sync": driver.sync_latency.summary(),
        },
        "clients": {
            "binary": parts.clients.connections,
            "binary_in_flight": parts.clients.in_flight,
            **http,
        },
        "process": {
            "pid": os.getpid(),
            "cpu_s": time.process_time(),
            "rss_bytes": _rss_bytes(),
            "ticks": driver.ticks,
            "loop_lag": driver.lag.summary(),
        },
    }


def histograms_document(parts: Parts) -> dict[str, Any]:
    """For /v1/histograms: everything since the process began, for whoever wants a stretch of it.
    µs, HDR V2."""
    driver, lines = parts.driver, parts.transport.lines
    return {
        "replica": replica_name(parts.config.me),
        "boot": parts.boot,
        "commit": driver.commit_latency.encoded(),
        "execute": driver.execute_latency.encoded(),
        "sync": driver.sync_latency.encoded(),
        "loop_lag": driver.lag.encoded(),
        "link_error": lines.error.encoded() if lines else None,
    }


def link_documents(parts: Parts) -> list[dict[str, Any]] | None:
    """Settings of the emulated incoming links; None where there are none."""
    lines = parts.transport.lines
    if lines is None:
        return None
    return [
        {
            "from": replica_name(source),
            "to": replica_name(parts.config.me),
            "region": parts.config.cluster.replicas[source].region,
            "delay_ms": line.delay_us / 1000,
            "loss": line.loss,
            "cut": line.cut,
            "dropped": line.dropped,
        }
        for source, line in lines.lines.items()
    ]


def _messages(transport: Transport) -> dict[str, Any]:
    return {
        "sent": {
            kind.__name__: {"count": count, "bytes": size}
            for kind, (count, size) in transport.sent.items()
        },
        "received": {kind.__name__: count for kind, count in transport.received.items()},
        "malformed": transport.malformed,
    }


def _peers(parts: Parts) -> list[dict[str, Any]]:
    transport = parts.transport
    return [
        {
            "replica": replica_name(peer),
            "region": parts.config.cluster.replicas[peer].region,
            "linked": transport.linked(peer),
            "sent_messages": link.messages,
            "sent_bytes": link.bytes,
            "dropped": link.dropped,
            "reconnects": max(0, link.reconnects),
            "refusal": link.refusal or None,
        }
        for peer, link in transport.outbound.items()
    ]


def _rss_bytes() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


class _ReplicaCollector(Collector):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        """Every metric, from the counters as they stand."""
        parts = self._parts
        driver = parts.driver
        yield _counter(
            "commits",
            "Own batches decided",
            "path",
            {path.name.lower(): count for path, count in driver.commits.items()},
        )
        yield CounterMetricFamily(
            "epaxos_commands", "Commands executed for clients", value=driver.commands
        )
        yield _counter("refusals", "Commands refused", "code", driver.refusals)
        yield _histogram(
            "commit_latency", "Arrival to commit", driver.commit_latency, _WAN_BOUNDS_US
        )
        yield _histogram(
            "execute_latency", "Arrival to answer", driver.execute_latency, _WAN_BOUNDS_US
        )
        yield _histogram("sync", "Duration of fdatasync", driver.sync_latency, _LOCAL_BOUNDS_US)
        yield _histogram(
            "event_loop_lag", "How late the event loop calls back", driver.lag, _LOCAL_BOUNDS_US
        )
        if parts.transport.lines is not None:
            yield _histogram(
                "link_error",
                "Error of the emulated delays",
                parts.transport.lines.error,
                _LOCAL_BOUNDS_US,
            )
        yield from self._links()
        if parts.log is not None:
            yield GaugeMetricFamily("epaxos_log_bytes", "Size of the log", value=parts.log.bytes)
        yield GaugeMetricFamily(
            "epaxos_client_connections", "Binary clients", value=parts.clients.connections
        )
        yield from self._memory()
        family = GaugeMetricFamily(
            "epaxos_node", "Counters of node and protocol", labels=["counter"]
        )
        for name, value in parts.node.statistics().items():
            family.add_metric([name], value)
        yield family

    def _memory(self) -> Iterator[Metric]:
        replica = self._parts.node.replica
        yield GaugeMetricFamily(
            "epaxos_live_bytes", "Memory of what cannot be forgotten yet", value=replica.live_bytes
        )
        family = GaugeMetricFamily(
            "epaxos_slowest_member",
            "The member that holds forgetting back the most",
            labels=["replica"],
        )
        slowest = replica.slowest_member()
        if slowest is not None:
            family.add_metric([replica_name(slowest)], 1)
        yield family

    def _links(self) -> Iterator[Metric]:
        transport = self._parts.transport
        messages = CounterMetricFamily(
            "epaxos_messages", "Messages between replicas", labels=["type", "direction"]
        )
        for kind, (count, _) in transport.sent.items():
            messages.add_metric([kind.__name__, "sent"], count)
        for kind, count in transport.received.items():
            messages.add_metric([kind.__name__, "received"], count)
        yield messages
        sent_bytes = {kind.__name__: size for kind, (_, size) in transport.sent.items()}
        yield _counter("message_bytes", "Bytes of messages sent", "type", sent_bytes)
        names = {peer: replica_name(peer) for peer in transport.outbound}
        links = transport.outbound.items()
        yield _counter(
            "peer_bytes",
            "Bytes written to a peer",
            "peer",
            {names[peer]: link.bytes for peer, link in links},
        )
        yield _counter(
            "peer_dropped",
            "Messages to a peer that were dropped",
            "peer",
            {names[peer]: link.dropped for peer, link in links},
        )
        linked = GaugeMetricFamily("epaxos_peer_linked", "Linked both ways", labels=["peer"])
        for peer in transport.outbound:
            linked.add_metric([names[peer]], transport.linked(peer))
        yield linked
        yield CounterMetricFamily(
            "epaxos_malformed", "Peer links closed for what they sent", value=transport.malformed
        )


def make_registry(parts: Parts) -> CollectorRegistry:
    """What /metrics shows."""
    registry = CollectorRegistry()
    registry.register(_ReplicaCollector(parts))
    ProcessCollector(registry=registry)
    return registry


def metrics_text(registry: CollectorRegistry) -> bytes:
    """`/metrics`."""
    return generate_latest(registry)


def _counter(name: str, text: str, label: str, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(f"epaxos_{name}", text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def _histogram(name: str, text: str, values: Distribution, bounds_us: list[int]) -> Metric:
    family = HistogramMetricFamily(f"epaxos_{name}_seconds", text)
    family.add_metric([], values.buckets(bounds_us), values.total / 1e6)
    return family
