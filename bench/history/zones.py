"""Is a history of reads and unlike writes of one register linearizable? In time n log n.

Where no two writes write the same value, each read says whose value it found. A value's write and
its reads are a *cluster*; between them no other write may take effect. So of two clusters, one
comes wholly before the other. Cluster A must come before B if some call of A returned before some
call of B was made: if A's first return lies before B's last call. The history is linearizable if
and only if no read returned before its value's write was called, and no two clusters must come
before each other (Gibbons and Korach, *Testing shared memories*, SIAM J. Comput. 26, 1997: forward
zones overlap, or a backward zone lies within a forward one). A longer circle of clusters contains
one of two.

Rules of this file: intervals are closed, as in `epaxos.sim.check.linearizability`.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from bench.history.calls import HistoryCall

_BEFORE = float("-inf")
_NEVER = float("inf")


class _Cluster:
    """A value's write and its reads."""

    __slots__ = ("first", "first_call", "last", "last_call", "write", "written")

    def __init__(self, write: HistoryCall | None) -> None:
        self.write = write
        """None: the value was there before the history."""
        self.written = write.called if write is not None else _BEFORE
        self.first = _BEFORE if write is None else _end(write)
        """The first return of its calls."""
        self.first_call = write
        self.last: float = self.written
        """The last call."""
        self.last_call = write

    def add(self, read: HistoryCall) -> None:
        end = _end(read)
        if end < self.first:
            self.first, self.first_call = end, read
        if read.called > self.last:
            self.last, self.last_call = read.called, read

    def calls(self) -> list[HistoryCall]:
        """Those that say what must be said of it."""
        found = (self.write, self.first_call, self.last_call)
        return [call for call in found if call is not None]


def illegal_part(calls: Sequence[HistoryCall], initial: bytes | None) -> list[HistoryCall] | None:
    """Calls that no order explains, as few as show it; None: the history is linearizable.

    `calls` are gets and puts of one key that had this value, whose puts write values that differ
    from each other and from it. Every value read is that of a put, or the initial one."""
    clusters: dict[bytes | None, _Cluster] = {initial: _Cluster(None)}
    for call in calls:
        if call.kind == "put":
            clusters[call.value] = _Cluster(call)
    for call in calls:
        if call.kind == "put" or call.returned is None:
            continue
        assert not isinstance(call.result, bool | tuple)
        cluster = clusters[call.result]
        if cluster.write is not None and call.returned < cluster.written:
            return [call, cluster.write]
        cluster.add(call)
    return _conflict(list(clusters.values()))


def _conflict(clusters: list[_Cluster]) -> list[HistoryCall] | None:
    """The calls of two clusters that must come before each other; of such pairs the shortest."""
    forward = sorted(
        (each for each in clusters if each.first < each.last), key=lambda each: each.first
    )
    firsts = [each.first for each in forward]
    longest = list(accumulate(forward, _later))
    pairs = [(a, b) for a, b in zip(longest, forward[1:]) if b.first < a.last]
    for each in clusters:
        if each.first >= each.last:
            at = bisect_left(firsts, each.last)
            if at and each.first < longest[at - 1].last:
                pairs.append((longest[at - 1], each))
    if not pairs:
        return None
    return min((_calls(a, b) for a, b in pairs), key=_length)


def _later(a: _Cluster, b: _Cluster) -> _Cluster:
    return b if b.last > a.last else a


def _calls(a: _Cluster, b: _Cluster) -> list[HistoryCall]:
    found = {id(call): call for call in (*a.calls(), *b.calls())}
    return sorted(found.values(), key=lambda call: call.called)


def _length(calls: list[HistoryCall]) -> float:
    ends = [call.called if call.returned is None else call.returned for call in calls]
    return max(ends) - calls[0].called


def _end(call: HistoryCall) -> float:
    return _NEVER if call.returned is None else call.returned
