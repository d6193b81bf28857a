"""A small deterministic world that drives Multi-Paxos replicas through the codec.

Every message and record is encoded and decoded. A disk has a durable prefix; a crash loses what is
behind it. All invariants run after every step, and agreement, exactly-once and restore are checked
over all lives of all members.
"""

import contextlib
import heapq
import random

from epaxos.codec import Codec, encode
from epaxos.core.command import Batch, Operation, Payload
from epaxos.core.errors import Definite
from epaxos.core.replica import EVERYONE, Decided, Executed, Setup
from epaxos.core.types import InstanceId
from epaxos.execution.slot_executor import SlotExecutor
from epaxos.protocols.multipaxos import invariants
from epaxos.protocols.multipaxos.replica import MultiPaxosReplica
from epaxos.protocols.multipaxos.stages import Leading
from epaxos.registry import find_protocol

CODEC = Codec(find_protocol("multipaxos"))
MS = 1_000
SECOND = 1_000_000
SYNC_DELAY = 100 * MS


def payload_of(origin, number, text=""):
    key = f"{origin}:{number}{text}".encode()
    return Payload.of(Batch(origin, number, bytes([Operation.PUT]), [key], [b"v"]))


class Member:
    """One replica with its disk and its executor: a node in twenty lines."""

    def __init__(self, world, me, kind):
        self.world = world
        self.me = me
        self.kind = kind
        self.disk = []
        self.durable = 0
        self.durable_executed = 0
        self.synced_at = 0
        self.said = []
        self.boot = 0
        self.number = 0
        self.alive = False
        self.replica = None
        self.executor = None
        self.history = []
        self.snapshot = None

    def start(self):
        world = self.world
        self.boot += 1
        self.number = self.boot << 40
        rtt = tuple(0 if q == self.me else world.rtt for q in range(world.n))
        self.replica = self.kind(
            Setup(self.me, world.n, rtt, random.Random(world.random.random()), world.leader)
        )
        self.executor = SlotExecutor(world.n)
        self.history = []
        self.alive = True
        self.restore()
        self.snapshot = invariants.snapshot(self.replica)
        self.wake()

    def restore(self):
        for body in self.disk:
            record = CODEC.decode_record(body)
            if isinstance(record, Executed):
                ids = [InstanceId(0, slot) for slot in record.slots]
                self.history += self.executor.replay(ids)
                continue
            self.replica.restore(record)
            for decided in self.replica.out.take().decided:
                self.executor.commit(decided)
                self.world.observe_chosen(self.me, decided)
        for message in self.said:
            invariants.check_remembered(self.replica, message)
        self.durable_executed = self.executor.executed[0]

    def wake(self):
        self.replica.wake(self.world.now)
        self.take()

    def receive(self, source, body):
        self.replica.receive(source, CODEC.decode_message(body), self.world.now)
        self.take()

    def propose(self):
        self.number += 1
        payload = payload_of(self.me, self.number)
        self.world.proposed.add(payload.encoded)
        instance = self.replica.propose(payload, self.world.now)
        self.take()
        return payload, instance

    def take(self):
        """What a driver and a node do with one tick."""
        world, replica = self.world, self.replica
        replica.executed((self.durable_executed,), world.now)
        ready = replica.out.take()
        log = list(ready.log)
        for decided in ready.decided:
            self.executor.commit(decided)
        run = [decided for component in self.executor.ready() for decided in component]
        if run:
            log.append(Executed(bytes(len(run)), [decided.slot for decided in run]))
        self.disk.extend(map(encode, log))
        if world.crash_now(self):
            return
        if ready.must_sync or world.now - self.synced_at >= SYNC_DELAY:
            self.durable = len(self.disk)
            self.synced_at = world.now
            self.durable_executed = self.executor.executed[0]
        for decided in ready.decided:
            world.observe_chosen(self.me, decided)
        self.history += run
        world.observe_history(self)
        for target, message in ready.messages:
            if world.crash_now(self):
                return
            self.said.append(message)
            for member in range(world.n):
                if member == target or (target == EVERYONE and member != self.me):
                    world.send(self.me, member, message)
        for number in ready.returned:
            world.returned[self.me, number] = self.propose()[0]
        self.check()

    def check(self):
        if self.world.steps % self.world.check_every:
            return
        self.snapshot = invariants.check_step(self.snapshot, self.replica)

    def crash(self, tail):
        """Stop; of what was not synced only `tail` entries survive."""
        self.alive = False
        del self.disk[self.durable + tail :]
        self.durable = len(self.disk)
        self.replica = None

    def names(self):
        """What executed here, no-ops as None."""
        return [
            d.payload and (d.payload.batch.origin, d.payload.batch.number) for d in self.history
        ]

    @property
    def leads(self):
        return self.alive and isinstance(self.replica.stage, Leading)


class World:
    """Members, links with delays, a clock."""

    def __init__(self, n=3, seed=0, leader=0, kind=MultiPaxosReplica, rtt=40 * MS, jitter=0):
        self.n = n
        self.random = random.Random(seed)
        self.leader = leader
        self.rtt = rtt
        self.jitter = jitter
        self.now = 1
        self.steps = 0
        self.check_every = 1
        self.faults = 0.0
        self.loss = 0.0
        self.duplication = 0.0
        self.cuts = set()
        self.lose = None
        self.repeat = None
        self.hold = None
        self.held = []
        self.flying = []
        self.order = 0
        self.chosen = {}
        self.where = {}
        self.proposed = set()
        self.returned = {}
        self.members = [Member(self, me, kind) for me in range(n)]

    # Time.

    def start(self):
        for member in self.members:
            member.start()
        return self

    def elect(self):
        """Start, and run until somebody leads and everybody knows."""
        self.start()
        self.run_until(self.settled, 20 * SECOND)
        return self

    def settled(self):
        leaders = self.leaders()
        alive = [m for m in self.members if m.alive]
        return len(leaders) == 1 and all(m.replica.leader == leaders[0] for m in alive)

    def leaders(self):
        return [member.me for member in self.members if member.leads]

    def leading(self):
        return next((m for m in self.members if m.leads), None)

    def step(self, until):
        """Deliver the next message or wake a replica, whatever comes first; False: none is due."""
        at = self.flying[0][0] if self.flying else None
        who = None
        for member in self.members:
            if not member.alive:
                continue
            due = member.replica.deadline()
            if len(member.disk) > member.durable:
                due = min(x for x in (due, member.synced_at + SYNC_DELAY) if x is not None)
            if due is not None and (at is None or due < at):
                at, who = due, member
        if at is None or at > until:
            self.now = max(self.now, until)
            return False
        self.now = max(self.now, at)
        if who is not None:
            who.wake()
        else:
            self.deliver(heapq.heappop(self.flying))
        self.steps += 1
        if self.steps % self.check_every == 0:
            invariants.check_cluster([m.replica for m in self.members if m.alive])
        return True

    def deliver(self, item):
        _, _, source, target, body = item
        member = self.members[target]
        if member.alive and (source, target) not in self.cuts:
            member.receive(source, body)

    def run(self, duration):
        until = self.now + duration
        while self.step(until):
            pass

    def run_until(self, condition, limit=10 * SECOND):
        until = self.now + limit
        while not condition():
            assert self.step(until), f"not reached within {limit} us: {self.story()}"

    def story(self):
        return [
            (m.me, m.replica.leader, type(m.replica.stage).__name__, m.replica.log.chosen)
            if m.alive
            else (m.me, "dead")
            for m in self.members
        ]

    # Links.

    def send(self, source, target, message):
        if self.lose is not None and self.lose(source, target, message):
            return
        copies = 1
        if self.repeat is not None and self.repeat(source, target, message):
            copies = 2
        if self.random.random() < self.duplication:
            copies += 1
        for _ in range(copies):
            if self.random.random() < self.loss:
                continue
            self.order += 1
            at = self.now + self.rtt // 2
            if self.jitter:
                at += self.random.randrange(self.jitter)
            item = (at, self.order, source, target, encode(message))
            if self.hold is not None and self.hold(source, target, message):
                self.held.append(item)
            else:
                heapq.heappush(self.flying, item)

    def release(self):
        """Let what was held back arrive now, in its order."""
        self.hold = None
        for item in self.held:
            heapq.heappush(self.flying, (self.now, *item[1:]))
        self.held = []

    def cut(self, *sides):
        """Cut all links between the given groups."""
        for a in sides:
            for b in sides:
                if a is not b:
                    self.cuts.update((x, y) for x in a for y in b)

    def isolate(self, *who):
        self.cut(who, [q for q in range(self.n) if q not in who])

    def heal(self):
        self.cuts.clear()
        self.lose = None

    # Faults.

    def crash_now(self, member):
        if self.faults and self.random.random() < self.faults:
            unsynced = len(member.disk) - member.durable
            member.crash(self.random.randint(0, unsynced))
            return True
        return False

    def crash(self, me, tail=0):
        self.members[me].crash(tail)

    def restart(self, me):
        self.members[me].start()

    def campaign(self, me):
        """Start phase 1 there, as if a probe had been welcome."""
        member = self.members[me]
        if not member.leads:
            member.replica._campaign(self.now, None)
            member.take()

    def propose(self, me):
        """The payload proposed, or None if it was definitely refused."""
        try:
            return self.members[me].propose()[0]
        except Definite:
            return None

    # Observers over all lives.

    def observe_chosen(self, me, decided: Decided):
        value = decided.payload and decided.payload.encoded
        assert value is None or value in self.proposed, "only proposed batches are chosen"
        known, who = self.chosen.setdefault(decided.slot, (value, me))
        assert known == value, f"agreement: slot {decided.slot} at {who} and {me}"
        if value is not None:
            first = self.where.setdefault(value, decided.slot)
            assert first == decided.slot, f"exactly once: in slots {first} and {decided.slot}"

    def observe_history(self, member):
        slots = [decided.slot for decided in member.history]
        assert slots == list(range(1, len(slots) + 1)), "executed in order of slots"

    def is_executed(self, payload, everywhere=True):
        name = (payload.batch.origin, payload.batch.number)
        found = [name in m.names() for m in self.members if m.alive]
        return all(found) if everywhere else any(found)

    def count(self, name):
        return sum(m.replica.statistics()[name] for m in self.members if m.alive)


def random_schedule(seed, kind=MultiPaxosReplica, steps=60, n=None):
    """A random life of a cluster with every fault, then peace: everything must execute."""
    choose = random.Random(seed)
    n = n or choose.choice((2, 3, 3, 3, 4, 5, 5, 7))
    leader = choose.choice((None, choose.randrange(n)))
    world = World(n, seed, leader, kind, jitter=choose.choice((0, 0, 5 * MS, 80 * MS)))
    world.check_every = 8
    world.loss = choose.choice((0, 0, 0.02, 0.2))
    world.duplication = choose.choice((0, 0.1, 0.4))
    world.start()
    world.run(choose.randrange(4 * SECOND))
    world.faults = choose.choice((0, 0.002, 0.01))
    for _ in range(steps):
        act = choose.random()
        dead = [m.me for m in world.members if not m.alive]
        alive = [m.me for m in world.members if m.alive]
        if act < 0.6 and alive:
            for _ in range(choose.choice((1, 1, 1, 5, 40))):
                if world.members[me := choose.choice(alive)].alive:
                    world.propose(me)
        elif act < 0.66 and alive:
            victim = world.members[choose.choice(alive)]
            world.crash(victim.me, choose.randint(0, len(victim.disk) - victim.durable))
        elif act < 0.78 and dead:
            world.restart(choose.choice(dead))
        elif act < 0.84:
            world.cuts = {
                (a, b)
                for a in range(n)
                for b in range(n)
                if a != b and choose.random() < choose.choice((0.1, 0.5))
            }
        elif act < 0.87:
            world.isolate(choose.randrange(n))
        elif act < 0.91 and alive:
            world.campaign(choose.choice(alive))
        elif act < 0.96:
            world.heal()
        elif (leading := world.leading()) is not None:
            with contextlib.suppress(Definite):
                leading.replica.transfer(choose.randrange(n), world.now)
                leading.take()
        world.run(choose.choice((1, 10 * MS, 50 * MS, 300 * MS, 3 * SECOND)))
    heal_and_finish(world)
    return world


def heal_and_finish(world):
    """Peace: every member lives, every link works; what is new executes everywhere."""
    world.faults = world.loss = world.duplication = 0
    world.heal()
    for member in world.members:
        if not member.alive:
            world.restart(member.me)
    world.run_until(world.settled, 60 * SECOND)
    last = [world.propose(me) for me in range(world.n)]
    assert all(last), "a settled cluster proposes"
    world.run_until(lambda: all(map(world.is_executed, last)), 30 * SECOND)
    world.run(5 * SECOND)
    histories = [member.names() for member in world.members]
    assert all(history == histories[0] for history in histories)
    floors = {member.replica.floor for member in world.members}
    assert floors == {(len(histories[0]),)}, f"everything is forgotten in the end: {floors}"
