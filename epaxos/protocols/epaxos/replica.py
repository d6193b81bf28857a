"""The EPaxos* replica: the central interface, and agreement in the paper's order.

PreAccept, Accept and Commit follow EPaxos* Figure 3 (l.8-42) with the hardening H1-H16 and the
rules R1-R17 of the protocol reference; recovery (l.43-87) stands in recovery.py, vectors and the
sweep in columns.py.

Rules of this file: a vote is recorded before it leaves (the law of durability keeps the order); a
message is never mutated; stale and duplicate input is ignored by name; nothing is raised because of
what a peer sent.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from epaxos.core.command import Footprint, Payload, show_footprint
from epaxos.core.quorum import quorums
from epaxos.core.replica import Leaderless, Message, Outbox, Path, Record, Setup, Timers
from epaxos.core.stamps import Stamps
from epaxos.core.types import (
    Ballot,
    Deps,
    InstanceId,
    Micros,
    ReplicaId,
    Slot,
    ballot_name,
    ballot_replica,
    merge,
)
from epaxos.protocols.epaxos.columns import Columns
from epaxos.protocols.epaxos.conflicts import ConflictIndex
from epaxos.protocols.epaxos.instance import (
    COMMAND_BYTES,
    Accepting,
    Attempt,
    Instance,
    Phase,
    PreAccepting,
    Waiting,
)
from epaxos.protocols.epaxos.messages import (
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
from epaxos.protocols.epaxos.recovery import RULES, Recovery

COMMITS_PER_ANSWER = 512
"""A CommitReq is answered with at most so many Commits ..."""
COMMIT_BYTES_PER_ANSWER = 2 * 1024 * 1024
"""... and stops after so many bytes of payload; the asker comes back for the rest."""
FAST_PATH_GRACE_US = 2_000
"""What a reply may be later than its measured round trip before the fast path is given up (H7)."""


class EPaxosReplica(Leaderless, Recovery):
    """One member of an EPaxos* cluster; implements `epaxos.core.replica.Replica`."""

    def __init__(self, setup: Setup) -> None:
        self.me = setup.me
        self.n = setup.n
        self.sizes = quorums(setup.n)
        self.out = Outbox()
        self.columns = Columns(setup.me, setup.n, setup.rtt_us, setup.random)
        self.index = ConflictIndex(setup.n)
        self.counts: dict[str, int] = dict.fromkeys(_COUNTERS, 0)
        self._next_slot: Slot = 1
        """The next own slot: 1 + the highest own slot in the log (R2)."""
        self._started = False
        self._tick_at: Micros = 0
        """When to look at columns, members and heartbeats again."""
        self._unanswered: deque[tuple[Micros, Attempt]] = deque()
        """Attempts whose question was asked once, in the order of asking."""
        self._timers = Timers()
        """Deadlines of single attempts: asked more than once, or waiting for the fast path."""
        self._nacked: list[Ballot] = [0] * setup.n
        self._waiting: dict[tuple[ReplicaId, Slot], Waiting] = {}
        self._waiting_seen: dict[tuple[ReplicaId, Slot], int] = {}
        self._committed_taken: Deps = (0,) * setup.n
        """The committed vector when the outbox was last emptied."""
        self._taken = 0
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
        }

    # The central interface ---------------------------------------------------------------------

    @property
    def floor(self) -> Deps:
        """What may be forgotten (R15)."""
        return self.columns.floor

    @property
    def live_bytes(self) -> int:
        """Estimate of the memory held by instances above `floor`."""
        return self.columns.live_bytes

    def dependencies(self, footprint: Footprint) -> Deps:
        """The latest interfering id per column, at least stable (R12, R15)."""
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
        if not fits(message, self.n):
            return
        if self.columns.heard(source, now):
            self._ask_again(now)
        self._handlers[type(message)](source, message, now)
        soon = now + self.columns.rtt_max // 4
        if soon < self._tick_at:
            self._tick_at = soon

    def wake(self, now: Micros) -> None:
        """Ask again what was not answered, look at the columns, say that we live."""
        if not self._started:
            self._start(now)
        while self._unanswered and self._unanswered[0][0] <= now:
            self._on_attempt_due(self._unanswered.popleft()[1], now)
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
        while unanswered and not unanswered[0][1].live:
            unanswered.popleft()
        at = min(self._tick_at, self.columns.progress_at)
        if unanswered and unanswered[0][0] < at:
            at = unanswered[0][0]
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
            "nop": known.phase >= Phase.ACCEPTED and payload is None,
            "commands": None if payload is None else len(payload.batch.keys),
            **show_footprint(None if payload is None else payload.footprint),
            "initial_deps": None if known.initial_deps is None else list(known.initial_deps),
            "attempt": None if known.attempt is None else type(known.attempt).__name__.lower(),
        }

    def statistics(self) -> dict[str, int]:
        """Counters since the start, and a few present sizes."""
        live = sum(map(len, self.columns.instances))
        return {**self.counts, "instances": live, "conflict_index": len(self.index)}

    # Phase 1 -----------------------------------------------------------------------------------

    def propose(self, payload: Payload, now: Micros) -> InstanceId:
        """Phase 1 at the command leader (l.8-10).

        Ensures:  a new own instance, PreAccepted, with D0 = stable and all that interferes here.
        Records:  PreAccepted, which also allocates the slot (R2).        Sends: PreAccept to
        all."""
        slot = self._next_slot
        self._next_slot += 1
        deps = self.index.deps(payload.footprint, self.columns.stable)
        instance = self.columns.obtain(self.me, slot)
        self._vote_preaccepted(self.me, slot, instance, payload, deps, deps)
        self.out.record(PreAccepted(self.me, slot, payload, deps, deps))
        self._start_preaccept(slot, instance, payload, deps, now)
        return InstanceId(self.me, slot)

    def observe(self, instance: InstanceId, stamps: Stamps) -> None:
        """Write into `stamps`, from here on, who answers about an instance just proposed here."""
        attempt = self.columns.obtain(*instance).attempt
        if attempt is not None:
            attempt.stamps = stamps

    def _start_preaccept(
        self, slot: Slot, instance: Instance, payload: Payload, deps: Deps, now: Micros
    ) -> None:
        attempt = PreAccepting(self.me, slot, instance, deps, now)
        instance.attempt = attempt
        if self.n == 1:
            self._commit_fast(attempt, now)
            return
        self.out.broadcast(PreAccept(self.me, slot, payload, deps))
        self._watch(attempt, now)

    def _on_preaccept(self, source: ReplicaId, m: PreAccept, now: Micros) -> None:
        """Phase 1 at a replica that is not the command leader (l.11-18).

        Requires: the sender leads the instance; promised = 0, otherwise Nack; phase Initial,
                  otherwise the answer given before (H9), or Commit.
        Ensures:  PreAccepted with deps = D0, all that interferes here, and floor (R15); the command
                  leader's own column stays as it came.
        Records:  PreAccepted.        Sends: PreAcceptOk to source."""
        replica, slot = m.replica, m.slot
        if source != replica or self._ignore_forgotten(replica, slot):
            return
        instance = self.columns.obtain(replica, slot)
        if instance.phase == Phase.COMMITTED:
            self._send_commit(source, replica, slot, instance)
        elif instance.promised > 0:
            self.out.send(source, Nack(replica, [slot], instance.promised))
        elif instance.phase == Phase.PREACCEPTED:
            self.out.send(source, PreAcceptOk(replica, slot, instance.deps))
        elif instance.phase == Phase.INITIAL:
            deps = self._acceptor_deps(replica, m.payload, m.deps)
            self._vote_preaccepted(replica, slot, instance, m.payload, m.deps, deps)
            self.out.record(PreAccepted(replica, slot, m.payload, m.deps, deps))
            self.out.send(source, PreAcceptOk(replica, slot, deps))

    def _acceptor_deps(self, replica: ReplicaId, payload: Payload, initial: Deps) -> Deps:
        floor = self.columns.floor
        base = initial if all(map(int.__ge__, initial, floor)) else merge(initial, floor)
        deps = self.index.deps(payload.footprint, base)
        if deps is initial or deps[replica] == initial[replica]:
            return deps
        return (*deps[:replica], initial[replica], *deps[replica + 1 :])

    def _vote_preaccepted(
        self,
        replica: ReplicaId,
        slot: Slot,
        instance: Instance,
        payload: Payload,
        initial_deps: Deps,
        deps: Deps,
    ) -> None:
        instance.phase = Phase.PREACCEPTED
        instance.payload = instance.initial_payload = payload
        instance.initial_deps = initial_deps
        instance.deps = deps
        self._remember(replica, slot, instance, payload)

    def _on_preaccept_ok(self, source: ReplicaId, m: PreAcceptOk, now: Micros) -> None:
        """Phase 1 at the command leader (l.19-25).

        Requires: the ballot-0 attempt still runs (H14).
        Ensures:  decided when a fast quorum equals the initial deps; the slow path when a slow
                  quorum has answered and the fast path is given up (H7).
        Records, sends: as the step taken says."""
        if m.replica != self.me:
            return
        instance = self.columns.get(m.replica, m.slot)
        attempt = None if instance is None else instance.attempt
        if not isinstance(attempt, PreAccepting) or not attempt.replied.add(source):
            return
        if attempt.stamps is not None:
            attempt.stamps.answered(source, now, m.deps, attempt.instance.deps)
        if m.deps == attempt.instance.deps:
            attempt.same += 1
            if attempt.same >= self.sizes.fast:
                self._commit_fast(attempt, now)
                return
        else:
            attempt.union = merge(attempt.union, m.deps)
        if attempt.replied.count >= self.sizes.slow:
            self._consider_slow_path(attempt, now)

    def _commit_fast(self, attempt: PreAccepting, now: Micros) -> None:
        """Decide by the fast path; durable here before anyone hears of it (2.6)."""
        slot, instance = attempt.slot, attempt.instance
        self.counts["fast"] += 1
        self._commit(self.me, slot, instance, instance.payload, instance.deps, Path.FAST, now)
        self.out.broadcast(CommitShort(self.me, slot, instance.deps))

    def _consider_slow_path(self, attempt: PreAccepting, now: Micros) -> None:
        """H7: start Accept unless the missing equal replies are nearer than the Accept round.

        Needs a slow quorum of replies. Free for safety, decides latency."""
        wait_until = self._fast_path_hope(attempt, now)
        if wait_until > now:
            self._timers.set(attempt, wait_until)
            return
        self.counts["slow"] += 1
        if attempt.stamps is not None:
            attempt.stamps.accept_at = now
        slot, instance = attempt.slot, attempt.instance
        self._start_accept(self.me, slot, instance, 0, instance.payload, attempt.union, now)

    def _fast_path_hope(self, attempt: PreAccepting, now: Micros) -> Micros:
        """Until when the fast path is worth waiting for; 0 if it is not."""
        missing = self.sizes.fast - attempt.same
        rtts = sorted(
            self.columns.rtt_us[member]
            for member in range(self.n)
            if member not in attempt.replied and not self.columns.suspects(member)
        )
        if len(rtts) < missing:
            return 0
        rtt = rtts[missing - 1]
        others = sorted(rtt for member, rtt in enumerate(self.columns.rtt_us) if member != self.me)
        accept_round = others[self.sizes.slow - 2]
        if attempt.proposed_at + rtt >= now + accept_round:
            return 0
        return attempt.proposed_at + rtt + rtt // 5 + FAST_PATH_GRACE_US

    # Phase 2 -----------------------------------------------------------------------------------

    def _start_accept(
        self,
        replica: ReplicaId,
        slot: Slot,
        instance: Instance,
        ballot: Ballot,
        payload: Payload | None,
        deps: Deps,
        now: Micros,
    ) -> None:
        """Phase 2 at the owner of the ballot; it accepts first itself.

        Records:  Accepted.        Sends: Accept to all (b0: its short form)."""
        self._vote_accepted(replica, slot, instance, ballot, payload, deps)
        attempt = Accepting(replica, slot, instance, ballot, self.me)
        instance.attempt = attempt
        if ballot == 0:
            self.out.broadcast(AcceptShort(replica, slot, deps))
        else:
            self.out.broadcast(Accept(replica, slot, ballot, payload, deps))
        self._watch(attempt, now)
        self._commit_if_accepted(attempt, now)

    def _vote_accepted(
        self,
        replica: ReplicaId,
        slot: Slot,
        instance: Instance,
        ballot: Ballot,
        payload: Payload | None,
        deps: Deps,
    ) -> None:
        """Vote in phase 2 and record it; the introduction stays as it is (R1)."""
        instance.phase = Phase.ACCEPTED
        instance.promised = instance.voted = ballot
        instance.payload = payload
        instance.deps = deps
        if payload is not None:
            self._remember(replica, slot, instance, payload)
        if payload is not None and instance.initial_payload is not None:
            self.out.record(AcceptedShort(replica, slot, ballot, deps))
        else:
            self.out.record(Accepted(replica, slot, ballot, payload, deps))

    def _on_accept(self, source: ReplicaId, m: Accept, now: Micros) -> None:
        """Phase 2 at an acceptor (l.26-33).

        Requires: the ballot is the sender's (0 is the command leader's) and >= promised, otherwise
                  Nack; a committed instance answers Commit (H2).
        Ensures:  Accepted in that ballot; a lower attempt here ends.
        Records:  Accepted, once.        Sends: AcceptOk to source."""
        owner = m.replica if m.ballot == 0 else ballot_replica(m.ballot)
        if source == owner:
            self._accept(source, m.replica, m.slot, m.ballot, m.payload, m.deps)

    def _on_accept_short(self, source: ReplicaId, m: AcceptShort, now: Micros) -> None:
        """Phase 2 in b0 at an acceptor, as `_on_accept`.

        Requires: the sender leads the instance, and its PreAccept came; otherwise ignored.
        Ensures, records, sends: as `_on_accept`."""
        known = self.columns.get(m.replica, m.slot)
        if source == m.replica and known is not None and known.initial_payload is not None:
            self._accept(source, m.replica, m.slot, 0, known.initial_payload, m.deps)

    def _accept(
        self,
        source: ReplicaId,
        replica: ReplicaId,
        slot: Slot,
        ballot: Ballot,
        payload: Payload | None,
        deps: Deps,
    ) -> None:
        if self._ignore_forgotten(replica, slot):
            return
        instance = self.columns.obtain(replica, slot)
        if instance.phase == Phase.COMMITTED:
            self._send_commit(source, replica, slot, instance)
            return
        if instance.promised > ballot:
            self.out.send(source, Nack(replica, [slot], instance.promised))
            return
        if instance.phase < Phase.ACCEPTED or instance.voted != ballot:
            self._end_attempt(replica, slot, instance)
            self._vote_accepted(replica, slot, instance, ballot, payload, deps)
        self.out.send(source, AcceptOk(replica, slot, ballot))

    def _on_accept_ok(self, source: ReplicaId, m: AcceptOk, now: Micros) -> None:
        """Phase 2 at the owner of the ballot (l.34-36).

        Requires: the Accepting attempt of that very ballot (H13).
        Ensures:  decided when a slow quorum has accepted.
        Records, sends: as the commit says."""
        instance = self.columns.get(m.replica, m.slot)
        attempt = None if instance is None else instance.attempt
        if (
            isinstance(attempt, Accepting)
            and attempt.ballot == m.ballot
            and attempt.replied.add(source)
        ):
            if attempt.stamps is not None:
                attempt.stamps.accepted(source, now)
            self._commit_if_accepted(attempt, now)

    def _commit_if_accepted(self, attempt: Accepting, now: Micros) -> None:
        if attempt.replied.count < self.sizes.slow:
            return
        replica, slot, instance = attempt.replica, attempt.slot, attempt.instance
        payload, deps = instance.payload, instance.deps
        path = Path.SLOW if attempt.ballot == 0 else Path.RECOVERED
        self._commit(replica, slot, instance, payload, deps, path, now)
        if payload is not None and attempt.ballot == 0:
            self.out.broadcast(CommitShort(replica, slot, deps))
        else:
            self.out.broadcast(Commit(replica, slot, payload, deps))

    # Commit ------------------------------------------------------------------------------------

    def _commit(
        self,
        replica: ReplicaId,
        slot: Slot,
        instance: Instance,
        payload: Payload | None,
        deps: Deps,
        path: Path,
        now: Micros,
    ) -> None:
        """Decided here: the vote becomes final and goes to execution; who waits for it looks again.

        Records:  Committed; synced before anything leaves only on the fast path (1.12)."""
        columns = self.columns
        if self._taken != self.out.taken:
            self._taken = self.out.taken
            self._committed_taken = tuple(columns.committed)
        short = payload is not None and instance.initial_payload is not None
        record = (
            CommittedShort(replica, slot, deps)
            if short
            else Committed(replica, slot, payload, deps)
        )
        if path is Path.FAST:
            self.out.record(record)
        else:
            self.out.note(record)
        self._become_committed(replica, slot, instance, payload, deps, path)
        if payload is None:
            self.counts["nop"] += 1
        if path is Path.RECOVERED:
            self.counts["recovered"] += 1
        if self._waiting_seen:
            self._waiting_seen.pop((replica, slot), None)
        if self._waiting:
            self._reconsider_all(now)

    def _become_committed(
        self,
        replica: ReplicaId,
        slot: Slot,
        instance: Instance,
        payload: Payload | None,
        deps: Deps,
        path: Path,
    ) -> None:
        self._end_attempt(replica, slot, instance)
        instance.phase = Phase.COMMITTED
        instance.payload = payload
        instance.deps = deps
        if payload is not None:
            self._remember(replica, slot, instance, payload)
        self.columns.hear_of(deps)
        if slot == self.columns.committed[replica] + 1:
            self.columns.advance(replica)
        self.out.commit(replica, slot, deps, payload, path)

    def _on_commit(self, source: ReplicaId, m: Commit, now: Micros) -> None:
        """The instance is decided (l.37-42); always accepted (H1).

        Requires: nothing; a duplicate is ignored.
        Ensures:  Committed.
        Records:  Committed, as a note.        Sends: nothing."""
        if self._ignore_forgotten(m.replica, m.slot):
            return
        instance = self.columns.obtain(m.replica, m.slot)
        if instance.phase != Phase.COMMITTED:
            path = self._how_learned(m.replica)
            self._commit(m.replica, m.slot, instance, m.payload, m.deps, path, now)

    def _on_commit_short(self, source: ReplicaId, m: CommitShort, now: Micros) -> None:
        """The instance's real payload is decided with these deps.

        Requires: the payload is known here; otherwise it is fetched.
        Ensures:  Committed, if the payload is known.
        Records:  Committed, as a note.        Sends: CommitReq to source, if not."""
        if self._ignore_forgotten(m.replica, m.slot):
            return
        instance = self.columns.obtain(m.replica, m.slot)
        if instance.phase == Phase.COMMITTED:
            return
        payload = instance.real_payload
        if payload is None:
            self.out.send(source, CommitReq(m.replica, [m.slot]))
        else:
            path = self._how_learned(m.replica)
            self._commit(m.replica, m.slot, instance, payload, m.deps, path, now)

    def _how_learned(self, replica: ReplicaId) -> Path:
        return Path.RECOVERED if replica == self.me else Path.LEARNED

    def _on_commit_req(self, source: ReplicaId, m: CommitReq, now: Micros) -> None:
        """Somebody misses commits; only Committed is ever handed out.

        Requires: slots above floor; of the others the sender has executed all.
        Ensures:  nothing changes.
        Records:  nothing.        Sends: Commit per committed slot, InProgress for those under
        way."""
        busy: list[Slot] = []
        size = 0
        for slot in m.slots[:COMMITS_PER_ANSWER]:
            instance = self.columns.get(m.replica, slot)
            if instance is None:
                continue
            if instance.phase == Phase.COMMITTED:
                self._send_commit(source, m.replica, slot, instance)
                size += 0 if instance.payload is None else len(instance.payload.encoded)
                if size > COMMIT_BYTES_PER_ANSWER:
                    self.counts["commits_cut"] += slot != m.slots[-1]
                    break
            elif instance.attempt is not None:
                busy.append(slot)
        if busy:
            self.out.send(source, InProgress(m.replica, busy))

    def _on_in_progress(self, source: ReplicaId, m: InProgress, now: Micros) -> None:
        """Somebody works on these (R13).

        Requires: nothing.        Ensures: the sweep asks again later instead of recovering.
        Records:  nothing.        Sends: nothing."""
        if self.columns.committed[m.replica] + 1 in m.slots:
            self.columns.in_progress(m.replica, now)

    def _on_progress(self, source: ReplicaId, m: Progress, now: Micros) -> None:
        """A member's vectors, and its heartbeat.

        Requires: nothing; vectors never go back.
        Ensures:  stable and floor move; what is <= floor is forgotten.
        Records:  nothing.        Sends: nothing."""
        self.columns.on_progress(source, m, now)
        self._forget()

    def _forget(self) -> None:
        self.index.turn(self.columns.floor)

    def _remember(
        self, replica: ReplicaId, slot: Slot, instance: Instance, payload: Payload
    ) -> None:
        """Index an id under its real payload, once, and count what it costs."""
        if not instance.indexed:
            instance.indexed = True
            self.index.add(replica, slot, payload.footprint)
            self.columns.charge(
                instance, len(payload.encoded) + COMMAND_BYTES * len(payload.batch.keys)
            )

    # Time --------------------------------------------------------------------------------------

    def _watch(self, attempt: Attempt, now: Micros) -> None:
        """Ask again if the attempt is not answered in time."""
        self._unanswered.append((now + self.columns.resend_us, attempt))

    def _ask_again(self, now: Micros) -> None:
        """A suspected member is heard again: every question's back-off starts over."""
        for column in self.columns.instances:
            for instance in column.values():
                if instance.attempt is not None:
                    instance.attempt.resends = 0
                    self._timers.set(instance.attempt, now)

    def _on_attempt_due(self, attempt: Attempt, now: Micros) -> None:
        if not attempt.live:
            return
        if isinstance(attempt, PreAccepting) and attempt.replied.count >= self.sizes.slow:
            self._consider_slow_path(attempt, now)
            return
        attempt.resends += 1
        self.counts["resends"] += 1
        if isinstance(attempt, PreAccepting | Accepting):
            self._resend_agreement(attempt)
        elif not self._resend_recovery(attempt):
            return
        wait = self.columns.capped(self.columns.resend_us << min(attempt.resends, 6))
        self._timers.set(attempt, now + wait)

    def _resend_agreement(self, attempt: PreAccepting | Accepting) -> None:
        instance = attempt.instance
        message: Message
        if isinstance(attempt, Accepting):
            message = Accept(
                attempt.replica, attempt.slot, attempt.ballot, instance.payload, instance.deps
            )
        else:
            assert instance.payload is not None, "a pre-accepted instance has a payload"
            message = PreAccept(attempt.replica, attempt.slot, instance.payload, instance.deps)
        for member in range(self.n):
            if member not in attempt.replied:
                self.out.send(member, message)

    def _tick(self, now: Micros) -> None:
        columns = self.columns
        columns.look_round(now)
        for sweep in columns.sweep(now):
            if sweep.recover:
                self._start_recover(sweep.replica, sweep.slots, now)
            else:
                self._ask(sweep.replica, sweep.slots)
        if columns.progress_at <= now:
            self.out.broadcast(columns.progress(now))
        busy = any(map(int.__gt__, columns.known, columns.committed))
        self._tick_at = now + columns.rtt_max // 4 if busy else columns.progress_at

    def _ask(self, replica: ReplicaId, slots: list[Slot]) -> None:
        self.counts["asks"] += 1
        message = CommitReq(replica, slots)
        member = self.columns.informed(replica, slots[0])
        if member is None:
            self.out.broadcast(message)
        else:
            self.out.send(member, message)

    def _start(self, now: Micros) -> None:
        """Restore is over: resume what this replica led (4.5, 1.14)."""
        self._started = True
        self.columns.start(now)
        self._tick_at = now
        for replica, column in enumerate(self.columns.instances):
            for slot, instance in sorted(column.items()):
                self._resume(replica, slot, instance, now)

    def _resume(self, replica: ReplicaId, slot: Slot, instance: Instance, now: Micros) -> None:
        owner = replica if instance.promised == 0 else ballot_replica(instance.promised)
        if owner != self.me or instance.promised != instance.voted:
            return
        if instance.phase == Phase.PREACCEPTED:
            assert instance.payload is not None, "a pre-accepted instance has a payload"
            self._start_preaccept(slot, instance, instance.payload, instance.deps, now)
        elif instance.phase == Phase.ACCEPTED:
            attempt = Accepting(replica, slot, instance, instance.voted, self.me)
            instance.attempt = attempt
            self.out.broadcast(
                Accept(replica, slot, instance.voted, instance.payload, instance.deps)
            )
            self._watch(attempt, now)
            self._commit_if_accepted(attempt, now)

    # Restore -----------------------------------------------------------------------------------

    def restore(self, record: Record) -> None:
        """Replay one record of the own log; nothing is recorded again."""
        self._restorers[type(record)](record)

    def _restore_preaccepted(self, r: PreAccepted) -> None:
        instance = self.columns.obtain(r.replica, r.slot)
        self._vote_preaccepted(r.replica, r.slot, instance, r.payload, r.initial_deps, r.deps)
        if r.replica == self.me:
            self._next_slot = max(self._next_slot, r.slot + 1)

    def _restore_promised(self, r: Promised) -> None:
        for slot in r.slots:
            instance = self.columns.obtain(r.replica, slot)
            instance.promised = max(instance.promised, r.ballot)

    def _restore_accepted(self, r: Accepted | AcceptedShort) -> None:
        instance = self.columns.obtain(r.replica, r.slot)
        payload = r.payload if isinstance(r, Accepted) else instance.initial_payload
        instance.phase = Phase.ACCEPTED
        instance.promised = max(instance.promised, r.ballot)
        instance.voted = r.ballot
        instance.payload = payload
        instance.deps = r.deps
        if payload is not None:
            self._remember(r.replica, r.slot, instance, payload)

    def _restore_introduced(self, r: Introduced) -> None:
        instance = self.columns.obtain(r.replica, r.slot)
        if instance.phase == Phase.INITIAL:
            instance.payload = r.payload
        instance.initial_payload = r.payload
        instance.initial_deps = r.initial_deps
        self._remember(r.replica, r.slot, instance, r.payload)

    def _restore_committed(self, r: Committed | CommittedShort) -> None:
        instance = self.columns.obtain(r.replica, r.slot)
        payload = r.payload if isinstance(r, Committed) else instance.initial_payload
        if instance.phase != Phase.COMMITTED:
            self._become_committed(r.replica, r.slot, instance, payload, r.deps, Path.LEARNED)


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
    "commits_cut",
    "votes_cut",
    "questions_given_up",
    "waits_given_up",
)
"""The keys of `statistics`, in the order of a report."""
