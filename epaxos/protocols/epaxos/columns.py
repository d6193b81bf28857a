"""The columns of instances: what is known, committed, executed everywhere, and forgotten.

Closed prefixes make "everything that can ever block" = the slots in (committed[q], known[q]], so
one sweep per column is trigger, asking and catch-up in one (protocol reference 1.14). Vectors
travel in Progress only, which is also the heartbeat; stable and floor follow R15.

Rules of this file: no ballots and no messages of agreement; it says what is to be asked or
recovered, and the replica does it. Its time constants are those of the protocol reference, in
RTT_max."""

import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from epaxos.core.types import Deps, Micros, ReplicaId, Slot, merge, no_deps
from epaxos.protocols.epaxos.instance import COMMITTED, Instance
from epaxos.protocols.epaxos.messages import Progress

RTT_MAX_LEAST_US = 40_000
"""RTT_max is never taken to be less."""
SUSPECT_RTTS = 10
"""A member not heard for so long is suspected."""
RESEND_RTTS = 2.3
"""An unanswered question is asked again after so long, if it is lost by then; a column's oldest
hole is asked about too."""
YIELD_RTTS = 4
"""Who has promised a hole to another's recovery leaves it alone for so long: Recover, Validate and
Accept take three round trips."""
PATIENCE_RTTS = 6
"""T1: from asking about a hole to recovering it, while its command leader is not suspected. Longer
while the question is not lost."""
BACKOFF_LEAST_US = 1_500_000
"""Every wait that doubles is capped by max(6 T1, this): in real time, because a configured RTT may
be wrong by any factor."""
HEARTBEAT_RTTS = 1.25
"""Progress is sent at least so often."""
PROGRESS_INSTANCES = 32
"""Progress is sent when so many more instances are executed and durable ..."""
PROGRESS_DELAY_US = 50_000
"""... or so long after the first of them."""
NEVER: Micros = -1
"""When a question was asked whose answer is not worth waiting for any longer."""
SLOTS_PER_QUESTION = 512
"""How many slots one CommitReq or Recover names at most."""


class Sweep(NamedTuple):
    """What a column needs now."""

    replica: ReplicaId
    """The column."""
    slots: list[Slot]
    """Its unresolved slots, ascending."""
    recover: bool
    """False: ask for their commits. True: take them over."""
    member: ReplicaId | None = None
    """Whom to ask; None: all."""


class _Hole:
    """The oldest unresolved slot of a column, and what was done about it."""

    __slots__ = (
        *("asked", "asked_at", "horizon", "next_at", "patience", "slot", "tries", "whom"),
        "yield_until",
    )

    def __init__(self) -> None:
        self.slot: Slot = 0
        self.next_at: Micros = 0
        """When to do the next thing."""
        self.asked = False
        self.asked_at: Micros = 0
        self.whom: ReplicaId = 0
        """Who was asked: the command leader, among others, or a member that has it."""
        self.horizon: Slot = 0
        """Slots above it were not known when we asked and are too young to be recovered."""
        self.tries = 0
        """Recoveries of it begun since a suspected member was last heard again."""
        self.patience: Micros = 0
        """The wait before recovery; doubled by each InProgress."""
        self.yield_until: Micros = 0
        """Until when another's recovery is left alone."""


class _Beyond:
    """Slots of a column beyond the horizon that recoveries here wait for, and what was done."""

    __slots__ = ("asked", "asked_at", "last", "next_at", "patience", "slots", "tries", "whom")

    def __init__(self) -> None:
        self.slots: set[Slot] = set()
        """Named by unsettled objections; each stays until it is decided or within the horizon."""
        self.asked: list[Slot] = []
        """What the last question named; only that may be recovered while the leader lives."""
        self.asked_at: Micros = 0
        self.whom: ReplicaId = 0
        """As in a hole."""
        self.last: Slot = 0
        """The last slot handled: with more than one question names, slots take turns."""
        self.next_at: Micros = 0
        self.tries = 0
        self.patience: Micros = 0
        """The wait before recovery; doubled by each InProgress."""


class Columns:
    """Instances by column and slot, and the vectors over them."""

    def __init__(
        self, me: ReplicaId, n: int, rtt_us: tuple[Micros, ...], rng: random.Random
    ) -> None:
        assert 0 <= me < n, "this replica is a member"
        assert len(rtt_us) == n, "one round trip per member"
        self.me = me
        self.n = n
        self.instances: list[dict[Slot, Instance]] = [{} for _ in range(n)]
        self.known: list[Slot] = [0] * n
        """Highest slot that anything heard of names."""
        self.committed: list[Slot] = [0] * n
        """Every slot up to it is committed here."""
        self.stable: Deps = no_deps(n)
        """Minimum of all members' executed."""
        self.floor: Deps = no_deps(n)
        """Minimum of all members' advertised stable; what is <= it is forgotten."""
        self.live_bytes = 0
        self.rtt_us: list[Micros] = list(rtt_us)
        """Round trip to each member: expected, then measured (smoothed)."""
        self.rtt_max: Micros = 0
        self._random = rng
        self._executed: list[Deps] = [no_deps(n)] * n
        """Advertised executed vector of each member; our own as we advertise it."""
        self._stables: list[Deps] = [no_deps(n)] * n
        """Advertised stable vector of each member."""
        self._committed_at: list[Deps] = [no_deps(n)] * n
        """Advertised committed vector of each member."""
        self._heard_at: list[Micros] = [0] * n
        self._suspected: list[bool] = [False] * n
        self._stamps: list[tuple[int, Micros]] = [(0, 0)] * n
        """Per member: the stamp of its last Progress, and when it came."""
        self._echoed: list[Micros] = [0] * n
        """Per member: the latest stamp of ours that it has answered, and not before our start."""
        self._holes = [_Hole() for _ in range(n)]
        self._beyond = [_Beyond() for _ in range(n)]
        self._told_executed = 0
        """How many instances our last Progress said were executed."""
        self.progress_at: Micros = 0
        """When the next Progress is due at the latest."""
        self._rescale()

    # Instances ---------------------------------------------------------------------------------

    def get(self, replica: ReplicaId, slot: Slot) -> Instance | None:
        """The instance if it is known and not forgotten."""
        return self.instances[replica].get(slot)

    def obtain(self, replica: ReplicaId, slot: Slot) -> Instance:
        """The instance, new if nothing was known of it. Requires slot > floor."""
        column = self.instances[replica]
        instance = column.get(slot)
        if instance is None:
            assert slot > self.floor[replica], "what is forgotten stays forgotten (R15)"
            instance = column[slot] = Instance(replica, slot)
            self.live_bytes += instance.cost
            if slot > self.known[replica]:
                self.known[replica] = slot
        return instance

    def charge(self, instance: Instance, cost: int) -> None:
        """Add to what an instance costs in memory."""
        instance.cost += cost
        self.live_bytes += cost

    def hear_of(self, deps: Deps) -> None:
        """Somebody named these ids."""
        if any(map(int.__gt__, deps, self.known)):
            self.known = list(map(max, self.known, deps))

    def hear_of_one(self, replica: ReplicaId, slot: Slot) -> None:
        """Somebody named this id."""
        if slot > self.known[replica]:
            self.known[replica] = slot

    def advance(self, replica: ReplicaId) -> None:
        """Move the committed vector over what is committed now."""
        column = self.instances[replica]
        slot = self.committed[replica] + 1
        while (instance := column.get(slot)) is not None and instance.phase == COMMITTED:
            slot += 1
        self.committed[replica] = slot - 1

    # Members -----------------------------------------------------------------------------------

    def start(self, now: Micros) -> None:
        """Nobody is suspected yet."""
        self._heard_at = [now] * self.n
        self._echoed = [now] * self.n
        self.progress_at = now

    def heard(self, source: ReplicaId, now: Micros) -> bool:
        """Any message is a sign of life; whether it was suspected before."""
        self._heard_at[source] = now
        if not self._suspected[source]:
            return False
        self._suspected[source] = False
        self._rescale()
        for replica in range(self.n):
            self._start_over(replica, now)
        return True

    def suspects(self, replica: ReplicaId) -> bool:
        """Whether the member was silent for too long."""
        return self._suspected[replica]

    def look_round(self, now: Micros) -> bool:
        """Suspect who was silent for too long; whether anybody was added."""
        late = now - SUSPECT_RTTS * self.rtt_max
        silent = [
            replica
            for replica in range(self.n)
            if replica != self.me
            and not self._suspected[replica]
            and self._heard_at[replica] < late
        ]
        for replica in silent:
            self._suspected[replica] = True
        if silent:
            self._rescale()
        for replica in silent:
            self._hurry(replica, now)
        return bool(silent)

    def reachable(self) -> int:
        """How many members are not suspected, this one included."""
        return self.n - sum(self._suspected)

    @property
    def resend_us(self) -> Micros:
        """How long a question stays unanswered before it is asked again."""
        return int(RESEND_RTTS * self.rtt_max)

    @property
    def patience_us(self) -> Micros:
        """T1."""
        return PATIENCE_RTTS * self.rtt_max

    def is_lost(self, member: ReplicaId, asked_at: Micros, now: Micros) -> bool:
        """Whether a question to the member, unanswered so far, needs asking again: later ones are
        answered already, nothing is heard of it at all, or it seems not to hear us.

        Time alone does not say so: a question may stand in a queue for longer than any round trip
        so far, and then whatever is sent in addition makes the queue longer."""
        return (
            member == self.me
            or self._suspected[member]
            or self._echoed[member] > asked_at
            or now - asked_at >= max(SUSPECT_RTTS * self.rtt_max, BACKOFF_LEAST_US)
        )

    def backoff_us(self, tries: int) -> Micros:
        """T1 * 2^tries * U(0.5, 1.5), capped."""
        cap = max(6 * self.patience_us, BACKOFF_LEAST_US)
        wait = min(self.patience_us << min(tries, 10), cap)
        return int(wait * self._random.uniform(0.5, 1.5))

    def capped(self, wait: Micros) -> Micros:
        """A doubled wait, capped."""
        return min(wait, max(6 * self.patience_us, BACKOFF_LEAST_US))

    def _rescale(self) -> None:
        rtts = [rtt for rtt, gone in zip(self.rtt_us, self._suspected) if not gone]
        self.rtt_max = max(RTT_MAX_LEAST_US, *rtts)

    # Progress, stable, floor -------------------------------------------------------------------

    def executed_here(self, durable: Deps, committed: Deps, now: Micros) -> None:
        """Our own executed and committed vectors, as they may be advertised."""
        self._executed[self.me] = merge(self._executed[self.me], durable)
        self._committed_at[self.me] = merge(self._committed_at[self.me], committed)
        untold = sum(self._executed[self.me]) - self._told_executed
        if untold >= PROGRESS_INSTANCES:
            self.progress_at = min(self.progress_at, now)
        elif untold:
            self.progress_at = min(self.progress_at, now + PROGRESS_DELAY_US)
        self._settle()

    def progress(self, now: Micros) -> Progress:
        """What to broadcast; the next one is due a heartbeat later."""
        self.progress_at = now + int(HEARTBEAT_RTTS * self.rtt_max)
        mine = self._executed[self.me]
        self._told_executed = sum(mine)
        echo = tuple([stamp for stamp, _ in self._stamps])
        held = tuple([now - came if stamp else 0 for stamp, came in self._stamps])
        return Progress(mine, self._committed_at[self.me], self.stable, echo, now, held)

    def on_progress(self, source: ReplicaId, m: Progress, now: Micros) -> None:
        """Take in a member's vectors; none ever goes back."""
        self._stamps[source] = (m.stamp, now)
        # One sample per stamp of ours: it is echoed until we speak again, and a copy may come late.
        stamp = m.echo[self.me]
        if self._echoed[source] < stamp <= now:
            self._echoed[source] = stamp
            self._measure(source, now - stamp - m.held[self.me])
        self._executed[source] = merge(self._executed[source], m.executed)
        self._committed_at[source] = merge(self._committed_at[source], m.committed)
        self._stables[source] = merge(self._stables[source], m.stable)
        self.hear_of(m.committed)
        self._settle()

    def _measure(self, source: ReplicaId, rtt: Micros) -> None:
        """One sample counts for at most twice the estimate: a process that stood still, or whose
        clock jumped, must not take its round trips for minutes, and its patience with them."""
        if rtt > 0:
            known = self.rtt_us[source]
            self.rtt_us[source] += (min(rtt, 2 * known + RTT_MAX_LEAST_US) - known) // 8
            self._rescale()

    def _settle(self) -> None:
        """Recompute stable and floor; forget what the floor now covers."""
        stable = tuple(map(min, *self._executed)) if self.n > 1 else self._executed[0]
        if stable != self.stable:
            self.stable = merge(self.stable, stable)
            self._stables[self.me] = self.stable
        floor = tuple(map(min, *self._stables)) if self.n > 1 else self._stables[0]
        if floor != self.floor:
            self._forget(merge(self.floor, floor))

    def restore(self, stable: Deps, floor: Deps) -> None:
        """Take over what an earlier life of this replica noted."""
        self.stable = self._stables[self.me] = merge(self.stable, stable)
        self._forget(merge(self.floor, floor))

    def _forget(self, floor: Deps) -> None:
        for column, low, high in zip(self.instances, self.floor, floor):
            for slot in range(low + 1, high + 1):
                instance = column.pop(slot, None)
                if instance is not None:
                    self.live_bytes -= instance.cost
        assert self.live_bytes >= 0, "what is forgotten was counted"
        self.floor = floor
        for replica, low in enumerate(floor):
            self.committed[replica] = max(self.committed[replica], low)
            self.known[replica] = max(self.known[replica], low)

    def slowest_member(self) -> ReplicaId | None:
        """The member whose executed vector is farthest behind ours."""
        mine = self._executed[self.me]
        lags = [
            sum(max(0, ours - theirs) for ours, theirs in zip(mine, vector))
            for vector in self._executed
        ]
        worst = max(range(self.n), key=lags.__getitem__)
        return worst if lags[worst] > 0 else None

    def holes(self) -> int:
        """How many slots the sweep has in hand."""
        return sum(hole.slot > 0 for hole in self._holes) + sum(
            len(beyond.slots) for beyond in self._beyond
        )

    # The sweep ---------------------------------------------------------------------------------

    def sweep(self, now: Micros) -> list[Sweep]:
        """What each column needs: at most one thing about its hole, and one beyond its horizon."""
        found = []
        for replica in range(self.n):
            slot = self.committed[replica] + 1
            hole = self._holes[replica]
            if self.known[replica] < slot:
                hole.slot = 0
                self._beyond[replica].slots.clear()
                continue
            if hole.slot != slot:
                answered = hole.slot and hole.asked and slot > min(hole.horizon, hole.slot + 63)
                hole.slot = slot
                hole.asked = False
                hole.tries = 0
                hole.patience = self.patience_us
                hole.asked_at = NEVER if answered else now
                hole.whom = replica
                hole.next_at = now + (0 if answered else self.resend_us)
                if self._suspected[replica]:
                    self._hurry(replica, now)
            if (
                now >= hole.next_at
                and (now >= hole.yield_until or not hole.asked)
                and self.is_lost(hole.whom, hole.asked_at, now)
            ):
                step = self._step(replica, hole, now)
                if step.slots:
                    found.append(step)
            beyond = self._beyond[replica]
            if beyond.slots and now >= beyond.next_at:
                step = self._step_beyond(replica, beyond, now)
                if step.slots:
                    found.append(step)
        return found

    def _step(self, replica: ReplicaId, hole: _Hole, now: Micros) -> Sweep:
        """Ask first, then recover, then recover again with growing waits."""
        if not hole.asked:
            hole.asked = True
            hole.asked_at = now
            hole.horizon = min(self.known[replica], hole.slot + SLOTS_PER_QUESTION - 1)
            hole.next_at = now + hole.patience + self._stagger(replica)
            slots = self._unresolved(replica, hole)
            member = self._informed(replica, hole.slot)
            hole.whom = replica if member is None else member
            return Sweep(replica, slots, False, member)
        hole.next_at = now + self.backoff_us(hole.tries)
        slots = self._unresolved(replica, hole)
        if slots:
            hole.tries += 1
        return Sweep(replica, slots, True)

    def _unresolved(self, replica: ReplicaId, hole: _Hole) -> list[Slot]:
        """Uncommitted slots up to the horizon about which we are doing nothing yet."""
        return self._idle(replica, range(hole.slot, hole.horizon + 1))

    def _idle(self, replica: ReplicaId, slots: Iterable[Slot]) -> list[Slot]:
        """Those of them that are not committed and about which we are doing nothing yet."""
        column = self.instances[replica]
        return [
            slot
            for slot in slots
            if (instance := column.get(slot)) is None
            or (instance.phase != COMMITTED and instance.attempt is None)
        ]

    def waits_for(self, replica: ReplicaId, slot: Slot, now: Micros) -> None:
        """A recovery here waits until the id is decided. Beyond the horizon nothing else would see
        to that: its column's own recovery may wait for this one (protocol reference 4.2)."""
        beyond = self._beyond[replica]
        if slot <= self.committed[replica]:
            return
        if not beyond.slots:
            beyond.asked = []
            beyond.tries = 0
            beyond.patience = self.patience_us
            suspected = self._suspected[replica]
            beyond.next_at = now + (self._stagger(replica) if suspected else 0)
        beyond.slots.add(slot)

    def _step_beyond(self, replica: ReplicaId, beyond: _Beyond, now: Micros) -> Sweep:
        """Recover what the command leader is suspected of leaving; else ask, and recover what
        nobody said anything of. Slots take turns, so that each comes up."""
        # A hole lives until all slots up to its horizon are committed.
        horizon = max(self._holes[replica].horizon, self.committed[replica])
        column = self.instances[replica]
        for slot in [*beyond.slots]:
            instance = column.get(slot)
            if slot <= horizon or (instance is not None and instance.phase == COMMITTED):
                beyond.slots.discard(slot)
                beyond.tries = 0
        if beyond.asked and not self._suspected[replica]:
            if not self.is_lost(beyond.whom, beyond.asked_at, now):
                return Sweep(replica, [], True)
            slots = self._idle(replica, [slot for slot in beyond.asked if slot in beyond.slots])
            beyond.asked = []
            if slots:
                return self._recover_beyond(replica, beyond, slots, now)
        idle = sorted(self._idle(replica, beyond.slots))
        slots = ([slot for slot in idle if slot > beyond.last] or idle)[:SLOTS_PER_QUESTION]
        beyond.last = slots[-1] if slots else 0
        if self._suspected[replica]:
            return self._recover_beyond(replica, beyond, slots, now)
        beyond.asked = slots
        beyond.asked_at = now
        wait = beyond.patience + self._stagger(replica) if slots else self.resend_us
        beyond.next_at = now + int(wait)
        member = self._informed(replica, slots[0]) if slots else None
        beyond.whom = replica if member is None else member
        return Sweep(replica, slots, False, member)

    def _recover_beyond(
        self, replica: ReplicaId, beyond: _Beyond, slots: list[Slot], now: Micros
    ) -> Sweep:
        all_at_once = len(beyond.slots) <= SLOTS_PER_QUESTION
        wait = self.backoff_us(beyond.tries) if slots and all_at_once else self.resend_us
        beyond.next_at = now + int(wait)
        beyond.tries += bool(slots)
        return Sweep(replica, slots, True)

    def in_progress(self, replica: ReplicaId, slots: Sequence[Slot], now: Micros) -> None:
        """Somebody works on these: ask later, with double patience (R13)."""
        if self._suspected[replica]:
            return
        beyond = self._beyond[replica]
        if beyond.asked:
            busy = set(slots)
            beyond.asked = [slot for slot in beyond.asked if slot not in busy]
            if not beyond.asked:
                beyond.patience = self.capped(2 * beyond.patience)
                beyond.next_at = now + beyond.patience
        hole = self._holes[replica]
        if hole.asked and self.committed[replica] + 1 in slots and hole.slot:
            hole.patience = self.capped(2 * hole.patience)
            hole.asked = False
            hole.next_at = now + hole.patience

    def _hurry(self, replica: ReplicaId, now: Micros) -> None:
        """The command leader is suspected: nobody asks, the living take over in order of rank."""
        hole = self._holes[replica]
        if hole.slot:
            hole.asked = True
            hole.horizon = min(self.known[replica], hole.slot + SLOTS_PER_QUESTION - 1)
            hole.next_at = now + self._stagger(replica)
        beyond = self._beyond[replica]
        if beyond.slots:
            beyond.next_at = now + self._stagger(replica)

    def _start_over(self, replica: ReplicaId, now: Micros) -> None:
        """A suspected member is heard again: it may know, and may be what recovery was missing."""
        beyond = self._beyond[replica]
        beyond.tries = 0
        if beyond.slots:
            beyond.next_at = min(beyond.next_at, now + self.resend_us)
        hole = self._holes[replica]
        hole.tries = 0
        if hole.slot and self._suspected[replica]:
            hole.next_at = min(hole.next_at, now + self._stagger(replica))
        elif hole.slot:
            hole.asked = False
            hole.next_at = now

    def taken_over(self, replica: ReplicaId, slot: Slot, now: Micros) -> None:
        """Another recovers it: leave it time to finish, and then take turns again."""
        hole = self._holes[replica]
        if hole.slot == slot:
            hole.yield_until = now + YIELD_RTTS * self.rtt_max + self._stagger(replica)

    def _stagger(self, replica: ReplicaId) -> Micros:
        """Living successors of the command leader take turns, so that they do not fight."""
        rank = 0
        member = (replica + 1) % self.n
        while member != self.me:
            rank += not self._suspected[member]
            member = (member + 1) % self.n
        if replica == self.me:
            rank = 0
        return int(rank * self.rtt_max * self._random.uniform(1, 1.3))

    def _informed(self, replica: ReplicaId, slot: Slot) -> ReplicaId | None:
        """A living member that says it has the slot committed: the nearest one."""
        members = [
            member
            for member in range(self.n)
            if member != self.me
            and not self._suspected[member]
            and self._committed_at[member][replica] >= slot
        ]
        return min(members, key=self.rtt_us.__getitem__) if members else None
