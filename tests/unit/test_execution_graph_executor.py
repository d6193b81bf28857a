"""The executor of a graph: what it says of what waits, and what it counts."""

import pytest

from epaxos.core.types import InstanceId
from epaxos.execution.graph_executor import GraphExecutor
from tests.unit.builders import write

A, B, C = range(3)


def executor(*decided):
    made = GraphExecutor(3)
    for each in decided:
        made.commit(each)
    made.ready()
    return made


def test_the_last_executed_slot_is_executed_and_the_next_is_not():
    made = executor(write(A, 1, (0, 0, 0)), write(A, 2, (1, 0, 0)), write(A, 4, (3, 0, 0)))
    assert [made.is_executed(A, slot) for slot in (1, 2, 3, 4, 5)] == [True, True, *[False] * 3]


def test_what_was_executed_beyond_a_gap_is_executed():
    made = executor(write(A, 2, (0, 0, 0)))
    assert [made.is_executed(A, slot) for slot in (1, 2, 3)] == [False, True, False]
    made.commit(write(A, 1, (0, 0, 0)))
    made.ready()
    assert made.executed == [2, 0, 0]
    assert made.is_executed(A, 2)


def test_who_waits_names_the_first_id_that_is_missing_in_the_first_column_with_a_gap():
    made = executor(write(B, 1, (0, 0, 0)), write(A, 1, (0, 1, 3)), write(C, 2, (0, 0, 0)))
    assert made.blocked() == {InstanceId(A, 1): InstanceId(C, 1)}
    assert [(d.replica, d.slot) for d in made.pending()] == [(A, 1)]


def test_who_waits_for_one_that_waits_names_what_holds_up_both():
    made = executor(write(A, 1, (0, 0, 1)), write(B, 1, (1, 0, 0)))
    assert made.blocked() == {
        InstanceId(A, 1): InstanceId(C, 1),
        InstanceId(B, 1): InstanceId(C, 1),
    }
    assert [(d.replica, d.slot) for d in made.pending()] == [(A, 1), (B, 1)]


def test_what_is_waiting_comes_in_order_of_ids():
    made = executor(write(B, 2, (0, 1, 1)), write(A, 1, (0, 0, 1)))
    made.commit(write(B, 1, (0, 0, 1)))
    assert [(d.replica, d.slot) for d in made.pending()] == [(A, 1), (B, 1), (B, 2)]


@pytest.mark.parametrize(
    ("size", "counted"),
    [(2, "components_2"), (3, "components_3_4"), (4, "components_3_4")]
    + [(size, "components_5") for size in (5, 6)],
)
def test_components_are_counted_by_size(size, counted):
    """Each names the one before it, and the first names the last: a ring."""
    made = GraphExecutor(size)
    for member in range(size):
        deps = [0] * size
        deps[member - 1] = 1
        made.commit(write(member, 1, tuple(deps)))
    assert [len(component) for component in made.ready()] == [size]
    counts = made.statistics()
    names = ("components_2", "components_3_4", "components_5")
    assert [name for name in names if counts[name]] == [counted]
    assert counts["components"] == 1
    assert counts["component_max"] == size


def test_a_nop_that_somebody_waits_for_is_counted_and_another_is_not():
    made = executor(write(A, 1, (0, 1, 0)))
    assert made.statistics()["blocked"] == 1
    made.commit(write(C, 1, (0, 0, 0), nop=True))
    made.ready()
    assert made.statistics()["dependency_on_nop"] == 0
    made.commit(write(B, 1, (0, 0, 0), nop=True))
    assert [d.replica for component in made.ready() for d in component] == [B, A]
    assert made.statistics()["dependency_on_nop"] == 1


def test_a_nop_after_what_is_waited_for_is_not_counted():
    made = executor(write(A, 1, (0, 1, 0)))
    made.commit(write(B, 2, (0, 0, 0), nop=True))
    made.ready()
    assert made.statistics()["dependency_on_nop"] == 0
    made.commit(write(B, 1, (0, 0, 0)))
    made.ready()
    assert made.executed == [1, 2, 0]


def test_a_payload_that_is_waited_for_is_no_nop():
    made = executor(write(A, 1, (0, 1, 0)))
    made.commit(write(B, 1, (0, 0, 0)))
    made.ready()
    assert made.statistics()["dependency_on_nop"] == 0


def test_who_waits_names_what_it_waits_for_and_others_nothing():
    made = executor(write(A, 1, (0, 0, 1)), write(B, 1, (0, 0, 0)), write(B, 2, (1, 1, 0)))
    assert made.blocked_on(InstanceId(A, 1)) == InstanceId(C, 1)
    assert made.blocked_on(InstanceId(B, 2)) == InstanceId(C, 1)
    assert made.blocked_on(InstanceId(B, 1)) is None
    assert made.blocked_on(InstanceId(C, 1)) is None
