"""The conflict index: the floor that is just high enough."""

from epaxos.core.command import Footprint
from epaxos.protocols.epaxos.conflicts import ConflictIndex

X = Footprint((b"x",), ())


def test_a_generation_goes_when_the_floor_reaches_all_that_it_names():
    index = ConflictIndex(3)
    index.add(0, 2, X)
    index.turn((0, 0, 0))
    assert index.deps(X, (0, 0, 0)) == (2, 0, 0)
    index.turn((1, 0, 0))
    assert len(index) == 1
    index.turn((2, 0, 0))
    assert len(index) == 0
    assert index.deps(X, (0, 0, 0)) == (0, 0, 0)
