"""The outbox of a tick."""

from epaxos.protocols.leader_based.tick import TickOutbox
from epaxos.protocols.multipaxos.messages import Chosen


def test_what_is_put_off_to_the_end_of_a_tick_is_in_its_ready():
    def end_tick():
        out.note(Chosen(3))

    out = TickOutbox(end_tick)
    assert out.take().log == [Chosen(3)]
    assert out.take().log == [Chosen(3)]
