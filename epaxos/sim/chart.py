"""What happened in a run, as a text that a person can follow: one line per event.

12.345 ms  A ──▶ BCDE   PreAccept A.1 ...
"""

from epaxos.core.command import Payload
from epaxos.core.replica import EVERYONE, Message, Record
from epaxos.core.types import InstanceId, Micros, ReplicaId, replica_name

LINES = 120
"""How many lines the story of a failure shows: the last ones."""


class Story:
    """Collects lines; costs nothing when it is off."""

    def __init__(self, on: bool) -> None:
        self.on = on
        self.lines: list[str] = []

    def add(self, now: Micros, text: str) -> None:
        """One event."""
        if self.on:
            self.lines.append(f"{now / 1000:12.3f} ms  {text}")

    def sent(self, now: Micros, source: ReplicaId, target: ReplicaId, message: Message) -> None:
        """A message left."""
        if self.on and type(message).__name__ != "Progress":
            to = "all" if target == EVERYONE else replica_name(target)
            self.add(now, f"{replica_name(source)} ──▶ {to:3}  {show(message)}")

    def arrived(self, now: Micros, source: ReplicaId, target: ReplicaId, message: Message) -> None:
        """A message was delivered."""
        if self.on and type(message).__name__ != "Progress":
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
