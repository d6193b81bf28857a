"""Which batches are sampled, and what their stamps say: the stages from arrival to answer.

    queue      waits for a contended key
    batch      cut, encoded, proposed
    sync       the proposal is made durable
    preaccept  EPaxos: the first round, to the answer that decides or that ends the fast path
    accept     the second round of EPaxos, the only one of a leader
    leader     forwarded to the leader, until its decision is known here
    commit     the decision is made durable
    execute    waits for what must be executed before
    reply      answers are given

Each stage begins where the one before it ends, so that they add up to the answer's latency. All
durations are of the clock of the replica that made the batch.

Rules of this file: samples are for people. What is sampled depends on time alone, and nothing that
a node says or records depends on what is sampled.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from epaxos.core.command import Operation, parse_version
from epaxos.core.replica import Decided, Path, Replica
from epaxos.core.stamps import Blocker, MemberAnswer, Stamps
from epaxos.core.types import InstanceId, Micros, ReplicaId, parse_instance, replica_name
from epaxos.node.requests import Flight

SAMPLES_KEPT: Final = 1024
"""So many of the latest samples a replica keeps."""
SHOWN_MAX: Final = 3
"""So many commands of a sampled batch are named."""
STAGES: Final = (
    "queue",
    "batch",
    "sync",
    "preaccept",
    "accept",
    "leader",
    "commit",
    "execute",
    "reply",
)
"""Every stage there is, in order."""
_NEVER: Final = 1 << 62


class Ordering(Protocol):
    """What is asked of the node's executor."""

    def is_executed(self, replica: ReplicaId, slot: int) -> bool:
        """Whether that very id has executed here."""
        ...

    def blocked_on(self, instance: InstanceId) -> InstanceId | None:
        """The id, not committed here, that a committed one waits for; None: for none."""
        ...


class Sampler:
    """Chooses batches of a node, and writes the stamps that the node can see."""

    def __init__(self, per_second: int, replica: Replica) -> None:
        self._interval = 1_000_000 // per_second if per_second else 0
        self.due: Micros = 0 if per_second else _NEVER
        """From when on the next batch is sampled."""
        self._replica = replica
        self.moving = False
        """Whether `take` has something to say or to look at; otherwise it need not be called."""
        self._moved: list[Stamps] = []
        """What was proposed, decided or executed since the last take."""
        self._decided: list[Stamps] = []
        """What waits for execution."""

    def launched(self, flight: Flight, now: Micros) -> None:
        """A batch was just proposed, or forwarded to the leader, and is sampled."""
        self.due = now + self._interval
        batch, runs = flight.payload.batch, flight.runs
        arrived, deadline = runs[0].arrived, runs[0].deadline
        if len(runs) > 1:
            arrived = min(run.arrived for run in runs)
            deadline = max(run.deadline for run in runs)
        shown = list(zip(batch.operations[:SHOWN_MAX], batch.keys))
        stamps = flight.stamps = Stamps(arrived, now, deadline, len(batch.keys), shown)
        stamps.instance = flight.instance
        stamps.leader = self._replica.leader
        stamps.forwarded = flight.instance is None
        if flight.instance is not None:
            self._replica.observe(flight.instance, stamps)
        self._moved.append(stamps)
        self.moving = True

    def decided(self, stamps: Stamps, decided: Decided, now: Micros) -> None:
        """A sampled batch is decided."""
        stamps.instance = InstanceId(decided.replica, decided.slot)
        stamps.path = decided.path
        stamps.decided_at = now
        self._decided.append(stamps)
        self._moved.append(stamps)
        self.moving = True

    def lost(self, stamps: Stamps, path: Path, now: Micros) -> None:
        """The instance of a sampled batch is decided without it."""
        stamps.path = path
        stamps.decided_at = now
        stamps.nop = True
        self._moved.append(stamps)
        self.moving = True

    def take(self, ordering: Ordering, now: Micros) -> Sequence[Stamps]:
        """Samples that moved since the last take; whatever could execute has executed."""
        if self._decided:
            self._look(ordering, now)
        self.moving = bool(self._decided)
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
            missing = ordering.blocked_on(instance)
            if missing is not None and (not stamps.held or stamps.held[-1].instance != missing):
                stamps.held.append(Blocker(missing, now))
        self._decided = waiting


class Samples:
    """The latest samples of one replica, and the stamps that only its driver can write: it says
    when a Ready was taken, released and answered. The clock (µs) is read only if it has samples."""

    def __init__(self, clock: Callable[[], Micros]) -> None:
        self._clock = clock
        self._kept: deque[Stamps] = deque(maxlen=SAMPLES_KEPT)
        self._taken_at: Micros = 0

    def taken(self, moved: Sequence[Stamps]) -> None:
        """A Ready with these samples was taken: its batches are cut, encoded and proposed."""
        if moved:
            self._taken_at = self._clock()

    def released(self, moved: Sequence[Stamps]) -> None:
        """It is durable, and leaves."""
        if not moved:
            return
        now = self._clock()
        for stamps in moved:
            if stamps.left_at is None:
                stamps.batched_at = self._taken_at
                stamps.left_at = now
                self._kept.append(stamps)
            if stamps.committed_at is None and stamps.decided_at is not None:
                stamps.committed_at = now

    def answered(self, moved: Sequence[Stamps]) -> None:
        """Its answers were given."""
        if not moved:
            return
        now = self._clock()
        for stamps in moved:
            if stamps.executed_at is not None and stamps.replied_at is None:
                stamps.replied_at = now

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._kept)

    def find(self, instance: InstanceId) -> Stamps | None:
        """The sample of an instance, if it is kept."""
        return next((stamps for stamps in self._kept if stamps.instance == instance), None)

    def named(self, request: str) -> Stamps | None:
        """The latest sample with a request that its client called so, if it is kept."""
        return next((stamps for stamps in reversed(self._kept) if request in stamps.requests), None)

    def latest(self, limit: int) -> list[Stamps]:
        """The latest, newest first."""
        return [stamps for stamps, _ in zip(reversed(self._kept), range(limit))]


def instance_of(text: str) -> InstanceId | None:
    """What `A.7`, a version `0.A.7.2` or an ETag names; None: it is none of these."""
    text = text.strip().strip('"')
    try:
        if text.count(".") == 1:
            return parse_instance(text)
        replica, slot, _ = parse_version(text)
        return InstanceId(replica, slot)
    except ValueError:
        return None


class JourneyStage(NamedTuple):
    """One stretch of a batch's journey."""

    name: str
    """One of `STAGES`."""
    start: Micros
    """Since the arrival of its first command."""
    length: Micros
    closed_by: ReplicaId | None
    """Whose answer ended it."""


def stages(stamps: Stamps) -> list[JourneyStage]:
    """The stages that are over, in order; together as long as the answer took, if it was given."""
    found: list[JourneyStage] = []
    begin = stamps.arrived_at
    for name, end, answers in _ends(stamps):
        if end is None:
            break
        end = max(begin, end)
        closed_by = answers[-1].member if answers and answers[-1].at == end else None
        found.append(JourneyStage(name, begin - stamps.arrived_at, end - begin, closed_by))
        begin = end
    return found


def under_way(stamps: Stamps) -> str | None:
    """The stage that is not over; None: all are, or nobody goes on with this instance."""
    if stamps.nop:
        return None
    return next((name for name, end, _ in _ends(stamps) if end is None), None)


def _ends(stamps: Stamps) -> list[tuple[str, Micros | None, list[MemberAnswer]]]:
    """Each stage with its end, and the answers of which one may have ended it."""
    rounds: list[tuple[str, Micros | None, list[MemberAnswer]]]
    if stamps.forwarded:
        rounds = [("leader", stamps.decided_at, [])]
    elif stamps.leader is not None:
        rounds = [("accept", stamps.decided_at, stamps.accepts)]
    elif stamps.accept_at is None:
        rounds = [("preaccept", stamps.decided_at, stamps.answers)]
    else:
        rounds = [
            ("preaccept", stamps.accept_at, stamps.answers),
            ("accept", stamps.decided_at, stamps.accepts),
        ]
    return [
        ("queue", stamps.proposed_at, []),
        ("batch", stamps.batched_at, []),
        ("sync", stamps.left_at, []),
        *rounds,
        ("commit", stamps.committed_at, []),
        ("execute", stamps.executed_at, []),
        ("reply", stamps.replied_at, []),
    ]


def document(stamps: Stamps, now: Micros) -> dict[str, Any]:
    """A sample in values that JSON can say; times in milliseconds since its arrival."""

    def ms(at: Micros) -> float:
        return (at - stamps.arrived_at) / 1000

    def said(answers: list[MemberAnswer]) -> list[dict[str, Any]]:
        return [
            {"replica": replica_name(member), "at_ms": ms(at), "also": [*map(str, also)]}
            for member, at, also in answers
        ]

    ends = [held.since for held in stamps.held[1:]]
    ends.append(now if stamps.executed_at is None else stamps.executed_at)
    return {
        "instance": None if stamps.instance is None else str(stamps.instance),
        "commands": stamps.commands,
        "first": [
            {
                "operation": Operation(code).name.lower(),
                "key": key.decode("utf-8", "backslashreplace"),
            }
            for code, key in stamps.shown
        ],
        "requests": stamps.requests,
        "path": None if stamps.decided_at is None else Path(stamps.path).name.lower(),
        "nop": stamps.nop,
        "leader": None if stamps.leader is None else replica_name(stamps.leader),
        "forwarded": stamps.forwarded,
        "answer_ms": None if stamps.replied_at is None else ms(stamps.replied_at),
        "late": stamps.deadline < (now if stamps.replied_at is None else stamps.replied_at),
        "under_way": under_way(stamps),
        "age_ms": ms(now),
        "stages": [
            {
                "name": name,
                "start_ms": start / 1000,
                "ms": length / 1000,
                "closed_by": None if closed_by is None else replica_name(closed_by),
            }
            for name, start, length, closed_by in stages(stamps)
        ],
        "answers": said(stamps.answers),
        "accepts": said(stamps.accepts),
        "held_by": [
            {
                "instance": str(held.instance),
                "from_ms": ms(held.since),
                "ms": (end - held.since) / 1000,
            }
            for held, end in zip(stamps.held, ends)
        ],
    }
