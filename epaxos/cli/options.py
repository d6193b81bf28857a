"""Options that several verbs have, with the same words in each help.

An option of one verb stands with the verb."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

JOBS_MAX: Final = 1024
"""More processes than any machine has use for."""
SEED_MAX: Final = 2**31
"""Of every seed, in a file of an experiment too: it fits wherever a seed goes, and so do the next
ones, of repeats. All start at 0."""


def seed_option(draws: str) -> Any:
    """The option of a seed; each verb says what its seed draws."""
    return typer.Option(min=0, max=SEED_MAX, help=draws)


TopologyName = Annotated[str, typer.Option(help="Name or file; `epaxos topology list` shows them.")]
Replicas = Annotated[int | None, typer.Option(min=1, max=9, help="Only so many of its regions.")]
Durability = Annotated[str, typer.Option(help="fsync or memory.")]
LoadSeed = Annotated[int, seed_option("Of commands, arrivals and emulated jitter.")]
UnsafeNoGate = Annotated[
    bool, typer.Option("--unsafe-no-gate", help="Do not hold back commands on contended keys.")
]
Simulated = Annotated[
    bool, typer.Option("--simulated", help="In virtual time: no processes, done in seconds.")
]
Check = Annotated[
    bool,
    typer.Option(
        "--check",
        help="Keep every call, and judge whether the history is linearizable (docs/check.md).",
    ),
]
StateMachineName = Annotated[
    str,
    typer.Option(
        metavar="MODULE:CLASS", help="Your own state machine in place of the key-value store."
    ),
]
ClusterFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Take the addresses from this cluster.toml.")
]
Timeout = Annotated[
    float,
    typer.Option(min=0.001, max=3600, metavar="SECONDS", help="How long to wait for the answer."),
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="A directory per run is made in it.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document with everything.")]
