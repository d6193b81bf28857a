"""Verdicts of histories: all ways to judge one agree, and what is shown is true."""

import random

import pytest
from msgspec.structs import replace

from bench.history.calls import ANYTHING, OTHER, HistoryCall
from bench.history.judge import judge, judge_key
from bench.history.search import search
from bench.history.zones import illegal_part
from epaxos.sim.check.linearizability import Op, Verdict, check


def get(called, returned, result, **more):
    return HistoryCall("c", "get", called, returned, result=result, **more)


def put(called, returned, value, **more):
    result = None if returned is None else True
    return HistoryCall("c", "put", called, returned, value, result=result, **more)


def cas(called, returned, expect, value, result, **more):
    return HistoryCall("c", "cas", called, returned, value, expect, result, **more)


def delete(called, returned, result):
    return HistoryCall("c", "delete", called, returned, result=result)


def refused(call):
    return HistoryCall(call.client, call.kind, call.called, None, call.value, refused=True)


def drawn_register(rng):
    """Some gets and puts of unlike values, not all of which can be explained."""
    values = [None, *(b"%d" % number for number in range(4))]
    calls = []
    for value in values[1:]:
        called = rng.randrange(20)
        calls.append(put(called, rng.choice([None, called + rng.randrange(8)]), value))
    for _ in range(rng.randrange(6)):
        called = rng.randrange(20)
        calls.append(get(called, called + rng.randrange(8), rng.choice(values)))
    return calls


def drawn_store(rng):
    """Some calls of all kinds, of few values."""
    values = [b"a", b"b", b"c"]
    calls = []
    for _ in range(rng.randrange(2, 8)):
        called = rng.randrange(15)
        returned = called + rng.randrange(6)
        kind = rng.choice(["get", "put", "delete", "cas"])
        value = rng.choice(values)
        is_known = rng.random() < 0.8
        end = returned if is_known else None
        if kind == "get":
            calls.append(get(called, returned, rng.choice([None, *values])))
        elif kind == "put":
            calls.append(put(called, end, value))
        elif kind == "delete":
            calls.append(delete(called, end, rng.random() < 0.5 if is_known else None))
        else:
            result = rng.choice([True, (False, rng.choice([None, *values]))])
            expect = rng.choice([False, *values])
            calls.append(cas(called, end, expect, value, result if is_known else None))
    return calls


def drawn_unlike_store(rng):
    """The same of unlike values."""
    calls = drawn_store(rng)
    for at, call in enumerate(calls):
        if call.kind in ("put", "cas"):
            calls[at] = replace(call, value=b"abcdefgh"[at : at + 1])
    return calls


def as_op(call):
    expect = call.expect if isinstance(call.expect, bytes) else None
    return Op(call.kind, call.value, expect, call.called, call.returned, call.result)


def test_zones_the_search_and_the_simulators_checker_agree_on_registers():
    seen = set()
    for seed in range(1500):
        calls = drawn_register(random.Random(seed))
        truth = check(list(map(as_op, calls)))
        part = illegal_part(calls, None)
        assert (part is None) == (truth is Verdict.OK), seed
        assert search(calls, None, 10_000) is truth, seed
        seen.add(truth)
    assert seen == {Verdict.OK, Verdict.ILLEGAL}


def test_the_search_and_the_simulators_checker_agree_on_stores():
    for seed in range(1500):
        calls = drawn_store(random.Random(seed))
        assert search(calls, None, 10_000) is check(list(map(as_op, calls))), seed


def test_what_values_alone_show_is_true():
    shown = set()
    for seed in range(1500):
        calls = drawn_unlike_store(random.Random(seed))
        truth = check(list(map(as_op, calls)))
        verdict, part = judge_key(calls, None)
        assert verdict is truth, seed
        shown.add(len(part))
    assert shown > {0, 1, 2, 3}


def test_a_key_that_is_never_quiet_has_a_small_stretch_too():
    """A chain of compare-and-set, always one open; a read of a value long gone."""
    values = [b"%d" % number for number in range(300)]
    calls = [put(0, 3, values[0])]
    for number in range(1, 300):
        at = 4 * number
        calls.append(cas(at - 2, at + 3, values[number - 1], values[number], True))
    stale = get(801, 802, values[100])
    verdict, part = judge_key([*calls, stale], None)
    assert verdict is Verdict.ILLEGAL
    assert stale in part
    assert len(part) <= 6


def test_of_a_large_stretch_the_last_calls_are_shown():
    calls = [HistoryCall("c", "append", n, n, b"%d," % n, result=True) for n in range(60)]
    found = judge({b"k": [*calls, get(101, 102, b"0,")]}, None)
    assert found.verdict == "ILLEGAL"
    assert len(found.shown) == 40
    assert "61 calls" in found.why
    assert "the last 40 are shown" in found.why


@pytest.mark.parametrize("draw", [drawn_register, drawn_store])
def test_what_is_shown_is_illegal_by_itself(draw):
    """Whatever was there before it: then nothing that was left out can explain it."""
    shown = 0
    for seed in range(600):
        calls = draw(random.Random(seed))
        for initial in (None, ANYTHING, *([OTHER] if draw is drawn_register else [])):
            verdict, part = judge_key(calls, initial)
            assert bool(part) == (verdict is Verdict.ILLEGAL)
            if part:
                shown += 1
                assert judge_key(part, initial)[0] is Verdict.ILLEGAL, seed
                assert len(part) <= len(calls)
    assert shown > 100


def test_a_beginning_that_nobody_knows_explains_more_than_a_known_one():
    for seed in range(1000):
        calls = drawn_store(random.Random(seed))
        if judge_key(calls, None)[0] is Verdict.OK:
            assert judge_key(calls, ANYTHING)[0] is Verdict.OK, seed


def test_the_smallest_stretch_of_a_stale_read_is_the_two_values():
    calls = [put(10 * number, 10 * number + 5, b"%d" % number) for number in range(100)]
    calls += [get(10 * number + 6, 10 * number + 8, b"%d" % number) for number in range(100)]
    stale = get(507, 509, b"49")
    verdict, part = judge_key([*calls, stale], None)
    assert verdict is Verdict.ILLEGAL
    assert stale in part
    assert {call.value or call.result for call in part} == {b"49", b"50"}


def test_one_value_that_nobody_wrote_may_have_been_there_before_but_not_two():
    before = [get(0, 1, b"old"), put(2, 3, b"new"), get(4, 5, b"new")]
    assert judge_key(before, OTHER)[0] is Verdict.OK
    assert judge_key(before, None)[0] is Verdict.ILLEGAL
    assert judge_key([*before, get(0, 1, b"older")], OTHER)[0] is Verdict.ILLEGAL
    assert judge_key([*before, get(6, 7, b"old")], OTHER)[0] is Verdict.ILLEGAL


def test_an_unknown_outcome_may_happen_any_time_later_or_never():
    calls = [put(0, 1, b"a"), put(2, None, b"b"), get(100, 101, b"a"), get(200, 201, b"b")]
    assert judge_key(calls, None)[0] is Verdict.OK
    assert judge_key(calls[:3], None)[0] is Verdict.OK
    assert judge_key([*calls, get(300, 301, b"a")], None)[0] is Verdict.ILLEGAL


def test_a_definite_refusal_whose_effect_is_seen_is_illegal():
    seen = [put(0, 1, b"a"), refused(put(2, 3, b"b")), get(4, 5, b"b")]
    for initial in (None, OTHER):
        found = judge({b"k": seen}, initial)
        assert found.verdict == "ILLEGAL"
        assert "refused" in found.why
        assert any("refused" in each.what for each in found.shown)
    assert judge({b"k": seen[:2]}, None).verdict == "OK"
    removed = [put(0, 1, b"a"), refused(delete(2, 3, True)), get(4, 5, None)]
    assert judge({b"k": removed}, None).verdict == "ILLEGAL"


def test_versions_stand_for_the_values_that_were_written_with_them():
    calls = [
        put(0, 1, b"a", version="0.A.1.0"),
        put(2, 3, b"b", version="0.B.1.0"),
        cas(4, 5, "0.B.1.0", b"c", True, version="0.A.2.0"),
        cas(6, 7, "0.A.1.0", b"d", (False, b"c"), version="0.A.2.0"),
        get(8, 9, b"c", version="0.A.2.0"),
    ]
    assert judge_key(calls, None)[0] is Verdict.OK
    stale = cas(6, 7, "0.A.1.0", b"d", True, version="0.A.3.0")
    assert judge_key([*calls[:3], stale], None)[0] is Verdict.ILLEGAL
    assert judge_key([*calls, get(10, 11, b"c", version="0.A.1.0")], None) == (
        Verdict.ILLEGAL,
        [calls[0], get(10, 11, b"c", version="0.A.1.0")],
    )
    unsaid = cas(6, 7, "0.A.1.0", b"d", False, version="0.A.2.0")
    assert judge_key([*calls[:3], unsaid, calls[4]], None)[0] is Verdict.OK
    before = cas(6, 7, "0.A.1.0", b"d", False, version="0.B.1.0")
    assert judge_key([*calls[:3], before, calls[4]], None)[0] is Verdict.ILLEGAL
    twice = [calls[0], put(2, 3, b"z", version="0.A.1.0")]
    assert judge_key(twice, None) == (Verdict.ILLEGAL, twice)


def test_create_only_and_delete_if_are_compare_and_set():
    created = cas(0, 1, False, b"a", True)
    again = cas(2, 3, False, b"b", (False, b"a"))
    removed = cas(4, 5, b"a", None, True)
    assert judge_key([created, again, removed, get(6, 7, None)], None)[0] is Verdict.OK
    assert judge_key([created, cas(2, 3, False, b"b", True)], None)[0] is Verdict.ILLEGAL
    assert judge_key([created, removed, get(6, 7, b"a")], None)[0] is Verdict.ILLEGAL
    present = cas(0, 1, True, b"b", True)
    assert judge_key([present], None)[0] is Verdict.ILLEGAL
    assert judge_key([present], OTHER)[0] is Verdict.OK


def test_appends_are_judged_by_the_plain_search():
    calls = [
        HistoryCall("c", "append", 0, 1, b"a", result=True),
        HistoryCall("c", "append", 2, 9, b"b", result=True),
        HistoryCall("c", "append", 2, 9, b"c", result=True),
    ]
    assert judge_key([*calls, get(10, 11, b"acb")], None)[0] is Verdict.OK
    assert judge_key([*calls, get(10, 11, b"ab")], None)[0] is Verdict.ILLEGAL


def test_who_exhausts_the_budget_is_undecided_and_says_so():
    calls = [delete(0, 100, bool(number % 2)) for number in range(12)]
    calls += [put(0, 100, b"%d" % (number % 6)) for number in range(12)]
    calls += [get(0, 100, b"%d" % (number % 6)) for number in range(12)]
    calls += [HistoryCall("c", "cas", 0, 100, b"x", False, False)]
    calls += [get(101, 102, b"0"), get(103, 104, b"1")]
    found = judge({b"k": calls}, None, budget=5)
    assert found.verdict == "UNKNOWN"
    assert "undecided within the budget" in found.sentence()
    assert found.unknown_keys == 1


def test_whoever_watches_can_stop_it():
    def stop(share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge({b"k": [put(0, 1, b"a")]}, None, watch=stop)


def test_a_value_that_is_read_before_it_is_written_is_shown_with_its_write():
    calls = [delete(0, 1, False), get(2, 3, b"new"), delete(4, 5, True), put(8, 9, b"new")]
    verdict, part = judge_key(calls, OTHER)
    assert verdict is Verdict.ILLEGAL
    assert b"new" in [call.value for call in part]
