"""Multi-Paxos inside whole nodes: clients at every member are answered from the slots."""

import heapq
import random

from epaxos.codec import Codec, encode
from epaxos.core.command import Operation
from epaxos.core.errors import Ambiguous
from epaxos.core.replica import EVERYONE, Setup
from epaxos.node.node import AskTransfer, Limits, Node, QuestionReply, Refusal, Reply, Request
from epaxos.registry import find_protocol

PROTOCOL = find_protocol("multipaxos")
CODEC = Codec(PROTOCOL)
SECOND = 1_000_000
RTT = 40_000


class Nodes:
    """Nodes, links of one delay, disks that lose what was not synced."""

    def __init__(self, n, seed=1):
        self.n = n
        self.random = random.Random(seed)
        self.now = 1
        self.nodes = [None] * n
        self.disks = [[] for _ in range(n)]
        self.durable = [0] * n
        self.boots = [0] * n
        self.flying = []
        self.order = 0
        self.answers = {}
        for me in range(n):
            self.start(me)

    def start(self, me):
        self.boots[me] += 1
        rtt = tuple(RTT if q != me else 0 for q in range(self.n))
        chance = random.Random(self.random.random())
        node = Node(PROTOCOL, Setup(me, self.n, rtt, chance, 0), self.boots[me], Limits())
        for body in self.disks[me]:
            node.restore(CODEC.decode_record(body))
        self.nodes[me] = node
        node.wake(self.now)
        self.take(me)

    def crash(self, me):
        self.nodes[me] = None
        del self.disks[me][self.durable[me] :]

    def take(self, me):
        ready = self.nodes[me].take(self.now)
        self.disks[me] += map(encode, ready.log)
        if ready.must_sync:
            self.durable[me] = len(self.disks[me])
        for target, message in ready.messages:
            for member in range(self.n):
                if member == target or (target == EVERYONE and member != me):
                    self.order += 1
                    item = (self.now + RTT // 2, self.order, me, member, encode(message))
                    heapq.heappush(self.flying, item)
        for reply in ready.replies:
            self.answers.setdefault(reply.waiter, []).append(reply)

    def run(self, duration):
        until = self.now + duration
        while True:
            at = self.flying[0][0] if self.flying else until + 1
            who = None
            for me, node in enumerate(self.nodes):
                due = None if node is None else node.deadline()
                if due is not None and due < at:
                    at, who = due, me
            if at > until:
                self.now = until
                return
            self.now = max(self.now, at)
            if who is not None:
                self.nodes[who].wake(self.now)
                self.take(who)
                continue
            _, _, source, target, body = heapq.heappop(self.flying)
            if self.nodes[target] is not None:
                self.nodes[target].receive(source, CODEC.decode_message(body), self.now)
                self.take(target)

    def put(self, me, waiter, *keys, patience=5 * SECOND, code=Operation.PUT):
        codes = bytes([code]) * len(keys)
        arguments = [b"" if code == Operation.GET else b"v"] * len(keys)
        request = Request(waiter, codes, list(keys), arguments, self.now + patience)
        self.nodes[me].request([request], self.now)
        self.take(me)

    def alike(self):
        return len({node.store.digest() for node in self.nodes if node is not None}) == 1


def test_clients_at_every_member_are_answered_in_time():
    world = Nodes(3)
    world.run(SECOND)
    for me in range(3):
        world.put(me, ("client", me), b"x", b"y%d" % me)
    world.run(2 * RTT)
    assert all(type(world.answers["client", me][0]) is Reply for me in range(3))
    world.run(SECOND)
    assert world.alike()
    assert len(world.nodes[0].store) == 4


def test_one_node_alone_answers_in_its_first_take():
    world = Nodes(1)
    world.put(0, "client", b"x")
    assert type(world.answers["client"][0]) is Reply


def test_without_a_leader_the_answer_is_definite():
    world = Nodes(3)
    world.put(1, "client", b"x")
    assert world.answers["client"][0].code == "not-proposed"


def test_a_forward_whose_leader_dies_is_ambiguous_and_others_go_on():
    world = Nodes(3)
    world.run(SECOND)
    world.put(1, "lost", b"x", patience=SECOND)
    world.crash(0)
    world.run(4 * SECOND)
    (refusal,) = world.answers["lost"]
    assert type(refusal) is Refusal
    assert isinstance(refusal.error, Ambiguous)
    for me in (1, 2):
        world.put(me, ("later", me), b"y%d" % me)
    world.run(SECOND)
    assert all(type(world.answers["later", me][0]) is Reply for me in (1, 2))
    world.start(0)
    world.run(SECOND)
    assert world.alike()


def test_a_forward_is_answered_soon_after_its_leader_has_a_successor():
    """A patient client does not wait out its patience: what the dead leader had proposed is decided
    by its successor, the rest never."""
    world = Nodes(3)
    world.run(SECOND)
    world.put(1, "lost", b"x", patience=60 * SECOND)
    world.crash(0)
    world.run(8 * SECOND)
    assert world.nodes[1].replica.leader is not None
    (refusal,) = world.answers["lost"]
    assert isinstance(refusal.error, Ambiguous)


def test_a_forward_that_the_successor_decides_is_answered():
    world = Nodes(3)
    world.run(SECOND)
    world.put(1, "kept", b"x", patience=60 * SECOND)
    world.run(RTT * 3 // 4)  # the leader's Accept is on its way
    world.crash(0)
    world.run(8 * SECOND)
    (reply,) = world.answers["kept"]
    assert type(reply) is Reply


def test_every_answered_write_survives_crashes_of_minorities():
    for seed in range(10):
        world = Nodes(5, seed)
        world.run(SECOND)
        chance = random.Random(seed)
        for number in range(150):
            alive = [me for me in range(5) if world.nodes[me] is not None]
            dead = [me for me in range(5) if world.nodes[me] is None]
            world.put(chance.choice(alive), number, b"k%d" % number, patience=2 * SECOND)
            if len(dead) < 2 and chance.random() < 0.1:
                world.crash(chance.choice(alive))
            elif dead and chance.random() < 0.1:
                world.start(dead[0])
            world.run(chance.choice((1000, 30_000, 300_000)))
        for me in range(5):
            if world.nodes[me] is None:
                world.start(me)
        world.run(10 * SECOND)
        assert world.alike()
        answered = [n for n, replies in world.answers.items() if type(replies[0]) is Reply]
        assert len(answered) > 30
        assert all(len(replies) == 1 for replies in world.answers.values())
        for number in answered:
            world.put(1, ("read", number), b"k%d" % number, code=Operation.GET)
        world.run(SECOND)
        for number in answered:
            assert world.answers["read", number][0].results.values == [b"v"]


def test_leadership_moves_when_a_node_is_asked():
    world = Nodes(3)
    world.run(SECOND)
    world.nodes[0].ask("move", AskTransfer(2), world.now)
    world.take(0)
    told = world.answers["move"][0]
    assert type(told) is QuestionReply
    assert told.error is None
    world.run(SECOND)
    assert [node.replica.leader for node in world.nodes] == [2, 2, 2]
