"""One life: what is durable when, what a crash leaves, and what others see."""

import random

import pytest

from epaxos.core.command import Operation
from epaxos.core.replica import EVERYONE, Setup
from epaxos.node.requests import Limits, Request
from epaxos.node.sampling import Samples
from epaxos.registry import find_protocol
from epaxos.sim.check.checkers import REMEMBERED, Violation
from epaxos.sim.check.protocol_invariants import ProtocolWatch
from epaxos.sim.disk import Disk
from epaxos.sim.incarnation import Incarnation, NodeFactory

SPEC = find_protocol("epaxos")


class Scene:
    """A cluster of one: what is proposed is decided in the same step."""

    def __init__(self, n=1, disk=True, spec=SPEC):
        self.disk = Disk(0) if disk else None
        self.durable = []
        self.now = 1
        self.factory = NodeFactory(spec)
        self.n = n
        self.life = self.begin()
        self.life.node.wake(self.now)
        self.pass_on(self.life.take(self.now))

    def begin(self):
        setup = Setup(0, self.n, (0,) * self.n, random.Random(1))
        return Incarnation(
            self.factory,
            setup,
            1,
            Limits(sampled_per_s=1000),
            self.disk,
            Samples(lambda: self.now),
            lambda member, ids: self.durable.extend(ids),
        )

    def put(self):
        request = Request("client", bytes([Operation.PUT]), [b"k"], [b"v"], 10**9)
        self.life.node.request([request], self.now)
        return self.life.take(self.now)

    def pass_on(self, ready):
        self.life.append(ready.log)
        if ready.must_sync:
            self.life.sync()
        return self.life.release(ready, self.now)


def test_what_is_appended_is_durable_after_the_sync_only():
    scene = Scene()
    ready = scene.put()
    scene.life.append(ready.log)
    assert scene.disk.tail
    assert not scene.disk.durable
    assert scene.life.restored().store.digest() != scene.life.node.store.digest()
    assert not scene.durable
    scene.life.sync()
    assert len(scene.disk.durable) == len(ready.log)
    assert scene.durable == [(0, 1)]
    assert scene.life.restored().store.digest() == scene.life.node.store.digest()


def test_without_a_disk_what_is_appended_counts_as_durable():
    scene = Scene(disk=False)
    scene.life.append(scene.put().log)
    assert scene.durable == [(0, 1)]


def test_a_release_commits_batches_and_shows_what_was_decided_and_executed_once():
    scene = Scene()
    ready = scene.put()
    scene.life.append(ready.log)
    scene.life.sync()
    scene.now = 7
    seen = scene.life.release(ready, scene.now)
    (flight,) = ready.flights
    assert flight.committed_at == flight.stamps.left_at == 7
    assert flight.stamps.batched_at == 1
    assert [(each.replica, each.slot) for each in seen.decided] == [(0, 1)]
    assert seen.executed == seen.decided
    assert scene.life.seen() == ([], [], [])


def test_the_next_life_knows_what_the_disk_kept():
    scene = Scene()
    scene.pass_on(scene.put())
    again = scene.begin()
    again.restore(scene.disk.durable)
    seen = again.seen()
    assert [(each.replica, each.slot) for each in seen.decided] == [(0, 1)]
    assert seen.executed == seen.decided
    assert again.node.store.digest() == scene.life.node.store.digest()


@pytest.mark.parametrize("synced", [True, False])
def test_what_was_said_must_be_in_the_durable_log(synced):
    scene = Scene(n=3)
    ready = scene.put()
    scene.life.append(ready.log)
    if synced:
        scene.life.sync()
    watch = ProtocolWatch(SPEC, deep=False)
    for target, message in ready.messages:
        assert target == EVERYONE
        watch.said(0, message)
    if synced:
        scene.life.check_remembered(watch)
        return
    with pytest.raises(Violation) as caught:
        scene.life.check_remembered(watch)
    assert caught.value.property == REMEMBERED
