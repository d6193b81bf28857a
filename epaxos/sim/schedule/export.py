"""A schedule written out: as a test that anybody can read and run, and as JSON that plays again.

The test tells the story on a stage that is lenient: where the code does something else than the
failing code did, messages that are not sent are not delivered, and every observer still looks on.

Rules of this file: what is written imports public names only, and `from_json(to_json(s)) == s`.
"""

import textwrap
from typing import Any

import orjson

from epaxos.core.command import Operation
from epaxos.core.errors import ConfigError
from epaxos.core.types import parse_instance, replica_name
from epaxos.sim.check import checkers
from epaxos.sim.schedule.chart import show_schedule
from epaxos.sim.schedule.schedule import (
    HEARTBEATS,
    Arrival,
    Commands,
    Crash,
    Event,
    HandOver,
    Input,
    Schedule,
    Start,
    Step,
    TakeOver,
)
from epaxos.sim.schedule.simplify import PATIENCE_US, first_starts, has_plain_starts, plain_rtts

# A test ------------------------------------------------------------------------------------------


def to_pytest(
    schedule: Schedule,
    violated: str,
    detail: str,
    *,
    planted: str | None = None,
    chart: str | None = None,
) -> str:
    """The text of a test file. The real code must pass it; if it is what failed, it will when it is
    repaired.

    `planted` names the replica with a bug that the schedule was cut down with, `module:Class`: a
    second test shows that it is caught. `chart` is how it failed; without one the real code is
    played."""
    name = _name_of(violated)
    chart = show_schedule(schedule, only=violated) if chart is None else chart
    story = _StageCalls(schedule)
    body = [
        "def story(world):",
        *[f"    {line}" for line in story.lines()],
        "    world.check()",
        *("", ""),
        f"def test_{name.lower()}():",
        f"    world = {story.stage(None, 'lenient=True')}",
        "    story(world)",
    ]
    if planted is not None:
        module, _, broken = planted.partition(":")
        story.use(module, broken)
        story.use("epaxos.sim.check.checkers", name, "Violation")
        body += [
            *("", ""),
            f"def test_{name.lower()}_is_caught():",
            f"    world = {story.stage(broken, f'only={name}')}",
            f"    with pytest.raises(Violation, match=re.escape({name})):",
            "        story(world)",
        ]
    constants = story.constants()
    space = [""] if constants else ["", ""]
    lines = [_heading(violated, detail, chart), "", *story.imports(), *space, *constants, *body]
    return "\n".join(lines) + "\n"


def _name_of(violated: str) -> str:
    """The constant of `epaxos.sim.check.checkers` that says so."""
    for name, value in vars(checkers).items():
        if value == violated and name.isupper():
            return name
    raise ConfigError(f"no checker says {violated!r}")


def _heading(violated: str, detail: str, chart: str) -> str:
    text = textwrap.fill(f"Violated by the code that this was found in: {violated}.", 96)
    told = textwrap.fill(detail, 96)
    quote = 'r"""' if "\\" in f"{told}{chart}" else '"""'
    return f'{quote}{text}\n\n{told}\n\n{chart}\n"""'.replace("\n\n\n", "\n\n")


class _StageCalls:
    """The calls on a stage that perform a schedule."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._plain = has_plain_starts(schedule) and schedule._replace(events=()) == _plain_head(
            schedule
        )
        self._now = 0
        self._used: dict[str, set[str]] = {}
        self._delivered: set[tuple[int, Arrival]] = set()
        self._broken: str | None = None

    def use(self, module: str, *names: str) -> None:
        """The text needs these."""
        self._used.setdefault(module, set()).update(names)

    def imports(self) -> list[str]:
        """The lines that import what the text needs."""
        lines = [
            f"from {module} import {', '.join(sorted(names))}"
            for module, names in sorted(self._used.items())
            if module != "dataclasses"
        ]
        if "epaxos.sim.check.checkers" in self._used:
            lines = ["import re", "", "import pytest", "", *lines]
        if "dataclasses" in self._used:
            lines.insert(1, "from dataclasses import replace")
        return lines

    def stage(self, broken: str | None, arguments: str) -> str:
        """The expression that makes the stage, with a broken replica or the real one."""
        schedule = self._schedule
        if not self._plain:
            self.use("epaxos.sim.schedule.stage", "Stage")
            if broken is None:
                return f"Stage(HEAD, {arguments})"
            self.use("dataclasses", "replace")
            self.use("epaxos.registry", "find_protocol")
            self._broken = broken
            return f"Stage(HEAD, SPEC, {arguments})"
        self.use("epaxos.sim.schedule.stage", "directed")
        words = [str(schedule.replicas)]
        if schedule.protocol != "epaxos":
            words.append(f'"{schedule.protocol}"')
        if broken is not None:
            words.append(f"replica={broken}")
        words.append(arguments)
        if schedule.leader:
            words.append(f"leader={schedule.leader}")
        if schedule.gate:
            words.append("gate=True")
        if schedule.memory:
            words.append("memory=True")
        return f"directed({', '.join(words)})"

    def constants(self) -> list[str]:
        """What stands above the story."""
        if self._plain:
            return []
        head = self._schedule._replace(events=())
        plain = _plain_head(head)
        self.use("epaxos.sim.schedule.stage", "head_of")
        words = [str(head.replicas), f'"{head.protocol}"']
        words += [f"leader={head.leader}"] if head.leader else []
        words += [f"{name}=True" for name in ("gate", "memory") if getattr(head, name)]
        lines = [f"HEAD = head_of({', '.join(words)})"]
        for name, value in head._asdict().items():
            if value != getattr(plain, name):
                lines += _replacing(name, value)
        if self._broken is not None:
            lines.append(f"SPEC = replace(find_protocol(HEAD.protocol), replica={self._broken})")
        return [*lines, "", ""]

    def lines(self) -> list[str]:
        events = self._schedule.events
        skipped = len(first_starts(self._schedule.replicas)) if self._plain else 0
        lines: list[str] = []
        place = skipped
        while place < len(events):
            event = events[place]
            following = events[place + 1] if place + 1 < len(events) else None
            if isinstance(event, Start):
                place += _is_first_step(event, following)
                lines += self._start(event, following)
            elif isinstance(event, Crash):
                kept = f", kept={event.kept}" if event.kept else ""
                lines += [*self._at(event.at), f'world.crash("{_letter(event)}"{kept})']
            else:
                lines += self._step(event)
            place += 1
        return lines

    def _at(self, at: int) -> list[str]:
        if at == self._now:
            return []
        self._now = at
        return [f"world.now = {at:_}"]

    def _start(self, event: Start, following: Event | None) -> list[str]:
        lines = self._at(event.at)
        if _is_first_step(event, following):
            seed = "" if event.seed == event.member else f", seed={event.seed}"
            return [*lines, f'world.start("{_letter(event)}"{seed})']
        self.use("epaxos.sim.schedule.schedule", "Start")
        return [*lines, f"world.perform({event!r})"]

    def _step(self, event: Step) -> list[str]:
        me = _letter(event)
        if not event.inputs and event.wake and event.at > self._now and self._is_bare(event):
            micros, self._now = event.at - self._now, event.at
            return [f'world.wait("{me}", {micros:_})']
        lines = self._at(event.at)
        one = event.inputs[0] if len(event.inputs) == 1 and self._is_bare(event) else None
        if isinstance(one, Arrival):
            words = [f'"{replica_name(one.source)}>{me}"', f'"{one.label}"']
            again = (event.member, one) in self._delivered
            if again or one.nth or one.label.startswith(HEARTBEATS):
                words.append(f"nth={one.nth}")
            if event.wake:
                words.append("wake=True")
            self._delivered.add((event.member, one))
            return [*lines, f"world.deliver({', '.join(words)})"]
        if isinstance(one, TakeOver) and not event.wake:
            names = ", ".join(f'"{each}"' for each in one.instances)
            return [*lines, f'world.recover("{me}", {names})']
        if isinstance(one, HandOver) and not event.wake:
            return [*lines, f'world.hand_over("{me}", "{replica_name(one.target)}")']
        if isinstance(one, Commands) and not event.wake:
            return [*lines, self._request(me, one)]
        return [*lines, *self._any_step(event)]

    def _is_bare(self, event: Step) -> bool:
        return event.crash is None and event.released_at is None

    def _request(self, me: str, given: Commands) -> str:
        patience = "" if given.patience_us == PATIENCE_US else f", patience_us={given.patience_us}"
        codes, keys, arguments = given.operations, given.keys, given.arguments
        if codes == bytes([Operation.PUT]) and keys[0].isalnum():
            key = keys[0].decode("ascii")
            return f'world.put("{me}", "{key}", value={_bytes(arguments[0])}{patience})'
        if set(codes) == {Operation.GET} and all(key.isalnum() for key in keys) and not patience:
            names = ", ".join(f'"{key.decode("ascii")}"' for key in keys)
            return f'world.get("{me}", {names})'
        return f'world.request("{me}", {self._columns(given)}{patience})'

    def _columns(self, given: Commands) -> str:
        self.use("epaxos.core.command", "Operation")
        return _listed(
            f"(Operation.{Operation(code).name}, {_bytes(key)}, {_bytes(argument)})"
            for code, key, argument in zip(given.operations, given.keys, given.arguments)
        )

    def _any_step(self, event: Step) -> list[str]:
        lines = [f'world.step(\n    "{_letter(event)}",']
        lines += [f"    {self._input(event, each)}," for each in event.inputs]
        if event.wake:
            lines.append("    wake=True,")
        if event.released_at is not None:
            lines.append(f"    released_at={event.released_at:_},")
        if event.crash is not None:
            self.use("epaxos.sim.schedule.schedule", "Crash")
            lines.append(f"    crash={event.crash!r},")
        return [line for text in (*lines, ")") for line in text.split("\n")]

    def _input(self, event: Step, given: Input) -> str:
        if isinstance(given, Arrival):
            self._delivered.add((event.member, given))
            nth = f", {given.nth}" if given.nth else ""
            way = f"{replica_name(given.source)}>{_letter(event)}"
            return f'world.arrival("{way}", "{given.label}"{nth})'
        if isinstance(given, Commands):
            return f"world.commands({self._columns(given)}, {given.patience_us})"
        if isinstance(given, TakeOver):
            self.use("epaxos.core.types", "InstanceId")
            self.use("epaxos.sim.schedule.schedule", "TakeOver")
            return repr(given)
        self.use("epaxos.sim.schedule.schedule", "HandOver")
        return repr(given)


def _plain_head(schedule: Schedule) -> Schedule:
    """What `directed` makes of the switches it has."""
    return Schedule(
        schedule.protocol,
        schedule.replicas,
        plain_rtts(schedule.replicas),
        schedule.leader,
        schedule.gate,
        schedule.memory,
        (),
    )


def _is_first_step(event: Start, following: Event | None) -> bool:
    return following == Step(event.member, event.at)


def _letter(event: Event) -> str:
    return replica_name(event.member)


def _replacing(name: str, value: Any) -> list[str]:
    """One field of HEAD, on one line if it fits."""
    line = f"HEAD = HEAD._replace({name}={value!r})".replace("'", '"')
    if len(line) <= LINE_MAX:
        return [line]
    rows = [f"        {row!r},".replace("'", '"') for row in value]
    return ["HEAD = HEAD._replace(", f"    {name}=(", *rows, "    ),", ")"]


LINE_MAX = 100
"""Columns of a line, where that can be kept."""


def _bytes(value: bytes) -> str:
    """A literal, in the quotes that the project uses."""
    text = repr(value)
    return f'b"{text[2:-1]}"' if text.startswith("b'") and '"' not in text else text


def _listed(words: Any) -> str:
    return f"[{', '.join(words)}]"


# JSON --------------------------------------------------------------------------------------------


def to_json(schedule: Schedule) -> bytes:
    """A document from which `from_json` makes the same schedule. Bytes are written as the
    characters U+0000 to U+00FF."""
    document = {
        "format": FORMAT,
        "protocol": schedule.protocol,
        "replicas": schedule.replicas,
        "rtt_us": schedule.rtt_us,
        "leader": replica_name(schedule.leader),
        "gate": schedule.gate,
        "memory": schedule.memory,
        "limits": dict(schedule.limits),
        "tunables": dict(schedule.tunables),
        "calm_at": schedule.calm_at,
        "events": [_write_event(event) for event in schedule.events],
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


FORMAT = "epaxos schedule 1"
"""What a document says of itself."""


def from_json(document: bytes) -> Schedule:
    """The schedule in a document. Raises ConfigError that says what is wrong with it."""
    try:
        read = orjson.loads(document)
        if not isinstance(read, dict) or read.get("format") != FORMAT:
            raise ConfigError(f"not a schedule: it does not begin with format {FORMAT!r}")
        schedule = Schedule(
            read["protocol"],
            read["replicas"],
            tuple(tuple(row) for row in read["rtt_us"]),
            _member(read["leader"]),
            read["gate"],
            read["memory"],
            tuple(map(_read_event, read["events"])),
            tuple(read["limits"].items()),
            tuple(read["tunables"].items()),
            tuple(read["calm_at"]),
        )
    except KeyError as error:
        raise ConfigError(f"a schedule without {error}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"a schedule that cannot be read: {error}") from None
    if any(not 0 <= event.member < schedule.replicas for event in schedule.events):
        raise ConfigError(f"a schedule in which more than {schedule.replicas} replicas take steps")
    return schedule


def _write_event(event: Event) -> dict[str, Any]:
    if isinstance(event, Start):
        return {"start": _letter(event), "at": event.at, "seed": event.seed}
    if isinstance(event, Crash):
        return {"crash": _letter(event), "at": event.at, **_write_crash(event)}
    written: dict[str, Any] = {
        "step": _letter(event),
        "at": event.at,
        "inputs": [_write_input(each) for each in event.inputs],
        "wake": event.wake,
    }
    if event.released_at is not None:
        written["released_at"] = event.released_at
    if event.crash is not None:
        written["then_crash"] = {"at": event.crash.at, **_write_crash(event.crash)}
    return written


def _write_crash(crash: Crash) -> dict[str, Any]:
    return {"appended": crash.appended, "kept": crash.kept, "sent": crash.sent}


def _write_input(given: Input) -> dict[str, Any]:
    if isinstance(given, Arrival):
        return {"from": replica_name(given.source), "message": given.label, "nth": given.nth}
    if isinstance(given, TakeOver):
        return {"take_over": list(map(str, given.instances))}
    if isinstance(given, HandOver):
        return {"hand_over_to": replica_name(given.target)}
    return {
        "request": given.number,
        "commands": [
            [Operation(code).name, key.decode("latin-1"), argument.decode("latin-1")]
            for code, key, argument in zip(given.operations, given.keys, given.arguments)
        ],
        "patience_us": given.patience_us,
    }


def _read_event(read: dict[str, Any]) -> Event:
    if "start" in read:
        return Start(_member(read["start"]), read["at"], read["seed"])
    if "crash" in read:
        return _read_crash(_member(read["crash"]), read)
    member = _member(read["step"])
    crash = read.get("then_crash")
    return Step(
        member,
        read["at"],
        tuple(map(_read_input, read["inputs"])),
        read["wake"],
        read.get("released_at"),
        None if crash is None else _read_crash(member, crash),
    )


def _read_crash(member: int, read: dict[str, Any]) -> Crash:
    return Crash(member, read["at"], read["appended"], read["kept"], read["sent"])


def _read_input(read: dict[str, Any]) -> Input:
    if "from" in read:
        return Arrival(_member(read["from"]), read["message"], read["nth"])
    if "take_over" in read:
        return TakeOver(tuple(map(parse_instance, read["take_over"])))
    if "hand_over_to" in read:
        return HandOver(_member(read["hand_over_to"]))
    commands = read["commands"]
    return Commands(
        read["request"],
        bytes(Operation[name] for name, _, _ in commands),
        tuple(key.encode("latin-1") for _, key, _ in commands),
        tuple(argument.encode("latin-1") for _, _, argument in commands),
        read["patience_us"],
    )


def _member(name: str) -> int:
    """A replica by its letter. Raises ValueError."""
    if len(name) != 1 or not "A" <= name <= "P":
        raise ValueError(f"{name!r} is not a replica; write A, B, C, ...")
    return ord(name) - ord("A")
