"""Clients of the simulated cluster, and the history of what they saw.

Each client sits beside one replica and sends short requests at random times, without waiting for
the answer of the one before. What it asks for is drawn here, or by a workload (`epaxos.workload`):
keys and operations are then the workload's. Each new command that writes has an argument of its
own, whatever a workload's values are (that of a DELETE means nothing). A client whose replica
crashes does not know the fate of what it sent. Some try again what failed, at another replica:
without a session that is a new command, in some runs with the argument that it had before. Some are
gone before the answer.

Rules of this file: a definite failure is left out of the history, an unknown outcome stays in it
without an end.
"""

import random
from collections.abc import Iterator
from itertools import groupby

from epaxos.core.command import (
    BATCH_ENVELOPE_BYTES,
    NO_VERSION,
    Among,
    Expectation,
    Operation,
    Version,
    commands_bytes,
    decode_cas,
    encode_cas,
)
from epaxos.core.errors import Definite
from epaxos.core.types import Micros, ReplicaId, replica_name
from epaxos.node.requests import Refusal, Reply, Request
from epaxos.sim.check.calls import Call, check_fates, histories
from epaxos.sim.check.checkers import Place
from epaxos.sim.check.linearizability import Op
from epaxos.sim.world import World
from epaxos.workload import Command, parse_workload

Commands = list[tuple[Operation, bytes, bytes]]
"""Operation, key and argument of each."""


class Clients:
    """All clients of a world."""

    def __init__(self, world: World, keys: int, patience_us: Micros) -> None:
        self._world = world
        text, members = world.options.workload, range(world.options.replicas)
        self._drawn: list[Iterator[Command]] = []
        """With a workload: the commands of the client beside each replica."""
        if text:
            regions = [replica_name(member) for member in members]
            workload = parse_workload(text, world.options.seed, regions)
            now = iter(lambda: world.now, None)
            self._drawn = [workload.commands(region, starts=now) for region in regions]
        self._payload_bytes = dict(world.options.limits).get("payload_bytes")
        """Where it is small, values are of all sizes around what fits."""
        self._conditions = random.Random(f"expectations {world.options.seed}")
        """Drawn from only where clients use conditions: other runs are what they were."""
        self._sizes = random.Random(f"values {world.options.seed}")
        self._asked: dict[bytes, None] = {}
        """With a workload: the keys that were asked for so far, in that order."""
        self._keys = [b"k%d" % number for number in range(keys)]
        self._patience_us = patience_us
        self._number = 0
        self._waiting: dict[int, list[Call]] = {}
        self._retries: dict[int, random.Random] = {}
        """Requests that are tried again if they fail."""
        self.calls: list[Call] = []
        self.latencies: list[Micros] = []
        """Of answered commands, in the order of their answers."""
        self.definite = 0
        """Commands refused as definitely not done."""
        self.ambiguous = 0
        """Commands of unknown outcome that were answered so."""
        self.retried = 0
        self.vanished = 0
        world.on_reply = self._on_reply
        world.on_crash = self._on_crash

    def plan(self, commands: int, active_us: Micros, rng: random.Random) -> None:
        """Spread so many commands over the time in which things fail."""
        left = commands
        while left > 0:
            size = min(left, rng.choice((1, 1, 1, 2, 4)))
            left -= size
            when = rng.randrange(active_us)
            member = rng.randrange(self._world.options.replicas)
            seed = rng.getrandbits(32)
            self._world.at(when, self.send, member, size, random.Random(seed))

    def send(self, member: ReplicaId, size: int, rng: random.Random) -> None:
        """One request of a few random commands."""
        faults = self._world.options.faults
        calls = self.submit(member, [self._command(member, rng) for _ in range(size)])
        if not calls:
            return
        if rng.random() < faults.vanishing:
            self.vanished += 1
            self._forget(self._number)
        elif rng.random() < faults.retries:
            self._retries[self._number] = rng

    def probe(self, member: ReplicaId) -> list[Call]:
        """Write and read every key through a replica."""
        commands: Commands = []
        for key in self._asked or self._keys:
            commands += [(Operation.PUT, key, self._token()), (Operation.GET, key, b"")]
        return self.submit(member, commands, self._world.options.settle_us // 4)

    def submit(
        self, member: ReplicaId, commands: Commands, patience_us: Micros | None = None
    ) -> list[Call]:
        """Send these commands in one request; returns their calls. Without a patience of its own
        the client has that of all."""
        patience = self._patience_us if patience_us is None else patience_us
        now = self._world.now
        self._number += 1
        calls = [Call(member, code, key, argument, now) for code, key, argument in commands]
        request = Request(
            self._number,
            bytes(code for code, _, _ in commands),
            [key for _, key, _ in commands],
            [argument for _, _, argument in commands],
            now + patience,
        )
        if not self._world.request(member, request):
            return []
        self.calls += calls
        self._waiting[self._number] = calls
        return calls

    def _forget(self, number: int) -> None:
        """Nobody waits for this request any more; its outcome stays unknown."""
        for call in self._waiting.pop(number):
            call.settled = True

    def _try_again(self, number: int, calls: list[Call]) -> None:
        """What failed, once more, through another replica."""
        rng = self._retries.pop(number, None)
        if rng is None:
            return
        failed = [call for call in calls if call.returned is None]
        world = self._world
        if not failed or world.now >= world.options.active_us:
            return
        self.retried += len(failed)
        member = rng.randrange(world.options.replicas)
        again = [self._again(call) for call in failed]
        world.at(world.now + rng.randint(0, 100_000), self.submit, member, again)

    def _again(self, call: Call) -> tuple[Operation, bytes, bytes]:
        """The same command, as it was or under an argument of its own."""
        operation = Operation(call.operation)
        if self._world.options.same_argument:
            return operation, call.key, call.argument
        return operation, call.key, self._own(operation, call.argument)

    def _own(self, operation: Operation, argument: bytes) -> bytes:
        """An argument that no other command has, in the place of this one."""
        if operation == Operation.GET:
            return argument
        if operation == Operation.CAS:
            cas = decode_cas(argument)
            if cas.value is None:
                return encode_cas(self._condition(b"", True), None)
            return encode_cas(cas.expect, self._token())
        return self._token()

    def unsettled(self) -> int:
        """How many commands wait for an answer."""
        return sum(not call.settled for calls in self._waiting.values() for call in calls)

    def check_fates(self) -> None:
        """What clients were told certainly did not happen, did not; nothing happened more often
        than it was asked for."""
        check_fates(self.calls, self._world.executions)

    def histories(self) -> dict[bytes, list[tuple[Call, Op]]]:
        """What was seen, per key."""
        return histories(self.calls)

    def _token(self) -> bytes:
        self._number += 1
        return b"v%d" % self._number

    def _command(self, member: ReplicaId, rng: random.Random) -> tuple[Operation, bytes, bytes]:
        drawn = self._plain_command(member, rng)
        return self._on_condition(*drawn) if self._world.options.conditions else drawn

    def _on_condition(
        self, operation: Operation, key: bytes, argument: bytes
    ) -> tuple[Operation, bytes, bytes]:
        """The same, or a write that takes effect on a condition instead."""
        rng = self._conditions
        if operation == Operation.GET or rng.random() < 0.5:
            return operation, key, argument
        value: bytes | None = argument
        if operation == Operation.CAS:
            value = decode_cas(argument).value
        if operation == Operation.DELETE or rng.random() < 0.2:
            value = None
        return Operation.CAS, key, encode_cas(self._condition(key, value is None), value)

    def _condition(self, key: bytes, removes: bool) -> Expectation:
        """Most often something about versions that answers carried lately."""
        rng = self._conditions
        seen = [
            call.version
            for call in self.calls[-60:]
            if call.key == key and call.returned is not None and call.version != NO_VERSION
        ]
        others: tuple[Version, ...] = ((0, 1, 0), (1, 1, 0), (0, 2, 1))
        version = seen[-1] if seen and rng.random() < 0.8 else rng.choice((*seen, *others))
        roll = rng.random()
        if removes:
            # The argument has no value that would be its own: a version that nobody made is.
            self._number += 1
            mark = (len(self._world.processes), self._number, 0)
            return Among((mark, version, *seen[-2:]), rng.random() < 0.3)
        if roll < 0.4:
            return version
        if roll < 0.6:
            return Among((version, *rng.sample(others, 2), *seen[-3:-1]))
        if roll < 0.75:
            return Among((version, *rng.sample(others, 1)), excluded=True)
        return roll < 0.85

    def _plain_command(
        self, member: ReplicaId, rng: random.Random
    ) -> tuple[Operation, bytes, bytes]:
        if self._drawn:
            command = next(self._drawn[member])
            self._asked[command.key] = None
            return command.operation, command.key, self._own(command.operation, command.argument)
        hot = self._world.options.hot
        key = self._keys[0] if hot and rng.random() < hot else rng.choice(self._keys)
        roll = rng.random()
        reads = self._world.options.reads
        if roll < reads:
            return Operation.GET, key, b""
        if roll < 1 - 0.3 * (1 - reads):
            return Operation.PUT, key, self._value(key)
        if roll < 1 - 0.22 * (1 - reads):
            return Operation.DELETE, key, self._token()
        return Operation.CAS, key, encode_cas(self._expected(key, rng), self._value(key))

    def _value(self, key: bytes) -> bytes:
        """A token, made longer where payloads have a small bound: it may fill a batch just so, or
        be too large for any, or for every frame."""
        token = self._token()
        if self._payload_bytes is None:
            return token
        fits = self._payload_bytes - BATCH_ENVELOPE_BYTES - commands_bytes((key,), (b"",))
        share = self._sizes.choice((0, 0, fits // 3, fits // 2, fits - 10, fits))
        return token.ljust(share + self._sizes.choice((0, 0, 0, 1, fits)), b".")

    def _expected(self, key: bytes, rng: random.Random) -> bool | bytes:
        """What a compare-and-set hopes to meet: something written lately, or nothing."""
        written = [
            call
            for call in self.calls[-20:]
            if call.key == key and call.operation in (Operation.PUT, Operation.CAS)
        ]
        if not written or rng.random() < 0.3:
            return False
        call = rng.choice(written)
        if call.operation == Operation.PUT:
            return call.argument
        return decode_cas(call.argument).value or False

    def _on_reply(self, reply: Reply | Refusal) -> None:
        world = self._world
        calls = self._waiting.get(int(str(reply.waiter)))
        if calls is None:
            return
        count = reply.results.count if isinstance(reply, Reply) else reply.count
        for index in range(count):
            call = calls[reply.offset + index]
            assert not call.settled, "one answer per command"
            if isinstance(reply, Reply):
                call.answered(reply, index, world.now)
                self.latencies.append(world.now - call.called)
                world.mark("answer", call.key, call.argument, call.result)
            else:
                call.settled = True
                call.failed = isinstance(reply.error, Definite)
                self.definite += call.failed
                self.ambiguous += not call.failed
        if all(call.settled for call in calls):
            number = int(str(reply.waiter))
            del self._waiting[number]
            self._try_again(number, calls)

    def _on_crash(self, member: ReplicaId) -> None:
        for number, calls in list(self._waiting.items()):
            if calls[0].replica == member:
                self._forget(number)
                self._try_again(number, calls)


def in_order(history: list[tuple[Call, Op]], places: dict[Place, int]) -> list[Op] | None:
    """The operations of a key in the order in which a replica executed them; `places` has it.

    None if one of them has no place in it."""
    found: list[tuple[int, Op]] = []
    for call, op in history:
        position = None if call.place is None else places.get(call.place)
        if position is None:
            return None
        found.append((position, op))
    found.sort(key=lambda each: each[0])
    return _reads_by_call([op for _, op in found])


def _reads_by_call(order: list[Op]) -> list[Op]:
    """The same order with neighbouring reads by the time of their call: reads commute, so replicas
    execute them in any order."""
    found: list[Op] = []
    for is_read, group in groupby(order, key=lambda op: op.kind == "get"):
        run = list(group)
        found += sorted(run, key=lambda op: op.called) if is_read else run
    return found
