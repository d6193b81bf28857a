"""One replica with the messages in flight to it: the part that it has in the explorer's states.

A part is a local state together with the messages on their way to it, under a number. What can
happen in a part, what it answers without changing, and what it becomes when something is sent to it
is worked out once.

Rules of this file: nothing here knows of other replicas but their names.
"""

from collections.abc import Iterator
from typing import NamedTuple

from epaxos.core.types import ReplicaId
from epaxos.sim.check.checkers import Violation
from epaxos.sim.explore.replica import Effect, Inbox, Input, Kind, SmallWorld, StateTable

PART_BITS = 26
"""So many bits number the parts of one replica."""
PART_MASK = (1 << PART_BITS) - 1

COSTS = {Kind.PROPOSE: 0, Kind.DELIVER: 0, Kind.TAKE_OVER: 1, Kind.RESTART: 1 << 4}
COSTS[Kind.ASK_AGAIN] = 1 << 8
"""What a step takes from what is left, as the search packs it."""

Sends = tuple[tuple[ReplicaId, int], ...]


class Broken(Exception):
    """A property is violated after some steps from a state."""

    def __init__(
        self, violation: Violation, parent: int, steps: list[tuple[ReplicaId, Input]]
    ) -> None:
        super().__init__(str(violation))
        self.violation = violation
        self.parent = parent
        """The number of the state."""
        self.steps = steps


class Move(NamedTuple):
    """What can happen in a part."""

    what: Input
    after: int
    """The part of this replica after it."""
    sends: Sends
    cost: int
    """0, or one of the budget it takes from."""
    news: bool
    """Whether something new is released."""


class ReplicaParts:
    """The parts that one replica may have in a state."""

    def __init__(self, world: SmallWorld, member: StateTable, inbox: Inbox, reduced: bool) -> None:
        self.local: list[int] = []
        """Per part the local state."""
        self.in_flight: list[int] = []
        """Per part the bits of the messages in flight."""
        self._duplicates = world.duplicates
        self._member = member
        self._inbox = inbox
        self._reduced = reduced
        self._numbers: dict[tuple[int, int], int] = {}
        self._steps: list[list[Move] | None] = []
        self._answers: list[Sends] = []
        self._grown: list[dict[int, int]] = []
        self._relaxed: dict[tuple[int, bool, bool], int] = {}
        self._spent: dict[int, tuple[int, int]] = {}
        """Per local state: which messages were judged, and which of them are spent."""

    def part(self, local: int, in_flight: int) -> int:
        """The number of a local state with messages in flight; what is spent is thrown away."""
        if self._reduced and in_flight:
            in_flight &= ~self._spent_of(local, in_flight)
        number = self._numbers.setdefault((local, in_flight), len(self.local))
        if number == len(self.local):
            self.local.append(local)
            self.in_flight.append(in_flight)
            self._steps.append(None)
            self._answers.append(())
            self._grown.append({})
        return number

    def add(self, part: int, bits: int) -> int:
        """The part when more is in flight."""
        grown = self._grown[part]
        found = grown.get(bits)
        if found is None:
            found = grown[bits] = self.part(self.local[part], self.in_flight[part] | bits)
        return found

    def relax(self, part: int, crashes: bool, ballots: bool) -> int:
        """The part when no more crashes, or takeovers, are left."""
        key = (part, crashes, ballots)
        found = self._relaxed.get(key)
        if found is None:
            local = self._member.relax(self.local[part], crashes, ballots)
            found = self._relaxed[key] = self.part(local, self.in_flight[part])
        return found

    def observed(self, part: int) -> int:
        """The number of what was released."""
        return self._member.locals[self.local[part]].observed

    def steps(self, part: int, state: int) -> list[Move]:
        """What can happen in a part. `state` is where a violation would be found."""
        found = self._steps[part]
        return self._work_out(part, state) if found is None else found

    def answers(self, part: int, state: int) -> Sends:
        """What is sent without anything changing here."""
        if self._steps[part] is None:
            self._work_out(part, state)
        return self._answers[part]

    def answering(self, part: int) -> list[Input]:
        """The deliveries behind `answers`."""
        local = self.local[part]
        effects = (
            self._member.effect(local, step) for step in self._arriving(self.in_flight[part])
        )
        return [effect.step for effect in effects if effect.after == local and effect.sends]

    def _work_out(self, part: int, state: int) -> list[Move]:
        local, in_flight = self.local[part], self.in_flight[part]
        steps: list[Move] = []
        answers: dict[ReplicaId, int] = {}
        for step in (*self._arriving(in_flight), *self._member.locals[local].spontaneous):
            effect = self._effect(local, step, state)
            idle = effect.after == local
            if idle and not effect.sends:
                continue
            if idle and self._duplicates and self._reduced and step.kind is Kind.DELIVER:
                for target, bits in effect.sends:
                    answers[target] = answers.get(target, 0) | bits
                continue
            consumed = step.kind is Kind.DELIVER and not self._duplicates
            rest = in_flight & ~self._inbox.bit_of(step) if consumed else in_flight
            steps.append(
                Move(
                    step,
                    self.part(effect.after, rest),
                    effect.sends,
                    COSTS[step.kind],
                    self._observed(effect.after) != self._observed(local),
                )
            )
        self._steps[part] = steps
        self._answers[part] = tuple(answers.items())
        return steps

    def _observed(self, local: int) -> int:
        return self._member.locals[local].observed

    def _effect(self, local: int, step: Input, state: int) -> Effect:
        try:
            return self._member.effect(local, step)
        except Violation as violation:
            raise Broken(violation, state, [(self._member.me, step)]) from None

    def _arriving(self, in_flight: int) -> Iterator[Input]:
        inputs = self._inbox.inputs
        while in_flight:
            bit = in_flight & -in_flight
            yield inputs[bit.bit_length() - 1]
            in_flight ^= bit

    def _idle(self, local: int, step: Input) -> bool:
        """Whether the code agrees that a message does nothing here."""
        try:
            effect = self._member.effect(local, step)
        except Violation:
            return False
        return effect.after == local and not effect.sends

    def _spent_of(self, local: int, in_flight: int) -> int:
        judged, spent = self._spent.get(local, (0, 0))
        new = in_flight & ~judged
        if new:
            filter_ = self._member.locals[local].filter
            rest = new
            while rest:
                bit = rest & -rest
                number = bit.bit_length() - 1
                source = self._inbox.inputs[number].number
                if filter_.spent(source, self._inbox.messages[number]) and self._idle(
                    local, self._inbox.inputs[number]
                ):
                    spent |= bit
                rest ^= bit
            self._spent[local] = (judged | new, spent)
        return spent
