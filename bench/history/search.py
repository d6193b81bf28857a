"""A plain search for histories whose calls say less, or do more, than the fast ways can take.

Appends make a value that no call names; a compare-and-set that failed without saying what it met
tells only what was not there; one that expects any value says nothing of it. For the rest there are
zones.py and `epaxos.sim.check.linearizability`.

The search of Wing and Gong, just in time, with Lowe's memo: a position is the next return, which of
the calls open there have taken effect, and the state.

Rules of this file: the model is `effect`; what is left out is left out for a reason beside it.
"""

from bisect import bisect_left
from collections.abc import Sequence
from enum import Enum

from bench.history.calls import HistoryCall
from epaxos.sim.check.linearizability import State, Verdict


class Misfit(Enum):
    """Instead of a state."""

    MISFIT = "the call would have been answered otherwise"


def effect(call: HistoryCall, state: State) -> State | Misfit:
    """The state after a call that gives its answer in this state, or whose answer nobody knows."""
    kind, result, is_known = call.kind, call.result, call.returned is not None
    fits, after = True, state
    if kind == "get":
        fits = result == state
    elif kind == "put":
        after = call.value
    elif kind == "append":
        after = (state or b"") + (call.value or b"")
    elif kind == "delete":
        fits, after = not is_known or result == (state is not None), None
    else:
        expect = call.expect
        assert not isinstance(expect, str)
        as_expected = expect is (state is not None) if isinstance(expect, bool) else expect == state
        if as_expected:
            after = call.value
        if isinstance(result, tuple):
            fits = not as_expected and result[1] == state
        else:
            fits = not is_known or result == as_expected
    return after if fits else Misfit.MISFIT


def search(calls: Sequence[HistoryCall], initial: State, budget: int) -> Verdict:
    """Whether some order of the calls of one key explains every answer; at most so many positions
    are visited."""
    known = sorted(
        (call for call in calls if call.returned is not None), key=lambda call: call.returned or 0
    )
    if not known:
        return Verdict.OK
    open_at = _open_at(known, [call for call in calls if call.returned is None])
    seen: set[tuple[int, frozenset[int], State]] = set()
    stack: list[tuple[int, frozenset[int], State]] = [(0, frozenset(), initial)]
    while stack:
        number, done, state = stack.pop()
        while number < len(known) and number in done:
            done -= {number}
            number += 1
        if number == len(known):
            return Verdict.OK
        # What gives its answer and changes nothing may as well take effect here.
        done |= {at for at, call in open_at[number] if at not in done and _is_still(call, state)}
        if number in done:
            stack.append((number, done, state))
            continue
        position = (number, done, state)
        if position in seen:
            continue
        seen.add(position)
        if len(seen) > budget:
            return Verdict.UNKNOWN
        stack += _ways(number, done, state, open_at[number])
    return Verdict.ILLEGAL


def _is_still(call: HistoryCall, state: State) -> bool:
    """Whether it gives its answer here and writes nothing. What writes the value that is there may
    be needed later, to bring that value back."""
    writes = call.kind in ("put", "append") or (call.kind == "cas" and call.result is True)
    return call.returned is not None and not writes and effect(call, state) == state


def _ways(
    number: int, done: frozenset[int], state: State, calls: list[tuple[int, HistoryCall]]
) -> list[tuple[int, frozenset[int], State]]:
    """The positions after one more call, that which is needed next as the last.

    Of calls that nobody knows the fate of and that do the same, the first will do."""
    ways: list[tuple[int, frozenset[int], State]] = []
    needed: list[tuple[int, frozenset[int], State]] = []
    tried: set[tuple[str, bytes | None, bytes | bool | str]] = set()
    for at, call in calls:
        if at in done:
            continue
        if call.returned is None:
            same = (call.kind, call.value, call.expect)
            if same in tried:
                continue
            tried.add(same)
        after = effect(call, state)
        if after is Misfit.MISFIT or (call.returned is None and after == state):
            continue
        (needed if at == number else ways).append((number, done | {at}, after))
    return ways + needed


def _open_at(
    known: list[HistoryCall], unknown: list[HistoryCall]
) -> list[list[tuple[int, HistoryCall]]]:
    """For each return, the calls that may take effect before it, with their numbers: of known ones
    that of their return, of the others further ones."""
    returns = [call.returned or 0 for call in known]
    starting: list[list[tuple[int, HistoryCall]]] = [[] for _ in known]
    for at, call in enumerate([*known, *sorted(unknown, key=lambda call: call.called)]):
        start = bisect_left(returns, call.called)
        if start < len(known) and (call.returned is not None or call.kind != "get"):
            starting[start].append((at, call))
    found: list[list[tuple[int, HistoryCall]]] = []
    now: list[tuple[int, HistoryCall]] = []
    for number, news in enumerate(starting):
        now = sorted(
            [*(each for each in now if each[0] >= number), *news], key=lambda each: each[0]
        )
        found.append(now)
    return found
