"""One replica with its mail: the unit of which the explorer's states are made.

A box is a local state together with the messages on their way to it, under a number. What can
happen in a box, what it answers without changing, and what it becomes when something is sent to it
is worked out once.

Rules of this file: nothing here knows of other replicas but their names.
"""

from collections.abc import Iterator
from typing import NamedTuple

from epaxos.core.types import ReplicaId
from epaxos.sim.check.checkers import Violation
from epaxos.sim.explore.replica import Inbox, Input, Kind, Member, Move, SmallWorld

BOX_BITS = 26
"""So many bits number the boxes of one replica."""
BOX_MASK = (1 << BOX_BITS) - 1

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


class Step(NamedTuple):
    """What can happen in a box."""

    what: Input
    after: int
    """The box of this replica after it."""
    sends: Sends
    cost: int
    """0, or one of the budget it takes from."""
    news: bool
    """Whether something new is let out."""


class Boxes:
    """The boxes of one replica."""

    def __init__(self, world: SmallWorld, member: Member, inbox: Inbox, reduced: bool) -> None:
        self.local: list[int] = []
        """Per box the local state."""
        self.mail: list[int] = []
        """Per box the bits of the messages on their way."""
        self._duplicates = world.duplicates
        self._member = member
        self._inbox = inbox
        self._reduced = reduced
        self._numbers: dict[tuple[int, int], int] = {}
        self._steps: list[list[Step] | None] = []
        self._answers: list[Sends] = []
        self._grown: list[dict[int, int]] = []
        self._relaxed: dict[tuple[int, bool, bool], int] = {}
        self._spent: dict[int, tuple[int, int]] = {}
        """Per local state: which messages were judged, and which of them are spent."""

    def box(self, local: int, mail: int) -> int:
        """The number of a local state with mail; what is spent is thrown away."""
        if self._reduced and mail:
            mail &= ~self._spent_of(local, mail)
        number = self._numbers.setdefault((local, mail), len(self.local))
        if number == len(self.local):
            self.local.append(local)
            self.mail.append(mail)
            self._steps.append(None)
            self._answers.append(())
            self._grown.append({})
        return number

    def add(self, box: int, bits: int) -> int:
        """The box when more is on its way."""
        grown = self._grown[box]
        found = grown.get(bits)
        if found is None:
            found = grown[bits] = self.box(self.local[box], self.mail[box] | bits)
        return found

    def relax(self, box: int, crashes: bool, ballots: bool) -> int:
        """The box when no more crashes, or takeovers, are left."""
        key = (box, crashes, ballots)
        found = self._relaxed.get(key)
        if found is None:
            local = self._member.relax(self.local[box], crashes, ballots)
            found = self._relaxed[key] = self.box(local, self.mail[box])
        return found

    def observed(self, box: int) -> int:
        """The number of what was let out."""
        return self._member.locals[self.local[box]].observed

    def steps(self, box: int, state: int) -> list[Step]:
        """What can happen in a box. `state` is where a violation would be found."""
        found = self._steps[box]
        return self._work_out(box, state) if found is None else found

    def answers(self, box: int, state: int) -> Sends:
        """What is sent without anything changing here."""
        if self._steps[box] is None:
            self._work_out(box, state)
        return self._answers[box]

    def answering(self, box: int) -> list[Input]:
        """The deliveries behind `answers`."""
        local = self.local[box]
        moves = (self._member.move(local, step) for step in self._arriving(self.mail[box]))
        return [move.step for move in moves if move.after == local and move.sends]

    def _work_out(self, box: int, state: int) -> list[Step]:
        local, mail = self.local[box], self.mail[box]
        steps: list[Step] = []
        answers: dict[ReplicaId, int] = {}
        for step in (*self._arriving(mail), *self._member.locals[local].spontaneous):
            move = self._move(local, step, state)
            idle = move.after == local
            if idle and not move.sends:
                continue
            if idle and self._duplicates and self._reduced and step.kind is Kind.DELIVER:
                for target, bits in move.sends:
                    answers[target] = answers.get(target, 0) | bits
                continue
            consumed = step.kind is Kind.DELIVER and not self._duplicates
            rest = mail & ~self._inbox.bit_of(step) if consumed else mail
            steps.append(
                Step(
                    step,
                    self.box(move.after, rest),
                    move.sends,
                    COSTS[step.kind],
                    self._observed(move.after) != self._observed(local),
                )
            )
        self._steps[box] = steps
        self._answers[box] = tuple(answers.items())
        return steps

    def _observed(self, local: int) -> int:
        return self._member.locals[local].observed

    def _move(self, local: int, step: Input, state: int) -> Move:
        try:
            return self._member.move(local, step)
        except Violation as violation:
            raise Broken(violation, state, [(self._member.me, step)]) from None

    def _arriving(self, mail: int) -> Iterator[Input]:
        inputs = self._inbox.inputs
        while mail:
            bit = mail & -mail
            yield inputs[bit.bit_length() - 1]
            mail ^= bit

    def _idle(self, local: int, step: Input) -> bool:
        """Whether the code agrees that a message does nothing here."""
        try:
            move = self._member.move(local, step)
        except Violation:
            return False
        return move.after == local and not move.sends

    def _spent_of(self, local: int, mail: int) -> int:
        judged, spent = self._spent.get(local, (0, 0))
        new = mail & ~judged
        if new:
            listener = self._member.locals[local].listener
            rest = new
            while rest:
                bit = rest & -rest
                number = bit.bit_length() - 1
                source = self._inbox.inputs[number].number
                if listener.spent(source, self._inbox.messages[number]) and self._idle(
                    local, self._inbox.inputs[number]
                ):
                    spent |= bit
                rest ^= bit
            self._spent[local] = (judged | new, spent)
        return spent
