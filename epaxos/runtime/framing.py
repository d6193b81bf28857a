"""A receive buffer that cuts frames out of a stream without copying them first."""

from typing import Final

from epaxos.codec import FRAME_HEADER, split_frames

_SMALL: Final = 64 * 1024
_LARGE: Final = 1024 * 1024


class FrameBuffer:
    """For an `asyncio.BufferedProtocol`: give `space` to the loop, `cut` what has arrived.

    Grows to the frame that is arriving, never beyond `limit`, and shrinks again."""

    __slots__ = ("_end", "_start", "_view", "limit", "taken")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """Size in bytes of the largest body accepted."""
        self.taken = 0
        """How many bytes the latest `cut` took."""
        self._view = memoryview(bytearray(_SMALL))
        self._start = 0
        self._end = 0

    def space(self) -> memoryview:
        """Where the next bytes go; what `cut` returned before is no longer valid."""
        start, end, view = self._start, self._end, self._view
        if start == end and len(view) <= _LARGE:
            self._start = self._end = 0
            return view
        left = end - start
        needed = _SMALL
        if left >= FRAME_HEADER.size:
            needed = max(_SMALL, FRAME_HEADER.size + FRAME_HEADER.unpack_from(view, start)[0])
        if needed > len(view) or (len(view) > _LARGE and needed <= _SMALL and left < _SMALL):
            grown = memoryview(bytearray(needed))
            grown[:left] = view[start:end]
            self._view = view = grown
        elif start:
            view[:left] = view[start:end]
        self._start, self._end = 0, left
        return view[left:]

    def cut(self, received: int) -> list[memoryview]:
        """The bodies that are complete now that `received` more bytes are there; to be decoded
        before the next `space`. Raises CodecError for a frame over the limit or with a wrong
        CRC."""
        start = self._start
        self._end += received
        view = self._view[start:] if start else self._view
        bodies, self.taken = split_frames(view, self._end - start, self.limit)
        self._start += self.taken
        return bodies
