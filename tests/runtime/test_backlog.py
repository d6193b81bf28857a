"""What peers sent and waits: in order, in fair shares, and full or not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epaxos.runtime.backlog import Backlog


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 50)), max_size=30),
    st.integers(1, 60),
)
def test_everything_is_taken_in_order_and_everybody_has_a_share(arrivals, budget):
    backlog, added, taken = Backlog(), {}, {}
    for number, (source, count) in enumerate(arrivals):
        group = [(number, i) for i in range(count)]
        added.setdefault(source, []).extend(group)
        backlog.add(source, group, 10 * count)
    while backlog.total:
        waiting = {source for source in added if backlog.messages(source)}
        step = {}
        for source, group in backlog.take(budget):
            step.setdefault(source, []).extend(group)
        assert step.keys() == waiting
        total = sum(map(len, step.values()))
        assert total < budget + len(waiting)
        assert total >= budget or not backlog.total
        for source, group in step.items():
            taken.setdefault(source, []).extend(group)
    assert taken == added


@pytest.mark.parametrize(("count", "size"), [(1, 100), (1000, 1)])
def test_a_full_backlog_has_room_again_when_half_of_it_is_gone(monkeypatch, count, size):
    monkeypatch.setattr("epaxos.runtime.backlog.BACKLOG_MESSAGES_MAX", 10_000)
    monkeypatch.setattr("epaxos.runtime.backlog.BACKLOG_BYTES_MAX", 1000)
    if count > 1:
        monkeypatch.setattr("epaxos.runtime.backlog.BACKLOG_BYTES_MAX", 10_000)
        monkeypatch.setattr("epaxos.runtime.backlog.BACKLOG_MESSAGES_MAX", 10_000)
    backlog, drained, groups = Backlog(), [], 0
    backlog.drained = drained.append
    while backlog.has_room(1):
        backlog.add(1, [None] * count, size)
        groups += 1
    assert groups == 11
    assert backlog.has_room(2)
    left = []
    while backlog.total:
        before = len(drained)
        list(backlog.take(count))
        if len(drained) > before:
            left.append(backlog.messages(1) // count)
    assert drained == [1]
    assert left == [5]
    assert backlog.has_room(1)
