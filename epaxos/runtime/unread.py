"""Answers that a client has not read: encoded only as it takes them, and not kept for ever.

A small request can ask for gigabytes. What it found stays in the store's own bytes until the client
takes it: `AnswerQueue` holds the results and encodes about `CHUNK_BYTES` of them at a time, and a
run that is larger is cut into several. A client that takes nothing for `UNREAD_DEADLINE_S` loses
its connection (`UnreadDeadline`); both ports use it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final

from epaxos.codec import ClientAnswer, ClientRefusal, encode_frame
from epaxos.node.runs import slice_of

CHUNK_BYTES: Final = 256 * 1024
"""So much is encoded, and written, at a time; a value that is larger goes alone."""
UNREAD_DEADLINE_S: Final = 30.0
"""So long a client may take nothing of what was written to it."""
_COMMAND_BYTES: Final = 32
"""What one command adds to an answer, beside its value, at most."""


class AnswerQueue:
    """What a client will be told, in order."""

    __slots__ = ("_at", "_frames", "bytes")

    def __init__(self) -> None:
        self._frames: deque[tuple[ClientAnswer | ClientRefusal, int, int]] = deque()
        """Each with how many commands it tells of, and about how many bytes it will take."""
        self._at = 0
        """How many commands of the first were told already."""
        self.bytes = 0
        """About how many bytes all of it will take. Values that several answers share count for
        each."""

    def __bool__(self) -> bool:
        return bool(self._frames)

    def add(self, frame: ClientAnswer | ClientRefusal) -> None:
        """Tell this behind all others."""
        size = _COMMAND_BYTES
        if isinstance(frame, ClientRefusal):
            count = frame.count
        else:
            count, values = frame.results.count, frame.results.values
            if values:
                size = sum(map(len, values)) + _COMMAND_BYTES * count
        self._frames.append((frame, count, size))
        self.bytes += size

    def encode(self) -> tuple[bytes, int]:
        """The next frames, about `CHUNK_BYTES` together, and how many commands they tell of."""
        frames = self._frames
        if len(frames) == 1 and self.bytes <= CHUNK_BYTES and not self._at:
            frame, commands, _ = frames.popleft()
            self.bytes = 0
            return encode_frame(frame), commands
        encoded: list[bytes] = []
        commands, room = 0, CHUNK_BYTES
        while frames:
            frame, count, size = frames[0]
            if (self._at or size > room) and isinstance(frame, ClientAnswer):
                frame, count, size = self._part(frame, room)
            if encoded and size > room:
                break
            encoded.append(encode_frame(frame))
            self._told(count)
            commands += count
            room -= size
            self.bytes -= size
        return (encoded[0] if len(encoded) == 1 else b"".join(encoded)), commands

    def clear(self) -> None:
        """Tell nothing more."""
        self._frames.clear()
        self._at = self.bytes = 0

    def _part(self, answer: ClientAnswer, room: int) -> tuple[ClientAnswer, int, int]:
        """Of the first answer, what fits of that which was not told, one command at least; how many
        commands and bytes that is."""
        results, start = answer.results, self._at
        if not results.values:
            return answer, results.count, _COMMAND_BYTES
        stop, size = start, 0
        for value in islice(results.values, start, None):
            size_with = size + len(value) + _COMMAND_BYTES
            if size_with > room and stop > start:
                break
            stop, size = stop + 1, size_with
        count = stop - start
        part = ClientAnswer(
            answer.first + start,
            slice_of(results, start, count),
            answer.path,
            answer.commit_us,
            answer.execute_us,
        )
        return part, count, size

    def _told(self, count: int) -> None:
        """So many more commands of the first were told."""
        self._at += count
        if self._at == self._frames[0][1]:
            self._frames.popleft()
            self._at = 0


class UnreadDeadline:
    """Ends a connection whose client takes nothing of what was written to it."""

    __slots__ = ("_end", "_handle", "_unsent")

    def __init__(self, end: Callable[[str], None]) -> None:
        self._end = end
        self._handle: asyncio.TimerHandle | None = None
        self._unsent = 0

    def begin(self, wire: asyncio.WriteTransport) -> None:
        """The client does not take all that is written."""
        self._unsent = wire.get_write_buffer_size()
        self._handle = asyncio.get_running_loop().call_later(UNREAD_DEADLINE_S, self._look, wire)

    def cancel(self) -> None:
        """The client took it, or is gone."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _look(self, wire: asyncio.WriteTransport) -> None:
        if wire.get_write_buffer_size() < self._unsent:
            self.begin(wire)
        else:
            self._handle = None
            self._end(f"the client read nothing of its answers for {UNREAD_DEADLINE_S:.0f} s")
