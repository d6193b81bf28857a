"""The referee of histories, held against examples and against trying every order."""

import random
from itertools import permutations

import pytest

from epaxos.sim.linearizability import Op, Verdict, check, explains, step


def put(value, called, returned=None):
    return Op("put", value, None, called, returned, None if returned is None else True)


def get(result, called, returned):
    return Op("get", None, None, called, returned, result)


def delete(result, called, returned=None):
    return Op("delete", None, None, called, returned, result)


def cas(expect, value, result, called, returned=None):
    return Op("cas", value, expect, called, returned, result)


LEGAL = {
    "nothing happened": [],
    "a read of what was written": [put(b"1", 0, 1), get(b"1", 2, 3)],
    "a read of the absent": [get(None, 0, 1)],
    "a read beside a write sees it or not": [put(b"1", 0, 9), get(None, 1, 2), get(b"1", 3, 4)],
    "closed intervals: return and call at the same moment": [put(b"1", 0, 5), get(None, 5, 6)],
    "an unknown write that took effect late": [put(b"1", 0), get(None, 5, 6), get(b"1", 7, 8)],
    "an unknown write that never took effect": [put(b"1", 0), get(None, 5, 6)],
    "an unknown write that only a deletion tells of": [put(b"1", 0), delete(True, 5, 6)],
    "an unknown deletion": [put(b"1", 0, 1), delete(None, 2), get(b"1", 3, 4), get(None, 5, 6)],
    "one of two compare-and-sets wins": [
        put(b"1", 0, 1),
        cas(b"1", b"2", True, 2, 9),
        cas(b"1", b"3", (False, b"2"), 2, 9),
    ],
    "compare-and-set of an absent key": [cas(None, b"1", True, 0, 1), get(b"1", 2, 3)],
    "compare-and-set that removes": [
        put(b"1", 0, 1),
        cas(b"1", None, True, 2, 3),
        delete(False, 4, 5),
    ],
}

ILLEGAL = {
    "a value from nowhere": [get(b"1", 0, 1)],
    "a stale read": [put(b"1", 0, 1), put(b"2", 2, 3), get(b"1", 4, 5)],
    "a lost write": [put(b"1", 0, 1), get(None, 2, 3)],
    "a read that goes back": [put(b"1", 0, 9), get(b"1", 1, 2), get(None, 3, 4)],
    "a write that took effect twice": [
        put(b"1", 0),
        get(b"1", 1, 2),
        put(b"2", 3, 4),
        get(b"1", 5, 6),
    ],
    "a value read before it was called": [get(b"1", 0, 1), put(b"1", 2, 3)],
    "two compare-and-sets win": [
        put(b"1", 0, 1),
        cas(b"1", b"2", True, 2, 9),
        cas(b"1", b"3", True, 2, 9),
    ],
    "a compare-and-set that met nothing anybody wrote": [cas(b"1", b"2", (False, b"7"), 0, 1)],
    "a deletion of the absent": [delete(True, 0, 1)],
    "a deletion that missed a finished write": [put(b"1", 0, 1), delete(False, 2, 3)],
}


@pytest.mark.parametrize("name", LEGAL)
def test_legal(name):
    assert check(LEGAL[name]) is Verdict.OK


@pytest.mark.parametrize("name", ILLEGAL)
def test_illegal(name):
    assert check(ILLEGAL[name]) is Verdict.ILLEGAL


def test_out_of_budget_is_unknown_not_a_pass():
    ops = [put(b"%d" % number, 0, 100) for number in range(12)] + [get(b"x", 0, 100)]
    assert check(ops, budget=50) is Verdict.UNKNOWN
    assert check(ops) is Verdict.ILLEGAL


def orders(ops):
    """Every order of the finished operations and of any of the others that keeps real time."""
    unknown = [op for op in ops if op.returned is None]
    finished = [op for op in ops if op.returned is not None]
    for mask in range(1 << len(unknown)):
        chosen = finished + [op for index, op in enumerate(unknown) if mask >> index & 1]
        yield from permutations(chosen)


def is_legal_order(order):
    state = None
    for position, op in enumerate(order):
        if any(
            later.returned is not None and later.returned < op.called
            for later in order[position + 1 :]
        ):
            return False
        result, state = step(state, op)
        if op.returned is not None and result != op.result:
            return False
    return True


def true_history(rng, count):
    """What clients saw of a register on which each operation took effect at one moment."""
    called = sorted(rng.randrange(12) for _ in range(count))
    intervals = sorted(
        (moment, start, end)
        for start in called
        for end in [start + rng.randrange(6)]
        for moment in [rng.uniform(start, end)]
    )
    state, ops = None, []
    for number, (_, start, end) in enumerate(intervals):
        kind = rng.choice(("get", "put", "put", "delete", "cas"))
        value = b"%d" % number if kind in ("put", "cas") else None
        expect = None
        if kind == "cas":
            expect = rng.choice((None, state, b"%d" % rng.randrange(count)))
            value = rng.choice((value, value, None))
        op = Op(kind, value, expect, start, end, None)
        lost = rng.random() < 0.25
        if lost and rng.random() < 0.5:
            ops.append(op._replace(returned=None))
            continue
        result, state = step(state, op)
        ops.append(op._replace(returned=None) if lost else op._replace(result=result))
    return ops


def damaged(rng, ops):
    """The same history with one answer changed. It may still be legal."""
    finished = [index for index, op in enumerate(ops) if op.returned is not None]
    if not finished:
        return ops
    index = rng.choice(finished)
    op = ops[index]
    value = rng.choice((None, *(b"%d" % number for number in range(len(ops)))))
    if op.kind == "get":
        wrong = op._replace(result=value)
    elif op.kind == "delete":
        wrong = op._replace(result=not op.result)
    elif op.kind == "cas":
        wrong = op._replace(result=True if op.result is not True else (False, value))
    else:
        wrong = op._replace(returned=op.called, called=max(0, op.called - 1))
    return [*ops[:index], wrong, *ops[index + 1 :]]


def test_agrees_with_trying_every_order():
    rng = random.Random(8)
    seen = {True: 0, False: 0}
    for number in range(500):
        ops = true_history(rng, rng.randint(1, 6))
        if number % 2:
            ops = damaged(rng, ops)
        legal = any(is_legal_order(order) for order in orders(ops))
        assert legal or number % 2, "a true history is legal"
        assert check(ops) is (Verdict.OK if legal else Verdict.ILLEGAL), ops
        seen[legal] += 1
    assert seen[True] > 300
    assert seen[False] > 60


def test_an_order_explains_exactly_if_it_is_legal():
    rng = random.Random(9)
    seen = {True: 0, False: 0}
    for _ in range(300):
        ops = true_history(rng, rng.randint(1, 4))
        for order in orders(ops):
            legal = is_legal_order(order)
            assert explains(order) is legal
            seen[legal] += 1
    assert seen[True] > 300
    assert seen[False] > 300


def test_a_long_true_history_is_decided_quickly():
    rng = random.Random(10)
    state, ops = None, []
    for number in range(400):
        moment = number * 10
        op = put(b"%d" % number, moment, moment + rng.randrange(60))
        if rng.random() < 0.5:
            op = get(state, moment - rng.randrange(30), moment + rng.randrange(60))
        _, state = step(state, op)
        ops.append(op)
    assert check(ops, budget=20_000) is Verdict.OK
