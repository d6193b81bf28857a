"""What happened, as a text that a person can follow.

Of a run of the world, one line per event:

    12.345 ms  A ──▶ BCDE   PreAccept A.1 ...

Of a schedule, a message sequence chart:

         A         B         C
      1  ●         │         │         a client: put x 1
      2  ├────────▶│         │         PreAccept A.1 (put x 1) deps 000

Rules of this file: recognises things by the names of fields, which mean the same in every protocol;
no protocol logic.
"""

import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from epaxos.core.command import Operation, Payload, decode_cas, format_version
from epaxos.core.replica import EVERYONE, Decided, Executed, Message, Record
from epaxos.core.types import InstanceId, Micros, ReplicaId, ballot_name, replica_name
from epaxos.sim.schedule.schedule import Crash, label_of

if TYPE_CHECKING:
    # The player draws its own chart; the world, on which it stands, tells its story with this file.
    from epaxos.sim.check.checkers import Violation
    from epaxos.sim.schedule.player import Happening, Player

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


# The sequence chart ------------------------------------------------------------------------------

WIDTH = 100
"""Columns of a sequence chart, at most."""

_LEGEND = "Time goes down.  ● a step  ├─▶ a delivery  ◆ decided, executed, answered  ✖ a crash"


def draw(player: "Player", violation: "Violation | None" = None) -> str:
    """What was played as a message sequence chart: a column per replica, an event per number, and
    what it led to below it; at the end the sentence that does not hold."""
    return "\n".join(_Chart(player).lines(violation))


class _Chart:
    def __init__(self, player: "Player") -> None:
        self._player = player
        self._n = player.n
        self._step = {1: 10, 2: 10, 3: 10, 4: 9, 5: 8, 6: 7, 7: 6}.get(self._n, 5)
        self._margin = 5
        self._text_at = self._margin + self._step * self._n
        self._alive = [False] * self._n
        self._found: list[str] = []
        self._heard = {
            (happening.other, happening.thing.label, happening.thing.nth)
            for happening in player.happenings
            if happening.kind == "arrives"
        }
        self._arrived: set[tuple[int, int, str, int]] = set()

    def lines(self, violation: "Violation | None") -> list[str]:
        player = self._player
        names = "".join(replica_name(me).ljust(self._step) for me in range(self._n))
        head = player.head
        title = f"{player.spec.title}, {self._n} replicas"
        if head.memory:
            title += ", nothing on disk"
        self._found = [title, _LEGEND, "", (" " * self._margin + names).rstrip()]
        for number, group in groupby(player.happenings, key=lambda each: each.number):
            self._event(number, list(group))
        if violation is not None:
            self._found.append("")
            lead = "violated: "
            for line in _wrap(f"{violation.sentence}:", WIDTH - len(lead)):
                self._found.append(lead + line.strip())
                lead = " " * len(lead)
            self._found += [
                lead + line for line in _wrap(self._detail(violation.detail), WIDTH - len(lead))
            ]
        return self._found

    def _detail(self, detail: str) -> str:
        """A violation's detail with the commands of payloads in the place of their numbers."""
        for happening in self._player.happenings:
            if happening.kind == "decides" and happening.thing.payload is not None:
                payload = happening.thing.payload
                detail = detail.replace(repr(payload), _say_payload(payload)[1:-1])
        return detail

    def _event(self, number: int, group: "list[Happening]") -> None:
        label = f"{number:>3}" if number else ""
        for happening in group:
            if happening.kind == "starts":
                self._alive[happening.member] = True
        if not number:
            return
        first = True
        for mark, happening, text in self._told(group):
            self._line(label if first else "", mark, happening, text)
            first = False
            if happening.kind == "crashes":
                self._alive[happening.member] = False

    def _told(self, group: "list[Happening]") -> "Iterator[tuple[str, Happening, str]]":
        """The lines of one event: how it began, then what it led to, like things together."""
        told = False
        for kind, same in groupby(group, key=lambda each: each.kind):
            those = list(same)
            if kind in _ALONE:
                lines = [(each, self._one(each)) for each in those]
            else:
                lines = [(those[0], self._many(kind, those, group))]
            for happening, text in lines:
                if text:
                    told = True
                    yield _MARKS.get(kind, "●"), happening, text
        if not told:
            yield "●", group[0], "takes a step without input"

    def _one(self, happening: "Happening") -> str:
        """One line for one thing."""
        kind, thing = happening.kind, happening.thing
        if kind == "arrives":
            return self._arrives(happening)
        if kind == "decides":
            return _say_decided(thing)
        if kind == "answers":
            return self._player.history.show(thing)
        if kind == "crashes":
            return _say_crash(thing)
        return self._begins(happening)

    def _many(self, kind: str, those: "list[Happening]", group: "list[Happening]") -> str:
        """One line for like things; empty if there is nothing worth telling."""
        if kind == "record":
            texts = [_say_record(e.thing) for e in those if not isinstance(e.thing, Executed)]
            synced = self._player.head.memory or any(each.kind == "synced" for each in group)
            return f"logs {', '.join(texts)}{'' if synced else ', unsynced'}" if texts else ""
        if kind == "executes":
            return f"executes {', '.join(_name_of(each.thing) for each in those)}"
        if kind == "sends":
            unheard = [say(each.thing, brief=True) for each in those if self._unheard(each)]
            return f"nobody hears its {', '.join(dict.fromkeys(unheard))}" if unheard else ""
        return ""

    def _begins(self, happening: "Happening") -> str:
        thing = happening.thing
        if happening.kind == "starts":
            return "starts again from what its disk kept" if thing > 1 else ""
        if happening.kind == "request":
            return f"a client: {say_commands(thing.operations, thing.keys, thing.arguments)}"
        if happening.kind == "takes over":
            return f"takes over {', '.join(map(str, thing.instances))}"
        if happening.kind == "hands over":
            return f"is asked to hand leadership to {replica_name(thing.target)}"
        return f"time passes: {thing / 1000:.0f} ms on its clock"

    def _arrives(self, happening: "Happening") -> str:
        sent = happening.thing
        key = (sent.source, sent.target, sent.label, sent.nth)
        note = " (again)" if key in self._arrived else ""
        self._arrived.add(key)
        return say(sent.message) + note

    def _unheard(self, happening: "Happening") -> bool:
        name = type(happening.thing).__name__
        label = label_of(happening.thing)
        return name not in _SMALL_TALK and not any(
            source == happening.member and heard == label for source, heard, _ in self._heard
        )

    def _line(self, label: str, mark: str, happening: "Happening", text: str) -> None:
        step, margin = self._step, self._margin
        row = [" "] * (step * self._n)
        for me in range(self._n):
            row[me * step] = "│" if self._alive[me] else " "
        here = happening.member * step
        if happening.kind == "arrives":
            there = happening.other * step
            low, high = min(here, there), max(here, there)
            for place in range(low + 1, high):
                row[place] = "┼" if row[place] == "│" else "─"
            row[there] = "├" if there < here else "┤"
            if not self._alive[happening.other]:
                row[there] = "╌"
            row[here - 1 if there < here else here + 1] = "▶" if there < here else "◀"
        else:
            row[here] = mark
        bare = "".join("│" if alive else " " for alive in self._alive)
        lines = _wrap(text, WIDTH - self._text_at)
        self._found.append((label.ljust(margin) + "".join(row) + lines[0]).rstrip())
        for line in lines[1:]:
            rest = "".join(each.ljust(step) for each in bare)
            self._found.append((" " * margin + rest + line).rstrip())


_ALONE = (
    *("starts", "request", "arrives", "wakes", "takes over", "hands over"),
    *("decides", "answers", "crashes"),
)
"""Kinds of happenings that have a line each."""

_MARKS = {
    "arrives": "",
    "record": "│",
    "sends": "│",
    "decides": "◆",
    "executes": "◆",
    "answers": "◆",
    "crashes": "✖",
}

_SMALL_TALK = ("Progress", "CommitReq", "InProgress", "CommitIndex", "Fetch", "Probe", "ProbeOk")
"""Messages whose loss is not worth a line."""


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


_SAID_BY_LABEL = ("replica", "slot", "slots", "ballot", "promised", "echo", "stamp")


def _say_record(record: Record) -> str:
    """A record in a few words: whose vote or promise, and its deps."""
    deps = getattr(record, "deps", ())
    nop = " (Nop)" if getattr(record, "payload", deps) is None else ""
    return label_of(record) + nop + (f" deps {say_deps(deps)}" if deps else "")


def _say_field(name: str, value: object) -> list[str]:
    if name == "payload":
        return [_say_payload(value if isinstance(value, Payload) else None)]
    if name in ("deps", "initial_deps"):
        words = "deps" if name == "deps" else "initial deps"
        return [f"{words} {say_deps(value)}" if isinstance(value, tuple) else f"{words} unknown"]
    if name == "votes" and isinstance(value, list):
        alone = len(value) == 1
        return [f"[{'; '.join(_say_vote(vote, alone) for vote in value)}]"]
    if name == "payloads" and isinstance(value, list):
        return [f"[{'; '.join(map(_say_payload, value))}]"]
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
        return f"{slot}{ballot_name(vote.ballot)} {_say_payload(vote.payload)}"
    words = [slot + _PHASES[vote.phase]]
    if vote.phase:
        words.append(f"{ballot_name(vote.voted)} {_say_payload(vote.payload)}")
        words.append(f"deps {say_deps(vote.deps)}")
    if vote.initial_deps is not None:
        words.append(f"initial deps {say_deps(vote.initial_deps)}")
    return " ".join(words)


_PHASES = ("no vote", "pre-accepted", "accepted", "decided")


def _say_payload(payload: Payload | None) -> str:
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
    else:
        said = _text(expect) if isinstance(expect, bytes) else format_version(expect)
    value = "nothing" if operands.value is None else _text(operands.value)
    return f"cas {key} from {said} to {value}"


def _say_decided(decided: Decided) -> str:
    deps = f" deps {say_deps(decided.deps)}" if decided.deps else ""
    how, what = _PATHS[decided.path], _say_payload(decided.payload)
    return f"decides {_name_of(decided)} {how} {what}{deps}"


def _name_of(decided: Decided) -> str:
    """Its instance or, where there are no columns, its slot."""
    return str(InstanceId(decided.replica, decided.slot) if decided.deps else decided.slot)


_PATHS = ("on the fast path", "on the slow path", "by recovery", "as told", "as leader")


def _say_crash(crash: Crash) -> str:
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


def _wrap(text: str, width: int) -> list[str]:
    found = textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False)
    return found or [""]
