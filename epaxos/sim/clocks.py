"""A process's own clock: offset, rate and jumps over the world's virtual time; never backwards."""

from epaxos.core.types import Micros

PPM = 1_000_000


class LocalClock:
    """Integer arithmetic only, so that a run is the same everywhere."""

    __slots__ = ("_here", "_rate", "_there")

    def __init__(self, offset: Micros = 0, rate_ppm: int = PPM) -> None:
        self._there: Micros = 0
        """World time at which the clock showed `_here`."""
        self._here = offset
        self._rate = rate_ppm
        """Local microseconds per second of the world."""

    def local(self, now: Micros) -> Micros:
        """What the clock shows at a moment of the world."""
        return self._here + (now - self._there) * self._rate // PPM

    def world(self, local: Micros) -> Micros:
        """The first moment of the world at which the clock shows `local` or more."""
        ahead = (local - self._here) * PPM
        return self._there + -(-ahead // self._rate)

    def jump(self, now: Micros, forward: Micros) -> None:
        """The clock is suddenly ahead by so much more."""
        self._here = self.local(now) + forward
        self._there = now
