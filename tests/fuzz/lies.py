"""Well-formed messages of a peer that lies: every field at or around its extremes, in any order,
between true ones. A node takes them or ignores them by name; it raises nothing, and what it holds
stays within what the messages themselves carried."""

import random
from collections.abc import Callable, Sequence
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from epaxos.codec import Codec, encode
from epaxos.core.command import Batch, Operation, Payload, encode_cas
from epaxos.core.errors import CodecError
from epaxos.core.replica import EVERYONE, Setup
from epaxos.core.types import make_ballot
from epaxos.node.node import Node
from epaxos.node.requests import Limits, Request
from epaxos.registry import find_protocol

N = 3
NUMBERS = (0, 1, 2, 3, 4, 7, 16, 17, 33, 48, 255, 1 << 16, 1 << 20, (1 << 20) + 1, 1 << 31)
HUGE = ((1 << 32) - 1, 1 << 32, 1 << 40, (1 << 62) - 1, (1 << 63) - 1, -1, -(1 << 63))
_BALLOTS = (0, *(make_ballot(number, member) for number in (1, 2) for member in range(N)))
_SENSIBLE: dict[str, Callable[[random.Random], int]] = {
    "replica": lambda rng: rng.randrange(N),
    **dict.fromkeys(("ballot", "promised", "voted"), lambda rng: rng.choice(_BALLOTS)),
    **dict.fromkeys(("slot", "first", "last"), lambda rng: rng.randint(1, 4)),
}
"""What fields of these names hold in most messages."""
MESSAGES_MOST = 40
HELD_MOST = 20_000
"""Entries of all tables: a message, and a sweep of a column, names at most 512 slots."""


def _payload(rng: random.Random) -> Payload:
    count = rng.choice((1, 1, 2, 5))
    operations = bytes(rng.choice((0, 1, 2)) for _ in range(count))
    keys = [b"k%d" % rng.randrange(3) for _ in range(count)]
    arguments = [b"" if each == Operation.GET else b"v" for each in operations]
    if rng.random() < 0.1:
        operations, arguments = bytes([Operation.CAS]) * count, [encode_cas(True, b"n")] * count
    number = rng.choice((rng.randrange(5), (1 << 40) + rng.randrange(1, 9)))
    return Payload.of(Batch(rng.randrange(N), number, operations, keys, arguments))


def _number(rng: random.Random, wild: bool) -> int:
    roll = rng.random()
    if roll < 0.7 or not wild:
        return rng.randrange(6)
    return rng.choice(NUMBERS) if roll < 0.95 else rng.choice(HUGE)


def _value(kind: Any, rng: random.Random, wild: bool) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _value(rng.choice(inner), rng, wild)
    if kind is type(None):
        return None
    if kind is bool:
        return rng.random() < 0.5
    if kind is int:
        return _number(rng, wild)
    if kind is Payload:
        return _payload(rng)
    if kind is bytes:
        return rng.randbytes(rng.randrange(9))
    if kind is str:
        return rng.choice(("", "a", "\0", "x" * 300))
    if origin is tuple and inner[-1:] == (...,):
        size = rng.choice((0, 1, 2, 4, 9)) if wild and rng.random() < 0.1 else N
        return tuple(_value(inner[0], rng, wild) for _ in range(size))
    if origin is tuple:
        return tuple(_value(each, rng, wild) for each in inner)
    if origin is list:
        return [_value(inner[0], rng, wild) for _ in range(rng.choice((0, 1, 1, 2, 3, 8)))]
    return _made(kind, rng, wild)


@cache
def _fields(kind: type) -> tuple[tuple[str, Any], ...]:
    return tuple(get_type_hints(kind).items())


def _made(kind: type, rng: random.Random, wild: bool) -> Any:
    if issubclass(kind, int):
        return kind(rng.choice(list(kind)))  # type: ignore[call-overload]
    made = {name: _value(hint, rng, wild) for name, hint in _fields(kind)}
    if not wild:
        for name in made.keys() & _SENSIBLE.keys():
            made[name] = _SENSIBLE[name](rng)
    return kind(**made)


def lie(messages: Sequence[type], rng: random.Random) -> Any:
    """A message of one of these kinds: most with small numbers, as they are right after a start,
    some with whatever their fields may hold."""
    return _made(rng.choice(messages), rng, wild=rng.random() < 0.2)


def liar(protocol: str) -> Callable[[bytes], None]:
    """A function of any bytes, which are the seed of what is done to one node."""
    spec = find_protocol(protocol)
    codec = Codec(spec)

    def run(data: bytes) -> None:
        rng = random.Random(data)
        setup = Setup(0, N, (0, 1000, 2000), random.Random(1), 0)
        node = Node(spec, setup, 1, Limits())
        now = 0
        node.wake(now)
        node.take(now)
        told: list[Any] = []
        for _ in range(rng.randrange(1, MESSAGES_MOST)):
            now += rng.choice((0, 10, 1000, 50_000, 2_000_000))
            roll = rng.random()
            if roll < 0.2:
                operations = bytes([Operation.PUT])
                node.request([Request("w", operations, [b"k1"], [b"v"], now + 5_000_000)], now)
            elif roll < 0.35 and told:
                node.receive(rng.randrange(1, N), rng.choice(told), now)
            else:
                message = lie(spec.messages, rng)
                try:
                    body = encode(message)
                    message = codec.decode_message(memoryview(body))
                except (CodecError, OverflowError):
                    continue
                node.receive(rng.randrange(1, N), message, now)
            deadline = node.deadline()
            if deadline is not None and deadline <= now:
                node.wake(now)
            ready = node.take(now)
            for target, message in ready.messages:
                codec.decode_message(memoryview(encode(message)))
                if target in (EVERYONE, 1, 2):
                    told.append(message)
            for record in ready.log:
                codec.decode_record(memoryview(encode(record)))
        held = node.held()
        tables = held.until_executed | held.until_forgotten
        entries = sum(count for name, count in tables.items() if "bytes" not in name)
        assert entries <= HELD_MOST, tables

    return run
