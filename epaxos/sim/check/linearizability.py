"""Is a history of one key linearizable?

The search of Wing and Gong with Lowe's memo, just in time: it walks along the returns of a key's
operations and lets an operation take effect only when the next return needs it. A position of the
search is (next return, which of the operations open there have taken effect, state); operations
that returned before are not in it, so a history costs its length times the number of operations
open at once, and at a moment without an open operation nothing is left of it but the state.
Histories are cut by key, because linearizability is local.

Intervals are closed: an operation that returned at the moment another was called may be before or
after it. An operation of unknown outcome may take effect at any time after its call, or never.
Running out of budget is `UNKNOWN`, and unknown is never a pass.

Rules of this file: a pure function of its arguments; the model is `step`. What is left out of the
search is left out for a reason that stands beside it; what is tried first decides only how soon an
order is found.
"""

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from epaxos.core.types import Micros

State = bytes | None
"""The value of the key; None: it has none."""


BUDGET = 200_000
"""Positions in which the search may choose, per key."""


class _Any(Enum):
    """Where a value would stand."""

    VALUE = "any, or none"
    PRESENT = "any that is there"


class Verdict(Enum):
    """What the search found."""

    OK = "linearizable"
    ILLEGAL = "not linearizable"
    UNKNOWN = "undecided within the budget"


class Op(NamedTuple):
    """One operation on one key."""

    kind: str
    """`get`, `put`, `delete` or `cas`."""
    value: State
    """What to write: put, cas (None removes)."""
    expect: State | frozenset[State]
    """cas: the value expected; None: expected to be absent. A set: any of these will do."""
    called: Micros
    returned: Micros | None
    """None: the outcome is unknown."""
    result: object
    """get: the value found or None. put: True. delete: whether there was a value. cas: True, or
    `(False, value met)`."""

    def __str__(self) -> str:
        words = [self.kind]
        if self.kind == "cas":
            words.append(f"{_say_expected(self.expect)} to {say_value(self.value)}")
        elif self.kind == "put":
            words.append(say_value(self.value))
        answer = say_answer(self.kind, self.result)
        if self.returned is None:
            return f"{' '.join(words)} = ? [{self.called / 1000:.3f} ms –]"
        return (
            f"{' '.join(words)} = {answer} [{self.called / 1000:.3f}–{self.returned / 1000:.3f} ms]"
        )


def say_value(value: object) -> str:
    """A value for people."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else "nothing"


def _say_expected(expect: State | frozenset[State]) -> str:
    if not isinstance(expect, frozenset):
        return say_value(expect)
    return f"any of ({' '.join(sorted(map(say_value, expect)))})"


def say_answer(kind: str, result: object) -> str:
    """What a client was told of an operation of this kind, in a word or two."""
    if isinstance(result, tuple):
        return f"no, met {say_value(result[1])}"
    if kind == "get":
        return say_value(result)
    return "yes" if result else "no"


def say_illegal(ops: Sequence[Op], most: int, say: Callable[[Op], str] = str) -> str:
    """The answer of an illegal history that no order explains, and at most so many before it."""
    finished = [op for op in shortest_illegal(ops) if op.returned is not None]
    finished.sort(key=lambda op: op.returned or 0)
    *before, last = map(say, finished[-most - 1 :])
    return f"no order explains {last}; before it {'; '.join(before) or 'nothing'}"


def step(state: State, op: Op) -> tuple[object, State]:
    """The sequential key-value machine: what the operation answers, and the state after it."""
    if op.kind == "get":
        return state, state
    if op.kind == "put":
        return True, op.value
    if op.kind == "delete":
        return state is not None, None
    if state in op.expect if isinstance(op.expect, frozenset) else state == op.expect:
        return True, op.value
    return (False, state), state


def explains(order: Sequence[Op]) -> bool:
    """Whether this very order of operations on one key is a proof that they are linearizable.

    It is if it answers what was answered and nothing stands before something that had returned
    before it was called. Operations left out must be of unknown outcome. Linear time."""
    state: State = None
    latest_call: Micros = -1
    for op in order:
        if op.returned is not None and op.returned < latest_call:
            return False
        latest_call = max(latest_call, op.called)
        result, state = step(state, op)
        if op.returned is not None and result != op.result:
            return False
    return True


def check(ops: Sequence[Op], budget: int = BUDGET) -> Verdict:
    """Whether some order of `ops`, all on one key that had no value, explains every answer.

    `budget` bounds the number of positions visited in which there was a choice."""
    return _Search(ops).run(budget)


def check_all(
    histories: Mapping[bytes, Sequence[Op]], budget: int = BUDGET
) -> dict[bytes, Verdict]:
    """The verdict of every key, each within a budget of its own."""
    return {key: check(ops, budget) for key, ops in sorted(histories.items())}


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """One verdict for all keys: linearizable only if every key is."""
    found = set(verdicts)
    for verdict in (Verdict.ILLEGAL, Verdict.UNKNOWN):
        if verdict in found:
            return verdict
    return Verdict.OK


def shortest_illegal(ops: Sequence[Op]) -> list[Op]:
    """The shortest beginning of an illegal history that is illegal already.

    What had not returned by then is of unknown outcome in it; a beginning of a linearizable history
    is linearizable, so the operation that returned last is the one that cannot be explained."""
    ends = sorted({op.returned for op in ops if op.returned is not None})
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high) // 2
        if check(_until(ops, ends[middle])) is Verdict.ILLEGAL:
            high = middle
        else:
            low = middle + 1
    return _until(ops, ends[low])


def _until(ops: Sequence[Op], end: Micros) -> list[Op]:
    return [
        op
        if op.returned is not None and op.returned <= end
        else op._replace(returned=None, result=None)
        for op in ops
        if op.called <= end
    ]


_Position = tuple[int, int, State]
"""The next return, bits of what is open there and has taken effect, the state."""

_NEVER = 1 << 62


class _Entry:
    """An operation in the search. Times are numbers of returns, in the order of returns."""

    __slots__ = ("bit", "end", "free_from", "known", "met_until", "op", "start", "wants", "writes")

    def __init__(self, op: Op, start: int, end: int) -> None:
        self.op = op
        self.known = op.returned is not None
        self.start = start
        """The first return before which it may take effect."""
        self.end = end
        """Its own return; of unknown outcome: the last that can tell whether it took effect."""
        self.bit = 0
        """Its place among the operations open with it; a place is used again."""
        self.wants = _wants(op)
        self.writes = _writes(op)
        self.met_until = _NEVER
        """Of unknown outcome: the last return of an operation that met its value."""
        self.free_from = _NEVER
        """A put: from this return on, all that can tell of its value are reads open by then."""

    def fits(self, state: State) -> bool:
        """Whether it gives its answer in this state."""
        wants = self.wants
        if isinstance(wants, frozenset):
            return state in wants
        return wants is _Any.VALUE or (
            state is not None if wants is _Any.PRESENT else wants == state
        )

    def met(self) -> Iterable[State | _Any]:
        """The states in any of which it gives its answer."""
        return self.wants if isinstance(self.wants, frozenset) else (self.wants,)


class _Search:
    """The search over one history."""

    def __init__(self, ops: Sequence[Op]) -> None:
        known = sorted(
            (op for op in ops if op.returned is not None), key=lambda op: op.returned or 0
        )
        self._possible = not any(map(_is_impossible, known))
        returns = [op.returned or 0 for op in known]
        self._entries = [
            _Entry(op, bisect_left(returns, op.called), number) for number, op in enumerate(known)
        ]
        """The known operations, by return."""
        unknown = [
            _Entry(op, bisect_left(returns, op.called), -1) for op in ops if op.returned is None
        ]
        self._still: list[list[_Entry]] = [[] for _ in known]
        """What is open at each return and changes nothing whenever it gives its answer."""
        self._moving: list[list[_Entry]] = [[] for _ in known]
        """The others: the earliest to return first, then those of unknown outcome."""
        self._closed = [0] * len(known)
        """Bits that a return frees."""
        self._writers: dict[State | _Any, int] = {}
        self._met: dict[State | _Any, list[_Entry]] = {}
        """Known operations by the value they met, the last to return first."""
        self._due: dict[State | _Any, int] = {}
        """The first return that shows that a value was there."""
        self._held: dict[State | _Any, int] = {}
        """The last return that comes before the call of something that meets a value."""
        useful = self._useful(unknown)
        self._lay_out([*self._entries, *useful])
        self._look_at_values([*self._entries, *useful])
        self._look_for_free(useful)

    def _useful(self, unknown: list[_Entry]) -> list[_Entry]:
        """The operations of unknown outcome that an explanation may need, and until when.

        It needs no reads, and a write only as long as an operation has not returned that met its
        value, or that removed some value and could have met none without it."""
        told: dict[State | _Any, int] = {}
        for entry in self._entries:
            told.update(dict.fromkeys(entry.met(), entry.end))
        removed = told.get(_Any.PRESENT, -1)
        changed = True
        while changed:
            changed = False
            for entry in unknown:
                if entry.op.kind != "get":
                    entry.met_until = told.get(entry.writes, -1)
                    met = entry.met()
                    creates = (_Any.VALUE in met or None in met) and entry.writes is not None
                    entry.end = max(entry.met_until, removed if creates else -1)
                if entry.op.kind == "cas":
                    for state in entry.met():
                        if entry.end > told.get(state, -1):
                            told[state] = entry.end
                            changed = True
        return [entry for entry in unknown if entry.start <= entry.end]

    def _lay_out(self, entries: list[_Entry]) -> None:
        """Give every operation a bit while it is open, and every return what is open there."""
        starting: list[list[_Entry]] = [[] for _ in self._entries]
        for entry in entries:
            starting[entry.start].append(entry)
        free: list[int] = []
        used = 0
        open_: list[_Entry] = []
        for number, news in enumerate(starting):
            for entry in news:
                if free:
                    entry.bit = heapq.heappop(free)
                else:
                    entry.bit, used = 1 << used, used + 1
            open_ = sorted([*open_, *news], key=lambda entry: (not entry.known, entry.end))
            for entry in open_:
                still = entry.writes is _Any.VALUE or entry.writes == entry.wants
                (self._still if still else self._moving)[number].append(entry)
                if entry.end == number:
                    self._closed[number] |= entry.bit
                    heapq.heappush(free, entry.bit)
            open_ = [entry for entry in open_ if entry.end > number]

    def _look_at_values(self, entries: list[_Entry]) -> None:
        for entry in entries:
            self._writers[entry.writes] = self._writers.get(entry.writes, 0) + 1
        for entry in reversed(self._entries):
            self._due[entry.writes] = entry.end
            if isinstance(entry.wants, frozenset):
                continue  # none of these states need stay for it
            self._met.setdefault(entry.wants, []).append(entry)
            self._held[entry.wants] = max(self._held.get(entry.wants, -1), entry.start - 1)
            self._due[entry.wants] = entry.end

    def _look_for_free(self, useful: list[_Entry]) -> None:
        """Find the puts that may be hidden under what follows them, and from when on."""
        removing = [*self._entries, *useful]
        self._removals = sorted(each.start for each in removing if each.wants is _Any.PRESENT)
        chained = {
            state
            for entry in removing
            if entry.op.kind == "cas" and (not entry.known or isinstance(entry.wants, frozenset))
            for state in entry.met()
        }
        for entry in self._entries:
            readers = self._met.get(entry.writes, ())
            if (
                entry.op.kind == "put"
                and entry.writes not in chained
                and self._writers[entry.writes] == 1
                and all(reader.writes is _Any.VALUE for reader in readers)
            ):
                entry.free_from = max((reader.start for reader in readers), default=0)

    def run(self, budget: int) -> Verdict:
        """Depth first, the likeliest way first."""
        if not self._possible:
            return Verdict.ILLEGAL
        if not self._entries:
            return Verdict.OK
        seen: set[_Position] = set()
        stack: list[_Position] = [(0, 0, None)]
        while stack:
            position = self._advance(*stack.pop())
            if position is None:
                return Verdict.OK
            if position in seen:
                continue
            seen.add(position)
            if len(seen) > budget:
                return Verdict.UNKNOWN
            stack += self._ways(*position)
        return Verdict.ILLEGAL

    def _advance(self, number: int, done: int, state: State) -> _Position | None:
        """Go on as long as there is no choice; None: to the end.

        What changes nothing whenever it gives its answer takes effect at once if the answer is
        right: in any explanation it can be moved here. A write of the value that is there cannot:
        it may be needed to bring the value back."""
        while True:
            for entry in self._still[number]:
                if entry.wants == state:
                    done |= entry.bit
            if not done & self._entries[number].bit:
                return number, done, state
            done &= ~self._closed[number]
            number += 1
            if number == len(self._entries):
                return None

    def _ways(self, number: int, done: int, state: State) -> list[_Position]:
        """The positions that follow by letting one open operation take effect, the likeliest last.

        Likeliest is a write that would otherwise become due while the value now needed must stay;
        then what lets the next return happen. A free put is not tried for its own sake, unless a
        deletion finds nothing: then the first that is due will do."""
        needed = self._entries[number]
        stuck = not needed.fits(state)
        others: list[_Entry] = []
        helpful: list[_Entry] = []
        free: list[_Entry] = []
        removals = 0
        for entry in self._choices(number, done, state):
            removals += entry.wants is _Any.PRESENT
            is_free = entry.free_from <= number
            if is_free:
                free.append(entry)
            if not entry.fits(state) or self._must_stay(number, done, state, entry):
                continue
            if entry is needed or (stuck and entry.writes in needed.met()):
                helpful.append(entry)
            elif is_free:
                continue
            elif stuck and needed.wants is _Any.PRESENT and entry.writes is not None:
                helpful.append(entry)
            else:
                others.append(entry)
        due = self._due
        free.sort(key=lambda entry: due[entry.writes])
        if removals and state is None:
            others += free[:1]
        held = max((self._held.get(entry.writes, -1) for entry in helpful), default=-1)
        early = [entry for entry in others if due.get(entry.writes, _NEVER) <= held]
        late = [entry for entry in others if due.get(entry.writes, _NEVER) > held]
        ways: list[_Position] = []
        for entry in (*late, *helpful, *early):
            assert not isinstance(entry.writes, _Any)
            if not free or entry.op.kind == "cas":
                ways.append((number, done | entry.bit, entry.writes))
                continue
            at_most = self._kept_at_most(number, free, removals - (entry.op.kind == "delete"))
            until = self._held.get(entry.writes, -1)
            likely = sum(due[put.writes] > until for put in free)
            for kept in sorted(range(at_most + 1), key=lambda kept: -abs(likely - kept)):
                hidden = self._together(free[: len(free) - kept])
                ways.append((number, done | entry.bit | hidden, entry.writes))
        return ways

    def _kept_at_most(self, number: int, free: list[_Entry], removals: int) -> int:
        """How many free puts may be kept from taking effect just before a put or a deletion.

        In an explanation, a free put is followed by a put, or by a deletion that would find
        something without it, and can be moved to here; or by a deletion that needs it. So many
        deletions there may be before the last of the puts is due; and one after. Puts kept for
        that are alike: they are the last to be due."""
        after = bisect_right(self._removals, self._due[free[-1].writes])
        removals += after - bisect_right(self._removals, number)
        removals += after < len(self._removals)
        return min(removals, len(free))

    def _together(self, puts: list[_Entry]) -> int:
        """The bits of these puts and of their reads."""
        bits = 0
        for put in puts:
            bits |= put.bit
            for reader in self._met.get(put.writes, ()):
                bits |= reader.bit
        return bits

    def _choices(self, number: int, done: int, state: State) -> list[_Entry]:
        """What is open and may change something; those of unknown outcome first.

        Of those that are alike one is enough: deletions of unknown outcome, and writes of unknown
        outcome that nobody will meet, which help only a deletion that finds nothing."""
        choices: list[_Entry] = []
        spare = removal = awaited = False
        for entry in self._moving[number]:
            if done & entry.bit:
                continue
            if entry.known:
                awaited = awaited or entry.wants is _Any.PRESENT
            elif entry.op.kind == "delete":
                if removal:
                    continue
                removal = True
            elif entry.writes is not None and entry.met_until < number:
                if spare or not awaited or state is not None:
                    continue
                spare = True
            choices.append(entry)
        choices.reverse()
        return choices

    def _must_stay(self, number: int, done: int, state: State, leaving: _Entry) -> bool:
        """Whether nobody can bring this value back, and another operation has still to meet it."""
        if state is None or self._writers.get(state) != 1:
            return False
        for entry in self._met.get(state, ()):
            if entry.end < number:
                return False
            if entry is not leaving and (entry.start > number or not done & entry.bit):
                return True
        return False


def _is_impossible(op: Op) -> bool:
    """Whether no state gives this answer."""
    wants = _wants(op)
    if isinstance(wants, frozenset):
        return not wants
    state = b"" if isinstance(wants, _Any) else wants
    return step(state, op)[0] != op.result


def _wants(op: Op) -> State | frozenset[State] | _Any:
    """The state in which an operation gives its answer, or several such states; of unknown outcome:
    those in which it changes something."""
    if op.kind == "get":
        return op.result if isinstance(op.result, bytes) else None
    if op.kind == "cas":
        if not isinstance(op.result, tuple):
            return op.expect
        return op.result[1] if isinstance(op.result[1], bytes) else None
    if op.kind == "delete":
        return None if op.result is False else _Any.PRESENT
    return _Any.VALUE


def _writes(op: Op) -> State | _Any:
    """The value that an operation leaves, if it changes anything."""
    if op.kind == "get" or isinstance(op.result, tuple) or op.result is False:
        return _Any.VALUE
    return None if op.kind == "delete" else op.value
