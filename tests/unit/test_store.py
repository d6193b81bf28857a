"""The key-value machine: outcomes, versions, and equal digests for equal contents."""

from epaxos.core.command import NO_VERSION, Among, Batch, Operation, Payload, Status, encode_cas
from epaxos.core.replica import Decided, Path
from epaxos.execution.store import Store

GET, PUT, DELETE, CAS = Operation.GET, Operation.PUT, Operation.DELETE, Operation.CAS


def decided(slot, *commands, replica=0):
    batch = Batch(
        replica,
        slot,
        bytes(code for code, _, _ in commands),
        [key for _, key, _ in commands],
        [argument for _, _, argument in commands],
    )
    return Decided(replica, slot, (), Payload.of(batch), Path.LEARNED)


def test_puts_alone_answer_with_empty_columns():
    store = Store()
    results = store.answer(decided(3, (PUT, b"x", b"1"), (PUT, b"y", b"2")))
    assert (results.replica, results.slot, results.index, results.count) == (0, 3, 0, 2)
    assert (results.statuses, results.values, results.versions) == (b"", [], [])
    assert store.get(b"y") == (b"2", (0, 3, 1))
    assert len(store) == 2


def test_commands_of_a_batch_see_those_before_them():
    store = Store()
    results = store.answer(
        decided(
            1,
            (GET, b"x", b""),
            (PUT, b"x", b"1"),
            (GET, b"x", b""),
            (DELETE, b"x", b""),
            (DELETE, b"x", b""),
            (GET, b"x", b""),
        )
    )
    assert list(results.statuses) == [
        Status.MISSING,
        Status.OK,
        Status.OK,
        Status.OK,
        Status.MISSING,
        Status.MISSING,
    ]
    assert results.values == [b"", b"", b"1", b"", b"", b""]
    assert results.versions == [
        NO_VERSION,
        (0, 1, 1),
        (0, 1, 1),
        (0, 1, 1),
        NO_VERSION,
        NO_VERSION,
    ]


def test_compare_and_set_by_absence_presence_version_and_value():
    store = Store()
    tries = [
        (encode_cas(True, b"a"), Status.CONFLICT),
        (encode_cas(False, b"a"), Status.OK),
        (encode_cas(False, b"b"), Status.CONFLICT),
        (encode_cas(b"a", b"b"), Status.OK),
        (encode_cas(b"a", b"c"), Status.CONFLICT),
        (encode_cas((0, 4, 0), b"d"), Status.OK),
        (encode_cas((0, 4, 0), b"e"), Status.CONFLICT),
        (encode_cas(True, None), Status.OK),
    ]
    for slot, (argument, status) in enumerate(tries, 1):
        results = store.answer(decided(slot, (CAS, b"x", argument)))
        assert results.statuses[0] == status, slot
    assert store.get(b"x") is None


def test_a_conflict_says_what_is_there():
    store = Store()
    store.apply(decided(1, (PUT, b"x", b"here")))
    results = store.answer(decided(2, (CAS, b"x", encode_cas(False, b"mine"))))
    assert results.values == [b"here"]
    assert results.versions == [(0, 1, 0)]


def test_operands_that_do_not_decode_are_a_conflict_everywhere():
    store = Store()
    results = store.answer(decided(1, (CAS, b"x", b"\xc1")))
    assert results.statuses[0] == Status.CONFLICT
    assert len(store) == 0


def test_applying_and_answering_leave_the_same_state():
    batches = [
        decided(1, (PUT, b"x", b"1"), (PUT, b"y", b"1")),
        decided(2, (GET, b"x", b""), (DELETE, b"y", b"")),
        decided(3, (CAS, b"x", encode_cas(b"1", b"2"))),
        decided(4, (GET, b"x", b"")),
    ]
    applied, answered = Store(), Store()
    for batch in batches:
        applied.apply(batch)
        answered.answer(batch)
    assert applied.digest() == answered.digest()
    assert applied.get(b"x") == (b"2", (0, 3, 0))


def test_a_nop_changes_nothing():
    store = Store()
    before = store.digest()
    store.apply(Decided(0, 1, (), None, Path.LEARNED))
    assert store.digest() == before


def test_the_digest_does_not_depend_on_the_order_of_commuting_writes():
    one, other = Store(), Store()
    first, second = decided(1, (PUT, b"x", b"1")), decided(1, (PUT, b"y", b"2"), replica=1)
    one.apply(first)
    one.apply(second)
    other.apply(second)
    other.apply(first)
    assert one.digest() == other.digest()
    other.apply(decided(2, (PUT, b"x", b"1")))
    assert one.digest() != other.digest()


def test_compare_and_set_by_several_versions():
    store = Store()
    store.apply(decided(1, (PUT, b"x", b"1")))
    here, gone = (0, 1, 0), (0, 9, 0)

    def status(slot, key, expect):
        one = decided(slot, (CAS, key, encode_cas(expect, b"new")))
        return Status(store.answer(one).statuses[0])

    assert status(2, b"x", Among((gone,))) is Status.CONFLICT
    assert status(3, b"x", Among()) is Status.CONFLICT
    assert status(4, b"x", Among((here, gone), excluded=True)) is Status.CONFLICT
    assert status(5, b"none", Among((here,))) is Status.CONFLICT
    assert store.get(b"x") == (b"1", here)
    assert status(6, b"x", Among((here, gone))) is Status.OK
    assert status(7, b"x", Among((here,), excluded=True)) is Status.OK
    assert status(8, b"none", Among((here,), excluded=True)) is Status.OK
