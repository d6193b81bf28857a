"""The state of an EPaxos* replica, and the transitions that agreement and recovery share.

Every decision, whoever reached it, passes `_commit`; every id enters the conflict index by
`_remember`; every question to others is repeated because of `_watch`. Votes are cast in
agreement.py and recovery.py.

Rules of this file: it calls neither of them.
"""

from collections import deque

from epaxos.core.command import Payload
from epaxos.core.quorum import quorums
from epaxos.core.replica import Outbox, Path, Setup, Timers
from epaxos.core.types import Deps, InstanceId, Micros, ReplicaId, Slot
from epaxos.protocols.epaxos.answer_times import AnswerTimes
from epaxos.protocols.epaxos.columns import Columns
from epaxos.protocols.epaxos.conflicts import ConflictIndex, LiveIndex
from epaxos.protocols.epaxos.instance import (
    COMMAND_BYTES,
    COMMITTED,
    INSTANCE_BYTES,
    Attempt,
    Instance,
    Waiting,
)
from epaxos.protocols.epaxos.messages import Commit, Committed, CommittedShort


class ReplicaState:
    """What a replica knows, and what it is asking others."""

    def __init__(self, setup: Setup) -> None:
        self.me = setup.me
        self.n = setup.n
        self.sizes = quorums(setup.n)
        f, e = self.sizes.f, self.sizes.e
        assert self.n >= max(2 * e + f - 1, 2 * f + 1), "what the proof needs (R17)"
        self.out = Outbox()
        self.columns = Columns(setup.me, setup.n, setup.rtt_us, setup.random)
        self.answers = AnswerTimes(setup.n)
        self.index = ConflictIndex(setup.n)
        self._live: LiveIndex | None = None
        """While recoveries validate: all live ids by key."""
        self.counts: dict[str, int] = {}
        """Counters since the start; replica.py says which."""
        self._next_slot: Slot = 1
        """The next own slot: 1 + the highest own slot in the log (R2: no holes in a column)."""
        self._unanswered: deque[Attempt] = deque()
        """Attempts whose question was asked once, in the order of asking."""
        self._timers = Timers()
        """Deadlines of single attempts: asked more than once, or waiting for the fast path."""
        self._waiting: dict[InstanceId, Waiting] = {}
        """Own attempts in stage Waiting; one that ends is no longer among them."""
        self._committed_taken: Deps = (0,) * setup.n
        """The committed vector when the outbox was last emptied."""
        self._taken = 0

    def _ignore_forgotten(self, replica: ReplicaId, slot: Slot) -> bool:
        """Whether everybody has executed the id, so that nothing about it matters (R15)."""
        return slot <= self.columns.floor[replica]

    def _watch(self, attempt: Attempt, now: Micros) -> None:
        """Ask again if the attempt is not answered in time."""
        attempt.asked_at = now
        self._unanswered.append(attempt)

    def _end_attempt(self, instance: Instance) -> None:
        if isinstance(instance.attempt, Waiting):
            self._waiting.pop(instance.id, None)
        instance.attempt = None

    def _remember(self, instance: Instance, payload: Payload) -> None:
        """Index an id under its real payload, once, and count what it costs.

        It stays there whatever it is decided as (H11: a Nop that was only accepted may lose)."""
        if self._live is not None:
            # Also what the index has: its payload may have been unknown when this one was made.
            self._live.add(instance.replica, instance.slot, payload.footprint)
        if instance.cost == INSTANCE_BYTES:
            self.index.add(instance.replica, instance.slot, payload.footprint)
            self.columns.charge(
                instance, len(payload.encoded) + COMMAND_BYTES * len(payload.batch.keys)
            )

    def _commit(
        self, instance: Instance, payload: Payload | None, deps: Deps, path: Path, now: Micros
    ) -> None:
        """Decided here: the vote becomes final and goes to execution.

        Recovery adds to it: whatever waits for a decision looks again.
        Records:  Committed; synced before anything leaves only on the fast path (1.12: after
        the slow path a quorum holds it)."""
        columns = self.columns
        if self._taken != self.out.taken:
            self._taken = self.out.taken
            self._committed_taken = tuple(columns.committed)
        record = (
            CommittedShort(instance.replica, instance.slot, deps)
            if payload is not None and instance.initial_payload is not None
            else Committed(instance.replica, instance.slot, payload, deps)
        )
        if path is Path.FAST:
            assert instance.replica == self.me, "only its command leader decides by the fast path"
            self.out.record(record)
        else:
            self.out.note(record)
        self._become_committed(instance, payload, deps, path)
        if payload is None:
            self.counts["nop"] += 1
        if path is Path.RECOVERED:
            self.counts["recovered"] += 1

    def _become_committed(
        self, instance: Instance, payload: Payload | None, deps: Deps, path: Path
    ) -> None:
        assert instance.phase != COMMITTED, "an instance is decided once"
        assert len(deps) == self.n, "one slot per column"
        if instance.attempt is not None:
            self._end_attempt(instance)
        instance.phase = COMMITTED
        instance.payload = payload
        instance.deps = deps
        if payload is not None:
            self._remember(instance, payload)
        replica, slot = instance.replica, instance.slot
        self.columns.hear_of(deps)
        if slot == self.columns.committed[replica] + 1:
            self.columns.advance(replica)
        self.out.commit(replica, slot, deps, payload, path)

    def _send_commit(self, target: ReplicaId, instance: Instance) -> None:
        """Say what is decided; only Committed is ever handed out."""
        assert instance.phase == COMMITTED, "a vote is no decision"
        self.out.send(
            target, Commit(instance.replica, instance.slot, instance.payload, instance.deps)
        )
