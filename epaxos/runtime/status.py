"""What a running replica says of itself: readiness, /v1/status, /v1/histograms, /metrics.

Read from whoever counts, when somebody asks. The part of /v1/status that is the node's own comes
from the node, by a question (R10), and is handed in.
"""

import os
import time
from typing import Any

import epaxos
from epaxos.core.quorum import quorums
from epaxos.core.types import ReplicaId, replica_name
from epaxos.runtime.alarm import clock
from epaxos.runtime.config import find_member
from epaxos.runtime.exposition import make_registry, metrics_text
from epaxos.runtime.links import link_documents
from epaxos.runtime.parts import Parts
from epaxos.runtime.transport import Transport


class StatusView:
    """A view of the parts of a replica; it changes nothing."""

    def __init__(self, parts: Parts, titles: list[str]) -> None:
        self._parts = parts
        self._titles = titles
        """What people call each member's region."""
        self._registry = make_registry(parts)

    @property
    def draining(self) -> bool:
        """Whether the replica is stopping: it takes no new commands."""
        return self._parts.clients.draining

    def unready(self) -> str | None:
        """Why /readyz says no; None: it says yes."""
        if self.draining:
            return "this replica is stopping"
        n = len(self._parts.config.cluster.replicas)
        linked, needed = self._parts.transport.link_count(), quorums(n).slow - 1
        if linked < needed:
            return f"linked to {linked} of {n - 1} peers, a quorum needs {needed}"
        return self._parts.node.unready()

    def document(self, node: dict[str, Any] | None, http: dict[str, int]) -> dict[str, Any]:
        """`/v1/status`, with the node's answer to `AskStatus` and the counts of the HTTP port.

        Times are in µs unless a name says otherwise."""
        return _document(self._parts, self.unready(), node, http)

    def identity(self) -> dict[str, Any]:
        """What an explanation begins with: who this is, where all are, how much is sampled."""
        me, titles = self._parts.config.me, self._titles
        return {
            "replica": replica_name(me),
            "region": titles[me],
            "regions": {replica_name(member): title for member, title in enumerate(titles)},
            "per_second": self._parts.config.cluster.explain_per_s,
        }

    def metrics(self) -> bytes:
        """`/metrics`."""
        return metrics_text(self._registry)

    def histograms(self) -> dict[str, Any]:
        """`/v1/histograms`: everything since the process began, for whoever wants a stretch of it.
        µs, HDR V2."""
        return _histograms(self._parts)

    def find(self, text: str) -> ReplicaId:
        """A replica by region or letter. Raises ConfigError."""
        return find_member(self._parts.config.cluster, text)


def _document(
    parts: Parts, unready: str | None, node: dict[str, Any] | None, http: dict[str, int]
) -> dict[str, Any]:
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
        "links": link_documents(config, parts.transport.lines) or [],
        "link_error": parts.transport.lines.error.summary() if parts.transport.lines else None,
        "log": {
            "bytes": parts.log.bytes if parts.log else 0,
            "syncs": driver.sync_latency.count,
            "sync": driver.sync_latency.summary(),
        },
        "clients": {
            "binary": parts.clients.connections,
            "binary_in_flight": parts.clients.in_flight,
            "answer_faults": driver.faults,
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


def _histograms(parts: Parts) -> dict[str, Any]:
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
            "unsent_bytes": link.unsent,
            "backlog": parts.driver.backlog.messages(peer),
            "paused": transport.is_paused(peer),
            "pauses": transport.pauses.get(peer, 0),
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
