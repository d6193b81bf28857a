"""Every order of events in a small world: a model checker over the very code that runs.

A global state is the local state of each replica, the messages on their way to each, and what is
left to go wrong. Local states come from tables that real nodes filled (`explore.replica`), so the
search itself moves small integers about. It is breadth first: the path to a violation has the
fewest steps.

What is left out without losing anything, and why:

*Loss, and crashes for good* need no steps. Every state is checked, and one in which a message is
lost, or a replica down for ever, is one in which the message is not delivered yet, or the replica
has not moved yet.

*Dominated states.* If two states differ only in that one has more on its way, or more left to go
wrong, then whatever the poorer can do the richer can do too, and ends in the same local states
(by induction: a step needs local state, message and budget only). What has been released is part of
local states; so every violation is also reached from the richer, and the poorer is dropped.

*Spent messages*: one whose arrival changes and sends nothing, now and ever after, is not carried
along. That it does nothing now is tried on the code; that it never will is known of answers and of
news of decisions (`explore.protocols`).

*Partial order.* A step changes one replica and only adds to what is on its way to others, so steps
of different replicas commute. With duplicates, a delivery that leaves its replica's state as it is
and only makes it answer is moreover never in the way of anything: the state after it dominates the
state before. It is taken at once, and nothing else instead (an ample set of one). So only steps
that change some replica make states.

*Ended budgets.* Where nothing can crash any more disks are not compared, and where nothing can be
taken over any more ballots heard of are not.

Properties are stable: a violation once released stays. Agreement, visibility, one order of
execution, and one execution per command are checked over all that was ever released, whenever
something new is; state, step and restart invariants once per local state, step and restart.

Rules of this file: owns no clock; who watches may stop it.
"""

from array import array
from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from epaxos.core.types import ReplicaId
from epaxos.sim.check.checkers import Violation
from epaxos.sim.explore.replica import Inbox, SmallWorld, StateTable
from epaxos.sim.explore.states import PART_BITS, PART_MASK, Broken, Move, ReplicaParts
from epaxos.sim.explore.trace import Path, check, prelude, shorten, tell, walk

LEFT_BITS = 4
"""So many bits say how much of one budget is left."""
LEFT_MASK = (1 << LEFT_BITS) - 1
WATCH_STATES = 5_000
"""The watch is asked once in so many states looked at."""


class SearchCounts(NamedTuple):
    """Where a search is."""

    states: int
    """Global states found, dominated ones left out."""
    transitions: int
    """Steps taken from them."""
    depth: int
    """The most steps from the start to a state looked at."""
    waiting: int
    """States found and not yet looked at."""
    locals: tuple[int, ...]
    """Local states per replica."""
    runs: int
    """How often a replica's code ran: once per local state and input."""
    messages: int
    """Different messages sent."""
    outcomes: int
    """Different combinations of what the replicas released."""


class Report(NamedTuple):
    """What a search found."""

    counts: SearchCounts
    exhausted: bool
    """Whether every reachable state was looked at."""
    violation: Violation | None
    path: tuple[str, ...]
    """The steps that lead to the violation, one sentence each."""


def explore(
    world: SmallWorld,
    budget_states: int,
    watch: Callable[[SearchCounts], bool] = lambda counts: False,
    deep: bool = False,
) -> Report:
    """Look at every state of a world, until a property is violated, `budget_states` are found, or
    `watch`, asked now and then, says to stop. `deep` looks at the latest found first: far from the
    start before near it, for worlds that no budget exhausts."""
    return Search(world, deep=deep).run(budget_states, watch)


class Search:
    """One search."""

    def __init__(self, world: SmallWorld, reduced: bool = True, deep: bool = False) -> None:
        """`reduced=False` leaves nothing out, to hold the reductions against it."""
        self.world = world
        self.outcomes: set[tuple[bytes, ...]] = set()
        """What the replicas released, in digests; filled when a search ends."""
        n = world.replicas
        inboxes = [Inbox(target, world) for target in range(n)]
        self._members = [StateTable(world, me, inboxes) for me in range(n)]
        self._inboxes = inboxes
        self._parts = [
            ReplicaParts(world, self._members[me], inboxes[me], reduced) for me in range(n)
        ]
        self._reduced = reduced
        self._eager = reduced and world.duplicates
        self._found: list[int] = []
        """Every state in the order of finding, packed: per replica its part, then the budgets."""
        self._parents = array("q")
        self._steps = array("q")
        """Per state the step that led to it: number among the steps of its part, and replica."""
        self._best: dict[int, int | list[int]] = {}
        """Per combination of local states, those states that no other one dominates."""
        self._checked: set[tuple[int, ...]] = set()
        self._transitions = 0
        self._waiting: deque[int] = deque()
        """Numbers of the states found and not yet looked at."""
        self._next = self._waiting.pop if deep else self._waiting.popleft
        self._depths = array("H")
        self._depth = 0

    def run(self, budget_states: int, watch: Callable[[SearchCounts], bool]) -> Report:
        """Search until the end, or an end."""
        exhausted = False
        violation: Violation | None = None
        path: Path = []
        try:
            self._start()
            exhausted = self._search(budget_states, watch)
        except Broken as broken:
            violation = broken.violation
            path = [*self._path(broken.parent), *broken.steps]
            found = walk(self.world, path)
            assert found is not None, f"states were merged that differ: {violation}"
            path, violation = shorten(self.world, path, found)
        self._collect()
        return Report(self._counts(), exhausted, violation, tuple(tell(self.world, path)))

    def _start(self) -> None:
        world = self.world
        firsts = prelude(world)
        parts = [
            self._parts[me].part(member.first(firsts[me]), 0)
            for me, member in enumerate(self._members)
        ]
        left = world.recoveries | world.crashes << LEFT_BITS | world.repeats << 2 * LEFT_BITS
        self._admit(parts, left, -1, 0)

    def _search(self, budget_states: int, watch: Callable[[SearchCounts], bool]) -> bool:
        found, waiting = self._found, self._waiting
        looked = 0
        while waiting:
            if len(found) >= budget_states:
                return False
            if looked % WATCH_STATES == 0 and watch(self._counts()):
                return False
            looked += 1
            number = self._next()
            state = found[number]
            if not self._reduced or self._stands(state):
                self._depth = max(self._depth, self._depths[number])
                self._look(number, state)
        return True

    def _unpack(self, state: int) -> list[int]:
        return [state >> PART_BITS * me & PART_MASK for me in range(self.world.replicas)]

    def _look(self, number: int, state: int) -> None:
        """Take every step from a state."""
        parts = self._unpack(state)
        left = state >> PART_BITS * len(parts)
        tables = self._parts
        eager = self._eager
        for me, table in enumerate(tables):
            for position, step in enumerate(table.steps(parts[me], number)):
                if step.cost and not left & LEFT_MASK * step.cost:
                    continue
                self._transitions += 1
                after = parts.copy()
                after[me] = step.after
                touched = [me]
                for target, bits in step.sends:
                    grown = tables[target].add(after[target], bits)
                    if grown != after[target]:
                        after[target] = grown
                        touched.append(target)
                rest = left - step.cost
                if step.cost and self._reduced:
                    touched = self._relax(after, rest, touched)
                if eager:
                    self._answer(after, touched, number, me, step)
                if self._admit(after, rest, number, position << 4 | me) and step.news:
                    self._check(after, number, me, step)

    def _relax(self, parts: list[int], left: int, touched: list[int]) -> list[int]:
        """A budget shrank: where it is gone, forget what mattered to it only."""
        crashes = bool(left >> LEFT_BITS & LEFT_MASK)
        ballots = bool(left & LEFT_MASK)
        if crashes and ballots:
            return touched
        for me, table in enumerate(self._parts):
            parts[me] = table.relax(parts[me], crashes, ballots)
        return list(range(len(parts)))

    def _answer(
        self, parts: list[int], touched: list[int], number: int, me: ReplicaId, step: Move
    ) -> None:
        """Add what replicas answer without changing, and what is answered to that."""
        tables = self._parts
        try:
            while touched:
                replica = touched.pop()
                for target, bits in tables[replica].answers(parts[replica], number):
                    grown = tables[target].add(parts[target], bits)
                    if grown != parts[target]:
                        parts[target] = grown
                        touched.append(target)
        except Broken as broken:
            broken.steps.insert(0, (me, step.what))
            raise

    # Dominated states --------------------------------------------------------------------------

    def _key(self, parts: Sequence[int]) -> int:
        key = 0
        for table, part in zip(self._parts, parts):
            key = key << PART_BITS | table.local[part]
        return key

    def _stands(self, state: int) -> bool:
        """Whether no state found since dominates this one."""
        entry = self._best[self._key(self._unpack(state))]
        return state in entry if isinstance(entry, list) else state == entry

    def _admit(self, parts: list[int], left: int, parent: int, step: int) -> bool:
        """Take in a state unless it is known or dominated; whether it was."""
        state = left
        for part in reversed(parts):
            state = state << PART_BITS | part
        if self._reduced:
            key = self._key(parts)
            entry = self._best.get(key)
            if entry is None:
                self._best[key] = state
            elif entry == state:
                return False
            else:
                entries = entry if isinstance(entry, list) else [entry]
                kept = self._compare(parts, left, state, entries)
                if kept is None:
                    return False
                kept.append(state)
                self._best[key] = kept
        else:
            if state in self._best:
                return False
            self._best[state] = state
        self._waiting.append(len(self._found))
        self._depths.append(0 if parent < 0 else self._depths[parent] + 1)
        self._found.append(state)
        self._parents.append(parent)
        self._steps.append(step)
        return True

    def _compare(
        self, parts: list[int], left: int, state: int, entries: list[int]
    ) -> list[int] | None:
        """The entries that a state does not dominate; None if one of them dominates it."""
        if state in entries:
            return None
        in_flight = [table.in_flight for table in self._parts]
        kept = []
        for entry in entries:
            poorer = richer = True
            other = entry
            for part, bits in zip(parts, in_flight):
                theirs = other & PART_MASK
                other >>= PART_BITS
                if theirs != part:
                    mine, its = bits[part], bits[theirs]
                    both = mine & its
                    poorer = poorer and both == mine
                    richer = richer and both == its
                    if not (poorer or richer):
                        break
            else:
                if other != left:
                    poorer = poorer and _at_most(left, other)
                    richer = richer and _at_most(other, left)
            if poorer:
                return None
            if not richer:
                kept.append(entry)
        return kept

    # What holds --------------------------------------------------------------------------------

    def _check(self, parts: list[int], number: int, me: ReplicaId, step: Move) -> None:
        seen = tuple(table.observed(part) for table, part in zip(self._parts, parts))
        if seen in self._checked:
            return
        self._checked.add(seen)
        try:
            check([member.observations[what] for member, what in zip(self._members, seen)])
        except Violation as violation:
            raise Broken(violation, number, [(me, step.what)]) from None

    def _collect(self) -> None:
        digests = [member.observed_digests() for member in self._members]
        self.outcomes = {
            tuple(names[what] for names, what in zip(digests, seen)) for seen in self._checked
        }

    def _counts(self) -> SearchCounts:
        return SearchCounts(
            len(self._found),
            self._transitions,
            self._depth,
            len(self._waiting),
            tuple(len(member.locals) for member in self._members),
            sum(member.runs for member in self._members),
            sum(len(inbox.inputs) for inbox in self._inboxes),
            len(self._checked),
        )

    def _path(self, number: int) -> Path:
        """What leads to a state, with all that was answered on the way."""
        numbers = []
        while number >= 0:
            numbers.append(number)
            number = self._parents[number]
        path: Path = []
        for before, after in pairwise(numbers[::-1]):
            parts = self._unpack(self._found[before])
            code = self._steps[after]
            me = code & 15
            if self._eager:
                for replica, table in enumerate(self._parts):
                    path += [(replica, each) for each in table.answering(parts[replica])]
            path.append((me, self._parts[me].steps(parts[me], before)[code >> 4].what))
        return path


def _at_most(left: int, other: int) -> bool:
    """Whether of no budget more is left."""
    while left:
        if left & LEFT_MASK > other & LEFT_MASK:
            return False
        left >>= LEFT_BITS
        other >>= LEFT_BITS
    return True
