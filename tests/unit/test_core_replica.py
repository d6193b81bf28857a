"""The box into which a core speaks, and its deadlines."""

from hypothesis import given
from hypothesis import strategies as st

from epaxos.core.replica import EVERYONE, Decided, Executed, Outbox, Path, Timers

NOTE = Executed(b"\x00", [1])


def test_box_keeps_order_and_is_emptied():
    out = Outbox()
    out.note(NOTE)
    out.send(2, NOTE)
    out.broadcast(NOTE)
    out.commit(1, 7, (0, 6), None, Path.FAST)
    ready = out.take()
    assert ready.log == [NOTE]
    assert ready.messages == [(2, NOTE), (EVERYONE, NOTE)]
    assert ready.decided == [Decided(1, 7, (0, 6), None, Path.FAST)]
    assert not any(out.take())
    assert out.taken == 2


def test_only_records_ask_for_a_sync():
    out = Outbox()
    out.note(NOTE)
    assert not out.take().must_sync
    out.note(NOTE)
    out.record(NOTE)
    out.note(NOTE)
    ready = out.take()
    assert ready.must_sync
    assert len(ready.log) == 3
    assert not out.take().must_sync


def test_deadlines_move_and_are_forgotten():
    timers = Timers()
    assert timers.next() is None
    timers.set("a", 30)
    timers.set("b", 20)
    timers.set("b", 40)
    assert timers.next() == 30
    assert "b" in timers
    timers.cancel("a")
    timers.cancel("never set")
    assert timers.next() == 40
    assert timers.due(39) == []
    assert timers.due(40) == ["b"]
    assert "b" not in timers
    assert timers.next() is None


def test_equal_deadlines_are_due_in_the_order_they_were_set():
    timers = Timers()
    for key in ("c", "a", "b"):
        timers.set(key, 5)
    assert timers.due(5) == ["c", "a", "b"]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 4), st.integers(0, 20)),
        st.tuples(st.just("cancel"), st.integers(0, 4), st.just(0)),
        st.tuples(st.just("due"), st.just(0), st.integers(0, 20)),
    ),
    max_size=30,
)


@given(steps)
def test_deadlines_agree_with_a_plain_table(history):
    timers, table = Timers(), {}
    for verb, key, at in history:
        if verb == "set":
            timers.set(key, at)
            table[key] = at
        elif verb == "cancel":
            timers.cancel(key)
            table.pop(key, None)
        else:
            found = timers.due(at)
            expected = [key for key, when in table.items() if when <= at]
            assert sorted(found) == sorted(expected)
            assert [table[key] for key in found] == sorted(table[key] for key in found)
            for key in found:
                del table[key]
        assert timers.next() == min(table.values(), default=None)
