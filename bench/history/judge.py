"""Is a whole history linearizable? OK, ILLEGAL with the smallest stretch that shows it, or UNKNOWN.

Linearizability is local, so every key is judged for itself, by the fastest way that can take its
calls: reads and unlike writes by zones.py, what `epaxos.sim.check.linearizability` has words for by
its search, the rest by search.py. The searches have a budget per key, and a key that exhausts it is
UNKNOWN, which is never a pass.

What a definite refusal wrote did not happen: seen by anybody, it makes the history ILLEGAL. A value
that nobody wrote may have been there before, where nobody knows what was: but only one per key.

Rules of this file: a pure function of the calls. A part that is shown to be illegal is one by
itself, whatever the calls around it did.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from bench.history.calls import ANYTHING, OTHER, HistoryCall
from bench.history.search import search
from bench.history.zones import illegal_part
from epaxos.sim.check.linearizability import Op, State, Verdict, check, say_answer, say_value

BUDGET: Final = 200_000
"""Positions of a search, per key, at least; a key with more calls has as many as it has calls."""
_SHOWN_MAX: Final = 40
"""So many calls of a stretch are shown."""
_TRY_BUDGET: Final = 2_000
"""Positions for the question whether a stretch needs a call: what costs more stays in it."""
_TRIED_MAX: Final = 200
"""So many calls of a stretch are tried without, one by one."""
_EXPLAINED_MAX: Final = 10
"""Of so many illegal keys the smallest stretch is looked for; one is shown."""
_TELL_EVERY: Final = 2_000
"""Calls judged between two reports."""
_MET_BEFORE: Final = b"(there before)"
"""A value that was there and that nobody read."""

Histories = Mapping[bytes, Sequence[HistoryCall]]
"""The calls of each key."""
Initial = bytes | str | None
"""What keys held before: a value, None, or a word: OTHER or ANYTHING."""
Refused = Mapping[bytes | None, HistoryCall]
"""What was refused as definitely not done, by the value that it would have written."""


class ShownCall(msgspec.Struct, frozen=True):
    """A call for people."""

    client: str
    what: str
    """What was asked and what was answered."""
    called: int
    returned: int | None


class HistoryVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a history."""

    verdict: str
    """OK, ILLEGAL or UNKNOWN."""
    calls: int
    keys: int
    ambiguous: int
    """Calls that nobody knows the fate of."""
    refused: int
    """Calls that certainly did not happen."""
    illegal_keys: int = 0
    unknown_keys: int = 0
    key: str = ""
    """Whose calls are shown."""
    shown: list[ShownCall] = []
    """The smallest stretch of calls that no order explains, by their calls."""
    why: str = ""
    """Why not OK, in a sentence."""
    share: int = 1
    """One key in so many was kept, with all of its calls."""

    def sentence(self) -> str:
        """All of it in a line."""
        parts = [f"{self.calls:,} calls on {self.keys:,} keys"]
        if self.share > 1:
            parts.append(f"all those on one key in {self.share}")
        if self.ambiguous:
            parts.append(f"{self.ambiguous:,} of unknown outcome")
        if self.refused:
            parts.append(f"{self.refused:,} refused")
        said = f"{self.verdict}: {', '.join(parts)}"
        return f"{said}; {self.why}" if self.why else said


def judge(
    histories: Histories,
    initial: Initial,
    budget: int = BUDGET,
    watch: Callable[[float], None] = lambda share: None,
) -> HistoryVerdict:
    """The verdict of all keys. `watch` hears which share is done; what it raises ends it."""
    whole = sum(map(len, histories.values()))
    illegal: list[tuple[bytes, list[HistoryCall]]] = []
    unknown: list[bytes] = []
    done = told = 0
    for key, calls in histories.items():
        if done >= told:
            watch(done / max(1, whole))
            told = done + _TELL_EVERY
        wants_part = len(illegal) < _EXPLAINED_MAX
        verdict, part = judge_key(calls, initial, budget, wants_part=wants_part)
        if verdict is Verdict.ILLEGAL:
            illegal.append((key, part))
        elif verdict is Verdict.UNKNOWN:
            unknown.append(key)
        done += len(calls)
    counts = Counter[str]()
    for calls in histories.values():
        for call in calls:
            counts["refused"] += call.refused
            counts["ambiguous"] += call.returned is None and not call.refused
    found = HistoryVerdict(
        verdict="OK",
        calls=whole,
        keys=len(histories),
        ambiguous=counts["ambiguous"],
        refused=counts["refused"],
        illegal_keys=len(illegal),
        unknown_keys=len(unknown),
    )
    if illegal:
        return _as_illegal(found, histories, illegal)
    if unknown:
        some = (
            f"{len(unknown):,} keys, {_named(unknown[0])} among them,"
            if unknown[1:]
            else (f"key {_named(unknown[0])}")
        )
        why = f"{some} undecided within the budget of {budget:,} positions"
        return msgspec.structs.replace(found, verdict="UNKNOWN", why=why, key=_named(unknown[0]))
    return found


def _as_illegal(
    found: HistoryVerdict, histories: Histories, illegal: list[tuple[bytes, list[HistoryCall]]]
) -> HistoryVerdict:
    key, part = min((each for each in illegal if each[1]), key=lambda each: len(each[1]))
    size = len(part)
    part = sorted(part, key=lambda call: call.called)[-_SHOWN_MAX:]
    shown = [_shown(call) for call in part]
    others = "" if len(illegal) == 1 else f" (and {len(illegal) - 1:,} other keys)"
    if size > len(shown):
        others = f"{others}, of which the last {len(shown)} are shown"
    refused = [call for call in part if call.refused]
    calls = "one call" if size == 1 else f"{size:,} calls"
    why = f"no order explains {calls} of key {_named(key)}{others}"
    if refused:
        why += ": what was refused as definitely not done was seen"
    return msgspec.structs.replace(found, verdict="ILLEGAL", key=_named(key), shown=shown, why=why)


def unfinished(found: HistoryVerdict, why: str) -> HistoryVerdict:
    """The verdict where calls are missing: then nothing can be said."""
    return msgspec.structs.replace(found, verdict="UNKNOWN", why=why, key="", shown=[])


def _shown(call: HistoryCall) -> ShownCall:
    words = [call.kind]
    if call.kind == "cas":
        words.append(f"{_expected(call.expect)} to {say_value(call.value)}")
    elif call.kind in ("put", "append"):
        words.append(say_value(call.value))
    if call.refused:
        answer = "refused, definitely not done"
    elif call.returned is None:
        answer = "?"
    else:
        answer = say_answer(call.kind, call.result)
    return ShownCall(call.client, f"{' '.join(words)} = {answer}", call.called, call.returned)


def _expected(expect: bytes | bool | str) -> str:
    if isinstance(expect, bool):
        return "any value" if expect else "nothing"
    return say_value(expect) if isinstance(expect, bytes) else f"version {expect}"


def _named(key: bytes) -> str:
    return key.decode("utf-8", "backslashreplace")


# One key -----------------------------------------------------------------------------------------


def judge_key(
    calls: Sequence[HistoryCall],
    initial: Initial,
    budget: int = BUDGET,
    *,
    wants_part: bool = True,
) -> tuple[Verdict, list[HistoryCall]]:
    """The verdict of the calls of one key, and of an illegal one the smallest stretch, where that
    is wanted or costs nothing."""
    part = _misversioned(calls)
    if part:
        return Verdict.ILLEGAL, part
    happened = _resolved([call for call in calls if not call.refused])
    refused: dict[bytes | None, HistoryCall] = {
        call.value: call for call in calls if call.refused and call.value is not None
    }
    if _are_unlike(happened):
        part = _value_part(happened, initial, refused)
        if part and initial != ANYTHING and not isinstance(initial, bytes):
            return Verdict.ILLEGAL, part
        if not part and all(call.kind in ("get", "put") for call in happened):
            return Verdict.OK, []
    verdict = _verdict(happened, initial, refused, max(budget, len(calls)))
    if verdict is not Verdict.ILLEGAL or not wants_part:
        return verdict, []
    return verdict, _smallest(happened, initial, refused)


def _are_unlike(calls: Sequence[HistoryCall]) -> bool:
    """Whether no value is written twice."""
    written = [call.value for call in calls if call.kind != "get" and call.value is not None]
    return len(set(written)) == len(written)


def _value_part(calls: list[HistoryCall], initial: Initial, refused: Refused) -> list[HistoryCall]:
    """Calls that no order explains, if the values found and written show it alone; none: they do
    not, and of gets and puts there is an order.

    A compare-and-set that was done found one value and wrote another. What found no value, and what
    removed some, is left out where values are removed: no value is written twice, so that between
    a value's write and whoever finds it nothing else was written or removed."""
    if any(call.kind == "append" for call in calls):
        return []
    if all(call.kind in ("get", "put") for call in calls):
        return _register_part(calls, initial, refused)
    found: list[HistoryCall] = []
    whole: dict[int, HistoryCall] = {}
    for call in calls:
        wanted = _wanted(call)
        if wanted is not None:
            found.append(msgspec.structs.replace(call, kind="get", value=None, result=wanted))
            whole[id(found[-1])] = call
        if call.value is not None and (call.returned is None or call.result is True):
            result = None if call.returned is None else True
            found.append(msgspec.structs.replace(call, kind="put", result=result))
            whole[id(found[-1])] = call
    part = _register_part(found, initial, refused)
    return list({id(each): each for each in (whole.get(id(call), call) for call in part)}.values())


def _register_part(
    calls: list[HistoryCall], initial: Initial, refused: Refused
) -> list[HistoryCall]:
    """Calls that no order explains, of gets and puts that write unlike values, none of which was
    there before; none: there is an order."""
    written = {call.value for call in calls if call.kind == "put"}
    before: dict[bytes | None, HistoryCall] = {}
    for read in sorted(calls, key=lambda call: call.called):
        if read.kind == "put" or read.returned is None or read.result in written:
            continue
        assert not isinstance(read.result, bool | tuple)
        before.setdefault(read.result, read)
        if read.result in refused and initial != ANYTHING:
            return [refused[read.result], read]
        if not isinstance(initial, str) and read.result != initial:
            return [read]
        if len(before) > 1:
            return list(before.values())
    return illegal_part(calls, next(iter(before), None)) or []


def _verdict(
    calls: Sequence[HistoryCall],
    initial: Initial,
    refused: Refused,
    budget: int,
) -> Verdict:
    """Linearizable from any value that may have been there before."""
    found = Verdict.ILLEGAL
    for start in _starts(calls, initial, refused):
        ops = _ops(calls, start)
        each = search(calls, start, budget) if ops is None else check(ops, budget)
        if each is Verdict.OK:
            return each
        if each is Verdict.UNKNOWN:
            found = each
    return found


def _starts(
    calls: Sequence[HistoryCall],
    initial: Initial,
    refused: Refused,
) -> list[State]:
    """The values that may have been there before. Of those that nobody wrote only one can have
    been."""
    if not isinstance(initial, str):
        return [initial]
    if any(call.kind == "append" for call in calls):
        return [None]
    written = dict.fromkeys(call.value for call in calls if call.kind != "get" and call.value)
    unwritten = [value for value in dict.fromkeys(map(_wanted, calls)) if value not in written]
    if initial == OTHER:
        written, unwritten = {}, [value for value in unwritten if value not in refused]
    return list(dict.fromkeys([None, *unwritten[:3], _MET_BEFORE, *written]))


def _wanted(call: HistoryCall) -> bytes | None:
    """The value that a call's answer says was there."""
    if call.returned is None:
        return None
    result = call.result
    if call.kind == "get":
        return result if isinstance(result, bytes) else None
    if isinstance(result, tuple):
        return result[1]
    return call.expect if result is True and isinstance(call.expect, bytes) else None


def _ops(calls: Sequence[HistoryCall], start: State) -> list[Op] | None:
    """The calls for the search that knows most; None: it has no words for one of them."""
    ops: list[Op] = []
    if start is not None:
        first = min((call.called for call in calls), default=0)
        ops.append(Op("put", start, None, first - 2, first - 1, True))
    for call in calls:
        expect = call.expect
        if call.kind == "append" or expect is True or isinstance(expect, str):
            return None
        if call.kind == "cas" and call.result is False:
            return None
        expected = expect if isinstance(expect, bytes) else None
        ops.append(Op(call.kind, call.value, expected, call.called, call.returned, call.result))
    return ops


# Versions ----------------------------------------------------------------------------------------


def _misversioned(calls: Sequence[HistoryCall]) -> list[HistoryCall]:
    """Two calls whose answers name one version of two writes, or of two values."""
    said: dict[str, HistoryCall] = {}
    for call in calls:
        if call.version and _writes(call):
            other = said.setdefault(call.version, call)
            if other is not call:
                return [other, call]
    for call in calls:
        if call.version and call.kind == "get" and call.result is not None:
            other = said.setdefault(call.version, call)
            value = other.result if other.kind == "get" else other.value
            if value != call.result:
                return [other, call]
    return []


def _writes(call: HistoryCall) -> bool:
    """Whether the version in its answer is that of what it wrote."""
    return call.kind in ("put", "cas") and call.result is True and call.value is not None


def _resolved(calls: list[HistoryCall]) -> list[HistoryCall]:
    """The calls with the values that their versions stand for. What expects a version that nobody
    else names says little: that some value was there, or nothing."""
    if not any(isinstance(call.expect, str) or call.result is False for call in calls):
        return calls
    values: dict[str, bytes] = {}
    for call in calls:
        value = call.value if _writes(call) else call.result if call.kind == "get" else None
        if call.version and isinstance(value, bytes):
            values[call.version] = value
    written = Counter(call.value for call in calls if call.kind != "get")
    found: list[HistoryCall] = []
    for each in calls:
        call = each
        if call.kind == "cas" and call.result is False and call.version in values:
            call = msgspec.structs.replace(call, result=(False, values[call.version]))
        if not isinstance(call.expect, str):
            found.append(call)
            continue
        value = values.get(call.expect)
        is_sure = value is not None and written[value] <= 1
        if call.returned is None or call.result is True or is_sure:
            expect = True if value is None else value
            found.append(msgspec.structs.replace(call, expect=expect))
        elif isinstance(call.result, tuple):
            met = msgspec.structs.replace(call, kind="get", value=None, result=call.result[1])
            found.append(msgspec.structs.replace(met, expect=False))
    return found


# The smallest stretch ----------------------------------------------------------------------------


def _smallest(calls: list[HistoryCall], initial: Initial, refused: Refused) -> list[HistoryCall]:
    """A stretch of illegal calls that is illegal by itself: cut off behind its first return that
    nothing explains, before its last quiet moment that leaves it so, and without reads that it
    does not need."""

    def is_illegal(part: Sequence[HistoryCall], start: Initial, budget: int = BUDGET) -> bool:
        return _verdict(part, start, refused, budget) is Verdict.ILLEGAL

    ends = sorted({call.returned for call in calls if call.returned is not None})
    end = _first(len(ends) - 1, lambda at: is_illegal(_until(calls, ends[at]), initial))
    part = sorted(_until(calls, ends[end]), key=lambda call: call.called)
    # What appends made of an earlier value nobody can say.
    quiet = [] if any(call.kind == "append" for call in part) else _quiet(part)
    free = OTHER if initial != ANYTHING and _are_unlike(calls) else ANYTHING
    legal = _first(len(quiet), lambda at: not is_illegal(part[quiet[at] :], free))
    start = initial
    if legal:
        part, start = part[quiet[legal - 1] :], free
    for call in list(part) if len(part) <= _TRIED_MAX else ():
        fewer = [each for each in part if each is not call]
        if call.kind == "get" and is_illegal(fewer, start, _TRY_BUDGET):
            part = fewer
    seen = {_wanted(call) for call in part}
    return part + [call for value, call in refused.items() if value in seen and value is not None]


def _first(last: int, holds: Callable[[int], bool]) -> int:
    """The first number from 0 on for which this holds, as for all after it; `last` if for none
    before."""
    low, high = 0, last
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _until(calls: Sequence[HistoryCall], end: int) -> list[HistoryCall]:
    """What had been called by then, and writes that were called too late for who read them; what
    had not returned is of unknown outcome."""
    found = [call for call in calls if call.called <= end]
    wanted = {_wanted(call) for call in found if (call.returned or end) <= end}
    late = [call for call in calls if call.called > end and call.kind != "get"]
    return [
        call
        if call.returned is not None and call.returned <= end
        else msgspec.structs.replace(call, returned=None, result=None)
        for call in (*found, *(each for each in late if each.value in wanted and each.value))
    ]


def _quiet(part: Sequence[HistoryCall]) -> list[int]:
    """Where, in the order of calls, everything before has returned. What never returned never
    has."""
    found: list[int] = []
    latest: float = float("-inf")
    for at, call in enumerate(part):
        if at and latest < call.called:
            found.append(at)
        latest = max(latest, float("inf") if call.returned is None else call.returned)
    return found
