"""Injects a fault timeline into a cluster: into real replicas, and in virtual time.

A real crash is SIGKILL, and a restart from the data directory; a pause is SIGSTOP and SIGCONT;
links are cut and slowed, and leadership is moved, over HTTP. In virtual time the world does the
same to its processes and links. A cut also loses what is on its way, in both.

Rules of this file: when a fault ends, nothing of it is left; at the end of a trial, nothing of any
but the dead. What really happened is told with its times.
"""

import json
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

from bench.clusters.counters import Status
from bench.clusters.faults import Fault, Happened
from bench.clusters.local import READY_WITHIN_S, LocalCluster
from bench.clusters.virtual import VirtualCluster
from epaxos.core.errors import EpaxosError
from epaxos.core.types import Micros
from topology import Topology

_ASK_WITHIN_S: Final = 2.0
"""How long a replica may take for a question about its links, counters or leader."""
_FOR_EVER_US: Final = 1 << 60

NowS: TypeAlias = Callable[[], float]
"""The time, in seconds from the start of what is measured."""


@dataclass
class _Underway:
    """A fault that has begun."""

    fault: Fault
    at_s: float
    until_s: float | None = None
    failed: str = ""

    def told(self) -> Happened:
        """What became of it."""
        return Happened(
            at_s=round(self.at_s, 3),
            until_s=None if self.until_s is None else round(self.until_s, 3),
            kind=self.fault.kind,
            region=self.fault.region,
            factor=self.fault.factor,
            failed=self.failed,
        )


class Links:
    """What partitions and slow regions make of all links together."""

    def __init__(self, sites: Topology) -> None:
        self._sites = sites
        self._faults: list[Fault] = []

    def begin(self, fault: Fault) -> None:
        self._faults.append(fault)

    def end(self, fault: Fault) -> None:
        self._faults.remove(fault)

    def into(self, target: int) -> list[dict[str, Any]]:
        """The links that end at a replica, as `PUT /v1/links` takes them."""
        regions = self._sites.regions
        found = []
        for source in range(self._sites.n):
            if source == target:
                continue
            ends = {regions[source].name, regions[target].name}
            on_it = [fault for fault in self._faults if fault.region in ends]
            delay_us = float(self._sites.one_way_us(source, target))
            for fault in on_it:
                delay_us *= fault.factor
            cut = any(fault.kind == "partition" for fault in on_it)
            delay_ms = round(delay_us / 1000, 3)
            found.append({"from": regions[source].name, "delay_ms": delay_ms, "cut": cut})
        return found


class RealFaults:
    """The timeline of a cluster of processes; `poll` does what is due. It has to be called in the
    thread that started the cluster: a replica ends with the thread it was started in."""

    def __init__(self, cluster: LocalCluster, timeline: Sequence[Fault]) -> None:
        self.killed: dict[int, str] = {}
        """Replicas that are dead because of a fault, and their regions."""
        self.ended: list[Status] = []
        """The last counters of processes that were killed."""
        self.excused: set[int] = set()
        """Replicas that were late because of a fault: they stood still, or had to start."""
        self._cluster = cluster
        self._sites = cluster.topology
        self._links = Links(self._sites)
        self._told = [json.dumps(self._links.into(i)) for i in range(self._sites.n)]
        """What each replica was told last of its links."""
        self._happened: list[_Underway] = []
        self._starting: list[_Underway] = []
        """Crashes whose replica is starting again."""
        self._stopped: set[int] = set()
        """Standing still now."""
        self._due: list[tuple[float, int, Callable[[NowS], None]]] = []
        for fault in timeline:
            self._plan(fault.at_s, partial(self._begin, fault))

    def _plan(self, at_s: float, action: Callable[[NowS], None]) -> None:
        self._due.append((at_s, len(self._due), action))
        self._due.sort()

    def poll(self, now_s: NowS) -> float | None:
        """Do what is due; when something is due next."""
        while self._due and self._due[0][0] <= now_s():
            _, _, action = self._due.pop(0)
            action(now_s)
        for crash in list(self._starting):
            process = self._cluster.processes[self._index(crash)]
            if process.ready:
                crash.until_s = now_s()
                self._alive(crash)
        return self._due[0][0] if self._due else None

    def finish(self, now_s: NowS) -> list[Happened]:
        """End what has not ended, and wait for who is starting; what happened, in order of time.
        The dead stay dead."""
        for underway in self._happened:
            if underway.until_s is None and underway.fault.kind in ("pause", "partition", "slow"):
                self._end(underway, now_s)
        limit = time.monotonic() + READY_WITHIN_S
        for crash in list(self._starting):
            try:
                self._cluster.processes[self._index(crash)].wait_ready(limit)
                crash.until_s = now_s()
            except EpaxosError as error:
                crash.failed = str(error)
            self._alive(crash)
        return [underway.told() for underway in self._happened]

    # One fault ---------------------------------------------------------------------------------

    def _index(self, underway: _Underway) -> int:
        return self._sites.index(underway.fault.region)

    def _begin(self, fault: Fault, now_s: NowS) -> None:
        underway = _Underway(fault, fault.at_s)
        self._happened.append(underway)
        index = self._index(underway)
        if fault.kind == "crash":
            with suppress(EpaxosError):  # then what it did since the last time is not counted
                self.ended.append(self._cluster.processes[index].status(_ASK_WITHIN_S))
            self.killed[index] = fault.region
            self.excused.add(index)
            self._cluster.kill(index)
        elif fault.kind == "pause":
            self.excused.add(index)
            self._stopped.add(index)
            self._cluster.kill(index, signal.SIGSTOP)
        elif fault.kind == "leader":
            underway.failed = self._move_leader(fault.region)
        else:
            self._links.begin(fault)
            self._tell_links(underway)
        underway.at_s = now_s()
        if fault.until_s is not None:
            self._plan(fault.until_s, partial(self._end, underway))

    def _end(self, underway: _Underway, now_s: NowS) -> None:
        index, kind = self._index(underway), underway.fault.kind
        if kind == "crash":
            self._cluster.processes[index].start()
            self._starting.append(underway)
            return
        if kind == "pause":
            self._cluster.kill(index, signal.SIGCONT)
            self._stopped.discard(index)
        else:
            self._links.end(underway.fault)
        self._tell_links(underway)
        underway.until_s = now_s()

    def _alive(self, crash: _Underway) -> None:
        """A killed replica runs again; of its links it knows nothing."""
        index = self._index(crash)
        self._starting.remove(crash)
        if self._cluster.processes[index].running:
            self.killed.pop(index, None)
            self._told[index] = json.dumps(Links(self._sites).into(index))
            self._tell_links(crash)

    def _tell_links(self, underway: _Underway) -> None:
        """Let each replica know of its links what is new to it."""
        processes = self._cluster.processes
        wanted = [self._links.into(i) for i in range(self._sites.n)]
        texts = [json.dumps(each) for each in wanted]
        news = [
            i
            for i, process in enumerate(processes)
            if texts[i] != self._told[i] and process.running and i not in self._stopped
        ]

        def tell(i: int) -> None:
            try:
                processes[i].ask("/v1/links", wanted[i], "PUT", _ASK_WITHIN_S)
                self._told[i] = texts[i]
            except EpaxosError as error:
                underway.failed = str(error)

        with ThreadPoolExecutor(self._sites.n) as threads:
            list(threads.map(tell, news))

    def _move_leader(self, region: str) -> str:
        """Ask who leads; why that failed."""
        why = "no replica leads"
        for i, process in enumerate(self._cluster.processes):
            if not process.running or i in self._stopped:
                continue
            try:
                status = process.status(_ASK_WITHIN_S)
                if status["node"].get("leader") == status["replica"]:
                    process.ask("/v1/leader", {"to": region}, "POST", _ASK_WITHIN_S)
                    return ""
            except EpaxosError as error:
                why = str(error)
        return why


# Virtual time ----------------------------------------------------------------------------------


def plan_virtual(
    cluster: VirtualCluster, timeline: Sequence[Fault], begin: Micros
) -> Callable[[], list[Happened]]:
    """Put a timeline on the world's clock, on which what is measured starts at `begin`; gives what
    happened, once all is over."""
    world = cluster.world

    def now_s() -> float:
        return (world.now - begin) / 1e6

    happened: list[_Underway] = []
    for fault in timeline:
        underway = _Underway(fault, fault.at_s)
        happened.append(underway)
        start, stop = _virtual(cluster, underway, begin, now_s)
        world.at(begin + round(fault.at_s * 1e6), start)
        if fault.until_s is not None:
            world.at(begin + round(fault.until_s * 1e6), stop)
    return lambda: [underway.told() for underway in happened]


def _virtual(
    cluster: VirtualCluster, underway: _Underway, begin: Micros, now_s: NowS
) -> tuple[Callable[[], None], Callable[[], None]]:
    """How a fault begins and how it ends."""
    world, fault = cluster.world, underway.fault
    member = cluster.topology.index(fault.region)
    others = [other for other in range(cluster.topology.n) if other != member]
    pairs = [pair for other in others for pair in ((member, other), (other, member))]

    def start() -> None:
        if fault.kind == "crash":
            world.crash(member)
        elif fault.kind == "pause":
            until_s = fault.until_s
            end = _FOR_EVER_US if until_s is None else begin + round(until_s * 1e6)
            world.processes[member].paused_until = end
        elif fault.kind == "partition":
            world.network.sever(pairs)
        elif fault.kind == "slow":
            cluster.links.slowness[member] = fault.factor
        else:
            world.transfer(member)

    def stop() -> None:
        underway.until_s = now_s()
        if fault.kind == "crash":
            world.start(member)
        elif fault.kind == "partition":
            world.network.mend(pairs)
        elif fault.kind == "slow":
            del cluster.links.slowness[member]

    return start, stop
