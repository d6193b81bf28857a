"""The text of /metrics, in the exposition format of Prometheus.

Counters live with whoever counts; here they are only collected, when somebody asks.
"""

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from epaxos.core.types import replica_name
from epaxos.runtime.metrics import Distribution
from epaxos.runtime.parts import Parts

_WAN_BOUNDS_US: Final = [round(1000 * 2 ** (i / 2)) for i in range(31)]
"""1 ms to 32 s, two per doubling."""
_LOCAL_BOUNDS_US: Final = [round(50 * 2 ** (i / 2)) for i in range(31)]
"""50 µs to 1.6 s."""


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
        yield CounterMetricFamily(
            "epaxos_answer_faults",
            "Answers that could not be given: their connections were closed",
            value=driver.faults,
        )
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
        yield _counter(
            "peer_pauses",
            "How often a peer was not read for a while, since too much of it waited here",
            "peer",
            {names[peer]: transport.pauses.get(peer, 0) for peer in transport.outbound},
        )
        waiting = GaugeMetricFamily(
            "epaxos_peer_backlog", "Messages of a peer that wait to be dealt with", labels=["peer"]
        )
        unsent = GaugeMetricFamily(
            "epaxos_peer_unsent_bytes", "Bytes that wait for a peer to read", labels=["peer"]
        )
        for peer, link in links:
            waiting.add_metric([names[peer]], self._parts.driver.backlog.messages(peer))
            unsent.add_metric([names[peer]], link.unsent)
        yield waiting
        yield unsent
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
