"""The executor of slots, in their order."""

from epaxos.core.replica import Decided, Path
from epaxos.core.types import InstanceId
from epaxos.execution.slot_executor import SlotExecutor


def test_the_last_executed_slot_is_executed_and_the_next_is_not():
    made = SlotExecutor(3)
    for slot in (1, 2, 4):
        made.commit(Decided(0, slot, (), None, Path.LEARNED))
    made.ready()
    assert [made.is_executed(0, slot) for slot in (1, 2, 3, 4)] == [True, True, False, False]


def test_who_waits_names_the_gap_and_others_nothing():
    made = SlotExecutor(3)
    for slot in (1, 2, 4):
        made.commit(Decided(0, slot, (), None, Path.LEARNED))
    made.ready()
    assert made.blocked_on(InstanceId(0, 4)) == InstanceId(0, 3)
    assert made.blocked_on(InstanceId(0, 2)) is None
    assert made.blocked_on(InstanceId(0, 5)) is None
