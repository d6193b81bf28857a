"""A receive buffer that cuts frames out of a stream without copying them first."""

from typing import Final

from epaxos.codec import FRAME_HEADER, split_frames

_SMALL: Final = 64 * 1024
_LARGE: Final = 1024 * 1024


class FrameBuffer:
    """For an `asyncio.BufferedProtocol`: give `space` to the loop, `cut` what has arrived.

    Grows to the frame that is arriving, never beyond `limit`, and shrinks again."""

    __slots__ = ("_buffer", "_end", "_start", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """Size in bytes of the largest body accepted."""
        self._buffer = bytearray(_SMALL)
        self._start = 0
        self._end = 0

    def space(self) -> memoryview:
        """Where the next bytes go; what `cut` returned before is no longer valid."""
        buffer, left = self._buffer, self._end - self._start
        needed = _SMALL
        if left >= FRAME_HEADER.size:
            length = FRAME_HEADER.unpack_from(buffer, self._start)[0]
            needed = max(_SMALL, FRAME_HEADER.size + length)
        if needed > len(buffer) or (len(buffer) > _LARGE and needed <= _SMALL and left < _SMALL):
            grown = bytearray(needed)
            grown[:left] = buffer[self._start : self._end]
            self._buffer = grown
        elif self._start:
            buffer[:left] = buffer[self._start : self._end]
        self._start, self._end = 0, left
        return memoryview(self._buffer)[left:]

    def cut(self, received: int) -> list[memoryview]:
        """The bodies that are complete now that `received` more bytes are there; to be decoded
        before the next `space`. Raises CodecError for a frame over the limit or with a wrong
        CRC."""
        self._end += received
        bodies, taken = split_frames(
            memoryview(self._buffer)[self._start :], self._end - self._start, self.limit
        )
        self._start += taken
        return bodies
