"""A schedule as a message sequence chart, time going down.

         A         B         C
      1  ●         │         │         a client: put x 1
      2  ├────────▶│         │         PreAccept A.1 (put x 1) deps 000

Rules of this file: what stands beside the columns is worded by `epaxos.sim.schedule.words`.
"""

import textwrap
from collections.abc import Iterator
from itertools import groupby

from epaxos.core.replica import Executed
from epaxos.core.types import replica_name
from epaxos.node.node import Node
from epaxos.registry import ProtocolSpec
from epaxos.sim.check.checkers import Violation
from epaxos.sim.schedule.player import Happening, Player
from epaxos.sim.schedule.schedule import HEARTBEATS, Schedule, label_of
from epaxos.sim.schedule.words import (
    name_of,
    say,
    say_commands,
    say_crash,
    say_decided,
    say_payload,
    say_record,
)

WIDTH = 100
"""Columns of a sequence chart, at most."""

_LEGEND = "Time goes down.  ● a step  ├─▶ a delivery  ◆ decided, executed, answered  ✖ a crash"


def draw(player: Player, violation: Violation | None = None) -> str:
    """What was played as a message sequence chart: a column per replica, an event per number, and
    what it led to below it; at the end the property that is violated."""
    return "\n".join(_Chart(player).lines(violation))


def show_schedule(
    schedule: Schedule,
    spec: ProtocolSpec | None = None,
    node: type[Node] = Node,
    only: str | None = None,
) -> str:
    """The chart of a schedule, with the property that it violates, if it does."""
    player = Player(schedule, spec, node, only=only)
    try:
        player.play(schedule.events)
    except Violation as violation:
        return draw(player, violation)
    return draw(player)


class _Chart:
    def __init__(self, player: Player) -> None:
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

    def lines(self, violation: Violation | None) -> list[str]:
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
            for line in _wrap(f"{violation.property}:", WIDTH - len(lead)):
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
                detail = detail.replace(repr(payload), say_payload(payload)[1:-1])
        return detail

    def _event(self, number: int, group: list[Happening]) -> None:
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

    def _told(self, group: list[Happening]) -> Iterator[tuple[str, Happening, str]]:
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

    def _one(self, happening: Happening) -> str:
        kind, thing = happening.kind, happening.thing
        if kind == "arrives":
            return self._arrives(happening)
        if kind == "decides":
            return say_decided(thing)
        if kind == "answers":
            return self._player.history.show(thing)
        if kind == "crashes":
            return say_crash(thing)
        return self._begins(happening)

    def _many(self, kind: str, those: list[Happening], group: list[Happening]) -> str:
        """One line for like things; empty if there is nothing worth telling."""
        if kind == "record":
            texts = [say_record(e.thing) for e in those if not isinstance(e.thing, Executed)]
            synced = self._player.head.memory or any(each.kind == "synced" for each in group)
            return f"logs {', '.join(texts)}{'' if synced else ', unsynced'}" if texts else ""
        if kind == "executes":
            return f"executes {', '.join(name_of(each.thing) for each in those)}"
        if kind == "sends":
            unheard = [say(each.thing, brief=True) for each in those if self._unheard(each)]
            return f"nobody hears its {', '.join(dict.fromkeys(unheard))}" if unheard else ""
        return ""

    def _begins(self, happening: Happening) -> str:
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

    def _arrives(self, happening: Happening) -> str:
        sent = happening.thing
        key = (sent.source, sent.target, sent.label, sent.nth)
        note = " (again)" if key in self._arrived else ""
        self._arrived.add(key)
        return say(sent.message) + note

    def _unheard(self, happening: Happening) -> bool:
        name = type(happening.thing).__name__
        label = label_of(happening.thing)
        return name not in _BACKGROUND_MESSAGES and not any(
            source == happening.member and heard == label for source, heard, _ in self._heard
        )

    def _line(self, label: str, mark: str, happening: Happening, text: str) -> None:
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

_BACKGROUND_MESSAGES = (
    *HEARTBEATS,
    *("CommitReq", "InProgress", "CommitIndex", "Fetch", "Probe", "ProbeOk"),
)
"""Messages whose loss is not worth a line."""


def _wrap(text: str, width: int) -> list[str]:
    found = textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False)
    return found or [""]
