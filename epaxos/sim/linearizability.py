"""Is a history of one key linearizable?

The search of Wing and Gong with Lowe's memo of (operations done, state), in Porcupine's manner: the
history is cut by key, because linearizability is local. Intervals are closed: an operation that
returned at the moment another was called may be before or after it. An operation of unknown outcome
may take effect at any time after its call, or never. Running out of budget is `UNKNOWN`, and
unknown is never a pass.

Rules of this file: a pure function of its arguments; the model is `step`.
"""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from epaxos.core.types import Micros

State = bytes | None
"""The value of the key; None: it has none."""


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
    expect: State
    """cas: the value expected; None: expected to be absent."""
    called: Micros
    returned: Micros | None
    """None: the outcome is unknown."""
    result: object
    """get: the value found or None. put: True. delete: whether there was a value. cas: True, or
    `(False, value met)`."""

    def __str__(self) -> str:
        words = [self.kind]
        if self.kind == "cas":
            words.append(f"{_show(self.expect)} to {_show(self.value)}")
        elif self.kind == "put":
            words.append(_show(self.value))
        answer = self.result
        if isinstance(answer, tuple):
            answer = f"no, met {_show(answer[1])}"
        elif self.kind == "get":
            answer = _show(self.result)
        else:
            answer = "yes" if answer else "no"
        if self.returned is None:
            return f"{' '.join(words)} = ? [{self.called / 1000:.3f} ms –]"
        return (
            f"{' '.join(words)} = {answer} [{self.called / 1000:.3f}–{self.returned / 1000:.3f} ms]"
        )


def step(state: State, op: Op) -> tuple[object, State]:
    """The sequential key-value machine: what the operation answers, and the state after it."""
    if op.kind == "get":
        return state, state
    if op.kind == "put":
        return True, op.value
    if op.kind == "delete":
        return state is not None, None
    if state == op.expect:
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


def check(ops: Sequence[Op], budget: int = 200_000) -> Verdict:
    """Whether some order of `ops`, all on one key that had no value, explains every answer.

    `budget` bounds the number of states visited."""
    kept = sorted(_relevant(ops), key=lambda op: op.called)
    finished = 0
    for position, op in enumerate(kept):
        if op.returned is not None:
            finished |= 1 << position
    seen: set[tuple[int, State]] = set()
    stack: list[tuple[int, State]] = [(0, None)]
    while stack:
        done, state = stack.pop()
        if done & finished == finished:
            return Verdict.OK
        if (done, state) in seen:
            continue
        seen.add((done, state))
        if len(seen) > budget:
            return Verdict.UNKNOWN
        stack += _successors(kept, done, state)
    return Verdict.ILLEGAL


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


def _relevant(ops: Sequence[Op]) -> list[Op]:
    """Leave out what can be left out of any explanation: reads of unknown outcome, and writes of
    unknown outcome whose value nobody met, unless a DELETE says only that something was there."""
    known = [op for op in ops if op.returned is not None]
    if any(op.kind == "delete" and op.result is True for op in known):
        return [op for op in ops if op.returned is not None or op.kind != "get"]
    met = {op.expect for op in ops if op.kind == "cas"}
    for op in known:
        value = op.result[1] if isinstance(op.result, tuple) else op.result
        if isinstance(value, bytes):
            met.add(value)
    return [
        op
        for op in ops
        if op.returned is not None
        or op.kind == "delete"
        or (op.kind in ("put", "cas") and (op.value is None or op.value in met))
    ]


def _successors(ops: Sequence[Op], done: int, state: State) -> list[tuple[int, State]]:
    """All ways to go on: any operation called before the earliest return among those not done.

    The last one is tried first: of those that returned the earliest, then the unknown ones."""
    earliest: Micros | None = None
    for position, op in enumerate(ops):
        if (
            not done >> position & 1
            and op.returned is not None
            and (earliest is None or op.returned < earliest)
        ):
            earliest = op.returned
    found: list[tuple[Micros, tuple[int, State]]] = []
    for position, op in enumerate(ops):
        if done >> position & 1:
            continue
        if earliest is not None and op.called > earliest:
            break
        result, after = step(state, op)
        if op.returned is None or result == op.result:
            end = _NEVER if op.returned is None else op.returned
            found.append((end, (done | 1 << position, after)))
    found.sort(key=lambda each: -each[0])
    return [each for _, each in found]


def _show(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else "nothing"


_NEVER = 1 << 62
