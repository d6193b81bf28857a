"""Emulated distance: what arrives from a peer is held back as long as the topology says.

A line per peer, at the receiver. The sender stamps each write with the machine's monotonic clock,
and the line delivers at stamp + one-way delay + jitter, so that the time on the loopback and in the
sender's and the receiver's buffers is part of the delay instead of on top of it. A line never
reorders. Loss is per message, a cut drops everything.

Rules of this file: all randomness from one seeded generator per line.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from epaxos.core.replica import Message
from epaxos.core.types import Micros, ReplicaId
from epaxos.runtime.alarm import LATENESS_US, Alarm, clock
from epaxos.runtime.metrics import Distribution

LINE_MESSAGES_MAX: Final = 128 * 1024
LINE_BYTES_MAX: Final = 64 * 1024 * 1024
"""Messages on one line, and their bytes, beyond which the peer is not read until half of them have
arrived. What waits meanwhile arrives late, never early, and `error` tells."""


class JitterSource(Protocol):
    """What a topology says of a link's variation."""

    def sample(self, rng: random.Random) -> int:
        """Extra delay in µs."""
        ...


class DelayLine:
    """The way from one peer to here."""

    def __init__(
        self, delay_us: Micros, jitter: JitterSource | None, loss: float, seed: str
    ) -> None:
        self.delay_us = delay_us
        self.loss = loss
        self.cut = False
        self.dropped = 0
        """Messages lost by loss or cut."""
        self._jitter = jitter
        self._random = random.Random(seed)
        self._queue: deque[tuple[Micros, list[Message], int]] = deque()
        self._last = 0
        self._bytes = 0
        self._messages = 0
        self.is_full = False
        """Whether no more of the peer should be read."""

    def push(self, sent: Micros, messages: list[Message], size: int) -> None:
        """Messages that left the peer at `sent`, `size` bytes together."""
        if self.cut:
            self.dropped += len(messages)
            return
        if self.loss:
            kept = [m for m in messages if self._random.random() >= self.loss]
            self.dropped += len(messages) - len(kept)
            messages = kept
            if not messages:
                return
        due = sent + self.delay_us
        if self._jitter is not None:
            due += self._jitter.sample(self._random)
        self._last = max(self._last, due)
        self._bytes += size
        self._messages += len(messages)
        self._queue.append((self._last, messages, size))
        if self._messages > LINE_MESSAGES_MAX or self._bytes > LINE_BYTES_MAX:
            self.is_full = True

    def next(self) -> Micros | None:
        """When the first messages are due."""
        return self._queue[0][0] if self._queue else None

    def pop(self) -> tuple[Micros, list[Message], int]:
        """The first messages, when they were due, and their bytes."""
        due, messages, size = self._queue.popleft()
        self._bytes -= size
        self._messages -= len(messages)
        return due, messages, size

    def is_half_empty(self) -> bool:
        """Whether a line that was full has room again."""
        return self._messages <= LINE_MESSAGES_MAX // 2 and self._bytes <= LINE_BYTES_MAX // 2

    def change(self, now: Micros, delay_us: Micros, loss: float, cut: bool) -> None:
        """New settings. What is on its way arrives no later than if it left now; a cut loses it."""
        self.delay_us, self.loss, self.cut = delay_us, loss, cut
        if cut:
            self.dropped += sum(len(messages) for _, messages, _ in self._queue)
            self._queue.clear()
            self._bytes = self._messages = 0
        latest = now + delay_us
        self._queue = deque((min(due, latest), m, size) for due, m, size in self._queue)
        self._last = min(self._last, latest)


class DelayLines:
    """All lines of a replica, and the alarm that empties them."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        lines: dict[ReplicaId, DelayLine],
        deliver: Callable[[ReplicaId, list[Message], int], None],
    ) -> None:
        self.lines = lines
        self.drained: Callable[[ReplicaId], None] = lambda source: None
        """Called when a line that was full has room again."""
        self.error = Distribution()
        """Difference between the intended and the actual moment of delivery, in µs."""
        self._deliver = deliver
        self._alarm = Alarm(loop, self.release)

    def push(self, source: ReplicaId, sent: Micros, messages: list[Message], size: int) -> None:
        """Messages that left `source` at `sent`; what is due already is delivered at once."""
        self.lines[source].push(sent, messages, size)
        self.release()

    def release(self) -> None:
        """Deliver what is due and set the alarm for what is due next."""
        due_now = (now := clock()) + LATENESS_US
        first: Micros | None = None
        for source, line in self.lines.items():
            while (at := line.next()) is not None:
                if at > due_now:
                    first = at if first is None else min(first, at)
                    break
                due, messages, size = line.pop()
                self.error.record(abs(now - due))
                self._deliver(source, messages, size)
            if line.is_full and line.is_half_empty():
                line.is_full = False
                self.drained(source)
        self._alarm.set(None if first is None else first - LATENESS_US)

    def change(self, source: ReplicaId, delay_us: Micros, loss: float, cut: bool) -> None:
        """New settings for the line from `source`."""
        self.lines[source].change(clock(), delay_us, loss, cut)
        self.release()

    def close(self) -> None:
        """Deliver nothing more."""
        self._alarm.close()
