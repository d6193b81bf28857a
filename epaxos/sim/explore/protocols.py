"""What the explorer knows of each protocol: what can be taken over, and which messages are spent.

A message is spent at a replica when its arrival changes nothing there and sends nothing, now and
after anything that may still happen; then it need not be carried along. Only answers, and news of
what is decided, can be: an answer counts for one attempt in one ballot, and an attempt that is over
never comes back, except by a restart that resumes it. What is decided stays decided, except for a
note that a crash can lose.

Rules of this file: in doubt a message is kept, which costs states and never a violation.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from epaxos.core.replica import Message
from epaxos.core.types import Ballot, InstanceId, ReplicaId
from epaxos.protocols.epaxos import instance as stages
from epaxos.protocols.epaxos import messages as epaxos
from epaxos.protocols.epaxos.instance import Phase
from epaxos.protocols.multipaxos import messages as multipaxos
from epaxos.protocols.multipaxos.stages import Leading, Preparing

Id = tuple[ReplicaId, int]


def takeovers(replica: Any, has_leader: bool) -> Iterable[InstanceId | None]:
    """What the replica may take over: what its sweep can come to find unresolved, whatever the
    time; None is the leadership, unless it has it."""
    if has_leader:
        if not isinstance(replica.stage, Leading):
            yield None
        return
    columns = replica.columns
    for column in range(replica.n):
        for slot in range(columns.committed[column] + 1, columns.known[column] + 1):
            known = columns.get(column, slot)
            attempt = None if known is None else known.attempt
            led = stages.PreAccepting | stages.Accepting
            if (known is None or known.phase != Phase.COMMITTED) and not isinstance(attempt, led):
                yield InstanceId(column, slot)


def message_filter(
    replica: Any, disk: Any | None, ballots: bool, has_leader: bool
) -> "MessageFilter":
    """What still counts at a replica; `disk` is what a crash would leave of it, if it may crash,
    and `ballots` says whether anything may still be taken over by it."""
    if has_leader:
        return SlotFilter(replica, disk, ballots)
    return _instance_filter(replica, disk, ballots)


class MessageFilter:
    """Says which messages are spent."""

    def spent(self, source: ReplicaId, message: Message) -> bool:
        """Whether a message changes nothing here any more."""
        raise NotImplementedError


class _Expected(NamedTuple):
    """What still counts about one instance."""

    committed: bool
    """For good."""
    stage: type | None
    """Of the live attempt."""
    ballot: Ballot
    """Of the live attempt."""
    silent: frozenset[ReplicaId]
    """Whose answer the attempt's stage would count."""
    resumes: Ballot | None
    """In which ballot a restart would ask again."""


_NOTHING = _Expected(False, None, -1, frozenset(), None)


class InstanceFilter(MessageFilter):
    """Of an EPaxos* replica."""

    def __init__(self, expected: dict[Id, _Expected], nacked: list[Ballot] | None) -> None:
        self._expected = expected
        self._nacked = nacked
        """Per column the highest ballot named by a Nack; None: of no interest any more."""

    def spent(self, source: ReplicaId, message: Message) -> bool:
        m: Any = message
        kind = type(m)
        if kind is epaxos.InProgress:
            return True
        if kind is epaxos.Nack:
            if self._nacked is not None and m.promised > self._nacked[m.replica]:
                return False
            return all(self._unrefused(m.replica, slot, m.promised) for slot in m.slots)
        if kind is epaxos.RecoverOk:
            return all(self._vote_spent(m, vote, source) for vote in m.votes)
        if kind not in _NEWS:
            return False
        wanted = self._expected.get((m.replica, m.slot), _NOTHING)
        if wanted.committed:
            return True
        if kind is epaxos.PreAcceptOk:
            return wanted.resumes != 0 and not (
                wanted.stage is stages.PreAccepting and source in wanted.silent
            )
        if kind is epaxos.AcceptOk:
            return wanted.resumes != m.ballot and not (
                wanted.stage is stages.Accepting
                and wanted.ballot == m.ballot
                and source in wanted.silent
            )
        if kind is epaxos.ValidateOk:
            return not (
                wanted.stage is stages.Validating
                and wanted.ballot == m.ballot
                and source in wanted.silent
            )
        return False

    def _unrefused(self, replica: ReplicaId, slot: int, promised: Ballot) -> bool:
        wanted = self._expected.get((replica, slot), _NOTHING)
        return (wanted.stage is None or wanted.ballot >= promised) and (
            wanted.resumes is None or wanted.resumes >= promised
        )

    def _vote_spent(self, m: Any, vote: Any, source: ReplicaId) -> bool:
        wanted = self._expected.get((m.replica, vote.slot), _NOTHING)
        if wanted.committed:
            return True
        if vote.phase == Phase.COMMITTED:
            return False
        return wanted.ballot != m.ballot or (
            wanted.stage is stages.Accepting
            or (wanted.stage is stages.Recovering and source not in wanted.silent)
        )


_NEWS = frozenset(
    (epaxos.PreAcceptOk, epaxos.AcceptOk, epaxos.ValidateOk, epaxos.Commit, epaxos.CommitShort)
)


def _instance_filter(replica: Any, disk: Any | None, ballots: bool) -> InstanceFilter:
    expected: dict[Id, _Expected] = {}
    members = range(replica.n)
    for column, instances in enumerate(replica.columns.instances):
        for slot, known in instances.items():
            attempt = known.attempt
            silent: frozenset[ReplicaId] = frozenset()
            if isinstance(attempt, stages.Recovering):
                silent = frozenset(each for each in members if each not in attempt.votes)
            elif isinstance(attempt, stages.Validating):
                quorum = attempt.quorum
                silent = frozenset(each for each in quorum if each not in attempt.replied)
            elif isinstance(attempt, stages.PreAccepting | stages.Accepting):
                silent = frozenset(each for each in members if each not in attempt.replied)
            committed = known.phase == Phase.COMMITTED
            resumes: Ballot | None = None
            kept = None if disk is None else disk.columns.get(column, slot)
            if disk is not None:
                committed = committed and kept is not None and kept.phase == Phase.COMMITTED
                if kept is not None and kept.phase in (Phase.PREACCEPTED, Phase.ACCEPTED):
                    resumes = kept.voted if kept.promised == kept.voted else None
            expected[column, slot] = _Expected(
                committed,
                None if attempt is None else type(attempt),
                -1 if attempt is None else attempt.ballot,
                silent,
                resumes,
            )
    return InstanceFilter(expected, list(replica._nacked) if ballots else None)


class SlotFilter(MessageFilter):
    """Of a Multi-Paxos replica."""

    def __init__(self, replica: Any, disk: Any | None, ballots: bool) -> None:
        stage = replica.stage
        self._stage = None if stage is None else type(stage)
        self._ballot = -1 if stage is None or not hasattr(stage, "ballot") else stage.ballot
        members = range(replica.n)
        self._silent: frozenset[ReplicaId] = frozenset()
        if isinstance(stage, Preparing):
            self._silent = frozenset(each for each in members if each not in stage.done)
        self._open: dict[int, int] = {}
        """Of a leader: slots not chosen, and the bits of who voted for them."""
        if isinstance(stage, Leading):
            for slot, entry in replica.log.entries.items():
                if not entry.chosen:
                    self._open[slot] = entry.votes
        steady = replica if disk is None else disk
        self._promised = steady.promised
        self._chosen = steady.log.chosen
        self._highest = -1
        if disk is None:
            self._highest = (
                replica.promised if not ballots else max(replica.promised, replica._highest)
            )
        self._leads = isinstance(stage, Leading | Preparing)
        self._careless = disk is None and not ballots and not self._leads

    def spent(self, source: ReplicaId, message: Message) -> bool:
        m: Any = message
        kind = type(m)
        if kind is multipaxos.Promise:
            return (
                self._stage is not Preparing
                or m.ballot != self._ballot
                or source not in self._silent
            )
        if kind is multipaxos.AcceptOk:
            return (
                self._stage is not Leading
                or m.ballot != self._ballot
                or all(
                    self._open.get(slot, -1) >> source & 1 for slot in range(m.first, m.last + 1)
                )
            )
        if kind is multipaxos.Nack:
            return self._careless or m.promised <= self._highest
        if kind is multipaxos.CommitIndex:
            return bool(m.ballot < self._promised and m.commit <= self._chosen)
        if kind is multipaxos.Learn:
            return bool(m.first + len(m.payloads) - 1 <= self._chosen)
        return False
