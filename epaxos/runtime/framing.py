"""A receive buffer that cuts frames out of a stream without copying them first."""

from typing import Final

from epaxos.codec import FRAME_HEADER, split_frames
from epaxos.core.errors import CodecError

_SMALL: Final = 64 * 1024
_LARGE: Final = 1024 * 1024


class Arriving:
    """What large messages under way take together, over all connections of a port."""

    __slots__ = ("_bytes", "_bytes_max")

    def __init__(self, bytes_max: int) -> None:
        self._bytes = 0
        self._bytes_max = bytes_max

    def grow(self, size: int) -> str | None:
        """Take so many bytes more; if they are too many none, and a sentence about it."""
        if self._bytes + size > self._bytes_max:
            return (
                f"{self._bytes >> 20} MiB of large values are arriving already, of "
                f"{self._bytes_max >> 20} at most; try again"
            )
        self._bytes += size
        return None

    def shrink(self, size: int) -> None:
        """Give so many bytes back."""
        self._bytes -= size


class FrameBuffer:
    """For an `asyncio.BufferedProtocol`: give `space` to the loop, `cut` what has arrived.

    Grows to the frame that is arriving, never beyond `limit`, and shrinks when it is there. What
    frames of more than a mebibyte take is counted in `arriving`; None: one frame always may."""

    __slots__ = ("_arriving", "_counted", "_end", "_start", "_view", "limit", "taken")

    def __init__(self, limit: int, arriving: Arriving | None = None) -> None:
        self.limit = limit
        """Size in bytes of the largest body accepted."""
        self.taken = 0
        """How many bytes the latest `cut` took."""
        self._arriving = arriving
        self._counted = 0
        """Bytes that this one has in `arriving`."""
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
        before the next `space`. Raises CodecError for a frame over the limit or with a wrong CRC,
        and for one that is too much with those that arrive elsewhere."""
        start = self._start
        self._end += received
        view = self._view[start:] if start else self._view
        bodies, self.taken = split_frames(view, self._end - start, self.limit)
        self._start += self.taken
        left = self._end - self._start
        if left >= FRAME_HEADER.size:
            self._count(FRAME_HEADER.unpack_from(self._view, self._start)[0])
        elif not left and len(self._view) > _LARGE:
            self._start = self._end = 0
            self._view = memoryview(bytearray(_SMALL))
            self._count(0)
        return bodies

    def close(self) -> None:
        """Nothing arrives here any more."""
        self._count(0)

    def _count(self, size: int) -> None:
        if self._arriving is None:
            return
        self._arriving.shrink(self._counted)
        self._counted = 0
        if size > _LARGE:
            fault = self._arriving.grow(size)
            if fault is not None:
                raise CodecError(fault)
            self._counted = size
