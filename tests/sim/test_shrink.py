"""A failing schedule is cut down while the same sentence fails, and written out as a test."""

import sys
from dataclasses import replace

import pytest

from epaxos.core.replica import Outbox
from epaxos.core.types import InstanceId
from epaxos.node.node import Node
from epaxos.protocols.epaxos.messages import PreAccepted
from epaxos.protocols.epaxos.replica import EPaxosReplica
from epaxos.protocols.multipaxos.replica import MultiPaxosReplica
from epaxos.registry import find_protocol
from epaxos.sim.check.checkers import EXECUTES, REMEMBERED, VISIBILITY, Violation
from epaxos.sim.options import Faults, RunOptions, draw
from epaxos.sim.run import Failure, _run, _schedule_of, tell
from epaxos.sim.schedule.chart import show_schedule
from epaxos.sim.schedule.export import from_json, to_json, to_pytest
from epaxos.sim.schedule.player import Player
from epaxos.sim.schedule.schedule import Arrival, Crash, Step, TakeOver
from epaxos.sim.schedule.shrink import NotViolated, Shrinker, shrink, size_of
from epaxos.sim.schedule.simplify import without_members, without_slot
from epaxos.sim.schedule.stage import directed
from epaxos.sim.shrink_options import shrink_options
from epaxos.sim.world import World

EVENTS_MAX = 30


class ForgetsDeps(EPaxosReplica):
    """Acceptors answer with the command leader's deps as they came."""

    def _acceptor_deps(self, replica, payload, initial):
        return initial


class SmallFastQuorum(EPaxosReplica):
    """The fast path counts one answer too few."""

    def __init__(self, setup):
        super().__init__(setup)
        self.sizes = self.sizes._replace(fast=max(2, self.sizes.fast - 1))


class SmallSlowQuorum(MultiPaxosReplica):
    """A majority is one too few."""

    def __init__(self, setup):
        super().__init__(setup)
        self.majority = max(2, self.majority - 1)


class NeverRecovers(EPaxosReplica):
    """Nobody takes over what a dead replica left."""

    def _start_recover(self, replica, slots, now):
        pass


def failure_of(replica, seeds, protocol="epaxos"):
    spec = replace(find_protocol(protocol), replica=replica)
    for seed in seeds:
        outcome = tell(draw(seed, protocol), spec)
        if isinstance(outcome, Failure):
            return outcome, spec
    raise AssertionError("no seed fails")


def violation_of(schedule, spec, sentence):
    with pytest.raises(Violation) as caught:
        Player(schedule, spec, only=sentence).play(schedule.events)
    return caught.value


@pytest.mark.parametrize(
    ("replica", "protocol", "seeds"),
    [
        (ForgetsDeps, "epaxos", [1]),
        (SmallFastQuorum, "epaxos", range(1, 40)),
        (SmallSlowQuorum, "multipaxos", range(1, 40)),
    ],
)
def test_a_planted_bug_is_told_in_a_few_events(replica, protocol, seeds):
    failure, spec = failure_of(replica, seeds, protocol)
    before = size_of(failure.schedule)
    shortest = shrink(failure.schedule, spec, Node, failure.property)
    assert size_of(shortest) <= EVENTS_MAX < before
    assert violation_of(shortest, spec, failure.property).property == failure.property
    Player(shortest).play(shortest.events)
    again = from_json(to_json(shortest))
    assert violation_of(again, spec, failure.property).property == failure.property


class AnswersBeforeItSyncs(EPaxosReplica):
    """A pre-accept is noted, not recorded: the answer leaves before the vote is durable."""

    def __init__(self, setup):
        super().__init__(setup)
        self.out = NotesPreAccepts()


class NotesPreAccepts(Outbox):
    def record(self, record):
        if isinstance(record, PreAccepted):
            self.note(record)
        else:
            super().record(record)


def test_what_a_crash_shows_ends_with_the_crash():
    failure, spec = failure_of(AnswersBeforeItSyncs, range(1, 20))
    assert failure.property == REMEMBERED
    shortest = shrink(failure.schedule, spec, Node, REMEMBERED)
    assert size_of(shortest) <= 4
    last = shortest.events[-1]
    assert isinstance(last, Crash) or last.crash is not None


def run_test_file(text):
    """Run the tests of a file; those that failed, by name."""
    found = {}
    exec(compile(text, "test_exported.py", "exec"), found)
    failed = {}
    for name, test in list(found.items()):
        if name.startswith("test_"):
            try:
                test()
            except Violation as violation:
                failed[name] = violation.property
    return failed, found


def test_what_is_written_out_runs_and_says_the_same():
    failure, spec = failure_of(ForgetsDeps, [4])
    shortest = shrink(failure.schedule, spec, Node, failure.property)
    module = sys.modules[__name__].__name__
    chart = show_schedule(shortest, spec, only=failure.property)
    text = to_pytest(
        shortest, failure.property, failure.detail, planted=f"{module}:ForgetsDeps", chart=chart
    )
    assert chart in text
    assert 'world.deliver("' in text
    failed, found = run_test_file(text)
    assert not failed
    assert {"test_visibility", "test_visibility_is_caught"} <= found.keys()
    with pytest.raises(Violation) as caught:
        found["story"](directed(shortest.replicas, replica=ForgetsDeps, only=VISIBILITY))
    assert caught.value.property == VISIBILITY


@pytest.mark.parametrize("protocol", ["epaxos", "multipaxos"])
@pytest.mark.parametrize("seed", [3, 6, 8])
def test_any_schedule_can_be_written_out(protocol, seed):
    """Also one that was not made plain: the story performs the same events."""
    options = replace(draw(seed, protocol), story=True)
    world = World(options)
    _run(world)
    schedule = _schedule_of(world)
    player = Player(schedule)
    player.play(schedule.events)
    text = to_pytest(player.schedule(), VISIBILITY, "nothing", chart="")
    found = {}
    exec(compile(text, "test_exported.py", "exec"), found)
    stage = found["Stage"](found["HEAD"], lenient=True)
    found["story"](stage)
    assert len(stage.events) == len(player.events)
    assert stage.decisions._decided == player.decisions._decided


def test_a_schedule_that_holds_is_not_cut_down():
    world = directed(3)
    world.put("A", "x")
    world.deliver_all()
    with pytest.raises(NotViolated, match="one is in the other's deps"):
        shrink(world.schedule(), None, Node, VISIBILITY)


def test_the_budget_is_kept():
    failure, spec = failure_of(ForgetsDeps, [1])
    plays = iter(range(10))
    shrinker = Shrinker(
        failure.schedule, spec, Node, failure.property, lambda: next(plays, None) is not None
    )
    best = shrinker.run()
    assert shrinker.plays <= 11
    assert violation_of(best, spec, failure.property).property == failure.property


def test_a_run_that_never_ends_well_gets_smaller_options():
    options = RunOptions(
        seed=1,
        commands=30,
        delays_us=((10_000,) * 5,) * 5,
        faults=Faults(loss=0.2, dead=1, duplication=0.1),
        active_us=500_000,
        settle_us=3_000_000,
        deep=False,
    )
    spec = replace(find_protocol("epaxos"), replica=NeverRecovers)
    tries = iter(range(60))
    smaller = shrink_options(options, spec, Node, EXECUTES, lambda: next(tries, None) is not None)
    assert smaller.commands <= 7
    again = tell(smaller, spec)
    assert isinstance(again, Failure)
    assert again.property == EXECUTES


def test_a_smaller_cluster_has_new_names():
    world = directed(5)
    world.put("C", "x")
    world.deliver("C>E", "PreAccept C.1")
    world.recover("E", "C.1")
    world.deliver("E>C", "Recover C.1 b1@E")
    smaller = without_members(world.schedule(), (0, 1))
    assert smaller.replicas == 3
    steps = [event for event in smaller.events if isinstance(event, Step) and event.inputs]
    assert [step.member for step in steps] == [0, 2, 2, 0]
    assert steps[1].inputs == (Arrival(0, "PreAccept A.1", 0),)
    assert steps[2].inputs == (TakeOver((InstanceId(0, 1),)),)
    assert steps[3].inputs == (Arrival(2, "Recover A.1 b1@C", 0),)


def test_what_comes_after_a_slot_moves_down():
    def label(text, name):
        step = Step(0, 0, (Arrival(1, text, 0),))
        (found,) = without_slot([step], name)
        return found.inputs[0].label if found.inputs else None

    assert label("PreAccept A.3", "A.2") == "PreAccept A.2"
    assert label("PreAccept A.2", "A.2") is None
    assert label("PreAccept B.3", "A.2") == "PreAccept B.3"
    assert label("Recover A.1,2,4 b3@B", "A.2") == "Recover A.1,3 b3@B"
    assert label("Accept 7 b1@A", "3") == "Accept 6 b1@A"
    assert label("AcceptOk b1@A", "1") == "AcceptOk b1@A"
