"""The referee of histories, held against examples and against trying every order."""

import random
from itertools import permutations

import pytest

from epaxos.sim.check.linearizability import (
    Op,
    Verdict,
    check,
    check_all,
    explains,
    shortest_illegal,
    step,
    together,
)


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


def crossed(count):
    """So many writes at once, each of which is read twice with another one between."""
    ops = [put(b"%d" % number, 0, 100) for number in range(count)]
    ops += [get(b"%d" % number, 0, 100) for number in range(count)]
    return [*ops, get(b"0", 101, 102), get(b"1", 103, 104)]


def test_out_of_budget_is_unknown_not_a_pass():
    ops = crossed(6)
    assert check(ops, budget=2) is Verdict.UNKNOWN
    assert check(ops) is Verdict.ILLEGAL


def test_one_verdict_for_all_keys():
    histories = {b"k2": LEGAL["nothing happened"], b"k1": ILLEGAL["a lost write"]}
    verdicts = check_all(histories)
    assert verdicts == {b"k1": Verdict.ILLEGAL, b"k2": Verdict.OK}
    assert together(verdicts.values()) is Verdict.ILLEGAL
    assert together([Verdict.OK, Verdict.UNKNOWN]) is Verdict.UNKNOWN
    assert together([Verdict.UNKNOWN, Verdict.ILLEGAL]) is Verdict.ILLEGAL
    assert together([Verdict.OK, Verdict.OK]) is Verdict.OK
    assert together([]) is Verdict.OK


def test_unknown_is_not_a_pass_for_all_keys_either():
    verdicts = check_all({b"k": crossed(6), b"l": []}, budget=2)
    assert together(verdicts.values()) is Verdict.UNKNOWN


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


def true_history(rng, count, sets=False):
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
            if sets and rng.random() < 0.7:
                others = rng.sample(range(count), rng.randrange(count))
                expect = frozenset((expect, *(b"%d" % other for other in others)))
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


def with_few_values(ops):
    """The same history with values that several writes may write."""

    def few(value):
        if isinstance(value, frozenset):
            return frozenset(map(few, value))
        if isinstance(value, tuple):
            return (value[0], few(value[1]))
        return b"%d" % (int(value) % 2) if isinstance(value, bytes) else value

    return [
        op._replace(value=few(op.value), expect=few(op.expect), result=few(op.result)) for op in ops
    ]


@pytest.mark.parametrize("sets", [False, True])
def test_agrees_with_trying_every_order(sets):
    """With sets, most compare-and-sets take any of several values."""
    rng = random.Random(8)
    seen = {True: 0, False: 0}
    for number in range(1_000):
        ops = true_history(rng, rng.randint(1, 6), sets)
        if number % 4 == 3:
            ops = with_few_values(ops)
        whole = number % 2 == 0
        if not whole:
            ops = damaged(rng, ops)
        legal = any(is_legal_order(order) for order in orders(ops))
        assert legal or not whole or number % 4 == 3, "a true history is legal"
        assert check(ops) is (Verdict.OK if legal else Verdict.ILLEGAL), ops
        seen[legal] += 1
    assert seen[True] > 500
    assert seen[False] > 150


@pytest.mark.parametrize("kind", ["get", "put", "delete", "cas"])
def test_damage_to_every_kind_of_operation_is_found(kind):
    """Whether a history with one answer changed is illegal is for the brute force to say."""
    rng = random.Random(f"damage {kind}")
    found = 0
    for _ in range(1_500):
        ops = true_history(rng, rng.randint(2, 5))
        worse = damaged(rng, ops)
        changed = {each.kind for each, was in zip(worse, ops) if each != was}
        if changed == {kind} and not any(is_legal_order(order) for order in orders(worse)):
            assert check(worse) is Verdict.ILLEGAL, worse
            found += 1
    assert found >= 5


def test_what_cannot_be_explained_returned_last_in_the_shortest_illegal_beginning():
    rng = random.Random(11)
    seen = 0
    for _ in range(300):
        ops = damaged(rng, true_history(rng, rng.randint(2, 5)))
        if check(ops) is Verdict.ILLEGAL:
            short = shortest_illegal(ops)
            assert check(short) is Verdict.ILLEGAL
            end = max(op.returned for op in short if op.returned is not None)
            without = [
                op._replace(returned=None, result=None) if op.returned == end else op
                for op in short
            ]
            assert check(without) is Verdict.OK
            seen += 1
    assert seen > 30


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


def crowded(rng, count, clients):
    """A true history of one key that so many clients use all the time."""
    free = [0] * clients
    intervals = []
    for _ in range(count):
        client = free.index(min(free))
        start = free[client] + rng.randrange(3)
        end = start + rng.randrange(1, 40)
        free[client] = end + 1
        intervals.append((rng.uniform(start, end), start, end))
    state, ops = None, []
    for number, (_, start, end) in enumerate(sorted(intervals)):
        kind = rng.choice(("get", "get", "put", "put", "put", "cas", "cas", "delete"))
        expect = rng.choice((state, b"%d" % rng.randrange(number + 1))) if kind == "cas" else None
        value = b"%d" % number if kind in ("put", "cas") else None
        op = Op(kind, value, expect, start, end, None)
        lost = rng.random() < 0.02
        if lost and rng.random() < 0.5:
            ops.append(op._replace(returned=None))
            continue
        result, state = step(state, op)
        ops.append(op._replace(returned=None) if lost else op._replace(result=result))
    return ops


@pytest.mark.parametrize("clients", [1, 4, 16])
def test_a_long_history_is_decided_in_time_proportional_to_its_length(clients):
    """Said in positions of choice, which do not depend on the machine."""
    rng = random.Random(f"long {clients}")
    for count in (500, 2_000):
        assert check(crowded(rng, count, clients), budget=20 * count) is Verdict.OK


@pytest.mark.parametrize("clients", [1, 4, 16])
def test_one_stale_read_in_a_long_history_is_found(clients):
    rng = random.Random(f"stale {clients}")
    for _ in range(5):
        ops = crowded(rng, 500, clients)
        writes = [op for op in ops if op.kind == "put" and op.returned is not None]
        reads = [index for index, op in enumerate(ops) if op.kind == "get" and op.returned]
        index = reads[len(reads) // 2]
        old = [op.value for op in writes if op.returned + 200 < ops[index].called]
        ops[index] = ops[index]._replace(result=rng.choice(old))
        assert check(ops, budget=50_000) is Verdict.ILLEGAL
