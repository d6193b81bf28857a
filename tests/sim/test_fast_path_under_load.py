"""The fast path where processors are short: replicas that share one machine, in virtual time."""

from itertools import count

import pytest

from epaxos.core.command import Operation
from epaxos.node.requests import Refusal, Request
from epaxos.sim.options import Faults, RunOptions
from epaxos.sim.world import World

CORES = 2
STEP_US = 50
MESSAGE_US = 30
"""What a step takes of a core, and each message, request and reply of it."""
FOR_EVER_US = 1 << 40


class OneMachine(World):
    """Replicas whose steps take time, on cores that all of them share."""

    def __init__(self, options):
        super().__init__(options)
        self._free_at = [0] * CORES

    def _tick_soon(self, process):
        self._schedule(process)

    def _tick(self, process):
        core = min(range(CORES), key=self._free_at.__getitem__)
        if self._free_at[core] > self.now and process.life is not None and not process.syncing:
            self.at(self._free_at[core], self._tick, process)
            return
        self._core, self._received = core, len(process.inbox)
        super()._tick(process)

    def _append(self, process, life, ready):
        life.append(ready.log)
        singles = sum(self.options.replicas - 1 if to < 0 else 1 for to, _ in ready.messages)
        work = STEP_US + MESSAGE_US * (self._received + singles // 4)
        self._free_at[self._core] = self.now + work
        low, high = self.options.faults.sync_us
        wait = 0 if self.options.memory or not ready.must_sync else self.random.randint(low, high)
        self._sync_later(process, life, ready, work + wait)


class Windows:
    """Closed loop: so many commands outstanding over all replicas, each on a key of its own."""

    def __init__(self, world):
        self.world = world
        self._numbers = count(1)
        self._members = {}
        world.on_reply = self._answered

    def send(self, member):
        number = next(self._numbers)
        self._members[number] = member
        key = b"k%d" % number
        put = bytes([Operation.PUT])
        self.world.request(member, Request(number, put, [key], [key], FOR_EVER_US))

    def _answered(self, reply):
        assert not isinstance(reply, Refusal)
        self.world.at(self.world.now, self.send, self._members.pop(reply.waiter))


def paths(world):
    """How many instances were decided on the fast and on the slow path."""
    counts = [process.node.statistics() for process in world.processes]
    return sum(each["fast"] for each in counts), sum(each["slow"] for each in counts)


def cluster(n, memory, batch_commands=1):
    world = OneMachine(
        RunOptions(
            replicas=n,
            delays_us=tuple(tuple(0 if i == j else 100 for j in range(n)) for i in range(n)),
            jitter_us=100,
            memory=memory,
            faults=Faults(sync_us=(500, 2_000)),
            limits=(("batch_commands", batch_commands),),
            deep=False,
        )
    )
    for member in range(n):
        world.start(member)
    world.run(300_000)
    return world


@pytest.mark.parametrize("memory", [True, False], ids=["memory", "fsync"])
@pytest.mark.parametrize("batch_commands", [1, 100])
@pytest.mark.parametrize("window", [1, 60, 240])
@pytest.mark.parametrize("n", [7, 9])
def test_load_alone_sends_nothing_down_the_slow_path(n, window, batch_commands, memory):
    world = cluster(n, memory, batch_commands)
    windows = Windows(world)
    for number in range(window):
        world.at(world.now, windows.send, number % n)
    world.run(world.now + 400_000)
    fast, slow = paths(world)
    assert fast > 50
    assert fast >= 0.99 * (fast + slow)


@pytest.mark.parametrize("n", [7, 9])
def test_a_cluster_that_stands_still_as_a_whole_gives_nothing_up(n):
    """A pause of 50 ms in a quiet cluster, amid questions and answers."""
    world = cluster(n, memory=True)
    windows = Windows(world)
    for number in range(2 * n):
        world.at(world.now, windows.send, number % n)
    for _ in range(10):
        world.run(world.now + 50_000 + world.random.randint(0, 2_000))
        for process in world.processes:
            process.paused_until = world.now + 50_000
        world._free_at = [max(at, world.now + 50_000) for at in world._free_at]
    world.run(world.now + 100_000)
    fast, slow = paths(world)
    assert fast > 50
    assert fast >= 0.99 * (fast + slow)


@pytest.mark.parametrize("n", [5, 9])
def test_a_queue_longer_than_any_patience_makes_nobody_ask_twice_or_take_over(n):
    """Commands take several times as long as an unanswered question of a quiet cluster, and nothing
    is lost: whatever is sent in addition makes the queue longer."""
    world = cluster(n, memory=True)
    windows = Windows(world)
    for number in range(1_000):
        world.at(world.now, windows.send, number % n)
    world.run(world.now + 1_500_000)
    fast, slow = paths(world)
    assert fast > 1_000
    assert fast >= 0.99 * (fast + slow)
    counts = [process.node.statistics() for process in world.processes]
    for kind in ("resends", "recoveries"):
        assert sum(each[kind] for each in counts) == 0, kind
