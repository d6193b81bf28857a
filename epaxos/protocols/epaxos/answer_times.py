"""The shortest and the longest that each member lately took to answer a PreAccept (H7).

The shortest is the member's distance, whatever the load. The longest is what the member does when
nothing is wrong with it, under the present load: who is later than that is slow against itself.
Extremes of two windows instead of a mean with its deviation: answers come in bursts, and a mean
that moves with each of them follows the last burst and knows nothing of the next.

Rules of this file: no clock and no timers; it is told what an answer took, and when to forget."""

from epaxos.core.types import Micros, ReplicaId

WINDOW_US = 5_000_000
"""An answer time is remembered for one to two of these."""
LEAST_GROWTH_US = 40_000
"""One answer may raise the longest by so much, or to twice what it was, whichever is more: a copy
that comes late, or a clock that jumped, says little; a few answers reach any height."""
_NONE: Micros = 1 << 62
"""The shortest of no answers."""


class AnswerTimes:
    """Extremes per member over the present window and the one before."""

    __slots__ = ("_before", "_turn_at", "longest", "shortest")

    def __init__(self, n: int) -> None:
        self.shortest: list[Micros] = [_NONE] * n
        """Of the present window."""
        self.longest: list[Micros] = [0] * n
        """Of the present window."""
        self._before = ([_NONE] * n, [0] * n)
        self._turn_at: Micros = 0

    def learn(self, member: ReplicaId, took: Micros) -> None:
        """One answer. Callers may leave out what lies between `shortest` and `longest`."""
        if took < 0:
            return
        if took < self.shortest[member]:
            self.shortest[member] = took
        if took > self.longest[member]:
            known = max(self.longest[member], self._before[1][member])
            if known:
                took = min(took, max(2 * known, known + LEAST_GROWTH_US))
            self.longest[member] = took

    def turn(self, now: Micros) -> None:
        """Begin a new window if it is time."""
        if now >= self._turn_at:
            n = len(self.longest)
            self._turn_at = now + WINDOW_US
            self._before = (self.shortest, self.longest)
            self.shortest, self.longest = [_NONE] * n, [0] * n

    def least(self, member: ReplicaId, unknown: Micros) -> Micros:
        """The shortest that is remembered; `unknown` if nothing is."""
        found = min(self.shortest[member], self._before[0][member])
        return unknown if found == _NONE else found

    def most(self, member: ReplicaId, unknown: Micros) -> Micros:
        """The longest that is remembered; `unknown` if nothing is."""
        return max(self.longest[member], self._before[1][member]) or unknown
