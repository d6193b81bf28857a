"""A candidate at its bounds."""

from epaxos.core.types import make_ballot
from epaxos.protocols.multipaxos.messages import Promise
from epaxos.protocols.multipaxos.stages import Preparing

A, B, C = range(3)
B1A = make_ballot(1, A)


def test_of_two_promises_that_know_as_much_the_first_is_caught_up_with():
    stage = Preparing(B1A, 1, A, 3, None)
    assert stage.absorb(B, Promise(B1A, 1, 0, 7, []))
    assert stage.absorb(C, Promise(B1A, 1, 0, 7, []))
    assert (stage.chosen, stage.chosen_at) == (7, B)
