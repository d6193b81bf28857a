"""The graph of what waits, when it forgets."""

from epaxos.execution.graph_executor import GraphExecutor
from tests.unit.builders import write

A, B, C, D = range(4)
MANY = 2400


def executed(made):
    return [(d.replica, d.slot) for component in made.ready() for d in component]


def test_a_key_that_several_touch_who_wait_is_not_forgotten_when_finished_ones_are():
    """Three writes of x wait for C.1. Meanwhile many others come and go, and what they touched is
    forgotten. A fourth write of x still follows the three."""
    made = GraphExecutor(4)
    made.commit(write(A, 1, (0, 0, 1, 0), b"x"))
    made.commit(write(A, 2, (1, 0, 1, 0), b"x"))
    made.commit(write(B, 1, (2, 0, 0, 0), b"x"))
    assert executed(made) == []
    for slot in range(1, MANY, 2):
        made.commit(write(D, slot + 1, (0, 0, 0, slot), b"y%d" % slot))
        assert executed(made) == []
        made.commit(write(D, slot, (0, 0, 0, slot - 1), b"y%d" % slot))
        assert executed(made) == [(D, slot), (D, slot + 1)]
    assert len(made._graph._unindexed) < MANY // 2
    made.commit(write(D, MANY + 1, (2, 1, 0, MANY), b"x"))
    assert executed(made) == []
    made.commit(write(C, 1, (0, 0, 0, 0), b"x"))
    assert executed(made) == [(C, 1), (A, 1), (A, 2), (B, 1), (D, MANY + 1)]
