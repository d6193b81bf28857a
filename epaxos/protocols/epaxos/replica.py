"""The EPaxos* replica: the central interface, dispatch, time, and what a restart brings back.

Agreement stands in agreement.py, recovery in recovery.py, what both share in state.py; vectors and
the sweep in columns.py. Each builds on the one before: state, agreement, recovery, replica.

Rules of this file: nothing is raised because of what a peer sent.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Any

from epaxos.core.command import Footprint, show_footprint
from epaxos.core.quorum import Tally
from epaxos.core.replica import Leaderless, Message, Path, Record, Setup, Tables
from epaxos.core.stamps import Stamps
from epaxos.core.types import (
    Deps,
    InstanceId,
    Micros,
    ReplicaId,
    Slot,
    ballot_name,
    ballot_replica,
)
from epaxos.protocols.epaxos.columns import Sweep
from epaxos.protocols.epaxos.instance import (
    ACCEPTED,
    COMMITTED,
    INITIAL,
    PREACCEPTED,
    Accepting,
    Attempt,
    Instance,
    Phase,
    PreAccepting,
    Recovering,
    Validating,
    Waiting,
)
from epaxos.protocols.epaxos.messages import (
    SLOTS_LIVE_MAX,
    Accept,
    Accepted,
    AcceptedShort,
    AcceptOk,
    AcceptShort,
    Commit,
    CommitReq,
    CommitShort,
    Committed,
    CommittedShort,
    Forgotten,
    InProgress,
    Introduced,
    Nack,
    PreAccept,
    PreAccepted,
    PreAcceptOk,
    Progress,
    Promised,
    Recover,
    RecoverOk,
    Validate,
    ValidateOk,
    fits,
)
from epaxos.protocols.epaxos.messages import (
    Waiting as WaitingMessage,
)
from epaxos.protocols.epaxos.recovery import LIVE_INDEX_SPARE, RULES, Recovery

VALIDATE_RESENDS = 4
"""So often a Recover or Validate is asked again before the sweep takes a higher ballot."""
WAITING_RESENDS = 6
"""So often a Waiting is, likewise."""


NOTED_INSTANCES = 64
"""What is forgotten is noted in the log when it is so many instances more; so many more than live
ones a restart may hold."""


class EPaxosReplica(Leaderless, Recovery):
    """One member of an EPaxos* cluster; implements `epaxos.core.replica.Replica`."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.counts.update(dict.fromkeys(_COUNTERS, 0))
        self._started = False
        self._noted = 0
        """How many instances the last note says are forgotten."""
        self._top: Slot = 0
        """The highest slot that a message may make known; renewed when one is above it."""
        self._tick_at: Micros = 0
        """When to look at columns, members and heartbeats again."""
        self._handlers: dict[type[Message], Callable[[ReplicaId, Any, Micros], None]] = {
            PreAccept: self._on_preaccept,
            PreAcceptOk: self._on_preaccept_ok,
            Accept: self._on_accept,
            AcceptShort: self._on_accept_short,
            AcceptOk: self._on_accept_ok,
            Commit: self._on_commit,
            CommitShort: self._on_commit_short,
            Recover: self._on_recover,
            RecoverOk: self._on_recover_ok,
            Validate: self._on_validate,
            ValidateOk: self._on_validate_ok,
            WaitingMessage: self._on_waiting,
            Nack: self._on_nack,
            CommitReq: self._on_commit_req,
            InProgress: self._on_in_progress,
            Progress: self._on_progress,
        }
        self._restorers: dict[type[Record], Callable[[Any], None]] = {
            PreAccepted: self._restore_preaccepted,
            Promised: self._restore_promised,
            Accepted: self._restore_accepted,
            AcceptedShort: self._restore_accepted,
            Introduced: self._restore_introduced,
            Committed: self._restore_committed,
            CommittedShort: self._restore_committed,
            Forgotten: self._restore_forgotten,
        }

    # The central interface ---------------------------------------------------------------------

    @property
    def floor(self) -> Deps:
        """What may be forgotten (R15): every member knows that every member executed it."""
        return self.columns.floor

    @property
    def live_bytes(self) -> int:
        """Estimate of the memory held by instances above `floor`."""
        return self.columns.live_bytes

    def dependencies(self, footprint: Footprint) -> Deps:
        """The latest interfering id per column (R12: is a key contended?), at least stable (R15:
        the index may have dropped what everybody executed)."""
        return self.index.deps(footprint, self.columns.stable)

    def executed(self, durable: Deps, now: Micros) -> None:
        """Executed here without gaps and on disk; called at the take after the sync."""
        committed = tuple(self.columns.committed)
        if self._taken == self.out.taken:
            committed = self._committed_taken
        self.columns.executed_here(durable, committed, now)
        self._forget()

    def receive(self, source: ReplicaId, message: Message, now: Micros) -> None:
        """Dispatch one message of another member."""
        if not fits(message, self.n, self._top) and not self._fits_by_now(message):
            self.counts["ignored_malformed"] += 1
            self.out.distrust(source)
            return
        if self.columns.heard(source, now):
            self._ask_again((source,), now)
        self._handlers[type(message)](source, message, now)
        soon = now + self.columns.rtt_max // 4
        if soon < self._tick_at:
            self._tick_at = soon

    def _fits_by_now(self, message: Message) -> bool:
        self._top = max(self.columns.known) + SLOTS_LIVE_MAX
        return fits(message, self.n, self._top)

    def wake(self, now: Micros) -> None:
        """Ask again what was not answered, look at the columns, say that we live."""
        if not self._started:
            self._start(now)
        unanswered, asked_before = self._unanswered, now - self.columns.resend_us
        while unanswered and unanswered[0].asked_at <= asked_before:
            self._on_attempt_due(unanswered.popleft(), now)
        for attempt in self._timers.due(now):
            assert isinstance(attempt, Attempt), "timers are keyed by attempts"
            self._on_attempt_due(attempt, now)
        if self._tick_at <= now:
            self._tick(now)
        elif self.columns.progress_at <= now:
            self.out.broadcast(self.columns.progress(now))

    def deadline(self) -> Micros | None:
        """The earliest of: a question to repeat, the next tick, the next Progress."""
        if not self._started:
            return 0
        if self.n == 1:
            return None
        unanswered = self._unanswered
        while unanswered and not unanswered[0].live:
            unanswered.popleft()
        at = min(self._tick_at, self.columns.progress_at)
        if unanswered:
            at = min(at, unanswered[0].asked_at + self.columns.resend_us)
        timed = self._timers.next()
        return at if timed is None else min(at, timed)

    def unready(self) -> str | None:
        """Whether fewer than a slow quorum of members were heard lately."""
        reachable = self.columns.reachable()
        if reachable < self.sizes.slow:
            return (
                f"only {reachable} of {self.n} replicas are heard; {self.sizes.slow} must be there"
            )
        return None

    def slowest_member(self) -> ReplicaId | None:
        """The member whose executed vector is farthest behind."""
        return self.columns.slowest_member()

    def describe(self, instance: InstanceId) -> dict[str, Any] | None:
        """One instance as this replica knows it."""
        replica, slot = instance
        if not 0 <= replica < self.n:
            return None
        known = self.columns.get(replica, slot)
        if known is None:
            if 0 < slot <= self.columns.floor[replica]:
                return {"id": str(instance), "phase": "forgotten"}
            return None
        payload = known.payload
        return {
            "id": str(instance),
            "phase": Phase(known.phase).name.lower(),
            "promised": ballot_name(known.promised),
            "voted": ballot_name(known.voted),
            "deps": list(known.deps),
            "nop": known.is_nop,
            "commands": None if payload is None else len(payload.batch.keys),
            **show_footprint(None if payload is None else payload.footprint),
            "initial_deps": None if known.initial_deps is None else list(known.initial_deps),
            "attempt": None if known.attempt is None else type(known.attempt).__name__.lower(),
        }

    def statistics(self) -> dict[str, int]:
        """Counters since the start, and a few present sizes."""
        live = sum(map(len, self.columns.instances))
        return {**self.counts, "instances": live, "conflict_index": len(self.index)}

    def held(self) -> Tables:
        """Its tables; of the index of live ids what is above the bound that it may keep."""
        live = 0 if self._live is None else len(self._live)
        return Tables(
            {
                "attempts": len(self._unanswered) + len(self._timers) + len(self._waiting),
                "holes": self.columns.holes(),
            },
            {
                "instances": sum(map(len, self.columns.instances)),
                "bytes of instances": self.columns.live_bytes,
                "conflict index": len(self.index),
                "index of live ids": max(0, live - LIVE_INDEX_SPARE),
            },
        )

    def observe(self, instance: InstanceId, stamps: Stamps) -> None:
        """Write into `stamps`, from here on, who answers about an instance just proposed here."""
        attempt = self.columns.obtain(*instance).attempt
        if attempt is not None:
            attempt.stamps = stamps

    # Catching up -------------------------------------------------------------------------------

    def _on_in_progress(self, source: ReplicaId, m: InProgress, now: Micros) -> None:
        """Somebody works on these (R13: a slow disk must not make everybody recover).

        Requires: nothing.        Ensures: the sweep asks again later instead of recovering.
        Records:  nothing.        Sends: nothing."""
        self.columns.in_progress(m.replica, m.slots, now)

    def _on_progress(self, source: ReplicaId, m: Progress, now: Micros) -> None:
        """A member's vectors, and its heartbeat.

        Requires: nothing; vectors never go back.
        Ensures:  stable and floor move; what is <= floor is forgotten.
        Records:  nothing.        Sends: nothing."""
        self.columns.on_progress(source, m, now)
        self._forget()

    def _forget(self) -> None:
        columns = self.columns
        self.index.turn(columns.floor)
        self._let_go_of_live_index()
        forgotten = sum(columns.floor)
        if forgotten >= self._noted + NOTED_INSTANCES:
            self._noted = forgotten
            self.out.note(Forgotten(columns.stable, columns.floor))

    # Time --------------------------------------------------------------------------------------

    def _ask_again(self, members: Collection[ReplicaId], now: Micros) -> None:
        """These, suspected so far, are heard again: they are asked what they have not answered, and
        every question's back-off starts over."""
        for column in self.columns.instances:
            for instance in column.values():
                attempt = instance.attempt
                if attempt is None or self._awaits_fast_path(attempt):
                    continue
                attempt.resends = 0
                lost = [member for member in self._unheard(attempt) if member in members]
                if lost:
                    self._repeat(attempt, lost)
                self._timers.set(attempt, now + self.columns.resend_us)

    def _awaits_fast_path(self, attempt: Attempt) -> bool:
        """Whether a slow quorum has answered already."""
        return isinstance(attempt, PreAccepting) and attempt.replied.count >= self.sizes.slow

    def _on_attempt_due(self, attempt: Attempt, now: Micros) -> None:
        if not attempt.live:
            return
        if self._awaits_fast_path(attempt):
            assert isinstance(attempt, PreAccepting)
            self._consider_slow_path(attempt, now)
            return
        columns = self.columns
        unheard = lost = self._unheard(attempt)
        if not isinstance(attempt, Waiting):
            # A waiting one waits for what happens elsewhere, and says so again each time.
            lost = [each for each in unheard if columns.is_lost(each, attempt.asked_at, now)]
            if not lost:
                self._timers.set(attempt, now + columns.resend_us)
                return
        attempt.resends += 1
        attempt.asked_at = now
        if self._is_given_up(attempt, lost == unheard):
            waits = isinstance(attempt, Waiting)
            self.counts["waits_given_up" if waits else "questions_given_up"] += 1
            self._end_attempt(attempt.instance)
            return
        self._repeat(attempt, lost)
        self._timers.set(
            attempt, now + columns.capped(columns.resend_us << min(attempt.resends, 6))
        )

    def _unheard(self, attempt: Attempt) -> list[ReplicaId]:
        """Whose answer to the attempt's question is not in."""
        among: Iterable[ReplicaId] = range(self.n)
        heard: Tally | Collection[ReplicaId]
        if isinstance(attempt, Validating):
            among, heard = attempt.quorum, attempt.replied
        elif isinstance(attempt, Recovering):
            heard = attempt.votes
        elif isinstance(attempt, Waiting):
            heard = attempt.quorum
        else:
            assert isinstance(attempt, PreAccepting | Accepting), "every stage asks something"
            heard = attempt.replied
        return [member for member in among if member not in heard and member != self.me]

    def _resend_agreement(self, attempt: PreAccepting | Accepting, lost: list[ReplicaId]) -> None:
        """Ask again those whose answer was lost; the whole payload, since they may lack it."""
        instance = attempt.instance
        replica, slot = instance.replica, instance.slot
        message: Message
        if isinstance(attempt, Accepting):
            message = Accept(replica, slot, attempt.ballot, instance.payload, instance.deps)
        else:
            assert instance.payload is not None, "a pre-accepted instance has a payload"
            message = PreAccept(replica, slot, instance.payload, instance.deps)
        for member in lost:
            self.out.send(member, message)

    def _is_given_up(self, attempt: Attempt, all_lost: bool) -> bool:
        """Whether a recovery has asked often enough: it is time for a higher ballot. Not while an
        answer may still come, which a higher ballot would only ask for again."""
        if isinstance(attempt, PreAccepting | Accepting):
            return False
        waits = isinstance(attempt, Waiting)
        return all_lost and attempt.resends > (WAITING_RESENDS if waits else VALIDATE_RESENDS)

    def _repeat(self, attempt: Attempt, members: list[ReplicaId]) -> None:
        """Ask them again whatever the stage asks."""
        self.counts["resends"] += 1
        if isinstance(attempt, PreAccepting | Accepting):
            self._resend_agreement(attempt, members)
        else:
            self._resend_recovery(attempt, members)

    def _resend_recovery(self, attempt: Attempt, lost: list[ReplicaId]) -> None:
        """The question of a recovery; a Waiting says so to all."""
        key = attempt.instance.id
        message: Message = Recover(attempt.replica, [attempt.slot], attempt.ballot)
        if isinstance(attempt, Waiting):
            self.out.broadcast(WaitingMessage(*key, attempt.matching))
        elif isinstance(attempt, Validating):
            message = Validate(*key, attempt.ballot, attempt.payload, attempt.deps)
        for member in lost:
            self.out.send(member, message)

    def _tick(self, now: Micros) -> None:
        columns = self.columns
        columns.look_round(now)
        self.answers.turn(now)
        for sweep in columns.sweep(now):
            if sweep.recover:
                self._start_recover(sweep.replica, sweep.slots, now)
            else:
                self._ask(sweep)
        if columns.progress_at <= now:
            self.out.broadcast(columns.progress(now))
        busy = any(map(int.__gt__, columns.known, columns.committed))
        self._tick_at = now + columns.rtt_max // 4 if busy else columns.progress_at

    def _ask(self, sweep: Sweep) -> None:
        self.counts["asks"] += 1
        message = CommitReq(sweep.replica, sweep.slots)
        if sweep.member is None:
            self.out.broadcast(message)
        else:
            self.out.send(sweep.member, message)

    def _start(self, now: Micros) -> None:
        """Restore is over: resume what this replica led (4.5, 1.14)."""
        self._started = True
        self.columns.start(now)
        self._tick_at = now
        for column in self.columns.instances:
            for _, instance in sorted(column.items()):
                self._resume(instance, now)

    def _resume(self, instance: Instance, now: Micros) -> None:
        replica, slot = instance.replica, instance.slot
        owner = replica if instance.promised == 0 else ballot_replica(instance.promised)
        if owner != self.me or instance.promised != instance.voted:
            return
        if instance.phase == PREACCEPTED:
            assert instance.payload is not None, "a pre-accepted instance has a payload"
            self._start_preaccept(instance, instance.payload, instance.deps, now)
        elif instance.phase == ACCEPTED:
            self.out.broadcast(
                Accept(replica, slot, instance.voted, instance.payload, instance.deps)
            )
            self._await_accepts(instance, now)

    # Restore -----------------------------------------------------------------------------------

    def restore(self, record: Record) -> None:
        """Replay one record of the own log; nothing is recorded again."""
        assert not self._started, "restore comes before the first wake"
        self._restorers[type(record)](record)

    def _restore_preaccepted(self, r: PreAccepted) -> None:
        instance = self.columns.obtain(r.replica, r.slot)
        self._vote_preaccepted(instance, r.payload, r.initial_deps, r.deps)
        if r.replica == self.me:
            self._next_slot = max(self._next_slot, r.slot + 1)

    def _restore_promised(self, r: Promised) -> None:
        for slot in r.slots:
            instance = self.columns.obtain(r.replica, slot)
            instance.promised = max(instance.promised, r.ballot)

    def _restore_accepted(self, r: Accepted | AcceptedShort) -> None:
        instance = self.columns.obtain(r.replica, r.slot)
        payload = r.payload if isinstance(r, Accepted) else instance.initial_payload
        instance.phase = ACCEPTED
        instance.promised = max(instance.promised, r.ballot)
        instance.voted = r.ballot
        instance.payload = payload
        instance.deps = r.deps
        if payload is not None:
            self._remember(instance, payload)

    def _restore_introduced(self, r: Introduced) -> None:
        instance = self.columns.obtain(r.replica, r.slot)
        if instance.phase == INITIAL:
            instance.payload = r.payload
        instance.initial_payload = r.payload
        instance.initial_deps = r.initial_deps
        self._remember(instance, r.payload)

    def _restore_committed(self, r: Committed | CommittedShort) -> None:
        instance = self.columns.obtain(r.replica, r.slot)
        payload = r.payload if isinstance(r, Committed) else instance.initial_payload
        if instance.phase != COMMITTED:
            self._become_committed(instance, payload, r.deps, Path.LEARNED)

    def _restore_forgotten(self, r: Forgotten) -> None:
        self.columns.restore(r.stable, r.floor)
        self.index.turn(self.columns.floor)
        self._noted = sum(self.columns.floor)


_COUNTERS = (
    "fast",
    "slow",
    "recovered",
    "nop",
    "recoveries",
    *(f"recover_rule_{rule}" for rule in RULES),
    "nacks",
    "asks",
    "resends",
    "ignored_exhausted",
    "ignored_malformed",
    "commits_cut",
    "votes_cut",
    "questions_given_up",
    "waits_given_up",
)
"""The keys of `statistics`, in the order of a report."""
