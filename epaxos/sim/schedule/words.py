"""Steps, messages and records in words, and the story of a run: one line per event.

    12.345 ms  A ──▶ BCDE   PreAccept A.1 ...

Rules of this file: recognises things by the names of fields, which mean the same in every protocol;
no protocol logic.
"""

from collections.abc import Sequence
from typing import Any

from epaxos.core.command import Among, Operation, Payload, decode_cas, format_version
from epaxos.core.replica import EVERYONE, Decided, Message, Record
from epaxos.core.types import InstanceId, Micros, ReplicaId, ballot_name, replica_name
from epaxos.sim.schedule.schedule import HEARTBEATS, Crash, label_of

LINES = 120
"""How many lines the story of a failure shows: the last ones."""


class Story:
    """Collects lines; costs nothing when it is off."""

    def __init__(self, on: bool) -> None:
        self.on = on
        self.lines: list[str] = []

    def add(self, now: Micros, text: str) -> None:
        if self.on:
            self.lines.append(f"{now / 1000:12.3f} ms  {text}")

    def sent(self, now: Micros, source: ReplicaId, target: ReplicaId, message: Message) -> None:
        if self.on and type(message).__name__ not in HEARTBEATS:
            to = "all" if target == EVERYONE else replica_name(target)
            self.add(now, f"{replica_name(source)} ──▶ {to:3}  {show(message)}")

    def arrived(self, now: Micros, source: ReplicaId, target: ReplicaId, message: Message) -> None:
        if self.on and type(message).__name__ not in HEARTBEATS:
            self.add(now, f"{replica_name(target)} ◀── {replica_name(source):3}  {show(message)}")

    def text(self, lines: int = LINES) -> str:
        """The end of the story."""
        left_out = len(self.lines) - lines
        head = [f"... {left_out} earlier lines ..."] if left_out > 0 else []
        return "\n".join(head + self.lines[-lines:])


def show(thing: Message | Record) -> str:
    """A message or record in a few words: kind, id, and its other fields."""
    words = [type(thing).__name__]
    fields = {name: getattr(thing, name) for name in thing.__struct_fields__}
    if "replica" in fields and "slot" in fields:
        words.append(str(InstanceId(fields.pop("replica"), fields.pop("slot"))))
    for name, value in fields.items():
        words.append(f"{name}={_show_value(value)}")
    return " ".join(words)


def _show_value(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, Payload):
        batch = value.batch
        keys = ",".join(key.decode("utf-8", "backslashreplace") for key in batch.keys[:3])
        return f"[{replica_name(batch.origin)}#{batch.number & 0xFFFFFFFF} {keys}]"
    if isinstance(value, tuple) and all(isinstance(each, int) for each in value):
        return ".".join(map(str, value))
    return str(value)


def say(thing: Message | Record, brief: bool = False) -> str:
    """A message or record for people: what `label_of` says, and its other fields unless brief."""
    label = label_of(thing)
    if brief:
        return label
    words = [label]
    for name in thing.__struct_fields__:
        if name not in _SAID_BY_LABEL:
            words += _say_field(name, getattr(thing, name))
    return " ".join(words)


_SAID_BY_LABEL = ("replica", "slot", "slots", "ballot", "promised", "echo", "stamp", "held")


def say_record(record: Record) -> str:
    """A record in a few words: whose vote or promise, and its deps."""
    deps = getattr(record, "deps", ())
    nop = " (Nop)" if getattr(record, "payload", deps) is None else ""
    return label_of(record) + nop + (f" deps {say_deps(deps)}" if deps else "")


def _say_field(name: str, value: object) -> list[str]:
    if name == "payload":
        return [say_payload(value if isinstance(value, Payload) else None)]
    if name in ("deps", "initial_deps"):
        words = "deps" if name == "deps" else "initial deps"
        return [f"{words} {say_deps(value)}" if isinstance(value, tuple) else f"{words} unknown"]
    if name == "votes" and isinstance(value, list):
        alone = len(value) == 1
        return [f"[{'; '.join(_say_vote(vote, alone) for vote in value)}]"]
    if name == "payloads" and isinstance(value, list):
        return [f"[{'; '.join(map(say_payload, value))}]"]
    if name == "objections" and isinstance(value, list):
        found = [
            f"{InstanceId(each.replica, each.slot)}{' (decided)' if each.committed else ''}"
            for each in value
        ]
        return [f"objecting: {', '.join(found)}" if found else "no objection"]
    if isinstance(value, tuple):
        return [f"{name} {say_deps(value)}"]
    return [f"{name} {value}"]


def _say_vote(vote: Any, alone: bool) -> str:
    """One vote of a RecoverOk or of a Promise; alone it needs no slot."""
    slot = "" if alone else f"{vote.slot}: "
    if not hasattr(vote, "phase"):
        return f"{slot}{ballot_name(vote.ballot)} {say_payload(vote.payload)}"
    words = [slot + _PHASES[vote.phase]]
    if vote.phase:
        words.append(f"{ballot_name(vote.voted)} {say_payload(vote.payload)}")
        words.append(f"deps {say_deps(vote.deps)}")
    if vote.initial_deps is not None:
        words.append(f"initial deps {say_deps(vote.initial_deps)}")
    return " ".join(words)


_PHASES = ("no vote", "pre-accepted", "accepted", "decided")


def say_payload(payload: Payload | None) -> str:
    """Its commands in parentheses, or `(Nop)`."""
    if payload is None:
        return "(Nop)"
    batch = payload.batch
    return f"({say_commands(batch.operations, batch.keys, batch.arguments)})"


def say_commands(
    operations: bytes, keys: Sequence[bytes], arguments: Sequence[bytes], most: int = 3
) -> str:
    """`put x 1, get y`; of many the first ones."""
    words = [
        _say_command(code, _text(key), argument)
        for code, key, argument in zip(operations[:most], keys, arguments)
    ]
    left = len(operations) - most
    return ", ".join(words) + (f" and {left} more" if left > 0 else "")


def _say_command(code: int, key: str, argument: bytes) -> str:
    if code == Operation.GET:
        return f"get {key}"
    if code == Operation.DELETE:
        return f"delete {key}"
    if code == Operation.PUT:
        return f"put {key} {_text(argument)}"
    operands = decode_cas(argument)
    expect = operands.expect
    if isinstance(expect, bool):
        said = "a value" if expect else "nothing"
    elif isinstance(expect, Among):
        versions = ", ".join(map(format_version, expect.versions))
        said = f"{'none' if expect.excluded else 'one'} of ({versions})"
    else:
        said = _text(expect) if isinstance(expect, bytes) else format_version(expect)
    value = "nothing" if operands.value is None else _text(operands.value)
    return f"cas {key} from {said} to {value}"


def say_decided(decided: Decided) -> str:
    """Instance, path, commands and deps of a decision."""
    deps = f" deps {say_deps(decided.deps)}" if decided.deps else ""
    how, what = _PATHS[decided.path], say_payload(decided.payload)
    return f"decides {name_of(decided)} {how} {what}{deps}"


def name_of(decided: Decided) -> str:
    """Its instance or, where there are no columns, its slot."""
    return str(InstanceId(decided.replica, decided.slot) if decided.deps else decided.slot)


_PATHS = ("on the fast path", "on the slow path", "by recovery", "as told", "as leader")


def say_crash(crash: Crash) -> str:
    """The point of the step at which it happens, and what of the disk survives."""
    if not crash.appended:
        return "crashes before this is on its disk"
    kept = f"; {crash.kept} unsynced records survive" if crash.kept else ""
    if crash.sent is None:
        return f"crashes{kept}"
    return f"crashes after {crash.sent} of its messages have left{kept}"


def say_deps(deps: tuple[int, ...]) -> str:
    """`01020`; with dots where a number has two digits."""
    dot = "." if any(each > 9 for each in deps) else ""
    return dot.join(map(str, deps))


def _text(value: bytes) -> str:
    text = value.decode("utf-8", "backslashreplace")
    return text if len(text) <= _VALUE_MAX else text[: _VALUE_MAX - 1] + "…"


_VALUE_MAX = 16
