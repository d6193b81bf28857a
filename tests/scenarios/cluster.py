"""A hand-driven cluster of nodes: nothing is delivered unless the test says so.

Every message and record passes through the codec. A log keeps what was synced; a crash loses the
rest. What leaves a node is remembered: decisions, executions and answers, each at its release.
"""

import random
from dataclasses import replace

from epaxos.codec import Codec, encode
from epaxos.core.command import Operation, interferes
from epaxos.core.replica import EVERYONE, Setup
from epaxos.core.types import InstanceId, parse_instance
from epaxos.exchange import Limits, Refusal, Reply, Request
from epaxos.node import Node
from epaxos.protocols.epaxos.messages import Progress
from epaxos.protocols.epaxos.replica import EPaxosReplica
from epaxos.registry import find_protocol
from epaxos.sim.world import Watched

RTT_US = 40_000


class Broken(Exception):
    """A sentence of the protocol does not hold."""


class Cluster:
    """Replicas A, B, C, ...; `flight` holds every message that was sent and not yet delivered."""

    def __init__(self, n, replica=EPaxosReplica, node=Node, executor=None):
        self.n = n
        self.now = 0
        self.spec = replace(find_protocol("epaxos"), replica=replica)
        if executor is not None:
            self.spec = replace(self.spec, executor=executor)
        self.codec = Codec(self.spec)
        self._node = node
        self.logs = [[] for _ in range(n)]
        self.tails = [[] for _ in range(n)]
        self.flight = []
        self.decided = [{} for _ in range(n)]
        self.decisions = []
        self.executed = [[] for _ in range(n)]
        self.replies = [[] for _ in range(n)]
        self.boots = [0] * n
        self.nodes = [None] * n
        self.watched = [None] * n
        for member in range(n):
            self.start(member)
        self.flight.clear()

    # Processes

    def start(self, member):
        self.boots[member] += 1

        def executor(n):
            self.watched[member] = Watched(self.spec.executor(n))
            return self.watched[member]

        rtts = tuple(0 if other == member else RTT_US for other in range(self.n))
        setup = Setup(member, self.n, rtts, random.Random(member))
        spec = replace(self.spec, executor=executor)
        node = self._node(spec, setup, self.boots[member], Limits(gate=False))
        for body in self.logs[member]:
            node.restore(self.codec.decode_record(body))
        self.nodes[member] = node
        self.executed[member] = []
        node.wake(self.now)
        self.flush(member)

    def crash(self, *names):
        """Lose what was not synced."""
        for name in names:
            member = number(name)
            self.nodes[member] = None
            self.tails[member] = []

    def restart(self, name):
        self.start(number(name))

    def replica(self, name):
        return self.nodes[number(name)].replica

    # Steps

    def put(self, name, *keys, value=b"v"):
        """A client of `name` writes these keys in one batch; returns the instance."""
        return self.request(name, [(Operation.PUT, key.encode(), value) for key in keys])

    def request(self, name, commands):
        member = number(name)
        node = self.nodes[member]
        waiter = len(self.replies[member]) + 1000 * self.boots[member] + self.now
        slot = node.replica._next_slot
        node.request(
            [
                Request(
                    waiter,
                    bytes(code for code, _, _ in commands),
                    [key for _, key, _ in commands],
                    [value for _, _, value in commands],
                    self.now + 60_000_000,
                )
            ],
            self.now,
        )
        self.flush(member)
        return InstanceId(member, slot)

    def recover(self, name, instance):
        """`name` takes an instance over."""
        node = self.nodes[number(name)]
        node.replica.start_recover([as_id(instance)], self.now)
        self.flush(number(name))

    def wait(self, name, micros):
        """Time passes, and `name` looks at its deadlines."""
        self.now += micros
        self.nodes[number(name)].wake(self.now)
        self.flush(number(name))

    def flush(self, member):
        node = self.nodes[member]
        ready = node.take(self.now)
        self.tails[member] += [encode(record) for record in ready.log]
        if ready.must_sync:
            self.logs[member] += self.tails[member]
            self.tails[member] = []
        for target, message in ready.messages:
            if not isinstance(message, Progress):
                targets = range(self.n) if target == EVERYONE else [target]
                self.flight += [(member, t, encode(message)) for t in targets if t != member]
        watched = self.watched[member]
        for each in watched.decided:
            self.decided[member][each.replica, each.slot] = (each.payload, each.deps)
            self.decisions.append(((each.replica, each.slot), each.payload, each.deps))
        self.executed[member] += [
            (each.replica, each.slot) for each in watched.done if each.payload is not None
        ]
        watched.decided.clear()
        watched.done.clear()
        self.replies[member] += [r for r in ready.replies if isinstance(r, Reply | Refusal)]

    # Network

    def matches(self, item, way, kind, instance):
        source, target, body = item
        message = self.codec.decode_message(body)
        if kind is not None and type(message).__name__ not in kind.split("|"):
            return False
        if instance is not None:
            wanted = as_id(instance)
            slots = getattr(message, "slots", None) or [
                v.slot for v in getattr(message, "votes", [])
            ]
            slot = getattr(message, "slot", None)
            if message.replica != wanted.replica or wanted.slot not in (slot, *slots):
                return False
        if way is not None:
            here, there = way.split(">")
            if (here and number(here) != source) or (there and number(there) != target):
                return False
        return True

    def deliver(self, way=None, kind=None, instance=None, keep=False):
        """Deliver the first matching message, for example "A>B"; it must exist."""
        for item in self.flight:
            if self.matches(item, way, kind, instance):
                if not keep:
                    self.flight.remove(item)
                self.hand_over(*item)
                return
        shown = [
            f"{chr(65 + s)}>{chr(65 + t)} {self.codec.decode_message(b)}" for s, t, b in self.flight
        ]
        raise LookupError(f"no {kind} {way} {instance} in flight: {shown}")

    def hand_over(self, source, target, body):
        node = self.nodes[target]
        if node is not None:
            node.receive(source, self.codec.decode_message(body), self.now)
            self.flush(target)

    def drop(self, way=None, kind=None, instance=None):
        """Lose all matching messages."""
        self.flight = [i for i in self.flight if not self.matches(i, way, kind, instance)]

    def drop_all(self):
        self.flight = []

    def deliver_all(self, among=None):
        """Deliver everything in the order of sending, until nothing moves."""
        for _ in range(10_000):
            if not self.flight:
                return
            source, target, body = self.flight.pop(0)
            if among is None or (name(source) in among and name(target) in among):
                self.hand_over(source, target, body)
        raise AssertionError("messages never end")

    # What holds

    def value(self, who, instance):
        """(keys, deps) that `who` decided: keys is None for Nop; None if nothing is decided."""
        found = self.decided[number(who)].get(tuple(as_id(instance)))
        if found is None:
            return None
        payload, deps = found
        keys = None if payload is None else sorted({k.decode() for k in payload.batch.keys})
        return keys, deps

    def check(self):
        """Agreement, visibility, and one order of execution per pair of interfering instances."""
        values = {}
        for key, payload, deps in self.decisions:
            if values.setdefault(key, (payload, deps)) != (payload, deps):
                raise Broken(f"agreement: {InstanceId(*key)}")
        items = [(k, p, d) for k, (p, d) in values.items() if p is not None]
        for position, (key, payload, deps) in enumerate(items):
            for key2, payload2, deps2 in items[:position]:
                if not interferes(payload.footprint, payload2.footprint):
                    continue
                if key2[1] > deps[key2[0]] and key[1] > deps2[key[0]]:
                    raise Broken(f"visibility: {InstanceId(*key)} {InstanceId(*key2)}")
                orders = {
                    order.index(key) < order.index(key2)
                    for order in self.executed
                    if key in order and key2 in order
                }
                if len(orders) > 1:
                    raise Broken(f"order: {InstanceId(*key)} {InstanceId(*key2)}")


def number(letter):
    return ord(letter) - ord("A")


def name(member):
    return chr(ord("A") + member)


def as_id(instance):
    return parse_instance(instance) if isinstance(instance, str) else InstanceId(*instance)
