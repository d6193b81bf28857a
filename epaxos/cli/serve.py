"""`epaxos serve`: one replica of a cluster, in the foreground."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from epaxos.cli.options import UnsafeNoGate, seed_option
from epaxos.runtime.config import load_config

app = typer.Typer()


@app.command()
def serve(
    config: Annotated[
        Path, typer.Option(envvar="EPAXOS_CONFIG", help="The cluster's file; docs/operating.md.")
    ],
    replica: Annotated[
        str, typer.Option(envvar="EPAXOS_REPLICA", help="Region, letter or number of this one.")
    ],
    data: Annotated[
        Path | None, typer.Option(envvar="EPAXOS_DATA", help="Its data directory.")
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="epaxos or multipaxos.")] = None,
    durability: Annotated[str | None, typer.Option(help="fsync or memory.")] = None,
    topology: Annotated[str | None, typer.Option(help="Name or file.")] = None,
    emulate: Annotated[
        bool | None, typer.Option(help="Hold messages back as the topology says.")
    ] = None,
    seed: Annotated[int | None, seed_option("Of emulated jitter and loss.")] = None,
    leader: Annotated[str | None, typer.Option(help="First leader: region or letter.")] = None,
    unsafe_no_gate: UnsafeNoGate = False,
    admin: Annotated[bool | None, typer.Option(help="Let HTTP change the emulated links.")] = None,
    insecure: Annotated[
        bool | None, typer.Option(help="Allow hosts that other machines can reach.")
    ] = None,
    record: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Write a trace for `epaxos sim replay DIR`."),
    ] = None,
) -> None:
    """Run one replica until SIGTERM or Ctrl-C.

    Prints one JSON line when it is ready. Settings: flags, then EPAXOS_<KEY> in the environment,
    then the file. Every replica of a cluster must get the same ones."""
    overrides = {
        "protocol": protocol,
        "durability": durability,
        "topology": topology,
        "emulate": emulate,
        "seed": seed,
        "leader": leader,
        "gate": False if unsafe_no_gate else None,
        "admin": admin,
        "insecure": insecure,
        "record": record,
    }
    settings = load_config(config, replica, data, overrides, os.environ)
    from epaxos.runtime.logs import configure_logging
    from epaxos.runtime.server import run

    configure_logging()
    run(settings, announce)


def announce(document: dict[str, Any]) -> None:
    """The line that says that the replica is ready."""
    sys.stdout.write(orjson.dumps(document).decode() + "\n")
    sys.stdout.flush()
