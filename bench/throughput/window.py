"""Closed windows over the binary port: so many commands outstanding, a new one for each answer.

A window is split evenly over one connection per replica (the first replicas, if it is smaller).
`python -m bench.throughput.window SPEC RESULT` reads a `WindowSpec` and writes a `WindowResult`,
both JSON.

Rules of this file: latency is that of a marked command, one at a time per connection, so that
measuring costs the client little; what happens in the warm-up is not counted.
"""

import asyncio
import gc
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, Literal

import msgspec

from bench.analysis.statistics import merged_counts
from bench.history.calls import HistoryWriter, UnlikeValues, new_label
from bench.load.connection import Connection, connect
from epaxos.codec import ClientAnswer, ClientRefusal, ClientRequest, encode_frame
from epaxos.core.command import Operation
from epaxos.core.types import Micros
from epaxos.percentile import Counts, bucket, count_percentiles
from epaxos.runtime.alarm import clock

Form = Literal["columns", "single"]
"""Many commands per frame, or one."""

_DRAIN_S: Final = 10.0
"""How long the last answers may take."""
_UNKNOWN: Final = -1
KEPT_SHARE: Final = 64
"""Where each command has a key of its own, a history has the calls on one key in so many: to keep
all of them would cost the client more than to send them."""


class WindowSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What the client process is told."""

    ports: list[int]
    """Client ports of the replicas, on 127.0.0.1."""
    window: int
    """Commands outstanding, over all connections."""
    form: Form = "columns"
    one_key: bool = False
    """All commands on one key; otherwise each on a key of its own."""
    value_size: int = 16
    label: str = ""
    """Part of every key, so that no two runs share one."""
    warmup_s: float = 0.5
    duration_s: float = 1.5
    history: str = ""
    """The file in which calls are kept; empty: none is."""
    initial: str = ""
    """What that file says of the time before (`bench.history.calls`)."""

    @property
    def kept_share(self) -> int:
        """All calls on one key in so many are kept. Of one key alone there is no part."""
        return 1 if self.one_key else KEPT_SHARE


class WindowResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the client process found."""

    commands_per_s: float
    p50_us: int | None
    p99_us: int | None
    p99_9_us: int | None
    """None: no latency was taken."""
    marked: int
    """Commands whose latency was taken."""
    refused: int
    """Commands that were refused or whose fate is unknown, the whole time."""
    answered: int
    """Commands answered, the whole time."""
    unanswered: int
    """Commands without an answer when the client gave up."""
    cpu_s: float
    """CPU time of the client, the whole time."""


class _Window:
    """One connection's share of the window."""

    def __init__(self, spec: WindowSpec, index: int, size: int) -> None:
        self.size = size
        self.connection: Connection | None = None
        self.latency: Counts = defaultdict(int)
        self.answered = 0
        self.refused = 0
        self.sent = 0
        self.open = True
        """Whether answers are replaced by new commands."""
        self._single = spec.form == "single"
        self._key = b"one" if spec.one_key else None
        self._prefix = f"{spec.label}-{index}-".encode()
        self._value = bytes(range(256)) * (spec.value_size // 256 + 1)
        self._value = self._value[: spec.value_size]
        self._mark = _UNKNOWN
        self._marked_at = 0
        self._free = 0

    def send(self, count: int) -> None:
        assert self.connection is not None
        if self.connection.wire is None:
            return
        first = self.sent
        self.sent += count
        keys = self._keys(first, count)
        arguments = self._arguments(first, keys)
        if self._mark == _UNKNOWN:
            self._mark, self._marked_at = first, clock()
        if self._single:
            frames = b"".join(
                [
                    encode_frame(ClientRequest(number, 0, _PUT, [key], [argument]))
                    for number, key, argument in zip(range(first, first + count), keys, arguments)
                ]
            )
        else:
            frames = encode_frame(ClientRequest(first, 0, _PUT * count, keys, arguments))
        self.connection.wire.write(frames)

    def _keys(self, first: int, count: int) -> list[bytes]:
        if self._key is None:
            return list(map((self._prefix + b"%d").__mod__, range(first, first + count)))
        return [self._key] * count

    def _arguments(self, first: int, keys: list[bytes]) -> list[bytes]:
        return [self._value] * len(keys)

    def end(self) -> None:
        """No answer is waited for any more."""
        if self.connection and self.connection.wire:
            self.connection.wire.abort()

    def on_frame(self, frame: ClientAnswer | ClientRefusal) -> None:
        """An answer or a refusal; `on_read` replaces what they free."""
        if isinstance(frame, ClientAnswer):
            count = frame.results.count
            self.answered += count
        else:
            count = frame.count
            self.refused += count
        self._free += count
        if frame.first <= self._mark < frame.first + count:
            if isinstance(frame, ClientAnswer):
                self.latency[bucket(clock() - self._marked_at)] += 1
            self._mark = _UNKNOWN

    def on_read(self) -> None:
        """All answers that arrived together have been seen."""
        if self._free and self.open:
            count, self._free = self._free, 0
            self.send(count)

    @property
    def waiting(self) -> int:
        """Commands without an answer."""
        return self.sent - self.answered - self.refused


_PUT: Final = bytes((Operation.PUT,))


class _KeptWindow(_Window):
    """One that keeps a share of its calls for a history."""

    def __init__(
        self, spec: WindowSpec, index: int, size: int, history: HistoryWriter, label: int
    ) -> None:
        super().__init__(spec, index, size)
        self._client = f"{spec.label}.{index}"
        self._history = history
        self._share = spec.kept_share
        self._unlike = UnlikeValues(label, index)
        self._waiting: dict[int, tuple[bytes, bytes, Micros]] = {}
        """Key, value and moment of the calls that have no answer yet."""

    def _arguments(self, first: int, keys: list[bytes]) -> list[bytes]:
        arguments, now = super()._arguments(first, keys), clock()
        for number in self._kept(first, len(keys)):
            value = arguments[number - first] = self._unlike.put(self._value)
            self._waiting[number] = keys[number - first], value, now
        return arguments

    def _kept(self, first: int, count: int) -> range:
        return range(first + -first % self._share, first + count, self._share)

    def on_frame(self, frame: ClientAnswer | ClientRefusal) -> None:
        super().on_frame(frame)
        now, client, put = clock(), self._client, Operation.PUT
        if isinstance(frame, ClientAnswer):
            results = frame.results
            for number in self._kept(frame.first, results.count):
                key, value, called = self._waiting.pop(number)
                index = number - frame.first
                self._history.answered(client, put, key, value, called, now, results, index)
            return
        for number in self._kept(frame.first, frame.count):
            key, value, called = self._waiting.pop(number)
            self._history.failed(client, put, key, value, called, definite=frame.definite)

    def end(self) -> None:
        super().end()
        for key, value, called in self._waiting.values():
            self._history.failed(self._client, Operation.PUT, key, value, called, definite=False)


class _Reading(Connection):
    """Tells its window when a read has been worked off."""

    def __init__(self, window: _Window, on_frame: Callable[..., None]) -> None:
        super().__init__(on_frame)
        self._window = window

    def buffer_updated(self, nbytes: int) -> None:
        super().buffer_updated(nbytes)
        self._window.on_read()


async def run_window(spec: WindowSpec) -> WindowResult:
    """Drive one window in the present event loop."""
    ports = spec.ports[: spec.window]
    history = HistoryWriter(Path(spec.history), spec.initial) if spec.history else None
    windows: list[_Window] = []
    label = new_label()
    for index, port in enumerate(ports):
        size = spec.window // len(ports) + (index < spec.window % len(ports))
        if history is None:
            window = _Window(spec, index, size)
        else:
            window = _KeptWindow(spec, index, size, history, label)
        window.connection, _ = await connect(port, window.on_frame, partial(_Reading, window))
        windows.append(window)
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    cpu = time.process_time()
    for window in windows:
        window.send(window.size)
    await asyncio.sleep(spec.warmup_s)
    for window in windows:
        window.latency.clear()
    before, begun = sum(w.answered for w in windows), clock()
    await asyncio.sleep(spec.duration_s)
    after, ended = sum(w.answered for w in windows), clock()
    latency = merged_counts(window.latency for window in windows)
    p50_us, p99_us, p99_9_us = count_percentiles(latency, (50, 99, 99.9))
    for window in windows:
        window.open = False
    limit = clock() + round(_DRAIN_S * 1e6)
    # Polled, so that the way of an answer does not have to look for the end.
    while clock() < limit and any(w.waiting for w in windows):  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    cpu_s = time.process_time() - cpu
    for window in windows:
        window.end()
    if history is not None:
        history.close()
    return WindowResult(
        commands_per_s=(after - before) / (ended - begun) * 1e6,
        p50_us=p50_us,
        p99_us=p99_us,
        p99_9_us=p99_9_us,
        marked=sum(latency.values()),
        refused=sum(w.refused for w in windows),
        answered=sum(w.answered for w in windows),
        unanswered=sum(w.waiting for w in windows),
        cpu_s=cpu_s,
    )


def main() -> None:
    """Entry point of the client process."""
    import uvloop

    spec = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=WindowSpec)
    result = uvloop.run(run_window(spec))
    Path(sys.argv[2]).write_bytes(msgspec.json.encode(result))


if __name__ == "__main__":
    main()
