"""A schedule is played as it was recorded, driven by hand, shown, and written as JSON."""

from dataclasses import replace

import pytest

from epaxos.core.command import Operation
from epaxos.core.errors import ConfigError
from epaxos.protocols.epaxos.replica import EPaxosReplica
from epaxos.sim.check.checkers import AGREEMENT, LINEARIZABLE, REMEMBERED, VISIBILITY, Violation
from epaxos.sim.options import Faults, draw
from epaxos.sim.run import _run, _schedule_of
from epaxos.sim.schedule.chart import draw as chart_of
from epaxos.sim.schedule.chart import show_schedule
from epaxos.sim.schedule.export import from_json, to_json
from epaxos.sim.schedule.player import Player
from epaxos.sim.schedule.schedule import Arrival, Crash
from epaxos.sim.schedule.simplify import RTT_US
from epaxos.sim.schedule.stage import directed
from epaxos.sim.world import World


def recorded(seed, protocol="epaxos", **changes):
    """A world that has run, and its schedule."""
    options = replace(draw(seed, protocol), story=True, limits=(), tunables=(), **changes)
    world = World(options)
    _run(world)
    return world, _schedule_of(world)


def decisions(checker):
    return checker._decided


@pytest.mark.parametrize("protocol", ["epaxos", "multipaxos"])
@pytest.mark.parametrize("seed", range(1, 13))
def test_bounds_and_constants_of_a_seed_are_replayed_until_the_core_heals(protocol, seed):
    world = World(replace(draw(seed, protocol), story=True))
    _run(world)
    schedule = _schedule_of(world)
    player = Player(schedule)
    player.play(schedule.events)
    assert decisions(player.decisions) == decisions(world.decisions)


@pytest.mark.parametrize("protocol", ["epaxos", "multipaxos"])
@pytest.mark.parametrize("seed", [3, 4, 6, 9, 18, 29])
def test_a_recorded_run_played_again_decides_the_same(protocol, seed):
    world, schedule = recorded(seed, protocol)
    player = Player(schedule)
    player.play(schedule.events)
    assert decisions(player.decisions) == decisions(world.decisions)
    assert len(decisions(player.decisions)) > 1


def test_what_was_played_plays_the_same_again():
    _, schedule = recorded(6, faults=Faults(crashes=4, loss=0.1, duplication=0.2))
    player = Player(schedule)
    player.play(schedule.events)
    again = Player(player.schedule())
    again.play(player.events)
    assert again.schedule() == player.schedule()
    assert chart_of(again) == chart_of(player)


@pytest.mark.parametrize("protocol", ["epaxos", "multipaxos"])
def test_a_schedule_survives_json(protocol):
    _, schedule = recorded(8, protocol, transfers=2)
    schedule = schedule._replace(limits=(("batch_commands", 2),))
    assert from_json(to_json(schedule)) == schedule
    world = two_answers(EPaxosReplica)
    world.recover("B", "A.1", crash=Crash(1, 0, sent=1))
    assert from_json(to_json(world.schedule())) == world.schedule()


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (b"{", "cannot be read"),
        (b"[]", "not a schedule"),
        (b'{"format": "epaxos schedule 1"}', "without 'protocol'"),
    ],
)
def test_a_document_that_is_no_schedule_is_refused(document, says):
    with pytest.raises(ConfigError, match=says):
        from_json(document)


def two_answers(replica, **more):
    """C decides with B, then A with B."""
    world = directed(3, replica=replica, **more)
    world.put("C", "x")
    world.deliver("C>B", "PreAccept C.1")
    world.deliver("B>C", "PreAcceptOk C.1")
    world.put("A", "x")
    world.deliver("A>B", "PreAccept A.1")
    world.deliver("B>A", "PreAcceptOk A.1")
    return world


class ForgetsDeps(EPaxosReplica):
    """Acceptors answer with the command leader's deps as they came."""

    def _acceptor_deps(self, replica, payload, initial):
        return initial


def test_a_story_holds_on_the_real_replica():
    world = two_answers(EPaxosReplica)
    world.deliver_all()
    world.check()
    assert world.value("A", "A.1") == (["x"], (0, 0, 1))
    assert world.executed("B") == [(2, 1), (0, 1)]


def test_a_story_is_a_schedule_that_fails_by_itself():
    with pytest.raises(Violation) as caught:
        two_answers(ForgetsDeps)
    assert caught.value.property == VISIBILITY
    world = directed(3)
    spec = replace(world.spec, replica=ForgetsDeps)
    world = two_answers(ForgetsDeps, only=AGREEMENT)
    player = Player(world.schedule(), spec)
    with pytest.raises(Violation) as again:
        player.play(world.events)
    assert again.value.property == VISIBILITY
    assert player.events == world.events


def test_a_message_that_is_not_in_flight_is_not_delivered():
    world = directed(3)
    with pytest.raises(LookupError, match="no PreAccept A>B"):
        world.deliver("A>B", "PreAccept")
    directed(3, lenient=True).deliver("A>B", "PreAccept")


def test_a_step_with_many_inputs_delivers_them_in_order():
    world = directed(5)
    world.put("A", "x")
    for member in "BC":
        world.deliver(f"A>{member}", "PreAccept A.1")
    ways = ("B>A", "C>A")
    world.step("A", *(world.arrival(way, "PreAcceptOk A.1") for way in ways), wake=True)
    assert world.value("A", "A.1") is not None
    assert [each.source for each in world.events[-1].inputs] == [1, 2]
    assert not [sent for sent in world.flight if sent.label == "PreAcceptOk A.1"]


def test_a_copy_arrives_again_and_a_repetition_has_a_number():
    world = directed(3)
    world.put("A", "x")
    world.deliver("A>B", "PreAccept A.1", keep=True)
    world.deliver("A>B", "PreAccept A.1")
    for _ in range(200):
        world.wake("A")
        if len(world.sent[0, 1]["PreAccept A.1"]) > 1:
            break
    world.deliver("A>B", "PreAccept A.1", nth=1)
    found = [each for event in world.events for each in getattr(event, "inputs", ())]
    assert [each.nth for each in found if isinstance(each, Arrival)] == [0, 0, 1]


@pytest.mark.parametrize(
    ("crash", "knows"),
    [
        (Crash(0, 0, appended=False), False),
        (Crash(0, 0), False),
        (Crash(0, 0, kept=1), True),
        (Crash(0, 0, sent=0), True),
        (Crash(0, 0, sent=1), True),
    ],
)
def test_a_crash_within_a_step_keeps_what_the_disk_has(crash, knows):
    world = directed(3)
    world.request("A", [(Operation.PUT, b"x", b"1")], crash=crash)
    assert [sent.target for sent in world.flight] == [1, 2][: crash.sent or 0]
    world.restart("A")
    assert (world.replica("A").columns.get(0, 1) is not None) is knows


def test_a_crash_looks_whether_what_was_said_is_remembered():
    class Forgets(EPaxosReplica):
        def restore(self, record):
            pass

    world = directed(3, replica=Forgets)
    world.put("A", "x")
    with pytest.raises(Violation) as caught:
        world.crash("A")
    assert caught.value.property == REMEMBERED


def test_answers_that_no_order_explains_are_found():
    class ReadsNothing(EPaxosReplica):
        """Nothing interferes with anything."""

        def _acceptor_deps(self, replica, payload, initial):
            return initial

    world = directed(3, replica=ReadsNothing, only=LINEARIZABLE)
    world.put("A", "x")
    world.deliver("A>B", "PreAccept A.1")
    world.deliver("B>A", "PreAcceptOk A.1")
    world.get("C", "x")
    world.deliver("C>B", "PreAccept C.1")
    world.deliver("B>C", "PreAcceptOk C.1")
    with pytest.raises(Violation, match=r"get = nothing \[4 to 6\]"):
        world.check()


@pytest.mark.parametrize("memory", [True, False])
def test_a_chart_says_unsynced_only_where_there_is_a_disk(memory):
    world = directed(3, memory=memory)
    world.put("A", "x")
    world.deliver_all()
    assert ("unsynced" in world.chart()) is not memory
    assert "logs " in world.chart()


def test_memory_mode_boots_once():
    world = directed(3, memory=True)
    world.put("A", "x")
    world.crash("A")
    world.restart("A")
    with pytest.raises(LookupError, match="A is down"):
        world.node("A")


def pass_time(world, rounds):
    """Everybody wakes now and then, and hears everybody."""
    for _ in range(rounds):
        for name in "ABC":
            world.wait(name, 20_000)
            for other in "ABC".replace(name, ""):
                world.deliver(f"{name}>{other}", "Heartbeat")
        world.deliver_all()


def test_the_leader_of_a_leader_protocol_can_be_moved():
    world = directed(3, "multipaxos", lenient=True)
    world.deliver_all()
    world.put("A", "x")
    pass_time(world, 5)
    assert world.answers("A")
    world.hand_over("A", "B")
    pass_time(world, 5)
    world.put("B", "x")
    pass_time(world, 5)
    assert world.replica("B").leader == 1
    assert world.answers("B")
    world.check()


CHART = """\
EPaxos, 3 replicas
Time goes down.  ● a step  ├─▶ a delivery  ◆ decided, executed, answered  ✖ a crash

     A         B         C
  1  │         │         ●         a client: put x 1
     │         │         │         logs PreAccepted C.1 deps 000
  2  │         │◀────────┤         PreAccept C.1 (put x 1) deps 000
     │         │         │         logs PreAccepted C.1 deps 000
  3  │         ├────────▶│         PreAcceptOk C.1 deps 000
     │         │         │         logs CommittedShort C.1 deps 000
     │         │         ◆         decides C.1 on the fast path (put x 1) deps 000
     │         │         ◆         executes C.1
     │         │         │         nobody hears its CommitShort C.1
     │         │         ◆         answers put x 1: yes
  4  ●         │         │         a client: put x 2
     │         │         │         logs PreAccepted A.1 deps 000
  5  ├────────▶│         │         PreAccept A.1 (put x 2) deps 000
     │         │         │         logs PreAccepted A.1 deps 000
  6  │◀────────┤         │         PreAcceptOk A.1 deps 000
     │         │         │         logs CommittedShort A.1 deps 000
     ◆         │         │         decides A.1 on the fast path (put x 2) deps 000

violated: of two interfering decided instances one is in the other's deps, or every replica had
          durably executed one before the other was decided:
          A.1 deps (0, 0, 0) and C.1 deps (0, 0, 0) on key b'x'"""


def test_a_chart_tells_it_to_a_person():
    world = two_answers(ForgetsDeps, only=AGREEMENT)
    assert show_schedule(world.schedule(), world.spec) == CHART


@pytest.mark.parametrize("n", [1, 5, 7, 9])
def test_a_chart_fits_a_page(n):
    changes = {"replicas": n, "delays_us": ((500,) * n,) * n, "leader": 0, "rest": 0}
    _, schedule = recorded(12, commands=8, settle_us=10_000_000, **changes)
    assert max(map(len, show_schedule(schedule).splitlines())) <= 100


def test_time_passes_for_all_and_messages_take_half_a_round_trip():
    world = directed(3)
    world.put("A", "x")
    world.run(RTT_US - 1)
    assert world.value("A", "A.1") is None
    world.run(1)
    assert world.value("A", "A.1") == (["x"], (0, 0, 0))
    assert world.now == RTT_US


def test_what_is_lost_or_held_does_not_arrive():
    world = directed(3)
    world.put("A", "x")
    world.run(RTT_US, lost=["A>C"], held=["> PreAcceptOk"])
    assert [(sent.source, sent.target, sent.label) for sent in world.flight] == [
        (1, 0, "PreAcceptOk A.1")
    ]
    world.deliver("B>A", "PreAcceptOk")
    assert world.value("A", "A.1") is not None
    with pytest.raises(LookupError, match="not reached within 10 us"):
        world.run(10, until=lambda: world.now < 0)
