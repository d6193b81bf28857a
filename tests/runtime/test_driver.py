"""The loop: the law of durability, bounded steps, fail-stop."""

import asyncio
import random
import socket

import msgspec
import pytest
from fakenode import FakeFlight, FakeLog, FakeNode

from epaxos.core.errors import StorageError
from epaxos.core.replica import EVERYONE, Setup
from epaxos.node.node import Node
from epaxos.node.requests import AskStatus, Limits, NodeReady, Request
from epaxos.protocols.epaxos.messages import Progress
from epaxos.registry import find_protocol
from epaxos.runtime.alarm import clock
from epaxos.runtime.driver import STEP_MESSAGES_MAX, Driver


class Ping(msgspec.Struct, frozen=True, tag=1):
    number: int


class Waiter:
    def __init__(self, trace):
        self.trace = trace

    def reply(self, reply, now):
        self.trace.append(("reply", reply.flight.committed_at > 0))

    def refuse(self, refusal):
        self.trace.append(("refuse", refusal.code))

    def give_up(self, error):
        self.trace.append(("give up", repr(error)))


class Scene:
    """A driver whose log, links and replies write into one trace."""

    def __init__(self):
        self.trace = []
        self.node = FakeNode()
        self.log = FakeLog()
        self.failures = []
        self.log.append = lambda records: self.trace.append(("append", len(records)))
        self.log.sync = self._sync
        self.trouble = None
        self.driver = Driver(
            self.node,
            self.log,
            lambda messages: self.trace.append(("send", list(messages))),
            self.failures.append,
        )

    def _sync(self):
        self.trace.append("sync")
        if self.trouble:
            raise self.trouble


@pytest.fixture
async def scene():
    made = Scene()
    yield made
    made.driver.stop()


async def settle():
    for _ in range(5):
        await asyncio.sleep(0.002)


async def test_nothing_leaves_before_the_sync(scene):
    scene.driver.start()
    taken = scene.node.take

    def take(now):
        ready = taken(now)
        return ready._replace(messages=[(EVERYONE, Ping(1))]) if ready.replies else ready

    scene.node.take = take
    scene.driver.submit(Request(Waiter(scene.trace), b"\1", [b"k"], [b"v"], clock() + 10**6))
    await settle()
    assert scene.trace == [
        ("append", 1),
        "sync",
        ("send", [(EVERYONE, Ping(1))]),
        ("reply", True),
    ]
    assert scene.driver.commands == 1


async def test_the_link_of_a_peer_that_is_distrusted_is_closed(scene):
    scene.driver.start()
    closed = []
    scene.driver.distrust = closed.append
    scene.node.take = lambda now: NodeReady([], False, [], [], [], [2])
    scene.driver.schedule()
    await settle()
    assert closed == [2]


async def test_notes_are_appended_without_a_sync(scene):
    scene.driver.start()
    scene.node.take = lambda now: NodeReady([Ping(1)], False, [], [], [])
    scene.driver.schedule()
    await settle()
    assert scene.trace == [("append", 1)]


@pytest.mark.parametrize("what", ["sync", "step"])
async def test_a_failure_ends_everything_and_nothing_leaves(scene, what):
    scene.driver.start()
    trouble = StorageError("disk") if what == "sync" else AssertionError("bug")
    if what == "sync":
        scene.trouble = trouble
    else:
        scene.node.trouble = trouble
    for _ in range(2):
        scene.driver.submit(Request(Waiter(scene.trace), b"\1", [b"k"], [b"v"], clock() + 10**6))
        await settle()
    assert scene.failures == [trouble]
    assert [e for e in scene.trace if e[0] in ("send", "reply")] == []
    assert len(scene.node.requests) == 1


@pytest.mark.parametrize("react", ["", "overloaded"])
async def test_a_waiter_that_fails_costs_its_own_answer_alone(scene, react):
    class Broken(Waiter):
        def reply(self, reply, now):
            raise MemoryError

        def refuse(self, refusal):
            raise MemoryError

    class Hopeless(Broken):
        def give_up(self, error):
            raise MemoryError

    scene.driver.start()
    scene.node.react = react
    for kind in (Broken, Hopeless, Waiter):
        scene.driver.submit(Request(kind(scene.trace), b"\1", [b"k"], [b"v"], clock() + 10**6))
    await settle()
    assert scene.failures == []
    told = ("refuse", react) if react else ("reply", True)
    assert [e for e in scene.trace if e[0] in ("give up", "reply", "refuse")] == [
        ("give up", "MemoryError()"),
        told,
    ]
    assert scene.driver.faults == 2


async def test_a_step_takes_a_bounded_number_of_messages_in_order(scene):
    steps = []
    taken = scene.node.take

    def take(now):
        steps.append(len(scene.node.received))
        return taken(now)

    scene.node.take = take
    scene.driver.start()
    steps.clear()
    scene.driver.deliver(1, [Ping(i) for i in range(10)], 100)
    scene.driver.deliver(2, [Ping(i) for i in range(10, 3000)], 30_000)
    await settle()
    assert [m.number for _, m in scene.node.received] == list(range(3000))
    assert [s for s, _ in scene.node.received] == [1] * 10 + [2] * 2990
    assert steps == [STEP_MESSAGES_MAX, 2 * STEP_MESSAGES_MAX, 3000]


async def test_who_says_little_is_heard_beside_who_says_much(scene):
    """In each step, before the node is woken, everybody who waits is heard."""
    heard = []
    taken, woken = scene.node.take, scene.node.wake

    def wake(now):
        heard.append({source for source, _ in scene.node.received})
        woken(now)

    def take(now):
        if 3 in heard[-1]:
            scene.driver.deliver(3, [Ping(0)], 10)
        scene.node.received.clear()
        scene.node.at = 1
        return taken(now)

    scene.node.wake, scene.node.take = wake, take
    scene.driver.start()
    heard.clear()
    scene.driver.deliver(1, [Ping(i) for i in range(5000)], 50_000)
    scene.driver.deliver(2, [Ping(i) for i in range(5000)], 50_000)
    scene.driver.deliver(3, [Ping(0)], 10)
    while scene.driver.backlog.messages(1):  # noqa: ASYNC110 # a step has no event
        await asyncio.sleep(0)
    assert len(heard) >= 9
    assert all(each == {1, 2, 3} for each in heard)


async def test_what_arrives_during_a_step_is_heard_in_the_next(scene):
    """A step may take long (a sync). Whoever spoke meanwhile must not be taken for silent."""
    near, far = socket.socketpair()
    near.setblocking(False)
    loop = asyncio.get_running_loop()

    def read():
        scene.driver.deliver(2, [Ping(len(near.recv(100)))], 10)

    loop.add_reader(near, read)
    heard = []
    taken = scene.node.take

    def take(now):
        heard.append({source for source, _ in scene.node.received})
        scene.node.received.clear()
        if len(heard) == 2:
            far.send(b"x")
        return taken(now)

    scene.node.take = take
    try:
        scene.driver.start()
        scene.driver.deliver(1, [Ping(i) for i in range(5000)], 50_000)
        await settle()
        assert heard[:4] == [set(), {1}, {1, 2}, {1}]
    finally:
        loop.remove_reader(near)
        near.close()
        far.close()


async def test_a_peer_is_not_suspected_for_what_waits_here(scene, monkeypatch):
    """B sends more than A can deal with in a second; C only its heartbeats."""
    now = [1_000_000]
    monkeypatch.setattr("epaxos.runtime.driver.clock", lambda: now[0])
    node = Node(
        find_protocol("epaxos"), Setup(0, 3, (0, 1000, 1000), random.Random(1)), 1, Limits()
    )
    driver = Driver(node, None, lambda messages: None, scene.failures.append)
    none = (0, 0, 0)
    heartbeat = Progress(none, none, none, none, 0, none)
    taken, reachable = node.take, []

    def take(at):
        reachable.append(node.replica.columns.reachable())
        now[0] += 20_000
        driver.deliver(2, [heartbeat], 20)
        return taken(at)

    driver.start()
    node.take = take
    try:
        driver.deliver(1, [heartbeat] * 60_000, 1_200_000)
        while driver.backlog.messages(1):  # noqa: ASYNC110 # a step has no event
            await asyncio.sleep(0)
        assert len(reachable) > 50
        assert set(reachable) == {3}
        assert scene.failures == []
    finally:
        driver.stop()


async def test_inputs_of_one_moment_share_one_tick_and_one_sync(scene):
    scene.driver.start()
    before = scene.driver.ticks
    for _ in range(50):
        scene.driver.submit(Request(Waiter(scene.trace), b"\1", [b"k"], [b"v"], clock() + 10**6))
    scene.driver.deliver(1, [Ping(1)], 10)
    await settle()
    assert scene.driver.ticks == before + 1
    assert scene.trace.count("sync") == 1


async def test_the_node_is_woken_at_its_deadline_and_not_before(scene):
    scene.driver.start()
    assert scene.node.wakes == 1
    for wait in (30_000, 5_000):
        wakes = scene.node.wakes
        scene.node.at = at = clock() + wait
        scene.driver.schedule()
        while scene.node.wakes == wakes:  # noqa: ASYNC110 # the alarm has no event
            await asyncio.sleep(0.001)
        assert clock() >= at
    scene.node.at = clock() - 1
    scene.driver.schedule()
    await settle()
    assert scene.node.wakes == 4


async def test_a_later_deadline_moves_the_wake(scene):
    scene.driver.start()
    scene.node.at = clock() + 5_000
    scene.driver.schedule()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    scene.node.at = at = clock() + 30_000
    scene.driver.schedule()
    while scene.node.wakes == 1:  # noqa: ASYNC110 # the alarm has no event
        await asyncio.sleep(0.001)
    assert clock() >= at


async def test_questions_are_answered_after_the_sync(scene):
    scene.driver.start()
    scene.node.log.append(Ping(1))
    told = await scene.driver.ask(AskStatus())
    assert told.document == {"asked": "AskStatus"}
    assert scene.trace == [("append", 1), "sync"]


async def test_commits_are_counted_by_path_and_latency_by_command(scene):
    scene.driver.start()
    waiter = Waiter(scene.trace)
    scene.driver.submit(Request(waiter, b"\1" * 7, [b"k"] * 7, [b"v"] * 7, clock() + 10**6))
    await settle()
    assert scene.driver.commits[FakeFlight().path] == 1
    assert scene.driver.execute_latency.count == 7
    assert scene.driver.sync_latency.count == 1
