"""What a run is made of, and how a seed draws it.

Rules of this file: plain data and arithmetic on one `random.Random`; nothing happens here. Swarm
testing: each kind of fault is absent in half of the seeds, and a tunable that a seed draws stands
at one of its extremes more often than not.
"""

import random
from dataclasses import dataclass, fields, replace
from typing import Any

import topology
from epaxos.core.errors import ConfigError
from epaxos.core.quorum import quorums
from epaxos.core.types import Micros, ReplicaId
from epaxos.protocols.epaxos import columns

ORDERS = ("delay", "priorities", "newest", "starve")
"""How deliveries are ordered: by drawn delays alone; by link priorities that change a few times
(PCT); the newest first; one replica starved."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong, as totals; when and where follows from the seed."""

    # Network
    loss: float = 0.0
    """Share of messages that never arrive."""
    duplication: float = 0.0
    """Share of messages that arrive twice, a quarter of the copies seconds late."""
    replays: int = 0
    """How many messages of the past are delivered once more, at any later time."""
    reorder: bool = False
    """False: each link is FIFO."""
    partitions: int = 0
    """How many times links are cut for a while: one isolated, halves, a ring of majorities, some
    links in one direction."""
    flaps: int = 0
    """How many links go up and down many times."""
    spikes: int = 0
    """How many times all links of a replica are slow for a while."""
    # Processes
    crashes: int = 0
    """How many times a replica crashes; it restarts from what its disk kept."""
    dead: int = 0
    """How many replicas crash for good; at most a minority, refused and rotten disks included."""
    pauses: int = 0
    """How many times a process stands still and goes on."""
    stalls: int = 0
    """How many times the event loop stands still between a step and what it says."""
    # Disks
    sync_us: tuple[Micros, Micros] = (100, 2_000)
    """How long a sync takes, at least and at most."""
    sync_stalls: int = 0
    """How many syncs take half a second to three seconds."""
    torn: bool = False
    """A crash leaves any of the unsynced sectors, in any order, and perhaps a torn last record."""
    full: int = 0
    """How many times a disk is full for a while: the process ends until there is room."""
    sync_errors: int = 0
    """How many syncs fail: the process ends and starts again."""
    full_amid_step: int = 0
    """How many times a disk becomes full in the middle of a step's append, and keeps the first part
    of it: the process ends until there is room."""
    sync_errors_readable: int = 0
    """How many syncs fail and leave everything readable, until the power is lost."""
    bit_rot: int = 0
    """How many restarts find a flipped bit in the middle of the log: the start is refused."""
    swapped: int = 0
    """How many restarts come with an empty, older or foreign disk: the replica is refused."""
    insistent: int = 8
    """How often at most such a replica is started again, now and then with an empty or older disk
    once more."""
    # Clocks
    clocks: bool = False
    """Clocks differ by offset and rate (10 % either way) and jump forward now and then."""
    # Clients
    retries: float = 0.0
    """Share of failed requests that are tried again at another replica."""
    vanishing: float = 0.0
    """Share of requests whose client is gone before the answer."""


@dataclass(frozen=True)
class RunOptions:
    """The options of one run."""

    seed: int = 1
    protocol: str = "epaxos"
    replicas: int = 5
    commands: int = 40
    keys: int = 3
    hot: float = 0.0
    """Share of commands that name the first key whatever else is drawn."""
    reads: float = 0.35
    """Share of commands that are GETs."""
    workload: str = ""
    """What clients ask for instead of the three above, as `epaxos.workload.parse_workload` reads
    it."""
    delays_us: tuple[tuple[Micros, ...], ...] = ()
    """One-way delay from row to column."""
    rtt_error: float = 1.0
    """By what factor the round trips that replicas are told are wrong."""
    jitter_us: Micros = 2_000
    """Added to each delivery, evenly from 0 to this."""
    order: str = "delay"
    """One of `ORDERS`."""
    lag_us: Micros = 0
    """How long an input waits at most before its process takes the next step."""
    faults: Faults = Faults()
    active_us: Micros = 2_500_000
    """For so long clients send and things fail (the safety phase); then a core heals."""
    settle_us: Micros = 20_000_000
    """Within so long after it everything known must be executed at the whole core (the liveness
    phase)."""
    rest: int = 0
    """How many replicas stay dead or cut off when the core heals; at most a minority."""
    patience_us: Micros = 3_000_000
    """How long a client waits for an answer while things fail."""
    conditions: bool = False
    """Clients name versions that they have seen, create only, and delete only what they expect."""
    same_argument: bool = False
    """Who tries again sends the very same command, instead of one with an argument of its own."""
    memory: bool = False
    """Nothing is written and no sync takes time; who crashes never comes back (R11)."""
    gate: bool = True
    """False: contended keys are not held back."""
    leader: ReplicaId = 0
    """Leader protocols: who campaigns at the first start."""
    transfers: int = 0
    """Leader protocols: how many times leadership is handed over on request."""
    limits: tuple[tuple[str, int], ...] = ()
    """Bounds of the nodes that differ from the defaults (`epaxos.node.requests.Limits`)."""
    tunables: tuple[tuple[str, float], ...] = ()
    """Constants of the protocols that differ from the defaults (`epaxos.sim.tunables`)."""
    deep: bool = True
    """Whether the protocol's own invariants are checked after each step."""
    story: bool = False
    """Whether to keep what happened: the story and the schedule."""


WORKLOADS: dict[str, tuple[tuple[str, Any], ...]] = {
    "mixed": (),
    "one-key": (("keys", 1),),
    "hot": (("keys", 6), ("hot", 0.9)),
    "wide": (("keys", 60), ("hot", 0.0)),
    "conflict-2": (("keys", 200), ("hot", 0.02)),
    "reads": (("reads", 0.9),),
    "writes": (("reads", 0.0),),
}
"""What clients may be told to do, as changes of a drawn run: `mixed` leaves it to the seed."""


TUNABLES: dict[str, tuple[float, ...]] = {
    "epaxos.PATIENCE_RTTS": (1, 2, 20),
    "epaxos.SUSPECT_RTTS": (2, 3, 30),
    "epaxos.RESEND_RTTS": (0.6, 8),
    "epaxos.YIELD_RTTS": (0, 12),
    "epaxos.HEARTBEAT_RTTS": (0.3, 3),
    "epaxos.PROGRESS_INSTANCES": (1, 1_000),
    "epaxos.SLOTS_PER_QUESTION": (1, 2),
    "epaxos.COMMITS_PER_ANSWER": (1, 2),
    "epaxos.COMMIT_BYTES_PER_ANSWER": (1,),
    "epaxos.VOTE_BYTES_PER_ANSWER": (1,),
    "epaxos.VALIDATE_RESENDS": (0, 1),
    "epaxos.WAITING_RESENDS": (0, 1),
    "epaxos.FAST_PATH_GRACE_US": (0, 100_000),
    "multipaxos.CHUNK_SLOTS": (1, 2),
    "multipaxos.CHUNK_BYTES": (1,),
    "multipaxos.PROGRESS_SLOTS": (1, 1_000),
    "multipaxos.PATIENCE_FLOOR_US": (150_000, 400_000),
    "multipaxos.PATIENCE_RTTS": (4,),
}
"""Constants that a seed may set, and their extremes."""

FAR: dict[str, tuple[float, ...]] = {
    "multipaxos.SLOTS_AHEAD_MAX": (1, 3),
    "multipaxos.NOTED_SLOTS": (1, 4),
    "epaxos.NOTED_INSTANCES": (1, 4),
}
"""The same, drawn by a random of its own: what other constants a seed sets does not hang on it."""

_WAITS: dict[str, float] = {
    f"epaxos.{name}": getattr(columns, name)
    for name in ("PATIENCE_RTTS", "SUSPECT_RTTS", "RESEND_RTTS", "YIELD_RTTS", "HEARTBEAT_RTTS")
}
"""What waits usually are."""

LIMITS: dict[str, tuple[int, ...]] = {
    "batch_commands": (1, 2),
    "batch_bytes": (1, 16),
    "queued_commands": (0, 1, 4),
    "live_bytes": (4_000, 20_000),
}
"""Bounds of a node that a seed may set, and their extremes."""


SIZES: tuple[int, ...] = (800, 2_000)
"""Bounds of a payload that a seed may set, drawn by a random of its own. Then values have sizes
around it, and no message or record holds more than one such payload and what surrounds it."""


def draw(
    seed: int,
    protocol: str = "epaxos",
    replicas: tuple[int, ...] = (3, 5, 7),
    commands: int = 40,
    gate: bool = True,
    only: frozenset[str] | None = None,
    sites: topology.Topology | None = None,
) -> RunOptions:
    """The run that belongs to a seed.

    `only` names the kinds of fault that may happen (fields of `Faults`, `order`, `tunables`,
    `rest`); None is all. `sites` fixes the delays."""
    rng = random.Random(f"options {seed}")
    n = sites.n if sites is not None else rng.choice(replicas)
    rtt_error = rng.choice((1.0, 1.0, 1.0, 0.1, 5.0))
    prefix = f"{protocol}."
    tunables = _draw_extremes(rng, TUNABLES, prefix)
    tunables += _draw_extremes(random.Random(f"far {seed}"), FAR, prefix)
    if rtt_error < 1:
        # A patience shorter than a round trip elects nobody, and a leader's replica keeps the one
        # it was built with.
        tunables = tuple(each for each in tunables if "multipaxos.PATIENCE" not in each[0])
    if dict(tunables).get("epaxos.SUSPECT_RTTS", 10) <= 3:
        # Whoever is suspected before it speaks again takes part in nothing.
        tunables = tuple(each for each in tunables if each != ("epaxos.HEARTBEAT_RTTS", 3))
    options = RunOptions(
        seed=seed,
        protocol=protocol,
        replicas=n,
        commands=commands,
        keys=rng.choice((1, 2, 3, 6, 20)),
        hot=rng.choice((0.0, 0.0, 0.3, 0.9)),
        delays_us=_draw_delays(rng, n) if sites is None else delays_of(sites),
        jitter_us=rng.choice((0, 100, 2_000, 20_000)),
        lag_us=rng.choice((0, 0, 300, 5_000)),
        faults=_add_disk_faults(_draw_faults(rng, n), random.Random(f"disks {seed}")),
        gate=gate and rng.random() < 0.8,
        deep=rng.random() < 0.12,
        memory=rng.random() < 0.1,
        patience_us=rng.choice((3_000_000, 3_000_000, 3_000_000, 200_000)),
        leader=rng.randrange(n),
        transfers=_maybe(rng, rng.randint(1, 3)),
        order=rng.choice(ORDERS) if rng.random() < 0.5 else "delay",
        rtt_error=rtt_error,
        settle_us=round(RunOptions.settle_us * _patience(rtt_error, dict(tunables))),
        rest=_maybe(rng, rng.randint(0, quorums(n).f)),
        limits=_draw_extremes(rng, LIMITS, "") + _draw_size(random.Random(f"sizes {seed}")),
        tunables=tunables,
        conditions=random.Random(f"conditions {seed}").random() < 0.5,
        same_argument=random.Random(f"same argument {seed}").random() < 0.5,
    )
    return options if only is None else restrict(options, only)


def _patience(rtt_error: float, tunables: dict[str, float]) -> float:
    """How much longer than usual all may take until it is settled: as waits are longer than usual,
    and an election's patience is in round trips as they were told."""
    longest = max(tunables.get(name, 0) / usual for name, usual in _WAITS.items())
    return max(1.0, rtt_error) * max(1.0, longest)


def _maybe(rng: random.Random, value: Any) -> Any:
    """The value in half of the cases, else nothing of it."""
    return value if rng.random() < 0.5 else type(value)(0)


def _draw_faults(rng: random.Random, n: int) -> Faults:
    minority = quorums(n).f
    return Faults(
        loss=_maybe(rng, rng.uniform(0.01, 0.3)),
        duplication=_maybe(rng, rng.uniform(0.01, 0.4)),
        replays=_maybe(rng, rng.randint(1, 20)),
        reorder=rng.random() < 0.5,
        partitions=_maybe(rng, rng.randint(1, 4)),
        flaps=_maybe(rng, rng.randint(1, 2)),
        spikes=_maybe(rng, rng.randint(1, 3)),
        crashes=_maybe(rng, rng.randint(1, 6)),
        dead=rng.randint(1, minority) if minority and rng.random() < 0.3 else 0,
        pauses=_maybe(rng, rng.randint(1, 3)),
        stalls=_maybe(rng, rng.randint(1, 3)),
        sync_us=(100, rng.choice((500, 2_000, 20_000))),
        sync_stalls=_maybe(rng, rng.randint(1, 3)),
        torn=rng.random() < 0.5,
        full=_maybe(rng, rng.randint(0, 1)),
        sync_errors=_maybe(rng, rng.randint(0, 2)),
        bit_rot=_maybe(rng, rng.randint(0, 1)),
        swapped=_maybe(rng, rng.randint(0, 1)),
        clocks=rng.random() < 0.5,
        retries=_maybe(rng, rng.uniform(0.2, 1.0)),
        vanishing=_maybe(rng, rng.uniform(0.02, 0.3)),
    )


def _add_disk_faults(faults: Faults, rng: random.Random) -> Faults:
    """Those that came later, drawn apart: seeds without them are the runs that they were."""
    return replace(
        faults,
        full_amid_step=_maybe(rng, rng.randint(0, 2)),
        sync_errors_readable=_maybe(rng, rng.randint(0, 2)),
    )


def _draw_extremes(
    rng: random.Random, table: dict[str, tuple[Any, ...]], prefix: str
) -> tuple[tuple[str, Any], ...]:
    """In half of the seeds a few of a table's entries at one of their extremes."""
    if rng.random() < 0.5:
        return ()
    return tuple(
        (name, rng.choice(values))
        for name, values in table.items()
        if name.startswith(prefix) and rng.random() < 0.25
    )


def _draw_size(rng: random.Random) -> tuple[tuple[str, int], ...]:
    """In an eighth of the seeds a small bound of a payload."""
    return (("payload_bytes", rng.choice(SIZES)),) if rng.random() < 0.125 else ()


KINDS = (
    *(each.name for each in fields(Faults)),
    *("order", "tunables", "limits", "rest", "lag_us", "memory", "rtt_error", "transfers"),
    *("patience_us", "jitter_us", "conditions", "same_argument"),
)
"""What `restrict` can leave in or take out."""


def restrict(options: RunOptions, only: frozenset[str]) -> RunOptions:
    """The same run with no other kinds of trouble than these. Raises ConfigError."""
    unknown = only - set(KINDS)
    if unknown:
        raise ConfigError(
            f"unknown kind of fault {sorted(unknown)[0]!r}; choose from {', '.join(KINDS)}"
        )
    calm = RunOptions()
    faults = replace(
        options.faults,
        **{
            each.name: getattr(calm.faults, each.name)
            for each in fields(Faults)
            if each.name not in only
        },
    )
    changes: dict[str, Any] = {
        name: getattr(calm, name) for name in KINDS[len(fields(Faults)) :] if name not in only
    }
    return replace(options, faults=faults, **changes)


def delays_of(sites: topology.Topology) -> tuple[tuple[Micros, ...], ...]:
    """A topology's mean one-way delays."""
    members = range(sites.n)
    return tuple(tuple(sites.mean_one_way_us(i, j) for j in members) for i in members)


def _draw_delays(rng: random.Random, n: int) -> tuple[tuple[Micros, ...], ...]:
    kind = rng.choice(("sites", "room", "any"))
    if kind == "sites" and n in (3, 5):
        return delays_of(topology.find("aws-5-2020", n))
    if kind == "room":
        return ((200,) * n,) * n
    return tuple(
        tuple(0 if i == j else rng.randint(500, 100_000) for j in range(n)) for i in range(n)
    )
