"""What a simulated run is made of: a pure function of seed and settings.

Rules of this file: every choice comes from the random it is given (swarm testing: each kind of
fault is absent in about half of the seeds); no choice looks at the protocol's state.
"""

import random
from dataclasses import dataclass

import topology
from epaxos.core.types import Micros


@dataclass(frozen=True)
class Faults:
    """What may go wrong before the world heals."""

    loss: float = 0.0
    """Probability that a message is lost."""
    duplication: float = 0.0
    """Probability that a message arrives twice; a quarter of the copies come seconds later."""
    reorder: bool = False
    """Whether messages of one link may overtake each other."""
    partitions: int = 0
    """How many times links are cut for a while."""
    crashes: int = 0
    """How many times a replica crashes; it restarts from what its disk kept."""
    dead: int = 0
    """How many replicas crash for good; at most a minority."""
    pauses: int = 0
    """How many times a replica stands still for a while."""
    sync_us: tuple[Micros, Micros] = (100, 2_000)
    """How long a sync takes, at least and at most."""


@dataclass(frozen=True)
class Options:
    """One run."""

    seed: int = 1
    protocol: str = "epaxos"
    replicas: int = 5
    commands: int = 40
    keys: int = 3
    delays_us: tuple[tuple[Micros, ...], ...] = ()
    """One-way delay from row to column."""
    jitter_us: Micros = 2_000
    """Added to each delivery, evenly from 0 to this."""
    faults: Faults = Faults()
    active_us: Micros = 2_500_000
    """For so long clients send and things fail; then the world heals."""
    settle_us: Micros = 60_000_000
    """Within so long after it everything known must be executed everywhere."""
    patience_us: Micros = 3_000_000
    """How long a client waits for an answer while things fail."""
    memory: bool = False
    """Nothing is written and no sync takes time; who crashes never comes back (R11)."""
    gate: bool = True
    """False: contended keys are not held back."""
    deep: bool = True
    """Whether the protocol's own invariants are checked after each step."""
    story: bool = False
    """Whether to keep what happened for the chart."""


def draw(
    seed: int,
    protocol: str = "epaxos",
    replicas: tuple[int, ...] = (3, 5, 7),
    commands: int = 40,
    gate: bool = True,
) -> Options:
    """The run that belongs to a seed."""
    rng = random.Random(f"options {seed}")
    n = rng.choice(replicas)
    minority = (n - 1) // 2

    def maybe(value: float) -> float:
        return value if rng.random() < 0.5 else 0

    dead = rng.randint(1, minority) if minority and rng.random() < 0.2 else 0
    faults = Faults(
        loss=maybe(rng.uniform(0.01, 0.25)),
        duplication=maybe(rng.uniform(0.01, 0.25)),
        reorder=rng.random() < 0.5,
        partitions=int(maybe(rng.randint(1, 4))),
        crashes=int(maybe(rng.randint(1, 6))),
        dead=dead,
        pauses=int(maybe(rng.randint(1, 3))),
        sync_us=(100, rng.choice((500, 2_000, 20_000))),
    )
    return Options(
        seed=seed,
        protocol=protocol,
        replicas=n,
        commands=commands,
        keys=rng.choice((1, 2, 3, 6)),
        delays_us=_draw_delays(rng, n),
        jitter_us=rng.choice((100, 2_000, 20_000)),
        faults=faults,
        gate=gate and rng.random() < 0.8,
        deep=rng.random() < 0.25,
        memory=rng.random() < 0.1,
        patience_us=rng.choice((3_000_000, 3_000_000, 3_000_000, 200_000)),
    )


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
