"""Taking over another's instance: the recoverer's decisions, and the handlers Recover … Waiting.

The three pure functions are the paper's lines: `decide` (EPaxos*, Figure 5, l.50-60), `judge`
(l.61-68) and `settle` (l.69-80); what surrounds them is bookkeeping, idempotence (H9, H16) and
retransmission.

Rules of this file: the only values a recovery may propose are an accepted one, the initial payload
with exactly the initial deps, or Nop. Whatever raises `promised` above an attempt's ballot ends it.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final, NamedTuple

from epaxos.core.command import Payload
from epaxos.core.quorum import Quorums
from epaxos.core.replica import Path, Setup
from epaxos.core.types import (
    LAST_ROUND,
    Ballot,
    Deps,
    InstanceId,
    Micros,
    ReplicaId,
    Slot,
    ballot_replica,
    next_ballot,
)
from epaxos.protocols.epaxos.agreement import Agreement
from epaxos.protocols.epaxos.conflicts import LiveIndex
from epaxos.protocols.epaxos.instance import (
    ACCEPTED,
    COMMITTED,
    INITIAL,
    PREACCEPTED,
    Attempt,
    Instance,
    Recovering,
    Validating,
    Waiting,
)
from epaxos.protocols.epaxos.messages import (
    Commit,
    Introduced,
    Nack,
    Objection,
    Promised,
    Recover,
    RecoverOk,
    Validate,
    ValidateOk,
    Vote,
)
from epaxos.protocols.epaxos.messages import (
    Waiting as WaitingMessage,
)

VOTE_BYTES_PER_ANSWER = 4 * 1024 * 1024
"""The votes of a RecoverOk take no more, unless it is one vote alone."""
VOTE_ENVELOPE_BYTES = 200
"""The most that a vote takes beside its payload: two vectors of nine slots, three numbers."""

LIVE_INDEX_SPARE = 1000
"""The live index is not given up for so few forgotten ids."""

RULES: Final[dict[str, str]] = {
    "1": "a vote of the quorum was committed",
    "2": "a vote of the quorum was accepted",
    "3": "the command leader was in the quorum and had not committed: Nop",
    "4": "enough matching pre-accepts: validated",
    "5": "too few matching pre-accepts: Nop",
    "V1": "nothing objected",
    "V2": "something committed objected: Nop",
    "V3": "an objection from outside the quorum: Nop",
    "V4": "objections were open: waited",
    "W1": "an objection committed without it: Nop",
    "W2": "all objections settled: kept",
    "W3": "an objection waits with too many matches: Nop",
    "W4": "somebody outside the quorum answered late",
}
"""The rules below by name, as decisions carry them: what a recoverer met, and what it did."""


class Action(Enum):
    """What a recoverer does with an instance."""

    COMMIT = "commit"
    ACCEPT = "accept"
    VALIDATE = "validate"
    WAIT = "wait"


class Decision(NamedTuple):
    """A recoverer's next step, and the rule of the paper behind it."""

    action: Action
    rule: str
    """Its name in `RULES`."""
    payload: Payload | None
    """What to commit, accept or validate; None is Nop."""
    deps: Deps
    matching: int = 0
    """k, with VALIDATE."""


def decide(owner: ReplicaId, votes: Mapping[ReplicaId, Vote], e: int, n: int) -> Decision:
    """What the answers of exactly n - f replicas allow (l.50-60; H12). The order of rules matters.

    `votes` is Q with what each answered; `owner` is the command leader."""
    # Decided is decided, in whatever ballot (H12).
    for vote in votes.values():
        if vote.phase == COMMITTED:
            return Decision(Action.COMMIT, "1", vote.payload, vote.deps)
    # As in Paxos: what a slow quorum accepted is known to a member of Q, since two slow quorums
    # meet, and the highest ballot has taken over whatever a lower one may have decided.
    highest = max(vote.voted for vote in votes.values())
    for vote in votes.values():
        if vote.phase == ACCEPTED and vote.voted == highest:
            return Decision(Action.ACCEPT, "2", vote.payload, vote.deps)
    # From here on nothing was decided but, perhaps, the initial deps on the fast path in ballot 0.
    # The command leader itself has now promised a higher ballot: it had not, and never will (H14).
    nop = (0,) * n
    if owner in votes:
        return Decision(Action.ACCEPT, "3", None, nop)
    # A fast quorum has n - e members, so at most e of Q are outside it: all others of Q, at least
    # |Q| - e, pre-accepted exactly the initial deps. So many therefore suffice to suspect a fast
    # decision, and to know its deps; they do not prove one, and what was decided since may not
    # name this id, so others are asked first. With one fewer no fast quorum is possible.
    matching = [
        vote
        for vote in votes.values()
        if vote.phase == PREACCEPTED and vote.deps == vote.initial_deps
    ]
    if matching and len(matching) >= len(votes) - e:
        vote = matching[0]
        return Decision(Action.VALIDATE, "4", vote.payload, vote.deps, len(matching))
    return Decision(Action.ACCEPT, "5", None, nop)


def judge(
    objections: Mapping[tuple[ReplicaId, Slot], bool],
    quorum: Sequence[ReplicaId],
    matching: int,
    payload: Payload,
    deps: Deps,
    e: int,
) -> Decision:
    """What the objections of the whole quorum allow (l.61-68).

    `objections` maps each objecting id to whether some member of the quorum knows it as committed;
    every one counts as it came (R15: also one that everybody has executed by now)."""
    assert matching >= len(quorum) - e, "only what may have been fast is validated (rule 4)"
    nop = (0,) * len(deps)
    # All of Q has stored the payload, so whatever comes later names it: nothing stands against it.
    if not objections:
        return Decision(Action.ACCEPT, "V1", payload, deps)
    # A decided batch and this one would not know of each other: this one was not fast.
    if any(objections.values()):
        return Decision(Action.ACCEPT, "V2", None, nop)
    # With exactly |Q| - e matches a fast quorum holds all replicas outside Q, so also the leader of
    # that objector, who proposed it without this id: it would not have answered the initial deps.
    if matching == len(quorum) - e and any(owner not in quorum for owner, _ in objections):
        return Decision(Action.ACCEPT, "V3", None, nop)
    return Decision(Action.WAIT, "V4", payload, deps, matching)


class Objector(NamedTuple):
    """What a waiting recoverer knows of one objecting id."""

    settled: bool
    """Committed here and no obstacle (Nop, or ordered after the instance), or <= floor."""
    refutes: bool
    """Committed here, not Nop, and not ordered after the instance."""
    waits_with: int
    """The largest k its own recoverer announced in a Waiting, 0 for none."""


def settle(
    objectors: Sequence[Objector],
    late: Mapping[ReplicaId, Vote],
    owner: ReplicaId,
    payload: Payload,
    deps: Deps,
    sizes: Quorums,
) -> Decision:
    """Whether a waiting recovery may go on (l.69-80).

    `late` are answers to its Recover from outside its quorum, at its ballot (W4)."""
    nop = (0,) * len(deps)
    for vote in late.values():
        if vote.phase == COMMITTED:
            return Decision(Action.COMMIT, "W4", vote.payload, vote.deps)
    # Decided, interfering, and not ordered after this id: as V2.
    if any(objector.refutes for objector in objectors):
        return Decision(Action.ACCEPT, "W1", None, nop)
    if all(objector.settled for objector in objectors):
        return Decision(Action.ACCEPT, "W2", payload, deps)
    for vote in late.values():
        if vote.phase == ACCEPTED:
            return Decision(Action.ACCEPT, "W4", vote.payload, vote.deps)
    # The k matches of the other recovery, and its command leader, pre-accepted the objector without
    # this id: more than e replicas (n >= 2e + f - 1), too many for a fast quorum of the others.
    if any(objector.waits_with > sizes.n - sizes.f - sizes.e for objector in objectors):
        return Decision(Action.ACCEPT, "W3", None, nop)
    if owner in late:
        return Decision(Action.ACCEPT, "W4", None, nop)
    return Decision(Action.WAIT, "V4", payload, deps)


class Recovery(Agreement):
    """The part of a replica that takes over instances and helps others to.

    What it proposes goes through phase 2 of agreement; agreement does not know it."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._nacked: list[Ballot] = [0] * setup.n
        """Per column the highest ballot that a Nack named."""
        self._waiting_seen: dict[InstanceId, int] = {}
        """The largest k announced for an undecided id, by anyone; sticky until it commits (H5)."""

    def start_recover(self, ids: Sequence[InstanceId], now: Micros) -> None:
        """Take these instances over, one column after the other."""
        columns: dict[ReplicaId, list[Slot]] = {}
        for replica, slot in ids:
            columns.setdefault(replica, []).append(slot)
        for replica, slots in columns.items():
            self._start_recover(replica, sorted(slots), now)

    def _start_recover(self, replica: ReplicaId, slots: Sequence[Slot], now: Micros) -> None:
        """Phase R for some slots of one column, in one ballot above all their promises (l.43-45).

        Records:  Promised.        Sends: Recover to all."""
        low = self.columns.floor[replica]
        taken: list[Instance] = []
        above = self._nacked[replica]
        for slot in slots:
            if slot <= low:
                continue
            instance = self.columns.obtain(replica, slot)
            if instance.promised >= LAST_ROUND:
                self.counts["ignored_exhausted"] += 1
            elif instance.phase != COMMITTED:
                taken.append(instance)
                above = max(above, instance.promised)
        if not taken:
            return
        ballot = next_ballot(above, self.me)
        for instance in taken:
            assert ballot > instance.promised, "a recovery is above all promises"
            self._end_attempt(instance)
            instance.promised = ballot
            instance.attempt = Recovering(instance, ballot, self.me)
            self._watch(instance.attempt, now)
        numbers = [instance.slot for instance in taken]
        self.counts["recoveries"] += len(numbers)
        self.out.record(Promised(replica, numbers, ballot))
        self.out.broadcast(Recover(replica, numbers, ballot))
        if self.sizes.slow == 1:
            for instance in taken:
                if isinstance(instance.attempt, Recovering):
                    self._decide(instance.attempt, now)

    def _on_recover(self, source: ReplicaId, m: Recover, now: Micros) -> None:
        """Phase R at an acceptor (l.46-49).

        Requires: the ballot is the sender's; per slot ballot >= promised, otherwise Nack.
        Ensures:  promised = ballot for every slot not committed here.
        Records:  Promised.        Sends: RecoverOk, Nack to source."""
        if self._ignore_foreign_ballot(source, m.ballot):
            return
        low = self.columns.floor[m.replica]
        answers: list[RecoverOk] = []
        room = 0
        promised: list[Slot] = []
        refused: list[Slot] = []
        highest = 0
        for slot in m.slots:
            if slot <= low:
                continue
            instance = self.columns.obtain(m.replica, slot)
            if instance.phase != COMMITTED:
                if instance.promised > m.ballot:
                    refused.append(slot)
                    highest = max(highest, instance.promised)
                    continue
                if instance.promised < m.ballot:
                    instance.promised = m.ballot
                    self._end_attempt(instance)
                    self.columns.taken_over(m.replica, slot, now)
                    promised.append(slot)
            payload = instance.payload
            size = VOTE_ENVELOPE_BYTES + (0 if payload is None else len(payload.encoded))
            if size > room:
                answers.append(RecoverOk(m.replica, m.ballot, []))
                room = VOTE_BYTES_PER_ANSWER
            answers[-1].votes.append(instance.vote())
            room -= size
        if promised:
            self.out.record(Promised(m.replica, promised, m.ballot))
        self.counts["votes_cut"] += len(answers) > 1
        for answer in answers:
            self.out.send(source, answer)
        if refused:
            self.out.send(source, Nack(m.replica, refused, highest))

    def _on_recover_ok(self, source: ReplicaId, m: RecoverOk, now: Micros) -> None:
        """Phase R at the recoverer.

        Requires: the attempt of that very ballot (H6: answers may be late); except that
                  Committed is always honoured.
        Ensures:  the first answer of each replica counts (H16: they may differ); decides at the
                  n-f-th.
        Records, sends: as the decision says."""
        low = self.columns.floor[m.replica]
        for vote in m.votes:
            instance = None if vote.slot <= low else self.columns.get(m.replica, vote.slot)
            if instance is None or instance.phase == COMMITTED:
                continue
            attempt = instance.attempt
            if vote.phase == COMMITTED:
                self.counts["recover_rule_1"] += 1
                self._commit_and_tell(instance, vote.payload, vote.deps, now)
            elif attempt is None or attempt.ballot != m.ballot:
                continue
            elif isinstance(attempt, Recovering):
                attempt.votes.setdefault(source, vote)
                if len(attempt.votes) == self.sizes.slow:
                    self._decide(attempt, now)
            elif isinstance(attempt, Validating | Waiting) and source not in attempt.quorum:
                attempt.late[source] = vote
                if isinstance(attempt, Waiting):
                    self._reconsider(attempt, now)

    def _decide(self, attempt: Recovering, now: Micros) -> None:
        assert len(attempt.votes) == self.sizes.slow, (
            "a slow quorum decides, the first that answers"
        )
        assert attempt.ballot == attempt.instance.promised, "a higher promise ends an attempt"
        decision = decide(attempt.replica, attempt.votes, self.sizes.e, self.n)
        self.counts[f"recover_rule_{decision.rule}"] += 1
        if decision.action is Action.VALIDATE:
            assert decision.payload is not None, "a pre-accepted instance has a payload"
            self._start_validate(attempt, decision.payload, decision.deps, decision.matching, now)
        else:
            self._follow(attempt, decision, now)

    def _follow(self, attempt: Attempt, decision: Decision, now: Micros) -> None:
        instance = attempt.instance
        if decision.action is Action.COMMIT:
            self._commit_and_tell(instance, decision.payload, decision.deps, now)
        else:
            self._start_accept(instance, attempt.ballot, decision.payload, decision.deps, now)

    def _commit_and_tell(
        self, instance: Instance, payload: Payload | None, deps: Deps, now: Micros
    ) -> None:
        tell = instance.attempt is not None
        self._commit(instance, payload, deps, Path.RECOVERED, now)
        if tell:
            self.out.broadcast(Commit(instance.replica, instance.slot, payload, deps))

    def _start_validate(
        self, recovering: Recovering, payload: Payload, deps: Deps, matching: int, now: Micros
    ) -> None:
        """Phase V: ask the quorum what speaks against the initial deps (rule 4).

        Records:  Introduced, if new here.        Sends: Validate to the quorum."""
        instance = recovering.instance
        attempt = Validating(recovering, payload, deps, matching, self.me)
        instance.attempt = attempt
        self._introduce(instance, payload, deps)
        for objection in self._objections(instance, payload, deps):
            attempt.objections[objection.replica, objection.slot] = objection.committed
        self._watch(attempt, now)
        message = Validate(*instance.id, attempt.ballot, payload, deps)
        for member in attempt.quorum:
            if member != self.me:
                self.out.send(member, message)
        self._judge_if_complete(attempt, now)

    def _on_validate(self, source: ReplicaId, m: Validate, now: Micros) -> None:
        """Phase V at a member of the quorum (l.81-87).

        Requires: promised = ballot and phase below Accepted (H3: it may be late); a committed one
                  answers Commit.
        Ensures:  payload and introduction stored; phase and deps unchanged (R1: it is no vote).
        Records:  Introduced, if new here.        Sends: ValidateOk to source."""
        if self._ignore_foreign_ballot(source, m.ballot) or self._ignore_forgotten(
            m.replica, m.slot
        ):
            return
        instance = self.columns.obtain(m.replica, m.slot)
        if instance.phase == COMMITTED:
            self._send_commit(source, instance)
        elif instance.promised > m.ballot:
            self.out.send(source, Nack(m.replica, [m.slot], instance.promised))
        elif instance.promised == m.ballot and instance.phase < ACCEPTED:
            self._introduce(instance, m.payload, m.deps)
            objections = self._objections(instance, m.payload, m.deps)
            self.out.send(source, ValidateOk(m.replica, m.slot, m.ballot, objections))

    def _introduce(self, instance: Instance, payload: Payload, deps: Deps) -> None:
        if instance.phase == INITIAL:
            instance.payload = payload
        if instance.initial_deps is None:
            instance.initial_payload = payload
            instance.initial_deps = deps
            self.out.record(Introduced(instance.replica, instance.slot, payload, deps))
        self._remember(instance, payload)

    def _objections(self, asked: Instance, payload: Payload, deps: Deps) -> list[Objection]:
        """Interfering ids outside the closed prefix `deps` that do not, as known here, follow."""
        found = []
        replica, slot = asked.replica, asked.slot
        columns = self.columns
        for column, other in self._live_index().interfering(payload.footprint):
            if other <= max(deps[column], columns.floor[column]):
                continue
            instance = columns.get(column, other)
            if instance is None or instance is asked:
                continue
            committed = instance.phase == COMMITTED
            theirs = instance.payload if committed else instance.initial_payload
            their_deps = instance.deps if committed else instance.initial_deps
            if theirs is not None and their_deps is not None and slot > their_deps[replica]:
                found.append(Objection(column, other, committed))
        return found

    def _live_index(self) -> LiveIndex:
        """All live ids by key; made anew where there is none (one pass for many questions)."""
        if self._live is None:
            self._live = LiveIndex()
            for column in self.columns.instances:
                for instance in column.values():
                    known = instance.real_payload
                    if known is not None:
                        self._live.add(instance.replica, instance.slot, known.footprint)
        return self._live

    def _let_go_of_live_index(self) -> None:
        """Give it up when most of what it holds is forgotten."""
        if self._live is not None:
            live = sum(map(len, self.columns.instances))
            if len(self._live) > 2 * live + LIVE_INDEX_SPARE:
                self._live = None

    def _on_validate_ok(self, source: ReplicaId, m: ValidateOk, now: Micros) -> None:
        """Phase V at the recoverer.

        Requires: the Validating attempt of that very ballot, and a member of its quorum.
        Ensures:  judges when every member has answered; every objection enters `known`.
        Records, sends: as the judgement says."""
        instance = self.columns.get(m.replica, m.slot)
        attempt = None if instance is None else instance.attempt
        if (
            not isinstance(attempt, Validating)
            or attempt.ballot != m.ballot
            or source not in attempt.quorum
            or not attempt.replied.add(source)
        ):
            return
        for objection in m.objections:
            known = attempt.objections.get((objection.replica, objection.slot), False)
            attempt.objections[objection.replica, objection.slot] = known or objection.committed
            self.columns.hear_of_one(objection.replica, objection.slot)
        self._judge_if_complete(attempt, now)

    def _judge_if_complete(self, attempt: Validating, now: Micros) -> None:
        if attempt.replied.count < len(attempt.quorum):
            return
        decision = judge(
            attempt.objections,
            attempt.quorum,
            attempt.matching,
            attempt.payload,
            attempt.deps,
            self.sizes.e,
        )
        self.counts[f"recover_rule_{decision.rule}"] += 1
        if decision.action is not Action.WAIT:
            self._follow(attempt, decision, now)
            return
        waiting = Waiting(attempt)
        key = attempt.instance.id
        attempt.instance.attempt = waiting
        self._waiting[key] = waiting
        self._waiting_seen[key] = max(self._waiting_seen.get(key, 0), waiting.matching)
        self.out.broadcast(WaitingMessage(*key, waiting.matching))
        for member in range(self.n):
            if member not in waiting.quorum:  # their answers may be what W4 needs
                self.out.send(member, Recover(*key[:1], [waiting.slot], waiting.ballot))
        self._watch(waiting, now)
        for objecting in waiting.objections:
            self._see_to(*objecting, now)
        self._reconsider_all(now)

    def _see_to(self, replica: ReplicaId, slot: Slot, now: Micros) -> None:
        """Let the sweep settle an objector, however far beyond the horizon it lies (4.2)."""
        instance = self.columns.get(replica, slot)
        if instance is None or instance.phase != COMMITTED:
            self.columns.waits_for(replica, slot, now)

    def _on_waiting(self, source: ReplicaId, m: WaitingMessage, now: Micros) -> None:
        """A recovery elsewhere waits, with k matching pre-accepts (W3).

        Requires: the id is not decided here.
        Ensures:  the largest k is kept until it is (H5).
        Records:  nothing.        Sends: Commit to source if it is decided here."""
        if self._ignore_forgotten(m.replica, m.slot):
            return
        instance = self.columns.obtain(m.replica, m.slot)
        if instance.phase == COMMITTED:
            self._send_commit(source, instance)
            return
        key = instance.id
        if m.matching > self._waiting_seen.get(key, 0):
            self._waiting_seen[key] = m.matching
            self._reconsider_all(now)

    def _commit(
        self, instance: Instance, payload: Payload | None, deps: Deps, path: Path, now: Micros
    ) -> None:
        """As ever; and it may be what waiting recoveries waited for."""
        super()._commit(instance, payload, deps, path, now)
        if self._waiting_seen:
            self._waiting_seen.pop(instance.id, None)
        if self._waiting:
            self._reconsider_all(now)

    def _reconsider_all(self, now: Micros) -> None:
        """Something was decided or announced that waiting attempts may have waited for."""
        for attempt in list(self._waiting.values()):
            if attempt.live:
                self._reconsider(attempt, now)
            else:
                self._waiting.pop(attempt.instance.id, None)

    def _reconsider(self, attempt: Waiting, now: Micros) -> None:
        decision = settle(
            [self._objector(attempt, *objecting) for objecting in attempt.objections],
            attempt.late,
            attempt.replica,
            attempt.payload,
            attempt.deps,
            self.sizes,
        )
        if decision.action is not Action.WAIT:
            assert attempt.live, "a recovery that has ended waits for nothing"
            self.counts[f"recover_rule_{decision.rule}"] += 1
            del self._waiting[attempt.instance.id]
            self._follow(attempt, decision, now)

    def _objector(self, attempt: Waiting, replica: ReplicaId, slot: Slot) -> Objector:
        waits_with = self._waiting_seen.get(InstanceId(replica, slot), 0)
        if slot <= self.columns.floor[replica]:
            return Objector(True, False, waits_with)
        instance = self.columns.get(replica, slot)
        if instance is None or instance.phase != COMMITTED:
            return Objector(False, False, waits_with)
        harmless = instance.is_nop or attempt.slot <= instance.deps[attempt.replica]
        return Objector(harmless, not harmless, waits_with)

    def _on_nack(self, source: ReplicaId, m: Nack, now: Micros) -> None:
        """A higher ballot was promised elsewhere (H4: it is named, so that the loser can go above).

        Requires: an attempt in a lower ballot. One that nobody can go above is no help.
        Ensures:  it ends; the sweep asks again, and takes over above that ballot if it must.
        Records:  nothing.        Sends: nothing."""
        self.counts["nacks"] += 1
        if m.promised >= LAST_ROUND:
            self.counts["ignored_exhausted"] += 1
        else:
            self._nacked[m.replica] = max(self._nacked[m.replica], m.promised)
        for slot in m.slots:
            instance = self.columns.get(m.replica, slot)
            if (
                instance is not None
                and instance.attempt is not None
                and instance.attempt.ballot < m.promised
            ):
                self._end_attempt(instance)

    def _ignore_foreign_ballot(self, source: ReplicaId, ballot: Ballot) -> bool:
        return ballot <= 0 or ballot_replica(ballot) != source
