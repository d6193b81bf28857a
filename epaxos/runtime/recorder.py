"""Writes down what goes into a node and what comes out, for `epaxos sim replay`.

Stands between driver and node; without `record` it does not exist. A step is written after its
answers were given. The file grows by whole frames, at the latest a second after they were made.

Rules of this file: recording never stops a running replica. Whatever goes wrong here (a full disk,
the size limit, a bug of ours) ends the recording with a warning, and the replica goes on.
"""

import os
import re
import socket
from asyncio import AbstractEventLoop, TimerHandle, get_running_loop
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import BinaryIO, Final

import structlog

from epaxos.codec import PROTOCOL_VERSION, encode, encode_frame
from epaxos.core.errors import ConfigError
from epaxos.core.replica import Message, Record
from epaxos.core.types import Micros, ReplicaId
from epaxos.node.node import Node
from epaxos.node.requests import Limits, NodeReady, Question, Request
from epaxos.runtime.alarm import clock
from epaxos.runtime.config import ServeConfig, first_leader
from epaxos.trace import (
    CLOSED,
    MAGIC,
    SUFFIX,
    Asked,
    Header,
    Input,
    Received,
    Requested,
    Restored,
    TraceEnd,
    TraceStep,
    Waiters,
    Woken,
    asked_of,
    columns_of,
    outcome_of,
)

FLUSH_S: Final = 1.0
"""How long a frame may wait for the next write."""
FLUSH_BYTES: Final = 1 << 18
"""So many bytes do not wait."""
_END_BYTES: Final = 512
"""Kept free for the frame that says why the recording ended."""

log = structlog.get_logger()

Send = Callable[[Iterable[tuple[ReplicaId, Message]]], None]


class Recorder:
    """A node, as the driver sees it, whose life is written to a trace."""

    def __init__(
        self,
        node: Node,
        path: Path,
        header: Header,
        bytes_max: int,
        loop: AbstractEventLoop | None = None,
    ) -> None:
        """`loop` is for flushing in time; without one only size and end flush. Raises ConfigError
        if the file cannot be made."""
        self._node = node
        self._loop = loop
        self._bytes_max = bytes_max - _END_BYTES
        self._bytes = 0
        self._parts: list[bytes] = []
        self._waiting = 0
        """Bytes in `_parts`."""
        self._flusher: TimerHandle | None = None
        self._restored: list[bytes] = []
        self._waiters = Waiters()
        self._inputs: list[tuple[ReplicaId, Message] | Requested | Asked | Woken] = []
        self._now: Micros = 0
        self._sent_us: int | None = None
        """When the messages of the step under way left."""
        self._ready: tuple[NodeReady, Micros | None] | None = None
        """What the step under way said, and the deadline after it."""
        self.path, self._file = _create(path)
        self._put(MAGIC)
        self._put(encode_frame(header))
        self._flush()

    # The node's interface ----------------------------------------------------------------------

    def restore(self, record: Record) -> None:
        """One record of the own log."""
        if self._file is not None:
            self._restored.append(encode(record))
            self._waiting += len(self._restored[-1])
            if self._waiting > FLUSH_BYTES:
                self._flush_restored()
        self._node.restore(record)

    def request(self, requests: list[Request], now: Micros) -> None:
        """Commands from clients."""
        if self._file is not None:
            add = self._waiters.add
            columns = [columns_of(each, add(each.waiter, len(each.keys))) for each in requests]
            self._note(Requested(columns), now)
        self._node.request(requests, now)

    def ask(self, waiter: Hashable, question: Question, now: Micros) -> None:
        """A question about the node's state."""
        if self._file is not None:
            self._note(asked_of(question, self._waiters.add(waiter, 1)), now)
        self._node.ask(waiter, question, now)

    def receive(self, source: ReplicaId, message: Message, now: Micros) -> None:
        """A message from another member."""
        if self._file is not None:
            self._note((source, message), now)
        self._node.receive(source, message, now)

    def wake(self, now: Micros) -> None:
        """Some deadline has passed."""
        if self._file is not None:
            self._note(Woken(), now)
        self._node.wake(now)

    def take(self, now: Micros) -> NodeReady:
        """What is to be done."""
        self._finish_step()
        self._now = now
        ready = self._node.take(now)
        if self._file is not None:
            self._ready = (ready, self._node.deadline())
        return ready

    def deadline(self) -> Micros | None:
        """When to be woken next. The driver asks when everything of its step is done."""
        self._finish_step()
        return self._node.deadline()

    def sending(self, send: Send) -> Send:
        """A driver's `send` that is seen to be used."""

        def seen(messages: Iterable[tuple[ReplicaId, Message]]) -> None:
            self._sent_us = clock() - self._now
            send(messages)

        return seen

    # The file ----------------------------------------------------------------------------------

    def close(self) -> None:
        """End the trace in order. A step in which the node failed is its last."""
        if self._file is not None and (self._ready is not None or self._inputs):
            self._finish(None)
        self._flush_restored()
        self._stop(CLOSED)

    def _note(
        self, what: tuple[ReplicaId, Message] | Requested | Asked | Woken, now: Micros
    ) -> None:
        self._finish_step()
        self._now = now
        self._inputs.append(what)

    def _finish_step(self) -> None:
        if self._ready is not None:
            self._finish(clock() - self._now)

    def _finish(self, took_us: int | None) -> None:
        """Write the step under way."""
        inputs, self._inputs = self._inputs, []
        said, self._ready = self._ready, None
        sent_us, self._sent_us = self._sent_us, None
        if self._file is None:
            return
        try:
            outcome = None
            if said is not None:
                ready, deadline = said
                numbers = [self._waiters.settle(reply) for reply in ready.replies]
                outcome = outcome_of(ready, numbers, deadline)
            kept: list[Input] = [
                Received(each[0], encode(each[1])) if isinstance(each, tuple) else each
                for each in inputs
            ]
            frame = encode_frame(TraceStep(self._now, kept, outcome, sent_us, took_us))
        except Exception as error:  # a bug in recording must not become one of the replica
            self._abandon(f"a bug in recording: {error!r}")
            return
        self._flush_restored()
        self._put(frame)

    def _flush_restored(self) -> None:
        if self._restored:
            records, self._restored = self._restored, []
            self._waiting = sum(map(len, self._parts))
            self._put(encode_frame(Restored(records)))

    def _put(self, frame: bytes) -> None:
        if self._file is None:
            return
        if self._bytes + len(frame) > self._bytes_max:
            limit = (self._bytes_max + _END_BYTES) >> 20
            self._stop(f"it reached record_mib = {limit}")
            return
        self._bytes += len(frame)
        self._parts.append(frame)
        self._waiting += len(frame)
        if self._waiting > FLUSH_BYTES:
            self._flush()
        elif self._flusher is None and self._loop is not None:
            self._flusher = self._loop.call_later(FLUSH_S, self._flush)

    def _flush(self) -> None:
        if self._flusher is not None:
            self._flusher.cancel()
            self._flusher = None
        if self._file is None:
            return
        data = b"".join(self._parts)
        self._parts.clear()
        self._waiting = 0
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            self._abandon(error.strerror or str(error))

    def _stop(self, why: str) -> None:
        """Write why the recording ends, and end it."""
        if self._file is None:
            return
        self._parts.append(encode_frame(TraceEnd(why)))
        self._flush()
        if why == CLOSED:
            self._release()
        else:
            self._abandon(why)

    def _abandon(self, why: str) -> None:
        """Record nothing more, and say so."""
        if self._file is not None:
            log.warning("recording stopped; the replica goes on", trace=str(self.path), why=why)
        self._release()

    def _release(self) -> None:
        file, self._file = self._file, None
        self._inputs, self._ready, self._waiters = [], None, Waiters()
        self._parts, self._restored = [], []
        if file is not None:
            try:
                file.close()
            except OSError as error:
                log.warning("trace not closed", trace=str(self.path), why=error.strerror)


def start_recording(
    node: Node,
    config: ServeConfig,
    boot: int,
    seed: str,
    rtt_us: tuple[Micros, ...],
    regions: list[str],
) -> Recorder:
    """Record a new node into the directory `record`. Raises ConfigError."""
    cluster, me = config.cluster, config.me
    limits: Limits = node.limits
    header = Header(
        version=PROTOCOL_VERSION,
        cluster=cluster.cluster,
        protocol=cluster.protocol,
        member=me,
        regions=regions,
        rtt_us=list(rtt_us),
        leader=first_leader(cluster),
        boot=boot,
        seed=seed,
        batch_commands=limits.batch_commands,
        batch_bytes=limits.batch_bytes,
        queued_commands=limits.queued_commands,
        live_bytes=limits.live_bytes,
        gate=limits.gate,
        machine=_machine(),
        state_machine=cluster.state_machine,
    )
    region = re.sub(r"[^\w.-]", "_", config.member.region)
    path = Path(cluster.record) / f"{region}.{boot}{SUFFIX}"
    recorder = Recorder(node, path, header, cluster.record_mib << 20, get_running_loop())
    log.info("recording", trace=str(recorder.path))
    return recorder


def _create(path: Path) -> tuple[Path, BinaryIO | None]:
    """A new file, and its name: none is ever written over."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    fresh = path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(2, 1000):
            try:
                return fresh, os.fdopen(os.open(fresh, flags, 0o600), "wb")
            except FileExistsError:
                fresh = path.with_name(f"{path.stem}-{attempt}{SUFFIX}")
    except OSError as error:
        raise ConfigError(
            f"record = {str(path.parent)!r}: {error.strerror or error}; name a directory that can "
            "be written"
        ) from None
    raise ConfigError(f"record = {str(path.parent)!r} is full of traces; name another directory")


def _machine() -> str:
    """The host's name, and which of its starts this is where the system says so."""
    try:
        start = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        start = ""
    return f"{socket.gethostname()} {start}".strip()
