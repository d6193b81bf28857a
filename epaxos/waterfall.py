"""Which batches are sampled, and what became of the latest of them.

Rules of this file: samples are for people. What is sampled depends on time alone, and nothing that
a node says or records depends on what is sampled.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol, cast

from epaxos.core.replica import Decided, Path
from epaxos.core.stamps import Held, Stamps
from epaxos.core.types import InstanceId, Micros, ReplicaId
from epaxos.exchange import Flight

SAMPLES_KEPT: Final = 1024
"""So many of the latest samples a replica keeps."""
SHOWN_MAX: Final = 3
"""So many commands of a sampled batch are named."""
_NEVER: Final = 1 << 62


class Observed(Protocol):
    """A replica that can say how agreement on a batch goes. One that cannot need not."""

    def observe(self, instance: InstanceId, stamps: Stamps) -> None:
        """Write into `stamps`, from here on, who answers about an instance just proposed here."""
        ...


class Ordering(Protocol):
    """What is asked of the node's executor."""

    def is_executed(self, replica: ReplicaId, slot: int) -> bool:
        """Whether that very id has executed here."""
        ...

    def hindrance(self, instance: InstanceId) -> InstanceId | None:
        """The id, not committed here, that a committed one waits for; None: for none."""
        ...


class Sampler:
    """Chooses batches of a node, and writes the stamps that the node can see."""

    def __init__(self, per_second: int, replica: object) -> None:
        self._interval = 1_000_000 // per_second if per_second else 0
        self.due: Micros = 0 if per_second else _NEVER
        """From when on the next batch is sampled."""
        self._observe = cast(
            "Callable[[InstanceId, Stamps], None] | None", getattr(replica, "observe", None)
        )
        self._moved: list[Stamps] = []
        """What was proposed, decided or executed since the last take."""
        self._decided: list[Stamps] = []
        """What waits for execution."""

    def launched(self, flight: Flight, leader: ReplicaId | None, now: Micros) -> None:
        """A batch was just proposed, or forwarded to `leader`, and is sampled."""
        self.due = now + self._interval
        batch, runs = flight.payload.batch, flight.runs
        stamps = flight.stamps = Stamps(
            min(run.arrived for run in runs),
            now,
            max(run.deadline for run in runs),
            len(batch.keys),
            list(zip(batch.operations[:SHOWN_MAX], batch.keys)),
        )
        stamps.instance = flight.instance
        if flight.instance is None:
            stamps.leader = leader
        elif self._observe is not None:
            self._observe(flight.instance, stamps)
        self._moved.append(stamps)

    def decided(self, stamps: Stamps, decided: Decided, now: Micros) -> None:
        """A sampled batch is decided."""
        stamps.instance = InstanceId(decided.replica, decided.slot)
        stamps.path = decided.path
        stamps.decided_at = now
        self._decided.append(stamps)
        self._moved.append(stamps)

    def lost(self, stamps: Stamps, path: Path, now: Micros) -> None:
        """The instance of a sampled batch is decided without it."""
        stamps.path = path
        stamps.decided_at = now
        stamps.nop = True
        self._moved.append(stamps)

    def take(self, ordering: Ordering, now: Micros) -> Sequence[Stamps]:
        """Samples that moved since the last take; whatever could execute has executed."""
        if self._decided:
            self._look(ordering, now)
        if not self._moved:
            return ()
        moved, self._moved = self._moved, []
        return moved

    def _look(self, ordering: Ordering, now: Micros) -> None:
        waiting = []
        for stamps in self._decided:
            instance = stamps.instance
            assert instance is not None, "what is decided has an instance"
            if ordering.is_executed(*instance):
                stamps.executed_at = now
                self._moved.append(stamps)
                continue
            waiting.append(stamps)
            missing = ordering.hindrance(instance)
            if missing is not None and (not stamps.held or stamps.held[-1].instance != missing):
                stamps.held.append(Held(missing, now))
        self._decided = waiting


class Samples:
    """The latest samples of one replica, and the stamps that only its driver can write."""

    def __init__(self) -> None:
        self._kept: deque[Stamps] = deque(maxlen=SAMPLES_KEPT)

    def released(
        self, moved: Sequence[Stamps], now: Micros, taken_at: Micros | None = None
    ) -> None:
        """A Ready with these samples is durable, and leaves; it was taken at `taken_at`. None: in a
        world where computing takes no time."""
        for stamps in moved:
            if stamps.left_at is None:
                stamps.batched_at = stamps.proposed_at if taken_at is None else taken_at
                stamps.left_at = now
                self._kept.append(stamps)
            if stamps.committed_at is None and stamps.decided_at is not None:
                stamps.committed_at = now

    def answered(self, moved: Sequence[Stamps], now: Micros) -> None:
        """The answers of that Ready were given."""
        for stamps in moved:
            if stamps.executed_at is not None and stamps.replied_at is None:
                stamps.replied_at = now

    def find(self, instance: InstanceId) -> Stamps | None:
        """The sample of an instance, if it is kept."""
        return next((stamps for stamps in self._kept if stamps.instance == instance), None)

    def named(self, request: str) -> Stamps | None:
        """The sample that carries a request which its client called so, if it is kept."""
        return next((stamps for stamps in reversed(self._kept) if request in stamps.requests), None)

    def latest(self, limit: int) -> list[Stamps]:
        """The latest, newest first."""
        return [stamps for stamps, _ in zip(reversed(self._kept), range(limit))]
