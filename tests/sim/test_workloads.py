"""The simulator's clients ask for what a workload says, and nothing a preset means has changed."""

from itertools import islice
from random import Random

import pytest

from epaxos.core.command import Operation
from epaxos.core.errors import ConfigError
from epaxos.sim.clients import Clients
from epaxos.sim.options import WORKLOADS, RunOptions, draw
from epaxos.sim.run import CleanRun, simulate, tell
from epaxos.sim.soak import Profile
from epaxos.sim.world import World
from epaxos.workload import parse_workload

TEXTS = ("zipf:theta=0.9,keys=20,puts=0.5", "ycsb-d", "ycsb-f:keys=3", "local:remote=20,drift=1000")
ROOM = ((200,) * 3,) * 3


@pytest.mark.parametrize("text", TEXTS)
def test_commands_are_those_of_the_workload(text):
    world = World(RunOptions(seed=3, replicas=3, delays_us=ROOM, workload=text))
    clients = Clients(world, 3, 3_000_000)
    for member in range(3):
        world.start(member)
    for number, member in enumerate((0, 1, 0, 2, 0)):
        world.run(number * 1000)
        clients.send(member, 4, Random(number))
    workload = parse_workload(text, 3, ("A", "B", "C"))
    for member, region in enumerate("ABC"):
        found = [(c.operation, c.key) for c in clients.calls if c.replica == member]
        starts = [number * 1000 for number in (0, 2, 4) for _ in range(4)]
        if member:
            starts = [(0, 1, 3)[member] * 1000] * 4
        drawn = islice(workload.commands(region, starts=starts), len(found))
        assert found == [(c.operation, c.key) for c in drawn]
    written = [c.argument for c in clients.calls if c.operation != Operation.GET]
    assert len(set(written)) == len(written)


@pytest.mark.parametrize("text", TEXTS)
def test_runs_with_a_workload_are_clean_and_repeat(text):
    profile = Profile(workload=text)
    for seed in (1, 2, 3):
        options = profile.options(seed)
        outcome = tell(options)
        assert isinstance(outcome, CleanRun), f"seed {seed}: {outcome}"
        assert outcome.answered > 0
        assert simulate(options).trace == simulate(options).trace


def test_keys_that_were_asked_for_are_read_back_by_whoever_is_left():
    world = World(RunOptions(replicas=3, delays_us=ROOM, workload="hot:50,hot=1,keys=3"))
    clients = Clients(world, 20, 3_000_000)
    world.start(0)
    clients.send(0, 30, Random(1))
    asked = {call.key for call in clients.calls}
    assert {call.key for call in clients.probe(0)} == asked == {b"key-0", b"key-1", b"key-2"}


def test_presets_are_what_they_were():
    assert Profile().options(7) == draw(7, replicas=(3, 4, 5, 7))
    for name, changes in WORKLOADS.items():
        options = Profile(workload=name).options(7)
        assert not options.workload
        assert {key: getattr(options, key) for key, _ in changes} == dict(changes)


def test_a_workload_of_no_kind_is_refused_with_what_there_is():
    with pytest.raises(ConfigError, match=r"unknown workload 'golf'.*zipf.*own are mixed, one-key"):
        Profile(workload="golf")
    with pytest.raises(ConfigError, match="theta = 7"):
        Profile(workload="zipf:theta=7")
