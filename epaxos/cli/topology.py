"""`epaxos topology`: what distances there are, and what latency they allow.

Rules of this file: every figure printed comes from a matrix or from the closed form; nothing here
measures.
"""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

import topology
from epaxos.cli.options import Json, Replicas
from epaxos.cli.output import console, make_table, print_json
from epaxos.core.errors import ConfigError
from topology import Prediction, Topology

app = typer.Typer(help="List and show topologies; predict latencies on one.")

_SHAPES: Final = {
    "lan[:N]": "one room, 0.2 ms",
    "equidistant:N,RTT_MS": "everybody as far from everybody",
    "one-far:N,NEAR_MS,FAR_MS": "the last region is far from all others",
    "FILE.toml": "your own; `epaxos topology show NAME --format toml` writes one to start from",
    "FILE.csv[:REGION,...]": "a table as `epaxos topology show NAME --format csv` writes it",
    "FOLDER[:REGION,...]": "a folder of fantoch: REGION.dat, lines MIN/AVG/MAX/MDEV:REGION",
    "FILE.conf[:REGION,...]": "a latency.conf of swiftpaxos: lines FROM TO 128ms",
}

Spec = Annotated[str, typer.Argument(metavar="TOPOLOGY", help="Name or file; `list` shows them.")]


class Format(StrEnum):
    """What `show` can write beside its table."""

    CSV = "csv"
    TOML = "toml"
    NETEM = "netem"


@app.command("list")
def list_topologies(
    cloud: Annotated[
        str | None, typer.Argument(metavar="CLOUD", help="Show the regions of this cloud.")
    ] = None,
    json: Json = False,
) -> None:
    """What can be given to --topology, or the regions of one cloud."""
    if cloud is not None:
        _list_regions(cloud, json)
        return
    named = _named()
    clouds = {name: len(topology.cloud_regions(name)) for name in topology.clouds()}
    if json:
        print_json({"named": [_document(each) for each in named], "clouds": clouds})
        return
    table = make_table("topology", "regions", "measured", "what it is")
    for each in named:
        mark = " (default)" if each.name == topology.DEFAULT else ""
        regions = " ".join(region.name for region in each.regions)
        table.add_row(each.name + mark, regions, each.date, each.title)
    for name, size in clouds.items():
        table.add_row(f"{name}:REGION,...", f"{size} to pick from", "", f"see: list {name}")
    for form, what in _SHAPES.items():
        table.add_row(form, "", "", what)
    console().print(table)


def _named() -> list[topology.Topology]:
    """Those with a name. One from outside that cannot be loaded is a remark."""
    found = []
    for name in topology.names():
        if ":" in name:
            continue
        try:
            found.append(topology.find(name))
        except topology.TopologyError as error:
            console(stderr=True).print(str(error), soft_wrap=True)
    return found


@app.command()
def show(
    spec: Spec = topology.DEFAULT,
    replicas: Replicas = None,
    form: Annotated[
        Format | None, typer.Option("--format", help="Write it for another program instead.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where --format writes; else stdout.")
    ] = None,
    json: Json = False,
) -> None:
    """The round trips of a topology, and where they come from."""
    found = topology.find(spec, replicas)
    if form is not None:
        _write(found, form, out)
        return
    if out is not None:
        raise ConfigError("--out needs --format; choose csv, toml or netem")
    if json:
        print_json(_document(found))
        return
    table = make_table(
        "",
        *(f">{region.name}" for region in found.regions),
        title=f"{found.name}: round trips in ms",
    )
    for i, region in enumerate(found.regions):
        row = [
            "–" if i == j else f"{value:,.1f}{_spread(found, i, j)}"
            for j, value in enumerate(found.rtt[i])
        ]
        table.add_row(_place(region), *row)
    screen = console()
    screen.print(table)
    screen.print("± is the mean of what varies one way, where that is over 0.05 ms")
    _print_provenance(found)


@app.command()
def predict(
    spec: Spec = topology.DEFAULT,
    replicas: Replicas = None,
    leader: Annotated[
        str, typer.Option(metavar="LIST", help="Leaders: best, worst (by mean), or regions.")
    ] = "best,worst",
    down: Annotated[str, typer.Option(metavar="LIST", help="Regions whose replica is dead.")] = "",
    sync_ms: Annotated[
        float, typer.Option(min=0, max=60_000, help="One sync of the disk; three lie on the way.")
    ] = 0.0,
    hop_ms: Annotated[
        float, typer.Option(min=0, max=60_000, help="Round trip from a client to its replica.")
    ] = 0.0,
    json: Json = False,
) -> None:
    """The latency that physics allows, per protocol and region of the client.

    EPaxos: the round trip to the farthest of the nearest fast quorum; under conflict that and one
    to a slow quorum. Multi-Paxos: the way to the leader and the leader's majority."""
    found = topology.find(spec, replicas)
    dead = {found.index(name) for name in _names(down)}
    alive = [i for i in range(found.n) if i not in dead]
    added = 3 * sync_ms + hop_ms
    epaxos = topology.predict_epaxos(found, alive, added)
    leaders = {
        label: topology.predict_leader(found, position, alive, added)
        for label, position in _leaders(found, leader, alive).items()
    }
    if json:
        print_json(
            {
                "topology": found.name,
                "added_ms": added,
                "down": [found.regions[i].name for i in sorted(dead)],
                "epaxos": [_prediction(found, each) for each in epaxos],
                "multipaxos": {
                    label: [_prediction(found, each) for each in each_of]
                    for label, each_of in leaders.items()
                },
            }
        )
        return
    _print_predictions(found, epaxos, leaders)
    _print_provenance(found)


def _list_regions(cloud: str, json: bool) -> None:
    regions = topology.cloud_regions(cloud)
    if json:
        print_json([_region(region) for region in regions])
        return
    table = make_table("region", "city", ">latitude", ">longitude")
    for region in regions:
        placed = region.lat is not None and region.lon is not None
        table.add_row(
            region.name,
            region.city,
            *((f"{region.lat:.2f}", f"{region.lon:.2f}") if placed else ("–", "–")),
        )
    console().print(table)
    example = ",".join(region.name for region in regions[:3])
    console().print(f"pick some: --topology {cloud}:{example}")


def _write(found: Topology, form: Format, out: Path | None) -> None:
    write = {
        Format.CSV: topology.to_csv,
        Format.TOML: topology.to_toml,
        Format.NETEM: topology.to_netem,
    }[form]
    text = write(found)
    if out is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out {out}: {error.strerror}; name another file") from None


def _leaders(found: Topology, text: str, alive: list[int]) -> dict[str, int]:
    """The leaders asked for, by what heads their column."""
    chosen: dict[str, int] = {}
    for word in _names(text):
        if word == "best":
            position = topology.best_leader(found, alive)
        elif word == "worst":
            position = topology.worst_leader(found, alive)
        else:
            position = found.index(word)
        if position not in alive:
            raise ConfigError(f"--leader {word} is down; name one that lives")
        chosen.setdefault(found.regions[position].name, position)
    return chosen


def _names(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _print_predictions(
    found: Topology, epaxos: list[Prediction], leaders: dict[str, list[Prediction]]
) -> None:
    table = make_table(
        "region",
        ">EPaxos fast",
        "answered by",
        ">slow",
        *(f">Multi-Paxos @{label}" for label in leaders),
        title=f"{found.name}, {found.n} replicas: milliseconds until a command is committed",
    )
    for row, each in enumerate(epaxos):
        quorum = ", ".join(found.regions[i].title for i in each.quorum[1:])
        table.add_row(
            found.regions[each.region].title,
            f"{each.fast_ms:.1f}",
            quorum or "itself",
            f"{each.slow_ms:.1f}",
            *(f"{of[row].fast_ms:.1f}" for of in leaders.values()),
        )
    console().print(table)


def _print_provenance(found: Topology) -> None:
    dated = f" ({found.date})" if found.date else ""
    screen = console()
    screen.print(f"source: {found.source}{dated}")
    for note in found.notes:
        screen.print(f"note: {note}")


def _place(region: topology.Region) -> str:
    return region.name if region.title == region.name else f"{region.title} ({region.name})"


def _spread(found: Topology, i: int, j: int) -> str:
    mean_ms = found.jitter(i, j).mean_us / 1000
    return f" ±{mean_ms:.1f}" if mean_ms >= 0.05 else ""


def _region(region: topology.Region) -> dict[str, Any]:
    return {
        "name": region.name,
        "title": region.title,
        "city": region.city,
        "lat": region.lat,
        "lon": region.lon,
    }


def _document(found: Topology) -> dict[str, Any]:
    return {
        "name": found.name,
        "title": found.title,
        "source": found.source,
        "date": found.date,
        "notes": list(found.notes),
        "regions": [_region(region) for region in found.regions],
        "rtt_ms": [list(row) for row in found.rtt],
        "one_way_floor_us": [
            [found.one_way_us(i, j) for j in range(found.n)] for i in range(found.n)
        ],
        "jitter_mean_us": [
            [round(found.jitter(i, j).mean_us, 1) for j in range(found.n)] for i in range(found.n)
        ],
        "loss": [list(row) for row in found.losses],
    }


def _prediction(found: Topology, each: Prediction) -> dict[str, Any]:
    return {
        "region": found.regions[each.region].name,
        "fast_ms": each.fast_ms,
        "slow_ms": each.slow_ms,
        "quorum": [found.regions[i].name for i in each.quorum],
        "leader": None if each.leader is None else found.regions[each.leader].name,
    }
