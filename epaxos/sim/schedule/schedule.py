"""A run as an explicit list of steps: what each process was given, when, and how the step ended.

The world records one while it runs (`World.recorded`), directed scenarios build one by hand, the
shrinker cuts one down, and `Stage` plays one. A schedule needs no network and no randomness: a
message that no step delivers was lost, one that two steps deliver was duplicated.

Messages are named by what they say (`label_of`) and their number among those of that name on the
link, so that a schedule stays meaningful when steps are taken out of it: a delivery whose message
was never sent is skipped.

Rules of this file: plain data. Steps stand in the order of their ends (release or crash); `at` is
the process's own clock, which never goes back at one process.
"""

from typing import NamedTuple, TypeAlias

from epaxos.core.replica import Message
from epaxos.core.types import InstanceId, Micros, ReplicaId, ballot_name


class Arrival(NamedTuple):
    """A message is delivered."""

    source: ReplicaId
    label: str
    """What it says: `label_of`."""
    nth: int
    """Which one of that label that `source` sent to this process, from 0."""


class Commands(NamedTuple):
    """A client's request arrives."""

    number: int
    """The request's name; unique in the schedule."""
    operations: bytes
    keys: tuple[bytes, ...]
    arguments: tuple[bytes, ...]
    patience_us: Micros
    """From its arrival to the client's deadline."""


class TakeOver(NamedTuple):
    """The process is told to recover these instances now (directed schedules; EPaxos only)."""

    instances: tuple[InstanceId, ...]


class HandOver(NamedTuple):
    """The process is asked to hand leadership over (leader protocols only)."""

    target: ReplicaId


Input: TypeAlias = Arrival | Commands | TakeOver | HandOver


class Start(NamedTuple):
    """A process starts from what its disk kept."""

    member: ReplicaId
    at: Micros
    seed: int
    """Of the node's random."""


class Step(NamedTuple):
    """One step of one process: inputs, perhaps a wake, one take, and its release."""

    member: ReplicaId
    at: Micros
    inputs: tuple[Input, ...] = ()
    wake: bool = True
    """Whether the node is woken if a deadline of its own has passed. The first step after a start
    wakes it in any case."""
    released_at: Micros | None = None
    """The process's clock when everything of the step left; None: at `at`."""
    crash: "Crash | None" = None
    """The process crashes in this step instead of releasing all of it."""


class Crash(NamedTuple):
    """A process ends at once. Within a step: nothing was appended (`appended` False), or the step's
    records were, and of the unsynced tail `kept` records survive; `sent` single messages had left
    (then everything was synced before)."""

    member: ReplicaId
    at: Micros
    appended: bool = True
    kept: int = 0
    """How many records of the unsynced tail survive, from its front."""
    sent: int | None = None
    """How many single sends had left; None: the crash came before any, and before the sync."""


Event: TypeAlias = Start | Step | Crash


class Schedule(NamedTuple):
    """All that is needed to play it."""

    protocol: str
    replicas: int
    rtt_us: tuple[tuple[Micros, ...], ...]
    """Per process what it was told of round trips."""
    leader: ReplicaId
    gate: bool
    memory: bool
    events: tuple[Event, ...]
    limits: tuple[tuple[str, int], ...] = ()
    """Bounds of the nodes that differ from the defaults of `Limits`."""
    tunables: tuple[tuple[str, float], ...] = ()
    """Constants of the protocols that differ from the defaults (`epaxos.sim.tunables`)."""
    calm_at: tuple[Micros, ...] = ()
    """From when on, by each process's own clock, the bounds are the defaults again; empty is
    never."""


HEARTBEATS = ("Progress", "Heartbeat")
"""Kinds of the messages that every member repeats as long as it lives; no story is about them."""


def label_of(message: Message) -> str:
    """What a message says in a few stable words: kind, instance or slots, ballot.

    `PreAccept A.1`, `Recover A.1,2 b1@B`, `Accept 7 b1@A`, `Progress`."""
    words = [type(message).__name__]
    column = getattr(message, "replica", None)
    slot = getattr(message, "slot", None)
    slots = getattr(message, "slots", None)
    if slot is None and slots is None and hasattr(message, "votes"):
        slots = [vote.slot for vote in message.votes]
    if slots:
        numbers = ",".join(map(str, slots))
        words.append(numbers if column is None else f"{chr(ord('A') + column)}.{numbers}")
    elif slot is not None:
        words.append(str(slot) if column is None else str(InstanceId(column, slot)))
    ballot = getattr(message, "ballot", None)
    if ballot is None:
        ballot = getattr(message, "promised", None)
    if ballot:
        words.append(ballot_name(ballot))
    return " ".join(words)
