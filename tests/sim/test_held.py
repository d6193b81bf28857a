"""What a node holds when everything is executed is nothing; whoever holds more is seen. Drawn
constants stay until that is judged."""

from dataclasses import replace

import pytest

from epaxos.execution.graph_executor import GraphExecutor
from epaxos.execution.slot_executor import SlotExecutor
from epaxos.node.admission import HotQueue
from epaxos.node.node import Node
from epaxos.protocols.epaxos import columns
from epaxos.protocols.epaxos.conflicts import ConflictIndex
from epaxos.protocols.epaxos.replica import EPaxosReplica
from epaxos.protocols.multipaxos.replica import MultiPaxosReplica
from epaxos.registry import find_protocol
from epaxos.sim.check.checkers import RELEASED
from epaxos.sim.options import draw
from epaxos.sim.run import CleanRun, Failure, simulate, tell

CALM = replace(draw(3, replicas=(3,), only=frozenset()), commands=20, keys=1, reads=0.0)


class ForgetsNothing(EPaxosReplica):
    """Instances stay, although everybody has executed them."""

    def _forget(self):
        pass

    def executed(self, durable, now):
        super().executed(durable, now)
        self.columns._forget = lambda floor: None


class KeepsItsIndex(EPaxosReplica):
    """The conflict index has no second generation to drop."""

    def __init__(self, setup):
        super().__init__(setup)
        self.index.__class__ = NeverTurns


class NeverTurns(ConflictIndex):
    __slots__ = ()

    def turn(self, floor):
        pass


class KeepsVertices(GraphExecutor):
    """The key of a finished instance stays in the graph."""

    def _settle(self, vertex):
        super()._settle(vertex)
        self._graph._unindexed.append(vertex)


class KeepsGaps(GraphExecutor):
    """Executed slots stay among those beyond a gap."""

    def _mark(self, replica, slot):
        super()._mark(replica, slot)
        self._beyond[replica].setdefault(0, None)


class KeepsFlights(Node):
    """A batch stays in flight after its execution."""

    def _land(self, flight):
        super()._land(flight)
        self._flying[flight.number] = flight


class KeepsIds(Node):
    """A batch is found by its id for ever."""

    def _land(self, flight):
        super()._land(flight)
        self._by_instance[flight.instance] = flight


class KeepsKeys(Node):
    """A contended key is held by an instance of long ago."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._hot.__class__ = NeverReleases


class NeverReleases(HotQueue):
    def release(self, slot):
        held = dict(self._held)
        super().release(slot)
        if held:
            self._keys_of[slot] = []


class KeepsSlots(MultiPaxosReplica):
    """Chosen slots stay, although everybody has executed them."""

    def _renew_floor(self):
        pass


class KeepsDecided(SlotExecutor):
    """An executed slot stays among the decided ones."""

    def ready(self):
        out = super().ready()
        for (decided,) in out:
            self._pending[-decided.slot] = decided
        return out

    def pending(self):
        return []


@pytest.mark.parametrize(
    ("protocol", "part"),
    [
        *(("epaxos", part) for part in (ForgetsNothing, KeepsItsIndex, KeepsVertices, KeepsGaps)),
        *(("epaxos", part) for part in (KeepsFlights, KeepsIds, KeepsKeys)),
        *(("multipaxos", part) for part in (KeepsSlots, KeepsDecided, KeepsFlights)),
    ],
)
def test_what_is_held_too_long_is_seen(protocol, part):
    spec = find_protocol(protocol)
    node = part if issubclass(part, Node) else Node
    if issubclass(part, EPaxosReplica | MultiPaxosReplica):
        spec = replace(spec, replica=part)
    elif not issubclass(part, Node):
        spec = replace(spec, executor=part)
    options = replace(CALM, protocol=protocol)
    assert isinstance(tell(options), CleanRun)
    outcome = tell(options, spec, node)
    assert isinstance(outcome, Failure)
    assert outcome.property == RELEASED


def test_what_waits_for_a_member_that_is_dead_is_held_rightly():
    for seed in range(1, 200):
        options = draw(seed, replicas=(3,), only=frozenset(["rest"]))
        if options.rest:
            break
    assert isinstance(tell(options), CleanRun)
    outcome = tell(options, node=KeepsFlights)
    assert isinstance(outcome, Failure)
    assert outcome.property == RELEASED


def test_constants_stay_until_everything_is_executed():
    seen = set()

    class Notes(EPaxosReplica):
        """Remembers the constants that it runs with, and until when."""

        def wake(self, now):
            super().wake(now)
            seen.add((columns.RESEND_RTTS, now > CALM.active_us))

    tunables = (("epaxos.RESEND_RTTS", 8),)
    spec = replace(find_protocol("epaxos"), replica=Notes)
    simulate(replace(CALM, tunables=tunables), spec)
    assert seen == {(8, False), (8, True)}
    assert columns.RESEND_RTTS != 8


@pytest.mark.parametrize(
    ("protocol", "seed"),
    [
        *(("epaxos", seed) for seed in (400_119, 411_199, 411_970, 412_815, 812_936, 818_874)),
        *(("multipaxos", seed) for seed in (410_726, 608_345)),
    ],
)
def test_seeds_that_failed_are_clean(protocol, seed):
    """A slot beyond the horizon that was never let go; recoveries that began anew before their
    answers came; a follower that asked only the dead for what it lacked; a question after eight
    round trips of a time when they were long; a recovery given up when a member came back."""
    assert isinstance(tell(draw(seed, protocol, (3, 4, 5, 7), 24)), CleanRun)
