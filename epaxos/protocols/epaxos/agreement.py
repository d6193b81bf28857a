"""Agreement in the paper's order: PreAccept, Accept, Commit (EPaxos*, Figure 3, l.8-42).

What surrounds the paper's lines is the hardening H1-H16 and the rules R1-R17 of the protocol
reference: idempotence, ballots, and what a replica answers that knows better.

Rules of this file: a vote is recorded before it leaves (the law of durability keeps the order); a
message is never mutated; stale and duplicate input is ignored by name.
"""

from epaxos.core.command import Payload
from epaxos.core.replica import Path
from epaxos.core.types import (
    Ballot,
    Deps,
    InstanceId,
    Micros,
    ReplicaId,
    Slot,
    ballot_replica,
    merge,
)
from epaxos.protocols.epaxos.instance import (
    ACCEPTED,
    COMMITTED,
    INITIAL,
    PREACCEPTED,
    Accepting,
    Instance,
    PreAccepting,
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
    InProgress,
    Nack,
    PreAccept,
    PreAccepted,
    PreAcceptOk,
)
from epaxos.protocols.epaxos.state import ReplicaState

COMMITS_PER_ANSWER = 512
"""A CommitReq is answered with at most so many Commits ..."""
COMMIT_BYTES_PER_ANSWER = 2 * 1024 * 1024
"""... and stops after so many bytes of payload; the asker comes back for the rest."""
FAST_PATH_GRACE_US = 2_000
"""What a reply may be later than its member's answers lately were, beside a fifth of that, before
the fast path is given up (H7)."""
LATENESS_FACTOR = 4
"""How many times as late as the slow quorum was, more than usual, any other member may be."""


class Agreement(ReplicaState):
    """The part of a replica that decides instances without failures, and helps others to."""

    # Phase 1 -----------------------------------------------------------------------------------

    def propose(self, payload: Payload, now: Micros) -> InstanceId:
        """Phase 1 at the command leader (l.8-10).

        Ensures:  a new own instance, PreAccepted, with D0 = stable and all that interferes here.
        Records:  PreAccepted, which also allocates the slot (R2: no holes).        Sends:
        PreAccept to all."""
        # Only a broken peer takes over, decides, or has all execute, what was never proposed; or
        # one that remembers a life whose log was lost.
        slot = max(self._next_slot, self.columns.floor[self.me] + 1)
        instance = self.columns.obtain(self.me, slot)
        while self._is_taken(instance):
            slot += 1
            instance = self.columns.obtain(self.me, slot)
        self._next_slot = slot + 1
        deps = self.index.deps(payload.footprint, self.columns.stable)
        self._vote_preaccepted(instance, payload, deps, deps)
        self.out.record(PreAccepted(self.me, slot, payload, deps, deps))
        self._start_preaccept(instance, payload, deps, now)
        return InstanceId(self.me, slot)

    def _is_taken(self, instance: Instance) -> bool:
        """Whether an own instance was promised to another, or decided, before it was proposed."""
        return instance.promised > 0 or instance.phase != INITIAL

    def _start_preaccept(
        self, instance: Instance, payload: Payload, deps: Deps, now: Micros
    ) -> None:
        assert instance.replica == self.me, "its command leader proposes it"
        assert instance.promised == 0, "a promise above ballot 0 forbids its votes (H14)"
        attempt = PreAccepting(instance, deps)
        instance.attempt = attempt
        instance.proposed_at = now
        if self.n == 1:
            self._commit_fast(attempt, now)
            return
        self.out.broadcast(PreAccept(self.me, instance.slot, payload, deps))
        self._watch(attempt, now)

    def _on_preaccept(self, source: ReplicaId, m: PreAccept, now: Micros) -> None:
        """Phase 1 at a replica that is not the command leader (l.11-18).

        Requires: the sender leads the instance; promised = 0, otherwise Nack; phase Initial,
                  otherwise the answer given before (H9: questions are repeated), or Commit.
        Ensures:  PreAccepted with deps = D0, all that interferes here, and floor (R15: forgotten
                  here, so no longer in the index); the command leader's own column stays as it
                  came.
        Records:  PreAccepted.        Sends: PreAcceptOk to source."""
        replica, slot = m.replica, m.slot
        if source != replica or self._ignore_forgotten(replica, slot):
            return
        instance = self.columns.obtain(replica, slot)
        if instance.phase == COMMITTED:
            self._send_commit(source, instance)
        elif instance.promised > 0:
            self.out.send(source, Nack(replica, [slot], instance.promised))
        elif instance.phase == PREACCEPTED:
            self.out.send(source, PreAcceptOk(replica, slot, instance.deps))
        elif instance.phase == INITIAL:
            deps = self._acceptor_deps(replica, m.payload, m.deps)
            self._vote_preaccepted(instance, m.payload, m.deps, deps)
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
        self, instance: Instance, payload: Payload, initial_deps: Deps, deps: Deps
    ) -> None:
        """Vote in ballot 0. Requires no promise above it (H14), except in restore: older versions
        proposed slots that broken peers had taken over, and logged both."""
        instance.phase = PREACCEPTED
        instance.payload = instance.initial_payload = payload
        instance.initial_deps = initial_deps
        instance.deps = deps
        self._remember(instance, payload)

    def _on_preaccept_ok(self, source: ReplicaId, m: PreAcceptOk, now: Micros) -> None:
        """Phase 1 at the command leader (l.19-25).

        Requires: the ballot-0 attempt still runs (H14: a promise above 0 has ended it).
        Ensures:  decided when a fast quorum equals the initial deps; the slow path when a slow
                  quorum has answered and the fast path is given up (H7).
        Records, sends: as the step taken says."""
        if m.replica != self.me:
            return
        instance = self.columns.get(m.replica, m.slot)
        if instance is None or instance.proposed_at is None:
            return
        attempt = instance.attempt
        if not isinstance(attempt, PreAccepting):
            attempt = None
        elif not attempt.replied.add(source):
            return
        answers = self.answers
        took = now - instance.proposed_at
        if not answers.shortest[source] <= took <= answers.longest[source]:
            answers.learn(source, took)
        if attempt is None:
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
        """Decide by the fast path; durable here before anyone hears of it (2.6: nobody
        else knows for sure)."""
        instance = attempt.instance
        assert attempt.same >= self.sizes.fast, "a fast quorum equals the initial deps"
        assert instance.phase == PREACCEPTED, "an ended attempt decides nothing"
        self.counts["fast"] += 1
        if attempt.round_us:
            self._timers.cancel(attempt)
        self._commit(instance, instance.payload, instance.deps, Path.FAST, now)
        self.out.broadcast(CommitShort(self.me, instance.slot, instance.deps))

    def _consider_slow_path(self, attempt: PreAccepting, now: Micros) -> None:
        """H7: start Accept unless the missing equal replies are nearer than the Accept round.

        Needs a slow quorum of replies. Free for safety, decides latency."""
        assert attempt.replied.count >= self.sizes.slow, "Accept needs a slow quorum's deps"
        if not attempt.round_us:
            attempt.round_us = now - attempt.proposed_at
        elif attempt.wait_until and not attempt.stood_us:
            late = now - attempt.wait_until
            if late > FAST_PATH_GRACE_US:
                attempt.stood_us = late + min(late, self.columns.patience_us)
        attempt.wait_until = self._fast_path_hope(attempt, now)
        if attempt.wait_until > now:
            self._timers.set(attempt, attempt.wait_until)
            return
        self.counts["slow"] += 1
        if attempt.stamps is not None:
            attempt.stamps.accept_at = now
        instance = attempt.instance
        self._start_accept(instance, 0, instance.payload, attempt.union, now)

    def _fast_path_hope(self, attempt: PreAccepting, now: Micros) -> Micros:
        """Until when the fast path is worth waiting for; 0 if it is not.

        As long as enough of those who have not answered are neither farther away than the Accept
        round would take, nor late against themselves: later than their longest answer by a fifth
        and a grace. While all answers are equal, the grace grows with how much later than usual the
        slow quorum was, and with the time that this replica stood still: load that rises and
        machines that stop meet everybody, and Accept rounds would add to it. When answers differ,
        the Accept round is likely to be needed anyway. Nobody is waited for longer than T1 after
        the slow quorum: what was lost never comes."""
        rtts, answers, replied = self.columns.rtt_us, self.answers, attempt.replied
        missing = self.sizes.fast - attempt.same
        heard = sorted([rtts[m] for m in range(self.n) if m in replied and m != self.me])
        usual = heard[self.sizes.slow - 2]
        grace = FAST_PATH_GRACE_US
        if attempt.same == replied.count:
            grace += attempt.stood_us + LATENESS_FACTOR * max(0, attempt.round_us - usual)
        at_most = (
            attempt.proposed_at + attempt.round_us + attempt.stood_us + self.columns.patience_us
        )
        waits = []
        for member, rtt in enumerate(rtts):
            if member in replied or self.columns.suspects(member):
                continue
            if min(rtt, answers.least(member, rtt)) >= attempt.round_us + usual:
                continue
            longest = answers.most(member, rtt)
            until = min(attempt.proposed_at + longest + longest // 5 + grace, at_most)
            if until > now:
                waits.append(until)
        if len(waits) < missing:
            return 0
        waits.sort()
        return waits[-missing]

    # Phase 2 -----------------------------------------------------------------------------------

    def _start_accept(
        self, instance: Instance, ballot: Ballot, payload: Payload | None, deps: Deps, now: Micros
    ) -> None:
        """Phase 2 at the owner of the ballot; it accepts first itself.

        Records:  Accepted.        Sends: Accept to all (b0: its short form)."""
        owner = instance.replica if ballot == 0 else ballot_replica(ballot)
        assert owner == self.me, "only the owner of a ballot proposes in it"
        self._vote_accepted(instance, ballot, payload, deps)
        if ballot == 0:
            self.out.broadcast(AcceptShort(instance.replica, instance.slot, deps))
        else:
            self.out.broadcast(Accept(instance.replica, instance.slot, ballot, payload, deps))
        self._await_accepts(instance, now)

    def _await_accepts(self, instance: Instance, now: Micros) -> None:
        attempt = Accepting(instance, instance.voted, self.me)
        instance.attempt = attempt
        self._watch(attempt, now)
        self._commit_if_accepted(attempt, now)

    def _vote_accepted(
        self, instance: Instance, ballot: Ballot, payload: Payload | None, deps: Deps
    ) -> None:
        """Vote in phase 2 and record it; the introduction stays as it is (R1: others may
        need it to object)."""
        assert instance.phase != COMMITTED, "a decision stays under a later Accept (H2)"
        assert ballot >= instance.promised, "nobody votes below its promise"
        instance.phase = ACCEPTED
        instance.promised = instance.voted = ballot
        instance.payload = payload
        instance.deps = deps
        if payload is not None:
            self._remember(instance, payload)
        if payload is not None and instance.initial_payload is not None:
            self.out.record(AcceptedShort(instance.replica, instance.slot, ballot, deps))
        else:
            self.out.record(Accepted(instance.replica, instance.slot, ballot, payload, deps))

    def _on_accept(self, source: ReplicaId, m: Accept, now: Micros) -> None:
        """Phase 2 at an acceptor (l.26-33).

        Requires: the ballot is the sender's (0 is the command leader's) and >= promised, otherwise
                  Nack; a committed instance answers Commit (H2).
        Ensures:  Accepted in that ballot; a lower attempt here ends.
        Records:  Accepted, once.        Sends: AcceptOk to source."""
        owner = m.replica if m.ballot == 0 else ballot_replica(m.ballot)
        if source == owner and not self._ignore_forgotten(m.replica, m.slot):
            instance = self.columns.obtain(m.replica, m.slot)
            self._accept(source, instance, m.ballot, m.payload, m.deps)

    def _on_accept_short(self, source: ReplicaId, m: AcceptShort, now: Micros) -> None:
        """Phase 2 in b0 at an acceptor, as `_on_accept`.

        Requires: the sender leads the instance, and its PreAccept came; otherwise ignored.
        Ensures, records, sends: as `_on_accept`."""
        known = self.columns.get(m.replica, m.slot)
        if source == m.replica and known is not None and known.initial_payload is not None:
            self._accept(source, known, 0, known.initial_payload, m.deps)

    def _accept(
        self,
        source: ReplicaId,
        instance: Instance,
        ballot: Ballot,
        payload: Payload | None,
        deps: Deps,
    ) -> None:
        replica, slot = instance.replica, instance.slot
        if instance.phase == COMMITTED:
            self._send_commit(source, instance)
            return
        if instance.promised > ballot:
            self.out.send(source, Nack(replica, [slot], instance.promised))
            return
        if instance.phase < ACCEPTED or instance.voted != ballot:
            self._end_attempt(instance)
            self._vote_accepted(instance, ballot, payload, deps)
        self.out.send(source, AcceptOk(replica, slot, ballot))

    def _on_accept_ok(self, source: ReplicaId, m: AcceptOk, now: Micros) -> None:
        """Phase 2 at the owner of the ballot (l.34-36).

        Requires: the Accepting attempt of that very ballot (H13: votes of an earlier ballot do not
                  add up with these).
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
        instance = attempt.instance
        assert instance.phase == ACCEPTED, "what a quorum accepted is accepted here"
        assert instance.voted == attempt.ballot, "AcceptOks count for one ballot (H13)"
        payload, deps = instance.payload, instance.deps
        path = Path.SLOW if attempt.ballot == 0 else Path.RECOVERED
        self._commit(instance, payload, deps, path, now)
        if payload is not None and attempt.ballot == 0:
            self.out.broadcast(CommitShort(instance.replica, instance.slot, deps))
        else:
            self.out.broadcast(Commit(instance.replica, instance.slot, payload, deps))

    # Commit ------------------------------------------------------------------------------------

    def _on_commit(self, source: ReplicaId, m: Commit, now: Micros) -> None:
        """The instance is decided (l.37-42); always accepted (H1: whatever was promised).

        Requires: nothing; a duplicate is ignored.
        Ensures:  Committed.
        Records:  Committed, as a note.        Sends: nothing."""
        if self._ignore_forgotten(m.replica, m.slot):
            return
        instance = self.columns.obtain(m.replica, m.slot)
        if instance.phase != COMMITTED:
            self._commit(instance, m.payload, m.deps, self._how_learned(m.replica), now)

    def _on_commit_short(self, source: ReplicaId, m: CommitShort, now: Micros) -> None:
        """The instance's real payload is decided with these deps.

        Requires: the payload is known here; otherwise it is fetched.
        Ensures:  Committed, if the payload is known.
        Records:  Committed, as a note.        Sends: CommitReq to source, if not."""
        if self._ignore_forgotten(m.replica, m.slot):
            return
        instance = self.columns.obtain(m.replica, m.slot)
        if instance.phase == COMMITTED:
            return
        payload = instance.real_payload
        if payload is None:
            self.out.send(source, CommitReq(m.replica, [m.slot]))
        else:
            self._commit(instance, payload, m.deps, self._how_learned(m.replica), now)

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
            if instance.phase == COMMITTED:
                self._send_commit(source, instance)
                size += 0 if instance.payload is None else len(instance.payload.encoded)
                if size > COMMIT_BYTES_PER_ANSWER:
                    self.counts["commits_cut"] += slot != m.slots[-1]
                    break
            elif instance.attempt is not None:
                busy.append(slot)
        if busy:
            self.out.send(source, InProgress(m.replica, busy))
