"""The history of one load on a cluster: where it is kept, what is read after it, its verdict.

When a load is over and counted, every key that it wrote is read once more, through every living
replica; where these were too many reads, through one of them, taken in turns. Else a load of writes
alone would have nothing to say, and nobody would notice a write that was acknowledged and lost.
These reads are part of the history and of no figure.

Rules of this file: what is read back is asked of replicas that are there; one that is not says
nothing, and nothing is wrong with that.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from bench.clusters.local import LocalCluster
from bench.clusters.virtual import VirtualCluster
from bench.history.calls import ABSENT, OTHER, HistoryWriter
from bench.history.judge import HistoryVerdict, judge, unfinished
from bench.history.reading import ReadHistory, read_lines
from bench.load.connection import Connection, connect
from epaxos.codec import ClientAnswer, ClientRefusal, ClientRequest, encode_frame
from epaxos.core.command import Operation
from epaxos.core.errors import CodecError
from epaxos.core.types import Micros
from epaxos.node.requests import Refusal, Reply, Request
from epaxos.runtime.alarm import clock

FOLDER: Final = "history"
"""Of the histories of a cluster's loads, below its directory."""
_EVERYWHERE_MAX: Final = 20_000
"""So many reads at most, for each key to be read through every replica."""
_AT_ONCE: Final = 256
"""Keys per frame, one frame at a time and replica."""
_PATIENCE_US: Final = 5_000_000
_READ_WITHIN_S: Final = 30.0
_GET: Final = bytes((Operation.GET,))


@dataclass(frozen=True)
class KeptHistory:
    """The files of one load's history."""

    place: Path
    number: int
    """Among the loads of its cluster, from 1 on."""

    @classmethod
    def next_in(cls, directory: Path) -> "KeptHistory":
        """That of a cluster's next load."""
        place = directory / FOLDER
        place.mkdir(parents=True, exist_ok=True)
        return cls(place, 1 + len(list(place.glob("load-*.jsonl"))))

    @property
    def path(self) -> Path:
        """Of the calls of the load."""
        return self.place / f"load-{self.number}.jsonl"

    @property
    def after(self) -> Path:
        """Of the reads after it."""
        return self.place / f"after-{self.number}.jsonl"

    @property
    def initial(self) -> str:
        """What is said of the time before."""
        return ABSENT if self.number == 1 else OTHER


def judge_real(
    kept: KeptHistory,
    ports: Sequence[int],
    watch: Callable[[float], None] = lambda share: None,
    share: int = 1,
) -> HistoryVerdict:
    """Read back through the replicas at these client ports, and judge; one key in so many was
    kept. Raises ConfigError."""
    found = read_lines([kept.path])
    with HistoryWriter(kept.after, kept.initial) as history:
        _run(read_back(ports, _shares(written(found), len(ports)), history))
    return replace(_verdict(kept, found, watch), share=share)


def judge_virtual(
    kept: KeptHistory, cluster: VirtualCluster, watch: Callable[[float], None]
) -> HistoryVerdict:
    """The same in virtual time."""
    found = read_lines([kept.path])
    with HistoryWriter(kept.after, kept.initial) as history:
        shares = _shares(written(found), cluster.topology.n)
        _read_back_virtual(cluster, shares, history)
    return _verdict(kept, found, watch)


def judge_processes(
    place: Path, processes: int, cluster: LocalCluster | None, watch: Callable[[float], None]
) -> HistoryVerdict:
    """The history that so many processes kept in a directory, together with what is read back from
    a cluster of ours. Raises ConfigError."""
    paths = sorted(place.glob("load-*.jsonl"))
    found = read_lines(paths)
    if len(paths) < processes:
        found.unfinished = f"{processes - len(paths)} processes left no history"
    if cluster is not None:
        ports = [each.client for each in cluster.ports]
        after = place / "after.jsonl"
        with HistoryWriter(after, ABSENT) as history:
            _run(read_back(ports, _shares(written(found), len(ports)), history))
        read_lines([after], found)
    return verdict_of(found, watch)


def _verdict(
    kept: KeptHistory, found: ReadHistory, watch: Callable[[float], None]
) -> HistoryVerdict:
    return verdict_of(read_lines([kept.after], found), watch)


def verdict_of(found: ReadHistory, watch: Callable[[float], None]) -> HistoryVerdict:
    """The verdict of a history; one that lacks calls has none."""
    verdict = judge(found.keys, found.initial, watch=watch)
    return unfinished(verdict, found.unfinished) if found.unfinished else verdict


def written(found: ReadHistory) -> list[bytes]:
    """The keys that were written, or may have been."""
    return [key for key, calls in found.keys.items() if any(call.kind != "get" for call in calls)]


def _shares(keys: list[bytes], replicas: int) -> list[list[bytes]]:
    """Which keys are read through each replica."""
    if len(keys) * replicas <= _EVERYWHERE_MAX:
        return [keys] * replicas
    return [keys[number::replicas] for number in range(replicas)]


def _run(reading: Coroutine[None, None, None]) -> None:
    """To its end; in a thread of its own where this one has an event loop, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(reading)
        return
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, reading).result()


async def read_back(
    ports: Sequence[int], shares: Sequence[list[bytes]], history: HistoryWriter
) -> None:
    """Read these keys through the replicas at these ports, all at the same time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_READ_WITHIN_S):
            reading = [_read_one(port, keys, history) for port, keys in zip(ports, shares)]
            await asyncio.gather(*reading)


async def _read_one(port: int, keys: list[bytes], history: HistoryWriter) -> None:
    """Frame after frame; one that nobody answers is the last."""
    waiting: dict[int, tuple[bytes, Micros]] = {}
    settled = asyncio.Event()
    name = f"after.{port}"

    def on_frame(frame: ClientAnswer | ClientRefusal) -> None:
        if isinstance(frame, ClientAnswer):
            now, results = clock(), frame.results
            for index, number in enumerate(range(frame.first, frame.first + results.count)):
                key, called = waiting.pop(number)
                history.answered(name, Operation.GET, key, b"", called, now, results, index)
        else:
            for number in range(frame.first, frame.first + frame.count):
                del waiting[number]
        if not waiting:
            settled.set()

    try:
        connection, _ = await connect(port, on_frame, partial(Connection, on_lost=settled.set))
    except (OSError, CodecError):
        return
    try:
        for first in range(0, len(keys), _AT_ONCE):
            some, wire = keys[first : first + _AT_ONCE], connection.wire
            if wire is None:
                return
            settled.clear()
            waiting.update(zip(count(first), ((key, clock()) for key in some)))
            arguments = [b""] * len(some)
            request = ClientRequest(first, _PATIENCE_US, _GET * len(some), some, arguments)
            wire.write(encode_frame(request))
            await settled.wait()
    finally:
        connection.close()


def _read_back_virtual(
    cluster: VirtualCluster, shares: Sequence[list[bytes]], history: HistoryWriter
) -> None:
    world = cluster.world
    waiting: dict[int, tuple[str, dict[int, bytes], Micros]] = {}

    def on_reply(reply: Reply | Refusal) -> None:
        number = int(str(reply.waiter))
        if number not in waiting:
            return
        name, keys, called = waiting[number]
        size = reply.count if isinstance(reply, Refusal) else reply.results.count
        for index in range(size):
            key = keys.pop(reply.offset + index, None)
            if key is not None and isinstance(reply, Reply):
                get, now = Operation.GET, world.now
                history.answered(name, get, key, b"", called, now, reply.results, index)
        if not keys:
            del waiting[number]

    world.on_reply = on_reply
    for member, keys in enumerate(shares):
        for first in range(0, len(keys), _AT_ONCE):
            number, some = next(cluster.numbers), keys[first : first + _AT_ONCE]
            limit = world.now + _PATIENCE_US
            request = Request(number, _GET * len(some), some, [b""] * len(some), limit)
            if world.request(member, request):
                waiting[number] = (f"after.{member}", dict(enumerate(some)), world.now)
    world.run(world.now + 2 * _PATIENCE_US, lambda: not waiting)
